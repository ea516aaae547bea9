"""A copy that is killed, may not write, or runs out of room: the same command goes on, and loses nothing."""

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
from loading_stores import write_store

from chammi75.errors import StoreError
from chammi75.store import open_store, verify
from chammi75.store.copy import copy_store, plan_copy

pytestmark = pytest.mark.skipif(os.name != "posix", reason="processes are forked and killed")

ROWS = [0, 1, 2, 5, 6, 8, 9, 10, 11, 13, 17, 20, 21, 22, 28]

MOMENTS = [
    ("os.mkdir", "store", "both"),
    ("os.mkdir", "copying", "both"),
    ("open", ".copy.json.", "both"),
    ("os.rename", "copy.json", "both"),
    ("open", "train-00000.arrow.part", "both"),
    ("os.rename", "train-00000.arrow", "both"),
    ("os.rename", "train-00001.arrow", "both"),
    ("os.rename", "train-00001.arrow.note", "some"),
    ("open", "index.parquet.part", "whole"),
    ("os.rename", "index.arrow", "whole"),
    ("open", "index.arrow", "some"),
    ("os.rename", "report.json", "whole"),
    ("open", ".manifest.json.", "both"),
    ("os.rename", "manifest.json", "both"),
    ("shutil.rmtree", "copying", "both"),
]
"""System calls just before which the copy is killed with SIGKILL, the file that each is about, and in which copies."""

SCRIPT = """
import json, os, resource, signal, sys, tempfile
import numpy as np
from chammi75.errors import ChammiError
from chammi75.files import filesystem_of
from chammi75.store import open_store
from chammi75.store.copy import copy_store
from chammi75.store.copy import images
import fsspec.implementations.local, pyarrow.parquet, pyarrow.compute

source, tasks = sys.argv[1], json.loads(sys.argv[2])
cut = images.cut_shards
import chammi75.store.copy.copy as copying
copying.cut_shards = lambda stores, rows: cut(stores, rows, 60_000)
write = images.ShardWriter
images.ShardWriter = lambda file: write(file, batch_bytes=10_000)

def child(task):
    done = 0
    def advance(amount):
        global done
        child.done += amount
        if task.get("after") and child.done > task["after"]:
            os.kill(os.getpid(), signal.SIGKILL)
    child.done = 0
    if task.get("moment"):
        event, name = task["moment"]
        folder = task["target"]
        def hook(what, arguments):
            if what == event and arguments:
                path = str(arguments[1] if what == "os.rename" else arguments[0])
                found = os.path.basename(path)
                is_name = found == name or name.endswith(".") and found.startswith(name)
                if path.startswith(folder) and is_name:
                    os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(hook)
    if task.get("limit"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (task["limit"], task["limit"]))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    if task.get("unprivileged") and os.getuid() == 0:
        with tempfile.TemporaryDirectory() as scratch:  # import all: whoever we become may not read the packages
            copy_store(source, scratch + "/store")
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    rows = np.array(task["rows"]) if task.get("rows") else None
    try:
        report = copy_store(source, task["target"], rows=rows, workers=task.get("workers", 1), advance=advance)
    except ChammiError as error:
        print(json.dumps([task["target"], str(error)]), flush=True)
        os._exit(1)
    print(json.dumps([task["target"], report.bytes_read]), flush=True)
    os._exit(0)

filesystem_of(source)
pyarrow.array([1]).to_numpy()  # imports pandas, which takes a second, once and not in every child

for task in tasks:
    process = os.fork()
    if process == 0:
        child(task)
    status = os.waitpid(process, 0)[1]
    print(json.dumps([task["target"], os.waitstatus_to_exitcode(status)]), flush=True)
"""


