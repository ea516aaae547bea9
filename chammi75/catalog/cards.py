"""Reads the folder of cards: ``platforms/*.yaml`` and ``sources/*.yaml``.

Each card is checked by its model when it is read; `chammi75.catalog.check` also compares cards with each other's words
and with the vocabularies.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from chammi75.catalog.yaml_file import Problem, YamlFile, read_yaml
from chammi75.errors import RecipeError
from chammi75.schemas.cards import PlatformCard, SourceCard

C = TypeVar("C", bound=SourceCard | PlatformCard)

KINDS: dict[str, type[SourceCard] | type[PlatformCard]] = {"sources": SourceCard, "platforms": PlatformCard}
"""Folder of the catalog -> model of its cards."""


@dataclass(frozen=True)
class CardFolder(Generic[C]):
    """The cards of one folder.

    Attributes
    ----------
    files : tuple of YamlFile
        One per file, in the order of their names.
    problems : tuple of Problem
        What is wrong with them, file by file, and names that two of them claim.
    """

    files: tuple[YamlFile[C], ...]
    problems: tuple[Problem, ...]

    @property
    def cards(self) -> tuple[C, ...]:
        """The cards that read."""
        return tuple(file.value for file in self.files if file.value is not None)


def card_files(folder: Path) -> list[Path]:
    """The cards in a folder, in the order of their names; none if the folder is not there."""
    return sorted(path for path in folder.glob("*.yaml") if path.is_file())


def read_cards(folder: Path, model: type[C]) -> CardFolder[C]:
    """Read every card of a folder.

    Parameters
    ----------
    folder : Path
        ``…/sources`` or ``…/platforms``.
    model : type
        SourceCard or PlatformCard.

    Returns
    -------
    CardFolder
        Also where cards have problems: it lists them.
    """
    files = tuple(read_yaml(path, model) for path in card_files(folder))
    problems = [problem for file in files for problem in file.problems]
    claimed: dict[str, YamlFile[C]] = {}
    for file in files:
        card = file.value
        if card is None:
            continue
        stem = Path(file.path).stem
        if card.id != stem:
            problems.append(file.problem(("id",), f"id: {card.id!r} must be the file's name, {stem!r}"))
        for name in (card.id, *card.aliases):
            other = claimed.setdefault(name.casefold(), file)
            if other is not file:
                where = "id" if name == card.id else "aliases"
                message = f"{where}: the name {name!r} is also in {other.path}: a name stands for one card"
                problems.append(file.problem((where,), message))
    return CardFolder(files, tuple(problems))


def kind_folder(catalog: Path, kind: str) -> Path:
    """The folder of one kind of declarations; a catalog that lacks platforms or vocabularies takes those shipped."""
    from chammi75.declarations import declarations_folder

    own = catalog / kind
    return own if own.is_dir() or kind == "sources" else declarations_folder("catalog") / kind


def catalog_folder(folder: str | Path | None) -> Path:
    """The folder of a catalog; None is the one that is shipped.

    Raises
    ------
    RecipeError
        If it holds neither ``sources`` nor ``platforms``.
    """
    from chammi75.declarations import declarations_folder

    path = declarations_folder("catalog") if folder is None else Path(folder).expanduser().absolute()
    if not any((path / kind).is_dir() for kind in KINDS):
        raise RecipeError(
            f"{path} is no catalog: it has neither a folder sources nor a folder platforms, with cards in it"
        )
    return path
