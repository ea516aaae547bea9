"""The two feature types that chammi75 adds to Hugging Face datasets: a multi-channel image, and the cells of one.

Both are stored as references (which file, which bytes) and decoded when a sample is asked for: the image stays lazy,
the cells become arrays. Importing this module registers them.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from datasets.features.features import register_feature

from chammi75.errors import ChammiError, StoreError
from chammi75.files import StorageOptions, join_url
from chammi75.loading.image import MultiChannelImage

IMAGE_TYPE = pa.struct(
    [
        pa.field("image_id", pa.string()),
        pa.field("uri", pa.string()),
        pa.field("paths", pa.list_(pa.string())),
        pa.field("offsets", pa.list_(pa.int64())),
        pa.field("lengths", pa.list_(pa.int64())),
        pa.field("planes", pa.list_(pa.binary())),
        pa.field("channel_types", pa.list_(pa.string())),
        pa.field("panels", pa.list_(pa.string())),
        pa.field("height", pa.int32()),
        pa.field("width", pa.int32()),
        pa.field("dtype", pa.string()),
        pa.field("significant_bits", pa.int32()),
        pa.field("pixel_size_um", pa.float64()),
    ]
)
"""How an image is stored: the keys of ``chammi75.loading.image.STORAGE_KEYS``."""

CELLS_TYPE = pa.struct(
    [
        pa.field("uri", pa.string()),
        pa.field("paths", pa.list_(pa.string())),
        pa.field("cells", pa.list_(pa.int32())),
        pa.field("centroids_offset", pa.int64()),
        pa.field("sizes_offset", pa.int64()),
        pa.field("kept", pa.list_(pa.int32())),
        pa.field("centroids", pa.list_(pa.list_(pa.list_(pa.float32(), 2)))),
        pa.field("sizes", pa.list_(pa.list_(pa.float32()))),
    ]
)
"""How cells are stored: byte ranges of a shard, paths of guidance files, or values; ``kept``: the channels to give."""


@dataclass
class MultiChannelImageFeature:
    """Feature type of the column ``image``: decodes to a ``MultiChannelImage``.

    Parameters
    ----------
    decode : bool
        False gives the stored references.
    """

    decode: bool = True
    id: str | None = field(default=None, repr=False)
    dtype: ClassVar[str] = "chammi75.MultiChannelImage"
    pa_type: ClassVar[Any] = IMAGE_TYPE
    _type: str = field(default="MultiChannelImageFeature", init=False, repr=False)

    def __call__(self) -> pa.DataType:
        return self.pa_type

    def with_storage_options(self, storage_options: StorageOptions | None) -> MultiChannelImageFeature:
        """The same, for files that need options to be opened. They travel to workers, and are never written to disk."""
        self._options = dict(storage_options or {})
        return self

    def encode_example(self, value: Any) -> dict[str, Any]:
        """An image as references, or an array (C, H, W) with its pixels.

        Raises
        ------
        ChammiError
            If it is neither.
        """
        if isinstance(value, Mapping):
            return {name: value.get(name) for name in IMAGE_TYPE.names}
        if hasattr(value, "__array__"):
            return dict(MultiChannelImage.from_array(np.asarray(value)))
        raise ChammiError(
            f"a multi-channel image is a MultiChannelImage or an array (C, H, W), not {type(value).__name__}"
        )

    def decode_example(self, value: Mapping[str, Any], token_per_repo_id: Any = None) -> MultiChannelImage:
        """The lazy image."""
        if not self.decode:
            raise RuntimeError("decoding is switched off for this column (decode=False)")
        storage = {name: _listed(value.get(name)) for name in IMAGE_TYPE.names}
        return MultiChannelImage(storage, getattr(self, "_options", None))

    def cast_storage(self, storage: pa.Array) -> pa.Array:
        """Arrow storage of an image column, brought to its type; arrays (C, H, W) become images."""
        if pa.types.is_list(storage.type) or pa.types.is_large_list(storage.type):
            depth, kind = 1, storage.type.value_type
            while pa.types.is_list(kind) or pa.types.is_large_list(kind):
                depth, kind = depth + 1, kind.value_type
            if depth == 3 and (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
                dtype = kind.to_pandas_dtype()
                values = [None if entry is None else np.array(entry, dtype) for entry in storage.to_pylist()]
                return pa.array([None if entry is None else self.encode_example(entry) for entry in values], IMAGE_TYPE)
        return _cast(storage, IMAGE_TYPE)

    def embed_storage(self, storage: pa.Array, *_: Any, **__: Any) -> pa.Array:
        """References replaced by the encoded planes, so that the column stands on its own (``push_to_hub``)."""
        options = getattr(self, "_options", None)
        values = []
        for entry in storage.to_pylist():
            if entry is not None and entry["planes"] is None:
                planes = MultiChannelImage(entry, options).encoded_planes()
                entry = {**entry, "planes": planes, "uri": None, "paths": None, "offsets": None, "lengths": None}
            values.append(entry)
        return pa.array(values, IMAGE_TYPE)

    def flatten(self) -> dict[str, Any]:
        """The feature types of its fields."""
        from datasets import Features

        return dict(Features.from_arrow_schema(pa.schema(list(IMAGE_TYPE))))


@dataclass
class CellsFeature:
    """Feature type of the column ``annotation``: decodes to ``{"centroids": […], "sizes": […]}``.

    An entry is an array, centroids (n, 2) as (x, y) and sizes (n,), float32; None where the source has none for that
    channel.
    """

    id: str | None = field(default=None, repr=False)
    dtype: ClassVar[str] = "dict"
    pa_type: ClassVar[Any] = CELLS_TYPE
    _type: str = field(default="CellsFeature", init=False, repr=False)

    def __call__(self) -> pa.DataType:
        return self.pa_type

    def with_storage_options(self, storage_options: StorageOptions | None) -> CellsFeature:
        """The same, for files that need options to be opened."""
        self._options = dict(storage_options or {})
        return self

    def encode_example(self, value: Mapping[str, Any]) -> dict[str, Any]:
        """Cells as values."""
        if set(value) >= set(CELLS_TYPE.names):
            return dict(value)
        listed = {
            name: [None if entry is None else np.asarray(entry, np.float32).tolist() for entry in value[name]]
            for name in ("centroids", "sizes")
        }
        return {**dict.fromkeys(CELLS_TYPE.names), **listed}

    def decode_example(self, value: Mapping[str, Any], token_per_repo_id: Any = None) -> dict[str, list[Any]] | None:
        """The cells of each channel as arrays; None where there are none of the image."""
        options = getattr(self, "_options", None)
        value = {name: _listed(value.get(name)) for name in CELLS_TYPE.names}
        if value["paths"] is not None:
            return _from_guidance(value["uri"], value["paths"], options)
        if value["cells"] is not None:
            return _from_shard(value, options)
        kept: dict[str, list[Any]] = {"centroids": [], "sizes": []}
        for name, shape in (("centroids", (-1, 2)), ("sizes", (-1,))):
            for entry in value[name] or ():
                kept[name].append(None if entry is None else np.asarray(entry, np.float32).reshape(shape))
        return kept

    def cast_storage(self, storage: pa.Array) -> pa.Array:
        """Arrow storage of a cells column, brought to its type."""
        return _cast(storage, CELLS_TYPE)

    def embed_storage(self, storage: pa.Array, *_: Any, **__: Any) -> pa.Array:
        """References replaced by the values."""
        cells = [None if entry is None else self.decode_example(entry) for entry in storage.to_pylist()]
        return pa.array([None if entry is None else self.encode_example(entry) for entry in cells], CELLS_TYPE)


def _listed(value: Any) -> Any:
    """Arrays as lists: formats other than plain Python hand them over, with NaN for null among whole numbers."""
    if isinstance(value, np.ndarray):
        return [_listed(entry) for entry in value]
    return value.item() if isinstance(value, np.generic) else value


def _from_guidance(base: str, paths: list[str | None], options: StorageOptions | None) -> dict[str, list[Any]] | None:
    from chammi75.readers.guidance import find_guidance

    found = find_guidance([None if path is None else join_url(base, path) for path in paths], options)
    if all(entry is None for entry in found):
        return None  # in a bucket only asking tells
    return {
        "centroids": [None if entry is None else entry.xy for entry in found],
        "sizes": [None if entry is None else entry.sizes for entry in found],
    }


def _from_shard(value: Mapping[str, Any], options: StorageOptions | None) -> dict[str, list[Any]]:
    from chammi75.files import explain, is_local, read_ranges, reading_errors
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


def _cast(storage: pa.Array, target: pa.DataType) -> pa.Array:
    """A struct with the target's fields: those that are missing null, in the target's order."""
    import pyarrow.compute as pc
    from datasets.table import array_cast

    if pa.types.is_null(storage.type):
        return pa.nulls(len(storage), target)
    if not pa.types.is_struct(storage.type):
        raise ChammiError(f"a column of {storage.type} cannot become {target}")
    columns = []
    for entry in target:
        position = storage.type.get_field_index(entry.name)
        values = pa.nulls(len(storage), entry.type) if position < 0 else pc.struct_field(storage, [position])
        columns.append(values if values.type == entry.type else array_cast(values, entry.type))
    return pa.StructArray.from_arrays(columns, fields=list(target), mask=storage.is_null())


def _register() -> None:
    with warnings.catch_warnings():  # "experimental": nothing that a user could do about it
        warnings.simplefilter("ignore", UserWarning)
        register_feature(MultiChannelImageFeature, "MultiChannelImageFeature")
        register_feature(CellsFeature, "CellsFeature")


_register()
