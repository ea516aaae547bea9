"""The size of a pixel and the magnification, as the dialects of TIFF state them."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from chammi75.readers.tiff.ome_xml import micrometres


@dataclass(frozen=True)
class Calibration:
    """What a file states of its scale; None where it is silent."""

    pixel_size_um: float | None = None
    magnification: float | None = None


def read_calibration(tiff: Any) -> tuple[str, Calibration]:
    """The dialect of a ``tifffile.TiffFile``, and the calibration in that dialect's metadata.

    Plain TIFF's resolution in inches or centimetres is a printer's, and no statement about the specimen.
    """
    if tiff.is_stk:
        meta = tiff.stk_metadata or {}
        calibrated = bool(meta.get("SpatialCalibration"))
        return "stk", _calibration(meta.get("XCalibration"), meta.get("CalibrationUnits"), calibrated)
    if tiff.is_metaseries:
        info = (tiff.metaseries_metadata or {}).get("PlaneInfo", {})
        calibrated = bool(info.get("spatial-calibration-state"))
        size, unit = info.get("spatial-calibration-x"), info.get("spatial-calibration-units")
        return "metaseries", _calibration(size, unit, calibrated)
    if tiff.is_lsm:
        return "lsm", _calibration((tiff.lsm_metadata or {}).get("VoxelSizeX"), "m", True)
    if tiff.is_svs:
        stated = dict(re.findall(r"\|\s*(MPP|AppMag)\s*=\s*([0-9.]+)", tiff.pages.first.description))
        magnification = float(stated.get("AppMag", 0))
        size = micrometres(float(stated.get("MPP", 0)), "µm")
        return "svs", Calibration(size, magnification if magnification > 0 else None)
    if tiff.is_imagej:
        unit = (tiff.imagej_metadata or {}).get("unit")
        return "imagej", _calibration(_imagej_width(tiff.pages.first), unit, True)
    return "tiff", Calibration()


def _calibration(size: object, unit: object, calibrated: bool) -> Calibration:
    if not calibrated or not isinstance(size, int | float) or not isinstance(unit, str):
        return Calibration()
    value = micrometres(float(size), unit)
    return Calibration(value if value is not None and math.isfinite(value) else None)


def _imagej_width(page: Any) -> float | None:
    """Width of a pixel in ImageJ's own unit: the inverse of XResolution, which it writes as pixels per unit."""
    resolution = page.tags.valueof(282)
    if not isinstance(resolution, tuple) or len(resolution) != 2 or not resolution[0]:
        return None
    return float(resolution[1]) / float(resolution[0])
