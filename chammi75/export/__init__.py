"""Exports: images of any layout and selection, written in the formats of others."""

from chammi75.export.choice import selections_for
from chammi75.export.hub import push_to_hub
from chammi75.export.registry import FORMATS, ExportFormat, export, export_format
from chammi75.export.report import ExportReport, FailedImage

__all__ = [
    "FORMATS",
    "ExportFormat",
    "ExportReport",
    "FailedImage",
    "export",
    "export_format",
    "push_to_hub",
    "selections_for",
]
