"""Namings: how microscopes and collections name their files, as data in ``catalog/naming``."""

from __future__ import annotations

from difflib import get_close_matches
from functools import cache

from pydantic import Field

from chammi75.declarations import declarations_folder
from chammi75.errors import RecipeError
from chammi75.schemas.base import Model


class NamingExample(Model):
    """A file name, and what it says."""

    path: str = Field(min_length=1, description="A path below the folder of a build.")
    fields: dict[str, str] = Field(min_length=1, description="Placeholder -> the text that is read for it.")


class LeftOut(Model):
    """Files that are no images, though they look like some."""

    glob: str = Field(min_length=1, description="Which: a glob on paths below the folder.")
    what: str = Field(min_length=1, description="What they are, for one of them (thumbnail).")


class Naming(Model):
    """A naming: patterns of paths, tried one after the other."""

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$", description="Its name in a recipe; the name of its file.")
    title: str = Field(min_length=1, description="Whose names these are.")
    description: str = Field(min_length=1, description="How the names are made, and from what its numbers count.")
    folders: list[str] = Field(
        [""], min_length=1, description="What may stand before each of the patterns, the most specific first."
    )
    patterns: list[str] = Field(min_length=1, description="Patterns of file names, the most specific first.")
    left_out: list[LeftOut] = Field([], description="Files that are no images.")
    recognised: bool = Field(
        True, description="Whether a folder without a recipe is compared with it: not where another naming reads these."
    )
    examples: list[NamingExample] = Field(min_length=1, description="Names that it reads; the tests check them.")
    others: list[str] = Field([], description="Names that it must not read; the tests check them.")
    evidence: list[str] = Field(min_length=1, description="Where the naming is documented, or was seen.")


@cache
def naming_ids() -> tuple[str, ...]:
    """The ids of the namings in ``catalog/naming``, sorted.

    Examples
    --------
    >>> "imagexpress" in naming_ids()
    True
    """
    return tuple(sorted(file.stem for file in (declarations_folder("catalog") / "naming").glob("*.yaml")))


@cache
def naming(name: str) -> Naming:
    """The naming in ``catalog/naming/<name>.yaml``.

    Raises
    ------
    RecipeError
        If there is none of that name; the message has the nearest, and all.

    Examples
    --------
    >>> naming("imagexpress").title
    'Molecular Devices ImageXpress (MetaXpress)'
    """
    import yaml

    if name not in naming_ids():
        near = get_close_matches(name.casefold(), naming_ids(), 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise RecipeError(f"there is no naming {name!r}{hint} (known: {', '.join(naming_ids())})")
    path = declarations_folder("catalog") / "naming" / f"{name}.yaml"
    return Naming.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
