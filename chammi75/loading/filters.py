"""The keyword filters of ``load_dataset``: organism, channel type … answered on the facets of an index."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from chammi75.errors import FilterError
from chammi75.store.facets import Facet

Words = str | Sequence[str] | None
Numbers = float | Sequence[float | None] | Mapping[str, float | None] | None


class FilterOptions(TypedDict, total=False):
    """The keyword filters of ``load_dataset``; see ``Filters``."""

    organism: Words
    channel_type: Words
    study: Words
    platform: Words
    cell_line: Words
    microscopy_type: Words
    magnification: Numbers
    num_channels: Numbers
    license: Words
    select_channels: Words


_VOCABULARIES = {"organism": "organisms", "microscopy_type": "microscopy_types", "channel_type": "channel_types"}


@dataclass(frozen=True, kw_only=True)
class Filters:
    """What to keep. None keeps all.

    A word means equal (``channel_type``: has it); a list of ``channel_type`` means has all of these, other lists mean
    any of these; a tuple of two numbers, or ``{"min": …, "max": …}``, an inclusive range, open where None. ``license``
    also takes the name of a set of licences (``"commercial"``, see ``chammi75.catalog.licenses``); an image of unknown
    licence is in none.
    """

    organism: Words = None
    channel_type: Words = None
    study: Words = None
    platform: Words = None
    cell_line: Words = None
    microscopy_type: Words = None
    magnification: Numbers = None
    num_channels: Numbers = None
    license: Words = None
    select_channels: Words = None

    def stated(self) -> dict[str, Any]:
        """The filters that are set."""
        return {
            field.name: getattr(self, field.name) for field in fields(self) if getattr(self, field.name) is not None
        }

    def kept_channel_types(self) -> tuple[str, ...] | None:
        """The channel types of ``select_channels``; None where all planes stay."""
        return None if self.select_channels is None else tuple(_words("select_channels", self.select_channels))

    def check(self, values: Callable[[str], list[Any]]) -> None:
        """Refuse what is unknown.

        Parameters
        ----------
        values : callable
            Gives the different values of a facet, over everything that is loaded.

        Raises
        ------
        FilterError
            If a filter names a value that is nowhere; the message names the nearest known ones.
        """
        for name, wanted in self.stated().items():
            if name == "num_channels":
                _check_numbers(name, wanted, [len(types) for types in _configurations(values("channel_types"))])
            elif name == "magnification":
                _check_numbers(name, wanted, values(name))
            elif name in _BY_CHANNELS:
                types = [word for types in _configurations(values("channel_types")) for word in types if word]
                _check_known(name, "channel_type", _words(name, wanted), types)
            elif name == "license":
                _check_licenses(_words(name, wanted), values(name))
            else:
                _check_known(name, name, _words(name, wanted), values(name))

    def mask(self, facet: Callable[[str], Facet], images: int) -> NDArray[np.bool_]:
        """Which images pass.

        Parameters
        ----------
        facet : callable
            Gives the facet of a name (see ``chammi75.store.facets.FACETS``).
        images : int
            Number of images.

        Returns
        -------
        ndarray of bool, shape (images,)
        """
        mask = np.ones(images, bool)
        for name, wanted in self.stated().items():
            found = facet("channel_types" if name in (*_BY_CHANNELS, "num_channels") else name)
            if name == "num_channels":
                passes = _in_numbers(name, wanted, [len(types) for types in _configurations(found.values)])
            elif name == "magnification":
                passes = _in_numbers(name, wanted, found.values)
            elif name in _BY_CHANNELS:
                enough, words = _BY_CHANNELS[name], _words(name, wanted)
                passes = [enough(word in types for word in words) for types in _configurations(found.values)]
            else:
                words = _words(name, wanted)
                if name == "license":
                    words = [license_ for word in words for license_ in _licenses(word, found.values)]
                passes = [value in words for value in found.values]
            mask &= found.matching(passes)
        return mask


_BY_CHANNELS: dict[str, Callable[[Iterable[bool]], bool]] = {"channel_type": all, "select_channels": any}
"""Filters by channel types, and whether an image must have all of the words or any."""


def _configurations(values: Iterable[str]) -> list[list[str | None]]:
    """The channel types of each value of the facet ``channel_types``."""
    return [json.loads(value) for value in values]


def _words(name: str, wanted: Any) -> list[str]:
    words = (
        [wanted]
        if isinstance(wanted, str)
        else list(wanted)
        if isinstance(wanted, Sequence | set | frozenset)
        else None
    )
    if words is None or not words or not all(isinstance(word, str) for word in words):
        raise FilterError(f"{name} takes a word or a list of words, not {wanted!r}")
    return words


def _check_known(name: str, vocabulary_of: str, words: list[str], values: Sequence[str]) -> None:
    known = sorted(set(values))
    for word in words:
        if not known:
            raise FilterError(f"{name}={word!r}: {vocabulary_of} is unknown for every image here")
        if word not in known:
            raise FilterError(f"{name}={word!r} is not in this dataset{_hint(vocabulary_of, word, known)}")


def _licenses(word: str, known: Sequence[str]) -> list[str]:
    """The licences that a word means: itself, or those of the set that it names."""
    if word in known:
        return [word]
    from chammi75.catalog.licenses import LICENSE_SETS, licenses_in_set

    return licenses_in_set(word, known) if word in LICENSE_SETS else []


def _check_licenses(words: list[str], values: Sequence[str]) -> None:
    for word in words:
        if _licenses(word, values):
            continue
        from chammi75.catalog.licenses import LICENSE_SETS

        if word in LICENSE_SETS:
            here = ", ".join(sorted(set(values))) or "none (it is unknown for every image)"
            raise FilterError(
                f"license={word!r} ({LICENSE_SETS[word]}): no licence here is in that set; here are {here}"
            )
        try:
            _check_known("license", "license", [word], values)
        except FilterError as error:
            near = get_close_matches(word.casefold(), LICENSE_SETS, 1, 0.7)
            hint = f"did you mean the set {near[0]!r}?" if near else f"sets are {', '.join(map(repr, LICENSE_SETS))}"
            raise FilterError(f"{error}; {hint}") from error


def _hint(name: str, word: str, known: list[str]) -> str:
    from chammi75.schemas.vocabulary import vocabulary

    if name in _VOCABULARIES:
        term = vocabulary(_VOCABULARIES[name]).find(word)
        if term is not None and term.name in known:
            return f"; it is called {term.name!r} here"
    folded = {value.casefold(): value for value in known}
    near = get_close_matches(word.casefold(), folded, 3, 0.5)
    names = ", ".join(repr(folded[value]) for value in near) if near else ", ".join(map(repr, known[:12]))
    more = f" and {len(known) - 12} more" if not near and len(known) > 12 else ""
    return f"; {'nearest' if near else 'known'} are {names}{more}"


def _range(name: str, wanted: Any) -> tuple[float, float] | None:
    """The ends of a range, infinite where open; None if ``wanted`` is no range."""
    if isinstance(wanted, Mapping):
        if not wanted or set(wanted) - {"min", "max"}:
            raise FilterError(f"{name}: a range is written {{min: …, max: …}}, not {dict(wanted)!r}")
        wanted = (wanted.get("min"), wanted.get("max"))
    if not isinstance(wanted, tuple) or len(wanted) != 2:
        return None
    low = -math.inf if wanted[0] is None else _number(name, wanted[0])
    high = math.inf if wanted[1] is None else _number(name, wanted[1])
    if low > high:
        raise FilterError(f"{name}={wanted!r} is an empty range: the first number is the smaller one")
    return low, high


def _numbers(name: str, wanted: Any) -> list[float]:
    values = wanted if isinstance(wanted, Sequence) and not isinstance(wanted, str) else [wanted]
    if not values:
        raise FilterError(f"{name} takes a number, a list of numbers or a range (20, 63), not {wanted!r}")
    return [_number(name, value) for value in values]


def _in_numbers(name: str, wanted: Any, values: Sequence[float]) -> list[bool]:
    """Which values a number, a list of numbers or a range lets pass."""
    bounds = _range(name, wanted)
    if bounds is not None:
        return [bounds[0] <= value <= bounds[1] for value in values]
    numbers = _numbers(name, wanted)
    return [value in numbers for value in values]


def _check_numbers(name: str, wanted: Any, values: Sequence[float]) -> None:
    if _range(name, wanted) is not None:
        if not any(_in_numbers(name, wanted, values)):
            raise FilterError(f"{name}={wanted!r} holds no value of this dataset; known are {_listed(values)}")
        return
    for number in _numbers(name, wanted):
        if number not in values:
            raise FilterError(f"{name}={number:g} is not in this dataset; known are {_listed(values)}")


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise FilterError(f"{name} takes a number, a list of numbers or a range (20, 63), not {value!r}")
    return float(value)


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in sorted(set(values))) or "none (it is unknown for every image)"
