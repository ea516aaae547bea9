"""Every example of the README and of the documentation runs, in the order in which a reader meets it."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from documented import ROOT, Example, examples_of, reader_environment, run_python, run_shell

from chammi75.mini.dataset import STORE_NAME

PAGES = ("README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))))
RUN = ("python", "bash", "yaml", "csv")
SHOWN_ONLY = ("text",)
REASONS = ("needs a network", "needs a copy of the published dataset")

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the examples of the terminal are for a POSIX shell")


@pytest.fixture(scope="session")
def shell_environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a reader."""
    return reader_environment(tmp_path_factory.mktemp("bin"))


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
    (tmp_path / "cache" / STORE_NAME).symlink_to(quickstart / "store")
    monkeypatch.setenv("CHAMMI75_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path / "work")
    yield tmp_path / "work"


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
