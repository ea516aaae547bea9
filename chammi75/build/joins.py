"""Joins tables to images: which row speaks of which image, and what it says."""

from __future__ import annotations

import itertools
import posixpath
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from chammi75.build.cells import cell_text, cell_value, number_kind
from chammi75.build.planned import Finding, Reconciliation
from chammi75.build.tables import Row, Table
from chammi75.build.wells import parse_well, spell_well
from chammi75.readers.grouping import natural_key
from chammi75.schemas.recipe import TableJoin

_Key = tuple[str, ...]
_PLATE, _WELL = "experiment.plate", "experiment.well"
_NAMED = 10  # wells that a reconciliation names


@dataclass(frozen=True, slots=True)
class ImageKeys:
    """By what an image is found in a table.

    ``values`` has, for each match field that the image knows, the texts that stand for it: one, or for ``storage.*``
    one per file of the image. ``named`` has what the image's file names say of fields of the record, as text.
    """

    image_id: str
    values: Mapping[str, tuple[str, ...]]
    named: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Joined:
    """What the tables say.

    ``stated`` has one mapping per image, in their order: record field -> value. A field is there with the value None
    where tables contradict themselves, each other or the file names, or hold no such value: then nothing else may fill
    it. ``reconciliations`` has how each table met the images.
    """

    stated: tuple[dict[str, Any], ...]
    findings: tuple[Finding, ...] = ()
    reconciliations: tuple[Reconciliation, ...] = ()


@dataclass(slots=True)
class _Matches:
    """How a table's rows fall to images: rows per image, why an image has none, and what it was looked up by."""

    rows: list[tuple[Row, ...]] = field(default_factory=list)
    reasons: dict[int, str] = field(default_factory=dict)
    loosely: dict[int, tuple[_Key, _Key]] = field(default_factory=dict)
    keys: list[list[_Key]] = field(default_factory=list)


