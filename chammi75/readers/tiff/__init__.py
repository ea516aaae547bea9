"""TIFF and its dialects: OME-TIFF, ImageJ hyperstacks, MetaSeries and others."""

from chammi75.readers.tiff.reader import TiffReader, open_file

__all__ = ["TiffReader", "open_file"]
