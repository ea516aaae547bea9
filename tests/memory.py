"""Memory of this process and of those that it started, as Linux accounts for it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Memory:
    """Megabytes of a process and its descendants.

    Attributes
    ----------
    own : float
        Its own: what is not a file's. Pages that several share are divided among them.
    files : float
        Mapped files: the system takes these back when it needs them.
    processes : int
    """

    own: float
    files: float
    processes: int


def memory() -> Memory | None:
    """Memory in use now; None where the system does not say."""
    if not Path("/proc/self/smaps_rollup").is_file():
        return None
    own = files = 0.0
    processes = _family(os.getpid())
    for process in processes:
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]
        except OSError:  # it has ended meanwhile
            continue
        values = {name: float(rest.split()[0]) / 1024 for name, _, rest in (line.partition(":") for line in lines)}
        own += values["Pss_Anon"] + values["Pss_Shmem"]
        files += values["Pss_File"]
    return Memory(own, files, len(processes))


def _family(process: int) -> list[int]:
    found = [process]
    for task in Path(f"/proc/{process}/task").iterdir():
        children = task / "children"
        if children.is_file():
            found += [other for child in children.read_text().split() for other in _family(int(child))]
    return found


def growth(series: list[float]) -> float:
    """By how much the last third of a series is above the second: medians, in its unit."""
    from statistics import median

    third = len(series) // 3
    return median(series[-third:]) - median(series[third : 2 * third])
