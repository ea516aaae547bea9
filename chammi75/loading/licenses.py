"""Licences in the words of others: as web pages, and as the Hugging Face Hub spells them on a dataset card."""

from __future__ import annotations

import re
from collections.abc import Sequence

from chammi75.errors import ChammiError
from chammi75.loading.origins import Origin, licenses_of, without_license

_HUB_LICENSES = {
    "cc0-1.0",
    *(f"cc-by-{version}" for version in ("2.0", "2.5", "3.0", "4.0")),
    *(f"cc-by-{kind}-{version}" for kind in ("nc", "nc-sa") for version in ("2.0", "3.0", "4.0")),
    *(f"cc-by-{kind}-{version}" for kind in ("sa", "nc-nd") for version in ("3.0", "4.0")),
    "cc-by-nd-4.0",
    *("mit", "apache-2.0", "bsd-2-clause", "bsd-3-clause", "gpl-3.0", "lgpl-3.0", "unlicense", "wtfpl"),
}  # of https://huggingface.co/docs/hub/repositories-licenses, those that data are under; the Hub refuses any other
_HUB_SPELLINGS = {"odc-by-1.0": "odc-by", "odbl-1.0": "odbl", "pddl-1.0": "pddl"}
_CREATIVE_COMMONS = re.compile(r"CC-(BY(?:-NC)?(?:-ND|-SA)?)-([0-9]\.[0-9])")
_SHOWN = 5


def license_url(license: str) -> str | None:
    """The web page of a licence; None for an expression of several, which has none.

    Examples
    --------
    >>> license_url("CC-BY-4.0"), license_url("CC0-1.0")
    ('https://creativecommons.org/licenses/by/4.0/', 'https://creativecommons.org/publicdomain/zero/1.0/')
    >>> license_url("MIT"), license_url("MIT OR Apache-2.0")
    ('https://spdx.org/licenses/MIT.html', None)
    """
    if license == "CC0-1.0":
        return "https://creativecommons.org/publicdomain/zero/1.0/"
    if match := _CREATIVE_COMMONS.fullmatch(license):
        return f"https://creativecommons.org/licenses/{match[1].lower()}/{match[2]}/"
    if re.fullmatch(r"[A-Za-z0-9.+-]+", license) and not license.startswith("LicenseRef-"):
        return f"https://spdx.org/licenses/{license}.html"
    return None


def hub_license(licenses: Sequence[str]) -> dict[str, str]:
    """The entries of a dataset card's front matter that state these licences.

    Several licences, or one that the Hub has no word for, are ``other`` with an id made of their names: the Hub asks
    for an id such as ``my-license-1.0`` there.

    Examples
    --------
    >>> hub_license(["CC-BY-4.0"])
    {'license': 'cc-by-4.0'}
    >>> hub_license(["CC-BY-4.0", "CC0-1.0"])
    {'license': 'other', 'license_name': 'cc-by-4.0-and-cc0-1.0'}
    >>> hub_license([])
    {'license': 'unknown'}
    """
    if not licenses:
        return {"license": "unknown"}
    if len(licenses) == 1:
        word = licenses[0].lower()
        word = _HUB_SPELLINGS.get(word, word)
        if word in _HUB_LICENSES or word in _HUB_SPELLINGS.values():
            return {"license": word}
    names = (re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-") for name in licenses)
    return {"license": "other", "license_name": "-and-".join(names)}


def require_licenses(origins: Sequence[Origin], stated: str | None) -> list[str]:
    """The licences that all these images are under, sorted.

    Parameters
    ----------
    origins : sequence of Origin
    stated : str, optional
        SPDX licence of the images whose records state none.

    Raises
    ------
    ChammiError
        If images have no licence and ``stated`` gives none, or it is no licence's name.
    """
    if stated is not None and (not stated.strip() or "\n" in stated):
        raise ChammiError(f"license={stated!r} is no licence: give its SPDX id, as CC-BY-4.0")
    lacking = without_license(origins)
    count = sum(origin.images for origin in lacking)
    if lacking and stated is None:
        named: dict[str, int] = {}
        for origin in lacking:
            named[origin.name] = named.get(origin.name, 0) + origin.images
        shown = ", ".join(f"{name} ({images})" for name, images in list(named.items())[:_SHOWN])
        more = f" and {len(named) - _SHOWN} more sources" if len(named) > _SHOWN else ""
        total = sum(origin.images for origin in origins)
        raise ChammiError(
            f"{count} of {total} images have no licence: {shown}{more}; what has no licence is not published. State it"
            " in the recipe of the build (license: CC-BY-4.0), say license= for these images if you hold the rights, or"
            ' leave them out with where="provenance.license IS NOT NULL"'
        )
    return sorted({*licenses_of(origins), *([stated] if lacking and stated is not None else [])})
