"""The one mapping from the models to Arrow.

A group becomes a struct, a list a list, a number the Arrow type that its field states; everything is nullable,
because Hugging Face datasets reads a non-null binary as something else than an image.
"""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from chammi75.schemas.base import ArrowType
from chammi75.schemas.record import Annotation, ImageRecord

if TYPE_CHECKING:
    import pyarrow as pa


def arrow_type(annotation: Any, metadata: tuple[Any, ...] = ()) -> pa.DataType:
    """The Arrow type of a field that is annotated with ``annotation``.

    Raises
    ------
    TypeError
        If there is no rule for it.

    Examples
    --------
    >>> arrow_type(list[str | None])
    ListType(list<item: string>)
    """
    import pyarrow as pa

    for mark in metadata:
        if isinstance(mark, ArrowType):
            return pa.list_(pa.float32(), 2) if mark.name == "point" else pa.type_for_alias(mark.name)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return arrow_type(arguments[0], tuple(arguments[1:]))
    if origin in (Union, types.UnionType):
        (inner,) = [argument for argument in arguments if argument is not type(None)]
        return arrow_type(inner)
    if origin is list:
        return pa.list_(arrow_type(arguments[0]))
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return pa.struct(arrow_fields(annotation))
    plain = {str: pa.string(), bool: pa.bool_(), int: pa.int64(), float: pa.float64()}
    if annotation in plain:
        return plain[annotation]
    raise TypeError(f"no Arrow type for {annotation!r}")


def arrow_fields(model: type[BaseModel]) -> list[pa.Field]:
    """The Arrow fields of a model, in the order of its fields."""
    import pyarrow as pa

    return [
        pa.field(name, arrow_type(field.annotation, tuple(field.metadata)))
        for name, field in model.model_fields.items()
    ]


def record_schema() -> pa.Schema:
    """Arrow schema of ``index.parquet``: the record without the centroids."""
    import pyarrow as pa

    return pa.schema(arrow_fields(ImageRecord))


def planes_type() -> pa.DataType:
    """Arrow type of the column ``planes``: what Hugging Face datasets stores for ``List(Image())``."""
    import pyarrow as pa

    return pa.list_(pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())]))


def shard_schema() -> pa.Schema:
    """Arrow schema of a shard: the record, ``planes`` and ``annotation``; feature types are in its metadata.

    The metadata is what ``datasets.Features(...).arrow_schema`` writes, so that ``datasets.load_dataset("arrow", …)``
    shows pictures where this library was never installed.
    """
    import json

    import pyarrow as pa

    fields = [
        *arrow_fields(ImageRecord),
        pa.field("planes", planes_type()),
        pa.field("annotation", arrow_type(Annotation)),
    ]
    features = {field.name: _feature(field.type) for field in fields if field.name != "planes"}
    features["planes"] = {"feature": {"_type": "Image"}, "_type": "List"}
    ordered = {field.name: features[field.name] for field in fields}
    return pa.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": ordered}})})


def _feature(data_type: pa.DataType) -> dict[str, Any]:
    """How Hugging Face datasets writes the feature of an Arrow type down."""
    import pyarrow as pa

    if pa.types.is_struct(data_type):
        return {field.name: _feature(field.type) for field in data_type}
    if pa.types.is_fixed_size_list(data_type):
        return {"feature": _feature(data_type.value_type), "length": data_type.list_size, "_type": "List"}
    if pa.types.is_list(data_type):
        return {"feature": _feature(data_type.value_type), "_type": "List"}
    names = {"double": "float64", "float": "float32"}
    return {"dtype": names.get(str(data_type), str(data_type)), "_type": "Value"}
