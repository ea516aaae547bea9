"""The loader against its peers: all contestants in one run, turn by turn, the same images, the same output tensor.

Figures are milliseconds a sample: one process and one thread unless the case says otherwise, from a warm page cache,
without the first batch of an epoch; datasets, loaders and images are opened anew for each epoch. What is compared is in
``cases.py``, how the peers are built and read in ``peers/``. That pixels and counts are equal is asserted, times are
not.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from bar_chart import bar_chart
from cases import CASES, Case
from measurement import Bench, measure
from paired import Row, print_rows

_RUNS = {"quick": ("quick",), "goals": ("quick", "goals"), "full": ("quick", "goals", "full")}


def run(arguments: argparse.Namespace) -> tuple[list[Row], list[str]]:
    """Rows of all chosen cases, and what they were measured on."""
    rows: list[Row] = []
    with ExitStack() as stack:
        root = Path(arguments.folder or stack.enter_context(tempfile.TemporaryDirectory()))
        bench = Bench(root, arguments.quick, stack)
        for case in _chosen(arguments):
            print(f"{case.name} …", file=sys.stderr)
            rows += measure(bench, case, arguments.repeats or (3 if arguments.quick else 5))
        notes = [*bench.origins.values(), "; ".join(sorted(bench.versions.values()))]
    return rows, notes


def _chosen(arguments: argparse.Namespace) -> list[Case]:
    if arguments.cases:
        return [case for case in CASES if case.name in arguments.cases]
    runs = _RUNS["quick" if arguments.quick else "full" if arguments.full else "goals"]
    return [case for case in CASES if case.run in runs]


def markdown(rows: Sequence[Row]) -> str:
    """The table for the documentation."""
    lines = ["| case | against | ours, ms | theirs, ms | ratio | goal |", "|---|---|---:|---:|---:|---|"]
    last = ""
    for row in rows:
        words, _, against = row.case.partition(" : ")
        figures = [f"{value:.2f}" if value is not None else "" for value in (row.ours, row.peer)]
        ratio = f"**{row.ratio:.3g}x**" if row.ratio is not None else row.note
        goal = row.goal + ("" if row.met is None else ", met" if row.met else ", missed")
        lines.append(f"| {'' if words == last else words} | {against} | {' | '.join(figures)} | {ratio} | {goal} |")
        last = words
    return "\n".join(lines)


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="fewer planes, shorter turns, nothing remote")
    size.add_argument("--full", action="store_true", help="also what has no goal: other settings of the peers")
    names = [case.name for case in CASES]
    parser.add_argument("--cases", nargs="+", default=[], choices=names, help="only these", metavar="CASE")
    parser.add_argument("--repeats", type=int, help="turns of each (default 5, quick 3)")
    parser.add_argument("--folder", help="keep the datasets there, and use those that are there")
    parser.add_argument("--json", action="store_true", help="print a list of objects")
    parser.add_argument("--markdown", action="store_true", help="print the table for the documentation")
    parser.add_argument("--picture", metavar="FILE.svg", help="draw the ratios into this file as well")
    arguments = parser.parse_args()
    if arguments.picture and not arguments.picture.endswith(".svg"):
        parser.error(f"a picture is an SVG file, not {arguments.picture}")
    rows, notes = run(arguments)
    if arguments.picture:
        Path(arguments.picture).write_text(bar_chart(rows), encoding="utf-8")
    if arguments.json:
        print(json.dumps([asdict(row) for row in rows], indent=1))
    elif arguments.markdown:
        print("\n\n".join([markdown(rows), *notes]))
    else:
        print_rows(rows)
        print("\n".join(notes))


if __name__ == "__main__":
    _main()
