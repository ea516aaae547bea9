"""The walk-through of the documentation, followed on real plates: only folder, recipe and plate map differ."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from documented import Example, examples_of, reader_environment, run_python, run_shell

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the examples of the terminal are for a POSIX shell")

PAGE = "docs/walkthrough.md"


@dataclass(frozen=True)
class Plate:
    """A real folder, what a biologist would write of it, and what must come out."""

    folder: str
    naming: str
    recipe: str
    platemap: Callable[[Path, bool], None]
    wells: tuple[str, ...]
    images: int
    channels: tuple[int, ...]


RECIPE = """\
source: screen
license: BSD-3-Clause
naming: {naming}
{channels}
tables:
  - {table}
"""


def long_csv(wells: tuple[str, ...]) -> Callable[[Path, bool], None]:
    """A list of wells, semicolons between; half of it where it is not finished."""

    def write(folder: Path, finished: bool) -> None:
        rows = [
            f"{well};{'DMSO' if k % 2 == 0 else 'taxol'};{'negative' if k % 2 == 0 else 'no'}"
            for k, well in enumerate(wells)
        ]
        (folder / "platemap.csv").write_text("\n".join(["Well;Compound;Control", *rows[: None if finished else 1]]))

    return write


def spreadsheet(wells: tuple[str, ...]) -> Callable[[Path, bool], None]:
    """The same as a spreadsheet, wells spelled without zeros."""

    def write(folder: Path, finished: bool) -> None:
        import openpyxl

        book = openpyxl.Workbook()
        assert book.active is not None
        book.active.append(["Well", "Compound", "Control"])
        for k, well in enumerate(wells[: None if finished else 1]):
            book.active.append([f"{well[0].lower()}{int(well[1:])}", "DMSO", "negative" if k == 0 else "no"])
        book.save(folder / "platemap.xlsx")

    return write


def grids(wells: tuple[str, ...]) -> Callable[[Path, bool], None]:
    """Plates as they lie: one grid says which wells are controls, another what is in them."""

    def write(folder: Path, finished: bool) -> None:
        there = wells[: None if finished else 1]
        for name, first, other in (("controls.csv", "negative", "no"), ("drugs.csv", "DMSO", "taxol")):
            named = {well: first if k == 0 else other for k, well in enumerate(there)}
            lines = ["," + ",".join(str(column) for column in range(1, 13))]
            for row in "ABCDEFGH":
                lines.append(",".join([row, *(named.get(f"{row}{column:02d}", "") for column in range(1, 13))]))
            (folder / name).write_text("\n".join(lines))

    return write


JOIN = "match: {experiment.well: Well}\n    columns: {experiment.reagent: Compound, experiment.control: Control}"
NF1 = ("B7", "D6", "D7", "F7", "H12")
PLATES = {
    "NF1 cell painting, Gen5": Plate(
        "cdf_NF1_cellpainting_Plate2",
        "gen5",
        RECIPE.format(
            naming="gen5",
            channels="channels: {DAPI: nucleus, GFP: {panel: GFP}, RFP: {panel: RFP}}",
            table=f"path: platemap.csv\n    {JOIN}",
        ),
        long_csv(NF1),
        NF1,
        5,
        (3,),
    ),
    "ImageXpress with a z-stack and projections": Plate(
        "faim_ImageXpress_ProjectionMix",
        "imagexpress",
        RECIPE.format(naming="imagexpress", channels="title: FMI test plate", table=f"path: platemap.xlsx\n    {JOIN}"),
        spreadsheet(("E07", "E08")),
        ("E07", "E08"),
        12,
        (2, 3),
    ),
    "BBBC014 as Vitra wrote it": Plate(
        "cpex_ExampleVitraImages",
        "vitra",
        RECIPE.format(
            naming="vitra",
            channels='channels: {"1": protein, "2": nucleus}',
            table="{path: controls.csv, layout: grid, value: experiment.control}\n"
            "  - {path: drugs.csv, layout: grid, value: experiment.reagent}",
        ),
        grids(("A01", "A12")),
        ("A01", "A12"),
        2,
        (2,),
    ),
}


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a reader."""
    return reader_environment(tmp_path_factory.mktemp("bin"))


@pytest.mark.parametrize("plate", PLATES.values(), ids=PLATES)
@pytest.mark.filterwarnings("ignore")
def test_the_walk_through_leads_a_real_folder_to_a_cited_store(
    plate: Plate,
    shared_data: Path,
    environment: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(shared_data / "public" / plate.folder, "screen")
    (tmp_path / "screen").chmod(0o755)
    names: dict[str, object] = {"__name__": "__main__"}
    followed = 0
    for example in examples_of(PAGE):
        if example.language == "text":
            continue
        if "chammi75-quickstart" in example.code:  # the page's own folder, and how its plate map is finished
            if example.language == "python":
                plate.platemap(tmp_path / "screen", True)
        elif example.title == "screen/recipe.yaml":
            Path(example.title).write_text(plate.recipe, encoding="utf-8")
        elif example.title == "screen/platemap.csv":
            plate.platemap(tmp_path / "screen", False)
        elif example.language == "python":
            run_python(example, PAGE, names)
            followed += 1
        else:
            check_shell(example, plate, tmp_path, environment)
            followed += 1
    assert followed >= 8
    check_result(plate, names)


def check_shell(example: Example, plate: Plate, folder: Path, environment: dict[str, str]) -> None:
    """Run a block; what the page says of its output must be so for this plate."""
    run_shell(example, folder, environment)
    if "build screen --plan" in example.code:
        told = command("build screen --plan --json", folder, environment).stdout
        reasons = [finding["reason"] for finding in json.loads(told)[0]["findings"]]
        assert any(f"naming: {plate.naming} would make {plate.images} images" in reason for reason in reasons)
    if "not yet" in example.code:
        refused = command("build screen/recipe.yaml --out refused", folder, environment)
        assert refused.returncode == 1
        assert plate.wells[-1] in refused.stderr and "max_unlabelled" in refused.stderr
        assert not (folder / "refused").exists()


def command(words: str, folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """What ``chammi75`` answers."""
    return subprocess.run(
        ["chammi75", *words.split()], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def check_result(plate: Plate, names: dict[str, object]) -> None:
    """What has come out is what the folder holds."""
    import datasets

    from chammi75 import Subset, load_dataset

    whole = load_dataset("screen-store")
    assert len(whole) == plate.images
    assert {sample["experiment"]["well"] for sample in whole} == set(plate.wells)
    assert {len(sample["image"].channels) for sample in whole} == set(plate.channels)
    assert Path("screen.html").read_text(encoding="utf-8").count("<img") >= plate.images / 2
    controls = load_dataset("screen-store", where="experiment.control = 'negative'")
    assert 0 < len(controls) < plate.images
    chosen = names["chosen"]
    assert isinstance(chosen, Subset)
    assert chosen.licenses[0]["license"] == "BSD-3-Clause"
    assert sorted(load_dataset("chosen-store")["image_id"]) == list(chosen.images)
    table = datasets.load_dataset("chosen-parquet", split="train")
    assert sorted(table["image_id"]) == list(chosen.images)
