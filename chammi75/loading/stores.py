"""What people name when they load: ``"mini"``, paths, URLs, opened stores; one or several."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike

from chammi75.errors import ChammiError
from chammi75.files import StorageOptions
from chammi75.loading.layouts import Layout, StoreLayout, open_layout
from chammi75.loading.names import resolve_name
from chammi75.store.parts import expand
from chammi75.store.reader import Store

Named = str | PathLike[str] | Store | Layout
"""A name, path or URL, or what is open already."""


def open_stores(
    named: Named | Sequence[Named],
    *,
    metadata: str | None = None,
    storage_options: StorageOptions | None = None,
    cache_dir: str | None = None,
) -> list[Layout]:
    """Open one or several; a store that consists of others gives those.

    Parameters
    ----------
    named : str, path, Store or Layout, or sequence of them
        A name is resolved as `chammi75.loading.names.resolve_name` does.
    metadata, storage_options, cache_dir
        As for ``load_dataset``.

    Raises
    ------
    ChammiError
        If there is nothing to load.
    """
    several = list(named) if isinstance(named, Sequence) and not isinstance(named, str) else [named]
    if not several:
        raise ChammiError("there is nothing to load: give the name or URL of at least one store")
    opened = [_opened(one, metadata, storage_options, cache_dir) for one in several]
    return [part for layout in opened for part in _parts(layout)]


def _parts(layout: Layout) -> list[Layout]:
    if not isinstance(layout, StoreLayout) or not layout.store.manifest.parts:
        return [layout]
    return [StoreLayout(part) for part in expand(layout.store)]


def _opened(
    named: Named, metadata: str | None, storage_options: StorageOptions | None, cache_dir: str | None
) -> Layout:
    if isinstance(named, Store):
        return StoreLayout(named)
    if not isinstance(named, str | PathLike):
        if not hasattr(named, "identity"):
            raise ChammiError(f"a store is given by its name, path or URL, or opened, not as {named!r}")
        return named
    return open_layout(
        resolve_name(named, cache_dir), metadata=metadata, storage_options=storage_options, cache_dir=cache_dir
    )
