"""Writes what microscopes and their software write: OME-TIFF, ImageJ hyperstacks, PNG, and tables beside them.

Everything is written with fixed metadata - no clock, no random UUID, no version of a writer - and TIFFs without
compression, so that the same simulation gives the same bytes.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np
from numpy.typing import NDArray

from chammi75.errors import ChammiError
from chammi75.files import write_atomically
from chammi75.mini.optics import Objective
from chammi75.mini.truth import CellTruth


def refuse_taken(path: Path) -> None:
    """See that a study's folder does not hold anything yet.

    Raises
    ------
    ChammiError
        If it does: files of another run would mix with those of this one.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ChammiError(f"{path} already holds files; simulate into a new folder, or remove that one first")


def new_study_folder(folder: Path, study: str) -> Path:
    """The folder of ``study``, made if need be.

    Raises
    ------
    ChammiError
        If it holds anything.
    """
    path = folder / study
    refuse_taken(path)
    path.mkdir(parents=True, exist_ok=True)
    return path


def write_ome_tiff(
    path: Path,
    planes: NDArray[np.uint16],
    *,
    name: str,
    channels: Sequence[tuple[str, float]],
    objective: Objective,
    significant_bits: int,
) -> None:
    """One field of view, axes CYX, with OME-XML of 2016-06.

    Parameters
    ----------
    planes : numpy.ndarray
        uint16, shape (C, H, W).
    name : str
        The image's name in the metadata.
    channels : sequence of (name, emission wavelength in µm)
    """
    import tifffile

    depth, height, width = planes.shape
    size = repr(objective.pixel_size_um)
    channel_xml = "".join(
        f'<Channel ID="Channel:0:{i}" Name={quoteattr(label)} SamplesPerPixel="1"'
        f' EmissionWavelength="{wavelength * 1000:g}" EmissionWavelengthUnit="nm"/>'
        for i, (label, wavelength) in enumerate(channels)
    )
    data_xml = "".join(f'<TiffData IFD="{i}" FirstC="{i}" FirstZ="0" FirstT="0" PlaneCount="1"/>' for i in range(depth))
    xml = (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
        ' xsi:schemaLocation="http://www.openmicroscopy.org/Schemas/OME/2016-06'
        ' http://www.openmicroscopy.org/Schemas/OME/2016-06/ome.xsd">'
        f'<Instrument ID="Instrument:0"><Objective ID="Objective:0" NominalMagnification="{objective.magnification:g}"'
        f' LensNA="{objective.numerical_aperture:g}" Immersion="Air"/></Instrument>'
        f'<Image ID="Image:0" Name={quoteattr(name)}><InstrumentRef ID="Instrument:0"/>'
        '<ObjectiveSettings ID="Objective:0"/>'
        f'<Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint16" SignificantBits="{significant_bits}"'
        f' SizeX="{width}" SizeY="{height}" SizeC="{depth}" SizeZ="1" SizeT="1" BigEndian="false" Interleaved="false"'
        f' PhysicalSizeX="{size}" PhysicalSizeXUnit="µm" PhysicalSizeY="{size}" PhysicalSizeYUnit="µm">'
        f"{channel_xml}{data_xml}</Pixels></Image></OME>"
    )
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer, byteorder="<", ome=False) as writer:
        for index, plane in enumerate(planes):
            writer.write(
                plane,
                photometric="minisblack",
                contiguous=False,
                description=xml.encode() if index == 0 else None,
                metadata=None,
                software=False,
                datetime=None,
            )
    write_atomically(path, buffer.getvalue())


def write_hyperstack(
    path: Path,
    stack: NDArray[np.uint8],
    *,
    channels: Sequence[str],
    pixel_size_um: float,
    z_spacing_um: float,
    frame_interval_s: float,
) -> None:
    """A movie as ImageJ saves it: axes TZCYX, uint8, big-endian, with calibration and a label per plane.

    Parameters
    ----------
    stack : numpy.ndarray
        uint8, shape (T, Z, C, H, W).
    """
    import tifffile

    frames, slices, count = stack.shape[:3]
    labels = [
        f"c:{c + 1}/{count} z:{z + 1}/{slices} t:{t + 1}/{frames} - {channels[c]}"
        for t in range(frames)
        for z in range(slices)
        for c in range(count)
    ]
    buffer = io.BytesIO()
    tifffile.imwrite(
        buffer,
        stack,
        imagej=True,
        byteorder=">",
        resolution=(1.0 / pixel_size_um, 1.0 / pixel_size_um),
        software=False,
        datetime=None,
        metadata={
            "axes": "TZCYX",
            "mode": "composite",
            "unit": "um",
            "spacing": z_spacing_um,
            "finterval": frame_interval_s,
            "loop": False,
            "Labels": labels,
        },
    )
    write_atomically(path, buffer.getvalue())


def write_tiff(path: Path, pixels: NDArray[Any], *, colour: bool = False) -> None:
    """A TIFF that says nothing of itself, as many programs write it.

    Parameters
    ----------
    pixels : numpy.ndarray
        uint8 or uint16: one plane (H, W), several pages (N, H, W), or one picture in ``colour``, (H, W, 3).
    """
    import tifffile

    pages = [pixels] if pixels.ndim == 2 or colour else list(pixels)
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer, byteorder="<", ome=False) as writer:
        for page in pages:
            writer.write(
                page,
                photometric="rgb" if colour else "minisblack",
                contiguous=False,
                metadata=None,
                software=False,
                datetime=None,
            )
    write_atomically(path, buffer.getvalue())


def write_png(path: Path, image: NDArray[np.uint8]) -> None:
    """An 8-bit PNG without metadata; ``image`` has shape (H, W), or (H, W, 3) in colour."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG", compress_level=6)
    write_atomically(path, buffer.getvalue())


def write_guidance(path: Path, cells: Sequence[CellTruth]) -> None:
    """Cell positions as the published dataset has them: ``data`` int64 (n, 2) as (x, y), ``sizes`` int64 (n,)."""
    from safetensors.numpy import save

    centroids = np.array([(round(cell.x), round(cell.y)) for cell in cells], dtype=np.int64).reshape(-1, 2)
    sizes = np.array([cell.area_px for cell in cells], dtype=np.int64)
    write_atomically(path, save({"data": centroids, "sizes": sizes}))


def write_table(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A CSV file, with a line feed at each line's end on every system."""
    import csv

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_atomically(path, text.getvalue().encode())


def write_recipe(path: Path, recipe: Mapping[str, Any]) -> Path:
    """A build recipe as YAML, checked against its schema first; its first line says who made the images."""
    import yaml

    from chammi75.schemas.recipe import BuildRecipe

    checked = BuildRecipe.model_validate(dict(recipe))
    head = f"# Simulated by chammi75.mini; its authors give these images under {checked.license}.\n"
    text = yaml.safe_dump(dict(recipe), sort_keys=False, allow_unicode=True, width=120, default_flow_style=None)
    write_atomically(path, (head + text).encode())
    return path
