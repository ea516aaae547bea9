"""What a run says of itself: lines for people, and the same numbers as CSV, for TensorBoard and Weights & Biases."""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

from chammi75.errors import ChammiError, MissingDependencyError
from chammi75.files import write_atomically
from chammi75.terminal import human_count, human_duration

if TYPE_CHECKING:
    from chammi75.schemas.training import LogSettings, TrainingRecipe
    from chammi75.training.run_folder import RunFolder

_FIRST = ("step", "epoch", "loss")
_RATES = ("learning_rate", "weight_decay", "gradient_norm", "samples_per_s", "data_wait")


@dataclass(frozen=True)
class Entry:
    """What is told of a step.

    Attributes
    ----------
    step : int
        Steps that are done.
    epoch : int
        The epoch of that step, from 0.
    loss : float
        Of that step, over all ranks.
    metrics : mapping of str to float
        What the method measures; of that step, over all ranks.
    learning_rate, weight_decay : float
    gradient_norm : float
        Of all gradients together, before they were clipped.
    samples_per_s : float
        Of all ranks, since the entry before.
    data_wait : float
        Share of that time that the first rank waited for its next batch, from 0 to 1.
    left_s : float
        Seconds to the end of the run, at this rate.
    """

    step: int
    epoch: int
    loss: float
    metrics: Mapping[str, float]
    learning_rate: float
    weight_decay: float
    gradient_norm: float
    samples_per_s: float
    data_wait: float
    left_s: float

    def numbers(self) -> dict[str, float]:
        """All numbers that are kept, by name."""
        first = {name: getattr(self, name) for name in _FIRST}
        return {**first, **self.metrics, **{name: getattr(self, name) for name in _RATES}}

    def line(self, total_steps: int) -> str:
        """For people.

        Examples
        --------
        >>> entry = Entry(20, 1, 5.5, {"feature_std": 0.05}, 1e-4, 0.04, 1.5, 812.3, 0.013, 125)
        >>> entry.line(100)
        'step 20/100 (epoch 1)  loss 5.5000  feature_std 0.05  812 samples/s  waiting for data 1 %  2 min 5 s left'
        """
        metrics = "".join(f"  {name} {value:.4g}" for name, value in self.metrics.items())
        return (
            f"step {self.step}/{total_steps} (epoch {self.epoch})  loss {self.loss:.4f}{metrics}"
            f"  {human_count(self.samples_per_s)} samples/s  waiting for data {_percent(self.data_wait)}"
            f"  {human_duration(self.left_s)} left"
        )


class Stopwatch:
    """How fast a training goes, and how much of its time it waits for data."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._waited = 0.0
        self._samples = 0
        self._steps = 0

    def add_wait(self, seconds: float) -> None:
        """So long took the next batch to come."""
        self._waited += seconds

    def add_step(self, samples: int) -> None:
        """A step is done, of so many samples over all ranks."""
        self._samples += samples
        self._steps += 1

    def leave_out(self, seconds: float) -> None:
        """So long was spent on what is no step: a checkpoint, a probe."""
        self._start += seconds

    def lap(self) -> tuple[float, float, float]:
        """Samples a second, the share of the time that was spent waiting, and seconds per step; since the last lap."""
        now = time.perf_counter()
        passed = max(now - self._start, 1e-9)
        found = self._samples / passed, min(self._waited / passed, 1.0), passed / max(self._steps, 1)
        self._start, self._waited, self._samples, self._steps = now, 0.0, 0, 0
        return found


class Sink(Protocol):
    """Where numbers go."""

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Numbers of a step, by name."""

    def close(self) -> None:
        """Nothing more comes."""


class RunLog:
    """The log of a run, written by its first rank.

    Parameters
    ----------
    folder : RunFolder
    recipe : TrainingRecipe
    step : int
        Where the run begins: what was written of later steps, by a run that was killed, is taken back.
    total_steps : int
    say : callable
        Gets the lines for people.

    Raises
    ------
    MissingDependencyError
        If the recipe asks for a log whose package is not installed.
    """

    def __init__(
        self, folder: RunFolder, recipe: TrainingRecipe, step: int, total_steps: int, say: Callable[[str], None]
    ) -> None:
        self._total_steps, self._say = total_steps, say
        self._sinks = open_sinks(folder, recipe, step)

    def entry(self, entry: Entry) -> None:
        """A step, for people and machines."""
        self._say(entry.line(self._total_steps))
        for sink in self._sinks:
            sink.write(entry.step, entry.numbers())

    def result(self, step: int, numbers: Mapping[str, float], line: str) -> None:
        """Something measured beside the training (a probe), as a row of its own."""
        self._say(line)
        for sink in self._sinks:
            sink.write(step, numbers)

    def close(self) -> None:
        """Nothing more comes."""
        for sink in self._sinks:
            sink.close()


