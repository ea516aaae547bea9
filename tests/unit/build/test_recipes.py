"""Recipe files: what is read, and what an error says."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from chammi75.build.recipes import load_recipe, parse_recipe, source_id
from chammi75.errors import RecipeError

RECIPE = b"""\
source: fly0001
pattern: '{plate}_POS{fov}_{channel}'
channels:
  - {name: D, channel_type: nucleus}
  - {name: R, panel: Actin}
record:
  experiment.plate: "01"
  biology:
    organism: Drosophila melanogaster
  microscopy.magnification: 20
tables:
  - path: plates.csv
    match: {experiment.plate: Plate}
    columns: {biology.cell_line: Line}
"""


def problem(content: str) -> str:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(content.encode(), "r.yaml")
    message = str(caught.value)
    assert message.startswith("r.yaml")
    assert "\n" not in message
    return message


def test_a_recipe_file_is_read_with_its_folder_and_its_hash(tmp_path: Path) -> None:
    (tmp_path / "fly.yaml").write_bytes(RECIPE)
    recipe, folder, sha256 = load_recipe(tmp_path / "fly.yaml")
    assert recipe.source == "fly0001"
    assert [rule.name for rule in recipe.channels or ()] == ["D", "R"]
    assert recipe.record["experiment.plate"] == "01"
    assert recipe.record["biology.organism"] == "Drosophila melanogaster"
    assert folder == tmp_path
    assert sha256 == hashlib.sha256(RECIPE).hexdigest()


def test_a_missing_recipe_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"none\.yaml: the recipe cannot be read"):
        load_recipe(tmp_path / "none.yaml")


def test_a_misspelt_key_is_named_with_its_line_and_the_nearest_key() -> None:
    assert "line 2: 'patern' is no key of a recipe; did you mean 'pattern'?" in problem("source: a\npatern: x\n")


def test_a_misspelt_key_of_a_channel_names_the_nearest_channel_key() -> None:
    message = problem("source: a\nchannels:\n  - name: D\n    chanel_type: nucleus\n")
    assert "line 4: 'chanel_type' is no key of an entry of channels; did you mean 'channel_type'?" in message


def test_a_misspelt_record_field_is_named_with_its_line_and_the_nearest_field() -> None:
    message = problem("source: a\nrecord:\n  biology.organism: x\n  biology.cel_line: y\n")
    assert "line 4" in message
    assert "did you mean biology.cell_line?" in message


def test_a_key_stated_twice_is_an_error_with_both_lines() -> None:
    message = problem("source: a\ntitle: b\nsource: c\n")
    assert "line 3" in message
    assert "'source' is there twice, first in line 1" in message


def test_a_key_stated_twice_deep_inside_is_an_error() -> None:
    assert "'name' is there twice" in problem("source: a\nchannels:\n  - name: D\n    name: E\n")


@pytest.mark.parametrize(
    ("content", "key", "word"),
    [
        ("source: a\nrecord:\n  experiment.plate: 01\n", "experiment.plate", "01"),
        ("source: a\nrecord:\n  experiment:\n    plate: 0x1F\n", "experiment.plate", "0x1F"),
        ("source: a\nrecord:\n  experiment.control: no\n", "experiment.control", "no"),
        ("source: a\nchannels:\n  - channel_type: er\n    name: 1\n", "channels.0.name", "1"),
        ("title: x\nsource: 2023\n", "source", "2023"),
    ],
)
def test_a_number_where_text_stands_says_to_quote_what_the_file_has(content: str, key: str, word: str) -> None:
    message = problem(content)
    assert key in message
    assert f'quote it, "{word}"' in message
    assert "line 3" in message or "line 4" in message or "line 2" in message


def test_what_is_missing_is_named() -> None:
    assert "path is missing: The file" in problem("tables: [{match: {a: b}, columns: {c: d}}]")


def test_an_id_with_a_slash_says_what_an_id_may_be() -> None:
    message = problem("source: a/b\n")
    assert "line 1" in message
    assert "must match" in message


def test_a_word_that_is_no_choice_names_the_choices() -> None:
    message = problem("source: a\nmissing_channel: drop\n")
    assert "'keep' or 'skip'" in message
    assert "'drop'" in message


def test_a_negative_magnification_is_refused_with_its_line() -> None:
    message = problem("source: a\nrecord:\n  microscopy.magnification: -20\n")
    assert "line 3" in message
    assert "greater than 0" in message


def test_two_channels_of_one_name_are_refused() -> None:
    assert "these repeat: ['D']" in problem("source: a\nchannels: [{name: D}, {name: D}]\n")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("pattern: '{plate}_{wel}'", "{wel} is no placeholder"),
        ("exclude: ['[z-a]']", "the glob '[z-a]' cannot be read"),
        ("guidance: '{nope}.safetensors'", "guidance: {nope}"),
    ],
)
def test_patterns_globs_and_templates_are_read_with_the_recipe(line: str, reason: str) -> None:
    message = problem(f"source: a\n{line}\n")
    assert message.startswith("r.yaml, line 2: ")
    assert reason in message


def test_the_first_problem_of_the_file_is_told_and_the_others_are_counted() -> None:
    message = problem("source: a\nfoo: 1\nbar: 2\n")
    assert "line 2: 'foo'" in message
    assert message.endswith("(and 1 more)")


@pytest.mark.parametrize(
    "content", ["- a\n", "a", "source: [a\n", "\t source: a", "source: !!python/object:os.system {}\n"]
)
def test_what_is_no_recipe_at_all_is_an_error(content: str) -> None:
    problem(content)


def test_bytes_that_are_no_text_are_an_error() -> None:
    with pytest.raises(RecipeError, match="not YAML text"):
        parse_recipe(b"source: \xff\xfe\x00", "r.yaml")


def test_nesting_without_end_is_an_error() -> None:
    problem("source: a\nrecord: " + "[" * 2000)


@pytest.mark.parametrize(
    ("folder", "source"),
    [
        ("/data/idr0001", "idr0001"),
        ("s3://bucket/Plate 1 (März)/", "Plate-1-Marz"),
        ("C:\\data\\my plate", "my-plate"),
        ("/data/---", "images"),
        ("/data/" + "x" * 100, "x" * 64),
    ],
)
def test_a_folder_without_recipe_gives_its_name_to_the_source(folder: str, source: str) -> None:
    assert source_id(folder) == source


def test_the_current_folder_gives_its_real_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plate7").mkdir()
    monkeypatch.chdir(tmp_path / "plate7")
    assert source_id(".") == "plate7"


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        ("[nucleus, er]", [(None, "nucleus", None), (None, "er", None)]),
        ("{w1: nucleus, w2: {panel: ConA}, w3: }", [("w1", "nucleus", None), ("w2", None, "ConA"), ("w3", None, None)]),
        ("[{name: D, channel_type: nucleus}, er]", [("D", "nucleus", None), (None, "er", None)]),
    ],
)
def test_channels_may_be_written_short(text: str, rules: list[tuple[str | None, ...]]) -> None:
    recipe = parse_recipe(f"channels: {text}".encode(), "r.yaml")
    assert [(rule.name, rule.channel_type, rule.panel) for rule in recipe.channels or ()] == rules


def test_a_recipe_without_a_source_takes_the_folders_name(tmp_path: Path) -> None:
    from chammi75.build.plan import plan_folder

    folder = tmp_path / "Plate 7"
    folder.mkdir()
    assert plan_folder(str(folder), parse_recipe(b"title: x", "r.yaml")).source == "Plate-7"
