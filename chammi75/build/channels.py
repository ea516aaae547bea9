"""Channels: which of a source's channels each file holds, in which order they are stored, and what they show.

The order holds for the whole source, so that channel 2 of one image is what channel 2 of another is, even where channel
1 is missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property

from chammi75.readers.grouping import natural_key
from chammi75.readers.image_file import ImageFile, Series
from chammi75.schemas.recipe import ChannelRule
from chammi75.schemas.vocabulary import Vocabulary, vocabulary

_COLOURS = frozenset({"r", "g", "b"})  # types of the parts of a colour picture; a file called "_R" is no such part


@dataclass(frozen=True, slots=True)
class Candidate:
    """A channel that a file holds: ``c`` of ``series``, counted from 0; ``token`` is what the file name says of it."""

    path: str
    token: str | None
    file: ImageFile
    series: Series
    c: int

    @property
    def name(self) -> str | None:
        """The channel's name in the file."""
        return self.series.channel_names[self.c]

    @property
    def words(self) -> tuple[str | None, str | None, str | None]:
        """What a rule may call it, the first first: by the file name, by its name in the file, by its number."""
        number = str(self.c + 1)
        if self.token is None:
            return None, self.name, number
        if len(self.series.channel_names) == 1:
            return self.token, self.name, None
        return f"{self.token}/{self.name or number}", self.name, None


@dataclass(frozen=True, slots=True)
class Placed:
    """A channel of an image. ``number`` is its place in the source's order, from 1."""

    number: int
    candidate: Candidate
    rule: ChannelRule | None = None


@dataclass(frozen=True, slots=True)
class Placement:
    """The channels of an image in stored order, and what is amiss.

    ``unnamed`` are channels that no rule names, ``disputed`` words for which several channels stand, ``missing`` the
    numbers that the image lacks.
    """

    placed: tuple[Placed, ...]
    missing: tuple[int, ...]
    unnamed: tuple[Candidate, ...] = ()
    disputed: tuple[tuple[str, tuple[Candidate, ...]], ...] = ()


@dataclass(frozen=True)
class ChannelLayout:
    """The channels of a source.

    Parameters
    ----------
    rules : tuple of ChannelRule, or None
        The recipe's.
    tokens : mapping
        What file names call channels, in natural order, and how many channels a file of that name holds at most.
    """

    rules: tuple[ChannelRule, ...] | None
    tokens: Mapping[str, int]

    @cached_property
    def _first_numbers(self) -> dict[str, int]:
        """Number of each token's first channel, where there are no rules."""
        numbers, number = {}, 1
        for token, count in self.tokens.items():
            numbers[token] = number
            number += count
        return numbers

    @cached_property
    def _tokens_by_position(self) -> dict[str, int]:
        """Slots of the rules without a name: they take the tokens that no rule names, in order."""
        names = {rule.name for rule in self.rules or ()}
        free = [at for at, rule in enumerate(self.rules or ()) if rule.name is None]
        return dict(zip([token for token in self.tokens if token not in names], free, strict=False))

    def name_of(self, number: int) -> str:
        """What people call the channel ``number``."""
        if self.rules is not None:
            rule = self.rules[number - 1]
            by_position = {at: token for token, at in self._tokens_by_position.items()}
            return rule.name or by_position.get(number - 1) or rule.panel or rule.channel_type or str(number)
        for token, first in self._first_numbers.items():
            if first <= number < first + self.tokens[token]:
                return token
        return str(number)

    def place(self, candidates: Sequence[Candidate]) -> Placement:
        """Order the channels of one image (the candidates come in the order of file names, then of the file)."""
        if self.rules is None:
            return self._place_as_found(candidates)
        slots: dict[int, Candidate] = {}
        disputed: list[tuple[str, tuple[Candidate, ...]]] = []
        taken: set[int] = set()
        for at, rule in enumerate(self.rules):
            hits = _called(candidates, rule.name) if rule.name is not None else []
            taken.update(id(hit) for hit in hits)
            if len(hits) == 1:
                slots[at] = hits[0]
            elif hits and rule.name is not None:
                disputed.append((rule.name, tuple(hits)))
        rest = [candidate for candidate in candidates if id(candidate) not in taken]
        free = [at for at, rule in enumerate(self.rules) if rule.name is None]
        unnamed = []
        for candidate in rest:
            slot = self._tokens_by_position.get(candidate.words[0] or "") if candidate.token is not None else None
            if candidate.token is None and free:
                slot = free.pop(0)
            if slot is None:
                unnamed.append(candidate)
            else:
                slots[slot] = candidate
        placed = tuple(Placed(at + 1, slots[at], self.rules[at]) for at in sorted(slots))
        missing = tuple(at + 1 for at in range(len(self.rules)) if at not in slots)
        return Placement(placed, missing, tuple(unnamed), tuple(disputed))

    def _place_as_found(self, candidates: Sequence[Candidate]) -> Placement:
        placed = [
            Placed(self._first_numbers.get(candidate.token or "", 1) + candidate.c, candidate)
            for candidate in candidates
        ]
        there = {candidate.token for candidate in candidates}
        if None in there:
            return Placement(tuple(placed), ())
        lacking = [token for token in self.tokens if token not in there]
        missing = [self._first_numbers[token] + c for token in lacking for c in range(self.tokens[token])]
        return Placement(tuple(sorted(placed, key=lambda entry: entry.number)), tuple(missing))


