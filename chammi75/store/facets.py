"""Facets: the columns that people filter by, as numbers into short lists of words.

A filter is answered on the list (how many words pass?) and then looked up for each image, which takes milliseconds
for millions of images; and the list itself says which values there are, for messages.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow as pa

FACETS: dict[str, str] = {
    "study": "experiment.study",
    "organism": "biology.organism",
    "cell_line": "biology.cell_line",
    "microscopy_type": "microscopy.type",
    "magnification": "microscopy.magnification",
    "platform": "provenance.platform",
    "license": "provenance.license",
    "channel_types": "imaging.channel_type",
}
"""Facet -> field of the record. ``channel_types`` has the types of all channels of an image as a JSON list."""

_NUMBERS = ("magnification",)
_SEPARATOR, _NULL = "\x1f", "\x00"


def facet_types() -> dict[str, pa.DataType]:
    """Arrow type of each facet's column."""
    import pyarrow as pa

    return {name: pa.dictionary(pa.int32(), pa.float64() if name in _NUMBERS else pa.string()) for name in FACETS}


def facet_columns(records: pa.Table) -> dict[str, pa.DictionaryArray]:
    """The facets of records.

    Parameters
    ----------
    records : pyarrow.Table
        With the columns of ``record_schema()``.

    Returns
    -------
    dict of DictionaryArray
        One entry per row each; null where the record has null.
    """
    import pyarrow.compute as pc

    columns = {}
    for name, path in FACETS.items():
        group, field = path.split(".")
        values = pc.struct_field(_one_chunk(records.column(group)), field)
        columns[name] = _joined(values) if name == "channel_types" else pc.dictionary_encode(values)
    return columns


def _one_chunk(column: Any) -> Any:
    import pyarrow as pa

    if column.num_chunks == 1:
        return column.chunk(0)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def _joined(lists: pa.ListArray) -> pa.DictionaryArray:
    """Lists of words as JSON texts, each different list written once."""
    import pyarrow as pa
    import pyarrow.compute as pc

    words = pc.fill_null(lists.values, _NULL)
    filled = pa.ListArray.from_arrays(lists.offsets, words)
    encoded = pc.dictionary_encode(pc.binary_join(filled, _SEPARATOR))
    texts = [
        json.dumps([None if word == _NULL else word for word in text.split(_SEPARATOR)], ensure_ascii=False)
        for text in encoded.dictionary.to_pylist()
    ]
    return pa.DictionaryArray.from_arrays(encoded.indices, pa.array(texts, pa.string()))


@dataclass(frozen=True)
class Facet:
    """One facet of all images.

    Attributes
    ----------
    values : list
        The different values.
    codes : ndarray of int32, shape (images,)
        Number of each image's value in ``values``; -1 where it is unknown.
    """

    values: list[Any]
    codes: NDArray[np.int32]

    @classmethod
    def from_column(cls, column: pa.DictionaryArray) -> Facet:
        """The facet in a column of ``index.arrow``; its codes are not copied where none is null."""
        import pyarrow.compute as pc

        indices = column.indices if not column.null_count else pc.fill_null(column.indices, -1)
        codes = np.asarray(np.from_dlpack(indices), np.int32)  # to_numpy() would import pandas, which takes a second
        return cls(column.dictionary.to_pylist(), codes)

    def matching(self, passes: list[bool]) -> NDArray[np.bool_]:
        """Which images have a value that passes, shape (images,); ``passes`` has one entry per value."""
        table = np.array([*passes, False])  # -1 looks the last entry up
        return np.asarray(table[self.codes])
