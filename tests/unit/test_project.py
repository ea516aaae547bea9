"""The project as a whole: what it declares, ships and promises in writing."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
import yaml

import chammi75
from chammi75.declarations import declarations_folder

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ROOT / "chammi75"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
TEXTS = (".py", ".md", ".yaml", ".yml", ".toml", ".json", ".cff")
CARDS = sorted(path for path in (ROOT / "catalog").rglob("*.yaml"))


def tree() -> list[Path]:
    """The project's files, without what tools leave behind."""
    skipped = {"site", "build", "dist", "chammi75-quickstart", "__pycache__"}
    found = []
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in skipped]
        folders[:] = [name for name in folders if not name.endswith(".egg-info") and name != "venv"]
        found += [Path(folder) / name for name in files]
    return [*found, ROOT / ".ci" / "run", *(ROOT / ".github").rglob("*.yml"), ROOT / ".pre-commit-config.yaml"]


def reference() -> ModuleType:
    """The script ``docs/write_reference.py``."""
    spec = importlib.util.spec_from_file_location("write_reference", ROOT / "docs" / "write_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("card", CARDS, ids=lambda path: path.stem)
def test_every_card_fits_the_schema_that_it_names(card: Path) -> None:
    import jsonschema

    first = card.read_text(encoding="utf-8").splitlines()[0]
    named = re.fullmatch(r"# yaml-language-server: \$schema=(\S+)", first)
    assert named is not None, "the first line names the schema, for editors"
    schema = json.loads((card.parent / named[1]).read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(yaml.safe_load(card.read_text(encoding="utf-8")), schema)


def test_a_card_with_a_word_too_many_does_not_fit() -> None:
    import jsonschema

    schema = json.loads((ROOT / "schemas" / "vocabulary.schema.json").read_text(encoding="utf-8"))
    card = {"field": "imaging.channel_type", "title": "x", "terms": [{"name": "er", "colour": "green"}]}
    with pytest.raises(jsonschema.ValidationError, match="colour"):
        jsonschema.validate(card, schema)


def test_the_recipes_of_mini_fit_the_published_schema() -> None:
    import jsonschema

    from chammi75.mini.studies import brightfield

    schema = json.loads((ROOT / "schemas" / "build-recipe.schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(brightfield.recipe(), schema)


def test_the_json_schemas_are_current() -> None:
    from chammi75.schemas.json_schema import stale_schemas

    assert stale_schemas(ROOT / "schemas") == []


def test_the_made_parts_of_the_documentation_are_current() -> None:
    assert reference().stale_pages() == [], "run python docs/write_reference.py"


def test_the_documentation_has_every_page_in_its_navigation() -> None:
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").split("\nnav:\n")[1]
    named = set(re.findall(r"[\w-]+\.md", nav))
    assert named == {path.name for path in (ROOT / "docs").glob("*.md")}


def test_the_page_on_loading_names_every_filter() -> None:
    from dataclasses import fields

    from chammi75.loading.filters import Filters

    page = (ROOT / "docs" / "load.md").read_text(encoding="utf-8")
    for field in fields(Filters):
        assert f"| `{field.name}` |" in page


def test_the_page_on_images_explains_every_finding_and_every_placeholder() -> None:
    from chammi75.build.planned import Finding
    from chammi75.readers.grouping import FilePattern

    page = (ROOT / "docs" / "your-images.md").read_text(encoding="utf-8")
    for kind in re.findall(r"``(\w+)``", (Finding.__doc__ or "").split("``kind`` is one of")[1]):
        assert f"| `{kind}` |" in page
    placeholders = re.split(r"Placeholders: ", FilePattern.parse.__doc__ or "")[1].split(" (any")[0]
    for name in placeholders.split(", "):
        assert f"{{{name}}}" in page


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", *(f"docs/{p.name}" for p in ROOT.glob("docs/*.md"))])
def test_links_and_pictures_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        if not target.startswith("https://"):
            assert ((ROOT / page).parent / target).exists(), target


def test_the_readme_opens_with_a_picture_and_the_two_commands() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)[:2]
    assert commands == ["pip install . && chammi75 quickstart\n", 'pip install ".[test]" && pytest\n']
    assert text.splitlines()[2].startswith("![")
    assert text.index("![") < text.index(commands[0]) < text.index(commands[1])


def test_pictures_of_the_documentation_are_small() -> None:
    pictures = list((ROOT / "docs" / "images").glob("*.png"))
    assert pictures
    assert all(path.stat().st_size < 400_000 for path in pictures)


def test_one_version_is_stated_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert str(citation["version"]) == chammi75.__version__
    assert PROJECT["project"]["license"] == citation["license"] == "Apache-2.0"
    assert any("2512.20833" in identifier["value"] for identifier in citation["references"][0]["identifiers"])
    assert "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_extras_of_the_plan_are_there() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    for name in ("train", "benchmarks", "curate", "formats", "ray", "explore", "docs", "test", "dev"):
        assert extras[name]


def test_no_requirement_has_an_upper_pin() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    for requirement in [*PROJECT["project"]["dependencies"], *(r for extra in extras.values() for r in extra)]:
        assert not re.search(r"[<~]|==", requirement), requirement


def test_every_room_has_its_place_in_the_import_contract() -> None:
    (contract,) = PROJECT["tool"]["importlinter"]["contracts"]
    named = {layer.strip("()").removeprefix("chammi75.") for layer in contract["layers"]}
    there = {path.parent.name for path in ROOMS.glob("*/__init__.py")} | {path.stem for path in ROOMS.glob("*.py")}
    assert there - {"__init__"} <= named


@pytest.mark.parametrize("name", ["catalog", "schemas", "training"])
def test_the_installation_has_its_declarations(name: str) -> None:
    inside = declarations_folder(name)
    expected = {path.relative_to(ROOT / name) for path in (ROOT / name).rglob("*") if path.is_file()}
    there = {path.relative_to(inside) for path in inside.rglob("*") if path.is_file()}
    assert {path for path in there if path.suffix != ".pyc"} == {path for path in expected if path.suffix != ".pyc"}


def test_the_installation_says_that_it_is_typed() -> None:
    assert (Path(chammi75.__file__).parent / "py.typed").is_file()


def test_import_costs_nothing_heavy() -> None:
    code = (
        "import sys, chammi75; dir(chammi75)\n"
        "heavy = {'datasets', 'pandas', 'pyarrow', 'torch', 'numba', 'duckdb', 'numpy', 'pydantic', 'fsspec'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_public_face_is_what_it_says() -> None:
    for name in chammi75.__all__:
        assert getattr(chammi75, name) is not None
    with pytest.raises(AttributeError, match="load_dataset"):
        chammi75.load_datasets  # noqa: B018


def test_no_file_has_a_name_that_says_nothing() -> None:
    empty = {"utils.py", "util.py", "helpers.py", "common.py", "misc.py"}
    assert not [path for path in tree() if path.name in empty]


def test_no_file_names_a_machine_or_carries_a_reminder() -> None:
    machine = re.compile(r"(?<![\w.~])/(?:work|home|root|Users|opt|mnt)/")
    reminder = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")
    for path in tree():
        if path.suffix not in TEXTS and path.name != "run":
            continue
        text = path.read_text(encoding="utf-8")
        assert not reminder.search(text), path
        if path != Path(__file__):
            assert not machine.search(text), path


def test_nothing_is_swallowed() -> None:
    """No bare except, and no broad one that passes."""
    for path in ROOMS.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ExceptHandler):
                assert node.type is not None, f"{path}:{node.lineno}"
                broad = ast.unparse(node.type) in ("Exception", "BaseException")
                assert not (broad and all(isinstance(line, ast.Pass) for line in node.body)), f"{path}:{node.lineno}"


def test_pickle_is_nowhere() -> None:
    for path in ROOMS.rglob("*.py"):
        names = [
            alias.name
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        ]
        assert not {"pickle", "dill", "cloudpickle", "joblib"} & set(names), path


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no executable bit")
def test_the_checks_can_be_started() -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_the_workflow_runs_on_every_system() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "checks.yml").read_text(encoding="utf-8"))
    matrix = workflow["jobs"]["tests"]["strategy"]["matrix"]
    assert {name.split("-")[0] for name in matrix["os"]} == {"ubuntu", "macos", "windows"}
    assert PROJECT["project"]["requires-python"] == f">={matrix['python'][0]}"
