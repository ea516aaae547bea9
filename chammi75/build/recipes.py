"""Reads recipe files: YAML in, one checked :class:`~chammi75.schemas.BuildRecipe` or one clear error out."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from chammi75.build.guidance import GuidanceFinder
from chammi75.build.listing import compile_glob
from chammi75.build.namings import load_naming
from chammi75.errors import RecipeError
from chammi75.readers.grouping import FilePattern
from chammi75.schemas.recipe import RECORD_FIELDS, BuildRecipe, ChannelRule, TableJoin

if TYPE_CHECKING:
    import yaml

_LARGEST_RECIPE = 2**20  # bytes; a recipe is written by a person
_MODELS: dict[str, type[BaseModel]] = {"": BuildRecipe, "channels": ChannelRule, "tables": TableJoin}


def load_recipe(path: str | Path) -> tuple[BuildRecipe, Path, str]:
    """Read a recipe file.

    Parameters
    ----------
    path : str or Path
        A YAML file of this machine.

    Returns
    -------
    recipe : BuildRecipe
    folder : Path
        The folder that the recipe lies in; its tables and guidance files are relative to it.
    sha256 : str
        SHA-256 of the file, in hexadecimal.

    Raises
    ------
    RecipeError
        If the file cannot be read, is not YAML, states a key twice, or says what a recipe cannot: with the file,
        the line, the key and what is allowed there.
    """
    file = Path(path).expanduser()
    try:
        with open(file, "rb") as handle:
            content = handle.read(_LARGEST_RECIPE + 1)
    except OSError as error:
        raise RecipeError(f"{path}: the recipe cannot be read ({error.strerror or error})") from error
    if len(content) > _LARGEST_RECIPE:
        raise RecipeError(f"{path}: a recipe is a short YAML file, this one is larger than {_LARGEST_RECIPE} bytes")
    recipe = parse_recipe(content, str(path))
    return recipe, file.absolute().parent, hashlib.sha256(content).hexdigest()


def parse_recipe(content: bytes, path: str) -> BuildRecipe:
    """The recipe that ``content`` states; ``path`` is for messages.

    Raises
    ------
    RecipeError
        As :func:`load_recipe`.

    Examples
    --------
    >>> parse_recipe(b'source: fly0001', "fly.yaml").source
    'fly0001'
    >>> parse_recipe(b'source: fly0001\\npatern: x', "fly.yaml")
    Traceback (most recent call last):
    ...
    chammi75.errors.RecipeError: fly.yaml, line 2: 'patern' is no key of a recipe; did you mean 'pattern'?
    """
    import yaml

    loader: yaml.SafeLoader | None = None
    try:
        loader = _strict_loader()(content)
        root = loader.get_single_node()
        values = {} if root is None else loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        raise RecipeError(f"{path}{line}: {error.problem or error.context}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise RecipeError(f"{path}: this is not YAML text ({' '.join(str(error).split())})") from error
    finally:
        if loader is not None:
            loader.dispose()
    if not isinstance(values, dict):
        raise RecipeError(f"{path}: a recipe is a mapping of keys to values (source: …), this is a {_kind(values)}")
    try:
        recipe = BuildRecipe.model_validate(values)
    except ValidationError as error:
        raise RecipeError(_message(error, root, path)) from error
    _check_texts(recipe, root, path)
    return recipe


def with_naming(recipe: BuildRecipe, name: str) -> BuildRecipe:
    """A recipe whose files are named as the naming ``name`` has it.

    Raises
    ------
    RecipeError
        If there is no such naming, or the recipe says otherwise.

    Examples
    --------
    >>> with_naming(BuildRecipe(source="plate1"), "imagexpress").naming
    'imagexpress'
    """
    load_naming(name)
    said = recipe.pattern or recipe.naming
    if said is not None and said != name:
        raise RecipeError(f"the naming {name} is asked for, and the recipe says {said!r} of the file names: leave one")
    return recipe.model_copy(update={"naming": name})


def source_id(folder: str) -> str:
    """The id of a source whose recipe states none: its folder's name, what an id may not hold replaced by ``-``.

    Parameters
    ----------
    folder : str
        Path or URL of the folder.

    Examples
    --------
    >>> source_id("s3://bucket/Plate 1 (März)/")
    'Plate-1-Marz'
    """
    url = re.sub(r"^[A-Za-z][A-Za-z0-9+.\-]+:/+", "", folder.replace("\\", "/"))
    parts = [part for part in url.split("/") if part not in ("", ".", "..")]
    if not parts:  # ".", "..", "/": the name is the machine's to tell
        parts = [Path(folder).expanduser().absolute().resolve().name]
    plain = unicodedata.normalize("NFKD", parts[-1]).encode("ascii", "ignore").decode()
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", plain).strip("-._")[:64].strip("-._")
    return name or "images"


@cache
def _strict_loader() -> type[yaml.SafeLoader]:
    """PyYAML's safe loader, but a key stated twice is an error (YAML forbids it, PyYAML keeps the last)."""
    import yaml

    class StrictLoader(yaml.SafeLoader):
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            seen: dict[str, int] = {}
            for key, _ in node.value:
                if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                    continue
                line = key.start_mark.line + 1
                if key.value in seen:
                    problem = f"the key {key.value!r} is there twice, first in line {seen[key.value]}: leave one"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                seen[key.value] = line
            result: dict[Any, Any] = super().construct_mapping(node, deep)
            return result

    return StrictLoader


