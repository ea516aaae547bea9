"""What licences permit, told from their SPDX ids.

A licence that is unknown, or not in the tables here, permits nothing: it is in no set. Where data carries a choice of
licences (``A OR B``) one that permits is enough; where it carries several at once (``A AND B``) all must.

This sorts data by what its licences are known for; it is no legal advice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from chammi75.errors import FilterError

NON_COMMERCIAL, NO_DERIVATIVES, SHARE_ALIKE, ATTRIBUTION = "NC", "ND", "SA", "BY"

LICENSE_SETS: dict[str, str] = {
    "commercial": "commercial use is allowed: no NC term",
    "derivatives": "changed versions may be shared: no ND term",
    "no-share-alike": "no licence is asked of changed versions: no SA term, no copyleft",
    "open": "conformant with the Open Definition 2.1 (opendefinition.org/licenses), or for software OSI-approved",
    "public-domain": "dedicated to the public domain: no condition at all",
}
"""Name of each set of licences -> what its licences have in common."""

_FORBIDDEN: dict[str, frozenset[str]] = {
    "commercial": frozenset({NON_COMMERCIAL}),
    "derivatives": frozenset({NO_DERIVATIVES}),
    "no-share-alike": frozenset({SHARE_ALIKE}),
    "open": frozenset({NON_COMMERCIAL, NO_DERIVATIVES}),
    "public-domain": frozenset({NON_COMMERCIAL, NO_DERIVATIVES, SHARE_ALIKE, ATTRIBUTION}),
}

# Creative Commons is a family: its ids say their terms. A port to a jurisdiction (CC-BY-3.0-US) has the same.
_CREATIVE_COMMONS = re.compile(
    r"CC-BY(?P<nc>-NC)?(?P<end>-ND|-SA)?-(?P<version>1\.0|2\.0|2\.5|3\.0|4\.0)(?P<port>-[A-Z]{2,3})?", re.IGNORECASE
)

_OTHERS: dict[str, frozenset[str]] = {
    "CC0-1.0": frozenset(),
    "CC-PDDC": frozenset(),
    "PDDL-1.0": frozenset(),
    "Unlicense": frozenset(),
    "ODC-By-1.0": frozenset({ATTRIBUTION}),
    "ODbL-1.0": frozenset({ATTRIBUTION, SHARE_ALIKE}),
    "MIT": frozenset({ATTRIBUTION}),
    "Apache-2.0": frozenset({ATTRIBUTION}),
    "BSD-2-Clause": frozenset({ATTRIBUTION}),
    "BSD-3-Clause": frozenset({ATTRIBUTION}),
    "GPL-2.0-only": frozenset({ATTRIBUTION, SHARE_ALIKE}),
    "GPL-2.0-or-later": frozenset({ATTRIBUTION, SHARE_ALIKE}),
    "GPL-3.0-only": frozenset({ATTRIBUTION, SHARE_ALIKE}),
    "GPL-3.0-or-later": frozenset({ATTRIBUTION, SHARE_ALIKE}),
}
_BY_FOLDED_ID = {name.casefold(): (name, terms) for name, terms in _OTHERS.items()}
_TOKEN = re.compile(r"\s*(\(|\)|[A-Za-z0-9.+:-]+)")


def is_known_license(spdx: str) -> bool:
    """Whether ``spdx`` is an SPDX expression of licences whose terms are known here.

    Examples
    --------
    >>> is_known_license("CC-BY-4.0"), is_known_license("CC0-1.0 OR MIT"), is_known_license("CC BY 4.0")
    (True, True, False)
    """
    return _alternatives(spdx) is not None


def known_license_ids() -> list[str]:
    """SPDX ids whose terms are known, without the ports of Creative Commons licences to jurisdictions."""
    versions = ("1.0", "2.0", "2.5", "3.0", "4.0")
    kinds = ("", "-ND", "-SA", "-NC", "-NC-ND", "-NC-SA")
    return [*_OTHERS, *(f"CC-BY{kind}-{version}" for version in versions for kind in kinds)]


def permits(spdx: str | None, name: str) -> bool:
    """Whether a licence is in the set ``name``.

    Parameters
    ----------
    spdx : str or None
        An SPDX expression; None and what is not known here are in no set.
    name : str
        A name of `LICENSE_SETS`.

    Raises
    ------
    FilterError
        If there is no such set.

    Examples
    --------
    >>> permits("CC-BY-NC-4.0", "commercial"), permits("CC-BY-SA-3.0", "commercial")
    (False, True)
    >>> permits("CC-BY-NC-4.0 OR CC-BY-4.0", "commercial"), permits("CC-BY-NC-4.0 AND CC-BY-4.0", "commercial")
    (True, False)
    >>> permits(None, "commercial")
    False
    """
    forbidden = _forbidden(name)
    alternatives = _alternatives(spdx) if spdx is not None else None
    return alternatives is not None and any(not terms & forbidden for terms in alternatives)


def licenses_in_set(name: str, known: Iterable[str | None]) -> list[str]:
    """Which of ``known`` licences are in the set ``name``, each once, in their order.

    Raises
    ------
    FilterError
        If there is no such set.

    Examples
    --------
    >>> licenses_in_set("commercial", ["CC-BY-4.0", "CC-BY-NC-4.0", None, "LicenseRef-house-rules"])
    ['CC-BY-4.0']
    """
    _forbidden(name)
    return [spdx for spdx in dict.fromkeys(known) if permits(spdx, name) and spdx is not None]


def _forbidden(name: str) -> frozenset[str]:
    if name not in LICENSE_SETS:
        raise FilterError(f"there is no set of licences {name!r}; known are {', '.join(LICENSE_SETS)}")
    return _FORBIDDEN[name]


@lru_cache(maxsize=256)
def _alternatives(spdx: str) -> tuple[frozenset[str], ...] | None:
    """The sets of terms that one may choose from; None where the expression does not read or a licence is unknown."""
    tokens = _TOKEN.findall(spdx)
    if not tokens or _TOKEN.sub("", spdx).strip():
        return None
    position = 0

    def peek() -> str | None:
        return tokens[position] if position < len(tokens) else None

    def take() -> str | None:
        nonlocal position
        token = peek()
        position += 1
        return token

    def choice() -> tuple[frozenset[str], ...] | None:
        left = together()
        while left is not None and peek() in ("OR", "or"):
            take()
            right = together()
            left = None if right is None else (*left, *right)
        return left

    def together() -> tuple[frozenset[str], ...] | None:
        left = single()
        while left is not None and peek() in ("AND", "and"):
            take()
            right = single()
            left = None if right is None else tuple(one | other for one in left for other in right)
        return left

    def single() -> tuple[frozenset[str], ...] | None:
        token = take()
        if token == "(":
            inner = choice()
            return inner if take() == ")" else None
        terms = _terms(token) if token is not None else None
        if peek() in ("WITH", "with"):  # an exception adds permissions, it takes none away
            take()
            take()
        return None if terms is None else (terms,)

    found = choice()
    return found if position == len(tokens) else None


def _terms(license_id: str) -> frozenset[str] | None:
    """The terms of one licence; SPDX ids are alike in any case."""
    other = _BY_FOLDED_ID.get(license_id.removesuffix("+").casefold())
    if other is not None:
        return other[1]
    found = _CREATIVE_COMMONS.fullmatch(license_id)
    if found is None:
        return None
    parts = (ATTRIBUTION, (found["nc"] or "")[1:].upper(), (found["end"] or "")[1:].upper())
    return frozenset(part for part in parts if part)
