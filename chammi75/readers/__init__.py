"""Readers: bytes of any format in, planes and what the file itself says of its geometry out.

The reader is chosen by what the bytes are, not by the suffix; decoders are imported when a file is opened.
"""

from chammi75.readers.grouping import FileGroup, FilePattern, Grouping, PatternMatch, group_files
from chammi75.readers.guidance import CellCentroids, parse_guidance, read_guidance
from chammi75.readers.image_file import ImageFile, ImageReader, Series
from chammi75.readers.registry import Format, identify, open_image, probe

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
