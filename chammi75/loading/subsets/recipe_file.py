"""Subset recipes as files: reading, the shipped ones, and writing."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from chammi75.declarations import declarations_folder
from chammi75.errors import RecipeError, StoreError
from chammi75.files import StorageOptions, absolute_url, exists, join_url, read_bytes, reading_errors, write_atomically
from chammi75.schemas.subset import SubsetRecipe

_ENDINGS = (".yaml", ".yml")
_LARGEST_RECIPE = 2**20


def shipped_recipes() -> dict[str, Path]:
    """The recipes that come with chammi75, by name.

    Examples
    --------
    >>> "fluorescence-only" in shipped_recipes()
    True
    """
    return {path.stem: path for path in sorted((declarations_folder("training") / "ablations").glob("*.yaml"))}


def recipe_url(named: str | os.PathLike[str], beside: str | None = None) -> str:
    """Where a recipe lies: that of a shipped name, or the URL of a file (whatever ends with .yaml or .yml).

    Parameters
    ----------
    named : str or path
    beside : str, optional
        URL of a folder that a relative path starts from; the working folder by default.

    Raises
    ------
    RecipeError
        If it is neither.
    """
    text = os.fspath(named)
    if isinstance(named, str) and not text.endswith(_ENDINGS):
        shipped = shipped_recipes()
        if text in shipped:
            return shipped[text].as_posix()
        near = get_close_matches(text, shipped, 3, 0.4)
        words = ", ".join(near or shipped)
        raise RecipeError(
            f"there is no subset {text!r}: {'nearest' if near else 'shipped'} are {words}; files end with .yaml"
        )
    if beside is not None and absolute_url(text) != text and "://" not in text:
        return join_url(beside, text)
    return absolute_url(text)


def read_recipe(
    named: str | os.PathLike[str], *, beside: str | None = None, storage_options: StorageOptions | None = None
) -> tuple[SubsetRecipe, str]:
    """A recipe, and the URL of its folder.

    Raises
    ------
    RecipeError
        If there is none, it is not YAML, states a key twice, or says what a subset recipe cannot.
    """
    url = recipe_url(named, beside)
    try:
        content = read_bytes(url, storage_options)
    except reading_errors() as error:
        reason = getattr(error, "strerror", None) or error
        raise RecipeError(f"{url}: the subset recipe cannot be read ({reason})") from error
    if len(content) > _LARGEST_RECIPE:
        raise RecipeError(
            f"{url}: a subset recipe is a short YAML file, this one is larger than {_LARGEST_RECIPE} bytes"
        )
    recipe = parse_recipe(content, url)
    name = url.rpartition("/")[2].rpartition(".")[0]
    return recipe.model_copy(update={"name": recipe.name or name}), url.rpartition("/")[0]


def parse_recipe(content: bytes, url: str) -> SubsetRecipe:
    """The recipe that ``content`` states; ``url`` is for messages.

    Examples
    --------
    >>> parse_recipe(b"where: quality.focus > 0.3", "sharp.yaml").where
    'quality.focus > 0.3'
    >>> parse_recipe(b"per_grup: 3", "some.yaml")
    Traceback (most recent call last):
    ...
    chammi75.errors.RecipeError: some.yaml:1: 'per_grup' is no field of a subset recipe; did you mean 'per_group'?
    """
    from chammi75.catalog.yaml_file import parse_yaml

    found = parse_yaml(content, SubsetRecipe, url)
    if found.value is None:
        raise RecipeError(str(found.problems[0]))
    return found.value


def checked_recipe(values: dict[str, Any]) -> SubsetRecipe:
    """The recipe that was stated in code.

    Raises
    ------
    RecipeError
        If a value is not allowed.
    """
    try:
        return SubsetRecipe.model_validate(values)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        raise RecipeError(f"{f'{place}: ' if place else ''}{message}") from error


def write_recipe(
    url: str | os.PathLike[str],
    recipe: SubsetRecipe,
    *,
    comments: Sequence[str] = (),
    overwrite: bool = False,
    storage_options: StorageOptions | None = None,
) -> str:
    """Write a recipe file, whole or not at all, and return its URL.

    Raises
    ------
    RecipeError
        If its name does not end with .yaml.
    StoreError
        If there is a file that says something else, and ``overwrite`` is False.
    """
    target = absolute_url(url)
    if not target.endswith(_ENDINGS):
        raise RecipeError(f"{target}: a subset recipe's name ends with .yaml")
    content = recipe_text(recipe, comments).encode()
    if not overwrite and exists(target, storage_options) and read_bytes(target, storage_options) != content:
        raise StoreError(f"{target} is there already and says something else: give another name, or overwrite it")
    write_atomically(target, content, storage_options)
    return target


def recipe_text(recipe: SubsetRecipe, comments: Sequence[str] = ()) -> str:
    """A recipe as YAML: what it states and no default, below comments of a line each."""
    import yaml

    values = recipe.model_dump(mode="json", exclude_defaults=True)
    if recipe.split is None:  # a null that says something
        values["split"] = None
    lines = [f"# {json.dumps(line, ensure_ascii=False)[1:-1]}\n" for line in comments]  # no line end gets through
    return "".join(lines) + yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=120)
