"""Checkpoints: all that a run needs to go on, in one file each, which is there whole or not at all.

A checkpoint is written beside its place, flushed to the disk and moved there. Its name ends with the first digits of
the SHA-256 of its bytes, as the files of ``torch.hub`` do, so that one which the disk has damaged is told from a good
one before anything in it is used.
"""

from __future__ import annotations

import hashlib
import os
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import torch

from chammi75.errors import ChammiError

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1
"""Of a checkpoint's content; one that means something else by it has another."""

_DIGITS = 8
_NAME = re.compile(rf"step_(\d{{8,}})-([0-9a-f]{{{_DIGITS}}})\.pt")
_PART, _DAMAGED = ".part", ".damaged"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint's file.

    Attributes
    ----------
    step : int
        Steps of the optimiser that were done.
    path : pathlib.Path
    digest : str
        First digits of the SHA-256 of its bytes.
    """

    step: int
    path: Path
    digest: str


def is_checkpoint(file: Path) -> bool:
    """Whether a file is called as checkpoints are."""
    return _NAME.fullmatch(file.name) is not None


def list_checkpoints(folder: Path) -> list[Checkpoint]:
    """The checkpoints in a folder, the first step first; none where there is no folder."""
    if not folder.is_dir():
        return []
    matches = [(path, _NAME.fullmatch(path.name)) for path in folder.iterdir()]
    found = [(path, match) for path, match in matches if match is not None]
    # of two of one step (written again after a step back) the newer counts
    found.sort(key=lambda pair: (int(pair[1][1]), pair[0].stat().st_mtime_ns))
    return [Checkpoint(int(match[1]), path, match[2]) for path, match in found]


def write_checkpoint(folder: Path, step: int, content: Mapping[str, Any], keep: int) -> Checkpoint:
    """Write a checkpoint, and remove all but the last.

    Parameters
    ----------
    folder : pathlib.Path
        Made if need be.
    step : int
        Steps that are done.
    content : mapping
        Tensors, numbers, texts, and dicts, lists and tuples of those.
    keep : int
        How many stay.

    Raises
    ------
    ChammiError
        If it cannot be written; those before it stay.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for step in (10, 20, 30):
    ...         checkpoint = write_checkpoint(Path(folder), step, {"weights": torch.zeros(2)}, keep=2)
    ...     [found.step for found in list_checkpoints(Path(folder))]
    [20, 30]
    """
    partial = folder / f".step_{step:08d}.{uuid.uuid4().hex[:8]}{_PART}"
    writer = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with open(partial, "xb") as file:
                writer = _HashedFile(file)
                torch.save({"format": FORMAT, "step": step, **content}, writer)
                file.flush()
                os.fsync(file.fileno())
            digest = writer.digest
            target = folder / f"step_{step:08d}-{digest}.pt"
            os.replace(partial, target)
            _flush_folder(folder)
        finally:
            partial.unlink(missing_ok=True)
    except (OSError, RuntimeError) as error:
        # PyTorch reports a full disk as an error of its own, about the place in its archive
        cause = error if isinstance(error, OSError) else writer.failure if writer is not None else None
        if cause is None:
            raise
        raise ChammiError(
            f"the checkpoint of step {step} cannot be written to {folder} ({cause.strerror or cause}); those before it"
            " are as they were: make room there, and start the same command again"
        ) from error
    for old in list_checkpoints(folder)[:-keep]:
        old.path.unlink(missing_ok=True)
    return Checkpoint(step, target, digest)


def read_checkpoint(checkpoint: Checkpoint) -> dict[str, Any]:
    """What a checkpoint says, its tensors on the CPU. Nothing but tensors and plain values is ever built of it.

    Raises
    ------
    DamagedCheckpointError
        If its bytes are not those that were written.
    ChammiError
        If another version of chammi75 wrote it.
    """
    try:
        with open(checkpoint.path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()[:_DIGITS]
            if digest != checkpoint.digest:
                raise DamagedCheckpointError(f"{checkpoint.path} is damaged: its bytes are not those that were written")
            file.seek(0)
            content: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise DamagedCheckpointError(f"{checkpoint.path} cannot be read ({error.strerror or error})") from error
    if content.get("format") != FORMAT:
        raise ChammiError(
            f"{checkpoint.path} has the format {content.get('format')}, and this version of chammi75 reads {FORMAT}:"
            " go on with the version that wrote it, or begin in another folder (out=…)"
        )
    return content


class DamagedCheckpointError(ChammiError):
    """A checkpoint whose bytes are not those that were written."""


def read_last(folder: Path, say: Callable[[str], None]) -> dict[str, Any] | None:
    """The last checkpoint that is whole; None where there is none.

    What a killed run has left half written is removed; a damaged checkpoint gets the ending ``.damaged``.

    Parameters
    ----------
    folder : pathlib.Path
    say : callable
        Told what was damaged, and where the run goes on.

    Raises
    ------
    ChammiError
        If there are checkpoints, and all are damaged.
    """
    damaged: list[str] = []
    for partial in folder.glob(f".step_*{_PART}") if folder.is_dir() else ():
        partial.unlink(missing_ok=True)
    for checkpoint in reversed(list_checkpoints(folder)):
        try:
            content = read_checkpoint(checkpoint)
        except DamagedCheckpointError as error:
            damaged.append(str(error))
            continue
        for words in damaged:
            say(f"{words}; going on from the one before, of step {checkpoint.step}")
        for other in list_checkpoints(folder):
            if other.step > checkpoint.step:
                os.replace(other.path, other.path.with_name(other.path.name + _DAMAGED))
        return content
    if damaged:
        raise ChammiError(
            f"{'; '.join(damaged)}. No checkpoint is left to go on from: put one back, or begin anew in another folder"
            " (out=…)"
        )
    return None


def random_states(device: torch.device) -> dict[str, Tensor]:
    """The states of PyTorch's generators in this process: of the CPU, and of its device. uint8, on the CPU."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        states["mps"] = torch.mps.get_rng_state()
    return states


def restore_random_states(states: Mapping[str, Tensor], device: torch.device) -> None:
    """Put the generators into the states of ``random_states``; those of a device that is not this one stay."""
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
    elif device.type == "mps" and "mps" in states:
        torch.mps.set_rng_state(states["mps"])


class _HashedFile:
    """A file that is written from its beginning to its end, and hashed meanwhile."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self.failure: OSError | None = None

    def write(self, content: bytes) -> int:
        self._hash.update(content)
        try:
            return self._file.write(content)
        except OSError as error:
            self.failure = error
            raise

    def flush(self) -> None:
        self._file.flush()

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()[:_DIGITS]


def _flush_folder(folder: Path) -> None:
    """Have the disk know the folder's entries too; a power cut could take the move back otherwise."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
