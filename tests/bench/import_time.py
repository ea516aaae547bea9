"""`import chammi75` and `chammi75 --help`, against a bare interpreter."""

from __future__ import annotations

import argparse
import subprocess
import sys
from statistics import median

from paired import Row, main, time_pairs

_HELP = "import sys; sys.argv = ['chammi75', '--help']; from chammi75.cli import main; main()"
_CASES = {
    "import chammi75": [sys.executable, "-c", "import chammi75"],
    "chammi75 --help": [
        sys.executable,
        "-c",
        "import sys; sys.argv = ['chammi75', '--help']; from chammi75.cli import main; main()",
    ],
}


def run(arguments: argparse.Namespace) -> list[Row]:
    """Processes of their own, turn by turn with bare ones."""
    bare = [sys.executable, "-c", "pass"]
    rows = []
    for case, command in _CASES.items():
        ours, peer = time_pairs(lambda c=command: _call(c), lambda: _call(bare), arguments.repeats)
        more = median(a - b for a, b in zip(ours, peer, strict=True))
        note = f"{more:.2f} s more"
        rows.append(
            Row(case, 1000 * median(ours), 1000 * median(peer), "ms", None, "under 0.4 s more", more < 0.4, note)
        )
    return rows


def _call(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True)


if __name__ == "__main__":
    main(__doc__, run)