def join_tables(tables: Sequence[tuple[TableJoin, Table]], images: Sequence[ImageKeys]) -> Joined:
    """Look up every image in every table.

    A row is an image's if all match columns equal what the image has, after trimming. Where nothing equals, plates,
    wells, fields of view and numbers also match when they differ in zero padding only (wells: or in spelling; ``a1``,
    ``r01c01`` and ``A01``), as long as one row key and one image key read that way; a ``note`` tells of it. Rows for
    A1 and for A01 are rows of one well, unless there are images of both. ``storage.path`` and ``storage.filename``
    match any file of the image. Images that the rule's ``only`` leaves out are none of the table's.

    Rows that say the same of an image are one. Where they differ, or two tables do, or a table and the file names, the
    field stays None (``conflict``, and a contradiction of the table's reconciliation). A cell that is no number where
    one is needed stays None (``conflict``). A null word says nothing. Images without a row are ``unlabelled``, rows
    without an image ``unused_row``.

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
    reconciliations = []
    for rule, table in tables:
        meant = [at for at, image in enumerate(images) if _speaks_of(rule, image)]
        chosen = [images[at] for at in meant]
        if rule.only and images and not meant:
            findings.append(Finding("note", table.path, _speaks_of_none(rule, images)))
        matches = _match(rule, table, chosen)
        findings.extend(_report_matches(rule, table, chosen, matches))
        contradictions: list[str] = []
        by_rows: dict[tuple[int, ...], list[int]] = defaultdict(list)  # wells have many images: say a conflict once
        for at, rows in enumerate(matches.rows):
            by_rows[tuple(id(row) for row in rows)].append(at)
        refused: dict[tuple[int, str, str], Finding] = {}
        for owners in by_rows.values():
            rows = matches.rows[owners[0]]
            values, conflicts = _say(rule, table, rows, refused)
            contradictions += conflicts
            findings.extend(_conflict(table, words, chosen, owners) for words in conflicts)
            against: dict[tuple[str, str], list[int]] = defaultdict(list)
            for at in owners:
                wrong = {name: text for name, text in chosen[at].named.items() if _differ(name, values.get(name), text)}
                for name, text in wrong.items():
                    against[name, text].append(at)
                own = chosen[at].named  # where the table says the same, it is spelled as in the file names
                said = {
                    name: own.get(name, value) if isinstance(value, str) else value for name, value in values.items()
                }
                said |= dict.fromkeys(wrong)
                told = _state(stated[meant[at]], said, chosen[at].image_id, table.path)
                contradictions += [finding.reason for finding in told if finding.reason not in contradictions]
                findings.extend(told)
            for (name, text), others in against.items():
                where = ", ".join(row.place for row in rows)
                words = f"{where} has {name} {values[name]!r}, the file names say {text!r}"
                contradictions.append(words)
                findings.append(_conflict(table, words, chosen, others))
        findings.extend(refused[key] for key in sorted(refused))
        reconciliations.append(_reconcile(rule, table, chosen, matches, contradictions))
    return Joined(tuple(stated), tuple(findings), tuple(reconciliations))


def _speaks_of(rule: TableJoin, image: ImageKeys) -> bool:
    """Whether an image is one of those that a table speaks of."""
    return all(
        _loosen((name,), (_tidy(name, text),))
        in {_loosen((name,), (_tidy(name, own),)) for own in image.values.get(name, ())}
        for name, text in rule.only.items()
    )


def _speaks_of_none(rule: TableJoin, images: Sequence[ImageKeys]) -> str:
    wanted = ", ".join(f"{name} {text}" for name, text in rule.only.items())
    there = ", ".join(_first(own for image in images for name in rule.only for own in image.values.get(name, ())))
    return f"no image is {wanted}, of which alone (only) the table speaks; images are {there or 'none of the kind'}"


def _conflict(table: Table, words: str, images: Sequence[ImageKeys], owners: Sequence[int]) -> Finding:
    return Finding("conflict", table.path, f"{words}; it stays unknown for {_images(images, owners)}")


def _differ(name: str, value: Any, text: str) -> bool:
    """Whether a table and a file name say different things of a field; spellings of one thing do not differ."""
    return value is not None and _loosen((name,), (str(value),)) != _loosen((name,), (text,))


def _reconcile(
    rule: TableJoin, table: Table, images: Sequence[ImageKeys], matches: _Matches, contradictions: Sequence[str]
) -> Reconciliation:
    used = {id(row) for rows in matches.rows for row in rows}
    unused = [row for row in table.rows if id(row) not in used]
    lacking = [at for at, rows in enumerate(matches.rows) if not rows]
    named = (_words(matches.keys[at][0]) if matches.keys[at] else images[at].image_id for at in lacking)
    plates: set[str] = set()
    if column := rule.match.get(_PLATE):
        there = {_loosen((_PLATE,), (own,)) for image in images for own in image.values.get(_PLATE, ())}
        said = {_tidy(_PLATE, row.cells[column]) for row in table.rows if cell_text(row.cells[column]) is not None}
        plates = {plate for plate in said if _loosen((_PLATE,), (plate,)) not in there}
    return Reconciliation(
        table=f"{table.path}, sheet {rule.sheet}" if rule.sheet else table.path,
        images=len(images),
        labelled=len(images) - len(lacking),
        rows=len(table.rows),
        rows_used=len(used),
        without_row=_first(named),
        unused=_first(_words(tuple(row.cells[column] for column in rule.match.values())) for row in unused),
        unknown_plates=_first(plates),
        contradictions=tuple(contradictions),
        max_unlabelled=rule.max_unlabelled,
        max_unused=rule.max_unused,
        max_contradictions=rule.max_contradictions,
    )


def _first(words: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(words), key=natural_key)[:_NAMED])


def _match(rule: TableJoin, table: Table, images: Sequence[ImageKeys]) -> _Matches:
    fields = tuple(rule.match)
    exact: dict[_Key, list[Row]] = defaultdict(list)
    for row in table.rows:
        key = _row_key(rule, row)
        if key is not None:
            exact[key].append(row)
    row_spellings: dict[_Key, set[_Key]] = defaultdict(set)
    same_wells: dict[_Key, list[_Key]] = defaultdict(list)
    for key in exact:
        row_spellings[_loosen(fields, key)].add(key)
        same_wells[_with_plain_wells(fields, key)].append(key)
    image_keys = [_image_keys(fields, image) for image in images]
    image_spellings: dict[_Key, set[_Key]] = defaultdict(set)
    for key in itertools.chain.from_iterable(image_keys):
        image_spellings[_loosen(fields, key)].add(key)

    matches = _Matches(keys=image_keys)
    for at, (image, keys) in enumerate(zip(images, image_keys, strict=True)):
        found = [key for key in keys if key in exact]
        for key in tuple(found):  # rows for A01 and for A1 speak of one well, unless there are images of both
            if len(image_spellings[_loosen(fields, key)]) == 1:
                found += same_wells[_with_plain_wells(fields, key)]
        for key in keys if not found else ():
            loose = _loosen(fields, key)
            spellings = row_spellings.get(loose, set())
            respelled = same_wells.get(_with_plain_wells(fields, key), [])
            if len(respelled) == 1:  # plate 007, well A1: nearer than plate 7, well A01
                spellings = set(respelled)
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
    used = {id(row) for rows in matches.rows for row in rows}
    for row in table.rows:
        if id(row) not in used:
            cells = ", ".join(f"{column}={row.cells[column]}" for column in rule.match.values())
            findings.append(Finding("unused_row", table.path, f"{row.place} ({cells}) fits no image"))
    plates = sorted({own for image in images for own in image.values.get(_PLATE, ())}, key=natural_key)
    if len(plates) > 1 and tuple(rule.match) == (_WELL,) and used:
        words = (
            f"all {len(plates)} plates ({', '.join(plates[:3])}{' …' if len(plates) > 3 else ''}) take the same rows"
        )
        hint = "if their layouts differ, match experiment.plate, too, or say with only which plate the table is of"
        findings.append(Finding("note", table.path, f"{words}: {hint}"))
    return findings


def _say(
    rule: TableJoin, table: Table, rows: Sequence[Row], refused: dict[tuple[int, str, str], Finding]
) -> tuple[dict[str, Any], list[str]]:
    """What rows say together: values by field, and the contradictions in words."""
    values: dict[str, Any] = {}
    conflicts: list[str] = []
    for name, column in rule.columns.items():
        said: dict[Any, str] = {}
        for row in rows:
            text = cell_text(row.cells[column])
            if text is None:
                continue
            if name == "microscopy.magnification" and "microscopy.magnification_text" not in rule.columns:
                values.setdefault("microscopy.magnification_text", text)
            try:
                said.setdefault(cell_value(name, text), row.place)
            except ValueError as error:
                where = row.place if row.cell else f"{row.place}, column {column!r}"
                reason = f"{where}: {text!r} is no {name} ({error}); it stays unknown"
                refused[row.number, row.cell, column] = Finding("conflict", table.path, reason)
                values[name] = None
        if len(said) == 1 and name not in values:
            values[name] = next(iter(said))
        elif len(said) > 1:
            values[name] = None
            told = " and ".join(f"{value!r} ({place})" for value, place in said.items())
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
    """A key without what spellings differ in: zero padding of numbers, and how wells are written."""
    loose = []
    for name, text in zip(fields, key, strict=True):
        if name.startswith("storage."):
            loose.append(text)
            continue
        place = parse_well(text) if name == _WELL else None
        if place is not None:
            loose.append(spell_well(*place))
            continue
        plain = re.sub(r"(?<![0-9.])0+(?=[0-9])", "", text)
        if number_kind(name) is int:
            plain = re.sub(r"\.0*$", "", plain)
        loose.append(plain.upper() if name == _WELL else plain)
    return tuple(loose)


def _with_plain_wells(fields: Sequence[str], key: _Key) -> _Key:
    """A key whose wells are spelled one way, and all else as it is: plate 7 is not plate 007."""
    return tuple(
        _loosen((name,), (text,))[0] if name == _WELL else text for name, text in zip(fields, key, strict=True)
    )


def _words(key: _Key) -> str:
    return "/".join(key)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _images(images: Sequence[ImageKeys], owners: Sequence[int]) -> str:
    others = f" and {_count(len(owners) - 1, 'image')} more" if len(owners) > 1 else ""
    return f"{images[owners[0]].image_id}{others}"
