"""Opening a generated index of 2.8 M images and filtering it, against polars over the 8 M-row CSV of the same."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from paired import Row, faster, main, seconds, time_pairs
from synthetic_index import make

_FRESH = """
import json, pathlib, resource, sys, time
import chammi75
from chammi75.loading.selection import select
from chammi75.loading.filters import Filters
from chammi75.loading.layouts import StoreLayout
if sys.argv[4] == "datasets":
    import datasets
imported = time.perf_counter()
layout = StoreLayout(chammi75.open_store(sys.argv[1]))
found = len(select(layout, Filters(organism=sys.argv[2], channel_type=json.loads(sys.argv[3])), split="train"))
done = time.perf_counter()
status = pathlib.Path("/proc/self/status")
if status.is_file():  # what getrusage says on Linux counts the process that started this one
    peak = next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) * 1024
else:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
print(json.dumps({"found": found, "seconds": done - imported, "peak_bytes": peak}))
"""


def run(arguments: argparse.Namespace) -> list[Row]:
    """Open and filter, the same through ``load_dataset``, with SQL, and the memory of a fresh process."""
    if arguments.folder is not None and (arguments.folder / "manifest.json").is_file():
        return _measure(arguments.folder, arguments.repeats)
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.folder or Path(scratch)
        make(folder, arguments.images)
        return _measure(folder, arguments.repeats)


def _measure(folder: Path, repeats: int) -> list[Row]:
    import polars as pl

    from chammi75.loading.dataset import load_dataset
    from chammi75.loading.filters import Filters
    from chammi75.loading.layouts import StoreLayout
    from chammi75.loading.selection import select
    from chammi75.store.reader import open_store

    organism, types = _question(folder)

    def ours() -> int:
        layout = StoreLayout(open_store(str(folder)))
        return len(select(layout, Filters(organism=organism, channel_type=types), split="train"))

    def peer() -> int:
        has = [(pl.col("imaging.channel_type") == word).any() for word in types]
        matching = (
            pl.scan_csv(folder / "metadata.csv", infer_schema=False)
            .filter(pl.col("biology.organism") == organism)
            .group_by("imaging.multi_channel_id")
            .agg(pl.all_horizontal(has).alias("has"))
            .filter("has")
        )
        return int(matching.select(pl.len()).collect().item())

    found = ours()
    assert found and found == peer(), f"we find {found} images, polars {peer()}"
    note = f"{found:,} of {len(open_store(str(folder))):,} images: {organism}, {' + '.join(types)}"
    rows = [faster("open and filter : polars", time_pairs(ours, peer, repeats), 25.0, note)]
    for extra in ("nothing", "datasets"):
        fresh = _fresh(folder, organism, types, extra)
        assert fresh["found"] == found
        peak = fresh["peak_bytes"] / 1e6
        goal = ("under 400 MB", peak < 400) if extra == "nothing" else ("", None)
        case = "peak memory of a fresh process" + (", with datasets" if extra == "datasets" else "")
        rows.append(Row(case, peak, None, "MB", None, *goal, f"opens and filters in {fresh['seconds'] * 1000:.0f} ms"))
    sql = f"experiment.well LIKE 'B%' AND biology.organism = '{organism}'"
    calls = {
        "load_dataset, streaming, same filters": {"organism": organism, "channel_type": types},
        "load_dataset, streaming, where=": {"where": sql},
    }
    for case, filters in calls.items():
        times = [seconds(lambda f=filters: load_dataset(str(folder), streaming=True, **f)) for _ in range(repeats)]
        rows.append(Row(case, 1000 * sorted(times)[len(times) // 2], None, "ms"))
    return rows


def _question(folder: Path) -> tuple[str, list[str]]:
    """The commonest organism, and two channel types that its commonest images of several channels have."""
    from chammi75.store.reader import open_store

    index = open_store(str(folder)).index
    organisms, configurations = index.facet("organism"), index.facet("channel_types")
    pairs = Counter(zip(organisms.codes[::97].tolist(), configurations.codes[::97].tolist(), strict=True))
    for (organism, configuration), _ in pairs.most_common():
        types = json.loads(configurations.values[configuration])
        if len(types) >= 2:
            return organisms.values[organism], types[:2]
    raise SystemExit("no image of the generated index has two channels")


def _fresh(folder: Path, organism: str, types: list[str], extra: str) -> dict[str, float]:
    command = [sys.executable, "-c", _FRESH, str(folder), organism, json.dumps(types), extra]
    answer: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return answer


if __name__ == "__main__":
    main(
        __doc__,
        run,
        {
            "--images": {"type": int, "default": 2_800_000, "help": "images of the generated index"},
            "--folder": {"type": Path, "help": "keep the generated files there, and use them if they are there"},
        },
    )
