"""Training recipes as files: reading, changing by ``KEY=VALUE``, the shipped ones, and writing."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, TypeGuard, get_args, get_origin

from pydantic import BaseModel

from chammi75.declarations import declarations_folder
from chammi75.errors import RecipeError, StoreError
from chammi75.files import write_atomically
from chammi75.schemas.training import TrainingRecipe

_ENDINGS = (".yaml", ".yml")
_FOLDER = "training"  # at the top of the project, and in the wheel
_KIND = "pretrain"
_LARGEST_RECIPE = 2**20  # bytes; these are written by people


def recipe_names() -> tuple[str, ...]:
    """The names of the recipes that come with chammi75.

    Examples
    --------
    >>> "laptop" in recipe_names() and "morphem" in recipe_names()
    True
    """
    return tuple(_shipped())


def recipe_path(name_or_path: str | os.PathLike[str]) -> Path:
    """Where a recipe lies.

    Parameters
    ----------
    name_or_path : str or path
        A file, or the name of a shipped recipe (``laptop``). The path of a shipped one within the project
        (``training/pretrain/laptop.yaml``) is found also where no checkout is around, in the wheel.

    Raises
    ------
    RecipeError
        If there is none.

    Examples
    --------
    >>> recipe_path("laptop").name == recipe_path("training/pretrain/laptop.yaml").name == "laptop.yaml"
    True
    """
    text = os.fspath(name_or_path)
    shipped = _shipped()
    if isinstance(name_or_path, str) and not text.endswith(_ENDINGS):
        if text in shipped:
            return shipped[text]
    elif Path(text).is_file():
        return Path(text)
    else:
        parts = PurePosixPath(text.replace(os.sep, "/")).parts
        name = parts[-1].rpartition(".")[0]
        if name in shipped and parts in ((_FOLDER, _KIND, shipped[name].name), (_KIND, shipped[name].name)):
            return shipped[name]
    near = get_close_matches(PurePosixPath(text).stem, shipped, 3, 0.4)
    words = f"{'nearest' if near else 'shipped'} are {', '.join(near or shipped)}"
    if text.endswith(_ENDINGS):
        raise RecipeError(f"{text}: there is no such file, and no shipped recipe lies there ({words})")
    raise RecipeError(f"there is no training recipe {text!r}: {words}; files end with .yaml")


def load_recipe(name_or_path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> TrainingRecipe:
    """Read a recipe, with changes.

    Parameters
    ----------
    name_or_path : str or path
        A YAML file or a shipped recipe, as in `recipe_path`.
    overrides : sequence of str
        Changes ``KEY=VALUE``: the key with dots between its parts, the value as YAML would read it. Of two for the same
        key the later one stands; a mapping goes in the place of the whole that was there.

    Raises
    ------
    RecipeError
        If there is no such recipe, it or a change does not say what a recipe can: the message names the file and line,
        or the change, and the nearest key or what is allowed.

    Examples
    --------
    >>> recipe = load_recipe("laptop", ["max_steps=2", "backbone.name=tiny", 'data.selection.organism="Homo sapiens"'])
    >>> recipe.max_steps, recipe.data.selection
    (2, {'organism': 'Homo sapiens'})
    >>> load_recipe("laptop", ["max_step=2"])
    Traceback (most recent call last):
    ...
    chammi75.errors.RecipeError: max_step=2: there is no key 'max_step'; did you mean 'max_steps'?
    """
    from chammi75.catalog.yaml_file import parse_yaml

    path = recipe_path(name_or_path)
    shown = os.fspath(name_or_path) if os.fspath(name_or_path).endswith(_ENDINGS) else str(path)
    changes = [_change(words) for words in overrides]
    try:
        with open(path, "rb") as file:
            content = file.read(_LARGEST_RECIPE + 1)
    except OSError as error:
        raise RecipeError(f"{shown}: the recipe cannot be read ({error.strerror or error})") from error
    if len(content) > _LARGEST_RECIPE:
        raise RecipeError(f"{shown}: a recipe is a short YAML file, this one is larger than {_LARGEST_RECIPE} bytes")
    found = parse_yaml(content, TrainingRecipe, shown, changes)
    if found.value is None:
        more = len(found.problems) - 1
        raise RecipeError(f"{found.problems[0]}{f' (and {more} more)' if more else ''}")
    # dates and tuples within free mappings become what a file can state again
    return TrainingRecipe.model_validate(found.value.model_dump(mode="json"))


def recipe_text(recipe: TrainingRecipe) -> str:
    """A recipe as YAML: every key, those that were left out too, so that later defaults do not change it."""
    import yaml

    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)


def recipe_sha256(recipe: TrainingRecipe) -> str:
    """The hash of all that a recipe states, in hexadecimal digits.

    It does not depend on comments, on the order of keys, nor on whether a default was written out.

    Examples
    --------
    >>> recipe_sha256(load_recipe("laptop")) == recipe_sha256(load_recipe("laptop", ["max_steps=null"]))
    True
    """
    values = recipe.model_dump(mode="json")
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def save_recipe(recipe: TrainingRecipe, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Write a recipe as YAML that `load_recipe` reads back equal; whole or not at all.

    Parameters
    ----------
    recipe : TrainingRecipe
    path : str or path
        The file; its name ends with .yaml.
    overwrite : bool
        Whether a file that says something else is replaced.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    RecipeError
        If the name does not end with .yaml.
    StoreError
        If there is a file that says something else, and ``overwrite`` is False.
    """
    target = Path(path)
    if target.suffix not in _ENDINGS:
        raise RecipeError(f"{target}: a training recipe's name ends with .yaml")
    content = recipe_text(recipe).encode()
    if not overwrite and target.exists() and target.read_bytes() != content:
        raise StoreError(f"{target} is there already and says something else: give another name, or overwrite it")
    write_atomically(target, content)
    return target


