"""Reads YAML files that people edit into models, and says what is wrong: file, line, field, what is allowed."""

from __future__ import annotations

import codecs
import types
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from chammi75.errors import RecipeError

if TYPE_CHECKING:
    import yaml

M = TypeVar("M", bound=BaseModel)
Place = tuple[str | int, ...]

_LARGEST_FILE = 2**20  # bytes; these are written by people
_CONSTRAINTS = ("greater_than", "greater_than_equal", "less_than", "less_than_equal", "too_short", "string_too_short")


@dataclass(frozen=True)
class Problem:
    """What is wrong in a file.

    Attributes
    ----------
    path : str
        The file.
    line : int or None
        Line, from 1; None where it is about the whole file.
    message : str
        The field, what is wrong with it and what is allowed.

    Examples
    --------
    >>> str(Problem("sources/idr0001.yaml", 3, "'titel' is no field of a source card; did you mean 'title'?"))
    "sources/idr0001.yaml:3: 'titel' is no field of a source card; did you mean 'title'?"
    """

    path: str
    line: int | None
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{'' if self.line is None else f'{self.line}:'} {self.message}"


@dataclass(frozen=True)
class Change:
    """A value that somebody states beside a file, and that goes before the file's own.

    Attributes
    ----------
    where : tuple of str
        The place in the file.
    value : object
        What stands there instead.
    words : str
        How it was stated, for messages.
    """

    where: tuple[str, ...]
    value: Any
    words: str


@dataclass(frozen=True)
class YamlFile(Generic[M]):
    """A file that was read: its value (None where it has problems), and where things stand in it.

    Attributes
    ----------
    path : str
        The file, for messages.
    value : model or None
        What it states.
    problems : tuple of Problem
        What is wrong with it, in the order of its lines.
    """

    path: str
    value: M | None
    problems: tuple[Problem, ...]
    root: yaml.Node | None

    def problem(self, where: Place, message: str) -> Problem:
        """A problem at a place in the file, as ``("organisms", 0, "name")``."""
        return Problem(self.path, _locate(self.root, where)[0], message)

    def required(self) -> M:
        """The value.

        Raises
        ------
        RecipeError
            With the first problem, and how many more there are.
        """
        if self.value is None or self.problems:
            raise problems_error(self.problems)
        return self.value


def problems_error(problems: Sequence[Problem]) -> RecipeError:
    """The error that tells the first of ``problems``, and how many more there are."""
    more = f" (and {len(problems) - 1} more: chammi75 catalog check lists all)" if len(problems) > 1 else ""
    return RecipeError(f"{problems[0]}{more}")


def read_yaml(path: Path, model: type[M], name: str | None = None) -> YamlFile[M]:
    """Read a YAML file.

    Parameters
    ----------
    path : Path
        The file.
    model : type
        What it states.
    name : str, optional
        How the file is called in messages; its path if left out.

    Returns
    -------
    YamlFile
        Also where the file has problems, or cannot be read: it says which.
    """
    shown = name or str(path)
    try:
        with open(path, "rb") as file:
            content = file.read(_LARGEST_FILE + 1)
    except OSError as error:
        return YamlFile(shown, None, (Problem(shown, None, f"it cannot be read ({error.strerror or error})"),), None)
    if len(content) > _LARGEST_FILE:
        return YamlFile(shown, None, (Problem(shown, None, f"it is larger than {_LARGEST_FILE} bytes"),), None)
    return parse_yaml(content, model, shown)


def parse_yaml(content: bytes, model: type[M], path: str, changes: Sequence[Change] = ()) -> YamlFile[M]:
    """What ``content`` states, with ``changes``; ``path`` is for messages.

    Examples
    --------
    >>> from chammi75.schemas import SourceCard
    >>> parse_yaml(b"id: fly0001", SourceCard, "fly0001.yaml").required().id
    'fly0001'
    >>> for problem in parse_yaml(b"id: fly0001\\nmagnification: 20x", SourceCard, "fly0001.yaml").problems:
    ...     print(problem)
    fly0001.yaml:2: magnification: '20x' is not allowed: a number (Nominal magnification.)
    """
    import yaml

    loader: Any = None
    try:
        if not content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):  # YAML may be in UTF-16 too
            content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        reason = f"byte 0x{content[error.start]:02x} is not UTF-8 text: save the file as UTF-8"
        return YamlFile(path, None, (Problem(path, content.count(b"\n", 0, error.start) + 1, reason),), None)
    try:
        loader = _strict_loader()(content)
        root = loader.get_single_node()
        values = None if root is None else loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else None
        return YamlFile(path, None, (Problem(path, line, str(error.problem or error.context)),), None)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = f"this is not YAML text ({' '.join(str(error).split())})"
        return YamlFile(path, None, (Problem(path, None, reason),), None)
    finally:
        if loader is not None:
            loader.dispose()
    if not isinstance(values, dict):
        reason = f"{_a(_owner(model))} is a mapping of fields to values (id: …), this is {_kind(values)}"
        return YamlFile(path, None, (Problem(path, 1, reason),), root)
    for change in changes:
        _make(change, values, model)
    try:
        return YamlFile(path, model.model_validate(values), (), root)
    except ValidationError as error:
        found: dict[tuple[int | None, str], Problem] = {}
        for problem in error.errors(include_url=False):
            one = _describe_changed(problem, model, values, root, path, changes)
            found.setdefault((one.line, one.message), one)
        problems = sorted(found.values(), key=lambda problem: problem.line or 0)
        return YamlFile(path, None, tuple(problems), root)


