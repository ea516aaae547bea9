"""Readers: bytes of any format in, planes and what the file itself says of its geometry out.

The reader is chosen by what the bytes are, not by the suffix. Names are imported when they are first asked for, so that
this package costs nothing until a file is opened.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chammi75.readers.grouping import FileGroup, FilePattern, Grouping, PatternMatch, group_files
    from chammi75.readers.guidance import CellCentroids, parse_guidance, read_guidance
    from chammi75.readers.image_file import ImageFile, ImageReader, Series
    from chammi75.readers.registry import Format, identify, open_image, probe

_HOME = {
    "CellCentroids": "guidance",
    "FileGroup": "grouping",
    "FilePattern": "grouping",
    "Format": "registry",
    "Grouping": "grouping",
    "ImageFile": "image_file",
    "ImageReader": "image_file",
    "PatternMatch": "grouping",
    "Series": "image_file",
    "group_files": "grouping",
    "identify": "registry",
    "open_image": "registry",
    "parse_guidance": "guidance",
    "probe": "registry",
    "read_guidance": "guidance",
}

__all__ = [
    "CellCentroids",
    "FileGroup",
    "FilePattern",
    "Format",
    "Grouping",
    "ImageFile",
    "ImageReader",
    "PatternMatch",
    "Series",
    "group_files",
    "identify",
    "open_image",
    "parse_guidance",
    "probe",
    "read_guidance",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
