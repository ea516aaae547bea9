"""What a microscope does to light: point spread function, haze, defocus, uneven illumination, and phase made visible.

Fluorescence is linear and incoherent, so each channel is multiplied in the frequency domain by an optical transfer
function; a Gaussian stands for the Airy pattern (Zhang, Zerubia and Olivo-Marin 2007, Applied Optics 46:1819: sigma =
0.225 wavelength / NA for a wide-field microscope). Bright field is coherent: a complex wave is filtered by the pupil
and squared, once for each direction of the condenser's light (Abbe's method); a ring in the pupil makes it phase
contrast. What absorbs light, as a stained section does, follows the law of Beer and Lambert.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chammi75.mini.textures import Image


@dataclass(frozen=True)
class Objective:
    """An objective with its camera.

    Parameters
    ----------
    magnification : float
        Nominal magnification.
    numerical_aperture, refractive_index : float
        Of the objective, and of its immersion medium.
    pixel_size_um : float
        Size of a camera pixel in the sample.
    """

    magnification: float
    numerical_aperture: float
    refractive_index: float
    pixel_size_um: float

    def to_px(self, length_um: float) -> float:
        """A length in the sample, in pixels."""
        return length_um / self.pixel_size_um

    def psf_sigma_px(self, wavelength_um: float, defocus_um: float = 0.0) -> float:
        """Standard deviation of the Gaussian point spread function, in pixels, in focus or ``defocus_um`` away from it.

        It widens like a beam around its waist, over a Rayleigh range of refractive index times wavelength / NA².
        """
        waist = 0.225 * wavelength_um / self.numerical_aperture
        return float(
            waist * np.sqrt(1.0 + (defocus_um / self.depth_of_field_um(wavelength_um)) ** 2) / self.pixel_size_um
        )

    def depth_of_field_um(self, wavelength_um: float) -> float:
        """Depth of field, wave-optical part, in µm."""
        return self.refractive_index * wavelength_um / self.numerical_aperture**2


def gaussian_transfer(shape: tuple[int, int], sigma_px: float) -> Image:
    """Transfer function of a Gaussian blur for the half spectrum of a real image of ``shape``."""
    exponent = -2.0 * (np.pi * sigma_px) ** 2
    rows = np.exp(exponent * np.fft.fftfreq(shape[0]) ** 2)
    columns = np.exp(exponent * np.fft.rfftfreq(shape[1]) ** 2)
    return np.asarray(rows[:, None] * columns[None, :])


def blur(image: Image, spread: Sequence[tuple[float, float]]) -> Image:
    """Blur by a sum of Gaussians, periodic at the borders.

    Parameters
    ----------
    image : numpy.ndarray
        float64, shape (H, W).
    spread : sequence of (weight, sigma_px)
        The point spread function: usually a sharp core and one or two wide, weak terms for out-of-focus haze.

    Examples
    --------
    >>> point = np.zeros((32, 32))
    >>> point[16, 16] = 1.0
    >>> round(float(blur(point, [(0.9, 1.0), (0.1, 4.0)]).sum()), 6)
    1.0
    """
    shape = (image.shape[0], image.shape[1])
    transfer = sum(weight * gaussian_transfer(shape, sigma) for weight, sigma in spread)
    return np.fft.irfft2(np.fft.rfft2(image) * transfer, s=shape)


def focus_through(
    layers: NDArray[np.float64],
    depths_um: Sequence[float],
    planes_um: Sequence[float],
    *,
    objective: Objective,
    wavelength_um: float,
    section_um: float,
) -> NDArray[np.float64]:
    """Images of a thick sample at several focal planes, as a confocal microscope takes them.

    Parameters
    ----------
    layers : numpy.ndarray
        float64, shape (L, H, W): emitted light of thin layers of the sample.
    depths_um : sequence of float
        Where those layers lie.
    planes_um : sequence of float
        Where the microscope focuses.
    section_um : float
        Thickness that the pinhole lets through: light from a layer this far off is halved.

    Returns
    -------
    numpy.ndarray
        float64, shape (len(planes_um), H, W). Each layer is blurred by its distance from the focus, and dimmed by the
        pinhole.
    """
    shape = (layers.shape[1], layers.shape[2])
    spectra = np.fft.rfft2(layers)
    images = np.empty((len(planes_um), *shape))
    for index, plane in enumerate(planes_um):
        total = np.zeros_like(spectra[0])
        for spectrum, depth in zip(spectra, depths_um, strict=True):
            passed = 1.0 / (1.0 + ((depth - plane) / section_um) ** 2)
            total += spectrum * (
                passed * gaussian_transfer(shape, objective.psf_sigma_px(wavelength_um, depth - plane))
            )
        images[index] = np.fft.irfft2(total, s=shape)
    return images


def illumination(rng: np.random.Generator, shape: tuple[int, int], *, falloff: float) -> Image:
    """Relative brightness of the lamp over the field, 1 at its brightest: a vignette, off centre and slightly oval.

    Parameters
    ----------
    rng : numpy.random.Generator
        Seed it by plate and channel: all fields of a plate share their lamp.
    falloff : float
        How much is lost in the corners, as a share (0.25: a quarter).
    """
    centre_y, centre_x = rng.uniform(-0.18, 0.18, size=2)
    oval = rng.uniform(0.85, 1.15)
    y = np.linspace(-1, 1, shape[0])[:, None] - centre_y
    x = np.linspace(-1, 1, shape[1])[None, :] - centre_x
    profile = 1.0 / (1.0 + 0.5 * falloff / (1.0 - falloff) * (y * y * oval + x * x / oval))
    return np.asarray(profile / profile.max())


def bright_field(
    wave: NDArray[np.complex128],
    *,
    objective: Objective,
    wavelength_um: float,
    defocus_um: float,
    condenser: Sequence[tuple[float, float, float]],
    condenser_spread: float,
) -> Image:
    """Intensity that a bright-field microscope sees of a transparent sample.

    Parameters
    ----------
    wave : numpy.ndarray
        complex128, shape (H, W): the wave just behind the sample, exp(i phase - absorption).
    defocus_um : float
        Distance of the sample from the focus. A pure phase object is invisible in focus; this turns phase into rings.
    condenser : sequence of (weight, y, x)
        Directions of the light, as numerical apertures; uneven weights give the relief of oblique light.
    condenser_spread : float
        Numerical aperture that each of these directions stands for (standard deviation): out of focus, it washes
        fringes out.

    Returns
    -------
    numpy.ndarray
        float64, shape (H, W), about 1 where nothing is.
    """
    intensity = _abbe(wave, objective, wavelength_um, defocus_um, condenser, None)
    washed_out_px = abs(defocus_um) * condenser_spread / objective.pixel_size_um
    return blur(intensity, [(1.0, washed_out_px)])


@dataclass(frozen=True)
class PhaseRing:
    """The ring of a phase-contrast objective, onto which its condenser sends all direct light.

    Parameters
    ----------
    inner, outer : float
        Where it begins and ends, as numerical apertures.
    transmission : float
        Share of the amplitude that it lets pass; it delays what passes by three quarters of a wave (positive contrast).
    """

    inner: float
    outer: float
    transmission: float


def phase_contrast(
    wave: NDArray[np.complex128],
    *,
    objective: Objective,
    wavelength_um: float,
    defocus_um: float,
    ring: PhaseRing,
    directions: int = 8,
) -> Image:
    """Intensity that a phase-contrast microscope sees of a transparent sample (Zernike 1942, Physica 9:686).

    The direct light is dimmed and shifted by a quarter of a wave against what the sample scatters, so that delay
    becomes darkness. Light that is scattered by so little that it stays on the ring is shifted too: that is the halo.

    Parameters
    ----------
    wave : numpy.ndarray
        complex128, shape (H, W): the wave just behind the sample, exp(i phase - absorption).
    directions : int
        How many points of the condenser's annulus are summed.

    Returns
    -------
    numpy.ndarray
        float64, shape (H, W), about 1 where nothing is.
    """
    turn = 2 * np.pi * (np.arange(directions) + 0.5) / directions
    middle = 0.5 * (ring.inner + ring.outer)
    condenser = [(1.0, float(middle * np.sin(angle)), float(middle * np.cos(angle))) for angle in turn]
    return _abbe(wave, objective, wavelength_um, defocus_um, condenser, ring) / ring.transmission**2


def _abbe(
    wave: NDArray[np.complex128],
    objective: Objective,
    wavelength_um: float,
    defocus_um: float,
    condenser: Sequence[tuple[float, float, float]],
    ring: PhaseRing | None,
) -> Image:
    """Intensity of the image, averaged over the directions of the condenser's light."""
    rows = np.fft.fftfreq(wave.shape[0], objective.pixel_size_um)[:, None]
    columns = np.fft.fftfreq(wave.shape[1], objective.pixel_size_um)[None, :]
    spectrum = np.fft.fft2(wave)
    cutoff = objective.numerical_aperture / wavelength_um
    intensity = np.zeros(wave.shape)
    for weight, tilt_y, tilt_x in condenser:
        squared_y = (rows + tilt_y / wavelength_um) ** 2
        squared_x = (columns + tilt_x / wavelength_um) ** 2
        # a soft rim: a hard one rings, and real pupils are apodised by coatings and aberrations
        rim = (squared_y + squared_x) / cutoff**2
        for _ in range(3):
            rim *= rim
        delay = -1j * np.pi * wavelength_um * defocus_um
        pupil = np.exp(delay * squared_y) * np.exp(delay * squared_x) / (1.0 + rim)
        if ring is not None:
            radius = np.sqrt(squared_y + squared_x) * wavelength_um
            pupil *= np.where((radius >= ring.inner) & (radius <= ring.outer), -1j * ring.transmission, 1.0)
        passed = np.fft.ifft2(spectrum * pupil)
        intensity += weight * (passed.real**2 + passed.imag**2)
    return intensity / sum(weight for weight, _, _ in condenser)
