"""Joins tables to images: which row speaks of which image, and what it says."""

from __future__ import annotations

import itertools
import posixpath
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from chammi75.build.cells import cell_text, cell_value, number_kind
from chammi75.build.planned import Finding
from chammi75.build.tables import Row, Table
from chammi75.schemas.recipe import TableJoin

_Key = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ImageKeys:
    """By what an image is found in a table.

    ``values`` has, for each match field that the image knows, the texts that stand for it: one, or for ``storage.*``
    one per file of the image.
    """

    image_id: str
    values: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Joined:
    """What the tables say.

    ``stated`` has one mapping per image, in their order: record field -> value. A field is there with the value None
    where tables contradict themselves or hold no such value: then nothing else may fill it.
    """

    stated: tuple[dict[str, Any], ...]
    findings: tuple[Finding, ...] = ()


@dataclass(slots=True)
class _Matches:
    """How a table's rows fall to images: row numbers in the table per image, and why an image has none."""

    rows: list[tuple[Row, ...]] = field(default_factory=list)
    reasons: dict[int, str] = field(default_factory=dict)
    loosely: dict[int, tuple[_Key, _Key]] = field(default_factory=dict)


def join_tables(tables: Sequence[tuple[TableJoin, Table]], images: Sequence[ImageKeys]) -> Joined:
    """Look up every image in every table.

    A row is an image's if all match columns equal what the image has, after trimming. Where nothing equals, plates,
    wells, fields of view and numbers also match when they differ in zero padding only (wells: or in case; ``a1`` and
    ``A01``), as long as one row key and one image key read that way; a ``note`` tells of it. ``storage.path`` and
    ``storage.filename`` match any file of the image.

    Rows that say the same of an image are one. Where they differ, or two tables do, the field stays None
    (``conflict``). A cell that is no number where one is needed stays None (``conflict``). A null word says nothing.
    Images without a row are ``unlabelled``, rows without an image ``unused_row``.

    Parameters
    ----------
    tables : sequence of (TableJoin, Table)
        What to join, and the table that was read for it.
    images : sequence of ImageKeys

    Examples
    --------
    >>> from chammi75.build.tables import read_table
    >>> rule = TableJoin(path="p.csv", match={"experiment.well": "well"}, columns={"biology.cell_line": "line"})
    >>> table, _ = read_table(b"well,line\\nA1,U2OS\\nB7,HeLa\\n", "p.csv", ["well", "line"])
    >>> joined = join_tables([(rule, table)], [ImageKeys("s/A01", {"experiment.well": ("A01",)})])
    >>> joined.stated
    ({'biology.cell_line': 'U2OS'},)
    >>> for finding in joined.findings:
    ...     print(f"{finding.kind}: {finding.reason}")
    note: 1 image found by another spelling of its row: A01 as A1
    unused_row: row 3 (well=B7) fits no image
    """
    stated: list[dict[str, Any]] = [{} for _ in images]
    findings: list[Finding] = []
    for rule, table in tables:
        matches = _match(rule, table, images)
        findings.extend(_report_matches(rule, table, images, matches))
        by_rows: dict[tuple[int, ...], list[int]] = defaultdict(list)  # wells have many images: say a conflict once
        for at, rows in enumerate(matches.rows):
            by_rows[tuple(row.number for row in rows)].append(at)
        refused: dict[tuple[int, str], Finding] = {}
        for owners in by_rows.values():
            values, conflicts = _say(rule, table, matches.rows[owners[0]], refused)
            findings.extend(
                Finding("conflict", table.path, f"{words}; it stays unknown for {_images(images, owners)}")
                for words in conflicts
            )
            for at in owners:
                findings.extend(_state(stated[at], values, images[at].image_id, table.path))
        findings.extend(refused[key] for key in sorted(refused))
    return Joined(tuple(stated), tuple(findings))


def _match(rule: TableJoin, table: Table, images: Sequence[ImageKeys]) -> _Matches:
    fields = tuple(rule.match)
    exact: dict[_Key, list[Row]] = defaultdict(list)
    for row in table.rows:
        key = _row_key(rule, row)
        if key is not None:
            exact[key].append(row)
    row_spellings: dict[_Key, set[_Key]] = defaultdict(set)
    for key in exact:
        row_spellings[_loosen(fields, key)].add(key)
    image_keys = [_image_keys(fields, image) for image in images]
    image_spellings: dict[_Key, set[_Key]] = defaultdict(set)
    for key in itertools.chain.from_iterable(image_keys):
        image_spellings[_loosen(fields, key)].add(key)

    matches = _Matches()
    for at, (image, keys) in enumerate(zip(images, image_keys, strict=True)):
        found = [key for key in keys if key in exact]
        for key in keys if not found else ():
            loose = _loosen(fields, key)
            spellings = row_spellings.get(loose, set())
            if len(spellings) == 1 and len(image_spellings[loose]) == 1:
                (other,) = spellings
                found.append(other)
                matches.loosely.setdefault(at, (key, other))
            elif spellings:
                several = sorted(_words(spelling) for spelling in spellings | image_spellings[loose])
                matches.reasons[at] = f"could be any of several: {', '.join(several)} differ in zeros or case only"
        rows = {id(row): row for key in found for row in exact[key]}
        matches.rows.append(tuple(sorted(rows.values(), key=lambda row: row.number)))
        if not rows and at not in matches.reasons:
            unknown = [name for name in fields if name not in image.values]
            what = f"has no {unknown[0]} to be found by" if unknown else f"has no row for {_words(keys[0])}"
            matches.reasons[at] = what
    return matches


