"""What licences permit, told from their SPDX ids."""

from __future__ import annotations

import pytest

from chammi75.catalog.licenses import LICENSE_SETS, is_known_license, known_license_ids, licenses_in_set, permits
from chammi75.errors import FilterError

ALL = set(LICENSE_SETS)


@pytest.mark.parametrize(
    ("license", "sets"),
    [
        ("CC0-1.0", ALL),
        ("PDDL-1.0", ALL),
        ("CC-BY-4.0", ALL - {"public-domain"}),
        ("CC-BY-3.0-US", ALL - {"public-domain"}),
        ("ODC-By-1.0", ALL - {"public-domain"}),
        ("MIT", ALL - {"public-domain"}),
        ("CC-BY-SA-3.0", {"commercial", "derivatives", "open"}),
        ("ODbL-1.0", {"commercial", "derivatives", "open"}),
        ("CC-BY-ND-4.0", {"commercial", "no-share-alike"}),
        ("CC-BY-NC-4.0", {"derivatives", "no-share-alike"}),
        ("CC-BY-NC-SA-3.0", {"derivatives"}),
        ("CC-BY-NC-ND-4.0", {"no-share-alike"}),
        ("cc-by-nc-4.0", {"derivatives", "no-share-alike"}),
        ("CC-BY-NC-4.0 OR CC-BY-4.0", ALL - {"public-domain"}),
        ("CC0-1.0 AND CC-BY-NC-4.0", {"derivatives", "no-share-alike"}),
        ("CC-BY-NC-4.0 AND (CC0-1.0 OR CC-BY-ND-4.0)", {"derivatives", "no-share-alike"}),
        ("CC-BY-NC-4.0 AND CC-BY-ND-4.0 OR MIT", ALL - {"public-domain"}),
        ("CC-BY-NC-4.0 AND (CC-BY-ND-4.0 OR MIT)", {"derivatives", "no-share-alike"}),
        ("GPL-2.0-or-later WITH Classpath-exception-2.0", {"commercial", "derivatives", "open"}),
    ],
)
def test_a_licence_is_in_the_sets_of_what_it_permits(license: str, sets: set[str]) -> None:
    assert {name for name in LICENSE_SETS if permits(license, name)} == sets
    assert is_known_license(license)


@pytest.mark.parametrize(
    "license",
    [
        *(
            "",
            " ",
            "CC BY 4.0",
            "CC-BY-5.0",
            "CC-BY-4.0x",
            "LicenseRef-house-rules",
            "proprietary",
            "unknown",
            "see paper",
        ),
        *(
            "CC-BY-4.0 AND LicenseRef-x",
            "CC-BY-4.0 OR LicenseRef-x",
            "CC-BY-4.0 OR",
            "(CC-BY-4.0",
            "CC-BY-4.0)",
            "OR MIT",
        ),
        *("CC-BY-4.0, MIT", "CC-BY-4.0 MIT", "CC-BY-SA-NC-4.0", "AND", "MIT WITH"),
    ],
)
def test_what_is_not_known_is_in_no_set(license: str) -> None:
    assert not any(permits(license, name) for name in LICENSE_SETS)
    assert not is_known_license(license)


def test_an_unknown_licence_is_in_no_set() -> None:
    assert not any(permits(None, name) for name in LICENSE_SETS)


def test_licences_of_a_set_keep_their_order_and_come_once() -> None:
    known = ["CC-BY-4.0", None, "CC0-1.0", "CC-BY-NC-4.0", "CC-BY-4.0", "house rules"]
    assert licenses_in_set("commercial", known) == ["CC-BY-4.0", "CC0-1.0"]
    assert licenses_in_set("commercial", []) == []


def test_a_set_that_there_is_not_names_those_there_are() -> None:
    with pytest.raises(FilterError, match="commercial, derivatives"):
        permits("CC-BY-4.0", "libre")
    with pytest.raises(FilterError, match="no set of licences 'libre'"):
        licenses_in_set("libre", [])


def test_every_id_that_is_suggested_is_known() -> None:
    assert all(is_known_license(license) for license in known_license_ids())
    assert len(known_license_ids()) == len(set(known_license_ids()))