def copies(source: Path, tasks: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Run copies in processes of their own; for each target what they say and their exit codes."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(source), json.dumps(tasks)], capture_output=True, text=True, timeout=200
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
    known = write_store(open_folder / "source")
    (open_folder / "source" / "report.json").write_text("{}")
    return Path(known.url)


@pytest.mark.parametrize("kind", ["whole", "some"])
def test_a_copy_killed_at_any_moment_is_no_store_and_goes_on_as_if_nothing_had_been(
    source: Path, tmp_path: Path, kind: str
) -> None:
    rows = None if kind == "whole" else ROWS
    moments = [(event, name) for event, name, which in MOMENTS if which in ("both", kind)]
    targets = [str(tmp_path / f"{k}" / "store") for k in range(len(moments))]
    unbroken = str(tmp_path / "unbroken" / "store")
    first = [{"target": unbroken, "rows": rows}]
    killed = [{"target": t, "rows": rows, "moment": m} for t, m in zip(targets, moments, strict=True)]
    answers = copies(source, first + killed)
    everything = answers[unbroken][0]
    assert answers[unbroken] == [everything, 0]
    expected = tree(Path(unbroken))
    assert len([name for name in expected if name.startswith("shards/")]) >= 3
    for target, moment in zip(targets, moments, strict=True):
        assert answers[target] == [-9], moment
        if moment[0] == "shutil.rmtree":  # the manifest is there: the copy is whole
            assert verify(target).is_sound
            continue
        with pytest.raises(StoreError, match=r"not finished|no store here"):
            open_store(target)
    again = copies(source, [{"target": target, "rows": rows} for target in targets])
    for target, moment in zip(targets, moments, strict=True):
        assert again[target][1] == 0, (moment, again[target])
        assert tree(Path(target)) == expected, moment
        assert not (Path(target) / "copying").exists(), moment
    late = [targets[k] for k, (_, name) in enumerate(moments) if name in (".manifest.json.", "manifest.json")]
    for target in late:
        assert again[target][0] == 0, "everything was there already"


@pytest.mark.parametrize("rows", [None, ROWS[1:]], ids=["whole", "some"])
def test_a_copy_killed_again_and_again_reads_hardly_more_than_once(
    source: Path, tmp_path: Path, rows: list[int] | None
) -> None:
    unbroken, target = str(tmp_path / "unbroken"), str(tmp_path / "copy")
    everything = copies(source, [{"target": unbroken, "rows": rows}])[unbroken][0]
    step = everything // 5
    attempts = [{"target": target, "rows": rows, "workers": 2, "after": step * k} for k in range(1, 5)]
    answers = copies(source, [*attempts, {"target": target, "rows": rows, "workers": 2}])[target]
    assert answers[:4] == [-9] * 4
    assert answers[-1] == 0
    assert tree(Path(target)) == tree(Path(unbroken))
    assert answers[-2] < everything * 0.7


def test_a_target_that_may_not_be_written_is_one_clear_error(source: Path, open_folder: Path) -> None:
    locked = open_folder / "locked"
    locked.mkdir()
    (locked / "empty").mkdir(mode=0o555)
    locked.chmod(0o555)
    targets = [str(locked / "store"), str(locked / "empty"), str(locked / "a" / "b")]
    answers = copies(source, [{"target": target, "unprivileged": True} for target in targets])
    for target in targets:
        message, code = answers[target]
        assert code == 1
        assert message.startswith(f"{target}: it cannot be written (no permission, or read-only)")
    assert tree(locked) == {}


@pytest.mark.parametrize("rows", [None, ROWS], ids=["whole", "some"])
def test_a_target_that_is_full_is_one_clear_error_and_room_makes_it_good(
    source: Path, tmp_path: Path, rows: list[int] | None
) -> None:
    unbroken = str(tmp_path / "unbroken")
    largest = 60_000
    limits = [10, 1000, largest // 2]
    targets = [str(tmp_path / f"full{k}") for k in range(len(limits))]
    tasks = [{"target": t, "rows": rows, "limit": limit} for t, limit in zip(targets, limits, strict=True)]
    answers = copies(source, [{"target": unbroken, "rows": rows}, *tasks])
    before = tree(source)
    for target in targets:
        message, code = answers[target]
        assert code == 1
        assert message.startswith(f"{target}: there is no room left; nothing there counts as a store, make room")
        with pytest.raises(StoreError):
            open_store(target)
    again = copies(source, [{"target": target, "rows": rows} for target in targets])
    for target in targets:
        assert again[target][1] == 0
        assert tree(Path(target)) == tree(Path(unbroken))
    assert tree(source) == before


def test_two_copies_to_one_place_at_once_are_refused(source: Path, tmp_path: Path) -> None:
    def meanwhile(amount: int) -> None:
        with pytest.raises(StoreError, match="another copy is writing there right now"):
            copy_store(str(source), str(tmp_path / "copy"))

    copy_store(str(source), str(tmp_path / "copy"), workers=1, advance=meanwhile)
    assert tree(tmp_path / "copy") == tree(source)


def test_the_plan_says_what_is_read(source: Path) -> None:
    assert plan_copy(str(source)).bytes == sum(entry.bytes for entry in open_store(source).manifest.files)
    plan = plan_copy(str(source), rows=np.array(ROWS))
    assert (plan.images, plan.withdrawn) == (len(ROWS), 0)