def _shipped() -> dict[str, Path]:
    """Name -> file."""
    files = (declarations_folder(_FOLDER) / _KIND).glob("*.yaml")
    return {path.stem: path for path in sorted(files, key=lambda path: path.stem)}


def _change(words: str) -> Any:
    """What ``KEY=VALUE`` says."""
    import yaml

    from chammi75.catalog.yaml_file import Change

    key, equals, text = words.partition("=")
    key = key.strip()
    if not equals or not key:
        raise RecipeError(f"{words!r} is no change of a recipe: write KEY=VALUE, such as max_steps=100")
    where = tuple(key.split("."))
    _check_key(where, words)
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = getattr(error, "problem", None) or " ".join(str(error).split())
        raise RecipeError(
            f"{words}: the value is not YAML ({reason}); quote text with special signs, {key}='\"…\"'"
        ) from error
    return Change(where, value, words)


def _check_key(where: tuple[str, ...], words: str) -> None:
    """Refuse a key that no recipe has, and name the nearest by its full path."""
    owner: type[BaseModel] = TrainingRecipe
    for number, part in enumerate(where):
        key = ".".join(where[: number + 1])
        if part not in owner.model_fields:
            raise RecipeError(f"{words}: there is no key {'.'.join(where)!r}{_nearest(where, owner, where[:number])}")
        annotation = owner.model_fields[part].annotation
        following = where[number + 1 :]
        if _is_model(annotation):
            owner = annotation
        elif following and not _is_free(annotation):
            raise RecipeError(f"{words}: {key} is one value and has no key {'.'.join(following)!r}: write {key}=…")
        else:
            return


def _nearest(where: tuple[str, ...], owner: type[BaseModel], beside: tuple[str, ...]) -> str:
    """Which key may be meant: one of that name elsewhere, a similar one of that place, a similar one elsewhere."""
    here = {name: ".".join((*beside, name)) for name in owner.model_fields}
    by_name: dict[str, list[str]] = {}
    for key in _keys(TrainingRecipe):
        by_name.setdefault(key.rpartition(".")[2], []).append(key)
    wrong = where[len(beside)]
    found = by_name.get(where[-1]) or by_name.get(wrong) or [here[near] for near in get_close_matches(wrong, here, 1)]
    if not found and not beside:
        found = [key for name in get_close_matches(where[-1], by_name, 1) for key in by_name[name]]
    if not found:
        return f"; there are {', '.join(here.values())}"
    return f"; did you mean {' or '.join(repr(key) for key in found)}?"


def _keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """The full paths of all keys."""
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}"
        if _is_model(field.annotation):
            yield from _keys(field.annotation, f"{prefix}{name}.")


def _is_model(annotation: Any) -> TypeGuard[type[BaseModel]]:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _is_free(annotation: Any) -> bool:
    """Whether a mapping with keys of the user's own can stand there."""
    if get_origin(annotation) is Annotated:
        return _is_free(get_args(annotation)[0])
    return get_origin(annotation) is dict or any(get_origin(one) is dict for one in get_args(annotation))
