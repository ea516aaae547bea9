"""Random textures with a chosen grain, made in the frequency domain.

Biological matter is neither smooth nor white: chromatin, endoplasmic reticulum and cytoplasm each have structure around
a typical size. Band-limited noise gives it that, and ridges of such noise give networks.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float64]


@lru_cache(maxsize=8)
def frequencies(shape: tuple[int, int]) -> Image:
    """Frequency of each coefficient of a real 2-D FFT, in cycles per pixel: shape (H, W // 2 + 1), read-only."""
    rows = np.fft.fftfreq(shape[0])[:, None]
    columns = np.fft.rfftfreq(shape[1])[None, :]
    radius = np.hypot(rows, columns)
    radius.setflags(write=False)
    return np.asarray(radius)


@lru_cache(maxsize=64)
def _band(shape: tuple[int, int], period_px: float, octaves: float) -> tuple[Image, NDArray[np.int64]]:
    """Amplitudes of the coefficients that matter, and the rows that they lie in; their columns are the first ones."""
    radius = frequencies(shape)
    highest = 2.0 ** (3.5 * octaves) / period_px
    rows = np.flatnonzero(radius[:, 0] <= highest)
    columns = int(np.count_nonzero(radius[0] <= highest))
    kept = radius[rows, :columns].copy()
    kept[0, 0] = 1.0
    band = np.exp(-0.5 * (np.log2(kept * period_px) / octaves) ** 2)
    band[0, 0] = 0.0
    # so that white noise of unit variance comes out with unit variance; the half spectrum counts almost twice
    weight = np.full(columns, 2.0)
    weight[0] = 1.0
    if shape[1] % 2 == 0 and columns == radius.shape[1]:
        weight[-1] = 1.0
    band /= np.sqrt((weight * band**2).sum())
    band.setflags(write=False)
    return np.asarray(band), rows


def band_limited_noise(
    rng: np.random.Generator, shape: tuple[int, int], *, period_px: float, octaves: float = 0.5
) -> Image:
    """Gaussian noise whose power lies around one period: zero mean, unit variance, periodic at the borders.

    Parameters
    ----------
    rng : numpy.random.Generator
        Where the randomness comes from.
    shape : tuple of int
        Height and width in pixels.
    period_px : float
        The period where the power is largest, in pixels.
    octaves : float
        Standard deviation of the band on a log2 frequency axis.

    Returns
    -------
    numpy.ndarray
        float64 of ``shape``.

    Examples
    --------
    >>> noise = band_limited_noise(np.random.default_rng(0), (64, 64), period_px=8)
    >>> noise.shape, abs(float(noise.mean())) < 1e-9
    ((64, 64), True)
    """
    band, rows = _band(shape, float(period_px), float(octaves))
    noise = rng.standard_normal((*band.shape, 2)).view(np.complex128)[..., 0]
    # low frequencies fill only a corner of the spectrum: transform just its columns
    spectrum = np.zeros((shape[0], band.shape[1]), dtype=np.complex128)
    spectrum[rows] = noise * (band * (shape[0] * shape[1] / np.sqrt(2.0)))
    return np.fft.irfft(np.fft.ifft(spectrum, axis=0), n=shape[1], axis=1)


def ridges(noise: Image, *, sharpness: float = 2.0) -> Image:
    """A network of thin bright lines, 0 to 1: the zero crossings of ``noise``, where two of its blobs meet."""
    return np.asarray(np.exp(-sharpness * np.abs(noise)))
