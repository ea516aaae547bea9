"""``EmbeddingModel``: images in, features out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from chammi75.errors import ChammiError
from chammi75.training.intake import ModelInput, Unknown, as_inputs, channel_numbers, fitted, prepare

if TYPE_CHECKING:
    from chammi75.schemas.model_card import ModelConfig

Features = NDArray[np.float32]


class EmbeddingModel(nn.Module):  # type: ignore[misc,unused-ignore]
    """A network with all that is needed to give it images: ``load_model`` makes one.

    Parameters
    ----------
    backbone : nn.Module
        Called with pixels (N, C, H, W), and in mca with the channels' numbers (N, C); gives (N, width).
    config : ModelConfig
    sha256 : str
        Of its weights.

    Attributes
    ----------
    backbone : nn.Module
    config : ModelConfig
    sha256 : str

    Examples
    --------
    >>> model = load_model("runs/laptop/model")  # doctest: +SKIP
    >>> model.embed(image).shape  # doctest: +SKIP
    (1, 320)
    """

    def __init__(self, backbone: nn.Module, config: ModelConfig, sha256: str) -> None:
        super().__init__()
        self.backbone, self.config, self.sha256 = backbone, config, sha256

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def forward(self, pixels: torch.Tensor, channel_ids: torch.Tensor | None = None) -> torch.Tensor:
        """Features (N, width) of pixels (N, C, H, W) that are normalised and resized already."""
        features: torch.Tensor = self.backbone(pixels, channel_ids)
        return features

    def embed(
        self,
        images: Any,
        channels: Any = None,
        *,
        batch_size: int = 64,
        resample: bool = False,
        pixel_size_um: float | None = None,
        unknown_channels: Unknown = "refuse",
    ) -> Features:
        """Features of images.

        Parameters
        ----------
        images : MultiChannelImage, array (C, H, W) or (N, C, H, W), or list of images or arrays (C, H, W)
            uint8, uint16 or floats, of any height and width.
        channels : sequence of str, or one such sequence for each image, optional
            Of arrays: the types of their channels, which mca needs. Of a `MultiChannelImage`: which channels to take,
            in this order; all by default.
        batch_size : int
            Planes (boc) or images (mca) that go through the network together.
        resample : bool
            Take images that do not fit too, and make them fit: see `chammi75.training.intake.fitted`.
        pixel_size_um : float, optional
            Edge of a pixel of images that do not say it; it is not checked where nobody does.
        unknown_channels : {"refuse", "other"}
            mca: what becomes of a channel whose type the table lacks.

        Returns
        -------
        ndarray of float32, shape (N, D)
            mca: D is the width. boc: the features of each plane, alone, side by side in the order of the channels; D is
            the width times the number of channels.

        Raises
        ------
        ChammiError
            If an image does not fit what the model was trained on, or (boc) images differ in their number of channels:
            `embed_each` gives a list.
        """
        found = self.embed_each(
            images,
            channels,
            batch_size=batch_size,
            resample=resample,
            pixel_size_um=pixel_size_um,
            unknown_channels=unknown_channels,
        )
        lengths = sorted({len(features) for features in found})
        if len(lengths) > 1:
            counts = ", ".join(str(length // self.config.width) for length in lengths)
            raise ChammiError(
                f"the images have {counts} channels, so their features differ in length; embed_each gives a list"
            )
        return np.stack(found) if found else np.zeros((0, self.config.width), np.float32)

    def embed_each(
        self,
        images: Any,
        channels: Any = None,
        *,
        batch_size: int = 64,
        resample: bool = False,
        pixel_size_um: float | None = None,
        unknown_channels: Unknown = "refuse",
    ) -> list[Features]:
        """The same for images with any numbers of channels: the features of each, float32 of shape (D,)."""
        given = as_inputs(images, channels, pixel_size_um)
        return self.embed_inputs(given, batch_size=batch_size, resample=resample, unknown_channels=unknown_channels)

    def embed_inputs(
        self,
        given: Iterable[ModelInput],
        *,
        batch_size: int = 64,
        resample: bool = False,
        unknown_channels: Unknown = "refuse",
        size: tuple[int, int] | None = None,
    ) -> list[Features]:
        """The same for inputs; ``size`` is another height and width of the network's input than that of the model."""
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise ChammiError(f"batch_size is a whole number from 1 on, not {batch_size!r}")
        if unknown_channels not in get_args(Unknown):
            raise ChammiError(f"unknown_channels is 'refuse' or 'other', not {unknown_channels!r}")
        training = self.training
        self.eval()
        try:
            with torch.no_grad():
                batches = _Batches(self, batch_size, size or (self.config.image_size,) * 2)
                for one in given:
                    image = fitted(one, self.config, resample=resample, unknown=unknown_channels)
                    together = self.config.strategy == "mca"
                    numbers = channel_numbers(image, self.config, unknown_channels) if together else []
                    batches.add(image.pixels, tuple(numbers))
                return batches.finished()
        finally:
            self.train(training)


