"""What all models of the project share: they are frozen, refuse unknown fields, and know their Arrow type."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict

RECORD_SCHEMA_VERSION = 2
"""Version of the record: raised when a field is added, renamed, removed or changes its meaning."""

STORE_FORMAT_VERSION = 1
"""Version of a store's layout on disk: raised when an older reader would misread it."""


class Model(BaseModel):
    """Base of every model here: frozen, and a field that it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


@dataclass(frozen=True)
class ArrowType:
    """Marks a field whose Arrow type is not the default one of its Python type.

    Parameters
    ----------
    name : str
        A primitive Arrow type (``"int32"``), or ``"point"``: two float32 in a list of fixed size.
    """

    name: str


Int32 = Annotated[int, ArrowType("int32")]
Float32 = Annotated[float, ArrowType("float32")]
Point = Annotated[tuple[float, float], ArrowType("point")]
