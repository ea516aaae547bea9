"""Keeping some channels of each sample: every list that has one entry per plane loses the same entries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow as pa

_COLUMNS = ("imaging", "storage", "provenance", "quality", "image", "annotation")
_LEFT_AS_THEY_ARE = ("missing_channel", "steps", "cells", "centroids", "sizes", "kept")


def keep_channels(samples: pa.Table, words: Sequence[str]) -> pa.Table:
    """Samples with only those planes whose channel type is one of ``words``, in stored order.

    Parameters
    ----------
    samples : pyarrow.Table
        As a layout gives them; each has at least one such plane.
    words : sequence of str
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    samples = samples.combine_chunks()
    types = pc.struct_field(_array(samples.column("imaging")), "channel_type")
    lengths = pc.list_value_length(types).to_numpy(zero_copy_only=False)
    kept = pc.is_in(pc.list_flatten(types), pa.array(list(words), pa.string())).to_numpy(zero_copy_only=False)
    parents = np.repeat(np.arange(len(types)), lengths)
    counts = np.bincount(parents[kept], minlength=len(types))
    selection = _Selection(lengths, kept, counts)
    for name in _COLUMNS:
        position = samples.schema.get_field_index(name)
        column = _filtered(_array(samples.column(name)), selection)
        if name == "annotation":
            column = _annotation(column, selection)
        samples = samples.set_column(position, samples.schema.field(name), column)
    geometry = _array(samples.column("geometry"))
    fields = [
        pa.array(counts, pa.int32()) if field.name == "channels" else pc.struct_field(geometry, field.name)
        for field in geometry.type
    ]
    position = samples.schema.get_field_index("geometry")
    return samples.set_column(
        position, samples.schema.field("geometry"), pa.StructArray.from_arrays(fields, fields=list(geometry.type))
    )


class _Selection:
    """Which entries of lists with one entry per plane stay.

    ``lengths`` (images,) are the numbers of planes, ``kept`` (planes,) says which stay, ``counts`` (images,) how many
    of each image.
    """

    def __init__(self, lengths: NDArray[Any], kept: NDArray[np.bool_], counts: NDArray[Any]) -> None:
        self.lengths, self.kept, self.counts = lengths, kept, counts
        self.ends = np.concatenate(([0], np.cumsum(lengths)))

    def applied(self, column: pa.ListArray) -> pa.ListArray:
        """The list column without the entries that go; lists that are null or empty stay so."""
        import pyarrow as pa
        import pyarrow.compute as pc

        valid = column.is_valid().to_numpy(zero_copy_only=False)
        own = np.where(valid, pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False), 0)
        has = own > 0
        mask = np.concatenate(
            [self.kept[self.ends[k] : self.ends[k + 1]] for k in np.flatnonzero(has)] or [np.zeros(0, bool)]
        )
        if has.all():
            mask = self.kept
        values = pc.list_flatten(column).filter(pa.array(mask))
        offsets = np.concatenate(([0], np.cumsum(np.where(has, self.counts, 0))))
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values, type=column.type, mask=pa.array(~valid))


def _filtered(column: pa.StructArray, selection: _Selection) -> pa.StructArray:
    import pyarrow as pa
    import pyarrow.compute as pc

    fields = []
    for field in column.type:
        values = pc.struct_field(column, field.name)
        if pa.types.is_struct(field.type):
            values = _filtered(values, selection)
        elif pa.types.is_list(field.type) and field.name not in _LEFT_AS_THEY_ARE:
            values = selection.applied(values)
        fields.append(values)
    return pa.StructArray.from_arrays(fields, fields=list(column.type), mask=column.is_null())


def _annotation(column: pa.StructArray, selection: _Selection) -> pa.StructArray:
    """The annotation with the numbers of the channels to give; its byte ranges stay those of all channels."""
    import pyarrow as pa
    import pyarrow.compute as pc

    within = np.arange(len(selection.kept)) - np.repeat(selection.ends[:-1], selection.lengths)
    offsets = np.concatenate(([0], np.cumsum(selection.counts)))
    numbers = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(within[selection.kept], pa.int32()))
    fields = [
        numbers.cast(field.type) if field.name == "kept" else pc.struct_field(column, field.name)
        for field in column.type
    ]
    return pa.StructArray.from_arrays(fields, fields=list(column.type), mask=column.is_null())


def _array(column: Any) -> Any:
    import pyarrow as pa

    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks or [pa.array([], column.type)])
