"""What an export has done: for its caller, and as ``export.json`` in the folder itself."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from chammi75.loading.origins import Origin
from chammi75.version import __version__

EXPORT = "export.json"
"""Name of the file that is written last: without it, an export is not whole."""


@dataclass(frozen=True)
class FailedImage:
    """An image that could not be read, and so is not in the export.

    Attributes
    ----------
    image_id : str
    reason : str
    """

    image_id: str
    reason: str


@dataclass(frozen=True)
class ExportReport:
    """What is in an export.

    Attributes
    ----------
    format : str
    out : str
        Its folder.
    images, planes, files, bytes : int
        What it holds; files and bytes without ``export.json`` and the describing files.
    failed : tuple of FailedImage
        Images that are not in it.
    notes : tuple of str
        What is not as it was in the store, if anything.
    origins : tuple of Origin
        Its images by source and licence.
    """

    format: str
    out: str
    images: int
    planes: int
    files: int
    bytes: int
    failed: tuple[FailedImage, ...]
    notes: tuple[str, ...]
    origins: tuple[Origin, ...]


def report_json(report: ExportReport) -> bytes:
    """The content of ``export.json``: the same on every machine."""
    values = {"export": report.format, "created_by": f"chammi75 {__version__}", **asdict(report)}
    del values["format"], values["out"]
    return (json.dumps(values, indent=1, ensure_ascii=False) + "\n").encode()
