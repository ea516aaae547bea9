"""Turns the text of a table's cell into the value of a record's field."""

from __future__ import annotations

import re
from functools import cache
from types import NoneType
from typing import Annotated, Any, get_args, get_origin

from pydantic import TypeAdapter, ValidationError

from chammi75.schemas.base import Model
from chammi75.schemas.record import Biology, Experiment, Geometry, Microscopy

NULL_WORDS: frozenset[str] = frozenset({"", "unknown", "n/a", "na", "nan", "none", "null", "-"})
"""Cells that say nothing, in any case of letters. The published metadata writes "unknown"."""

_INT32_MAX = 2**31 - 1  # what the record's integers are stored as
_GROUPS: dict[str, type[Model]] = {
    "experiment": Experiment,
    "biology": Biology,
    "microscopy": Microscopy,
    "geometry": Geometry,
}
_PLAIN = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,2})?", re.ASCII)
_THOUSANDS = re.compile(r"[+-]?\d{1,3}((,\d{3})+\.\d+|(,\d{3}){2,})", re.ASCII)
_TIMES = re.compile(r"\s*[xX×]$")


def cell_text(cell: str | None) -> str | None:
    """What a cell says, trimmed; None if that is nothing.

    Examples
    --------
    >>> cell_text(" A01 "), cell_text("n/a"), cell_text("Unknown")
    ('A01', None, None)
    """
    text = (cell or "").strip()
    return None if text.casefold() in NULL_WORDS else text


def cell_value(field: str, text: str) -> str | int | float:
    """The value that ``text`` stands for in a field of the record.

    A number may have commas between thousands where that is the only way to read it (``1,000.5``; ``1,000`` might as
    well mean 1.0). A magnification may end in ``x``.

    Parameters
    ----------
    field : str
        Dotted name of the field, as ``microscopy.magnification``.
    text : str
        What the cell says: trimmed, and none of `NULL_WORDS`.

    Raises
    ------
    ValueError
        If the text is no such value; the message says why, in one clause.

    Examples
    --------
    >>> cell_value("microscopy.magnification", "20x"), cell_value("experiment.plate", "007")
    (20.0, '007')
    >>> cell_value("geometry.z_slice", "03")
    3
    """
    kind, adapter = _rules(field)
    if kind is str:
        return text
    number = _number(_TIMES.sub("", text) if field == "microscopy.magnification" else text)
    if kind is int and (not number.is_integer() or abs(number) > _INT32_MAX):
        raise ValueError("a whole number is needed, at most 2147483647")
    value = int(number) if kind is int else number
    try:
        adapter.validate_python(value)
    except ValidationError as error:
        message = error.errors(include_url=False)[0]["msg"]
        raise ValueError(message.replace("Input", "it")) from error
    return value


def number_kind(field: str) -> type[int] | type[float] | None:
    """Whether a field of the record holds an ``int`` or a ``float``; None if it holds text."""
    kind = _rules(field)[0]
    return kind if kind in (int, float) else None


def _number(text: str) -> float:
    if _PLAIN.fullmatch(text):
        return float(text)
    if _THOUSANDS.fullmatch(text):
        return float(text.replace(",", ""))
    if "," in text and _PLAIN.fullmatch(text.replace(",", "")):
        raise ValueError(
            "a number is needed, and this comma may mean a decimal point or a thousand: write a point, or none"
        )
    raise ValueError("a number is needed")


@cache
def _rules(field: str) -> tuple[type[Any], TypeAdapter[Any]]:
    """The Python type that a field holds, and what checks its bounds."""
    group, name = field.split(".")
    info = _GROUPS[group].model_fields[name]
    (kind,) = [entry for entry in get_args(info.annotation) or (info.annotation,) if entry is not NoneType]
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    checked: Any = Annotated[(info.annotation, *info.metadata)] if info.metadata else info.annotation
    return kind, TypeAdapter(checked)
