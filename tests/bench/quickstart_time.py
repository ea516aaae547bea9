"""Simulating and building `mini` in a fresh process: with an empty cache of compiled kernels, and with a full one."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

from paired import Row, main

_BUILD = """
import sys
from pathlib import Path
from chammi75.mini.dataset import build_mini
folder = Path(sys.argv[1])
report = build_mini(folder / "sources", folder / "store", workers=2)
print(report.manifest.images)
"""


def run(arguments: argparse.Namespace) -> list[Row]:
    """Once cold, then warm."""
    rows = []
    with tempfile.TemporaryDirectory() as cache:
        for case in ("mini, kernels not compiled yet", "mini, kernels compiled before"):
            elapsed, images = _build(cache)
            goal, met = "under 40 s", elapsed < 40
            rows.append(Row(case, elapsed, None, "s", None, goal, met, f"{images} images"))
    return rows


def _build(cache: str) -> tuple[float, int]:
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "NUMBA_CACHE_DIR": cache}
        start = perf_counter()
        command = [sys.executable, "-c", _BUILD, str(Path(folder))]
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
        return perf_counter() - start, int(done.stdout)


if __name__ == "__main__":
    main(__doc__, run)
