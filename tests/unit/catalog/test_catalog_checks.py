"""Cards that do not say what they must: each problem names file, line, field and what is allowed."""

from __future__ import annotations

import pytest

from chammi75.catalog import Catalog
from chammi75.catalog.check import check_catalog
from chammi75.errors import RecipeError


def only_problem(folder) -> str:
    """The one problem of a catalog, without its folder."""
    problems = check_catalog(folder).problems
    assert len(problems) == 1, [str(problem) for problem in problems]
    return str(problems[0]).replace("\\", "/").removeprefix(f"{folder.as_posix()}/")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("titel: x", "3: 'titel' is no field of a source card; did you mean 'title'?"),
        ("magnification: 20x", "3: magnification: '20x' is not allowed: a number (Nominal magnification.)"),
        ("magnification: -1", "3: magnification: -1 is not allowed: greater than 0 (Nominal magnification.)"),
        ("magnification: .inf", "3: magnification: inf is not allowed: a "),
        ("organisms:\n  - {ncbi_taxon_id: 9606}", "4: organisms[0].name is missing: Scientific name"),
        ("organisms:\n  - {name: Homo sapiens, taxon: 9606}", "4: 'taxon' is no field of an organism; "),
        (
            "organisms: [Mus musculus]",
            "3: organisms[0]: 'Mus musculus' is not allowed: a mapping {name, ncbi_taxon_id}",
        ),
        ("data_doi: https://doi.org/10.1/x", "3: data_doi: 'https://doi.org/10.1/x' is not allowed: text that matches"),
        (
            "release_date: 2016-04-27",
            '3: release_date: YAML reads 2016-04-27 as a date, text is needed: quote it, "2016',
        ),
        ("pubmed_ids: [123]", '3: pubmed_ids[0]: YAML reads 123 as a number, text is needed: quote it, "123"'),
        (
            "crop_sizes_px: [whole plan]",
            "3: crop_sizes_px[0]: 'whole plan' is not allowed:"
            " a whole number or 'whole plane'; did you mean 'whole plane'?",
        ),
        ("title: x\ntitle: y", "4: the field 'title' is there twice, first in line 3: leave one"),
        ("title: [x", "4: did not find expected"),
        ("platform: zenodoo", "3: platform: 'zenodoo' has no card in platforms/; did you mean 'zenodo'?"),
        (
            "license: CC BY 4.0",
            "3: license: 'CC BY 4.0' is no SPDX id that is known here; did you mean 'CC-BY-4.0'?",
        ),
        (
            "configurations:\n  - channels:\n      - {channel_type: nucleuss}",
            "5: channel_type: 'nucleuss' is no word of vocabularies/channel_types.yaml; did you mean 'nucleus'?",
        ),
        (
            "configurations:\n  - channels:\n      - {channel_type: DAPI}",
            "5: channel_type: 'DAPI' is written 'nucleus' here",
        ),
        (
            "organisms:\n  - {name: Homo sapiens, ncbi_taxon_id: 9605}",
            "4: ncbi_taxon_id: Homo sapiens is NCBITaxon:9606 in vocabularies/organisms.yaml",
        ),
        (
            "evidence:\n  - {fields: [titel], stated_in: x}",
            "3: evidence: 'titel' is no field of this card; did you mean 'title'?",
        ),
    ],
)
def test_a_wrong_field_is_told_with_its_line_and_what_is_allowed(new_catalog, text: str, problem: str) -> None:
    assert only_problem(new_catalog(a=f"id: a\n{text}\n")).startswith(f"sources/a.yaml:{problem}")


def test_a_card_is_a_mapping_and_is_called_as_its_file(new_catalog) -> None:
    folder = new_catalog(a="- a\n", b="id: c\n")
    first, second = (str(problem).rpartition("sources")[2][1:] for problem in check_catalog(folder).problems)
    assert first == "a.yaml:1: a source card is a mapping of fields to values (id: …), this is a list"
    assert second == "b.yaml:2: id: 'c' must be the file's name, 'b'"


