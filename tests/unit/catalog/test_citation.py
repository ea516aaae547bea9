"""Citations: they read back as what they were written from."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chammi75.catalog.citation import Cited, cite, latex_escaped
from chammi75.errors import ChammiError

# The part of the CSL-JSON schema 1.0.2 that we write: names of variables and their kinds, nothing else allowed.
CSL_ITEM = {
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "type": {"enum": ["dataset"]},
        **{
            name: {"type": "string"}
            for name in ("title", "archive", "archive_location", "DOI", "URL", "license", "note")
        },
        "author": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {name: {"type": "string"} for name in ("family", "given", "literal")},
                "additionalProperties": False,
            },
        },
        "issued": {
            "type": "object",
            "properties": {
                "date-parts": {
                    "type": "array",
                    "items": {"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 3},
                }
            },
            "additionalProperties": False,
        },
    },
    "required": ["id", "type"],
    "additionalProperties": False,
}


def entries_of(bibtex: str) -> list[dict[str, str]]:
    """The entries of a BibTeX text, by bibtexparser."""
    bibtexparser = pytest.importorskip("bibtexparser", minversion="2.0")
    library = bibtexparser.parse_string(bibtex)
    assert library.failed_blocks == []
    return [{"ID": one.key, **{field.key: field.value for field in one.fields}} for one in library.entries]


def plain(text: str) -> str:
    """LaTeX of ours as text again."""
    for letter, written in (("\\", r"\textbackslash{}"), ("~", r"\textasciitilde{}"), ("^", r"\textasciicircum{}")):
        text = text.replace(written, {"\\": "\0", "~": "\1", "^": "\2"}[letter])
    for letter in "&%$#_":
        text = text.replace(f"\\{letter}", letter)
    text = text.replace(r"\{", "\3").replace(r"\}", "\4").replace("{", "").replace("}", "")
    return text.translate({0: "\\", 1: "~", 2: "^", 3: "{", 4: "}"})


def test_all_sources_of_the_catalog_read_back_from_bibtex(catalog) -> None:
    entries = entries_of(catalog.cite())
    assert [one["ID"] for one in entries] == [card.id for card in catalog]
    for entry, card in zip(entries, catalog, strict=True):
        assert entry.get("doi") == card.doi
        assert plain(entry.get("title", "")) == " ".join((card.title or "").split())
        assert f"Licence: {card.license or 'unknown'}" in entry["note"]
        assert ("author" in entry) == ("title" in entry) == (card.platform == "idr")


def test_all_sources_of_the_catalog_are_valid_csl(catalog) -> None:
    import jsonschema

    items = json.loads(catalog.cite(style="csl"))
    jsonschema.validate(items, {"type": "array", "items": CSL_ITEM})
    by_id = {item["id"]: item for item in items}
    assert len(by_id) == 75
    assert by_id["idr0017"]["DOI"] == "10.17867/10000101"
    assert by_id["idr0017"]["author"] == [{"family": "Breinig", "given": "M."}, {"literal": "et al."}]
    assert by_id["idr0017"]["issued"] == {"date-parts": [[2016]]}
    assert by_id["nidr0001"] == {
        "id": "nidr0001",
        "type": "dataset",
        "archive_location": "nidr0001",
        "note": "Source nidr0001. Licence: unknown",
    }


def test_the_year_of_the_release_does_not_stand_beside_the_doi_of_a_publication(catalog) -> None:
    entry = catalog.cited("idr0001")  # released 2016, published 2014; it has no DOI of its data
    assert entry.data_doi is None and entry.study_doi and entry.year is None
    assert catalog.cited("idr0017").year == 2016
    assert catalog.cited("idr0011").year == 2017  # no DOI at all


def test_every_doi_of_a_source_is_cited(catalog) -> None:
    for style in ("bibtex", "csl", "text"):
        text = catalog.cite("idr0035", "idr0022", style=style)
        for card in (catalog.source("idr0035"), catalog.source("idr0022")):
            for doi in (*card.study_dois, *([card.data_doi] if card.data_doi else [])):
                assert doi in text.replace("\\_", "_"), (style, doi)


def test_what_is_unknown_is_left_out() -> None:
    assert cite([Cited("x")]) == "@misc{x,\n  note = {Source x. Licence: unknown}\n}\n"
    assert cite([Cited("x")], "text") == "Source x. Licence: unknown\n"
    assert cite([]) == cite([], "text") == "" and json.loads(cite([], "csl")) == []


def test_the_number_of_images_is_said() -> None:
    for style in ("bibtex", "csl", "text"):
        assert "Images used: 12" in cite([Cited("x", images=12)], style)


def test_a_page_is_given_where_there_is_no_doi() -> None:
    entry = Cited("x", url="https://example.org/a_b?c=1%20d")
    assert entries_of(cite([entry]))[0]["url"] == "https://example.org/a_b?c=1%20d"
    assert json.loads(cite([entry], "csl"))[0]["URL"] == "https://example.org/a_b?c=1%20d"
    assert "url" not in entries_of(cite([Cited("x", url="https://example.org", data_doi="10.1234/a_b")]))[0]


def test_special_characters_are_escaped() -> None:
    title = r"50% of {HeLa} & β_catenin: a #1 ~ $x^2$ \ study"
    entry = entries_of(cite([Cited("x", title=title, authors="Müller & Sons #1")]))[0]
    for written in (r"50\% of", r"\{HeLa\}", r"\&", r"β\_catenin", r"\#1", r"\textasciitilde{}", r"\textbackslash{}"):
        assert written in entry["title"]
    assert plain(entry["title"]) == title
    assert entry["author"] == r"{Müller \& Sons \#1}"


def test_a_doi_stands_as_it_is() -> None:
    doi = "10.1002/(SICI)1097-0320(19980101)31:1<1::AID-CYTO1_x>3.0.CO;2-4"
    assert entries_of(cite([Cited("x", study_doi=doi)]))[0]["doi"] == doi


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp"])))
def test_any_title_reads_back(title: str) -> None:
    words = " ".join(title.split())
    escaped = latex_escaped(title)
    assert plain(escaped) == words
    if words:
        assert plain(entries_of(cite([Cited("x", title=title)]))[0]["title"]) == words


@pytest.mark.parametrize(
    ("stated", "bibtex", "csl"),
    [
        ("Graml V et al.", "Graml, V. and others", [{"family": "Graml", "given": "V."}, {"literal": "et al."}]),
        ("Hériché JK et al.", "Hériché, J. K. and others", None),
        ("Pascual-Vargas P et al", "Pascual-Vargas, P. and others", None),
        ("de la Cruz A et al.", "de la Cruz, A. and others", None),
        ("Institute of A and B", "{Institute of A and B}", [{"literal": "Institute of A and B"}]),
    ],
)
def test_authors_are_taken_apart_only_where_the_form_is_known(stated: str, bibtex: str, csl) -> None:
    entry = Cited("x", authors=stated)
    assert entries_of(cite([entry]))[0]["author"] == bibtex
    if csl is not None:
        assert json.loads(cite([entry], "csl"))[0]["author"] == csl


def test_keys_are_unique_and_safe() -> None:
    entries = [Cited("a b"), Cited("a-b"), Cited("A-B"), Cited("{x},y"), Cited("…")]
    keys = [entry["ID"] for entry in entries_of(cite(entries))]
    assert keys == ["a-b", "a-b-2", "A-B-3", "x-y", "..."]
    assert len({item["id"] for item in json.loads(cite([Cited("a"), Cited("a")], "csl"))}) == 2


def test_case_that_means_something_is_kept() -> None:
    title = entries_of(cite([Cited("x", title="Whole-genome RNAi screen in HeLa")]))[0]["title"]
    assert title == "Whole-genome {RNAi} screen in {HeLa}"
    assert entries_of(cite([Cited("x", title="The kinase Rad53")]))[0]["title"] == "The kinase {Rad53}"


def test_a_style_that_there_is_not_names_those_there_are() -> None:
    with pytest.raises(ChammiError, match="bibtex, csl, text"):
        cite([], "apa")  # type: ignore[arg-type]
