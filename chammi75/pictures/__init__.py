"""Arrays in, pictures and HTML out: for notebooks, the gallery and reports.

This room knows nothing of stores or records. Pillow is imported by the functions that draw.
"""

from __future__ import annotations

from chammi75.pictures.colours import channel_colours
from chammi75.pictures.composite import composite
from chammi75.pictures.contrast import channel_limits, display_limits, to_8bit
from chammi75.pictures.gallery import GalleryItem, gallery_item, gallery_page
from chammi75.pictures.jpeg import jpeg_bytes, jpeg_data_uri
from chammi75.pictures.montage import montage
from chammi75.pictures.png import data_uri, png_bytes
from chammi75.pictures.scale_bar import with_scale_bar
from chammi75.pictures.strip import channel_strip

__all__ = [
    "GalleryItem",
    "channel_colours",
    "channel_limits",
    "channel_strip",
    "composite",
    "data_uri",
    "display_limits",
    "gallery_item",
    "gallery_page",
    "jpeg_bytes",
    "jpeg_data_uri",
    "montage",
    "png_bytes",
    "to_8bit",
    "with_scale_bar",
]