@cache
def _strict_loader() -> Any:
    """PyYAML's safe loader (in C where it is there), but a key stated twice is an error, as YAML has it."""
    import yaml

    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class StrictLoader(base):  # type: ignore[misc]
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            seen: dict[str, int] = {}
            for key, _ in node.value:
                line = key.start_mark.line + 1
                if not isinstance(key, yaml.ScalarNode):
                    raise yaml.constructor.ConstructorError(None, None, "a field's name is one word", key.start_mark)
                if key.value in seen:
                    problem = f"the field {key.value!r} is there twice, first in line {seen[key.value]}: leave one"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                seen[key.value] = line
            result: dict[Any, Any] = super().construct_mapping(node, deep)
            return result

    return StrictLoader


def _make(change: Change, values: dict[Any, Any], model: type[BaseModel]) -> None:
    """Put a change's value into what the file states; in a part that the file leaves out, beside the defaults."""
    owner: type[BaseModel] | None = model
    for number, part in enumerate(change.where[:-1]):
        inner = values.get(part)
        if not isinstance(inner, dict):
            default: Any = None
            if part not in values and owner is not None and part in owner.model_fields:
                default = owner.model_fields[part].default
            inner = values[part] = default.model_dump() if isinstance(default, BaseModel) else {}
        values, owner = inner, _model_at(model, change.where[: number + 1])
    values[change.where[-1]] = change.value


def _describe_changed(
    problem: Any, model: type[M], values: Any, root: yaml.Node | None, path: str, changes: Sequence[Change]
) -> Problem:
    """One of pydantic's problems; one that a change makes is told with the change's words, without a line."""
    where = problem["loc"]
    place = (*where, *_named_place(problem, model))
    for change in reversed(changes):  # the last one stands
        if place[: len(change.where)] == change.where:
            return _describe(problem, model, values, None, change.words)
    told = _describe(problem, model, values, root, path)
    words = " ".join(change.words for change in changes if change.where[: len(where)] == where)
    return Problem(told.path, told.line, f"{told.message} (with {words})" if words else told.message)


