"""Which pictures of a TIFF are images: not the smaller levels of a pyramid, a thumbnail, a label, a mask."""

from __future__ import annotations

from typing import Any

_BESIDE_THE_SLIDE = frozenset({"thumbnail", "label", "macro", "map", "overview", "probe"})
_REDUCED, _MASK = 0b1, 0b100  # NewSubfileType
_OLD_REDUCED = 2  # SubfileType of TIFF 5


def full_images(found: list[Any]) -> tuple[list[Any], str | None]:
    """The images among the series of a ``tifffile.TiffFile``, at full resolution.

    Left out are pages that say that they are a reduced copy or a mask (NewSubfileType), what hangs below another page
    (SubIFDs), and what a slide scanner adds: thumbnail, label, macro. If all are such, the largest is the image.

    Returns
    -------
    (list of tifffile.TiffPageSeries, str or None)
        The images, and a note of what was left out.
    """
    images = [kept for series in found if (kept := _without_marked_pages(series)) is not None]
    left_out = [series for series in found if not any(_same(series, kept) for kept in images)]
    if not images and found:
        largest = max(found, key=_area)
        images, left_out = [largest], [series for series in found if series is not largest]
    levels = sum(len(series.levels) - 1 for series in images)
    parts = []
    if levels:
        parts.append(f"{levels} smaller level{'s' if levels > 1 else ''}")
    if left_out:
        sizes = ", ".join(_describe(series) for series in left_out[:5])
        parts.append(f"{len(left_out)} picture{'s' if len(left_out) > 1 else ''} beside the image ({sizes})")
    return images, f"read at full resolution; left out: {' and '.join(parts)}" if parts else None


def _without_marked_pages(series: Any) -> Any | None:
    """``series`` without pages that are no images; None if none is left."""
    import tifffile

    if (series.name or "").strip().lower() in _BESIDE_THE_SLIDE or _is_marked(series.keyframe):
        return None
    if series.kind != "generic" or len(series.pages) < 2:
        return series
    pages = [page for page in series.pages if not _is_marked(page)]
    if len(pages) == len(series.pages):
        return series
    shape, axes = pages[0].shape, pages[0].axes
    if len(pages) > 1:
        shape, axes = (len(pages), *shape), "I" + axes
    return tifffile.TiffPageSeries(pages, shape, series.dtype, axes, kind="generic")


def _is_marked(page: Any) -> bool:
    if getattr(page, "is_subifd", False) or page.subfiletype & (_REDUCED | _MASK):
        return True
    tags = getattr(page, "tags", None)  # a frame has none of its own
    return tags is not None and tags.valueof(255) == _OLD_REDUCED


def _same(series: Any, kept: Any) -> bool:
    return series is kept or series.keyframe is kept.keyframe


def _area(series: Any) -> int:
    return int(series.keyframe.imagewidth) * int(series.keyframe.imagelength)


def _describe(series: Any) -> str:
    page = series.keyframe
    name = (series.name or "").strip().lower()
    size = f"{page.imagewidth} x {page.imagelength}"
    return f"{name} {size}" if name in _BESIDE_THE_SLIDE else size
