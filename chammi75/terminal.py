"""The one place that draws progress and formats tables for the terminal.

Rows and words come from strangers' files: control characters are shown, never sent, and nothing is read as markup. What
a terminal cannot spell (ASCII, cp1252) is spelled otherwise; it never crashes. rich is imported by the functions that
draw.
"""

from __future__ import annotations

import json
import math
import re
import sys
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from pathlib import PurePath
from typing import IO, Any

from chammi75.errors import ChammiError

UNKNOWN = "unknown"
"""What stands in a table where a value is in no source."""

_PLAIN = {"µ": "u", "μ": "u", "×": "x", "…": "...", "–": "-", "—": "-", "·": "|", "≥": ">=", "≤": "<=", "°": " deg"}
_SURROGATE = re.compile("[\ud800-\udfff]")


_LONGEST_WORD = 16
"""A word of at most so many letters is never folded in a table."""


def table(
    rows: Sequence[Mapping[str, object]],
    columns: Sequence[str] | None = None,
    title: str | None = None,
    file: IO[str] | None = None,
) -> None:
    """Print ``rows`` as a table.

    Parameters
    ----------
    rows : sequence of mapping
        From column to value; numbers stand right, None and NaN read "unknown", lists are joined by commas.
    columns : sequence of str, optional
        Which, and their order; those of the rows in order of appearance if left out.
    title : str, optional
        A line above.
    file : text file, optional
        Where to; standard output if left out. On a terminal, long values are folded; elsewhere each row is one line.

    Examples
    --------
    >>> table([{"id": "idr0001", "images": 12}, {"id": "idr0002", "images": None}])
    id        images
    idr0001       12
    idr0002  unknown
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    out = sys.stdout if file is None else file
    names = list(dict.fromkeys(name for row in rows for name in row)) if columns is None else list(columns)
    if not names:
        if title:
            print_line(title, file=out)
        return
    is_terminal = out.isatty()
    if title and not is_terminal:  # above the table, not folded to its width
        print_line(title, file=out)
    grid = Table(
        title=Text(spelled(title, out), style="bold") if title and is_terminal else None,
        title_justify="left",
        box=box.SIMPLE_HEAD if is_terminal else None,
        pad_edge=is_terminal,
    )
    for name in names:
        numeric = _are_numbers([row.get(name) for row in rows])
        lengths = (len(word) for row in rows for word in _words(row.get(name)).split())
        narrowest = min(max(lengths, default=1), _LONGEST_WORD)
        grid.add_column(
            Text(spelled(name, out)),
            justify="right" if numeric else "left",
            overflow="fold",
            min_width=narrowest if is_terminal else None,
        )
    for row in rows:
        words = (_words(row.get(name)) for name in names)
        grid.add_row(*(Text(spelled(word, out), style="dim italic" if word == UNKNOWN else "") for word in words))
    if is_terminal:
        Console(file=out, highlight=False).print(grid)
        return
    # One line for each row, to be searched and cut.
    console = Console(file=out, highlight=False, width=100_000, force_terminal=False)
    with console.capture() as capture:
        console.print(grid)
    out.write("".join(f"{line.rstrip()}\n" for line in capture.get().splitlines()))


def as_json(rows: Sequence[Mapping[str, object]] | Mapping[str, object], *, ascii_only: bool = False) -> str:
    """``rows`` as JSON that every parser takes: NaN and infinities become null, lone surrogates are escaped.

    Parameters
    ----------
    rows : sequence of mapping, or mapping
        Values may be numbers, NumPy scalars and arrays, text, dates, paths, None, and mappings and sequences of those.
    ascii_only : bool
        Whether to escape all that is not ASCII.

    Raises
    ------
    ChammiError
        If a value has no form in JSON.

    Examples
    --------
    >>> print(as_json([{"id": "idr0001", "size_um": float("nan")}]))
    [
      {
        "id": "idr0001",
        "size_um": null
      }
    ]
    """
    text = json.dumps(_plain_data(rows), indent=2, ensure_ascii=ascii_only, allow_nan=False)
    return _SURROGATE.sub(lambda match: f"\\u{ord(match.group()):04x}", text)


def print_json(rows: Sequence[Mapping[str, object]] | Mapping[str, object], file: IO[str] | None = None) -> None:
    """Print ``rows`` as JSON: UTF-8 where the stream speaks it, escaped to ASCII elsewhere."""
    out = sys.stdout if file is None else file
    out.write(as_json(rows, ascii_only=not _encoding(out).startswith("utf")) + "\n")


def print_line(text: str, file: IO[str] | None = None) -> None:
    """Print one line (line ends within it are shown as \\\\n), spelled so that the stream can carry it.

    Examples
    --------
    >>> print_line("a\\x1b[31mb")
    a\\x1b[31mb
    """
    out = sys.stdout if file is None else file
    out.write(spelled(text, out) + "\n")


def spelled(text: str, file: IO[str]) -> str:
    """``text`` as ``file`` can carry it: control characters visible, letters that its encoding lacks spelled otherwise.

    Examples
    --------
    >>> import io
    >>> ascii_file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    >>> spelled("20 µm\\tα", ascii_file)
    '20 um\\\\t\\\\u03b1'
    """
    shown = "".join(_visible(character) for character in text)
    encoding = _encoding(file)
    try:
        shown.encode(encoding)
    except UnicodeEncodeError:
        letters = (_PLAIN.get(letter, letter) if not _fits(letter, encoding) else letter for letter in shown)
        return "".join(letters).encode(encoding, "backslashreplace").decode(encoding)
    return shown


@contextmanager
def progress(
    description: str, total: int | None = None, unit: str = "images", file: IO[str] | None = None
) -> Iterator[Callable[[int], None]]:
    """Show how far long work is.

    On a terminal a bar with the rate and an estimate of the time left; elsewhere nothing but one line at the end, for
    logs.

    Parameters
    ----------
    description : str
        What is done.
    total : int, optional
        How many there are; None where that is not known.
    unit : str
        What is counted; ``"B"`` for bytes.
    file : text file, optional
        Where to; standard error if left out.

    Yields
    ------
    callable
        ``advance(n)``: ``n`` more are done. It may be called from any thread.

    Examples
    --------
    >>> import io
    >>> log = io.StringIO()
    >>> with progress("Reading", 2, "files", file=log) as advance:
    ...     advance(2)
    >>> log.getvalue().startswith("Reading: 2 files in ")
    True
    """
    out = sys.stderr if file is None else file
    counter = _Counter(unit)
    ending = "stopped after "
    try:
        if out.isatty():
            with _bar(description, total, counter, out) as advance:
                yield advance
        else:
            yield counter.add
        ending = ""
    finally:
        print_line(f"{description}: {ending}{counter.summary()}", file=out)


class _Counter:
    """How many are done, and since when; safe between threads."""

    def __init__(self, unit: str) -> None:
        self.unit = unit
        self.done = 0
        self.start = time.monotonic()
        self.lock = threading.Lock()

    def add(self, amount: int) -> None:
        with self.lock:
            self.done += amount

    def seconds(self) -> float:
        return time.monotonic() - self.start

    def amount(self, number: float) -> str:
        return human_bytes(number) if self.unit == "B" else f"{human_count(number)} {self.unit}"

    def rate(self) -> str:
        seconds = self.seconds()
        return f"{self.amount(self.done / seconds)}/s" if self.done and seconds > 0 else ""

    def summary(self) -> str:
        rate = self.rate()
        return f"{self.amount(self.done)} in {human_duration(self.seconds())}" + (f" ({rate})" if rate else "")


@contextmanager
def _bar(description: str, total: int | None, counter: _Counter, out: IO[str]) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    whole = "" if total is None else f" of {counter.amount(total)}"
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[done]}", markup=False),
        TextColumn("{task.fields[rate]}", markup=False),
        TimeRemainingColumn(compact=True),
        console=Console(file=out, highlight=False),
        transient=True,  # the line at the end takes its place
    )
    task = bar.add_task(spelled(description, out), total=total, done=f"{counter.amount(0)}{whole}", rate="")

    def advance(amount: int) -> None:
        counter.add(amount)
        done = spelled(f"{counter.amount(counter.done)}{whole}", out)
        bar.update(task, advance=amount, done=done, rate=spelled(counter.rate(), out))

    with bar:
        yield advance


def human_bytes(number: float) -> str:
    """A number of bytes, in powers of 1000.

    Examples
    --------
    >>> human_bytes(999), human_bytes(1_500_000), human_bytes(5.2e12)
    ('999 B', '1.5 MB', '5.2 TB')
    """
    return _scaled(number, ("B", "kB", "MB", "GB", "TB", "PB", "EB"))


def human_count(number: float) -> str:
    """A count, short: ``2.8 M``.

    Examples
    --------
    >>> human_count(999), human_count(26_000), human_count(2_800_000)
    ('999', '26 k', '2.8 M')
    """
    return _scaled(number, ("", "k", "M", "G", "T")).rstrip()


def human_duration(seconds: float) -> str:
    """A time span, in its two largest units.

    Examples
    --------
    >>> human_duration(0.25), human_duration(125), human_duration(4800), human_duration(273_600)
    ('0.2 s', '2 min 5 s', '1 h 20 min', '3 d 4 h')
    """
    if not math.isfinite(seconds):
        return UNKNOWN
    if seconds < 59.95:
        return f"{max(seconds, 0.0):.1f} s"
    whole = round(seconds)
    for unit, size, smaller, step in (("d", 86_400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            rest = whole % size // step
            return f"{whole // size} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{whole} s"


def _scaled(number: float, units: Sequence[str]) -> str:
    if not math.isfinite(number):
        return UNKNOWN
    size, position = float(number), 0
    while abs(size) >= 999.5 and position < len(units) - 1:
        size, position = size / 1000, position + 1
    digits = f"{size:.3g}" if abs(size) < 999.5 else f"{size:.0f}"
    return f"{digits} {units[position]}"


def _are_numbers(values: Sequence[object]) -> bool:
    known = [_python(value) for value in values if value is not None]
    return bool(known) and all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in known)


def _words(value: object) -> str:
    """``value`` as a cell of a table shows it."""
    value = _python(value)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return UNKNOWN
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(_words(item) for item in value)
    if isinstance(value, (set, frozenset)):
        return ", ".join(sorted(_words(item) for item in value))
    return str(value)


def _python(value: Any) -> Any:
    """NumPy scalars and arrays as Python's own values; all else as it is (NumPy is not imported for this)."""
    return value.tolist() if hasattr(value, "tolist") and hasattr(value, "dtype") else value


def _plain_data(value: object) -> Any:
    """``value`` in the types that JSON has."""
    value = _python(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain_data(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain_data(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted((_plain_data(item) for item in value), key=str)
    if isinstance(value, (date, datetime)):
        return value.isoformat()
    if isinstance(value, PurePath):
        return value.as_posix()
    raise ChammiError(f"a {type(value).__name__} has no form in JSON: give text, a number, a list or a mapping")


def _visible(character: str) -> str:
    """Control characters, line ends, and those that turn the reading direction, as Python writes them."""
    if character.isprintable():
        return character
    if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp"):
        return character.encode("unicode_escape").decode("ascii")
    return character


def _encoding(file: IO[str]) -> str:
    return (getattr(file, "encoding", None) or "utf-8").lower()


def _fits(letter: str, encoding: str) -> bool:
    try:
        letter.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True
