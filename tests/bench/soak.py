"""Hours of training epochs: does memory stay flat, with workers that live on?"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from time import perf_counter

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from memory import growth, memory


def soak(
    store: str, minutes: float, workers: int, every_s: float, *, readings: int = 3, quiet: bool = False
) -> tuple[list[float], int]:
    """Epoch after epoch of guided crops through a DataLoader, for some minutes and until there are enough readings.

    Returns
    -------
    series : list of float
        Megabytes of own memory of all processes, one value each ``every_s`` seconds.
    samples : int
    """
    from torch.utils.data import DataLoader

    from chammi75.loading import GuidedCrop, TrainingStream

    stream = TrainingStream(store, batch_size=32, crop=GuidedCrop(128), resize=96, seed=1)
    loader = DataLoader(stream, batch_size=None, num_workers=workers, persistent_workers=workers > 0)
    series: list[float] = []
    start, said, samples, epoch = perf_counter(), 0.0, 0, 0
    while perf_counter() - start < 60 * minutes or len(series) < readings:
        stream.set_epoch(epoch)
        for batch in loader:
            samples += len(batch["position"])
            if perf_counter() - said >= every_s:
                found, said = memory(), perf_counter()
                if found is None:
                    raise SystemExit("this system does not say how much memory a process has")
                series.append(found.own)
                if not quiet:
                    print(
                        f"{(said - start) / 60:7.1f} min  epoch {epoch:5d}  {samples:12,d} samples"
                        f"  {found.own:8.1f} MB own  {found.files:8.1f} MB of files  {found.processes} processes",
                        flush=True,
                    )
        epoch += 1
    return series, samples


def _run() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", nargs="?", default="mini", help="a store (default: the embedded dataset)")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--every", type=float, default=10.0, help="seconds between two readings")
    arguments = parser.parse_args()
    series, samples = soak(arguments.store, arguments.minutes, arguments.workers, arguments.every)
    print(f"{samples:,} samples; own memory from {series[0]:.1f} to {series[-1]:.1f} MB,")
    print(f"the last third {growth(series):+.1f} MB above the second (medians)")


if __name__ == "__main__":
    _run()