def _describe(problem: Any, model: type[BaseModel], values: Any, root: yaml.Node | None, path: str) -> Problem:
    """One of pydantic's problems in words."""
    line, _, node = _locate(root, problem["loc"])
    where = _stated(values, problem["loc"])
    if problem["type"] in ("extra_forbidden", "missing") and isinstance(problem["loc"][-1], str):
        owner, name = _model_at(model, problem["loc"][:-1]) or model, str(problem["loc"][-1])
        if problem["type"] == "missing":
            about = owner.model_fields[name].description
            return Problem(path, line, f"{_key(problem['loc'])} is missing{f': {about}' if about else ''}")
        near = get_close_matches(name, owner.model_fields, 1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; allowed are {', '.join(owner.model_fields)}"
        return Problem(path, line, f"{name!r} is no field of {_a(_owner(owner))}{hint}")
    if problem["type"] == "value_error":
        named, reason = _named_place(problem, model), str(problem["ctx"]["error"])
        line, key = _locate(root, (*where, *named))[0], _key(where)
        return Problem(path, line, f"{key}{'.' if named else ': '}{reason}" if key else reason)
    key = _key(where)
    annotation, about = _annotation_at(model, where)
    allowed = _allowed(annotation)
    given = problem["input"]
    if problem["type"] in _CONSTRAINTS:
        allowed = problem["msg"].removeprefix("Input should be ").removeprefix("String should have ")
    elif problem["type"] == "string_pattern_mismatch":
        allowed = f"text that matches {problem['ctx']['pattern']}"
    elif problem["type"] == "string_type" and not isinstance(given, dict | list | type(None)):
        word = getattr(node, "value", given)
        return Problem(path, line, f'{key}: YAML reads {word} as {_kind(given)}, text is needed: quote it, "{word}"')
    near = get_close_matches(given, _words(annotation), 1) if isinstance(given, str) else []
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return Problem(
        path, line, f"{key}: {_shorten(given)} is not allowed: {allowed}{hint}{f' ({about})' if about else ''}"
    )


def _named_place(problem: Any, model: type[BaseModel]) -> Place:
    """The place within the problem's own that a validator's message begins with, as ``scale: …`` does."""
    owner = _model_at(model, problem["loc"]) if problem["type"] == "value_error" else None
    parts = tuple(str(problem["ctx"]["error"]).partition(": ")[0].split(".")) if owner is not None else ()
    if owner is None or parts[0] not in owner.model_fields:
        return ()
    return parts if len(parts) == 1 or _model_at(owner, parts[:-1]) is not None else ()


def _stated(values: Any, where: Place) -> Place:
    """The part of a place that the values have: pydantic also names the members of a union, which they do not."""
    for number, part in enumerate(where):
        places = values if isinstance(values, dict) else range(len(values)) if isinstance(values, list) else ()
        if part not in places:
            return where[:number]
        values = values[part]
    return where


def _locate(root: yaml.Node | None, where: Place) -> tuple[int | None, Place, yaml.Node | None]:
    """Line (from 1) of a place in the file or the nearest around it, that place, and its node."""
    import yaml

    line, node, found = 1 if root is not None else None, root, 0
    for part in where:
        following: tuple[yaml.Node, yaml.Node] | None = None
        if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            following = (node.value[part], node.value[part])
        elif isinstance(node, yaml.MappingNode):
            following = next(((key, value) for key, value in node.value if key.value == part), None)
        if following is None:
            break
        line, node, found = following[0].start_mark.line + 1, following[1], found + 1
    return line, where[:found], node


def _annotation_at(model: type[BaseModel], where: Place) -> tuple[Any, str | None]:
    """The type of a place in a model, and what is said of it."""
    annotation: Any = model
    about: str | None = None
    for part in where:
        if isinstance(part, int):
            lists = (one for one in _members(annotation) if get_origin(one) in (list, tuple))
            annotation = next((get_args(one)[0] for one in lists), Any)
            continue
        owner = next((one for one in _members(annotation) if _is_model(one)), None)
        if owner is None or part not in owner.model_fields:
            return Any, about
        field = owner.model_fields[part]
        annotation, about = field.annotation, field.description
    return annotation, about


def _model_at(model: type[BaseModel], where: Place) -> type[BaseModel] | None:
    annotation, _ = _annotation_at(model, where)
    return next((one for one in _members(annotation) if _is_model(one)), None)


def _members(annotation: Any) -> list[Any]:
    """The types of a union, without None; of others themselves."""
    if get_origin(annotation) is Annotated:
        return _members(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [member for one in get_args(annotation) if one is not type(None) for member in _members(one)]
    return [annotation]


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _allowed(annotation: Any) -> str:
    """What a type takes, in words."""
    names = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
    words = []
    for one in _members(annotation):
        if get_origin(one) is Literal:
            words += [repr(value) for value in get_args(one)]
        elif get_origin(one) is list:
            words.append(f"a list [{_allowed(get_args(one)[0])}, …]")
        elif get_origin(one) is tuple:
            words.append(f"a list [{', '.join(_allowed(part) for part in get_args(one))}]")
        elif get_origin(one) is dict:
            words.append("a mapping {…: …}")
        elif _is_model(one):
            words.append(f"a mapping {{{', '.join(one.model_fields)}}}")
        else:
            words.append(names.get(one, "something else"))
    return " or ".join(words)


def _words(annotation: Any) -> list[str]:
    return [str(value) for one in _members(annotation) if get_origin(one) is Literal for value in get_args(one)]


def _key(where: Place) -> str:
    """A place as people write it: ``organisms[0].name``."""
    text = ""
    for part in where:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _owner(model: type[BaseModel]) -> str:
    """``SourceCard`` -> ``source card``."""
    return "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in model.__name__).strip()


def _a(noun: str) -> str:
    return f"{'an' if noun[:1] in 'aeiou' else 'a'} {noun}"


def _kind(value: object) -> str:
    names = {bool: "a truth value", int: "a number", float: "a number", str: "text", list: "a list", dict: "a mapping"}
    return "empty" if value is None else names.get(type(value), _a(type(value).__name__))


def _shorten(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
