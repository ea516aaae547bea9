"""Single fields of all records, by their dotted paths; no other column is read."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from chammi75.errors import FilterError
from chammi75.loading.layouts import Layout, StoreLayout
from chammi75.store.facets import FACETS, Facet

if TYPE_CHECKING:
    import pyarrow as pa

_FACET_OF = {path: name for name, path in FACETS.items()}


def image_ids(layout: Layout, rows: range | NDArray[np.int64] | None = None) -> pa.Array:
    """Ids of some images, of all by default, in their order."""
    import pyarrow as pa

    ids = _column(layout, "image_id")
    if rows is None:
        return ids
    return ids.slice(rows.start, len(rows)) if isinstance(rows, range) else ids.take(pa.array(rows))


def repeated_ids(parts: Sequence[pa.Array]) -> pa.Array:
    """Ids that are in several of these arrays of ids, sorted."""
    import pyarrow as pa
    import pyarrow.compute as pc

    ids = pa.concat_arrays([part.cast(pa.large_string()) for part in parts])
    if pc.count_distinct(ids).as_py() == len(ids):
        return ids.slice(0, 0)
    counts = pc.value_counts(ids)
    repeated = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
    return repeated.take(pc.sort_indices(repeated))


def field_facet(layout: Layout, path: str) -> Facet:
    """A field of all images, as numbers into a list of its different values.

    Parameters
    ----------
    layout : Layout
    path : str
        Dotted path (``experiment.plate``). ``imaging.channel_type`` gives the types of all channels of an image as one
        JSON text; other lists are refused.

    Raises
    ------
    FilterError
        If the record has no such field, or it is no single value.
    """
    import pyarrow.compute as pc

    check_field(path)
    if path in _FACET_OF:
        return layout.facet(_FACET_OF[path])
    return Facet.from_column(pc.dictionary_encode(_column(layout, path)))


def check_field(path: str) -> None:
    """Refuse what is no field of the record with one value per image."""
    import pyarrow as pa

    from chammi75.loading.query import record_paths
    from chammi75.schemas.arrow import record_schema

    known = record_paths()
    if path not in known:
        leaves = {other.rpartition(".")[2]: other for other in known}
        asked = path.rpartition(".")[2]
        near = [leaves[leaf] for leaf in get_close_matches(asked, leaves, 2, 0.6)] or get_close_matches(path, known, 2)
        hint = f"did you mean {' or '.join(near)}?" if near else "docs/record.md lists its fields"
        raise FilterError(f"the record has no field {path!r}; {hint}")
    group, *names = path.split(".")
    data_type = record_schema().field(group).type
    for name in names:
        data_type = data_type.field(name).type
    if pa.types.is_struct(data_type):
        fields = ", ".join(f"{path}.{field.name}" for field in data_type)
        raise FilterError(f"{path} is a group of fields: name one of {fields}")
    if path not in _FACET_OF and pa.types.is_list(data_type):
        raise FilterError(f"{path} has one value per channel: images can be grouped by what has one value per image")


def _column(layout: Layout, path: str) -> Any:
    """A field as one Arrow array."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if isinstance(layout, StoreLayout):
        store = layout.store
        records = store.index.table if path == "image_id" else store.records([path])
    else:
        searchable = layout.searchable()
        if isinstance(searchable, str):
            import pyarrow.parquet as pq

            records = pq.read_table(searchable, columns=[path])
        else:
            records = searchable
    group, *names = path.split(".")
    column = records.column(group)
    array = (
        column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks or [pa.array([], column.type)])
    )
    return pc.struct_field(array, names) if names else array
