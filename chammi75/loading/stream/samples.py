"""What a stream yields: plain dicts, with tensors for numbers and lists for words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from chammi75.errors import ChammiError
from chammi75.loading.stream.lent import WorkerBatch

if TYPE_CHECKING:
    from chammi75.loading.stream.batches import Batch
    from chammi75.loading.stream.units import Mode


def as_batch(batch: Batch, mode: Mode, epoch: int, resume_at: int) -> dict[str, Any]:
    """A batch as a dict: tensors (N, …), and lists of N words.

    Parameters
    ----------
    batch : Batch
    mode : {"boc", "mca"}
        In ``boc`` there is one channel: ``channel`` is a tensor (N,) and ``channel_type`` a list of words; in ``mca``
        both are lists of lists, and ``num_channels`` says how many of the (N, C, …) are there.
    epoch : int
    resume_at : int
        Position that all ranks go on from when they have used this batch.
    """
    import torch
    from torch.utils.data import get_worker_info

    one = mode == "boc"
    sample: dict[str, Any] = {
        "pixels": torch.from_numpy(batch.pixels),
        "image_id": batch.image_ids,
        "channel": torch.tensor([kept[0] for kept in batch.channels])
        if one
        else [list(kept) for kept in batch.channels],
        "channel_type": [types[0] for types in batch.channel_types]
        if one
        else [list(types) for types in batch.channel_types],
        "channel_id": torch.from_numpy(batch.channel_ids[:, 0].copy() if one else batch.channel_ids),
        "study": batch.studies,
        "position": torch.from_numpy(np.ascontiguousarray(batch.positions)),
        "size": torch.from_numpy(batch.sizes),
        "window": torch.from_numpy(batch.windows),
        "dtype": batch.dtypes,
        "saturation": torch.from_numpy(batch.saturations),
        "epoch": epoch,
        "resume_at": resume_at,
    }
    if not one:
        sample["num_channels"] = torch.tensor([len(kept) for kept in batch.channels])
    return sample if get_worker_info() is None else WorkerBatch(sample)


def as_sample(batch: Batch, mode: Mode, epoch: int, resume_at: int) -> dict[str, Any]:
    """The only sample of a batch as a dict: pixels (C, H, W), numbers and words."""
    import torch

    one = mode == "boc"
    height, width = batch.sizes[0].tolist()
    count = len(batch.channels[0])  # a batch has more where another stood in for a sample of more
    return {
        "pixels": torch.from_numpy(batch.pixels[0, :count, :height, :width]),
        "image_id": batch.image_ids[0],
        "channel": batch.channels[0][0] if one else list(batch.channels[0]),
        "channel_type": batch.channel_types[0][0] if one else list(batch.channel_types[0]),
        "channel_id": int(batch.channel_ids[0, 0]) if one else batch.channel_ids[0, :count].tolist(),
        "study": batch.studies[0],
        "position": int(batch.positions[0]),
        "size": torch.from_numpy(batch.sizes[0]),
        "window": torch.from_numpy(batch.windows[0]),
        "dtype": batch.dtypes[0],
        "saturation": float(batch.saturations[0]),
        "epoch": epoch,
        "resume_at": resume_at,
    }


def place_after(used: Mapping[str, Any]) -> tuple[int, int]:
    """Epoch and position behind a batch, or sample, that was used.

    Raises
    ------
    ChammiError
        If it does not say where it stood.
    """
    try:
        epoch, position = used["epoch"], used["resume_at"]
    except (KeyError, TypeError):
        raise ChammiError(
            "after takes a batch as the stream yielded it: its keys epoch and resume_at say where to go on"
        ) from None
    try:
        return int(epoch), int(position)
    except (TypeError, ValueError):
        raise ChammiError(
            "after takes one batch of the stream: these are samples that a DataLoader has put together, and it does not"
            " say in which order; give batch_size to the stream, and batch_size=None to the DataLoader"
        ) from None