def _report_matches(rule: TableJoin, table: Table, images: Sequence[ImageKeys], matches: _Matches) -> list[Finding]:
    findings = []
    if matches.loosely:
        mine, other = next(iter(matches.loosely.values()))
        count = _count(len(matches.loosely), "image")
        words = f"{count} found by another spelling of its row: {_words(mine)} as {_words(other)}"
        findings.append(Finding("note", table.path, words))
    for at, reason in sorted(matches.reasons.items()):
        findings.append(Finding("unlabelled", images[at].image_id, f"{table.path} {reason}"))
    used = {row.number for rows in matches.rows for row in rows}
    for row in table.rows:
        if row.number not in used:
            cells = ", ".join(f"{column}={row.cells[column]}" for column in rule.match.values())
            findings.append(Finding("unused_row", table.path, f"row {row.number} ({cells}) fits no image"))
    return findings


def _say(
    rule: TableJoin, table: Table, rows: Sequence[Row], refused: dict[tuple[int, str], Finding]
) -> tuple[dict[str, Any], list[str]]:
    """What rows say together: values by field, and the contradictions in words."""
    values: dict[str, Any] = {}
    conflicts: list[str] = []
    for name, column in rule.columns.items():
        said: dict[Any, int] = {}
        for row in rows:
            text = cell_text(row.cells[column])
            if text is None:
                continue
            if name == "microscopy.magnification" and "microscopy.magnification_text" not in rule.columns:
                values.setdefault("microscopy.magnification_text", text)
            try:
                said.setdefault(cell_value(name, text), row.number)
            except ValueError as error:
                reason = f"row {row.number}, column {column!r}: {text!r} is no {name} ({error}); it stays unknown"
                refused[row.number, column] = Finding("conflict", table.path, reason)
                values[name] = None
        if len(said) == 1 and name not in values:
            values[name] = next(iter(said))
        elif len(said) > 1:
            values[name] = None
            told = " and ".join(f"{value!r} (row {number})" for value, number in said.items())
            conflicts.append(f"rows differ in {name}: {told}")
            if name == "microscopy.magnification" and "microscopy.magnification_text" not in rule.columns:
                values["microscopy.magnification_text"] = None
    return values, conflicts


def _state(stated: dict[str, Any], values: Mapping[str, Any], image_id: str, path: str) -> list[Finding]:
    """Add what a table says of an image to what tables before it said."""
    findings = []
    for name, value in values.items():
        if name in stated and stated[name] != value:
            before, value = stated[name], None
            if before is not None and values[name] is not None and name != "microscopy.magnification_text":
                reason = f"tables differ in {name}: {values[name]!r} ({path}), before it {before!r}; it stays unknown"
                findings.append(Finding("conflict", image_id, reason))
        stated[name] = value
    return findings


def _row_key(rule: TableJoin, row: Row) -> _Key | None:
    """What a row is found by; None where a cell of it says nothing."""
    texts = [cell_text(row.cells[column]) for column in rule.match.values()]
    if any(text is None for text in texts):
        return None
    return tuple(_tidy(name, text or "") for name, text in zip(rule.match, texts, strict=True))


def _image_keys(fields: Sequence[str], image: ImageKeys) -> list[_Key]:
    """The keys that an image can be found by, in the order of its files."""
    texts = [[_tidy(name, text) for text in image.values.get(name, ())] for name in fields]
    return list(dict.fromkeys(itertools.product(*texts)))


def _tidy(name: str, text: str) -> str:
    if name == "storage.path":
        return posixpath.normpath(text.replace("\\", "/"))
    return text.strip()


def _loosen(fields: Sequence[str], key: _Key) -> _Key:
    """A key without what spellings differ in: zero padding of numbers, and the case of wells."""
    loose = []
    for name, text in zip(fields, key, strict=True):
        if name.startswith("storage."):
            loose.append(text)
            continue
        plain = re.sub(r"(?<![0-9.])0+(?=[0-9])", "", text)
        if number_kind(name) is int:
            plain = re.sub(r"\.0*$", "", plain)
        loose.append(plain.upper() if name == "experiment.well" else plain)
    return tuple(loose)


def _words(key: _Key) -> str:
    return "/".join(key)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _images(images: Sequence[ImageKeys], owners: Sequence[int]) -> str:
    others = f" and {_count(len(owners) - 1, 'image')} more" if len(owners) > 1 else ""
    return f"{images[owners[0]].image_id}{others}"
