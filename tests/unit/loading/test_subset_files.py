"""Recipe files: what they must say, the shipped ones, and pairs of equal size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from loading_stores import Known

from chammi75 import load_dataset
from chammi75.declarations import declarations_folder
from chammi75.errors import FilterError, RecipeError
from chammi75.loading.subsets import Subset
from chammi75.loading.subsets.recipe_file import parse_recipe, read_recipe, recipe_text, shipped_recipes
from chammi75.schemas.subset import SubsetPart, SubsetRecipe

PAIRS = [
    ("heterogeneous", "specialised"),
    ("multi-modality", "fluorescence-only"),
    ("varied-magnification", "fixed-magnification"),
    ("varied-cell-lines", "single-cell-line"),
    ("varied-channel-count", "fixed-channel-count"),
]


def test_the_pairs_are_all_that_is_shipped() -> None:
    assert sorted(shipped_recipes()) == sorted(name for pair in PAIRS for name in pair)


@pytest.mark.parametrize("name", [name for pair in PAIRS for name in pair])
def test_a_shipped_recipe_fits_the_schema_that_its_first_line_names(name: str) -> None:
    import jsonschema

    text = shipped_recipes()[name].read_text(encoding="utf-8")
    first, _, rest = text.partition("\n")
    assert first == "# yaml-language-server: $schema=../../schemas/subset-recipe.schema.json"
    jsonschema.validate(yaml.safe_load(rest), SubsetRecipe.model_json_schema())
    recipe, _ = read_recipe(name)
    assert recipe.name == name
    assert "exact lists are not public" in (recipe.description or "")
    assert recipe.images_sha256 is None


@pytest.mark.parametrize(("treatment", "control"), PAIRS, ids=lambda name: name)
def test_treatment_and_control_have_equal_numbers_and_differ(store: Known, treatment: str, control: str) -> None:
    both = {name: Subset.load(name, store.url) for name in (treatment, control)}
    assert len(both[treatment]) == len(both[control]) > 0
    assert both[treatment].images != both[control].images
    streamed = load_dataset(store.url, subset=control, streaming=True).select_columns("image_id")
    assert sorted(sample["image_id"] for sample in streamed) == list(both[control].images)


@pytest.mark.parametrize(
    ("control", "field"),
    [
        ("specialised", "experiment.study"),
        ("fixed-magnification", "microscopy.magnification"),
        ("single-cell-line", "biology.cell_line"),
        ("fixed-channel-count", "geometry.channels"),
    ],
)
def test_a_control_holds_its_factor_fixed(store: Known, control: str, field: str) -> None:
    (row,) = Subset.load(control, store.url).count_by(field)
    assert row[field] is not None


def test_fluorescence_only_has_no_other_light(store: Known) -> None:
    found = Subset.load("fluorescence-only", store.url).count_by(["microscopy.type", "imaging.channel_type"])
    assert {row["microscopy.type"] for row in found} == {"fluorescence"}
    assert not any("bright-field" in json.loads(row["imaging.channel_type"]) for row in found)


def test_where_a_store_lacks_what_a_shipped_recipe_needs_it_says_so(published: Known) -> None:
    with pytest.raises(FilterError, match=r"biology\.cell_line is unknown for every image"):
        load_dataset(published.url, subset="single-cell-line")


def test_files_beside_one_another_are_matched(store: Known, tmp_path: Path) -> None:
    (tmp_path / "few.yaml").write_text("filters: {study: plate1}\nwhere: experiment.well < 'A04'\n")
    (tmp_path / "many.yaml").write_text("group_by: experiment.study\nbalance: equal\nmatched_with: few.yaml\n")
    many = Subset.load(tmp_path / "many.yaml", store.url)
    assert [row["images"] for row in many.count_by("experiment.study")] == [2, 1, 1]
    saved = many.save(tmp_path / "elsewhere" / "saved.yaml")  # where there is no few.yaml
    assert Subset.load(saved, store.url).images == many.images
    (tmp_path / "few.yaml").write_text("filters: {study: plate7}\n")
    with pytest.raises(FilterError, match=r"matched with few\.yaml: study='plate7'"):
        Subset.load(tmp_path / "many.yaml", store.url)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("per_grup: 3", ["x.yaml:1", "'per_grup'", "'per_group'"]),
        ("where: a\nseed: 1\nwhere: b", ["x.yaml:3", "'where'", "twice"]),
        ("where: [", ["x.yaml"]),
        ("- a\n- b", ["x.yaml", "mapping"]),
        ("", ["x.yaml", "mapping"]),
        ("per_group: 3", ["x.yaml", "per_group is about groups", "group_by"]),
        ("images_sha256: abc", ["x.yaml", "images_sha256"]),
        ("group_by: experiment.study\nbalance: lgo", ["x.yaml", "balance", "log"]),
    ],
)
def test_a_recipe_that_does_not_read_says_where_and_why(text: str, words: list[str]) -> None:
    with pytest.raises(RecipeError) as error:
        parse_recipe(text.encode(), "x.yaml")
    for word in words:
        assert word in str(error.value)


def test_a_recipe_that_is_not_there_or_names_no_filter_is_an_error(store: Known, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="there is no subset 'flourescence-only': nearest are fluorescence-only"):
        load_dataset(store.url, subset="flourescence-only")
    with pytest.raises(RecipeError, match=r"none\.yaml: the subset recipe cannot be read"):
        load_dataset(store.url, subset=str(tmp_path / "none.yaml"))
    (tmp_path / "odd.yaml").write_text("filters: {organsim: Homo sapiens}\n")
    with pytest.raises(RecipeError, match="no keyword filter 'organsim'; did you mean 'organism'"):
        load_dataset(store.url, subset=tmp_path / "odd.yaml")


def test_a_recipe_reads_as_it_was_written() -> None:
    values: dict[str, Any] = {
        "name": "all",
        "split": None,
        "filters": {"magnification": {"min": 20}, "channel_type": ["nucleus", "er"]},
        "where": "experiment.plate = 'it''s: #1'",
        "group_by": ["experiment.study", "experiment.plate"],
        "total": 10,
        "balance": "sqrt",
        "parts": [SubsetPart(name="a", fractions={"a": 0.5, "b": 0.5}, by="experiment.well")],
        "images": 3,
        "images_sha256": "0" * 64,
    }
    recipe = SubsetRecipe(**values)
    text = recipe_text(recipe, ("a line\nwhere: true", "µ"))
    assert parse_recipe(text.encode(), "x.yaml") == recipe
    assert text.startswith("# a line\\nwhere: true\n# µ\nname: all\n")  # a comment stays in its line
    assert recipe_text(SubsetRecipe(seed=4)) == "seed: 4\n"


def test_the_recipes_travel_with_the_package() -> None:
    assert (declarations_folder("training") / "ablations").is_dir()


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("filters: {organsm: Homo sapiens}", RecipeError, "'organism'"),
        ("filters: {organism: 5}", FilterError, "organism takes a word"),
        ("where: quality.fokus > 3", FilterError, "quality.focus"),
        ("where: 'geometry.width >'", FilterError, "syntax error"),
        ("group_by: experiment.studdy\nper_group: 3", FilterError, "experiment.study"),
    ],
)
def test_a_recipe_that_asks_for_what_is_not_there_is_named(
    store: Known, tmp_path: Path, text: str, kind: type[Exception], words: str
) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(kind, match=r"mine\.yaml: .*" + words):
        Subset.load(tmp_path / "mine.yaml", store.url)


def test_line_ends_and_marks_of_windows_are_no_matter(store: Known, tmp_path: Path) -> None:
    subset = Subset.build(store.url, group_by="experiment.study", per_group=2, description="zwei\nZeilen, µm")
    saved = Path(subset.save(tmp_path / "a.yaml"))
    saved.write_bytes(b"\xef\xbb\xbf" + saved.read_bytes().replace(b"\n", b"\r\n"))
    again = Subset.load(saved, store.url)
    assert again.images == subset.images and again.recipe.description == "zwei\nZeilen, µm"
