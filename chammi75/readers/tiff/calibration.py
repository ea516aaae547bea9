"""The size of a pixel, the magnification and the channels' names, as the dialects of TIFF state them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from chammi75.readers.tiff.ome_xml import micrometres


@dataclass(frozen=True)
class Calibration:
    """What a file states of its scale and channels; None where it is silent."""

    pixel_size_um: float | None = None
    magnification: float | None = None
    channel_names: tuple[str | None, ...] = ()


def read_calibration(tiff: Any) -> tuple[str, Calibration]:
    """The dialect of a ``tifffile.TiffFile``, and the calibration in that dialect's metadata.

    Plain TIFF's resolution in inches or centimetres is a printer's, and no statement about the specimen.
    """
    if tiff.is_stk:
        meta = tiff.stk_metadata or {}
        properties = meta.get("PlaneProperty") or []
        stated = {str(item.get("name")): item.get("value") for item in properties if isinstance(item, dict)}
        calibrated = bool(meta.get("SpatialCalibration"))
        scale = _calibration(meta.get("XCalibration"), meta.get("CalibrationUnits"), calibrated)
        return "stk", _with_settings(scale, stated)
    if tiff.is_metaseries:
        info = (tiff.metaseries_metadata or {}).get("PlaneInfo", {})
        calibrated = bool(info.get("spatial-calibration-state"))
        size, unit = info.get("spatial-calibration-x"), info.get("spatial-calibration-units")
        return "metaseries", _with_settings(_calibration(size, unit, calibrated), info)
    if tiff.is_lsm:
        meta = tiff.lsm_metadata or {}
        names = (meta.get("ChannelColors") or {}).get("ColorNames") or ()
        scale = _calibration(meta.get("VoxelSizeX"), "m", True)
        return "lsm", replace(scale, channel_names=tuple(_name(name) for name in names))
    if tiff.is_micromanager:
        return "micromanager", _micromanager(tiff)
    if tiff.is_svs:
        stated = dict(re.findall(r"\|\s*(MPP|AppMag)\s*=\s*([0-9.]+)", tiff.pages.first.description))
        magnification = float(stated.get("AppMag", 0))
        size = micrometres(float(stated.get("MPP", 0)), "µm")
        return "svs", Calibration(size, magnification if magnification > 0 else None)
    if tiff.is_imagej:
        unit = (tiff.imagej_metadata or {}).get("unit")
        return "imagej", _calibration(_imagej_width(tiff.pages.first), unit, True)
    return "tiff", Calibration()


def _with_settings(calibration: Calibration, settings: Mapping[str, Any]) -> Calibration:
    """What MetaMorph and MetaXpress write of the illumination and the objective in use ("20X Plan Apo Lambda")."""
    found = re.match(r"\s*(\d{1,3}(?:\.\d+)?)\s*[xX]\b", str(settings.get("_MagSetting_", "")))
    magnification = float(found[1]) if found and float(found[1]) > 0 else None
    return replace(calibration, magnification=magnification, channel_names=(_name(settings.get("_IllumSetting_")),))


def _micromanager(tiff: Any) -> Calibration:
    """Micro-Manager's own metadata: JSON in a tag of each page, and a summary behind the header of the file."""
    import tifffile

    page = tiff.pages.first.tags.valueof(51123)
    page = page if isinstance(page, dict) else {}
    summary: Any = None
    # A file rewritten by another program lacks that header; its tags have what is known then.
    with suppress(ValueError):
        summary = tifffile.read_micromanager_metadata(tiff.filehandle, {"Summary"}).get("Summary")
    summary = next((each for each in (summary, page.get("Summary")) if isinstance(each, dict)), {})
    sizes = (page.get("PixelSizeUm"), summary.get("PixelSize_um"), summary.get("PixelSizeUm"))
    size = next((value for value in sizes if isinstance(value, int | float) and value > 0), None)
    names = summary.get("ChNames")
    if not isinstance(names, list) or not names:
        names = [page.get("Channel")]
    return replace(_calibration(size, "um", True), channel_names=tuple(_name(name) for name in names))


def _name(value: object) -> str | None:
    return value.strip("\0 ") or None if isinstance(value, str) else None


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