def lay_out_channels(rules: Sequence[ChannelRule] | None, tokens: Mapping[str, int]) -> ChannelLayout:
    """The layout of a source whose file names hold ``tokens`` (with the number of channels in such a file)."""
    ordered = {token: tokens[token] for token in sorted(tokens, key=natural_key)}
    return ChannelLayout(tuple(rules) if rules else None, ordered)


def channel_panel(placed: Placed) -> str | None:
    """The source's own word for a channel: the rule's, else the file's, else the file name's.

    A stain that a rule states as channel type ("actin") says more than a file name that is no word ("w3"): the type
    becomes the vocabulary's, and the stain stays here.
    """
    rule, candidate, words = placed.rule, placed.candidate, vocabulary("channel_types")
    stated = (rule.panel if rule else None) or candidate.name
    if stated is not None or rule is None or words.find(candidate.token) is not None:
        return stated or candidate.token
    term = words.find(rule.channel_type)
    return rule.channel_type if term is not None and term.name != rule.channel_type else candidate.token


def channel_type(placed: Placed) -> str | None:
    """What a channel shows: the rule's word for it, else what the vocabulary makes of its panel and names, else None.

    Words for the parts of a colour picture (r, g, b) are taken from colour pictures only: a file name with ``_R`` in it
    may mean anything. A word of the rule's that the vocabulary lacks is kept as it is.
    """
    words = vocabulary("channel_types")
    rule, candidate = placed.rule, placed.candidate
    if rule is not None and rule.channel_type is not None:
        term = words.find(rule.channel_type)
        return term.name if term else rule.channel_type
    for word in (rule.panel if rule else None, candidate.name, candidate.token):
        term = words.find(word)
        if term is not None and (candidate.series.rgb or term.name not in _COLOURS):
            return term.name
    return None


def nearest_word(words: Vocabulary, word: str) -> str | None:
    """The word of a vocabulary that ``word`` is perhaps meant to be."""
    known = [spelling for term in words.terms for spelling in (term.name, *term.synonyms)]
    near = get_close_matches(word, known, 1)
    return near[0] if near else None


def _called(candidates: Sequence[Candidate], name: str) -> list[Candidate]:
    """The channels that ``name`` means: by file name if any is called so, else by name in the file, else by number."""
    for level in range(3):
        hits = [candidate for candidate in candidates if candidate.words[level] == name]
        if hits:
            return hits
    return []
