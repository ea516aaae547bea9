"""Checks a whole catalog: every card and vocabulary by itself, and what they say of each other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from chammi75.catalog.cards import catalog_folder, kind_folder, read_cards
from chammi75.catalog.licenses import is_known_license, known_license_ids
from chammi75.catalog.yaml_file import Problem, YamlFile, read_yaml
from chammi75.schemas.cards import PlatformCard, SourceCard
from chammi75.schemas.vocabulary import Vocabulary

_SCHEMAS = {"sources": "source-card", "platforms": "platform-card", "vocabularies": "vocabulary"}


@dataclass(frozen=True)
class CatalogCheck:
    """What a check found.

    Attributes
    ----------
    files : int
        Files that were read.
    problems : tuple of Problem
        What is wrong, by file and line.
    """

    files: int
    problems: tuple[Problem, ...]


def check_catalog(folder: str | Path | None = None) -> CatalogCheck:
    """Check all cards and vocabularies of a catalog.

    Parameters
    ----------
    folder : str or Path, optional
        The catalog; the one that is shipped if left out. One without platforms or vocabularies is checked
        with those shipped.

    Raises
    ------
    RecipeError
        If the folder is no catalog.

    Examples
    --------
    >>> check_catalog().problems
    ()
    """
    root = catalog_folder(folder)
    sources = read_cards(root / "sources", SourceCard)
    platforms = read_cards(kind_folder(root, "platforms"), PlatformCard)
    words = [read_yaml(path, Vocabulary) for path in sorted(kind_folder(root, "vocabularies").glob("*.yaml"))]
    problems = [*sources.problems, *platforms.problems, *(problem for file in words for problem in file.problems)]
    known = _vocabularies(words)
    platform_ids = [card.id for card in platforms.cards]
    for source in sources.files:
        if source.value is not None:
            problems += _problems_of_source(source, source.value, known, platform_ids)
    for platform in platforms.files:
        if platform.value is not None and platform.value.default_license is not None:
            problems += _problems_of_license(platform, ("default_license",), platform.value.default_license)
    for kind in _SCHEMAS:
        problems += _problems_of_files(root / kind)
    order = sorted(problems, key=lambda problem: (problem.path, problem.line or 0))
    return CatalogCheck(len(sources.files) + len(platforms.files) + len(words), tuple(order))


def _vocabularies(files: list[YamlFile[Vocabulary]]) -> dict[str, Vocabulary]:
    """The vocabularies that read."""
    return {Path(file.path).stem: file.value for file in files if file.value is not None}


def _problems_of_source(
    file: YamlFile[SourceCard], card: SourceCard, words: dict[str, Vocabulary], platforms: list[str]
) -> Iterator[Problem]:
    hosts = [
        (("platform",), card.platform),
        *((("also_at", n, "platform"), one.platform) for n, one in enumerate(card.also_at)),
    ]
    for where, host in hosts:
        if host is not None and host not in platforms:
            yield file.problem(where, f"platform: {host!r} has no card in platforms/{_near(host, platforms)}")
    if card.license is not None:
        yield from _problems_of_license(file, ("license",), card.license)
    if card.collection is not None and card.collection.license is not None:
        yield from _problems_of_license(file, ("collection", "license"), card.collection.license)
    for number, configuration in enumerate(card.configurations):
        for place, channel in enumerate(configuration.channels):
            channel_at = ("configurations", number, "channels", place, "channel_type")
            yield from _problems_of_word(file, channel_at, "channel_types", channel.channel_type, words)
    for number, method in enumerate(card.imaging_methods):
        at = ("imaging_methods", number, "microscopy_type")
        yield from _problems_of_word(file, at, "microscopy_types", method.microscopy_type, words)
    for number, organism in enumerate(card.organisms):
        yield from _problems_of_word(file, ("organisms", number, "name"), "organisms", organism.name, words)
        term = words["organisms"].find(organism.name) if "organisms" in words else None
        if term is not None and term.id and organism.ncbi_taxon_id and term.id != f"NCBITaxon:{organism.ncbi_taxon_id}":
            message = f"ncbi_taxon_id: {organism.name} is {term.id} in vocabularies/organisms.yaml"
            yield file.problem(("organisms", number, "ncbi_taxon_id"), message)


def _problems_of_word(
    file: YamlFile[SourceCard], where: tuple[str | int, ...], name: str, word: str | None, words: dict[str, Vocabulary]
) -> Iterator[Problem]:
    if word is None or name not in words:
        return
    term = words[name].find(word)
    if term is None:
        near = _near(word, [spelling for one in words[name].terms for spelling in (one.name, *one.synonyms)])
        yield file.problem(
            where, f"{where[-1]}: {word!r} is no word of vocabularies/{name}.yaml{near}; or add it there"
        )
    elif term.name != word:
        yield file.problem(where, f"{where[-1]}: {word!r} is written {term.name!r} here")


def _problems_of_license(
    file: YamlFile[SourceCard] | YamlFile[PlatformCard], where: tuple[str, ...], license: str
) -> Iterator[Problem]:
    if not is_known_license(license) and not license.startswith("LicenseRef-"):
        hint = _near(license.replace(" ", "-"), known_license_ids())
        message = (
            f"{where[-1]}: {license!r} is no SPDX id that is known here{hint} (a licence of its own: LicenseRef-…)"
        )
        yield file.problem(where, message)


def _problems_of_files(folder: Path) -> Iterator[Problem]:
    """Files that would be overlooked, and files that do not name their JSON Schema for editors."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.suffix in (".yml", ".YAML", ".YML", ".json"):
            yield Problem(str(path), None, "it is not read: the name of a card ends with .yaml")
        elif path.suffix == ".yaml" and path.is_file():
            with open(path, encoding="utf-8", errors="replace") as file:
                first = file.readline().strip()
            expected = f"{_SCHEMAS[folder.name]}.schema.json"
            if not first.startswith("# yaml-language-server: $schema=") or not first.endswith(f"/{expected}"):
                line = f"# yaml-language-server: $schema=../../schemas/{expected}"
                yield Problem(str(path), 1, f"the first line names the JSON Schema, for editors: {line}")


def _near(word: str, known: list[str]) -> str:
    near = get_close_matches(word, known, 1)
    return f"; did you mean {near[0]!r}?" if near else ""
