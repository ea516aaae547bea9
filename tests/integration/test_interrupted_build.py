"""A build that is killed, may not write, or runs out of room: nothing of it counts as a store, and nothing is lost."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from chammi75.build.execute import build_store
from chammi75.build.plan import plan_folder
from chammi75.errors import ChammiError, StoreError
from chammi75.loading import load_dataset
from chammi75.schemas.recipe import BuildRecipe
from chammi75.store import open_store, verify

pytestmark = pytest.mark.skipif(os.name != "posix", reason="processes are forked and killed")

RECIPE = {"source": "src", "pattern": "{well}_{channel}", "shard_bytes": 2**16}

MOMENTS = [
    ("os.mkdir", "store"),
    ("open", "building.json"),
    ("os.mkdir", "shards"),
    ("open", "train-00000.arrow"),
    ("open", "train-00002.arrow"),
    ("open", ".report.json."),
    ("os.rename", "report.json"),
    ("open", "index.parquet"),
    ("open", "index.arrow"),
    ("open", ".manifest.json."),
    ("os.rename", "manifest.json"),
    ("os.remove", "building.json"),
]
"""System calls just before which the build is killed with SIGKILL, and the file that each is about."""

SCRIPT = """
import json, os, resource, signal, sys
from pathlib import Path
from chammi75.build.execute import build_store
from chammi75.build.plan import plan_folder
from chammi75.errors import ChammiError
from chammi75.files import filesystem_of
from chammi75.schemas.recipe import BuildRecipe
import chammi75.store.index, fsspec.implementations.local, pyarrow.parquet, numba, tifffile, imagecodecs, zstandard

source, recipe, tasks = sys.argv[1], BuildRecipe.model_validate(json.loads(sys.argv[2])), json.loads(sys.argv[3])
plan = plan_folder(source, recipe)

def child(task):
    if task.get("moment"):
        event, name = task["moment"]
        folder = task["target"]
        def hook(what, arguments):
            if what == event and arguments:
                path = str(arguments[1] if what == "os.rename" else arguments[0])
                if path.startswith(folder) and os.path.basename(path).startswith(name):
                    os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(hook)
    if task.get("limit"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (task["limit"], task["limit"]))
    if task.get("unprivileged") and os.getuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    try:
        build_store([plan], task["target"])
    except ChammiError as error:
        print(json.dumps([task["target"], str(error)]), flush=True)
        os._exit(1)
    os._exit(0)

filesystem_of(sys.argv[1])  # imported before a child gives its rights up, in case it may not read this environment then

for task in tasks:
    process = os.fork()
    if process == 0:
        child(task)
    status = os.waitpid(process, 0)[1]
    print(json.dumps([task["target"], os.waitstatus_to_exitcode(status)]), flush=True)
"""


def builds(source: Path, tasks: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Run builds in processes of their own; for each target its messages and its exit code."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(source), json.dumps(RECIPE), json.dumps(tasks)],
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    answers: dict[str, list[Any]] = {}
    for line in done.stdout.splitlines():
        target, answer = json.loads(line)
        answers.setdefault(target, []).append(answer)
    return answers


def tree(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A temporary folder that other users may enter, which pytest's are not."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    for path in (folder, *folder.rglob("*")):
        if path.is_dir():
            path.chmod(0o755)
    shutil.rmtree(folder)


@pytest.fixture
def source(open_folder: Path) -> Path:
    folder = open_folder / "plate"
    folder.mkdir()
    random = np.random.default_rng(0)
    for well in range(6):
        for channel in ("DAPI", "GFP"):
            array = random.integers(0, 4000, (90, 70)).astype(np.uint16)
            tifffile.imwrite(folder / f"A{well}_{channel}.tif", array, photometric="minisblack", metadata=None)
    return folder


def rebuild(source: Path, target: Path) -> None:
    build_store([plan_folder(str(source), BuildRecipe.model_validate(RECIPE))], str(target))


def test_a_build_killed_at_any_moment_is_no_store_and_the_next_one_is_as_if_nothing_had_been(
    source: Path, tmp_path: Path
) -> None:
    rebuild(source, tmp_path / "unbroken")
    expected = tree(tmp_path / "unbroken")
    assert len(expected) == 7  # manifest, two index files, report, three shards
    targets = [tmp_path / f"{k}" / "store" for k in range(len(MOMENTS))]
    tasks = [{"target": str(t), "moment": moment} for t, moment in zip(targets, MOMENTS, strict=True)]
    answers = builds(source, tasks)
    before = tree(source)
    for target, moment in zip(targets, MOMENTS, strict=True):
        assert answers[str(target)] == [-9], moment
        if moment == ("os.remove", "building.json"):  # the manifest is there: the store is whole
            assert verify(str(target)).is_sound
            (target / "building.json").unlink()
            assert tree(target) == expected
            continue
        begun = (target / "building.json").exists()
        for opening in (open_store, load_dataset):
            with pytest.raises(ChammiError, match="not finished" if begun else "no") as caught:
                opening(str(target))
            assert str(target) in str(caught.value)
        rebuild(source, target)
        assert tree(target) == expected, moment
        assert verify(str(target)).is_sound
    assert tree(source) == before


def test_a_target_that_may_not_be_written_is_one_clear_error(source: Path, open_folder: Path) -> None:
    locked = open_folder / "locked"
    locked.mkdir()
    (locked / "empty").mkdir(mode=0o555)
    locked.chmod(0o555)
    before = tree(open_folder)
    targets = [locked / "store", locked / "empty", locked / "a" / "b"]
    answers = builds(source, [{"target": str(target), "unprivileged": True} for target in targets])
    for target in targets:
        message, code = answers[str(target)]
        assert code == 1
        assert message.startswith(f"{target}: it cannot be written (no permission, or read-only)")
        with pytest.raises(StoreError):
            open_store(target)
    assert tree(open_folder) == before


def test_a_target_that_is_full_is_one_clear_error_and_room_makes_it_good(source: Path, tmp_path: Path) -> None:
    rebuild(source, tmp_path / "unbroken")
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "unbroken").rglob("*") if path.is_file()}
    limits = [10, 1000, sizes["train-00000.arrow"] // 2, sizes["train-00000.arrow"] - 1]
    before = tree(source)
    targets = [tmp_path / f"full{k}" for k in range(len(limits))]
    answers = builds(source, [{"target": str(t), "limit": n} for t, n in zip(targets, limits, strict=True)])
    for target in targets:
        message, code = answers[str(target)]
        assert code == 1
        assert message.startswith(f"{target}: there is no room left; nothing there counts as a store")
        with pytest.raises(StoreError):
            open_store(target)
        rebuild(source, target)
        assert tree(target) == tree(tmp_path / "unbroken")
    assert tree(source) == before


def test_the_command_says_in_one_line_that_a_target_cannot_be_written(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    command = [sys.executable, "-m", "chammi75.cli", "build", str(source), "--out", str(tmp_path / "file" / "store")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "it cannot be written" in done.stderr and "Traceback" not in done.stderr
    assert (tmp_path / "file").read_bytes() == b"mine"