def _check_texts(recipe: BuildRecipe, root: yaml.Node | None, path: str) -> None:
    """Read what is a small language of its own now, so that an error has the recipe's line."""
    checks: dict[str, Callable[[], object]] = {
        "include": lambda: [compile_glob(glob) for glob in recipe.include],
        "exclude": lambda: [compile_glob(glob) for glob in recipe.exclude],
        "pattern": lambda: FilePattern.parse(recipe.pattern) if recipe.pattern is not None else None,
        "naming": lambda: load_naming(recipe.naming) if recipe.naming is not None else None,
        "guidance": lambda: GuidanceFinder(recipe.guidance, "") if recipe.guidance is not None else None,
    }
    for key, check in checks.items():
        try:
            check()
        except RecipeError as error:
            line, _ = _locate(root, (key,))
            raise RecipeError(f"{path}{f', line {line}' if line else ''}: {error}") from error


def _message(error: ValidationError, root: yaml.Node | None, path: str) -> str:
    """The first problem (in the order of the file) in words, and how many more there are."""
    problems = sorted(
        (_describe(problem, _place(problem["loc"]), root) for problem in error.errors(include_url=False)),
        key=lambda problem: problem[0] or 10**9,
    )
    line, text = problems[0]
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"{path}{f', line {line}' if line else ''}: {text}{more}"


def _place(where: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """The place of a problem, as the file has it: below ``record`` pydantic leaves the group out."""
    if len(where) == 2 and where[0] == "record":
        return (
            where[0],
            *next((name.split(".") for name in RECORD_FIELDS if name.endswith(f".{where[1]}")), where[1:]),
        )
    return where


def _describe(problem: Any, where: tuple[str | int, ...], root: yaml.Node | None) -> tuple[int | None, str]:
    """The line (from 1) and the words for one of pydantic's problems."""
    line, node = _locate(root, where)
    key = ".".join(str(part) for part in where)
    given = problem["input"]
    kind = problem["type"]
    if kind == "extra_forbidden":
        model = _MODELS.get(str(where[0]) if len(where) > 1 else "", BuildRecipe)
        owner = "a recipe" if model is BuildRecipe else f"an entry of {where[0]}"
        near = get_close_matches(str(where[-1]), model.model_fields, 1)
        hint = f"; did you mean {near[0]!r}?" if near else f" (known: {', '.join(model.model_fields)})"
        return line, f"{str(where[-1])!r} is no key of {owner}{hint}"
    if kind == "missing":
        model = _MODELS.get(str(where[0]) if len(where) > 1 else "", BuildRecipe)
        return line, f"{key} is missing: {model.model_fields[str(where[-1])].description}"
    if kind == "string_type" and not isinstance(given, dict | list | type(None)):
        word = getattr(node, "value", given)
        return line, f'{key}: YAML reads {word} as a {_kind(given)}, and text is needed: quote it, "{word}"'
    if kind == "string_pattern_mismatch":
        return line, f"{key}: {given!r} must match {problem['ctx']['pattern']}{_about(where)}"
    if kind == "value_error":
        reason = str(problem["ctx"]["error"])
        named = re.search(r": '([^']+)' is no field", reason)
        line = (_locate(root, (*where, *named[1].split(".")))[0] if named else None) or line
        return line, reason if reason.startswith(f"{where[0]}:" if where else "channels:") else f"{key}: {reason}"
    return line, f"{key}: {problem['msg'][:1].lower()}{problem['msg'][1:]}, not {_shorten(given)}{_about(where)}"


def _about(where: tuple[str | int, ...]) -> str:
    names = [part for part in where if isinstance(part, str)]
    model = _MODELS.get(names[0] if len(names) > 1 else "")
    field = model.model_fields.get(names[-1]) if model else None
    return f" ({field.description})" if field and field.description else ""


def _locate(root: yaml.Node | None, where: tuple[str | int, ...]) -> tuple[int | None, yaml.Node | None]:
    """Line (from 1) and node of a place in the file, or of the nearest enclosing one.

    The keys of ``record`` may be written as ``experiment.plate:`` or nested: a key may take several parts of the place.
    """
    import yaml

    line, node, rest = None, root, list(where)
    while node is not None and rest:
        following: yaml.Node | None = None
        if isinstance(node, yaml.SequenceNode) and isinstance(rest[0], int) and rest[0] < len(node.value):
            following, taken = node.value[rest[0]], 1
            line = following.start_mark.line + 1
        elif isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                for taken in range(len(rest), 0, -1):
                    if key.value == ".".join(str(part) for part in rest[:taken]):
                        following, line = value, key.start_mark.line + 1
                        break
                if following is not None:
                    break
        if following is None:
            return line, None
        node, rest = following, rest[taken:]
    return line, node


def _kind(value: object) -> str:
    names = {bool: "truth value", int: "number", float: "number", str: "text", list: "list", dict: "mapping"}
    return names.get(type(value), type(value).__name__)


def _shorten(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
