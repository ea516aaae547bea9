"""``chammi75 subset``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from loading_stores import Known
from typer.testing import CliRunner

from chammi75.commands.subset import register
from chammi75.errors import FilterError, RecipeError, StoreError
from chammi75.loading.subsets import Subset

app = typer.Typer(rich_markup_mode=None)
register(app)


@app.callback()
def _several() -> None:
    """With one command alone typer would take its name for an argument."""


def printed(*arguments: str, status: int = 0) -> str:
    done = CliRunner().invoke(app, ["subset", *arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == status, done.output
    return done.output


def test_it_writes_what_build_would(store: Known, tmp_path: Path) -> None:
    out = str(tmp_path / "mine.yaml")
    options = ["--channel-type", "nucleus", "--channel-type", "er", "--magnification", "20:63", "--per-group", "3"]
    text = printed(store.url, *options, "--group-by", "experiment.study", "--out", out)
    subset = Subset.build(
        store.url, channel_type=["nucleus", "er"], magnification=(20, 63), group_by="experiment.study", per_group=3
    )
    assert Subset.load(out, store.url).images == subset.images
    assert Subset.load(out, store.url).name == "mine"
    for words in ("6 images", "plate1", "plate2", "CC-BY-4.0", "CC0-1.0", subset.images_sha256[:16]):
        assert words in text


def test_json_has_groups_and_licences(store: Known, tmp_path: Path) -> None:
    (row,) = json.loads(printed(store.url, "--where", "quality.focus < 1.5", "--out", f"{tmp_path}/a.yaml", "--json"))
    assert row["images"] == 15
    assert row["groups"] == [
        {"experiment.study": "plate1", "images": 10},
        {"experiment.study": "plate2", "images": 5},
    ]
    assert row["licenses"][0] == {"license": "CC-BY-4.0", "images": 10, "sources": ["plate1"]}


def test_a_split_writes_a_file_for_each_part(store: Known, tmp_path: Path) -> None:
    split = ["--split", "train=0.7,test=0.3", "--by", "experiment.plate", "--seed", "2"]
    printed(store.url, *split, "--out", f"{tmp_path}/mine.yaml")
    parts = [Subset.load(tmp_path / f"mine-{name}.yaml", store.url) for name in ("train", "test")]
    assert sum(map(len, parts)) == 30
    assert parts[0].leaks(parts[1], by="experiment.plate") == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine-test.yaml", "mine-train.yaml"]


def test_a_shipped_recipe_is_run_and_pinned(store: Known, tmp_path: Path) -> None:
    printed(store.url, "--recipe", "single-cell-line", "--name", "pinned", "--out", f"{tmp_path}/one.yaml")
    pinned = Subset.load(tmp_path / "one.yaml", store.url)
    assert pinned.images == Subset.load("single-cell-line", store.url).images
    assert pinned.name == "pinned"


def test_the_file_is_replaced_only_if_told_to(store: Known, tmp_path: Path) -> None:
    out = ["--out", f"{tmp_path}/a.yaml"]
    printed(store.url, "--total", "3", *out)
    with pytest.raises(StoreError, match="says something else"):
        printed(store.url, "--total", "4", *out)
    printed(store.url, "--total", "4", *out, "--overwrite")
    assert len(Subset.load(tmp_path / "a.yaml", store.url)) == 4


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--split", "train=0.5,test=0.5"], "--by"),
        (["--by", "experiment.plate"], "--split"),
        (["--stratify", "biology.organism"], "--split"),
        (["--split", "train:0.5", "--by", "experiment.plate"], "train=0.8,test=0.2"),
        (["--magnification", "20x"], "20:63"),
        (["--recipe", "specialised", "--total", "3"], "leave the other options out"),
        (["--total", "0"], "--total"),
    ],
)
def test_wrong_usage_is_told_with_status_2(store: Known, tmp_path: Path, options: list[str], words: str) -> None:
    assert words in printed(store.url, *options, "--out", f"{tmp_path}/a.yaml", status=2)
    assert not list(tmp_path.iterdir())


def test_what_is_not_there_is_named_and_nothing_written(store: Known, tmp_path: Path) -> None:
    with pytest.raises(FilterError, match="'plate1'"):
        printed(store.url, "--study", "plate9", "--out", f"{tmp_path}/a.yaml")
    with pytest.raises(RecipeError, match="balance"):
        printed(store.url, "--group-by", "experiment.study", "--balance", "even", "--out", f"{tmp_path}/a.yaml")
    with pytest.raises(RecipeError, match="ends with"):
        printed(store.url, "--out", f"{tmp_path}/a.json")
    assert not list(tmp_path.iterdir())
