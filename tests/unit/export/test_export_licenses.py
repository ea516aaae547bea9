from __future__ import annotations

import pytest

from chammi75.errors import ChammiError
from chammi75.export.card import license_entries
from chammi75.export.names import file_stem, folder_name
from chammi75.loading.licenses import hub_license, license_url, require_licenses
from chammi75.loading.origins import Origin, OriginCounter, citation


def origin(license: str | None, images: int = 1, name: str = "lab", doi: str | None = None) -> Origin:
    return Origin(name, name, None, license, doi, None, images)


def test_counts_of_tables_and_of_records_agree() -> None:
    import pyarrow as pa

    records = [
        {"experiment": {"study": "a"}, "provenance": {"source": "a", "platform": None, "license": word, "doi": None}}
        for word in ("MIT", None, "MIT")
    ]
    one, other = OriginCounter(), OriginCounter()
    for record in records:
        one.add(record)
    fields = [("source", pa.string()), ("platform", pa.string()), ("license", pa.string()), ("doi", pa.string())]
    fields.append(("title", pa.string()))
    schema = pa.schema({"experiment": pa.struct([("study", pa.string())]), "provenance": pa.struct(fields)})
    other.add_table(pa.Table.from_pylist(records, schema))
    assert one.origins == other.origins
    assert [(found.license, found.images) for found in one.origins] == [("MIT", 2), (None, 1)]


def test_a_licence_that_is_stated_speaks_for_the_unknown_ones_alone() -> None:
    origins = [origin("CC0-1.0", 3), origin(None, 2)]
    assert require_licenses(origins, "CC-BY-4.0") == ["CC-BY-4.0", "CC0-1.0"]
    assert require_licenses(origins[:1], "CC-BY-4.0") == ["CC0-1.0"]
    with pytest.raises(ChammiError, match=r"2 of 5 images have no licence: lab \(2\)"):
        require_licenses(origins, None)


@pytest.mark.parametrize(
    ("spdx", "entries"),
    [
        ("CC-BY-NC-4.0", {"license": "cc-by-nc-4.0"}),
        ("ODbL-1.0", {"license": "odbl"}),
        ("CC-BY-SA-2.5", {"license": "other", "license_name": "cc-by-sa-2.5"}),  # which the Hub does not list
        ("CC-BY-4.0 AND MIT", {"license": "other", "license_name": "cc-by-4.0-and-mit"}),
        ("LicenseRef-lab", {"license": "other", "license_name": "licenseref-lab"}),
    ],
)
def test_licences_are_spelled_as_the_hub_does(spdx: str, entries: dict[str, str]) -> None:
    assert hub_license([spdx]) == entries


def test_a_card_of_images_some_of_unknown_licence_says_so() -> None:
    assert license_entries([origin("MIT"), origin(None)], None)["license_name"] == "mit-and-unknown"
    assert license_entries([origin(None)], None) == {"license": "unknown"}
    assert license_entries([origin("MIT"), origin(None)], "MIT") == {"license": "mit"}


def test_licences_have_pages() -> None:
    assert license_url("CC-BY-NC-SA-4.0") == "https://creativecommons.org/licenses/by-nc-sa/4.0/"
    assert license_url("LicenseRef-lab") is None


def test_sources_of_the_catalog_are_cited_by_their_cards() -> None:
    from chammi75.catalog import Catalog

    card = next(card for card in Catalog() if card.data_doi or card.study_doi)
    cited = citation([origin("CC-BY-4.0", 2, card.id)])
    assert (card.data_doi or card.study_doi) in cited
    assert citation([origin("CC-BY-4.0", 2, "nobody-knows-it")]) == ""


def test_file_names_are_safe_and_differ() -> None:
    ids = ["lab/a b_*.tif", "lab/a_b_*.tif", "lab/../x.tif", "lab/é.tif#t=1&z=2", "lab/é.tif#t=2&z=2", "lab/con"]
    stems = [file_stem(image_id, "lab") for image_id in ids]
    assert len(set(stems)) == len(ids)
    assert all(stem.replace("_", "").replace("-", "").replace("=", "").isalnum() for stem in stems)
    assert folder_name("..") != ".."
    assert "/" not in folder_name("a/b")
    assert folder_name("NUL.tif") != "NUL.tif"  # a device of Windows
    assert len(folder_name("x" * 300)) < 255