def test_all_problems_of_all_cards_are_told_in_order(new_catalog) -> None:
    folder = new_catalog(a="id: a\nmagnification: x\ntitle: 1\n", b="title: no id\n")
    told = [str(problem).rpartition("sources")[2][1:] for problem in check_catalog(folder).problems]
    assert [text.split(" ")[0] for text in told] == ["a.yaml:3:", "a.yaml:4:", "b.yaml:1:"]
    assert told[2] == "b.yaml:1: id is missing: Id of the source."


def test_reading_tells_the_first_problem_and_how_many_more_there_are(new_catalog) -> None:
    folder = new_catalog(a="id: a\nmagnification: x\ntitle: 1\n")
    with pytest.raises(RecipeError, match=r"a\.yaml:3: magnification: 'x' is not allowed.*\(and 1 more"):
        len(Catalog(folder))


def test_a_name_that_two_cards_claim_is_an_error_that_names_both_files(new_catalog) -> None:
    folder = new_catalog(a="id: a\naliases: [one]\n", b="id: b\ntitle: x\naliases: [ONE]\n")
    problem = only_problem(folder)
    assert problem.startswith("sources/b.yaml:4: aliases: the name 'ONE' is also in ")
    assert "a.yaml" in problem
    with pytest.raises(RecipeError, match=r"b\.yaml.*a\.yaml"):
        Catalog(folder).source("a")


def test_an_alias_that_is_the_id_of_another_card_is_an_error(new_catalog) -> None:
    assert "'b' is also in" in only_problem(new_catalog(a="id: a\naliases: [b]\n", b="id: b\n"))


def test_a_card_that_would_be_overlooked_is_told(new_catalog) -> None:
    folder = new_catalog(a="id: a\n")
    (folder / "sources" / "b.yml").write_text("id: b\n", encoding="utf-8")
    assert "b.yml: it is not read: the name of a card ends with .yaml" in only_problem(folder)


def test_a_card_that_does_not_name_its_schema_is_told(new_catalog) -> None:
    folder = new_catalog(a="id: a\n")
    (folder / "sources" / "a.yaml").write_text("id: a\n", encoding="utf-8")
    assert only_problem(folder).startswith("sources/a.yaml:1: the first line names the JSON Schema")


def test_a_folder_without_cards_is_no_catalog(tmp_path) -> None:
    with pytest.raises(RecipeError, match="neither a folder sources nor a folder platforms"):
        Catalog(tmp_path)


def test_a_card_that_names_python_objects_is_refused(new_catalog) -> None:
    problem = only_problem(new_catalog(a='id: a\ntitle: !!python/object/apply:os.system ["true"]\n'))
    assert problem.startswith("sources/a.yaml:3:") and "could not determine a constructor" in problem


def test_a_platform_card_is_checked_as_well(new_catalog) -> None:
    folder = new_catalog(platforms={"p": "id: p\nname: P\nchecksums: [md6]\n"}, a="id: a\nplatform: p\n")
    problems = [
        str(problem).rpartition("catalog")[2][1:].replace("\\", "/") for problem in check_catalog(folder).problems
    ]
    assert problems[0].startswith("platforms/p.yaml:4: checksums[0]: 'md6' is not allowed: 'md5' or 'sha1' or")
    assert "did you mean 'md5'?" in problems[0]


def test_a_card_that_is_not_utf_8_is_told_with_its_line(new_catalog) -> None:
    folder = new_catalog(a0001="id: a0001\n")
    with open(folder / "sources" / "a0001.yaml", "ab") as file:
        file.write("title: café\n".encode("latin-1"))
    assert only_problem(folder) == "sources/a0001.yaml:3: byte 0xe9 is not UTF-8 text: save the file as UTF-8"


def test_a_folder_with_the_name_of_a_card_is_no_card(new_catalog) -> None:
    folder = new_catalog(a0001="id: a0001\n")
    (folder / "sources" / "b0001.yaml").mkdir()
    assert check_catalog(folder).problems == ()
