"""``chammi75 sources``, ``platforms``, ``cite`` and ``catalog check``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from chammi75.commands.catalog import register
from chammi75.errors import ChammiError


def invoke(*arguments: str):
    """Run a command; its result with the output."""
    app = typer.Typer()
    register(app)
    return CliRunner().invoke(app, list(arguments))


def printed(*arguments: str) -> str:
    result = invoke(*arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


def failure(*arguments: str) -> ChammiError:
    result = invoke(*arguments)
    assert isinstance(result.exception, ChammiError), result.output
    return result.exception


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with images of two studies: idr0017 (3 images) and one that no card knows (2)."""
    import numpy as np
    import tifffile

    from chammi75.build.execute import build_store
    from chammi75.build.plan import plan_folder
    from chammi75.schemas.recipe import BuildRecipe

    root = tmp_path_factory.mktemp("cited")
    plans = []
    for study, number, license, doi in (("idr0017", 3, None, None), ("ours", 2, "CC0-1.0", "10.5281/zenodo.1")):
        folder = root / study
        folder.mkdir()
        for image in range(number):
            tifffile.imwrite(folder / f"{image}.tif", np.full((16, 16), image, np.uint8))
        recipe = {"source": study, "license": license, "doi": doi}
        known = {name: value for name, value in recipe.items() if value is not None}
        plans.append(plan_folder(str(folder), BuildRecipe.model_validate(known)))
    build_store(plans, str(root / "store"), workers=1)
    return root / "store"


def test_sources_are_listed_as_json_with_licences_as_spdx() -> None:
    rows = json.loads(printed("sources", "--json"))
    assert len(rows) == 75
    by_id = {row["id"]: row for row in rows}
    assert {"id", "title", "license", "platform"} <= set(rows[0])
    assert (by_id["idr0003"]["license"], by_id["idr0003"]["platform"]) == ("CC-BY-NC-SA-3.0", "idr")
    assert by_id["nidr0001"]["license"] is None and by_id["nidr0001"]["title"] is None


def test_sources_are_filtered() -> None:
    rows = json.loads(printed("sources", "--license", "open", "--organism", "mouse", "--json"))
    assert [row["id"] for row in rows] == ["idr0072", "idr0086"]
    channels = ("--channel-type", "er", "--channel-type", "protein")
    assert [row["id"] for row in json.loads(printed("sources", *channels, "--json"))] == ["hpa0001", "idr0025"]
    assert "2 sources of 75" in printed("sources", "--organism", "mouse")
    assert json.loads(printed("sources", "--platform", "zenodo", "--json")) == []
    assert "did you mean commercial" in str(failure("sources", "--license", "comercial"))


def test_one_source_is_shown_whole_and_unknown_reads_unknown() -> None:
    lines = printed("sources", "idr0028-pascualvargas-rhogtpases").splitlines()
    fields = {line.split(" ")[0]: line.partition(" ")[2].strip() for line in lines}
    assert fields["id"] == "idr0028" and fields["license"] == "CC-BY-4.0"
    assert fields["magnification"] == "unknown"
    assert "nucleus (Hoechst)" in fields["configurations"]
    thin = printed("sources", "nidr0001")
    assert "title" in thin and "unknown" in thin
    [card] = json.loads(printed("sources", "idr0028", "--json"))
    assert card["license"] == "CC-BY-4.0" and card["license_statement"]["text"] == "CC BY 4.0"
    assert "did you mean idr0001" in str(failure("sources", "idr001"))
    assert invoke("sources", "idr0028", "--license", "open").exit_code == 2


def test_platforms_are_listed_with_their_protocols() -> None:
    rows = json.loads(printed("platforms", "--json"))
    assert len(rows) == 22 and set(rows[0]) == {"id", "name", "protocol"}
    assert {"id": "huggingface", "name": "Hugging Face Hub", "protocol": "hf"} in rows
    assert "sha256" in printed("platforms", "osf")
    [card] = json.loads(printed("platforms", "osf", "--json"))
    assert card["checksums"] == ["sha256", "md5"]


def test_sources_are_cited() -> None:
    text = printed("cite", "idr0017", "hpa0018", "idr0017")
    assert text.count("@misc{") == 2 and "@misc{idr0017," in text and "@misc{hpa0001," in text
    assert json.loads(printed("cite", "idr0017", "--style", "csl"))[0]["id"] == "idr0017"
    assert invoke("cite", "idr0017", "--style", "apa").exit_code == 2


def test_a_store_cites_the_sources_of_exactly_its_images(store: Path) -> None:
    items = {item["id"]: item for item in json.loads(printed("cite", str(store), "--style", "csl"))}
    assert set(items) == {"idr0017", "ours"}
    assert items["idr0017"]["DOI"] == "10.17867/10000101" and "Images used: 3" in items["idr0017"]["note"]
    assert items["ours"]["license"] == "CC0-1.0" and "Images used: 2" in items["ours"]["note"]
    assert items["ours"]["DOI"] == "10.5281/zenodo.1"
    twice = json.loads(printed("cite", str(store), str(store), "idr0017", "--style", "csl"))
    assert len(twice) == 2 and "Images used: 6" in twice[0]["note"]


def test_what_is_neither_a_source_nor_a_store_is_told(tmp_path: Path) -> None:
    assert "did you mean idr0017" in str(failure("cite", "idr017"))
    assert "no such file or folder" in str(failure("cite", str(tmp_path / "nowhere")))
    assert "neither a store" in str(failure("cite", str(tmp_path)))


def test_the_shipped_catalog_is_sound() -> None:
    assert "every card and vocabulary is sound" in printed("catalog", "check")
    assert json.loads(printed("catalog", "check", "--json")) == []


def test_problems_of_a_catalog_are_listed_with_file_and_line(new_catalog) -> None:
    folder = new_catalog(a="id: a\ntitel: x\n", b="id: b\nlicense: CC-BY-40\n")
    result = invoke("catalog", "check", str(folder))
    assert isinstance(result.exception, ChammiError) and result.exit_code == 1
    assert "2 problems in" in str(result.exception)
    first, second = result.stdout.splitlines()
    assert "a.yaml:3: 'titel' is no field of a source card; did you mean 'title'?" in first
    assert "b.yaml:3: license: 'CC-BY-40' is no SPDX id that is known here; did you mean 'CC-BY-4.0'?" in second
    problems = json.loads(invoke("catalog", "check", str(folder), "--json").stdout)
    assert [problem["line"] for problem in problems] == [3, 3]
