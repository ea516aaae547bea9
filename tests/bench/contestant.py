"""One contestant of the loading bench, in a process of its own.

Each library has its process for the whole run, and only one of them works at a time: no library's threads, caches or
shared memory touch another's, and one that crashes or hangs costs the table a row, not the run. The bench writes one
line of JSON on the standard input for each thing to do and reads one line back.

    python contestant.py MODULE     # MODULE is ours, raw_ranges or one of peers/
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import traceback
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from time import perf_counter, process_time
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


class ContestantError(Exception):
    """A contestant cannot do a case; the message is for the table."""


@dataclass(frozen=True)
class Turn:
    """What a contestant did in one turn.

    Attributes
    ----------
    samples : int
        Samples that were timed: those of the first batch of each epoch are not.
    seconds : float
        For them.
    cpu_seconds : float
        Of all threads of its main process, in that time.
    """

    samples: int
    seconds: float
    cpu_seconds: float

    @property
    def seconds_per_sample(self) -> float:
        """What is compared."""
        return self.seconds / self.samples


class Contestant:
    """A running contestant, as the bench sees it.

    Parameters
    ----------
    module : str
        ``ours``, ``raw_ranges``, or a module of ``peers``.
    environment : mapping, optional
        What it finds in its environment besides ours.
    """

    def __init__(self, module: str, environment: Mapping[str, str] | None = None) -> None:
        self.module = module
        self._environment = {**os.environ, **_ONE_THREAD, **(environment or {})}
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Contestant:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def describe(self) -> dict[str, str]:
        """Its title and the versions of its packages; ``ContestantError`` where one is not installed."""
        found: dict[str, str] = self._ask(120, do="describe")
        return found

    def build(self, folder: Path, fields: Path, variant: str = "") -> None:
        """Write its dataset of the fields in a folder."""
        self._ask(600, do="build", folder=str(folder), fields=str(fields), variant=variant)

    def check(self, folder: Path, **settings: Any) -> dict[str, Any]:
        """Run one epoch untimed, and say what came out: count, shape, dtype, and a digest that knows no order."""
        found: dict[str, Any] = self._ask(_PATIENCE_S, do="check", folder=str(folder), **_plain(settings))
        return found

    def take_turn(self, folder: Path, least_s: float, **settings: Any) -> Turn:
        """Run epochs, each with objects made anew, until at least ``least_s`` seconds are timed."""
        return Turn(**self._ask(_PATIENCE_S, do="turn", folder=str(folder), least_s=least_s, **_plain(settings)))

    def bytes_read(self, folder: Path, **settings: Any) -> float:
        """Bytes that one sample of ours needs, on average."""
        found: float = self._ask(60, do="bytes", folder=str(folder), **_plain(settings))
        return found

    def _ask(self, timeout_s: float, **order: Any) -> Any:
        process = self._started()
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps(order) + "\n")
            process.stdin.flush()
        except BrokenPipeError as error:
            raise ContestantError("its process ended") from error
        if not select.select([process.stdout], [], [], timeout_s)[0]:
            self.stop()
            raise ContestantError(f"no answer within {timeout_s:g} s")
        line = process.stdout.readline()
        if not line:
            self.stop()
            raise ContestantError("its process ended")
        answer = json.loads(line)
        if "failed" in answer:
            raise ContestantError(answer["failed"])
        return answer["done"]

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, __file__, self.module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=self._environment,
                bufsize=1,
            )
        return self._process

    def stop(self) -> None:
        """End its process; the next thing asked for starts another one."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()


_PATIENCE_S = 90.0
"""How long an epoch, or a turn, may take."""

_ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: asdict(value) if name in ("task", "remote") and value else value for name, value in settings.items()}


def _serve(name: str) -> None:
    """Do what the standard input says; what a library prints goes to the standard error."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    for line in sys.stdin:
        try:
            answer = {"done": _do(name, json.loads(line))}
        except Exception as error:  # noqa: BLE001  (whatever a library raises is what the table says of it)
            if os.environ.get("BENCH_TRACEBACK"):
                traceback.print_exc()
            answer = {"failed": f"{type(error).__name__}: {str(error).splitlines()[0][:150] if str(error) else ''}"}
        answers.write(json.dumps(answer) + "\n")


def _do(name: str, order: dict[str, Any]) -> Any:
    from peers.remote import Remote
    from peers.task import Task

    module = import_module(name if name in ("ours", "raw_ranges") else f"peers.{name}")
    do = order.pop("do")
    if do == "describe":
        from importlib.metadata import version

        return {"title": module.TITLE, "versions": ", ".join(f"{part} {version(part)}" for part in module.PACKAGES)}
    _hold_to_one_thread()
    folder = Path(order.pop("folder"))
    if do == "build":
        from fields import read_fields

        folder.mkdir(parents=True)
        module.build(folder, read_fields(Path(order["fields"])), order["variant"])
        return None
    if do == "bytes":
        return module.bytes_per_sample(folder, Task(**order["task"]))
    least_s = order.pop("least_s", 0.0)
    settings = order | {
        "task": Task(**order["task"]),
        "remote": Remote(**order["remote"]) if order.get("remote") else None,
    }
    if do == "check":
        return _checked(module.batches(folder, **settings))
    return asdict(_timed(module, folder, least_s, settings))


def _hold_to_one_thread() -> None:
    import cv2
    import torch

    cv2.setNumThreads(1)
    torch.set_num_threads(1)


def _checked(batches: Iterator[torch.Tensor]) -> dict[str, Any]:
    shapes, means, sums = set(), [], []
    for batch in batches:
        shapes.add((tuple(batch.shape[1:]), str(batch.dtype)))
        means += batch.double().mean(dim=(1, 2, 3)).tolist()
        sums += [zlib.crc32(sample.numpy().tobytes()) for sample in batch]
    (shape, dtype), *others = shapes
    assert not others, f"samples of several kinds: {shapes}"
    digest = zlib.crc32(b"".join(value.to_bytes(4, "little") for value in sorted(sums)))
    return {"samples": len(sums), "shape": shape, "dtype": dtype, "mean": sum(means) / len(means), "digest": digest}


def _timed(module: Any, folder: Path, least_s: float, settings: dict[str, Any]) -> Turn:
    samples, seconds, cpu_seconds = 0, 0.0, 0.0
    while seconds < least_s or not samples:
        batches = iter(module.batches(folder, **settings))
        next(batches)
        cpu, start = process_time(), perf_counter()
        samples += sum(len(batch) for batch in batches)
        seconds += perf_counter() - start
        cpu_seconds += process_time() - cpu
        del batches
    return Turn(samples, seconds, cpu_seconds)


if __name__ == "__main__":
    _serve(sys.argv[1])
