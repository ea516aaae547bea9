"""Images of one layout or several, in a row: what subsets are drawn and split from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from chammi75.errors import FilterError
from chammi75.loading.columns import field_facet, image_ids, repeated_ids
from chammi75.loading.layouts import Layout
from chammi75.loading.subsets.draws import Groups
from chammi75.store.facets import Facet

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Pool:
    """Some rows of some layouts.

    Attributes
    ----------
    layouts : tuple of Layout
    rows : tuple of ndarray of int64
        Rows of each layout, ascending.
    """

    layouts: tuple[Layout, ...]
    rows: tuple[NDArray[np.int64], ...]

    def __len__(self) -> int:
        return sum(len(rows) for rows in self.rows)

    def ids(self) -> pa.Array:
        """Ids of the images, as large_string where there are several layouts."""
        import pyarrow as pa

        parts = [image_ids(layout, rows) for layout, rows in zip(self.layouts, self.rows, strict=True)]
        return parts[0] if len(parts) == 1 else pa.concat_arrays([part.cast(pa.large_string()) for part in parts])

    def sorted_ids(self) -> pa.Array:
        """The same in the order of their UTF-8 bytes, which is that of Python's ``sorted``."""
        import pyarrow.compute as pc

        ids = self.ids()
        return ids.take(pc.sort_indices(ids))

    def facet(self, path: str, *, required: bool = True) -> Facet:
        """A field of the images, as numbers into a list of its different values.

        Raises
        ------
        FilterError
            If there is no such field, it is no single value, or (where ``required``) it is unknown for every image.
        """
        numbers: dict[Any, int] = {}
        codes = []
        for layout, rows in zip(self.layouts, self.rows, strict=True):
            facet = field_facet(layout, path)
            table = np.array([*(numbers.setdefault(value, len(numbers)) for value in facet.values), -1], np.int32)
            codes.append(table[facet.codes[rows]])
        found = Facet(list(numbers), np.concatenate(codes))
        if required and len(self) and not (found.codes >= 0).any():
            raise FilterError(f"{path} is unknown for every image here: images cannot be grouped by it")
        return found

    def groups(self, paths: Sequence[str], *, required: bool = True) -> Groups:
        """The images by the values of fields."""
        return Groups.of([self.facet(path, required=required) for path in paths])

    def count_by(self, paths: Sequence[str]) -> list[dict[str, Any]]:
        """Images for each combination of values, in the order of the values: the fields, and ``images``."""
        groups = self.groups(paths, required=False)
        return [
            {**dict(zip(paths, key, strict=True)), "images": size}
            for key, size in zip(groups.keys, groups.sizes.tolist(), strict=True)
        ]

    def kept(self, mask: NDArray[np.bool_]) -> Pool:
        """Those of the images for which ``mask``, shape (images,), is true."""
        ends = np.cumsum([len(rows) for rows in self.rows])[:-1]
        parts = np.split(mask, ends)
        return Pool(self.layouts, tuple(rows[part] for rows, part in zip(self.rows, parts, strict=True)))

    def first_repeated_id(self) -> str | None:
        """An id that two of the layouts have; None if all differ."""
        if sum(1 for rows in self.rows if len(rows)) < 2:
            return None
        repeated = repeated_ids([image_ids(*part) for part in zip(self.layouts, self.rows, strict=True)])
        return str(repeated[0]) if len(repeated) else None
