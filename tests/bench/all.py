"""All benches, each in a process of its own."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from paired import Row, print_rows

_BENCHES = (
    "plane_decode",
    "convert_published",
    "store_size",
    "index_filter",
    "published_open",
    "ranges",
    "hf_streaming",
    "import_time",
    "quickstart_time",
)


def _run() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print a list of objects")
    parser.add_argument("--repeats", type=int, default=7, help="pairs to measure (default 7)")
    parser.add_argument("--images", type=int, default=2_800_000, help="images of the generated index")
    parser.add_argument("--folder", help="keep the generated index there, and use it if it is there")
    arguments = parser.parse_args()
    rows: list[Row] = []
    for name in _BENCHES:
        print(f"{name} …", file=sys.stderr)
        command = [sys.executable, str(Path(__file__).with_name(f"{name}.py")), "--json"]
        command += ["--repeats", str(arguments.repeats)]
        if name == "index_filter":
            command += ["--images", str(arguments.images)]
            command += ["--folder", arguments.folder] if arguments.folder else []
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        rows += [Row(**row) for row in json.loads(done.stdout)]
    if arguments.json:
        print(json.dumps([vars(row) for row in rows], indent=1))
    else:
        print_rows(rows)


if __name__ == "__main__":
    _run()
