"""TIFF and BigTIFF: plain, OME-TIFF, ImageJ, MetaMorph (STK, MetaSeries) and the dialects that tifffile knows.

tifffile finds the pages and decodes them. The mapping of OME-XML to pages is our own (`ome_xml`), so that it works at
any URL and a missing plane is an error; so are the checks before decoding (`tiff_directory`), because tifffile fills
what is missing with zeros.
"""

from __future__ import annotations

import logging
import math
import posixpath
import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import IO, Any

import numpy as np

from chammi75.errors import ReadError
from chammi75.files import StorageOptions, absolute_url, filesystem_of, open_url
from chammi75.readers.image_file import ImageFile, choose_series, damage_reported
from chammi75.readers.tiff.calibration import Calibration, read_calibration
from chammi75.readers.tiff.directory import PageChain, check_declared_size, check_segments, read_chain
from chammi75.readers.tiff.levels import full_images
from chammi75.readers.tiff.libtiff import decode_by_libtiff, is_left_to_libtiff
from chammi75.readers.tiff.ome_xml import OmeDocument, OmeImage, OmePlane, parse_ome_xml, refuse_entities
from chammi75.readers.tiff.stack import (
    OmePages,
    Stack,
    contiguous_pages,
    name_axes,
    stack_of_ome,
    stack_of_pages,
)

# What tifffile would read from other files, or from XML that has to be looked at first.
_TURNED_OFF = {"is_ome": False, "is_mmstack": False, "is_ndtiff": False}
_MOST_NOTES = 8
# What parsing text or binary metadata raises; a ParseError of XML is a SyntaxError.
_DISORDER = (SyntaxError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, struct.error)


