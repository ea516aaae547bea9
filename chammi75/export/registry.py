"""The formats that images are exported to: a name, what it is good for, and the module whose ``export`` writes it.

A new format is one file in this folder, with ``export(selections, out, *, storage_options, workers, advance)``, and one
line here.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from inspect import signature
from typing import TYPE_CHECKING, Any

from chammi75.errors import ChammiError
from chammi75.files import StorageOptions

if TYPE_CHECKING:
    from chammi75.export.report import ExportReport
    from chammi75.export.samples import Advance
    from chammi75.loading.selection import Selection
    from chammi75.loading.stores import Named


@dataclass(frozen=True)
class ExportFormat:
    """A format.

    Attributes
    ----------
    name : str
    module : str
        Where its ``export`` is.
    summary : str
        What it writes, in a line.
    """

    name: str
    module: str
    summary: str


_FORMATS = (
    ExportFormat("published", "chammi75.export.published", "the published CHAMMI-75 layout: a table, PNG, guidance"),
    ExportFormat("parquet", "chammi75.export.parquet", "Parquet with pictures and a dataset card, as on the Hub"),
    ExportFormat("webdataset", "chammi75.export.webdataset", "tar shards for sequential reading"),
    ExportFormat("croissant", "chammi75.export.croissant", "Parquet with a Croissant description"),
    ExportFormat("ome-zarr", "chammi75.export.ome_zarr", "OME-Zarr images and plates, for viewers"),
)

FORMATS: dict[str, ExportFormat] = {entry.name: entry for entry in _FORMATS}
"""The formats by name."""


def export_format(name: str) -> ExportFormat:
    """A format by its name.

    Raises
    ------
    ChammiError
        If there is none; the message names those that there are.

    Examples
    --------
    >>> export_format("parket")
    Traceback (most recent call last):
    ...
    chammi75.errors.ChammiError: 'parket' is no format to export to; did you mean parquet? There are published, \
parquet, webdataset, croissant, ome-zarr
    """
    if name in FORMATS:
        return FORMATS[name]
    near = get_close_matches(name.lower(), FORMATS, 1, 0.5)
    hint = f"; did you mean {near[0]}? There are" if near else "; there are"
    raise ChammiError(f"{name!r} is no format to export to{hint} {', '.join(FORMATS)}")


def export(
    source: Named | Selection | Sequence[Selection],
    to: str,
    out: str | os.PathLike[str],
    *,
    storage_options: StorageOptions | None = None,
    workers: int = 1,
    advance: Advance | None = None,
    **options: Any,
) -> ExportReport:
    """Write images in a format of others.

    Parameters
    ----------
    source : str, path, Store, Layout, Selection or sequence of Selection
        A store, or a copy of the published layout: all of it. Or what ``chammi75.export.selections_for`` has selected.
    to : str
        Name of the format, see ``FORMATS``.
    out : str or path
        A new or empty folder, or any fsspec URL. Only a whole export has an ``export.json`` in it.
    storage_options : mapping, optional
        For the filesystem of ``out``.
    workers : int
        Threads; the files do not depend on it.
    advance : callable, optional
        Called with 1 for each image.
    **options
        What the format's own ``export`` takes besides (``license``, ``title``, ``version`` …).

    Returns
    -------
    ExportReport
        Images that could not be read are in ``failed``.

    Raises
    ------
    ChammiError
        If the format or an option is unknown, the target is not new or empty, or not one image could be exported.
    """
    write = import_module(export_format(to).module).export
    known = [name for name in signature(write).parameters if name not in _SHARED]
    for name in options:
        if name not in known:
            raise ChammiError(f"{to} takes no option {name!r}; it takes {', '.join(known) or 'none'}")
    report: ExportReport = write(
        selected(source), out, storage_options=storage_options, workers=workers, advance=advance, **options
    )
    return report


def selected(source: Named | Selection | Sequence[Selection]) -> Selection | Sequence[Selection]:
    """A selection as it is; of anything else all images."""
    from chammi75.export.choice import selections_for
    from chammi75.loading.selection import Selection

    if isinstance(source, Selection):
        return source
    if isinstance(source, Sequence) and not isinstance(source, str):
        return source
    return selections_for(source)


_SHARED = ("selections", "out", "storage_options", "workers", "advance")
