"""From the first bytes of a file to the reader that knows them.

A new format is one module with a function ``open_file(file, path, size_bytes, axes, storage_options)`` that gives an
``ImageReader``, and one line in ``FORMATS``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from io import BytesIO
from typing import cast

from chammi75.errors import ReadError
from chammi75.files import StorageOptions, open_url
from chammi75.readers.image_file import ImageFile, ImageReader, damage_reported

_HEAD_BYTES = 16


@dataclass(frozen=True)
class Format:
    """A format that is read.

    Parameters
    ----------
    name : str
        What people call it.
    magics : tuple of bytes
        What its files begin with.
    module : str
        The module whose ``open_file`` reads it.
    """

    name: str
    magics: tuple[bytes, ...]
    module: str


FORMATS = (
    Format("PNG", (b"\x89PNG\r\n\x1a\n",), "chammi75.readers.png"),
    Format("JPEG", (b"\xff\xd8\xff",), "chammi75.readers.jpeg"),
    Format("TIFF", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), "chammi75.readers.tiff"),
)

_KNOWN_BUT_UNREAD = (
    (b"\x1f\x8b", "gzip-compressed"),
    (b"PK\x03\x04", "a zip archive"),
    (b"ZISRAW", "a Zeiss CZI"),
    (b"\xda\xce\xbe\x0a", "a Nikon ND2"),
    (b"\x70\x00\x00\x00", "a Leica LIF"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x00\x00\x00\x0cjP", "a JPEG 2000 picture"),
    (b"GIF8", "a GIF"),
    (b"BM", "a BMP"),
    (b"<", "text (HTML or XML: often the error page of a server)"),
)


def identify(head: bytes) -> Format | None:
    """The format of a file that begins with ``head`` (8 bytes are enough), or None if it is not read here.

    Examples
    --------
    >>> identify(b"II*\\0\\x08\\0\\0\\0").name
    'TIFF'
    >>> identify(b"GIF89a") is None
    True
    """
    return next((form for form in FORMATS if head.startswith(form.magics)), None)


@contextmanager
def open_image(
    url: str | os.PathLike[str],
    *,
    axes: str | None = None,
    storage_options: StorageOptions | None = None,
    content: bytes | None = None,
) -> Iterator[ImageReader]:
    """Open the image file at ``url``, whatever its format.

    Parameters
    ----------
    url : str or path
        A local path or any URL that fsspec knows.
    axes : str, optional
        Names for the pages of a file that does not name them, slowest first, for example ``"TYX"``, ``"ZYX"`` or
        ``"CZYX"``.
    storage_options : mapping, optional
        For the fsspec filesystem.
    content : bytes, optional
        The whole file, where it has been read already (to take its checksum); then ``url`` only names it.

    Yields
    ------
    ImageReader

    Raises
    ------
    ReadError
        If the file is missing, empty, of no known format, damaged, or declares more than it can hold.
    """
    path = os.fspath(url)
    with _opened(path, axes, storage_options, content) as reader:
        try:
            yield reader
        finally:
            reader.close()


def probe(
    url: str | os.PathLike[str], *, axes: str | None = None, storage_options: StorageOptions | None = None
) -> ImageFile:
    """What the file at ``url`` says of itself, from its headers alone; parameters and errors as of ``open_image``."""
    with open_image(url, axes=axes, storage_options=storage_options) as reader:
        return reader.file


@contextmanager
def _opened(
    path: str, axes: str | None, storage_options: StorageOptions | None, content: bytes | None
) -> Iterator[ImageReader]:
    manager = open_url(path, "rb", storage_options) if content is None else nullcontext(BytesIO(content))
    with damage_reported(path):
        file = manager.__enter__()
    try:
        with damage_reported(path):
            head = file.read(_HEAD_BYTES)
            size_bytes = file.seek(0, os.SEEK_END)
            file.seek(0)
            form = identify(head)
            if form is None:
                raise ReadError(path, _unknown(head))
            module = import_module(form.module)
            reader = cast(ImageReader, module.open_file(file, path, size_bytes, axes, storage_options))
        yield reader
    finally:
        manager.__exit__(None, None, None)


def _unknown(head: bytes) -> str:
    if not head:
        return "the file is empty"
    is_what = next((text for magic, text in _KNOWN_BUT_UNREAD if head.startswith(magic)), None)
    begins = f"it is {is_what}" if is_what else f"it begins with {head[:8]!r}, which no reader knows"
    return f"{begins}; formats that are read: {', '.join(form.name for form in FORMATS)}"
