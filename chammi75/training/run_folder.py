"""The folder of a run: its recipe, checkpoints, log and model, and who may write there.

::

    recipe.yaml      the recipe, with all that it left out
    checkpoints/     step_00001000-3f2a9c01.pt …
    log.csv          a row for every few steps
    model/           the model for inference
    .lock            locked while a process trains; the file itself says nothing
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chammi75.errors import ChammiError, RecipeError, StoreError
from chammi75.store.node_cache.locks import locks_of
from chammi75.training.recipes import load_recipe, save_recipe

if TYPE_CHECKING:
    from chammi75.schemas.training import TrainingRecipe

_FREE = (
    "title",
    "description",
    "store",  # a stream's state knows the store by its content
    "out",
    "epochs",
    "max_steps",
    "batch_size",  # the samples of a step are compared instead, over all ranks
    "accumulate",
    "data.on_error",
    "data.workers",
    "data.cache_dir",
    "data.cache_limit",
    "backbone.activation_checkpointing",
    "devices",
    "checkpoints",
    "probe",
    "log",
)
"""Keys that a run may go on with other values of: where it runs and what it says, not what it computes."""

_LOCK = "run"


@dataclass(frozen=True)
class RunFolder:
    """Where the files of a run are.

    Attributes
    ----------
    path : pathlib.Path
    """

    path: Path

    @property
    def recipe(self) -> Path:
        """The recipe."""
        return self.path / "recipe.yaml"

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def log(self) -> Path:
        """The log, as CSV."""
        return self.path / "log.csv"

    @property
    def model(self) -> Path:
        """The folder of the model for inference."""
        return self.path / "model"


def folder_of(recipe: TrainingRecipe) -> RunFolder:
    """The folder that a recipe names.

    Raises
    ------
    RecipeError
        If it is a URL.
    """
    if "://" in recipe.out:
        raise RecipeError(
            f"out: {recipe.out} is a URL, and a run needs a folder of a disk: name one, and copy the model afterwards"
        )
    return RunFolder(Path(os.path.abspath(os.path.expanduser(recipe.out))))  # noqa: PTH111 - beside abspath


@contextmanager
def open_run(recipe: TrainingRecipe) -> Iterator[RunFolder]:
    """Hold the folder of a run, new or to go on with, for this process; the recipe is written there.

    The system takes the lock back when the process ends, however it ends, and workers do not inherit it.

    Raises
    ------
    StoreError
        If another process trains there, or the folder holds something else.
    RecipeError
        If the run there is one of another recipe; the message says what differs.
    """
    folder = folder_of(recipe)
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"out: the folder {folder.path} cannot be made ({error.strerror or error})") from error
    if not folder.recipe.is_file() and any(entry.name[:1] != "." for entry in folder.path.iterdir()):
        raise StoreError(
            f"{folder.path} holds files and no run (no {folder.recipe.name}): name an empty or new folder (out=…)"
        )
    locks = locks_of(folder.path, os.getpid())
    if not locks.take(_LOCK):
        raise StoreError(
            f"another process trains in {folder.path}: wait for it, or name another folder (out=…); nothing was changed"
        )
    try:
        if folder.recipe.is_file():
            check_same_run(load_recipe(folder.recipe), recipe, folder.path)
        try:
            save_recipe(recipe, folder.recipe, overwrite=True)
        except OSError as error:
            raise StoreError(f"out: {folder.recipe} cannot be written ({error.strerror or error})") from error
        yield folder
    finally:
        locks.give(_LOCK)


def check_same_run(before: TrainingRecipe, now: TrainingRecipe, folder: Path) -> None:
    """Refuse to go on with a run by another recipe.

    Raises
    ------
    RecipeError
        If keys differ that decide what is computed; the message names each with both values.
    """
    old, new = _fixed(before), _fixed(now)
    differing = [
        f"{key} was {json.dumps(old.get(key))} and is {json.dumps(new.get(key))}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]
    if differing:
        raise RecipeError(
            f"{folder} holds a run of another recipe: {'; '.join(differing)}. Put these back to go on with it, or name"
            " another folder (out=…)"
        )


def run_hash(recipe: TrainingRecipe) -> str:
    """SHA-256 of all that decides what a run computes, in hexadecimal: a run may go on where it is the same.

    Examples
    --------
    >>> from chammi75.schemas.training import TrainingRecipe
    >>> recipe = TrainingRecipe(title="A", store="mini", out="runs/a", method="dino")
    >>> run_hash(recipe) == run_hash(recipe.model_copy(update={"epochs": 200, "out": "runs/b"}))
    True
    >>> run_hash(recipe) == run_hash(recipe.model_copy(update={"seed": 1}))
    False
    """
    return hashlib.sha256(json.dumps(_fixed(recipe), sort_keys=True).encode()).hexdigest()


def check_samples_per_step(before: int, batch_size: int, accumulate: int, ranks: int) -> None:
    """Refuse to go on with steps of another size: schedules and the place in the data count steps.

    Raises
    ------
    ChammiError
        With the numbers.

    Examples
    --------
    >>> check_samples_per_step(64, batch_size=32, accumulate=1, ranks=1)
    Traceback (most recent call last):
    ...
    chammi75.errors.ChammiError: this run makes steps of 64 samples, and batch_size 32 x accumulate 1 x 1 rank are 32: \
set batch_size or accumulate so that they are 64 again, or begin in another folder (out=…)
    """
    now = batch_size * accumulate * ranks
    if now != before:
        raise ChammiError(
            f"this run makes steps of {before} samples, and batch_size {batch_size} x accumulate {accumulate} x {ranks}"
            f" rank{'s' if ranks > 1 else ''} are {now}: set batch_size or accumulate so that they are {before} again,"
            " or begin in another folder (out=…)"
        )


def _fixed(recipe: TrainingRecipe) -> dict[str, Any]:
    """What may not change, by dotted keys."""
    flat = dict(_flat(recipe.model_dump(mode="json"), ""))
    return {
        key: value
        for key, value in flat.items()
        if not any(key == free or key.startswith(f"{free}.") for free in _FREE)
    }


def _flat(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
