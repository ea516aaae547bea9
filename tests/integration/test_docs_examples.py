"""Every example of the README and of the documentation runs, in the order in which a reader meets it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from chammi75.version import __version__

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))))
RUN = ("python", "bash", "yaml", "csv")
SHOWN_ONLY = ("text",)
FENCE = re.compile(
    r"(?P<reason><!-- not run: (?P<why>[^\n]+) -->\n)?^```(?P<language>\w+)(?: title=\"(?P<title>[^\"]+)\")?\n"
    r"(?P<code>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
REASONS = ("needs a network", "needs a copy of the published dataset")

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the examples of the terminal are for a POSIX shell")


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


@pytest.fixture(scope="session")
def shell_environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which ``chammi75`` is the package under test, and ``pip install`` and ``pytest`` do nothing.

    What they do is the work of ``.ci/run``, in fresh virtual environments.
    """
    folder = tmp_path_factory.mktemp("bin")
    scripts = {"chammi75": f'exec "{sys.executable}" -m chammi75.cli "$@"', "pip": '[ "$1" = install ]', "pytest": ":"}
    for name, line in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{line}\n")
        (folder / name).chmod(0o755)
    return {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}


@pytest.fixture(scope="session")
def quickstart(shell_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the README's first command has run."""
    folder = tmp_path_factory.mktemp("newcomer")
    first = next(example for example in examples_of("README.md") if example.language == "bash")
    assert first.code == "pip install . && chammi75 quickstart\n"
    run_shell(first, folder, shell_environment)
    return folder / "chammi75-quickstart"


@pytest.fixture
def workplace(quickstart: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder to be in, with what quickstart left; its store is the ``mini`` of the cache."""
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "chammi75-quickstart").symlink_to(quickstart)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / f"mini-{__version__}-75").symlink_to(quickstart / "store")
    monkeypatch.setenv("CHAMMI75_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path / "work")
    yield tmp_path / "work"


def run_shell(example: Example, folder: Path, environment: dict[str, str]) -> None:
    """Run a block of the terminal as a reader would paste it; it must end with 0."""
    done = subprocess.run(
        [shutil.which("bash") or "sh", "-e", "-c", example.code],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, f"line {example.line}: {example.code}\n{done.stdout}\n{done.stderr}"


def run_python(example: Example, page: str, names: dict[str, object]) -> None:
    """Run a block of Python after those before it; a failure names the page and the block's first line."""
    exec(compile(example.code, f"{page}:{example.line}", "exec"), names)  # noqa: S102  # our own documentation


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_run_or_says_why_not(page: str) -> None:
    for example in examples_of(page):
        assert example.language in (*RUN, *SHOWN_ONLY), f"{page}:{example.line}: no one runs {example.language}"
        if example.why_not is not None:
            assert example.why_not in REASONS, f"{page}:{example.line}"
    fences = (ROOT / page).read_text(encoding="utf-8").count("```")
    assert fences == 2 * (len(examples_of(page)) + len(indented_fences(page)))


def indented_fences(page: str) -> list[str]:
    """Blocks inside lists: only ever shown."""
    return re.findall(r"^ +```text\n", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(example.language in ("python", "bash") for example in examples_of(page))]
)
@pytest.mark.filterwarnings("ignore")  # of torch and datasets, which are others' to mend
def test_the_examples_of_a_page_run_in_order(page: str, workplace: Path, shell_environment: dict[str, str]) -> None:
    environment = {**shell_environment, "CHAMMI75_CACHE": os.environ["CHAMMI75_CACHE"]}
    names: dict[str, object] = {"__name__": "__main__"}
    for example in examples_of(page):
        if example.why_not is not None or example.language in SHOWN_ONLY:
            continue
        if example.language == "python":
            run_python(example, page, names)
        elif example.title is not None:
            target = workplace / example.title
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(example.code, encoding="utf-8")
        elif example.language == "bash" and not is_quickstart(example):
            run_shell(example, workplace, environment)


def is_quickstart(example: Example) -> bool:
    """The command that the fixture has run already."""
    return example.code == "pip install . && chammi75 quickstart\n"


def test_what_the_readme_says_is_printed_is_printed(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A comment behind a ``print`` is a promise."""
    pytest.importorskip("torch")
    names: dict[str, object] = {"__name__": "__main__"}
    blocks = [example for example in examples_of("README.md") if example.language == "python"]
    promised = []
    for example in blocks[:3]:
        run_python(example, "README.md", names)
        promised += re.findall(r"^print\(.*\)  # (.*)$", example.code, re.MULTILINE)
    printed = capsys.readouterr().out
    assert promised
    for words in promised:
        assert words in printed
