"""What is exported: the images of stores that filters, a condition and a subset leave."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from chammi75.files import StorageOptions
from chammi75.loading.filters import Filters
from chammi75.loading.selection import Selection, select_all
from chammi75.loading.stores import Named, open_stores

if TYPE_CHECKING:
    from chammi75.loading.subsets import Subset


def selections_for(
    store: Named | Sequence[Named],
    *,
    split: str | None = None,
    where: str | None = None,
    subset: Subset | str | os.PathLike[str] | None = None,
    metadata: str | None = None,
    storage_options: StorageOptions | None = None,
    cache_dir: str | None = None,
    **filters: Any,
) -> list[Selection]:
    """Select images of stores, or of copies of the published layout.

    Parameters
    ----------
    store : str, path, Store or Layout, or sequence of them
        As for ``load_dataset``; ``"mini"`` is the embedded dataset.
    split : str, optional
        All by default.
    where : str, optional
        An SQL condition over the record.
    subset : Subset, str or path, optional
        A subset of the store, a recipe file, or the name of a shipped recipe.
    metadata : str, optional
        Metadata table of a published layout that has several.
    storage_options : mapping, optional
        For the filesystem of the store.
    cache_dir : str, optional
        Where ``"mini"`` is built.
    **filters
        Keyword filters of ``load_dataset``.

    Returns
    -------
    list of Selection
        Each holds an image at least.

    Raises
    ------
    FilterError
        If a filter names what is not there, or no image passes.
    """
    layouts = open_stores(store, metadata=metadata, storage_options=storage_options, cache_dir=cache_dir)
    taken = None
    if subset is not None:
        from chammi75.loading.subsets import subset_of

        taken = subset_of(subset, layouts)
    return select_all(layouts, Filters(**filters), where, split, taken)
