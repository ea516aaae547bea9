"""File names out of image ids: safe on every filesystem, and no two images with one name."""

from __future__ import annotations

import hashlib
import re

_LONGEST = 80
_LONGEST_PLAIN = 200  # most filesystems hold 255 bytes, and endings follow
_OF_WINDOWS = re.compile(r"(?i)(con|prn|aux|nul|com[0-9]|lpt[0-9])(\.|$)")  # devices, whatever follows the dot
_CHANNELS_END = "-ch*.png"


def file_stem(image_id: str, source: str | None) -> str:
    """What to call the files of an image, in the folder of its source.

    An id of the published layout gives the name that its files have there. Others lose what no file name should have; a
    hash of the id then keeps them apart.

    Examples
    --------
    >>> file_stem("fly0001/01_POS002-ch*.png", "fly0001")
    '01_POS002'
    >>> file_stem("bbbc001/plate/A01_w*.tif", "bbbc001")
    'plate_A01_w-3c68563656'
    """
    name = image_id
    for prefix in {source, image_id.partition("/")[0]} - {None}:
        if name.startswith(f"{prefix}/"):
            name = name[len(f"{prefix}/") :]
            break
    if name.endswith(_CHANNELS_END) and is_plain(name[: -len(_CHANNELS_END)]):
        return name[: -len(_CHANNELS_END)]
    stem = re.sub(r"\.(ome\.)?[A-Za-z0-9]{1,5}(?=$|#)", "", name)
    stem = re.sub(r"[^A-Za-z0-9_+=-]+", "_", stem).strip("_")[:_LONGEST].strip("_-") or "image"
    return f"{stem}-{hashlib.sha256(image_id.encode()).hexdigest()[:10]}"


def folder_name(name: str | None) -> str:
    """A name as the folder of a source, a plate …

    Examples
    --------
    >>> folder_name("idr0001"), folder_name("a/b"), folder_name(None)
    ('idr0001', 'a_b-c14cddc033', 'unknown')
    """
    if name is None:
        return "unknown"
    if is_plain(name):
        return name
    stem = re.sub(r"[^A-Za-z0-9_+=-]+", "_", name).strip("_")[:_LONGEST] or "name"
    return f"{stem}-{hashlib.sha256(name.encode()).hexdigest()[:10]}"


def is_plain(name: str) -> bool:
    """Whether a name is the same in every filesystem, archive and URL.

    Examples
    --------
    >>> is_plain("B7_3"), is_plain("a/b"), is_plain(".."), is_plain("plate '1'"), is_plain("CON"), is_plain("nul.ome")
    (True, False, False, False, False, False)
    """
    is_safe = re.fullmatch(r"[A-Za-z0-9_+=-][A-Za-z0-9._+=-]*", name) is not None and not name.endswith(".")
    return is_safe and len(name) <= _LONGEST_PLAIN and _OF_WINDOWS.match(name) is None
