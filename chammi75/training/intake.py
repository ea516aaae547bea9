"""What a model takes: whether images fit what it was trained on, and what is done to their planes first.

Planes are treated as in training, without what is random there: each is normalised over the whole image, then resized
to the model's input, bilinear and antialiased. Saturated pixels stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from chammi75.errors import ChammiError
from chammi75.loading.image import MultiChannelImage
from chammi75.training.views.normalisation import normalise

if TYPE_CHECKING:
    from chammi75.schemas.model_card import ModelConfig

Unknown = Literal["refuse", "other"]

PIXEL_SIZE_FACTOR = 2.0
"""Pixels may be so many times as small as the smallest of the training, or as large as its largest."""

_OTHER = "other"
_GREATEST = 1e18
"""Values beyond, or their deviation, overflow float32 when they are squared."""
_BYTES = 2**26
"""Planes of at most this size, as float32, are prepared together."""


@dataclass(frozen=True)
class ModelInput:
    """An image for a model.

    Attributes
    ----------
    name : str
        What to call it in a message.
    pixels : ndarray, shape (C, H, W)
    channels : tuple of (str or None), optional
        Types of its channels; None where nobody says.
    pixel_size_um : float, optional
    """

    name: str
    pixels: NDArray[Any]
    channels: tuple[str | None, ...] | None = None
    pixel_size_um: float | None = None


def as_inputs(images: Any, channels: Any = None, pixel_size_um: float | None = None) -> Iterator[ModelInput]:
    """Images as ``EmbeddingModel.embed`` takes them, one after the other; planes are decoded as they come.

    Parameters
    ----------
    images : MultiChannelImage, array (C, H, W) or (N, C, H, W), or sequence of images or arrays (C, H, W)
        Arrays of NumPy, tensors of PyTorch.
    channels : sequence of str, or a sequence of such sequences, optional
        Types of an array's channels; of a `MultiChannelImage`, which of its channels to take, and in which order. One
        sequence for all images, or one for each.
    pixel_size_um : float, optional
        Edge of a pixel, where images do not say it themselves.

    Raises
    ------
    ChammiError
        If something is none of these, or the edge is no length.
    """
    if pixel_size_um is not None and not 0 < pixel_size_um < np.inf:
        raise ChammiError(f"pixel_size_um is the edge of a pixel in µm, a number above 0, not {pixel_size_um}")
    several = _several(images)
    for number, (image, names) in enumerate(zip(several, _names_of_each(channels, len(several)), strict=True)):
        if isinstance(image, MultiChannelImage):
            yield _of_image(image, names, number, pixel_size_um)
        else:
            yield _of_array(image, names, number, pixel_size_um)


def _several(images: Any) -> Sequence[Any]:
    if isinstance(images, MultiChannelImage):
        return [images]
    if isinstance(images, torch.Tensor):
        images = _array_of(images)
    if isinstance(images, np.ndarray):
        if images.ndim not in (3, 4):
            raise ChammiError(f"images are an array of shape (C, H, W) or (N, C, H, W), and this is {images.shape}")
        return [images] if images.ndim == 3 else list(images)
    if isinstance(images, Sequence) and not isinstance(images, str | bytes):
        return images
    raise ChammiError(
        "images are a MultiChannelImage, an array (C, H, W) or (N, C, H, W), or a list of them, not a"
        f" {type(images).__name__}"
    )


def _array_of(tensor: torch.Tensor) -> NDArray[Any]:
    tensor = tensor.detach().cpu()
    known: NDArray[Any] = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()  # NumPy has none
    return known


def _names_of_each(channels: Any, count: int) -> Sequence[Any]:
    if channels is None:
        return [None] * count
    if isinstance(channels, str) or not isinstance(channels, Sequence):
        raise ChammiError(f"channels are a list of channel types, [{channels!r}], not {channels!r}")
    if any(isinstance(entry, Sequence) and not isinstance(entry, str) for entry in channels):
        if len(channels) != count:
            raise ChammiError(f"channels has lists for {len(channels)} images, and there are {count}")
        return channels
    return [channels] * count


def _of_image(image: MultiChannelImage, names: Any, number: int, size: float | None) -> ModelInput:
    name = image.image_id or f"image {number}"
    known = image.channels
    kept = range(len(known))
    if names is not None:
        try:
            kept = [image.channel_number(key) for key in names]  # type: ignore[assignment]
        except (KeyError, IndexError) as error:
            raise ChammiError(f"{name}: {error.args[0]}") from error
    pixels = np.asarray(image) if len(kept) == len(known) else np.stack([image[k] for k in kept])
    if len(kept) == len(known) and list(kept) != list(range(len(known))):
        pixels = pixels[list(kept)]
    return ModelInput(name, pixels, tuple(known[k] for k in kept), image.pixel_size_um or size)


def _of_array(image: Any, names: Any, number: int, size: float | None) -> ModelInput:
    pixels = _array_of(image) if isinstance(image, torch.Tensor) else image
    if not isinstance(pixels, np.ndarray) or pixels.ndim != 3 or not pixels.size:
        shape = f"an array of shape {pixels.shape}" if isinstance(pixels, np.ndarray) else f"a {type(image).__name__}"
        raise ChammiError(f"image {number} is {shape}: give a MultiChannelImage, or an array (C, H, W)")
    if names is not None and len(names) != len(pixels):
        raise ChammiError(f"image {number} has {len(pixels)} channels, and channels names {len(names)}")
    return ModelInput(f"image {number}", pixels, None if names is None else tuple(names), size)


def fitted(
    given: ModelInput, config: ModelConfig, *, resample: bool = False, unknown: Unknown = "refuse"
) -> ModelInput:
    """An image, if it fits what the model was trained on.

    Parameters
    ----------
    given : ModelInput
    config : ModelConfig
    resample : bool
        Make it fit where that can be done: pixels that are too small are averaged to the trained size, and another
        pixel type or range of values is taken, which normalisation by the plane's own deviation makes harmless (without
        that, values are scaled from the range of their type to that of the training).
    unknown : {"refuse", "other"}
        mca: what becomes of a channel whose type the table lacks.

    Raises
    ------
    ChammiError
        If it does not fit; the message says what the model was trained on, and what can be done.
    """
    pixels = _of_known_type(given)
    _check_channels(given, config, unknown)
    pixels = _in_range(given, pixels, config, resample)
    pixels = _of_known_size(given, pixels, config, resample)
    return given if pixels is given.pixels else replace(given, pixels=pixels)


def _of_known_type(given: ModelInput) -> NDArray[Any]:
    pixels = given.pixels
    if pixels.dtype.name in ("uint8", "uint16"):
        return pixels
    if pixels.dtype.kind != "f":
        raise ChammiError(
            f"{given.name}: pixels are {pixels.dtype}; a model takes uint8, uint16 or float32: convert them, keeping"
            " the values"
        )
    if not np.isfinite(pixels).all():
        raise ChammiError(f"{given.name}: pixels are not all finite numbers; give NaN and infinite ones a value first")
    if pixels.dtype.itemsize > 2 and float(np.abs(pixels).max()) > _GREATEST:
        raise ChammiError(
            f"{given.name}: pixels go up to {float(np.abs(pixels).max()):g}, and values beyond {_GREATEST:g} overflow"
            " float32: scale them first"
        )
    return pixels.astype(np.float32, copy=False)


def _check_channels(given: ModelInput, config: ModelConfig, unknown: Unknown) -> None:
    if config.strategy == "boc":
        return
    if given.channels is None:
        raise ChammiError(
            f"{given.name}: this model tells channels apart by their types; give channels=[…], one of"
            f" {', '.join(config.channels)} for each of the {len(given.pixels)}"
        )
    channel_numbers(given, config, unknown)


def channel_numbers(given: ModelInput, config: ModelConfig, unknown: Unknown) -> list[int]:
    """Each channel's number in the table of a multi-channel model.

    Raises
    ------
    ChammiError
        If the table lacks one.
    """
    table = {name: number for number, name in enumerate(config.channels)}
    numbers = []
    for name in given.channels or ():
        if name not in table and unknown == "other" and _OTHER in table:
            name = _OTHER
        if name not in table:
            near = get_close_matches(str(name), config.channels, 1)
            hint = f"did you mean {near[0]}? " if near else ""
            rest = "; unknown_channels='other' takes it as one of any other type" if _OTHER in table else ""
            shown = "a channel of unknown type" if name is None else f"a channel {name!r}"
            raise ChammiError(
                f"{given.name}: has {shown}, which the model was not trained on; {hint}it knows"
                f" {', '.join(config.channels)}{rest}"
            )
        numbers.append(table[name])
    return numbers


def _in_range(given: ModelInput, pixels: NDArray[Any], config: ModelConfig, resample: bool) -> NDArray[Any]:
    settings = config.input
    kind = pixels.dtype.name
    problem = None
    if kind not in settings.dtypes:
        problem = f"pixels are {kind}, and the model was trained on {' and '.join(settings.dtypes)}"
    elif settings.value_range is not None and not _always_inside(pixels, settings.value_range):
        low, high = settings.value_range
        least, greatest = float(pixels.min()), float(pixels.max())
        if least < low or greatest > high:
            problem = f"values go from {least:g} to {greatest:g}, and those of the training from {low:g} to {high:g}"
    if problem is None:
        return pixels
    if not resample:
        raise ChammiError(
            f"{given.name}: {problem}; give it images as they were trained on, or say resample=True to take it all the"
            " same"
        )
    if settings.normalisation == "plane":
        return pixels
    if settings.value_range is None or pixels.dtype.kind == "f":
        raise ChammiError(
            f"{given.name}: {problem}; this model does not normalise planes, and from which range to scale values is"
            " not known: scale them as in the training, and give them as one of its types"
        )
    low, high = settings.value_range
    scaled = low + pixels.astype(np.float32) * np.float32((high - low) / np.iinfo(pixels.dtype).max)
    return np.asarray(scaled, np.float32)


def _always_inside(pixels: NDArray[Any], values: tuple[float, float]) -> bool:
    return bool(pixels.dtype.kind == "u" and values[0] <= 0 and values[1] >= np.iinfo(pixels.dtype).max)


def _of_known_size(given: ModelInput, pixels: NDArray[Any], config: ModelConfig, resample: bool) -> NDArray[Any]:
    own, trained = given.pixel_size_um, config.data.pixel_size_um
    if own is None or trained is None:
        return pixels
    least, greatest = trained
    if least / PIXEL_SIZE_FACTOR <= own <= greatest * PIXEL_SIZE_FACTOR:
        return pixels
    if not resample:
        raise ChammiError(
            f"{given.name}: pixels are {own:g} µm, and those of the training were {least:g} to {greatest:g} µm"
            f" ({PIXEL_SIZE_FACTOR:g} times beyond is taken); say resample=True to"
            f" {'take it all the same' if own > greatest else 'have it brought there'}"
        )
    if own > greatest:  # no finer pixels can be made of coarse ones, and all are resized to the input's edge anyway
        return pixels
    size = [max(1, round(edge * own / least)) for edge in pixels.shape[1:]]
    return np.asarray(resized(torch.from_numpy(pixels.astype(np.float32))[:, None], size)[:, 0].numpy(), np.float32)


def resized(planes: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Planes (P, 1, H, W) of another height and width: bilinear, antialiased, as torchvision's Resize."""
    if tuple(planes.shape[2:]) == tuple(size):
        return planes
    return functional.interpolate(planes, list(size), mode="bilinear", align_corners=False, antialias=True)


