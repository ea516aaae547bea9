"""One image of a TIFF: how its axes (T, Z, C, unnamed pages, samples) map to pages of the file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from chammi75.errors import ReadError
from chammi75.readers.image_file import Series
from chammi75.readers.tiff.calibration import Calibration
from chammi75.readers.tiff.ome_xml import OmeImage, OmePlane
from chammi75.readers.tiff.samples import Samples, describe_samples

_UNNAMED = "I"
_NAMED = "TZC"


@dataclass(frozen=True)
class StoredPages:
    """The pages of a tifffile series; with ``offset`` they lie one behind the other from there."""

    pages: Any
    keyframe: Any
    offset: int | None


@dataclass(frozen=True)
class OmePages:
    """The pages of an OME image, in the order T, Z, C."""

    image: OmeImage
    missing_files: frozenset[str]
    own_pages: int

    @property
    def count(self) -> int:
        """How many pages the OME-XML declares."""
        return math.prod(self.image.sizes.values())

    def at(self, number: int) -> OmePlane | None:
        """Where the page ``number`` lies; None if nowhere."""
        rest, c = divmod(number, self.image.sizes["C"])
        t, z = divmod(rest, self.image.sizes["Z"])
        plane = self.image.planes.get((t, z, c))
        if plane is None or plane.file in self.missing_files or (plane.file is None and plane.page >= self.own_pages):
            return None
        return plane


@dataclass(frozen=True)
class Stack:
    """A series and where its planes are.

    Parameters
    ----------
    series : Series
    outer : tuple of (axis, length)
        The axes across pages, slowest first: T, Z, C or I (unnamed), each length.
    depth : int
        Z-slices within a page, for the rare volumetric TIFF; else 1.
    samples : tuple of int
        The samples of a page that are channels.
    planar : bool
        Whether a page stores its samples one after the other.
    pages : StoredPages or OmePages
    palette : ndarray, shape (n, 1 or 3), optional
        What the values of a page stand for, where they are numbers of colours.
    """

    series: Series
    outer: tuple[tuple[str, int], ...]
    depth: int
    samples: tuple[int, ...]
    planar: bool
    pages: StoredPages | OmePages
    palette: np.ndarray | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.series.height, self.series.width

    @property
    def count(self) -> int:
        """How many pages there are."""
        return math.prod(length for _, length in self.outer)

    def locate(self, *, z: int, t: int, c: int, page: int) -> tuple[int, int, int]:
        """Number of the page, z-slice within it, sample within it, of one plane."""
        outer_c, sample = divmod(c, len(self.samples))
        at = {"T": t, "Z": 0 if self.depth > 1 else z, "C": outer_c}
        unnamed = [length for axis, length in self.outer if axis == _UNNAMED]
        within = list(np.unravel_index(page, unnamed)) if unnamed else []
        number = 0
        for axis, length in self.outer:
            number = number * length + (int(within.pop(0)) if axis == _UNNAMED else at[axis])
        return number, z if self.depth > 1 else 0, self.samples[sample]

    def differs_from(self, page: Any) -> bool:
        """Whether a page has not the size, dtype or samples of this image."""
        shape = (page.imagelength, page.imagewidth)
        planar = page.shaped[0] > 1
        return shape != self.size or str(page.dtype) != self.series.dtype or planar != self.planar


def stack_of_ome(image: OmeImage, page: Any, pages: OmePages, index: int, missing: int) -> Stack:
    """The stack of an OME image, of which ``page`` is one page."""
    samples = describe_samples(page, from_microscope=True)
    names: list[str | None] = []
    for name in image.channel_names:
        several = len(samples.kept) > 1 and len(image.channel_names) > 1
        names += [f"{name or ''} {part}".strip() if several and part else part or name for part in samples.names]
    notes = list(samples.notes)
    if missing:
        notes.append(f"{missing} of {pages.count} planes that its OME-XML declares are missing")
    if str(page.dtype) != image.dtype:
        notes.append(f"its OME-XML declares {image.dtype}, its pages are {page.dtype}")
    outer = tuple((axis, image.sizes[axis]) for axis in _NAMED)
    stored_order = "".join(reversed(image.order[2:]))
    calibration = Calibration(image.pixel_size_um, image.magnification)
    declared = image.significant_bits
    bits = page.bitspersample if declared is None or not 0 < declared <= page.bitspersample else declared
    stack = _stack(page, outer, samples, pages, index, calibration, tuple(names), stored_order)
    series = replace(stack.series, notes=tuple(notes), significant_bits=None if page.dtype.kind == "f" else bits)
    return replace(stack, series=series)


def stack_of_pages(found: Any, index: int, dialect: str, calibration: Calibration, path: str, size_bytes: int) -> Stack:
    """The stack of a ``tifffile.TiffPageSeries``.

    Raises
    ------
    ReadError
        If the file declares more pages than it has.
    """
    page = found.keyframe
    axes, shape = found.get_axes(squeeze=False), found.get_shape(squeeze=False)
    if "S" not in page.axes and axes.endswith("S") and shape[-1] == 1:
        axes, shape = axes[:-1], shape[:-1]
    cut = len(axes) - len(page.axes)
    if cut < 0 or math.prod(shape[cut:]) != math.prod(page.shape):
        raise ReadError(path, f"it declares an image of {axes} {shape}, its pages are {page.axes} {page.shape}")
    named = [
        (axis if axis in _NAMED else _UNNAMED, int(length))
        for axis, length in zip(axes[:cut], shape[:cut], strict=True)
    ]
    outer = tuple((axis, length) for axis, length in named if length > 1 or axis != _UNNAMED)
    count = math.prod(length for _, length in outer)
    offset = found.dataoffset if page.is_final else None
    if offset is not None and offset + count * page.nbytes > size_bytes:
        raise ReadError(path, f"it declares {count} planes of {page.nbytes} bytes, the file is too short for them")
    if offset is None and len(found) != count:
        raise ReadError(path, f"it declares {count} planes, the file has {len(found)}")
    if page.shaped[1] > 1 and _length(outer, "Z") > 1:
        raise ReadError(path, f"it declares z-slices both in its pages and across them ({axes} {shape})")
    samples = describe_samples(page, from_microscope=dialect != "tiff")
    channels = _length(outer, "C")
    names = samples.names * channels
    if len(calibration.channel_names) == len(names) and not samples.rgb:
        names = calibration.channel_names
    order = "".join(axis for axis, _ in outer)
    pages = StoredPages(found, page, offset)
    stack = _stack(page, outer, samples, pages, index, calibration, names, order)
    unknown = "".join(
        axis for axis, length in zip(axes[:cut], shape[:cut], strict=True) if axis not in "TZCIQ" and length > 1
    )
    if unknown:
        noted = (*stack.series.notes, f"its axes {unknown} are neither time, z nor channel; they are read as pages")
        stack = replace(stack, series=replace(stack.series, notes=noted))
    return stack


def name_axes(stack: Stack, axes: str | None, path: str) -> Stack:
    """``stack`` with its page axes named as in ``axes``, for example ``"TYX"``; an image of one page stays as it is.

    Raises
    ------
    ReadError
        If ``axes`` is no such text, or names another number of axes than the image has.
    """
    if axes is None:
        return stack
    names = axes.removesuffix("YX")
    if names == axes or len(set(names)) != len(names) or not set(names) <= set(_NAMED):
        raise ReadError(path, f"axes={axes!r} is not understood; some of T, Z, C in any order, then YX, are accepted")
    long = [number for number, (_, length) in enumerate(stack.outer) if length > 1]
    if not long:
        return stack
    if len(long) != len(names):
        has = ", ".join(f"{stack.outer[number][0]} {stack.outer[number][1]}" for number in long)
        raise ReadError(path, f"axes={axes!r} names {len(names)} axes of pages, the file has {len(long)} ({has})")
    renamed = tuple((name, stack.outer[number][1]) for name, number in zip(names, long, strict=True))
    was = "".join(stack.outer[number][0] for number in long)
    notes = stack.series.notes
    if was.replace(_UNNAMED, "") and was != names:
        notes = (*notes, f"the file calls its pages {was}; they are read as {names}, as asked")
    channels = _length(renamed, "C")
    per_page = stack.series.channel_names[: len(stack.samples)] if len(stack.samples) > 1 else (None,)
    kept = stack.series.channel_names if was == names else tuple(per_page) * channels
    series = replace(
        stack.series,
        axes=_axes(names, dict(renamed), len(stack.samples), stack.depth),
        sizes=_sizes(renamed, len(stack.samples), stack.depth),
        channel_names=kept,
        rgb=stack.series.rgb and channels == 1,
        pages=1,
        pages_unnamed=False,
        notes=notes,
    )
    return replace(stack, series=series, outer=renamed)


def contiguous_pages(tiff: Any, stored: StoredPages, number: int) -> np.ndarray:
    """The page ``number`` of pages that lie one behind the other, uncompressed."""
    page = stored.keyframe
    assert stored.offset is not None
    file = tiff.filehandle
    file.seek(stored.offset + number * page.nbytes)
    data = file.read(page.nbytes)
    if len(data) != page.nbytes:
        raise ValueError(f"page {number} has {len(data)} of {page.nbytes} bytes")
    return np.frombuffer(data, page.dtype.newbyteorder(tiff.byteorder)).reshape(page.shaped)


def _stack(
    page: Any,
    outer: tuple[tuple[str, int], ...],
    samples: Samples,
    pages: StoredPages | OmePages,
    index: int,
    calibration: Calibration,
    names: tuple[str | None, ...],
    order: str,
) -> Stack:
    depth = int(page.shaped[1])
    unnamed = math.prod(length for axis, length in outer if axis == _UNNAMED)
    palette = samples.palette
    dtype = page.dtype if palette is None else palette.dtype
    bits = int(page.bitspersample) if palette is None else palette.itemsize * 8
    series = Series(
        index=index,
        axes=_axes(order, dict(outer), len(samples.kept), depth),
        sizes=_sizes(outer, len(samples.kept), depth),
        height=int(page.imagelength),
        width=int(page.imagewidth),
        dtype=str(dtype),
        significant_bits=None if dtype.kind == "f" else bits,
        channel_names=names,
        rgb=samples.rgb and len(names) == 3,
        pixel_size_um=calibration.pixel_size_um,
        magnification=calibration.magnification,
        pages=unnamed,
        pages_unnamed=unnamed > 1,
        notes=samples.notes,
        steps=samples.steps,
    )
    return Stack(series, outer, depth, samples.kept, int(page.shaped[0]) > 1, pages, palette)


def _length(outer: tuple[tuple[str, int], ...], axis: str) -> int:
    return math.prod(length for name, length in outer if name == axis)


def _sizes(outer: tuple[tuple[str, int], ...], samples: int, depth: int) -> Mapping[str, int]:
    return {"T": _length(outer, "T"), "Z": _length(outer, "Z") * depth, "C": _length(outer, "C") * samples}


def _axes(order: str, lengths: Mapping[str, int], samples: int, depth: int) -> str:
    letters = "".join(axis for axis in order if lengths.get(axis, 1) > 1)
    if samples > 1:
        letters = letters.replace("C", "") + "C"
    return letters + ("Z" if depth > 1 and "Z" not in letters else "") + "YX"
