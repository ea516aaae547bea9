"""Named file namings: what a microscope's file names say, without a pattern of one's own.

>>> match = load_naming("imagexpress").match("1334/ZStep_2/P1_E07_s1_w2C0A49256-E289-4C0F-ADC9-F7728ABDB141.tif")
>>> dict(match.fields)
{'z': '2', 'plate': 'P1', 'well': 'E07', 'fov': '1', 'channel': '2'}
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

from chammi75.build.listing import FoundFile, compile_glob
from chammi75.build.planned import Finding
from chammi75.errors import RecipeError
from chammi75.readers.grouping import FilePattern, PatternMatch, match_first
from chammi75.schemas.naming import naming, naming_ids
from chammi75.schemas.recipe import BuildRecipe

_SAMPLE = 500  # names that a naming is tried on: what a folder holds is alike, and it may hold millions
_LEAST_SHARE = 0.5  # of the sample, so that a folder is said to have these names


@dataclass(frozen=True)
class FileNaming:
    """A naming, ready to read names; `load_naming` makes one."""

    id: str
    title: str
    patterns: tuple[FilePattern, ...]
    left_out: tuple[tuple[re.Pattern[str], str], ...]

    @property
    def text(self) -> str:
        """What it is called in messages."""
        return f"{self.id} ({self.title})"

    def match(self, relative_path: str) -> PatternMatch | None:
        """What the first of its patterns that fits reads from a path, or None if none does."""
        return match_first(self.patterns, relative_path)

    def what_is_left_out(self, path: str) -> str | None:
        """What a file is that is no image by this naming (``thumbnail``); None if it may be one."""
        return next((what for expression, what in self.left_out if expression.fullmatch(path)), None)


@cache
def load_naming(name: str) -> FileNaming:
    """The naming of that name.

    Raises
    ------
    RecipeError
        If there is none: with the nearest.

    Examples
    --------
    >>> load_naming("imagexpres")
    Traceback (most recent call last):
    ...
    chammi75.errors.RecipeError: there is no naming 'imagexpres'; did you mean 'imagexpress'? (known: ...
    """
    card = naming(name)
    return FileNaming(
        card.id,
        card.title,
        tuple(FilePattern.parse(f"{folder}{pattern}") for folder in card.folders for pattern in card.patterns),
        tuple((compile_glob(entry.glob), entry.what) for entry in card.left_out),
    )


def names_of(recipe: BuildRecipe) -> FilePattern | FileNaming | None:
    """What reads the file names of a recipe: its naming, its pattern, or nothing.

    Raises
    ------
    RecipeError
        If there is no such naming, the pattern cannot be used, or both are stated.
    """
    if recipe.naming is not None and recipe.pattern is not None:
        raise RecipeError(
            f"naming ({recipe.naming}) and pattern ({recipe.pattern}) both say how files are named: leave one of them"
        )
    if recipe.naming is not None:
        return load_naming(recipe.naming)
    return FilePattern.parse(recipe.pattern) if recipe.pattern is not None else None


def leave_out(found: Sequence[FoundFile], chosen: FileNaming) -> tuple[list[FoundFile], list[Finding]]:
    """The files that may be images by a naming, and a ``note`` that counts the others by what they are."""
    kept = []
    counts: dict[str, list[str]] = {}
    for file in found:
        what = chosen.what_is_left_out(file.path)
        if what is None:
            kept.append(file)
        else:
            counts.setdefault(what, []).append(file.path)
    findings = [
        Finding("note", paths[0], f"{_count(len(paths), what)} left out, by naming {chosen.id}")
        for what, paths in counts.items()
    ]
    return kept, findings


def report_known_names(paths: Sequence[str]) -> list[Finding]:
    """A ``note`` where most files of a folder without a pattern are named as a naming has it; nothing is grouped.

    Parameters
    ----------
    paths : sequence of str
        Paths of a folder's files.
    """
    sample = paths[:: max(1, len(paths) // _SAMPLE)]
    shares = {}
    for name in naming_ids():
        if naming(name).recognised:
            share = _share(sample, load_naming(name))
            if share >= _LEAST_SHARE:
                shares[name] = share
    best = [name for name, share in shares.items() if share == max(shares.values())]
    if not best:
        return []
    if len(best) > 1:
        words = " or ".join(f"naming: {name}" for name in best)
        return [Finding("note", paths[0], f"the files are named as several namings have it: {words} would group them")]
    chosen = load_naming(best[0])
    candidates = [path for path in paths if chosen.what_is_left_out(path) is None]
    matches = [match for path in candidates if (match := chosen.match(path)) is not None]
    files, images = len(matches), len({match.identity for match in matches})
    others = len(paths) - len(candidates)
    reason = (
        f"the names of {_count(files, 'file')} are those of {chosen.title}: naming: {chosen.id} would make"
        f" {_count(images, 'image')} of them"
    )
    return [Finding("note", paths[0], f"{reason}, and leave {_count(others, 'other')} out" if others else reason)]


def table() -> list[dict[str, str]]:
    """The namings as rows for people: ``naming``, ``title``, ``example`` (of the first name that it reads), ``says``.

    Examples
    --------
    >>> next(row["example"] for row in table() if row["naming"] == "cellomics")
    'AS_09125_050116030001_D03f00d1.tif'
    """
    rows = []
    for name in naming_ids():
        card = naming(name)
        example = card.examples[0]
        says = ", ".join(f"{field} {text}" for field, text in example.fields.items() if text)
        rows.append({"naming": name, "title": card.title, "example": example.path, "says": says})
    return rows


def _share(sample: Iterable[str], chosen: FileNaming) -> float:
    """Which part of the files that may be images a naming reads."""
    images = [path for path in sample if chosen.what_is_left_out(path) is None]
    return sum(chosen.match(path) is not None for path in images) / len(images) if images else 0.0


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