def open_sinks(folder: RunFolder, recipe: TrainingRecipe, step: int) -> list[Sink]:
    """The logs that a recipe asks for; those that need a package first, so that it is missed before anything is cut."""
    settings: LogSettings = recipe.log
    sinks: list[Sink] = []
    if settings.tensorboard:
        sinks.append(_TensorBoard(folder.path / "tensorboard", step))
    if settings.wandb is not None:
        sinks.append(_Wandb(folder.path, settings.wandb, recipe))
    if settings.csv:
        sinks.append(CsvLog(folder.log, step))
    return sinks


class CsvLog:
    """Rows of numbers; a new name gets a column of its own, and the file is rewritten for it.

    Parameters
    ----------
    path : pathlib.Path
    step : int
        Rows of later steps are cut off, and a row that was half written.
    """

    def __init__(self, path: Path, step: int) -> None:
        self._path = path
        self._columns: list[str] = []
        rows: list[dict[str, str]] = []
        if path.is_file():
            self._columns, rows = _read_rows(path, step)
        self._file: IO[str] = self._rewritten(rows)

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """A row; on the disk's way when this returns.

        Raises
        ------
        ChammiError
            If it cannot be written.
        """
        try:
            self._write({"step": step, **numbers}, step)
        except OSError as error:
            with suppress(OSError):  # which writes what is left of the row, once more in vain
                self._file.close()
            raise ChammiError(
                f"{self._path} cannot be written ({error.strerror or error}): make room there, and start the same"
                " command again to go on from the last checkpoint"
            ) from error

    def _write(self, numbers: Mapping[str, float], step: int) -> None:
        new = [name for name in numbers if name not in self._columns]
        if new:
            self._file.close()
            rows = _read_rows(self._path, step)[1] if self._columns else []
            self._columns += new
            self._file = self._rewritten(rows)
        # repr gives every digit: losses of two runs can be compared to the last bit
        self._file.write(_csv_line([_text(numbers.get(name)) for name in self._columns]))
        self._file.flush()

    def close(self) -> None:
        """Nothing more comes."""
        self._file.close()

    def _rewritten(self, rows: Sequence[Mapping[str, str]]) -> IO[str]:
        lines = [_csv_line(self._columns)] if self._columns else []
        lines += [_csv_line([row.get(name) or "" for name in self._columns]) for row in rows]
        write_atomically(self._path, "".join(lines).encode())
        return open(self._path, "a", encoding="utf-8", newline="")


def read_log(path: Path) -> list[dict[str, float]]:
    """The rows of a run's ``log.csv``: numbers by name, without those that a row does not have.

    Raises
    ------
    ChammiError
        If it is not such a file.
    """
    _, rows = _read_rows(path, None)
    return [{name: float(value) for name, value in row.items() if value} for row in rows]


def _read_rows(path: Path, step: int | None) -> tuple[list[str], list[dict[str, str]]]:
    """Columns and rows up to a step; a last line without its end is half of a row."""
    text = path.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    reader = csv.DictReader(io.StringIO(whole))
    columns = list(reader.fieldnames or [])
    if columns and columns[0] != "step":
        raise ChammiError(f"{path} is no log of a run: its first column is {columns[0]!r}; move it away")
    rows = [row for row in reader if row["step"] and (step is None or float(row["step"]) <= step)]
    return columns, rows


def _csv_line(values: Sequence[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(values)
    return line.getvalue()


def _text(number: float | None) -> str:
    return "" if number is None else repr(number)


class _TensorBoard:
    """Event files for TensorBoard."""

    def __init__(self, folder: Path, step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ModuleNotFoundError as error:
            raise MissingDependencyError(
                "log.tensorboard is set, and TensorBoard is not installed: pip install tensorboard, or set"
                " log.tensorboard=false"
            ) from error
        self._writer: Any = SummaryWriter(str(folder), purge_step=step + 1 if step else None)

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        for name, number in numbers.items():
            if name != "step":
                self._writer.add_scalar(name, number, step)

    def close(self) -> None:
        self._writer.close()


class _Wandb:
    """A run of Weights & Biases; the same one after a stop."""

    def __init__(self, folder: Path, project: str, recipe: TrainingRecipe) -> None:
        try:
            import wandb
        except ModuleNotFoundError as error:
            raise MissingDependencyError(
                "log.wandb is set, and Weights & Biases is not installed: pip install wandb, or set log.wandb=null"
            ) from error
        identity = folder / "wandb_run.txt"
        known = identity.read_text(encoding="utf-8").strip() if identity.is_file() else None
        self._run: Any = wandb.init(
            project=project,
            name=recipe.title,
            dir=str(folder),
            id=known,
            resume="allow",
            config=recipe.model_dump(mode="json"),
        )
        write_atomically(identity, f"{self._run.id}\n".encode())

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        self._run.log({name: number for name, number in numbers.items() if name != "step"}, step=step)

    def close(self) -> None:
        self._run.finish()


def _percent(share: float) -> str:
    return "unknown" if math.isnan(share) else f"{100 * share:.0f} %"
