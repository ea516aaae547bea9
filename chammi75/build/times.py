"""Timepoints of file names that state a time of the clock instead of a number."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from chammi75.build.planned import Finding
from chammi75.readers.grouping import FileGroup

_TIMES = (
    re.compile(r"(?P<day>\d+)d(?P<hour>\d{2})h(?P<minute>\d{2})m"),  # since the start
    re.compile(r"(?P<year>\d{4})y(?P<month>\d{2})m(?P<day>\d{2})d_(?P<hour>\d{2})h(?P<minute>\d{2})m"),
    re.compile(r"(?P<year>\d{2})(?P<month>\d{2})/(?P<day>\d{2})/(?P<hour>\d{2})(?P<minute>\d{2})"),
)


def parse_time(text: str) -> tuple[int, ...] | None:
    """A time that a file name states, as numbers that sort as times do; None if it is no time.

    Times since the start (``03d06h40m``) and of the calendar (``2019y06m01d_10h00m``, ``2401/15/1430``) are of
    different lengths, so that they never count as one series.

    Examples
    --------
    >>> parse_time("03d06h40m"), parse_time("2019y06m01d_10h00m"), parse_time("2401/15/1430"), parse_time("12")
    ((3, 6, 40), (2019, 6, 1, 10, 0), (24, 1, 15, 14, 30), None)
    """
    for expression in _TIMES:
        found = expression.fullmatch(text)
        if found:
            return tuple(int(part) for part in found.groups())
    return None


def number_times(groups: Sequence[FileGroup]) -> tuple[list[FileGroup], list[Finding]]:
    """Number the times of names: the first of a plate is timepoint 0, and all its wells share the numbers.

    A time that one well lacks is thus a gap there. Numbers of names stay what they are.

    Returns
    -------
    groups : list of FileGroup
        With a number for ``t``.
    findings : list of Finding
        A ``note`` for each plate, which times were numbered.
    """
    times: dict[tuple[str, str, int], set[tuple[int, ...]]] = defaultdict(set)
    texts: dict[tuple[int, ...], str] = {}
    for group in groups:
        time = parse_time(group.fields.get("t", ""))
        if time is not None:
            times[_series(group, time)].add(time)
            texts[time] = group.fields["t"]
    numbers = {key: {time: n for n, time in enumerate(sorted(known))} for key, known in times.items()}
    numbered = []
    for group in groups:
        time = parse_time(group.fields.get("t", ""))
        if time is not None:
            group = replace(group, fields={**group.fields, "t": str(numbers[_series(group, time)][time])})
        numbered.append(group)
    findings = []
    for (folder, plate, _), known in times.items():
        last = f", {len(known) - 1} is {texts[max(known)]}" if len(known) > 1 else ""
        words = f"timepoints are the times of its names in order: 0 is {texts[min(known)]}{last}"
        findings.append(Finding("note", "/".join(part for part in (folder, plate) if part), words))
    return numbered, findings


def _series(group: FileGroup, time: tuple[int, ...]) -> tuple[str, str, int]:
    return group.folder, group.fields.get("plate", ""), len(time)
