"""Compiled kernels."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest

import chammi75
from chammi75.kernels import kernel

PACKAGE = Path(chammi75.__file__).parent
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if "from chammi75.kernels import" in path.read_text("utf-8"))
OUTER = """
from chammi75.inner import inner
from chammi75.kernels import kernel

@kernel
def outer(value):
    return inner(value) + 1
"""
INNER = """
from chammi75.kernels import kernel

@kernel
def inner(value):
    return 10 * value
"""
CALL = "from chammi75.outer import outer; print(outer(4), sum(outer.stats.cache_hits.values()))"
CALL_MANY = "from chammi75.outer import outer; print(outer(4), outer(4.0), outer(True), outer(4j))"


def _sum(values):
    total = 0
    for value in values:
        total += value
    return total


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the package's kernels.py, with one kernel that calls another in a file of its own."""
    folder = tmp_path / "chammi75"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    for name in ("kernels.py", "errors.py"):
        shutil.copy(PACKAGE / name, folder)
    (folder / "outer.py").write_text(OUTER)
    (folder / "inner.py").write_text(INNER)
    return folder


def start(package: Path, code: str = CALL, **variables: str) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")}
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=package.parent,
        env={**environment, "PYTHONPATH": str(package.parent), **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def output(process: subprocess.Popen[str]) -> str:
    return process.communicate(timeout=120)[0].strip()


def cached(package: Path) -> list[Path]:
    return sorted(package.rglob("*.nb[ci]"))


def test_a_kernel_gives_what_its_function_gives_and_keeps_its_code() -> None:
    compiled = kernel(_sum)
    assert compiled(np.arange(5)) == 10
    assert compiled.stats.cache_path


def test_where_numba_finds_no_folder_for_its_code_a_kernel_is_compiled_anew() -> None:
    names: dict[str, Any] = {}
    exec("def double(value):\n    return 2 * value\n", names)  # noqa: S102 - a function of no file has no place either
    with pytest.raises(RuntimeError, match="no locator available"):
        numba.njit(cache=True)(names["double"])
    assert kernel(names["double"])(4) == 8


def test_an_edit_of_another_file_whose_kernel_is_called_compiles_anew_and_removes_the_old_code(package: Path) -> None:
    assert output(start(package)) == "41 0"
    before = cached(package)
    (package / "inner.py").write_text(INNER.replace("10", "20"))
    assert output(start(package)) == "81 0"
    assert output(start(package)) == "81 1"
    after = cached(package)
    assert len(after) == len(before) and not {*before} & {*after}


def test_files_that_are_empty_or_cut_short_are_written_anew(package: Path) -> None:
    assert output(start(package)) == "41 0"
    for path in cached(package):
        path.write_bytes(path.read_bytes()[: 0 if path.stem.startswith("outer") else 30])
    assert output(start(package)) == "41 0"
    assert output(start(package)) == "41 1"


def test_processes_that_compile_at_once_do_not_mix_up_their_code(package: Path) -> None:
    for found in [output(process) for process in [start(package, CALL_MANY) for _ in range(3)]]:
        assert found == "41 41.0 11 (1+40j)"
    assert output(start(package, CALL_MANY)) == "41 41.0 11 (1+40j)"
    assert len([path for path in cached(package) if path.name.startswith("outer.") and path.suffix == ".nbc"]) == 4


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="a home that is none is made with POSIX paths")
def test_without_a_folder_to_write_to_kernels_are_compiled_in_each_process(package: Path) -> None:
    (package / "__pycache__").write_text("a file where a folder should be")
    nowhere = {"HOME": "/dev/null", "XDG_CACHE_HOME": "/dev/null", "PYTHONDONTWRITEBYTECODE": "1"}
    assert output(start(package, "from chammi75.outer import outer; print(outer(4))", **nowhere)) == "41"
    assert not cached(package)


def test_where_numba_may_not_compile_decoding_says_so() -> None:
    code = "import numpy as np; from chammi75.store.plane import *; decode_plane(blank_plane(np.dtype(np.uint8)))"
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert "ChammiError: pixels are decoded by compiled code" in found.stderr


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_modules_of_kernels_import_by_full_names_at_their_top(path: Path) -> None:
    modules = {".".join(other.relative_to(PACKAGE.parent).with_suffix("").parts) for other in PACKAGE.rglob("*.py")}
    tree = ast.parse(path.read_text("utf-8"))
    for node in tree.body:
        assert not isinstance(node, ast.Import) or not any("chammi75" in name.name for name in node.names)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0
            if str(node.module).startswith("chammi75"):
                assert node.module in modules, f"{node.module} is a package: name the module that it is in"
