"""How a bench measures: us and the peer in one run, turn by turn, and the median of the ratios of neighbours.

A machine that is busy for a second slows both halves of a pair, so a ratio stands where a time does not.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from time import perf_counter


@dataclass(frozen=True)
class Row:
    """One figure of a bench.

    Attributes
    ----------
    case : str
        What was measured.
    ours, peer : float or None
        Medians, in ``unit``.
    unit : str
    ratio : float or None
        Median of the paired ratios, in the direction in which the goal is put.
    goal : str
        In words; empty if this figure has none.
    met : bool or None
    note : str
        What it was measured on.
    """

    case: str
    ours: float | None
    peer: float | None
    unit: str
    ratio: float | None = None
    goal: str = ""
    met: bool | None = None
    note: str = ""


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = perf_counter()
    work()
    return perf_counter() - start


def time_pairs(ours: Callable[[], object], peer: Callable[[], object], repeats: int) -> tuple[list[float], list[float]]:
    """Times of both, in seconds, taken turn by turn after a warm-up of each."""
    ours(), peer()
    pairs = [(seconds(ours), seconds(peer)) for _ in range(repeats)]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def take_turns(works: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Figures of any number of contestants, taken turn by turn; each time another one begins."""
    names = list(works)
    figures: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(repeats):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            figures[name].append(works[name]())
    return figures


def faster(case: str, times: tuple[list[float], list[float]], goal: float | None = None, note: str = "") -> Row:
    """How many times as fast as the peer we are; the goal is a least value."""
    ratio = median(peer / ours for ours, peer in zip(*times, strict=True))
    return _row(case, times, ratio, goal and f"at least {goal:g}x", goal and ratio >= goal, note)


def slower(case: str, times: tuple[list[float], list[float]], goal: float | None = None, note: str = "") -> Row:
    """How many times the peer's time we take; the goal is a greatest value."""
    ratio = median(ours / peer for ours, peer in zip(*times, strict=True))
    return _row(case, times, ratio, goal and f"at most {goal:g}x", goal and ratio <= goal, note)


def _row(
    case: str,
    times: tuple[list[float], list[float]],
    ratio: float,
    goal: str | float | None,
    met: bool | float | None,
    note: str,
) -> Row:
    ours, peer = (1000 * median(part) for part in times)
    return Row(case, ours, peer, "ms", ratio, str(goal or ""), None if met is None else bool(met), note)


def print_rows(rows: Sequence[Row]) -> None:
    """Rows as a table."""
    header = ("case", "ours", "peer", "unit", "ratio", "goal", "", "note")
    lines = [header, *(_cells(row) for row in rows)]
    widths = [max(len(line[k]) for line in lines) for k in range(len(header))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _cells(row: Row) -> tuple[str, ...]:
    met = {None: "", True: "met", False: "MISSED"}[row.met]
    ratio = "" if row.ratio is None else f"{row.ratio:.3g}x"
    return (row.case, _number(row.ours), _number(row.peer), row.unit, ratio, row.goal, met, row.note)


def _number(value: float | None) -> str:
    return (
        "" if value is None else f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 1000 else f"{value:,.0f}"
    )


def main(
    description: str,
    run: Callable[[argparse.Namespace], list[Row]],
    options: dict[str, dict[str, object]] | None = None,
) -> None:
    """Run a bench from the command line; ``--json`` prints a list of objects."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", action="store_true", help="print a list of objects")
    parser.add_argument("--repeats", type=int, default=7, help="pairs to measure (default 7)")
    for name, settings in (options or {}).items():
        parser.add_argument(name, **settings)  # type: ignore[arg-type]
    arguments = parser.parse_args()
    rows = run(arguments)
    if arguments.json:
        json.dump([asdict(row) for row in rows], sys.stdout, indent=1)
        print()
    else:
        print_rows(rows)
