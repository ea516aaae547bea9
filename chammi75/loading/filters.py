"""The keyword filters of ``load_dataset``: organism, channel type … answered on the facets of an index."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chammi75.errors import FilterError
from chammi75.store.facets import Facet

Words = str | Sequence[str] | None
Numbers = float | Sequence[float | None] | Mapping[str, float | None] | None

_VOCABULARIES = {"organism": "organisms", "microscopy_type": "microscopy_types", "channel_type": "channel_types"}


@dataclass(frozen=True, kw_only=True)
class Filters:
    """What to keep. None keeps all.

    A word means equal (``channel_type``: has it); a list of ``channel_type`` means has all of these, other lists mean
    any of these; a tuple of two numbers, or ``{"min": …, "max": …}``, an inclusive range, open where None.
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

        Raises
        ------
        FilterError
            If a value is unknown here; the message names the nearest known ones.
        """
        mask = np.ones(images, bool)
        for name, wanted in self.stated().items():
            if name in ("channel_type", "select_channels", "num_channels"):
                mask &= _by_channels(name, wanted, facet("channel_types"))
            elif name == "magnification":
                found = facet(name)
                mask &= found.matching(_in_numbers(name, wanted, found.values))
            else:
                found = facet(name)
                words = _words(name, wanted)
                _check_known(name, words, found.values)
                mask &= found.matching([value in words for value in found.values])
        return mask


def _by_channels(name: str, wanted: Any, found: Facet) -> NDArray[np.bool_]:
    configurations = [json.loads(value) for value in found.values]
    if name == "num_channels":
        sizes = [len(configuration) for configuration in configurations]
        return found.matching(_in_numbers(name, wanted, sizes))
    words = _words(name, wanted)
    _check_known("channel_type", words, [word for configuration in configurations for word in configuration if word])
    if name == "select_channels":
        return found.matching([any(word in configuration for word in words) for configuration in configurations])
    return found.matching([all(word in configuration for word in words) for configuration in configurations])


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


def _check_known(name: str, words: list[str], values: Sequence[str]) -> None:
    known = sorted(set(values))
    for word in words:
        if word in known:
            continue
        if not known:
            raise FilterError(f"{name}={word!r}: {name} is unknown for every image here")
        hint = _hint(name, word, known)
        raise FilterError(f"{name}={word!r} is not in this dataset{hint}")


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


def _in_numbers(name: str, wanted: Any, values: Sequence[float]) -> list[bool]:
    """Which values a number, a list of numbers or a range lets pass."""
    if isinstance(wanted, Mapping):
        if not wanted or set(wanted) - {"min", "max"}:
            raise FilterError(f"{name}: a range is written {{min: …, max: …}}, not {dict(wanted)!r}")
        wanted = (wanted.get("min"), wanted.get("max"))
    if isinstance(wanted, tuple) and len(wanted) == 2:
        low, high = (_number(name, bound) if bound is not None else None for bound in wanted)
        if low is not None and high is not None and low > high:
            raise FilterError(f"{name}={wanted!r} is an empty range: the first number is the smaller one")
        passes = [(low is None or value >= low) and (high is None or value <= high) for value in values]
        if not any(passes):
            raise FilterError(f"{name}={wanted!r} holds no value of this dataset; known are {_listed(values)}")
        return passes
    numbers = [
        _number(name, value)
        for value in (wanted if isinstance(wanted, Sequence) and not isinstance(wanted, str) else [wanted])
    ]
    for number in numbers:
        if number not in values:
            raise FilterError(f"{name}={number:g} is not in this dataset; known are {_listed(values)}")
    return [value in numbers for value in values]


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise FilterError(f"{name} takes a number, a list of numbers or a range (20, 63), not {value!r}")
    return float(value)


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in sorted(set(values))) or "none (it is unknown for every image)"