def prepare(pixels: torch.Tensor, size: Sequence[int], normalisation: str) -> torch.Tensor:
    """Planes of one height and width as the network takes them.

    Parameters
    ----------
    pixels : Tensor, shape (P, H, W)
    size : (int, int)
        Height and width of the network's input.
    normalisation : {"plane", "none"}
        ``plane``: each plane less its mean, over the root of its biased variance and 1e-7, before it is resized.

    Returns
    -------
    Tensor of float32, shape (P, 1, *size)

    Examples
    --------
    >>> planes = torch.arange(12.0).reshape(1, 3, 4)
    >>> made = prepare(planes, (3, 4), "plane")
    >>> made.shape, round(float(made.mean()), 6) + 0, round(float(made.std(correction=0)), 6)
    (torch.Size([1, 1, 3, 4]), 0.0, 1.0)
    """
    together = max(1, _BYTES // (4 * pixels.shape[1] * pixels.shape[2]))
    made = []
    for some in pixels.split(together):
        planes = some[:, None].to(torch.float32)
        if normalisation == "plane":
            inside = torch.ones((1, 1, *planes.shape[2:]), dtype=torch.bool, device=planes.device)
            planes = normalise(planes, inside.expand(len(planes), -1, -1, -1)).pixels
        made.append(resized(planes, size))
    return torch.cat(made)
