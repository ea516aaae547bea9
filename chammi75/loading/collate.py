"""Samples into a batch for ``torch.utils.data.DataLoader``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from chammi75.loading.image import MultiChannelImage


def collate(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Samples as one batch.

    Images and arrays of one shape and dtype are stacked into a tensor (N, C, H, W), of mixed ones they are a list of
    tensors; groups of the record become groups of lists; numbers, words and None stay lists. Images are decoded here,
    in the worker.

    Parameters
    ----------
    samples : sequence of mapping
        From a dataset of ``load_dataset``.

    Examples
    --------
    >>> collate([{"image_id": "a", "geometry": {"width": 3}}, {"image_id": "b", "geometry": {"width": 4}}])
    {'image_id': ['a', 'b'], 'geometry': {'width': [3, 4]}}
    """
    return {name: _column([sample.get(name) for sample in samples]) for name in samples[0]} if samples else {}


def _column(values: list[Any]) -> Any:
    first = next((value for value in values if value is not None), None)
    if isinstance(first, MultiChannelImage):
        return _stacked([None if value is None else value.to_torch() for value in values])
    if isinstance(first, np.ndarray) or type(first).__module__ == "torch":
        import torch

        return _stacked([torch.as_tensor(value) if isinstance(value, np.ndarray) else value for value in values])
    if isinstance(first, Mapping) and all(isinstance(value, Mapping) for value in values):
        return {name: _column([value.get(name) for value in values]) for name in first}
    return values


def _stacked(tensors: list[Any]) -> Any:
    import torch

    shapes = {(tuple(tensor.shape), tensor.dtype) if tensor is not None else None for tensor in tensors}
    return torch.stack(tensors) if len(shapes) == 1 and None not in shapes else tensors
