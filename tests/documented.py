"""The examples of the documentation: found in its pages, and run as a reader would run them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FENCE = re.compile(
    r"(?P<reason><!-- not run: (?P<why>[^\n]+) -->\n)?^```(?P<language>\w+)(?: title=\"(?P<title>[^\"]+)\")?\n"
    r"(?P<code>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Example:
    """A fenced block: its language, the file that it is (or None), its text, its first line, why it is not run."""

    language: str
    title: str | None
    code: str
    line: int
    why_not: str | None


def examples_of(page: str) -> list[Example]:
    """The fenced blocks of a page, in order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [
        Example(
            found["language"],
            found["title"],
            found["code"],
            text.count("\n", 0, found.start("code")) + 1,
            found["why"],
        )
        for found in FENCE.finditer(text)
    ]


def run_shell(example: Example, folder: Path, environment: dict[str, str]) -> None:
    """Run a block of the terminal as a reader would paste it; it must end with 0."""
    done = subprocess.run(
        [shutil.which("bash") or "sh", "-e", "-c", example.code],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, f"line {example.line}: {example.code}\n{done.stdout}\n{done.stderr}"


def run_python(example: Example, page: str, names: dict[str, object]) -> None:
    """Run a block of Python after those before it; a failure names the page and the block's first line."""
    exec(compile(example.code, f"{page}:{example.line}", "exec"), names)  # noqa: S102  # our own documentation


def reader_environment(folder: Path) -> dict[str, str]:
    """An environment in which ``chammi75`` is the package under test, and ``pip install`` and ``pytest`` do nothing.

    What they do is the work of ``.ci/run``, in fresh virtual environments. ``folder`` takes the scripts.
    """
    scripts = {"chammi75": f'exec "{sys.executable}" -m chammi75.cli "$@"', "pip": '[ "$1" = install ]', "pytest": ":"}
    for name, line in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{line}\n")
        (folder / name).chmod(0o755)
    return {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
