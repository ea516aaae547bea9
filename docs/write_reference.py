"""Writes the parts of the documentation that are made from the code: recipe, record, manifest, facets, commands.

They stand between ``<!-- made: NAME -->`` and ``<!-- end -->``. Run ``python docs/write_reference.py``; with
``--check`` it writes nothing, says which pages are not current, and exits with 1.
"""

from __future__ import annotations

import re
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

FOLDER = Path(__file__).resolve().parent
_PART = re.compile(r"(<!-- made: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def fields_table(*models: type[BaseModel]) -> str:
    """A table of the fields of models: name, type, default, meaning."""
    rows = [
        f"| `{name}` | {_type_words(field)} | {_default_words(field)} | {_escaped(field.description or '')} |"
        for model in models
        for name, field in model.model_fields.items()
    ]
    return "\n".join(["| Key | Type | Default | Meaning |", "|---|---|---|---|", *rows]) + "\n"


def recipe() -> str:
    """The keys of a build recipe."""
    from chammi75.schemas.recipe import MATCH_FIELDS, RECORD_FIELDS, BuildRecipe, ChannelRule, TableJoin

    return "\n".join(
        [
            fields_table(BuildRecipe),
            "A rule of `channels`:\n",
            fields_table(ChannelRule),
            "An entry of `tables`:\n",
            fields_table(TableJoin),
            f"Fields that `record` and the `columns` of a table may state: {_listed(RECORD_FIELDS)}.\n",
            f"Fields that a table may `match`: {_listed(MATCH_FIELDS)}.\n",
        ]
    )


def record() -> str:
    """The fields of the record, group by group."""
    from chammi75.schemas.record import Annotation, ImageRecord

    parts = []
    for name, field in ImageRecord.model_fields.items():
        model = _model_of(field.annotation)
        if model is None:
            parts.append(f"## {name}\n\n{field.description}\n")
        else:
            parts.append(f"## {name}\n\n{_first_paragraph(model)}\n\n{_record_table(model)}")
    parts.append(f"## annotation\n\n{_first_paragraph(Annotation)}\n\n{_record_table(Annotation)}")
    return "\n".join(parts)


def manifest() -> str:
    """The keys of a store's manifest."""
    from chammi75.schemas.manifest import FileEntry, IndexEntry, ManifestPart, ShardEntry, StoreManifest

    return "\n".join(
        [
            fields_table(StoreManifest),
            "An entry of `shards`:\n",
            fields_table(ShardEntry),
            "`index`:\n",
            fields_table(IndexEntry),
            "A file:\n",
            fields_table(FileEntry),
            "An entry of `parts`:\n",
            fields_table(ManifestPart),
        ]
    )


def facets() -> str:
    """The facet columns of ``index.arrow``."""
    from chammi75.store.facets import FACETS

    rows = [f"| `{name}` | `{path}` |" for name, path in FACETS.items()]
    return "\n".join(["| Column | Field of the record |", "|---|---|", *rows]) + "\n"


def commands() -> str:
    """Every command with its arguments and options."""
    import typer

    from chammi75.cli import app

    return "\n".join(_command(name, command) for name, command in _leaves("", typer.main.get_command(app)))


def _leaves(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    """The commands below a group, by their whole names (``catalog check``)."""
    if not hasattr(command, "commands"):
        yield name, command
        return
    for word, inner in command.commands.items():
        yield from _leaves(f"{name} {word}".strip(), inner)


MADE: dict[str, Callable[[], str]] = {
    "recipe": recipe,
    "record": record,
    "manifest": manifest,
    "facets": facets,
    "commands": commands,
}
"""What stands between the marks."""


def pages() -> Iterator[tuple[Path, str]]:
    """Every page that has such parts, and what it should say."""
    for path in sorted(FOLDER.glob("*.md")):
        text = path.read_text(encoding="utf-8")
        if _PART.search(text):
            yield path, _PART.sub(lambda found: f"{found[1]}\n{MADE[found[2]]()}\n{found[3]}", text)


def stale_pages() -> list[str]:
    """Names of the pages that are not what the code gives."""
    return [path.name for path, text in pages() if path.read_text(encoding="utf-8") != text]


def _command(name: str, command: Any) -> str:
    arguments = [param for param in command.params if param.param_type_name == "argument"]
    options = [param for param in command.params if param.param_type_name == "option" and not param.hidden]
    usage = " ".join([f"chammi75 {name}", *(_placeholder(param) for param in arguments), "[OPTIONS]"])
    help_text = _in_fence(command.help)
    lines = [
        f"## {name}\n",
        f"```text\n{usage}\n```\n",
        f"{help_text}\n",
        "| Argument or option | Meaning |",
        "|---|---|",
    ]
    lines += [f"| {_placeholder(param, escape=True)} | {_escaped(param.help or '')} |" for param in arguments]
    for param in options:
        words = [param.help or ""]
        if param.required:
            words.append("Required.")
        elif isinstance(getattr(param, "show_default", None), str):
            words.append(f"Default: {param.show_default}.")
        elif not param.is_flag and param.default is not None:
            words.append(f"Default: `{param.default}`.")
        lines.append(f"| `{', '.join(param.opts)}` | {_escaped(' '.join(words))} |")
    return "\n".join(lines) + "\n"


def _placeholder(param: Any, escape: bool = False) -> str:
    """What stands for an argument; in a table with its bars escaped."""
    text: str = param.metavar or param.name.upper()
    return text.replace("|", "\\|") if escape else text


def _in_fence(text: str) -> str:
    """Help text with what follows ``\\b`` (lines that are kept as they are) in a fence."""
    plain, mark, kept = text.partition("\b\n")
    return plain.strip() + (f"\n\n```yaml\n{kept.strip()}\n```" if mark else "")


def _record_table(model: type[BaseModel]) -> str:
    rows = []
    for name, field in model.model_fields.items():
        nested = _model_of(field.annotation)
        if nested is None:
            rows.append(f"| `{name}` | {_type_words(field)} | {_escaped(field.description or '')} |")
        else:
            rows += [
                f"| `{name}.{inner}` | {_type_words(value)} | {_escaped(value.description or '')} |"
                for inner, value in nested.model_fields.items()
            ]
    return "\n".join(["| Field | Type | Meaning |", "|---|---|---|", *rows]) + "\n"


def _model_of(annotation: Any) -> type[BaseModel] | None:
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _first_paragraph(model: type[BaseModel]) -> str:
    return " ".join((model.__doc__ or "").strip().split("\n\n")[0].split())


def _type_words(field: FieldInfo) -> str:
    return _words_of(field.annotation)


def _words_of(annotation: Any) -> str:
    """A type in plain words."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if hasattr(annotation, "__metadata__"):
        return _words_of(arguments[0])
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin in (Union, types.UnionType):
        words = [_words_of(argument) for argument in arguments if argument is not type(None)]
        return " or ".join(words) + (" or null" if type(None) in arguments else "")
    if origin is list:
        inner = _words_of(arguments[0])
        return f"list of ({inner})" if " or " in inner else f"list of {inner}"
    if origin is dict:
        return "mapping"
    if origin is tuple:
        return "(x, y)"
    if _model_of(annotation) is not None:
        return f"{annotation.__name__}"
    return {str: "text", int: "whole number", float: "number", bool: "yes or no"}.get(annotation, "anything")


def _default_words(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    return "" if value is None else f"`{value}`"


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _escaped(text: str) -> str:
    """Text for a cell of a table."""
    return re.sub(r"'([^']*\{[^']*)'|(\{[^}]*\})", lambda found: f"`{found[1] or found[2]}`", text.replace("|", "\\|"))


def main(arguments: list[str]) -> int:
    """Write the parts, or check them."""
    stale = stale_pages()
    if "--check" in arguments:
        for name in stale:
            print(f"docs/{name} is not current: run python docs/write_reference.py", file=sys.stderr)
        return 1 if stale else 0
    for path, text in pages():
        path.write_text(text, encoding="utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
