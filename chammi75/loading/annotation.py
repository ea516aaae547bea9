"""``Annotation``: the cells of an image, read when somebody asks for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from chammi75.errors import StoreError
from chammi75.files import StorageOptions, explain, is_local, join_url, read_ranges, reading_errors

KEYS = ("centroids", "sizes")

Cells = dict[str, list[Any]]


class Annotation(dict[str, list[Any]]):
    """The cells of each channel: ``{"centroids": […], "sizes": […]}``, a dict whose values are read on first use.

    An entry is an array, centroids (n, 2) as (x, y) and sizes (n,), float32; None where the source has none for that
    channel. As long as nobody has looked, a copy and a pickle of it are references too; after that they are plain
    dicts.

    Parameters
    ----------
    storage : mapping
        Where the cells are: a value of ``chammi75.loading.feature.CELLS_TYPE``.
    storage_options : mapping, optional
        For the fsspec filesystem of its files.

    Raises
    ------
    ChammiError
        On first use, if the cells cannot be read.
    """

    __slots__ = ("_options", "_storage")

    def __init__(self, storage: Mapping[str, Any], storage_options: StorageOptions | None = None) -> None:
        super().__init__(dict.fromkeys(KEYS, _UNREAD))
        self._storage: Mapping[str, Any] | None = storage
        self._options = storage_options

    @property
    def is_read(self) -> bool:
        """Whether the values are in memory."""
        return self._storage is None

    def read(self) -> None:
        """Read the values, once."""
        storage = self._storage
        if storage is not None:
            dict.update(self, read_cells(storage, self._options) or {name: [] for name in KEYS})
            self._storage = None

    def __reduce__(self) -> tuple[Any, ...]:
        if self._storage is None:
            return dict, (dict(self),)
        return type(self), (self._storage, self._options)


class _Unread(list[Any]):
    """Stands in the dict until it is read. No method of ``Annotation`` shows it: who finds it went round them, in C."""

    def __repr__(self) -> str:
        return "<cells that are not read yet>"


_UNREAD = _Unread([object()])  # no library makes a column of that: what goes round the methods fails, and loses nothing


def _reading(name: str) -> Callable[..., Any]:
    """A method of dict that reads first. An overridden ``__iter__`` makes ``dict(x)`` and ``**x`` use these too."""
    method = getattr(dict, name)

    def call(self: Annotation, *args: Any, **kwargs: Any) -> Any:
        self.read()
        return method(self, *args, **kwargs)

    call.__name__ = name
    call.__qualname__ = f"Annotation.{name}"
    call.__doc__ = method.__doc__
    return call


for _name in (
    *("__getitem__", "__setitem__", "__delitem__", "__iter__", "__reversed__", "__eq__", "__ne__", "__repr__"),
    *("__or__", "__ror__", "__ior__", "get", "items", "values", "copy", "pop", "popitem", "setdefault", "update"),
    "clear",
):
    setattr(Annotation, _name, _reading(_name))


def read_cells(storage: Mapping[str, Any], storage_options: StorageOptions | None = None) -> Cells | None:
    """The cells of each channel as arrays; None where there turn out to be none of the image.

    Parameters
    ----------
    storage : mapping
        A value of ``chammi75.loading.feature.CELLS_TYPE``.
    storage_options : mapping, optional

    Raises
    ------
    ChammiError
        If they cannot be read.
    """
    if storage["paths"] is not None:
        return _from_guidance(storage["uri"], storage["paths"], storage_options)
    if storage["cells"] is not None:
        return _from_shard(storage, storage_options)
    kept: Cells = {name: [] for name in KEYS}
    for name, shape in (("centroids", (-1, 2)), ("sizes", (-1,))):
        for entry in storage[name] or ():
            kept[name].append(None if entry is None else np.asarray(entry, np.float32).reshape(shape))
    return kept


def _from_guidance(base: str, paths: list[str | None], options: StorageOptions | None) -> Cells | None:
    from chammi75.readers.guidance import find_guidance

    found = find_guidance([None if path is None else join_url(base, path) for path in paths], options)
    if all(entry is None for entry in found):
        return None  # in a bucket only asking tells
    return {
        "centroids": [None if entry is None else entry.xy for entry in found],
        "sizes": [None if entry is None else entry.sizes for entry in found],
    }


def _from_shard(value: Mapping[str, Any], options: StorageOptions | None) -> Cells:
    from chammi75.store.reader import map_file
    from chammi75.store.shard import cells_from_bytes

    numbers = [None if entry is None or np.isnan(entry) else int(entry) for entry in value["cells"]]
    count = sum(entry or 0 for entry in numbers)
    parts: list[Any] = [b"", b""]
    if count:
        ranges = [(int(value["centroids_offset"]), 8 * count), (int(value["sizes_offset"]), 4 * count)]
        if is_local(value["uri"]):
            view = memoryview(map_file(value["uri"]))
            parts = [view[offset : offset + length] for offset, length in ranges]
        else:
            try:
                parts = list(read_ranges(value["uri"], ranges, options))
            except reading_errors() as error:
                reason = explain(error, value["uri"], options)
                raise StoreError(f"{value['uri']}: the cells cannot be read: {reason}") from error
    try:
        cells = cells_from_bytes(numbers, bytes(parts[0]), bytes(parts[1])) or []
    except StoreError as error:
        raise StoreError(f"{value['uri']}: {error} (at byte {value['centroids_offset']})") from error
    kept = range(len(cells)) if value["kept"] is None else value["kept"]
    return {
        "centroids": [None if (entry := cells[k]) is None else entry.centroids for k in kept],
        "sizes": [None if (entry := cells[k]) is None else entry.sizes for k in kept],
    }
