"""The OME-XML of an OME-TIFF: which plane lies on which page of which file, and what the channels and pixels are
called.

Follows the OME-TIFF specification (https://docs.openmicroscopy.org/ome-model/latest/ome-tiff/specification.html). Only
names are taken from the file names that it states: a file in another folder is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from xml.etree import ElementTree

from chammi75.errors import ReadError

_MOST_PLANES = 1_000_000
_DTYPES = {
    "bit": "bool",
    "int8": "int8",
    "int16": "int16",
    "int32": "int32",
    "uint8": "uint8",
    "uint16": "uint16",
    "uint32": "uint32",
    "float": "float32",
    "double": "float64",
}
_MICROMETRES = {
    "m": 1e6,
    "cm": 1e4,
    "mm": 1e3,
    "µm": 1.0,
    "μm": 1.0,
    "um": 1.0,
    "micron": 1.0,
    "microns": 1.0,
    "micrometer": 1.0,
    "micrometre": 1.0,
    "nm": 1e-3,
    "nanometer": 1e-3,
    "pm": 1e-6,
    "Å": 1e-4,
    "\\u00b5m": 1.0,
    "millimeter": 1e3,
    "meter": 1e6,
}


@dataclass(frozen=True)
class OmePlane:
    """Where one plane lies: the file (None: this one) and the number of its page there."""

    file: str | None
    page: int


@dataclass(frozen=True)
class OmeImage:
    """One ``Image`` element; planes are keyed by (t, z, c) with c counted in pages, ``samples`` channels each."""

    name: str | None
    width: int
    height: int
    sizes: Mapping[str, int]
    order: str
    dtype: str
    samples: int
    significant_bits: int | None
    channel_names: tuple[str | None, ...]
    pixel_size_um: float | None
    magnification: float | None
    planes: Mapping[tuple[int, int, int], OmePlane]


@dataclass(frozen=True)
class OmeDocument:
    """An OME-XML text; ``metadata_file`` names the file that holds the rest, where it is elsewhere."""

    images: tuple[OmeImage, ...]
    metadata_file: str | None


def refuse_entities(xml: str, path: str) -> None:
    """Raise ReadError if ``xml`` declares entities, with which a few bytes can unfold into gigabytes."""
    if re.search(r"<!\s*(DOCTYPE|ENTITY)", xml, re.IGNORECASE):
        raise ReadError(path, "its XML declares a DOCTYPE or entities, which no microscope writes; it is refused")


def micrometres(value: float, unit: str) -> float | None:
    """``value`` of ``unit`` in micrometres; None for a unit that is no length, and for a value that is no size.

    Examples
    --------
    >>> micrometres(325.0, "nm"), micrometres(1.0, "pixel")
    (0.325, None)
    """
    factor = _MICROMETRES.get(unit.strip()) or _MICROMETRES.get(unit.strip().lower())
    if factor is None or not 0 < value < float("inf"):
        return None
    return value * factor


def parse_ome_xml(xml: str, path: str, own_name: str, pages: int) -> OmeDocument:
    """Read the OME-XML of the file ``own_name``, which has ``pages`` pages.

    Raises
    ------
    ReadError
        If the XML declares entities, or more planes than any image has, or names a file outside its folder.
    ValueError
        If it is not well formed, or contradicts itself; the pages can still be read as plain TIFF.
    """
    refuse_entities(xml, path)
    try:
        root = ElementTree.fromstring(xml.strip().rstrip("\0").encode())
    except (ElementTree.ParseError, UnicodeError) as error:
        raise ValueError(f"not well formed: {error}") from error
    binary_only = next(_children(root, "BinaryOnly"), None)
    if binary_only is not None:
        return OmeDocument((), binary_only.get("MetadataFile", "another file"))
    objectives = {item.get("ID"): item for item in root.iter() if _tag(item) == "Objective"}
    own = _OwnFile(own_name, root.get("UUID"), _named_files(root))
    images = []
    for image in _children(root, "Image"):
        for pixels in _children(image, "Pixels"):
            images.append(_parse_image(image, pixels, objectives, own, path, pages))
    return OmeDocument(tuple(images), None)


@dataclass(frozen=True)
class _OwnFile:
    name: str
    uuid: str | None
    named: frozenset[str]

    def locate(self, uuid: ElementTree.Element | None, path: str) -> str | None:
        """The file that a UUID element names, None if it is this one."""
        if uuid is None:
            return None
        name = uuid.get("FileName")
        same_uuid = self.uuid is not None and (uuid.text or "").strip() == self.uuid
        if not name or same_uuid or name.lower() == self.name.lower():
            return None
        if "/" in name or "\\" in name or name in (".", "..") or "\0" in name or ":" in name:
            raise ReadError(path, f"its OME-XML names the file {name!r}; only files of the same folder are read")
        # An only file under another name, in a text that says of no UUID that it is its own: this file was renamed.
        return None if self.uuid is None and len(self.named) == 1 else name


def _parse_image(
    image: ElementTree.Element,
    pixels: ElementTree.Element,
    objectives: Mapping[str | None, ElementTree.Element],
    own: _OwnFile,
    path: str,
    pages: int,
) -> OmeImage:
    sizes = {axis: _positive(pixels, f"Size{axis}") for axis in "TZCXY"}
    order = pixels.get("DimensionOrder", "")
    if sorted(order) != sorted("XYZCT") or not order.startswith("XY"):
        raise ValueError(f"DimensionOrder is {order!r}")
    dtype = _DTYPES.get(pixels.get("Type", ""))
    if dtype is None:
        raise ValueError(f"pixel type is {pixels.get('Type')!r}")
    channels = list(_children(pixels, "Channel"))
    samples = {int(channel.get("SamplesPerPixel", 1)) for channel in channels} or {1}
    if len(samples) > 1 or min(samples) < 1 or sizes["C"] % min(samples):
        raise ValueError(f"{sizes['C']} channels of {sorted(samples)} samples")
    per_page = samples.pop()
    page_sizes = {"T": sizes["T"], "Z": sizes["Z"], "C": sizes["C"] // per_page}
    if page_sizes["T"] * page_sizes["Z"] * page_sizes["C"] > _MOST_PLANES:
        raise ReadError(
            path, f"its OME-XML declares {page_sizes} planes; at most {_MOST_PLANES} are read from one image"
        )

    names: list[str | None] = [None] * (sizes["C"] // per_page)
    for number, channel in enumerate(channels[: len(names)]):
        names[number] = channel.get("Name") or None
    significant = pixels.get("SignificantBits")
    return OmeImage(
        name=image.get("Name"),
        width=sizes["X"],
        height=sizes["Y"],
        sizes=page_sizes,
        order=order,
        dtype=dtype,
        samples=per_page,
        significant_bits=int(significant) if significant else None,
        channel_names=tuple(names),
        pixel_size_um=_pixel_size(pixels),
        magnification=_magnification(image, objectives),
        planes=_planes(pixels, order, page_sizes, own, path, pages),
    )


def _planes(
    pixels: ElementTree.Element, order: str, sizes: Mapping[str, int], own: _OwnFile, path: str, pages: int
) -> dict[tuple[int, int, int], OmePlane]:
    fastest_first = order[2:]
    lengths = [sizes[axis] for axis in fastest_first]
    total = lengths[0] * lengths[1] * lengths[2]
    planes: dict[tuple[int, int, int], OmePlane] = {}
    blocks = list(_children(pixels, "TiffData"))
    for block in blocks or [ElementTree.Element("TiffData")]:
        first = [int(block.get(f"First{axis}", 0)) for axis in fastest_first]
        if any(not 0 <= index < length for index, length in zip(first, lengths, strict=True)):
            raise ValueError(f"a TiffData begins at {dict(zip(fastest_first, first, strict=True))} of {dict(sizes)}")
        start = first[0] + lengths[0] * (first[1] + lengths[1] * first[2])
        page = int(block.get("IFD", 0))
        file = own.locate(next(_children(block, "UUID"), None), path)
        stated = block.get("PlaneCount") or block.get("NumPlanes")
        if stated is not None:
            count = int(stated)
        elif block.get("IFD") is not None:
            count = 1
        else:  # "all pages of the file"
            count = pages if file is None else total
        if page < 0 or count < 0:
            raise ValueError(f"a TiffData states IFD {page} and PlaneCount {count}")
        for step in range(min(count, total - start)):
            rest, i0 = divmod(start + step, lengths[0])
            i2, i1 = divmod(rest, lengths[1])
            at = dict(zip(fastest_first, (i0, i1, i2), strict=True))
            planes[at["T"], at["Z"], at["C"]] = OmePlane(file, page + step)
    return planes


def _pixel_size(pixels: ElementTree.Element) -> float | None:
    value = pixels.get("PhysicalSizeX")
    if value is None:
        return None
    return micrometres(float(value), pixels.get("PhysicalSizeXUnit", "µm"))  # the schema's default unit


def _magnification(image: ElementTree.Element, objectives: Mapping[str | None, ElementTree.Element]) -> float | None:
    settings = next((item for item in image if _tag(item) in ("ObjectiveSettings", "ObjectiveRef")), None)
    objective = None if settings is None else objectives.get(settings.get("ID"))
    value = None if objective is None else objective.get("NominalMagnification")
    return float(value) if value and float(value) > 0 else None


def _named_files(root: ElementTree.Element) -> frozenset[str]:
    return frozenset(item.get("FileName", "") for item in root.iter() if _tag(item) == "UUID" and item.get("FileName"))


def _positive(element: ElementTree.Element, name: str) -> int:
    value = int(element.get(name, 0))
    if value < 1:
        raise ValueError(f"{name} is {element.get(name)!r}")
    return value


def _tag(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def _children(element: ElementTree.Element, tag: str) -> Iterator[ElementTree.Element]:
    return (child for child in element if _tag(child) == tag)
