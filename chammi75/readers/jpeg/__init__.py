"""JPEG: grey and colour pictures, as libjpeg-turbo decodes them."""

from chammi75.readers.jpeg.reader import JpegReader, open_file

__all__ = ["JpegReader", "open_file"]
