"""The catalog in Python: names, filters, tables."""

from __future__ import annotations

import pickle

import pytest

from chammi75.catalog import Catalog
from chammi75.errors import ChammiError, FilterError


def ids(catalog: Catalog) -> list[str]:
    return [card.id for card in catalog]


def test_a_name_that_is_not_there_names_the_nearest(catalog) -> None:
    with pytest.raises(ChammiError, match=r"no source 'idr001'.*did you mean idr0001"):
        catalog.source("idr001")
    with pytest.raises(ChammiError, match=r"no platform 'zenod'.*did you mean zenodo"):
        catalog.platform("zenod")
    assert catalog.find_source("idr001") is None and catalog.find_source(None) is None
    assert "idr0001" in catalog and "hpa0023" in catalog and "idr001" not in catalog


def test_synonyms_of_the_vocabularies_filter_as_their_words_do(catalog) -> None:
    assert (
        ids(catalog.filter(organism="mouse")) == ids(catalog.filter(organism="Mus musculus")) == ["idr0072", "idr0086"]
    )
    assert ids(catalog.filter(channel_type="DAPI")) == ids(catalog.filter(channel_type="nucleus"))
    spinning = catalog.filter(microscopy_type="spinning disk confocal microscopy")
    assert ids(spinning) == ids(catalog.filter(microscopy_type="spinning disk confocal")) and "idr0001" in ids(spinning)


def test_a_method_that_the_vocabulary_lacks_can_be_asked_for_verbatim(catalog) -> None:
    found = catalog.filter(microscopy_type="Wide field fluorescence deconvolution microscopy")
    assert ids(found) == ["idr0089"]


def test_several_channel_types_must_be_in_one_configuration(catalog) -> None:
    assert ids(catalog.filter(channel_type=["er", "protein"])) == ["hpa0001", "idr0025"]
    # idr0089 has circadian rhythm and protein, but never in one image
    assert "idr0089" in ids(catalog.filter(channel_type="circadian rhythm"))
    assert ids(catalog.filter(channel_type=["circadian rhythm", "protein"])) == []


def test_lists_of_other_filters_mean_any_of_these(catalog) -> None:
    both = catalog.filter(organism=["mouse", "fission yeast"])
    assert ids(both) == ["idr0001", "idr0072", "idr0086"]


def test_filters_add_up_and_can_follow_each_other(catalog) -> None:
    at_once = catalog.filter(organism="mouse", cell_line="u-2 os")
    assert ids(at_once) == ids(catalog.filter(organism="mouse").filter(cell_line="U2OS")) == ["idr0086"]
    assert isinstance(at_once, Catalog) and len(at_once.platforms) == 22
    with pytest.raises(ChammiError):
        at_once.source("idr0001")


def test_unknown_licences_fit_no_filter(catalog) -> None:
    anything = catalog.filter(license=["commercial", "derivatives", "CC-BY-NC-ND-4.0"])
    assert len(anything) == 40 and all(card.license for card in anything)


@pytest.mark.parametrize(
    ("name", "number"),
    [("commercial", 31), ("derivatives", 38), ("open", 31), ("no-share-alike", 34), ("public-domain", 3)],
)
def test_licence_sets_filter_by_what_licences_permit(catalog, name: str, number: int) -> None:
    assert len(catalog.filter(license=name)) == number


def test_a_known_word_that_no_source_has_gives_an_empty_catalog(catalog) -> None:
    assert ids(catalog.filter(organism="C. elegans")) == []
    assert ids(catalog.filter(platform="zenodo")) == []
    assert ids(catalog.filter(license="MIT")) == []
    assert list(catalog.filter(platform="zenodo").to_pandas().columns) == list(catalog.to_pandas().columns)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"organism": "humann"}, "organism='humann' is no known word; did you mean human"),
        ({"channel_type": "nucleuss"}, "did you mean nucleus"),
        ({"microscopy_type": "confocall"}, "did you mean confocal"),
        ({"license": "comercial"}, "neither an SPDX id nor a set of licences; did you mean commercial"),
        ({"license": "CC-BY-4"}, "did you mean CC-BY-4.0"),
        ({"platform": "zenodoo"}, "did you mean zenodo"),
        ({"cell_line": "HeLaa"}, "did you mean HeLa"),
        ({"organism": []}, "organism takes a word or a list of words"),
        ({"organism": 3}, "organism takes a word or a list of words"),
        ({"organism": ["human", None]}, "organism takes a word or a list of words"),
        ({"organism": "yeast"}, "did you mean budding yeast or baker's yeast or fission yeast"),
        ({"organism": "fly"}, "did you mean fruit fly"),
        ({"microscopy_type": "widefield"}, "did you mean widefield fluorescence"),
        ({"platform": "bioimage"}, "did you mean .*bioimage archive"),
    ],
)
def test_a_word_that_is_not_known_names_the_nearest(catalog, wanted, message: str) -> None:
    with pytest.raises(FilterError, match=message):
        catalog.filter(**wanted)


def test_what_records_carry_of_their_source(catalog) -> None:
    found = catalog.provenance("idr0017")
    assert found == ("idr", catalog.source("idr0017").title, "CC-BY-NC-ND-4.0", "10.17867/10000101")
    assert catalog.provenance("idr0001").doi == "10.1016/j.devcel.2014.09.005"
    for name in ("nidr0001", "elsewhere", None):
        assert set(catalog.provenance(name)) == {None}


def test_the_table_has_a_row_for_each_source(catalog) -> None:
    table = catalog.to_pandas()
    assert len(table) == 75
    row = table.set_index("id").loc["idr0072"]
    assert row["license"] == "CC-BY-4.0" and row["organisms"] == ["Homo sapiens", "Mus musculus"]
    assert table["images"].sum() == sum(card.expected_images or 0 for card in catalog)


def test_a_notebook_shows_the_catalog_with_nothing_unescaped(new_catalog) -> None:
    folder = new_catalog(a="id: a\ntitle: <script>alert(1)</script>\n")
    shown = Catalog(folder)._repr_html_()
    assert "&lt;script&gt;" in shown and "<script>" not in shown
    assert repr(Catalog(folder)) == "<Catalog: 1 sources, 22 platforms>"


def test_a_catalog_travels_to_other_processes(catalog) -> None:
    mice = pickle.loads(pickle.dumps(catalog.filter(organism="mouse")))  # noqa: S301  # our own bytes
    assert ids(mice) == ["idr0072", "idr0086"] and mice.source("idr0072").title


def test_cards_of_ones_own_use_the_platforms_that_are_shipped(new_catalog) -> None:
    mine = Catalog(
        new_catalog(fly0001="id: fly0001\nplatform: zenodo\norganisms:\n  - {name: Drosophila melanogaster}\n")
    )
    assert ids(mine.filter(platform="Zenodo", organism="fruit fly")) == ["fly0001"]
    assert mine.platform("zenodo").checksums == ["md5"]
    assert "howpublished = {Zenodo, fly0001}" in mine.cite("fly0001")
