"""What the tests of the catalog share."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

from chammi75.catalog import Catalog

Row = dict[str, str]


@pytest.fixture(scope="session")
def catalog() -> Catalog:
    """The catalog that is shipped."""
    return Catalog()


@pytest.fixture(scope="session")
def facts_folder(shared_data: Path) -> Path:
    """The folder of the tables of facts that the cards were first written from; it is no part of the project."""
    folder = shared_data.parent / "facts"
    if not folder.is_dir():
        pytest.skip("the tables of facts (shared/facts beside the checkout) are not here")
    return folder


@pytest.fixture(scope="session")
def facts(facts_folder: Path) -> Callable[[str], list[Row]]:
    """Reads a table of facts by its name."""

    def read(name: str) -> list[Row]:
        with open(facts_folder / f"{name}.tsv", encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file, delimiter="\t"))

    return read


@pytest.fixture
def new_catalog(tmp_path: Path) -> Callable[..., Path]:
    """Makes a catalog of the given sources (and platforms): texts by name."""

    def make(platforms: dict[str, str] | None = None, **sources: str) -> Path:
        for kind, cards in (("sources", sources), ("platforms", platforms or {})):
            for name, text in cards.items():
                path = tmp_path / "catalog" / kind / f"{name}.yaml"
                path.parent.mkdir(parents=True, exist_ok=True)
                first = f"# yaml-language-server: $schema=../../schemas/{kind.removesuffix('s')}-card.schema.json\n"
                path.write_text(first + text, encoding="utf-8")
        return tmp_path / "catalog"

    return make
