"""Every number of ranks and workers, fork and spawn, stopped twice anywhere: is anything lost, repeated or another?

With real worker processes this takes a quarter of an hour and more; the test suite runs a sample of it, and the whole
product on the functions that deal positions out.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from loading_stores import write_store
from resuming import all_runs, differences


def _run() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=int, default=1, help="only every so many runs (default 1: all)")
    arguments = parser.parse_args()
    runs = list(all_runs())[:: arguments.every]
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        url = write_store(Path(folder) / "store").url
        for number, run in enumerate(runs, 1):
            wrong += differences(url, run)
            print(f"\r{number} of {len(runs)} runs, {len(wrong)} differences", end="", flush=True, file=sys.stderr)
    print(file=sys.stderr)
    print("\n".join(wrong) or f"{len(runs)} runs, each stopped twice: every sample came once, in its place")
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    _run()