class TiffReader:
    """An open TIFF; ``file`` says what it holds."""

    def __init__(
        self, file: IO[bytes], path: str, size_bytes: int, axes: str | None, storage_options: StorageOptions | None
    ) -> None:
        import tifffile

        self._path, self._size_bytes, self._storage_options = path, size_bytes, storage_options
        self._open_files = ExitStack()
        self._companion: tuple[str, Any, int] | None = None
        self._page: tuple[tuple[int, int], np.ndarray] | None = None
        self._chain = read_chain(file, path, size_bytes)
        with _warnings_collected() as warnings:
            self._tiff = self._open_files.enter_context(_open_tiff(self._chain, path))
            dialect, stacks, notes, companions = self._read_stacks()
        if self._chain.file is not file:
            notes.append("its pages run in a circle; each is read once")
        notes += warnings[:_MOST_NOTES]
        self._stacks = [name_axes(stack, axes, path) for stack in stacks]
        if not self._stacks:
            raise ReadError(path, "it has no image")
        first = self._stacks[0]
        self._stacks[0] = replace(first, series=replace(first.series, notes=(*first.series.notes, *notes)))
        self.file = ImageFile(
            path,
            "tifffile",
            str(tifffile.__version__),
            dialect,
            size_bytes,
            tuple(stack.series for stack in self._stacks),
            companions,
        )

    def read_plane(self, series: int = 0, *, z: int = 0, t: int = 0, c: int = 0, page: int = 0) -> np.ndarray:
        """One plane, shape (height, width), in the file's own dtype."""
        choose_series(self.file, series, z=z, t=t, c=c, page=page)
        stack = self._stacks[series]
        number, depth, sample = stack.locate(z=z, t=t, c=c, page=page)
        with damage_reported(self._path), _warnings_collected():
            pixels = self._decoded(series, number, stack)
            plane = pixels[sample, depth, :, :, 0] if stack.planar else pixels[0, depth, :, :, sample]
            if plane.dtype == np.bool_:
                plane = plane.view(np.uint8)
            if self._page is not None:  # kept for the next call: the caller must not write into it
                return np.array(plane, plane.dtype.newbyteorder("="), order="C")
            return np.require(plane, plane.dtype.newbyteorder("="), ["C", "W"])

    def close(self) -> None:
        """Close companion files and forget the decoded page."""
        self._page = None
        self._open_files.close()

    def _decoded(self, series: int, number: int, stack: Stack) -> np.ndarray:
        """The page ``number`` of a stack: (separate samples, depth, height, width, interleaved samples)."""
        if self._page is not None and self._page[0] == (series, number):
            return self._page[1]
        self._page = None
        pixels = self._read_page(stack, number)
        if stack.palette is not None:
            pixels = self._colored(pixels, stack.palette)
        if pixels.size > pixels.shape[2] * pixels.shape[3]:  # several planes: keep them for the next call
            self._page = ((series, number), pixels)
        return pixels

    def _colored(self, pixels: np.ndarray, palette: np.ndarray) -> np.ndarray:
        """The colours that the first sample's values stand for, as interleaved samples."""
        values = pixels[:1, ..., 0]
        if values.size and int(values.max()) >= len(palette):
            raise ReadError(self._path, f"a pixel has colour {int(values.max())} of a map of {len(palette)}")
        return palette[values.astype(np.intp)]

    def _read_page(self, stack: Stack, number: int) -> np.ndarray:
        where = stack.pages
        if isinstance(where, OmePages):
            plane = where.at(number)
            if plane is None:
                raise ReadError(
                    self._path, f"plane {number + 1} of the {stack.count} that its OME-XML declares is missing"
                )
            page, size_bytes, path = self._ome_page(plane)
            if stack.differs_from(page):
                raise ReadError(path, f"page {plane.page} is {page.shape} {page.dtype}, unlike the others of its image")
        elif where.offset is not None:
            return contiguous_pages(self._tiff, where, number)
        else:
            page, size_bytes, path = where.pages[number], self._size_bytes, self._path
            self._check_alike(page)
        check_segments(page, page.parent.filehandle, path, size_bytes)
        if is_left_to_libtiff(page):
            return decode_by_libtiff(page, path, size_bytes)
        pixels: np.ndarray = page.asarray(squeeze=False, maxworkers=1)
        return pixels.reshape(page.keyframe.shaped)

    def _check_alike(self, page: Any) -> None:
        """Refuse a page that would be decoded by the directory of another one which it is unlike."""
        own, shared = page.index, page.keyframe.index
        layouts = self._chain.layouts
        if page is not page.keyframe and own < len(layouts) and layouts[own] != layouts[shared]:
            raise ReadError(self._path, f"page {own} is unlike page {shared} in size, type or layout")

    def _ome_page(self, plane: OmePlane) -> tuple[Any, int, str]:
        """The page that holds a plane, the length and the path of its file."""
        tiff, size_bytes, path = self._tiff_of(plane.file)
        if plane.page >= len(tiff.pages):
            raise ReadError(path, f"the file is truncated: page {plane.page} is missing, it has {len(tiff.pages)}")
        page = tiff.pages[plane.page]
        check_declared_size(page, 1, path, size_bytes)
        return page, size_bytes, path

    def _tiff_of(self, name: str | None) -> tuple[Any, int, str]:
        if name is None:
            return self._tiff, self._size_bytes, self._path
        if self._companion is None or self._companion[0] != name:
            url = _sibling(self._path, name)
            with damage_reported(url):
                file = self._open_files.enter_context(open_url(url, "rb", self._storage_options))
                size_bytes = file.seek(0, 2)
                tiff = self._open_files.enter_context(_open_tiff(read_chain(file, url, size_bytes), url))
            self._companion = (name, tiff, size_bytes)
        return self._companion[1], self._companion[2], _sibling(self._path, name)

    def _read_stacks(self) -> tuple[str, list[Stack], list[str], tuple[str, ...]]:
        first = self._tiff.pages.first
        for text in (first.description, first.description1, first.tags.valueof(700)):
            text = text.decode("latin-1") if isinstance(text, bytes) else text
            if isinstance(text, str) and text.lstrip()[:1] == "<":
                refuse_entities(text, self._path)
        notes: list[str] = []
        if first.description.rstrip("\0 \r\n\t").endswith("OME>"):
            try:
                document = parse_ome_xml(
                    first.description, self._path, posixpath.basename(self._path), len(self._chain.layouts)
                )
                if document.images:
                    return self._ome_stacks(document)
                where = f" is in {document.metadata_file!r}" if document.metadata_file else " describes no image"
                notes.append(f"its OME-XML{where}; its pages are read as a plain TIFF's")
            except ValueError as error:
                notes.append(f"its OME-XML is not usable ({str(error)[:120]}); its pages are read as a plain TIFF's")
        return self._plain_stacks(notes)

    def _ome_stacks(self, document: OmeDocument) -> tuple[str, list[Stack], list[str], tuple[str, ...]]:
        named = sorted({plane.file for image in document.images for plane in image.planes.values() if plane.file})
        missing = self._absent(named)
        stacks: list[Stack] = []
        notes: list[str] = []
        for image in document.images:
            pages = OmePages(image, frozenset(missing), len(self._chain.layouts))
            held = [number for number in range(pages.count) if pages.at(number) is not None]
            if not held:
                notes.append(f"image {image.name!r} of its OME-XML has no page here")
                continue
            stacks.append(self._ome_stack(image, pages, held, len(stacks)))
        if missing:
            notes.append(f"companion files are not there: {', '.join(missing[:5])}{' …' if len(missing) > 5 else ''}")
        if not stacks:
            raise ReadError(self._path, f"none of the planes that its OME-XML declares is here ({'; '.join(notes)})")
        return "ome-tiff", stacks, notes, tuple(name for name in named if name not in missing)

    def _ome_stack(self, image: OmeImage, pages: OmePages, held: list[int], index: int) -> Stack:
        plane = pages.at(held[0])
        assert plane is not None
        page, _, _ = self._ome_page(plane)
        if (page.imagewidth, page.imagelength, page.samplesperpixel) != (image.width, image.height, image.samples):
            raise ValueError(
                f"it declares {image.width} x {image.height} x {image.samples}, the page is"
                f" {page.imagewidth} x {page.imagelength} x {page.samplesperpixel}"
            )
        return stack_of_ome(image, page, pages, index, pages.count - len(held))

    def _absent(self, names: list[str]) -> list[str]:
        if not names:
            return []
        filesystem, folder = filesystem_of(_sibling(self._path, ""), self._storage_options)
        there = {posixpath.basename(str(item).rstrip("/")) for item in filesystem.ls(folder, detail=False)}
        return [name for name in names if name not in there]

    def _plain_stacks(self, notes: list[str]) -> tuple[str, list[Stack], list[str], tuple[str, ...]]:
        tiff = self._tiff
        check_declared_size(tiff.pages.first, 1, self._path, self._size_bytes)
        dialect, calibration = "tiff", Calibration()
        try:
            dialect, calibration = read_calibration(tiff)
        except _DISORDER as error:  # a vendor's metadata in disorder does not make the pixels unreadable
            notes.append(f"its calibration cannot be read ({type(error).__name__}: {str(error)[:100]})")
        stacks: list[Stack] = []
        images, left_out = full_images(tiff.series)
        if left_out:
            notes.append(left_out)
        self._check_imagej_whole(images)
        for found in images:
            page = found.keyframe
            check_declared_size(
                page, max(1, math.prod(found.shape) // math.prod(page.shaped)), self._path, self._size_bytes
            )
            stack = stack_of_pages(found, len(stacks), dialect, calibration, self._path, self._size_bytes)
            like_first = not stacks or stack.size == stacks[0].size
            if not like_first:  # a thumbnail: the file's scale is not its own
                bare = replace(stack.series, pixel_size_um=None, magnification=None)
                stack = replace(stack, series=bare)
            stacks.append(stack)
        return dialect, stacks, notes, ()

    def _check_imagej_whole(self, images: list[Any]) -> None:
        """Refuse a cut-off ImageJ stack: tifffile falls back to the page that is whole, and only logs it."""
        declared = (self._tiff.imagej_metadata or {}).get("images", 1) if self._tiff.is_imagej else 1
        held = sum(len(found.pages) for found in images)
        fell_back = bool(images) and images[0].kind != "imagej"
        if fell_back and isinstance(declared, int) and declared > held:
            raise ReadError(self._path, f"it declares {declared} ImageJ planes, the file is too short for them")


def open_file(
    file: IO[bytes], path: str, size_bytes: int, axes: str | None, storage_options: StorageOptions | None
) -> TiffReader:
    """Open a TIFF from a seekable file object."""
    return TiffReader(file, path, size_bytes, axes, storage_options)


def _open_tiff(chain: PageChain, path: str) -> Any:
    import tifffile

    chain.file.seek(0)
    # tifffile compares three pages only, and decodes all others as if they were alike.
    turned_off = _TURNED_OFF if chain.is_uniform else {**_TURNED_OFF, "is_uniform": False}
    # Only the name, not the folder: with it tifffile might look for files beside this one.
    return tifffile.TiffFile(chain.file, name=posixpath.basename(path.replace("\\", "/")) or "image", **turned_off)


def _sibling(path: str, name: str) -> str:
    return absolute_url(path).rpartition("/")[0] + "/" + name


@contextmanager
def _warnings_collected() -> Iterator[list[str]]:
    """What tifffile logs in this thread; with a handler there, logging does not print it as its last resort."""
    messages: list[str] = []
    thread = threading.get_ident()

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.thread == thread and record.levelno >= logging.WARNING:
                messages.append(f"tifffile: {record.getMessage()[:200]}")

    logger, collector = logging.getLogger("tifffile"), Collector()
    logger.addHandler(collector)
    try:
        yield messages
    finally:
        logger.removeHandler(collector)
