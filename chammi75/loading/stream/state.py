"""Where a stream goes on, as a few integers and short texts, and a fingerprint of what its order depends on."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from chammi75.errors import ChammiError

VERSION = 1
"""Of states; one that means something else by its numbers has another."""

_KEYS = ("version", "epoch", "position", "fingerprint", "parts")
_SHORT = 8


def fingerprint(parts: Mapping[str, object]) -> str:
    """SHA-256 of what the samples of a stream depend on, as hexadecimal text.

    Parameters
    ----------
    parts : mapping
        By name, in any order. Content hashes, the seed, settings: None, booleans, whole numbers, finite floats, texts,
        and lists and mappings of such.

    Raises
    ------
    ChammiError
        If a part is anything else.

    Examples
    --------
    >>> fingerprint({"seed": 1, "store": "abc"}) == fingerprint({"store": "abc", "seed": 1})
    True
    >>> fingerprint({"seed": 1}) == fingerprint({"seed": 2})
    False
    """
    return hashlib.sha256(_canonical(parts, "")).hexdigest()


def short_hashes(parts: Mapping[str, object]) -> str:
    """The first eight digits of each part's own hash, as one text: what tells which part of two states differs.

    Examples
    --------
    >>> short_hashes({"store": "abc", "seed": 1})
    'seed:6b86b273 store:6cc43f85'
    """
    for name in parts:
        if not re.fullmatch(r"[a-z_][a-z_0-9]*", name):
            raise ChammiError(f"{name!r} cannot name a part of a fingerprint: small letters, digits and _ can")
    digests = {name: hashlib.sha256(_canonical(part, name)).hexdigest() for name, part in parts.items()}
    return " ".join(f"{name}:{digests[name][:_SHORT]}" for name in sorted(digests))


@dataclass(frozen=True)
class StreamState:
    """Where a stream goes on.

    Attributes
    ----------
    epoch, position : int
        The first position of the epoch that was not yielded yet. It may be behind the epoch's last.
    fingerprint : str
        Of what the order depends on (see ``fingerprint``).
    parts : str
        Short hashes of its parts (see ``short_hashes``); may be empty.
    version : int

    Examples
    --------
    >>> state = StreamState.of(2, 640, {"seed": 1, "store": "abc"})
    >>> StreamState.from_dict(state.to_dict()) == state
    True
    """

    epoch: int
    position: int
    fingerprint: str
    parts: str = ""
    version: int = VERSION

    def __post_init__(self) -> None:
        _check_version(self.version)
        for name in ("version", "epoch", "position"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 0 <= value < 2**62:
                raise ChammiError(f"the state's {name} is {value!r}: it must be a whole number from 0 on; {_ADVICE}")
            object.__setattr__(self, name, int(value))
        for name, pattern in (("fingerprint", r"[0-9a-f]{64}"), ("parts", r"(\w+:[0-9a-f]{8}( \w+:[0-9a-f]{8})*)?")):
            value = getattr(self, name)
            if not isinstance(value, str) or not re.fullmatch(pattern, value, re.ASCII):
                raise ChammiError(f"the state's {name} is {_cut(value)}, which no stream writes; {_ADVICE}")

    @classmethod
    def of(cls, epoch: int, position: int, parts: Mapping[str, object]) -> StreamState:
        """A state with the fingerprint of these parts."""
        return cls(epoch, position, fingerprint(parts), short_hashes(parts))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> StreamState:
        """From what ``to_dict`` gave.

        Raises
        ------
        ChammiError
            If it is no such thing, or of another version; the message says what to do.
        """
        if not isinstance(values, Mapping):
            raise ChammiError(f"a state is a dictionary, not {type(values).__name__}; {_ADVICE}")
        if "version" in values:  # first: another version may well have other keys
            _check_version(values["version"])
        missing = [key for key in _KEYS if key not in values]
        unknown = [str(key) for key in values if key not in _KEYS]
        if missing or unknown:
            what = f"lacks {', '.join(missing)}" if missing else f"has the unknown key {unknown[0]!r}"
            raise ChammiError(f"the state {what}: it is not one of a TrainingStream; {_ADVICE}")
        return cls(**{key: values[key] for key in _KEYS})

    def to_dict(self) -> dict[str, int | str]:
        """Small integers and short texts, for JSON or a checkpoint."""
        return {key: getattr(self, key) for key in _KEYS}

    def normalised(self, length: int) -> StreamState:
        """The same place, where an epoch has so many positions: behind the last one the next epoch begins.

        Examples
        --------
        >>> StreamState.of(2, 12, {"seed": 1}).normalised(10).to_dict()["epoch"]
        3
        """
        if self.position < length:
            return self
        return StreamState(self.epoch + 1, 0, self.fingerprint, self.parts)

    def check(self, parts: Mapping[str, object]) -> None:
        """Refuse to go on with another order.

        Parameters
        ----------
        parts : mapping
            What the order of this stream depends on.

        Raises
        ------
        ChammiError
            If the state is of other parts; the message names them.
        """
        if self.fingerprint == fingerprint(parts):
            return
        here = dict(part.split(":") for part in short_hashes(parts).split())
        there = dict(part.split(":") for part in self.parts.split())
        names = [name for name in sorted({*here, *there}) if here.get(name) != there.get(name)]
        which = (
            f"it differs in: {', '.join(names)}" if there and names else "it is of another store, selection or recipe"
        )
        raise ChammiError(
            f"the state belongs to another stream ({which}), and its position would mean other samples here: give the "
            f"stream what it was saved with, or start without the state"
        )


_ADVICE = "give what TrainingStream.state_dict returned, unchanged"


def _check_version(version: object) -> None:
    if isinstance(version, bool) or not isinstance(version, int | np.integer):
        raise ChammiError(f"the state's version is {_cut(version)}: it must be a whole number; {_ADVICE}")
    if version != VERSION:
        raise ChammiError(
            f"the state is of version {version}, and this release of chammi75 reads version {VERSION}: go on with the "
            f"release that wrote it, or start the epoch anew"
        )


def _cut(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _canonical(part: object, name: str) -> bytes:
    """JSON that is the same wherever the values are: keys sorted, no spaces, ASCII."""
    return json.dumps(_plain(part, name), sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _plain(part: object, name: str) -> object:
    if part is None or isinstance(part, str | bool):
        return part
    if isinstance(part, np.bool_):
        return bool(part)
    if isinstance(part, int | np.integer):
        return int(part)
    if isinstance(part, float | np.floating) and math.isfinite(part):
        return float(part)
    if isinstance(part, list | tuple):
        return [_plain(value, name) for value in part]
    if isinstance(part, Mapping) and all(isinstance(key, str) for key in part):
        return {key: _plain(value, f"{name}.{key}" if name else key) for key, value in part.items()}
    raise ChammiError(
        f"{name}={_cut(part)} cannot be part of a fingerprint: None, booleans, numbers, texts, lists and mappings can"
    )
