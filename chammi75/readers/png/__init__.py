"""PNG: chunks, inflating, and undoing the row filters."""

from chammi75.readers.png.reader import PngReader, decode, open_file

__all__ = ["PngReader", "decode", "open_file"]
