"""Training recipes: shipped, read, changed by KEY=VALUE, refused in plain words, and written."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from chammi75.declarations import declarations_folder
from chammi75.errors import RecipeError, StoreError
from chammi75.schemas.training import TrainingRecipe
from chammi75.training import recipes
from chammi75.training.recipes import load_recipe, recipe_names, recipe_path, recipe_sha256, save_recipe

MINIMAL = "title: One\nstore: mini\nout: runs/one\nmethod: dino\n"


@pytest.fixture
def minimal(tmp_path: Path) -> Path:
    path = tmp_path / "one.yaml"
    path.write_text(MINIMAL)
    return path


def _stated(name: str) -> dict[str, object]:
    stated = yaml.safe_load(recipe_path(name).read_text(encoding="utf-8"))
    assert isinstance(stated, dict)
    return stated


def test_the_recipes_of_the_paper_its_rivals_and_a_laptop_are_shipped() -> None:
    assert {
        "morphem",
        "morphem-vitb",
        "morphem-vitl",
        "dino-mca",
        "mae-boc",
        "mae-mca",
        "simclr-boc",
        "laptop",
    } <= set(recipe_names())


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_is_valid_and_names_its_schema(name: str) -> None:
    load_recipe(name)
    schema = TrainingRecipe.model_json_schema()
    jsonschema.Draft202012Validator(schema).validate(_stated(name))
    first = recipe_path(name).read_text(encoding="utf-8").partition("\n")[0]
    assert first == "# yaml-language-server: $schema=../../schemas/training-recipe.schema.json"


def test_the_json_schema_refuses_what_the_model_refuses() -> None:
    validator = jsonschema.Draft202012Validator(TrainingRecipe.model_json_schema())
    for wrong in ({"max_step": 3}, {"epochs": 0}, {"method": "mea"}, {"backbone": {"nam": "tiny"}}):
        assert not validator.is_valid({**_stated("laptop"), **wrong})


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_states_store_out_and_max_steps(name: str) -> None:
    assert {"store", "out", "max_steps"} <= _stated(name).keys()


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_says_where_its_values_are_from(name: str) -> None:
    text = recipe_path(name).read_text(encoding="utf-8")
    assert text.count("#") >= 6
    assert load_recipe(name).out == f"runs/{name}"


def test_morphem_is_what_was_published() -> None:
    recipe = load_recipe("morphem")
    assert (recipe.method, recipe.strategy, recipe.epochs, recipe.batch_size) == ("dino", "boc", 100, 256)
    assert (recipe.backbone.name, recipe.backbone.patch_size, recipe.backbone.drop_path) == ("vit_small", 16, 0.1)
    views = recipe.views
    assert (views.global_views.count, views.global_views.size, views.global_views.scale) == (2, 224, (0.4, 1.0))
    assert (views.local_views.count, views.local_views.size, views.local_views.scale) == (8, 96, (0.05, 0.4))
    assert views.saturation_noise == (200 / 255, 1.0) and views.normalise == "plane"
    assert (views.horizontal_flip, views.vertical_flip, views.blur, views.right_angle_turns) == (0.5, 0.5, 0, False)
    dino = recipe.dino
    assert (dino.out_dim, dino.freeze_last_layer_epochs, dino.centre_momentum) == (65536, 1, 0.9)
    assert (dino.student_temperature, dino.teacher_temperature, dino.teacher_momentum) == (0.1, 0.04, 0.996)
    optimizer = recipe.optimizer
    assert (optimizer.warmup_epochs, optimizer.min_learning_rate, optimizer.clip) == (10, 1e-6, 3.0)
    assert (optimizer.weight_decay, optimizer.weight_decay_end) == (0.04, 0.4)
    assert optimizer.learning_rate == 5e-5
    assert recipe.devices.precision == "16-mixed"


@pytest.mark.parametrize("name", ["morphem-vitb", "morphem-vitl"])
def test_the_scalings_differ_from_morphem_in_the_backbone_and_in_what_fits_a_gpu(name: str) -> None:
    published, scaled = load_recipe("morphem"), load_recipe(name)
    assert scaled.batch_size * scaled.accumulate == published.batch_size
    for section in ("data", "views", "dino", "optimizer", "epochs", "method", "strategy"):
        assert getattr(scaled, section) == getattr(published, section)
    assert scaled.backbone.name != published.backbone.name


def test_a_shipped_recipe_is_found_by_name_and_by_its_path_in_the_project_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ours = declarations_folder("training") / "pretrain" / "laptop.yaml"
    for named in (
        "laptop",
        "training/pretrain/laptop.yaml",
        "pretrain/laptop.yaml",
        Path("training/pretrain/laptop.yaml"),
    ):
        assert recipe_path(named) == ours
    for named in ("laptop.yaml", "elsewhere/laptop.yaml", Path("laptop"), "training/ablations/laptop.yaml"):
        with pytest.raises(RecipeError, match="laptop"):
            recipe_path(named)


def test_a_file_of_the_users_goes_before_the_shipped_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "training" / "pretrain" / "laptop.yaml"
    own.parent.mkdir(parents=True)
    own.write_text(MINIMAL)
    assert load_recipe("training/pretrain/laptop.yaml").title == "One"
    assert load_recipe("laptop").title == "Laptop"


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ("lapto", "no training recipe 'lapto': nearest are laptop; files end with .yaml"),
        ("mae", "mae-boc"),
        ("there/is/none.yaml", "there/is/none.yaml: there is no such file"),
    ],
)
def test_a_recipe_that_is_not_there_names_the_nearest(named: str, words: str) -> None:
    with pytest.raises(RecipeError, match=words.replace(".", r"\.")):
        load_recipe(named)


def test_changes_go_before_the_file_and_the_last_one_stands(minimal: Path) -> None:
    changes = [
        "max_steps=2",
        "backbone.name=vit_base",
        "backbone.name=tiny",
        'data.selection.organism="Homo sapiens"',
        "data.selection.magnification={min: 20}",
        "views.global_views={count: 2, size: 64, scale: [0.4, 1]}",
        "views.global_views.scale=[0.5, 1]",
        "optimizer.learning_rate=5e-4",
        "data.crop={mini0001: [64, 128]}",
        "log.wandb=",
        "title=a=b: c".replace(": ", " "),
    ]
    recipe = load_recipe(minimal, changes)
    assert (recipe.max_steps, recipe.backbone.name, recipe.title) == (2, "tiny", "a=b c")
    assert recipe.data.selection == {"organism": "Homo sapiens", "magnification": {"min": 20}}
    assert (recipe.views.global_views.size, recipe.views.global_views.scale) == (64, (0.5, 1.0))
    assert (recipe.optimizer.learning_rate, recipe.log.wandb) == (5e-4, None)
    assert recipe.data.crop == {"mini0001": [64, 128]}


def test_a_change_within_a_part_that_the_file_leaves_out_keeps_the_defaults_beside_it(minimal: Path) -> None:
    views = load_recipe(minimal, ["views.global_views.size=448", "views.blur=0.5"]).views
    assert (views.global_views.size, views.global_views.count, views.global_views.scale) == (448, 2, (0.4, 1.0))
    assert (views.blur, views.local_views.count) == (0.5, 8)


def test_a_change_can_state_what_the_file_lacks(tmp_path: Path) -> None:
    path = tmp_path / "partial.yaml"
    path.write_text("title: One\nmethod: dino\n")
    assert load_recipe(path, ["store=mini", "out=runs/one"]).store == "mini"
    with pytest.raises(RecipeError, match=r"partial\.yaml:1: store is missing: Stores: names"):
        load_recipe(path, ["out=runs/one"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("max_step=2", "max_step=2: there is no key 'max_step'; did you mean 'max_steps'?"),
        ("backbone.nam=tiny", "backbone.nam=tiny: there is no key 'backbone.nam'; did you mean 'backbone.name'?"),
        ("bakbone.name=tiny", "did you mean"),
        ("patch_size=8", "did you mean 'backbone.patch_size'?"),
        ("out_dim=9", "did you mean 'dino.out_dim' or 'simclr.out_dim'?"),
        ("learning_rat=1", "did you mean 'optimizer.learning_rate'?"),
        ("optimizer.lr=1", "there are optimizer.learning_rate,"),
        ("data.selektion.organism=x", "did you mean 'data.selection'?"),
        ("batch_size.x=2", "batch_size is one value and has no key 'x': write batch_size=…"),
        ("max_steps=two", "max_steps=two: max_steps: 'two' is not allowed: a whole number"),
        ("max_steps=2.5", "max_steps=2.5: max_steps: 2.5 is not allowed: a whole number"),
        ("optimizer.learning_rate=.inf", "optimizer.learning_rate: inf is not allowed"),
        ("views.intensity=.nan", "views.intensity: nan is not allowed"),
        ("data.crop=0", "data.crop: 0 is not allowed"),
        ("data.crop_other=-3", "data.crop_other: -3 is not allowed"),
        ("data.channels=[er, nucleus, er]", "er stands there twice"),
        ("data.channels=[]", "names none; null is all of them"),
        ("seed=9223372036854775808", "9223372036854775808 is not allowed: less than"),
        ("epochs=0", "epochs=0: epochs: 0 is not allowed: greater than or equal to 1"),
        ("method=mea", "'mea' is not allowed: 'dino' or 'mae' or 'simclr'; did you mean 'mae'?"),
        ("method=mae", "(with seed=3 method=mae)"),
        ("backbone.name=huge", "backbone.name: no backbone 'huge'; there are tiny, vit_tiny"),
        ("views.global_views.scale=[1, 0.2]", "views.global_views.scale: two numbers above 0, the smaller first"),
        ("views.global_views.scale=3", "3 is not allowed: a list [a number, a number]"),
        ("optimizer.betas=[0.9]", "optimizer.betas: [0.9] is not allowed: a list [a number, a number]"),
        ("devices.devices=two", "devices.devices: 'two' is not allowed: a whole number or 'auto'"),
        ("data.weighting=cube", "data.weighting: 'cube' is not allowed: 'none' or 'log' or 'sqrt' or a mapping"),
        ("title=2020", 'title: YAML reads 2020 as a number, text is needed: quote it, "2020"'),
        ("views={blurr: 1}", "'blurr' is no field of a view settings; did you mean 'blur'?"),
        ("out=null", "out: None is not allowed: text"),
        ("max_steps=[", "max_steps=[: the value is not YAML"),
        ("max_steps", "'max_steps' is no change of a recipe: write KEY=VALUE"),
        ("=2", "'=2' is no change of a recipe: write KEY=VALUE"),
    ],
)
def test_a_wrong_change_is_refused_and_says_what_is_meant_or_allowed(minimal: Path, change: str, words: str) -> None:
    with pytest.raises(RecipeError) as refused:
        load_recipe(minimal, ["seed=3", change])
    assert words in str(refused.value)
    assert change in str(refused.value)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("max_step: 2", "one.yaml:5: 'max_step' is no field of a training recipe; did you mean 'max_steps'?"),
        ("backbone:\n  nam: tiny", "one.yaml:6: 'nam' is no field of a backbone settings; did you mean 'name'?"),
        ("backbone:\n  patch_size: 16\n  name: huge", "one.yaml:7: backbone.name: no backbone 'huge'"),
        ("epochs: many", "one.yaml:5: epochs: 'many' is not allowed: a whole number"),
        ("title: Two", "one.yaml:5: the field 'title' is there twice, first in line 1: leave one"),
        ("views: {global_views: {count: 1, size: 224, scale: [0.4, 1]}}", "one.yaml:5: views.global_views.count: dino"),
        ("title: [", "one.yaml:"),
    ],
)
def test_a_wrong_file_is_refused_with_the_line(minimal: Path, line: str, words: str) -> None:
    minimal.write_text(MINIMAL + line + "\n")
    with pytest.raises(RecipeError) as refused:
        load_recipe(minimal)
    assert words in str(refused.value)


def test_a_recipe_that_cannot_be_read_or_is_huge_is_refused(tmp_path: Path) -> None:
    huge = tmp_path / "huge.yaml"
    huge.write_text(MINIMAL + "#" * 2**20)
    with pytest.raises(RecipeError, match="larger than 1048576 bytes"):
        load_recipe(huge)
    folder = tmp_path / "folder.yaml"
    folder.mkdir()
    with pytest.raises(RecipeError, match=r"folder\.yaml"):
        load_recipe(folder)


@pytest.mark.parametrize("name", recipe_names())
def test_a_saved_recipe_loads_back_equal_and_has_the_same_hash(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(
        name, ['data.selection={organism: "Homo sapiens", date: 2020-01-01, magnification: {min: 20}}']
    )
    path = save_recipe(recipe, tmp_path / "runs" / "recipe.yaml")
    again = load_recipe(path)
    assert again == recipe
    assert recipe_sha256(again) == recipe_sha256(recipe)
    assert recipe_sha256(again) != recipe_sha256(load_recipe(name))


_NUMBERS = st.floats(1e-12, 1e6)
_WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)


@settings(max_examples=60, deadline=None)
@given(
    title=_WORDS, rate=_NUMBERS, selection=st.dictionaries(_WORDS, _WORDS | st.integers() | _NUMBERS | st.booleans())
)
def test_whatever_words_and_numbers_a_recipe_has_it_is_written_and_read_back(
    title: str, rate: float, selection: dict[str, object]
) -> None:
    recipe = load_recipe("laptop")
    recipe = recipe.model_copy(
        update={
            "title": title,
            "optimizer": recipe.optimizer.model_copy(update={"learning_rate": rate}),
            "data": recipe.data.model_copy(update={"selection": selection}),
        }
    )
    read = TrainingRecipe.model_validate(yaml.safe_load(recipes.recipe_text(recipe)))
    assert read == recipe
    assert recipe_sha256(read) == recipe_sha256(recipe)


def test_a_saved_recipe_states_every_default(minimal: Path, tmp_path: Path) -> None:
    path = save_recipe(load_recipe(minimal), tmp_path / "saved.yaml")
    assert yaml.safe_load(path.read_text())["dino"]["centre_momentum"] == 0.9


def test_what_is_there_is_not_overwritten_unless_told(minimal: Path, tmp_path: Path) -> None:
    path = tmp_path / "saved.yaml"
    save_recipe(load_recipe(minimal), path)
    save_recipe(load_recipe(minimal), path)  # the same again
    with pytest.raises(StoreError, match="says something else"):
        save_recipe(load_recipe(minimal, ["seed=1"]), path)
    save_recipe(load_recipe(minimal, ["seed=1"]), path, overwrite=True)
    assert load_recipe(path).seed == 1
    with pytest.raises(RecipeError, match=r"ends with \.yaml"):
        save_recipe(load_recipe(minimal), tmp_path / "recipe.txt")


def test_the_hash_does_not_depend_on_comments_order_and_written_defaults(tmp_path: Path) -> None:
    lines = MINIMAL.splitlines()
    one, two = tmp_path / "a.yaml", tmp_path / "b.yaml"
    one.write_text("\n".join(lines))
    two.write_text("# words\n" + "\n".join(reversed(lines)) + "\nmax_steps: null\nbackbone: {name: vit_small}\n")
    assert recipe_sha256(load_recipe(one)) == recipe_sha256(load_recipe(two))


def test_recipes_are_read_without_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("torch", "timm", "lightning_fabric"):
        monkeypatch.setitem(sys.modules, module, None)
    assert load_recipe("laptop", ["max_steps=3"]).max_steps == 3


def test_the_shipped_folder_can_lie_inside_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = tmp_path / "declarations" / "training"
    shutil.copytree(declarations_folder("training") / "pretrain", inside / "pretrain")
    monkeypatch.setattr(recipes, "declarations_folder", lambda name: tmp_path / "declarations" / name)
    monkeypatch.chdir(tmp_path)
    assert recipe_path("training/pretrain/morphem.yaml") == inside / "pretrain" / "morphem.yaml"


def _run(*words: str) -> str:
    import typer

    from chammi75.commands import bench, train

    app = typer.Typer(rich_markup_mode=None)
    train.register(app)
    bench.register(app)  # with one command alone, typer would not ask for its name
    done = CliRunner().invoke(app, ["train", *words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_the_command_prints_a_whole_recipe_that_can_be_used_again(tmp_path: Path) -> None:
    for option in ("--print", "--dry-run"):
        printed = _run("laptop", "max_steps=2", 'data.selection.organism="Homo sapiens"', option)
        path = tmp_path / "again.yaml"
        path.write_text(printed, encoding="utf-8")
        wanted = load_recipe("laptop", ["max_steps=2", "data.selection.organism=Homo sapiens"])
        assert load_recipe(path) == wanted
        assert recipe_sha256(wanted) in printed.splitlines()[0]
    assert TrainingRecipe.model_validate(json.loads(_run("laptop", "--print", "--json"))) == load_recipe("laptop")


def test_the_command_lists_the_recipes() -> None:
    assert [row["recipe"] for row in json.loads(_run("--list", "--json"))] == list(recipe_names())
    assert "ViT-S/16" in _run("--list")


def test_the_command_asks_for_a_recipe() -> None:
    with pytest.raises(AssertionError, match="name one, or ask for --list"):
        _run()
