"""The catalog: the cards of sources and platforms, by name and by what is known of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from difflib import get_close_matches
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

from chammi75.catalog.cards import KINDS, card_files, catalog_folder, kind_folder, read_cards
from chammi75.catalog.citation import Cited, cite
from chammi75.catalog.licenses import LICENSE_SETS, is_known_license, known_license_ids, permits
from chammi75.catalog.yaml_file import problems_error
from chammi75.errors import ChammiError, FilterError
from chammi75.schemas.cards import PlatformCard, SourceCard

if TYPE_CHECKING:
    import pandas

C = TypeVar("C", bound=SourceCard | PlatformCard)
Words = str | Sequence[str] | None


class SourceProvenance(NamedTuple):
    """What a record carries of its source; None where it is not known."""

    platform: str | None = None
    title: str | None = None
    license: str | None = None
    doi: str | None = None


class Catalog:
    """The cards of sources and platforms.

    Parameters
    ----------
    folder : str or Path, optional
        A folder with ``sources/*.yaml`` and, unless those that are shipped will do, ``platforms/*.yaml``; the catalog
        that is shipped if left out. It is read once, when a card is asked for first.

    Raises
    ------
    RecipeError
        If the folder is no catalog; when it is read, if a card does not say what it must (file, line, what is
        allowed), or if two cards claim one name.

    Examples
    --------
    >>> catalog = Catalog()
    >>> catalog.source("hpa0018").id
    'hpa0001'
    >>> [card.id for card in catalog.filter(organism="fission yeast")]
    ['idr0001']
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self.folder = catalog_folder(folder)
        self._kept: tuple[str, ...] | None = None

    @cached_property
    def sources(self) -> tuple[SourceCard, ...]:
        """The cards of sources, in the order of their ids."""
        cards = _read(self.folder, SourceCard)
        return cards if self._kept is None else tuple(card for card in cards if card.id in self._kept)

    @cached_property
    def platforms(self) -> tuple[PlatformCard, ...]:
        """The cards of platforms, in the order of their ids."""
        return _read(self.folder, PlatformCard)

    def __len__(self) -> int:
        return len(self.sources)

    def __iter__(self) -> Iterator[SourceCard]:
        return iter(self.sources)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.find_source(name) is not None

    def __repr__(self) -> str:
        return f"<Catalog: {len(self)} sources, {len(self.platforms)} platforms>"

    def source(self, name: str) -> SourceCard:
        """The card of a source.

        Parameters
        ----------
        name : str
            Its id or an alias; case does not matter.

        Raises
        ------
        ChammiError
            If no card has that name; the message gives the nearest ones.
        """
        return _named(self.sources, name, "source")

    def find_source(self, name: str | None) -> SourceCard | None:
        """The card of a source, or None if no card has that name."""
        return None if name is None else self._sources_by_name.get(name.casefold())

    @cached_property
    def _sources_by_name(self) -> dict[str, SourceCard]:
        return {name.casefold(): card for card in self.sources for name in (card.id, *card.aliases)}

    def platform(self, name: str) -> PlatformCard:
        """The card of a platform, by id or alias; errors as `source`."""
        return _named(self.platforms, name, "platform")

    def provenance(self, study: str | None) -> SourceProvenance:
        """What the records of a study carry: platform, title, licence (SPDX), the DOI of the data, else of the study.

        Examples
        --------
        >>> found = Catalog().provenance("idr0017")
        >>> found.platform, found.license, found.doi
        ('idr', 'CC-BY-NC-ND-4.0', '10.17867/10000101')
        >>> Catalog().provenance("my study")
        SourceProvenance(platform=None, title=None, license=None, doi=None)
        """
        card = self.find_source(study)
        return SourceProvenance(card.platform, card.title, card.license, card.doi) if card else SourceProvenance()

    def cited(self, name: str, images: int | None = None) -> Cited:
        """What a citation of a source says, with the name of its platform; errors as `source`."""
        card = self.source(name)
        platform = _find(self.platforms, card.platform) if card.platform else None
        return Cited.of_card(card, images, platform=platform.name if platform else None)

    def cite(self, *names: str, style: Literal["bibtex", "csl", "text"] = "bibtex") -> str:
        """Citations of sources; of all of this catalog if none is named. See `chammi75.catalog.citation.cite`."""
        return cite([self.cited(name) for name in names or [card.id for card in self]], style)

    def filter(
        self,
        *,
        license: Words = None,
        organism: Words = None,
        channel_type: Words = None,
        microscopy_type: Words = None,
        platform: Words = None,
        cell_line: Words = None,
    ) -> Catalog:
        """The sources that fit, as a catalog.

        A word means equal (``channel_type``: has it). A list of ``channel_type`` means that one configuration has all
        of these; other lists mean any of these. A source of which the thing is unknown does not fit.

        Parameters
        ----------
        license : str or list of str
            SPDX ids, or names of `LICENSE_SETS` ("commercial", "derivatives", "open" …).
        organism, channel_type, microscopy_type : str or list of str
            Words of the vocabularies or their synonyms ("human", "DAPI", "spinning disk confocal microscopy").
        platform : str or list of str
            Ids or aliases of platforms.
        cell_line : str or list of str
            Cell lines; case, spaces and hyphens do not matter.

        Raises
        ------
        FilterError
            If a word is not known; the message gives the nearest ones.

        Examples
        --------
        >>> len(Catalog().filter(license="CC0-1.0")), len(Catalog().filter(license="commercial", platform="idr"))
        (3, 31)
        """
        everything = _read(self.folder, SourceCard)
        tests: list[Callable[[SourceCard], bool]] = []
        if license is not None:
            wanted = [_license_word(word, everything) for word in _list("license", license)]
            tests.append(lambda card: any(_has_license(card, word) for word in wanted))
        if organism is not None:
            names = _in_vocabulary("organism", "organisms", organism, lambda card: _organisms(card), everything)
            tests.append(lambda card: bool(names & set(_organisms(card))))
        if microscopy_type is not None:
            kinds = _in_vocabulary(
                "microscopy_type", "microscopy_types", microscopy_type, lambda card: card.microscopy_types, everything
            )
            tests.append(lambda card: bool(kinds & set(card.microscopy_types)))
        if channel_type is not None:
            types = _in_vocabulary(
                "channel_type", "channel_types", channel_type, lambda card: card.channel_types, everything
            )
            tests.append(
                lambda card: any(types <= {one.channel_type for one in each.channels} for each in card.configurations)
            )
        if platform is not None:
            hosts = {_platform_word(word, self.platforms, everything) for word in _list("platform", platform)}
            tests.append(lambda card: card.platform in hosts)
        if cell_line is not None:
            lines = _cell_lines(cell_line, everything)
            tests.append(lambda card: any(_folded(line) in lines for line in card.cell_lines))
        found = Catalog.__new__(Catalog)
        found.folder = self.folder
        found._kept = tuple(card.id for card in self if all(test(card) for test in tests))
        return found

    def rows(self) -> list[dict[str, Any]]:
        """One mapping per source, with plain values: what tables of the catalog show."""
        return [source_row(card) for card in self]

    def to_pandas(self) -> pandas.DataFrame:
        """The sources as a table: one row per card, with the columns of `rows`."""
        import pandas

        rows = self.rows()
        return pandas.DataFrame(rows, columns=list(rows[0]) if rows else list(_COLUMNS))

    def _repr_html_(self) -> str:
        from chammi75.pictures.html import element, joined, table

        shown = [{name: row[name] for name in _SHOWN} for row in self.rows()]
        return joined([element("p", repr(self)), table(shown)])


_COLUMNS = (
    "id",
    "title",
    "license",
    "platform",
    "accession",
    "organisms",
    "cell_lines",
    "microscopy_types",
    "channel_types",
    "magnification",
    "images",
    "bytes",
    "doi",
    "release_date",
)
_SHOWN = ("id", "title", "license", "platform", "organisms", "microscopy_types", "channel_types", "images")


def source_row(card: SourceCard) -> dict[str, Any]:
    """What a table shows of a source; None is unknown."""
    values = (
        card.id,
        card.title,
        card.license,
        card.platform,
        card.accession,
        _organisms(card),
        list(card.cell_lines),
        card.microscopy_types,
        card.channel_types,
        card.magnification,
        card.expected_images,
        card.expected_bytes,
        card.doi,
        card.release_date,
    )
    return dict(zip(_COLUMNS, values, strict=True))


def _read(folder: Path, model: type[C]) -> tuple[C, ...]:
    """The cards of a folder; read again when a file changed."""
    kind = next(name for name, one in KINDS.items() if one is model)
    cards_folder = kind_folder(folder, kind)
    files = [
        (path.name, status.st_size, status.st_mtime_ns) for path in card_files(cards_folder) for status in [path.stat()]
    ]
    cards: tuple[C, ...] = _read_unchanged(cards_folder, kind, tuple(files))
    return cards


@lru_cache(maxsize=8)
def _read_unchanged(folder: Path, kind: str, files: tuple[tuple[str, int, int], ...]) -> tuple[Any, ...]:
    del files  # part of the key of the cache
    found = read_cards(folder, KINDS[kind])
    if found.problems:
        raise problems_error(found.problems)
    return found.cards


def _find(cards: Iterable[C], name: str) -> C | None:
    key = name.casefold()
    return next((card for card in cards if key == card.id.casefold() or key in map(str.casefold, card.aliases)), None)


def _named(cards: Sequence[C], name: str, what: str) -> C:
    card = _find(cards, name)
    if card is not None:
        return card
    names = [word for one in cards for word in (one.id, *one.aliases)]
    raise ChammiError(f"there is no {what} {name!r} in the catalog (chammi75 {what}s lists all){_hint(name, names)}")


def _hint(word: str, known: Iterable[str]) -> str:
    folded = {value.casefold(): value for value in known}
    near = get_close_matches(word.casefold(), folded, 3, 0.6)
    same = [value for value in folded if _unpadded(value) == _unpadded(word)]  # idr001 is meant to be idr0001
    within = [value for value in folded if len(word) > 2 and re.search(rf"\b{re.escape(word.casefold())}", value)]
    near = list(dict.fromkeys([*same, *within, *near]))[:3]  # yeast: budding yeast, fission yeast
    if near:
        return f"; did you mean {' or '.join(folded[value] for value in near)}?"
    shown = list(folded.values())
    return f"; known are {', '.join(shown[:12])}{f' and {len(shown) - 12} more' if len(shown) > 12 else ''}"


def _unpadded(word: str) -> str:
    return re.sub(r"0+(?=\d)", "", word.casefold())


def _list(name: str, words: str | Sequence[str]) -> list[str]:
    values = [words] if isinstance(words, str) else list(words) if isinstance(words, Iterable) else []
    if not values or not all(isinstance(value, str) and value for value in values):
        raise FilterError(f"{name} takes a word or a list of words, not {words!r}")
    return values


def _in_vocabulary(
    name: str,
    vocabulary_name: str,
    words: str | Sequence[str],
    values: Callable[[SourceCard], list[str]],
    cards: Sequence[SourceCard],
) -> set[str]:
    """The words in the vocabulary's spelling; words that only cards have stay."""
    from chammi75.schemas.vocabulary import vocabulary

    terms = vocabulary(vocabulary_name)
    there = {value.casefold(): value for card in cards for value in values(card)}
    found = set()
    for word in _list(name, words):
        term = terms.find(word)
        if term is None and word.casefold() not in there:
            known = [*there.values(), *(spelling for one in terms.terms for spelling in (one.name, *one.synonyms))]
            raise FilterError(f"{name}={word!r} is no known word{_hint(word, known)}")
        found.add(term.name if term is not None else there[word.casefold()])
    return found


def _license_word(word: str, cards: Sequence[SourceCard]) -> str:
    stated = {card.license for card in cards if card.license is not None}
    if word not in LICENSE_SETS and word not in stated and not is_known_license(word):
        known = [*sorted(stated), *LICENSE_SETS, *known_license_ids()]
        raise FilterError(f"license={word!r} is neither an SPDX id nor a set of licences{_hint(word, known)}")
    return word


def _has_license(card: SourceCard, word: str) -> bool:
    if card.license is None:
        return False
    return permits(card.license, word) if word in LICENSE_SETS else card.license.casefold() == word.casefold()


def _platform_word(word: str, platforms: Sequence[PlatformCard], cards: Sequence[SourceCard]) -> str:
    card = _find(platforms, word)
    if card is not None:
        return card.id
    named = {one.platform for one in cards if one.platform is not None}
    if word not in named:
        known = [*sorted(named), *(name for one in platforms for name in (one.id, *one.aliases))]
        raise FilterError(f"platform={word!r} is no platform of the catalog{_hint(word, known)}")
    return word


def _cell_lines(words: str | Sequence[str], cards: Sequence[SourceCard]) -> set[str]:
    there = {_folded(line): line for card in cards for line in card.cell_lines}
    for word in _list("cell_line", words):
        if _folded(word) not in there:
            raise FilterError(f"cell_line={word!r} is no cell line of the catalog{_hint(word, there.values())}")
    return {_folded(word) for word in _list("cell_line", words)}


def _folded(word: str) -> str:
    return re.sub(r"[\s_\-]+", "", word).casefold()


def _organisms(card: SourceCard) -> list[str]:
    return [organism.name for organism in card.organisms]
