"""Which images a stream draws from, and what of that its state remembers."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from chammi75.errors import FilterError
from chammi75.loading.filters import FilterOptions, Filters
from chammi75.loading.layouts import Layout, StoreLayout
from chammi75.loading.selection import Selection, select_all

if TYPE_CHECKING:
    from chammi75.loading.subsets import Subset

    Chosen: TypeAlias = Mapping[str, Any] | Subset | str | os.PathLike[str] | None

_OTHERS = ("where", "subset")


def choose(layouts: Sequence[Layout], chosen: Chosen, split: str | None) -> list[Selection]:
    """The rows of some layouts that are chosen.

    Parameters
    ----------
    layouts : sequence of Layout
    chosen : mapping, Subset, str, path or None
        Filters by the names that ``load_dataset`` has, ``where`` and ``subset`` among them; or a subset alone.
    split : str or None

    Raises
    ------
    FilterError
        If a filter has another name, or no image passes.
    """
    if not isinstance(chosen, Mapping):
        chosen = {} if chosen is None else {"subset": chosen}
    names = (*FilterOptions.__annotations__, *_OTHERS)
    for name in chosen:
        if name not in names:
            near = get_close_matches(str(name), names, 1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(names)}"
            raise FilterError(f"selection has no filter {name!r}; {hint}")
    filters = Filters(**{name: value for name, value in chosen.items() if name not in _OTHERS})
    subset = None
    if chosen.get("subset") is not None:
        from chammi75.loading.subsets import subset_of

        subset = subset_of(chosen["subset"], layouts)
    return select_all(layouts, filters, chosen.get("where"), split, subset)


def store_identity(selection: Selection) -> list[Any]:
    """What changes when the images of a selection's layout, or their order, do."""
    layout = selection.layout
    if isinstance(layout, StoreLayout):
        return [layout.identity, [shard.rows for shard in layout.store.shards]]
    return [layout.identity]


def selection_hash(selection: Selection) -> str:
    """SHA-256 of the rows and channels of a selection."""
    rows = selection.rows
    digest = hashlib.sha256(repr(selection.channel_types and sorted(selection.channel_types)).encode())
    if isinstance(rows, range):
        digest.update(f"{rows.start}:{rows.stop}".encode())
    else:
        digest.update(np.ascontiguousarray(rows, "<i8").tobytes())
    return digest.hexdigest()
