"""Golden vectors: what a model made of a fixed input where it was saved, and must make of it wherever it is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from chammi75.errors import ReadError
from chammi75.schemas.model_card import GoldenVector
from chammi75.training.intake import ModelInput
from chammi75.training.randomness import pixel_noise

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chammi75.training.embedder import EmbeddingModel

_TOLERANCE = 1e-3
"""Of the features' root mean square. Builds of PyTorch differ by 1e-5 of it; another rule for positions by far more."""

_CHANNELS = 3
_PIXELS = (72, 56)
_PATCHES = (3, 5)


def golden_pixels(seed: int, channels: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Pseudo-random pixels (C, H, W) that brighten to the right, so that turning them over is noticed.

    Examples
    --------
    >>> golden_pixels(0, 1, (2, 3)).shape
    (1, 2, 3)
    """
    noise = pixel_noise(seed, 0, torch.zeros(1, dtype=torch.int64), "golden vector", (channels, *size))[0]
    ramp = torch.arange(size[1], dtype=torch.float32) / size[1]
    pixels: NDArray[np.uint8] = (127 * noise + 128 * ramp).floor().to(torch.uint8).numpy()
    return pixels


def make_golden(model: EmbeddingModel) -> list[GoldenVector]:
    """What a model makes of the input at its own size, and at one where positions are interpolated."""
    config = model.config
    channels = 1 if config.strategy == "boc" else min(_CHANNELS, len(config.channels))
    sizes = (
        (config.image_size, config.image_size),
        (_PATCHES[0] * config.patch_size, _PATCHES[1] * config.patch_size),
    )
    empty = GoldenVector(channels=channels, pixels=_PIXELS, size=sizes[0], features=[0.0])
    found = []
    for size in sizes:
        golden = empty.model_copy(update={"size": size})
        features = [float(f"{value:.8g}") for value in _features(model, golden).tolist()]
        found.append(golden.model_copy(update={"features": features}))
    return found


def check_golden(model: EmbeddingModel, goldens: Sequence[GoldenVector], name: str) -> None:
    """Whether a model gives its golden vectors.

    Raises
    ------
    ReadError
        If it does not, with how far it is off.
    """
    for golden in goldens:
        expected = np.array(golden.features)
        found = _features(model, golden)
        scale = float(np.sqrt(np.mean(expected**2)))
        off = float(np.abs(found - expected).max()) / max(scale, 1e-12) if found.shape == expected.shape else np.inf
        if not off <= _TOLERANCE:
            raise ReadError(
                name,
                f"gives other features here than where it was saved: its golden vector at {golden.size[0]} x"
                f" {golden.size[1]} pixels is off by {off:.2g} of its size ({_TOLERANCE:g} at most); this build of"
                f" PyTorch ({torch.__version__}) or of chammi75 computes something else",
            )


def _features(model: EmbeddingModel, golden: GoldenVector) -> NDArray[Any]:
    config = model.config
    pixels = golden_pixels(golden.seed, golden.channels, golden.pixels)
    kind = config.input.dtypes[0]
    names = tuple(config.channels[: golden.channels]) if config.strategy == "mca" else None
    image = ModelInput("golden vector", pixels.astype(kind), names)
    features: NDArray[Any] = model.embed_inputs([image], resample=True, size=golden.size)[0]
    return features
