"""What a camera does to an image: shot noise, read noise, offset, gain, and an end to its range."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chammi75.mini.textures import Image


@dataclass(frozen=True)
class Camera:
    """A scientific camera.

    Parameters
    ----------
    significant_bits : int
        Bits of the analogue-to-digital converter; the brightest count is ``2 ** significant_bits - 1``.
    offset : float
        Counts of a pixel that no light reached.
    electrons_per_count : float
        Gain.
    read_noise_electrons : float
        Standard deviation of the read noise.
    """

    significant_bits: int
    offset: float
    electrons_per_count: float
    read_noise_electrons: float

    @property
    def brightest(self) -> int:
        """The largest count."""
        return int(2**self.significant_bits - 1)

    def expose(self, rng: np.random.Generator, electrons: Image) -> NDArray[np.uint16]:
        """Counts for an image of expected ``electrons`` per pixel: uint16 of the same shape.

        Shot noise is a Poisson variate by its Cornish-Fisher expansion, lambda + sqrt(lambda) z + (z² - 1) / 6, which
        has the right mean, variance and, where there is light, skewness. Unlike a rejection sampler it takes one number
        per pixel whatever lambda is, so a difference in the last bit between two machines' arithmetic cannot shift all
        pixels that follow.

        Examples
        --------
        >>> camera = Camera(significant_bits=12, offset=100.0, electrons_per_count=2.0, read_noise_electrons=3.0)
        >>> int(camera.expose(np.random.default_rng(0), np.full((64, 64), 1000.0)).mean().round(-1))
        600
        """
        expected = np.maximum(electrons, 0.0)
        normal = rng.standard_normal(expected.shape)
        # read noise is added in variance, so that one normal number carries both
        collected = expected + np.sqrt(expected + self.read_noise_electrons**2) * normal
        # no skewness where there is no light
        collected += np.minimum(expected, 1.0) * (normal * normal - 1.0) / 6.0
        counts = np.rint(self.offset + collected / self.electrons_per_count)
        return np.clip(counts, 0, self.brightest).astype(np.uint16)
