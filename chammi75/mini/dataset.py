"""The embedded dataset as a store: its source files are simulated, and built as anything else is."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from chammi75.build.execute import BuildReport, build_store
from chammi75.build.plan import plan_folder
from chammi75.build.recipes import load_recipe
from chammi75.cache import cache_folder
from chammi75.errors import ChammiError
from chammi75.mini.simulate import write_sources
from chammi75.schemas import RECORD_SCHEMA_VERSION
from chammi75.version import __version__

SEED = 75

CONTENT_VERSION = 2
"""To be raised with every change of the simulation that changes a pixel, a name or a recipe."""

STORE_NAME = f"mini-{__version__}-{CONTENT_VERSION}.{RECORD_SCHEMA_VERSION}-{SEED}"
"""Folder of the store in the cache: another content has another name, and is built anew."""


def build_mini(
    sources: Path,
    out: Path,
    *,
    size: float = 1.0,
    seed: int = SEED,
    workers: int = 1,
    advance: Callable[[int], None] | None = None,
) -> BuildReport:
    """Simulate the source files of ``mini`` and build a store of them.

    Parameters
    ----------
    sources : pathlib.Path
        Folder for the source files, the recipes and the truth; new or empty.
    out : pathlib.Path
        Folder of the store.
    size : float
        Factor on the number of images.
    seed : int
        Seed of the simulation.
    workers : int
        Processes and threads; neither the files nor the store depend on it.
    advance : callable, optional
        Called with a number of images when they are done.

    Raises
    ------
    ChammiError
        If a folder is taken or cannot be written.
    """
    plans = []
    for path in write_sources(sources, size=size, seed=seed, workers=workers):
        recipe, folder, digest = load_recipe(path)
        plans.append(plan_folder(str(folder), recipe, recipe_folder=str(folder), recipe_sha256=digest))
    return build_store(plans, str(out), workers=workers, advance=advance)


def mini_store(cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """The store of ``mini`` in the cache; built there on first use, which takes some seconds.

    Raises
    ------
    ChammiError
        If the cache cannot be written.
    """
    cache = cache_folder(cache_dir)
    target = cache / STORE_NAME
    if (target / "manifest.json").is_file():
        return target
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".mini-", dir=cache) as scratch:
            build_mini(Path(scratch) / "sources", Path(scratch) / "store")
            _move_into_place(Path(scratch) / "store", target)
    except OSError as error:
        raise ChammiError(f"{cache}: mini cannot be built there ({error}); give another cache_dir") from error
    return target


def _move_into_place(store: Path, target: Path) -> None:
    """Several processes may build at once; whoever comes first stays, and readers never see half a store."""
    if target.exists() and not (target / "manifest.json").is_file():
        shutil.rmtree(target)
    try:
        store.rename(target)
    except OSError:
        if not (target / "manifest.json").is_file():
            raise