class _Batches:
    """Images on their way through a network; of each shape so many together as fill a batch.

    In mca only images with equally many channels are in a batch: none is padded, so that none can feel its neighbours.
    """

    def __init__(self, model: EmbeddingModel, batch_size: int, size: tuple[int, int]) -> None:
        self._model, self._batch_size, self._size = model, batch_size, size
        self._together = model.config.strategy == "mca"
        self._alike: list[tuple[int, NDArray[Any], tuple[int, ...]]] = []
        self._ready: dict[int, list[tuple[int, torch.Tensor, tuple[int, ...]]]] = {}
        self._features: list[list[Features]] = []

    def add(self, pixels: NDArray[Any], numbers: tuple[int, ...]) -> None:
        """One more image, (C, H, W), and its channels' numbers in the table."""
        if self._alike:
            last = self._alike[-1][1]
            full = sum(len(planes) for _, planes, _ in self._alike) >= self._batch_size
            if full or last.shape[1:] != pixels.shape[1:] or last.dtype != pixels.dtype:
                self._prepare()
        self._alike.append((len(self._features), pixels, numbers))
        self._features.append([])

    def finished(self) -> list[Features]:
        """Features of all images, in their order."""
        self._prepare()
        for key in sorted(self._ready):
            self._run(key, everything=True)
        return [np.concatenate(parts) for parts in self._features]

    def _prepare(self) -> None:
        if not self._alike:
            return
        device = self._model.device
        planes = torch.from_numpy(np.concatenate([pixels for _, pixels, _ in self._alike]))
        planes = (planes.float() if device.type == "mps" else planes).to(device)  # mps has no uint16
        made = prepare(planes, self._size, self._model.config.input.normalisation)
        counts = [len(pixels) for _, pixels, _ in self._alike]
        for (place, _, numbers), own in zip(self._alike, made.split(counts), strict=True):
            if self._together:
                self._ready.setdefault(len(own), []).append((place, own[:, 0], numbers))
            else:
                self._ready.setdefault(1, []).extend((place, plane, ()) for plane in own)
        self._alike = []
        for key in list(self._ready):
            self._run(key, everything=False)

    def _run(self, key: int, *, everything: bool) -> None:
        """The images of one number of channels (boc: planes) that fill a batch, or all."""
        waiting = self._ready[key]
        while len(waiting) >= self._batch_size or (everything and waiting):
            batch = waiting[: self._batch_size]
            del waiting[: self._batch_size]
            pixels = torch.stack([planes for _, planes, _ in batch])
            ids = torch.tensor([numbers for _, _, numbers in batch], device=pixels.device) if self._together else None
            features = self._model(pixels, ids).float().cpu().numpy()
            for (place, _, _), row in zip(batch, features, strict=True):
                self._features[place].append(row)


def state_sha256(state: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 of names, shapes, types and values of a network's parameters, whatever file they came in."""
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
