from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from loading_stores import Known
from typer.testing import CliRunner

from chammi75 import load_dataset
from chammi75.commands.export import register
from chammi75.errors import ChammiError


@pytest.fixture
def app() -> typer.Typer:
    made = typer.Typer()
    register(made)

    @made.callback()
    def main() -> None:
        """Has one command."""

    return made


def test_filters_choose_what_is_exported(app: typer.Typer, store: Known, tmp_path: Path) -> None:
    words = ["export", store.url, "--to", "published", "--out", str(tmp_path / "out"), "--study", "plate1"]
    words += ["--study", "plate2", "--channel-type", "er", "--license", "CC0-1.0", "--where", "quality.focus > 1"]
    done = CliRunner().invoke(app, [*words, "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    expected = load_dataset(store.url, study=["plate1", "plate2"], license="CC0-1.0", where="quality.focus > 1")
    assert report["images"] == len(expected)
    assert report["format"] == "published"
    assert [origin["license"] for origin in report["origins"]] == ["CC0-1.0"]


def test_people_are_told_what_was_written_and_what_lacks_a_licence(
    app: typer.Typer, published: Known, tmp_path: Path
) -> None:
    done = CliRunner().invoke(app, ["export", published.url, "--to", "webdataset", "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert "12 images, 24 planes as webdataset; 1 file" in done.output
    assert "12 images without a stated licence" in done.output


def test_a_subset_is_exported(app: typer.Typer, store: Known, tmp_path: Path) -> None:
    from chammi75.loading.subsets import Subset

    subset = Subset.build(store.url, where="quality.focus > 2")
    subset.save(tmp_path / "sharp.yaml")
    words = ["export", store.url, "--to", "parquet", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, [*words, "--subset", str(tmp_path / "sharp.yaml"), "--json"], catch_exceptions=False)
    assert json.loads(done.stdout)["images"] == len(subset) == 9


def test_an_unknown_format_names_the_known(app: typer.Typer, store: Known, tmp_path: Path) -> None:
    words = ["export", store.url, "--to", "tfrecord", "--out", str(tmp_path / "out")]
    with pytest.raises(ChammiError, match="published, parquet, webdataset, croissant, ome-zarr"):
        CliRunner().invoke(app, words, catch_exceptions=False)


def test_a_zarr_version_goes_with_ome_zarr(app: typer.Typer, store: Known, tmp_path: Path) -> None:
    words = ["export", store.url, "--to", "parquet", "--out", str(tmp_path / "out"), "--zarr-version", "0.4"]
    assert CliRunner().invoke(app, words).exit_code == 2
    words[3] = "ome-zarr"
    assert CliRunner().invoke(app, [*words, "--study", "plate3"], catch_exceptions=False).exit_code == 0
    assert list((tmp_path / "out").glob("plate3/*/.zattrs"))


def test_images_that_cannot_be_read_make_the_command_fail(
    app: typer.Typer, damaged: tuple[str, str], tmp_path: Path
) -> None:
    words = ["export", damaged[0], "--to", "webdataset", "--out", str(tmp_path / "out")]
    with pytest.raises(ChammiError, match=r"1 image could not be read and is not in .*export\.json names it"):
        CliRunner().invoke(app, words, catch_exceptions=False)
    assert (tmp_path / "out" / "export.json").exists()
