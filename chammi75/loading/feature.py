"""The two feature types that chammi75 adds to Hugging Face datasets: a multi-channel image, and the cells of one.

Both are stored as references (which file, which bytes) and decoded when a sample is asked for: both stay lazy
then. Importing this module registers them.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from datasets.features.features import register_feature

from chammi75.errors import ChammiError
from chammi75.files import StorageOptions, is_local
from chammi75.loading.annotation import Annotation, read_cells
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
    """Feature type of the column ``annotation``: decodes to an ``Annotation``, ``{"centroids": […], "sizes": […]}``."""

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
        """The cells of each channel, read when they are asked for; None where there are none of the image."""
        options = getattr(self, "_options", None)
        storage = {name: _listed(value.get(name)) for name in CELLS_TYPE.names}
        paths = storage["paths"]
        if paths is not None and not (any(paths) and is_local(storage["uri"])):
            return read_cells(storage, options)  # in a bucket only asking tells whether there are any
        return Annotation(storage, options)

    def cast_storage(self, storage: pa.Array) -> pa.Array:
        """Arrow storage of a cells column, brought to its type."""
        return _cast(storage, CELLS_TYPE)

    def embed_storage(self, storage: pa.Array, *_: Any, **__: Any) -> pa.Array:
        """References replaced by the values."""
        cells = [None if entry is None else self.decode_example(entry) for entry in storage.to_pylist()]
        return pa.array([None if entry is None else self.encode_example(entry) for entry in cells], CELLS_TYPE)


_PLAIN = (list, str, int, float)


def _listed(value: Any) -> Any:
    """Arrays as lists: formats other than plain Python hand them over, with NaN for null among whole numbers."""
    if value is None or type(value) in _PLAIN:
        return value
    if isinstance(value, np.ndarray):
        return [_listed(entry) for entry in value]
    return value.item() if isinstance(value, np.generic) else value


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
