"""The cards that are shipped: all of them read, and say what their sources say."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from chammi75.catalog import Catalog
from chammi75.catalog.check import check_catalog
from chammi75.declarations import declarations_folder

ROOT = Path(__file__).resolve().parents[3]


def values(cell: str) -> list[str]:
    """The values of a cell of a table of facts."""
    return [part.strip() for part in cell.split(";") if part.strip()]


def test_the_catalog_has_the_75_studies_and_the_22_platforms(catalog) -> None:
    ids = [card.id for card in catalog]
    nidr = [f"nidr{number:04}" for number in range(1, 33)]
    assert sorted(set(ids) - {name for name in ids if name.startswith("idr")}) == sorted(
        ["hpa0001", "jump0001", "wtc0001", *nidr]
    )
    assert sum(name.startswith("idr") for name in ids) == 40
    assert len(ids) == len(set(ids)) == len(catalog) == 75
    assert len(catalog.platforms) == 22


def test_every_card_and_vocabulary_is_sound() -> None:
    assert [str(problem) for problem in check_catalog().problems] == []


def test_every_platform_names_the_protocol_that_reads_it(catalog) -> None:
    protocols = {card.id: card.protocol for card in catalog.platforms}
    assert protocols["huggingface"] == "hf"
    assert {name for name, protocol in protocols.items() if protocol == "s3"} == {
        *("cellpainting-gallery", "idc", "dandi", "chammi75", "cytodata"),
    }
    assert all(protocol in (name, "s3", "hf") for name, protocol in protocols.items())


def test_the_idr_studies_have_the_licences_that_they_state(catalog) -> None:
    counts = Counter(card.license for card in catalog if card.platform == "idr")
    assert counts == {
        "CC-BY-4.0": 27,
        "CC0-1.0": 3,
        "CC-BY-NC-SA-3.0": 5,
        "CC-BY-NC-ND-4.0": 2,
        "CC-BY-NC-4.0": 2,
        "CC-BY-SA-3.0": 1,
    }
    statements = [card.license_statement for card in catalog if card.platform == "idr"]
    assert all(re.search(r"@[0-9a-f]{40} \S*study\.txt$", statement.stated_in) for statement in statements)


def test_what_the_collection_says_stands_beside_the_licence_of_the_source(catalog) -> None:
    assert {card.collection.license for card in catalog} == {"CC-BY-4.0"}
    assert catalog.source("idr0012").license == "CC-BY-NC-ND-4.0"
    assert [card.id for card in catalog if card.license is None and card.platform is not None] == []


def test_what_no_source_states_is_unknown(catalog) -> None:
    for card in catalog:
        assert card.magnification is None and card.pattern is None and card.bad_plates == []
        if not card.id.startswith("idr"):
            stated = {name for name, value in card if value not in (None, [])}
            assert stated <= {
                "id",
                "aliases",
                "collection",
                "configurations",
                "crop_sizes_px",
                "content_filters",
                "evidence",
            }


def test_the_hpa_study_is_found_under_each_of_its_names(catalog) -> None:
    assert {catalog.source(name).id for name in ("hpa0001", "HPA0018", "hpa0023")} == {"hpa0001"}


def test_every_idr_study_is_found_by_the_name_of_its_folder(catalog, facts) -> None:
    paths = {row["study_id"]: row["download_path"] for row in facts("idr_studies")}
    folders = {study: path.rsplit("/", 1)[1] for study, path in paths.items() if path.startswith("/pub/")}
    assert len(folders) == 33
    assert {study: catalog.source(folder).id for study, folder in folders.items()} == {
        study: study for study in folders
    }


def test_the_idr_cards_say_what_the_study_files_say(catalog, facts) -> None:
    for row in facts("idr_studies"):
        card = catalog.source(row["study_id"])
        assert card.title == row["title"]
        assert card.license.replace("-", " ") == row["license_name"].replace("-", " ")
        assert card.license_statement.text == row["license_name"]
        assert card.license_statement.url == row["license_url"]
        assert (card.data_doi or "") == row["data_doi"]
        assert card.study_dois == values(row["publication_doi"])
        assert card.pubmed_ids == values(row["pubmed_id"])
        assert [one.name for one in card.organisms] == values(row["organism"])
        assert [str(one.ncbi_taxon_id) for one in card.organisms] == values(row["organism_ncbi_taxon_id"])
        assert [one.text for one in card.imaging_methods] == values(row["imaging_methods"])
        assert card.channels_text == row["channels_text"]
        assert card.expected_images == int(row["n_images_5d"])
        assert f"{card.expected_bytes} bytes" == row["total_size"]
        assert card.release_date == row["release_date"]
        assert card.citation.authors == row["authors_short"]
        assert card.download_path == row["download_path"]
        assert card.metadata_repository == row["repository"]
        accessions = [row["bioimage_archive_accession"], row["bia_ngff_id"]]
        assert [one.accession for one in card.also_at] == [name for name in accessions if name]
        assert sum(one.images or 0 for one in card.containers) == card.expected_images
        stated = [part.partition("=")[2] for part in values(row["container_data_dois"])]
        assert [one.data_doi for one in card.containers if one.data_doi] == stated
        for line in card.cell_lines:
            assert line in row["sample_type_cell_lines"]


def test_an_id_of_a_method_belongs_to_that_method(catalog) -> None:
    methods = {card.id: card.imaging_methods for card in catalog}
    simulated = methods["idr0089"]
    assert [(one.microscopy_type, one.ontology_id) for one in simulated] == [
        ("structured illumination", "FBbi:00000332"),
        (None, None),
    ]
    assert catalog.source("idr0089").microscopy_types[1] == "wide field fluorescence deconvolution microscopy"
    assert [one.ontology_id for one in methods["idr0123"]] == ["CHMO:0002194"]
    assert [one.ontology_id for one in methods["idr0086"]] == ["FBbi:00000332", "FBbi:00000257"]


def test_the_configurations_are_those_of_the_published_dataset(catalog, facts) -> None:
    rows = defaultdict(list)
    for row in facts("chammi75_channel_configurations"):
        rows[row["study"]].append((row["channels"], row["segmentation_channel"], row["cell_diameter_px"]))
    found = {
        card.id: [
            (
                ",".join(channel.channel_type for channel in one.channels),
                one.segmentation_channel or "",
                "" if one.cell_diameter_px is None else f"{one.cell_diameter_px:g}",
            )
            for one in card.configurations
        ]
        for card in catalog
    }
    assert found == rows


def test_the_crop_sizes_are_those_of_the_reference(catalog, facts) -> None:
    table = {row["study"]: row["crop_px"] for row in facts("chammi75_crop_sizes")}
    for card in catalog:
        name = "hpa0018" if card.id == "hpa0001" else card.id
        assert ";".join(map(str, card.crop_sizes_px)) == table.get(name, "whole plane")


def test_the_content_filters_are_those_of_the_reference(catalog, facts) -> None:
    names = ("plate", "keywords", "keyword_type", "measure", "threshold", "direction", "unit")
    found = [
        (
            card.id,
            step.plate or "all",
            step.keywords or "",
            step.keyword_type or "",
            step.measure,
            f"{step.threshold:g}",
            step.direction,
            step.unit,
        )
        for card in catalog
        for step in card.content_filters
    ]
    rows = [(row["study"], *(row[name] for name in names)) for row in facts("chammi75_content_thresholds")]
    assert sorted(found) == sorted(rows)


def test_the_platform_cards_say_what_the_table_says(catalog, facts) -> None:
    rows = {row["platform"]: row for row in facts("platforms")}
    assert {card.name for card in catalog.platforms} == set(rows)
    for card in catalog.platforms:
        row = rows[card.name]
        assert " ; ".join(card.path_shapes) == row["api_or_bucket_path_shape"]
        assert (card.checksum_note or "") == row["checksum_given"]
        assert (card.authentication or "") == row["auth_needed"]
        assert (card.license_note or "") == row["default_license"]
        assert (card.notes or "") == row["notes"]
        assert card.evidence[0].stated_in == row["evidence"]


def test_a_stain_is_named_only_where_the_source_leaves_no_doubt(catalog) -> None:
    def stains(study: str) -> list[dict[str, str | None]]:
        return [{one.channel_type: one.panel for one in each.channels} for each in catalog.source(study).configurations]

    assert stains("idr0006") == [{"nucleus": "DAPI", "protein": "TRITC"}]
    assert stains("idr0028")[0]["microtubules"] == "AlexaFluor568"
    assert all(stain is None for each in stains("idr0002") for stain in each.values())  # two of one type
    assert all(stain is None for each in stains("idr0056") for stain in each.values())  # one list, two configurations
    assert all(stain is None for each in stains("idr0008") for stain in each.values())  # known of one screen only
    assert all(stain is None for each in stains("idr0069") for stain in each.values())  # a sentence, not a list
    assert {one.panel for card in catalog for each in card.configurations for one in each.channels if one.panel} >= {
        "DAPI"
    }
    for card in catalog:
        for each in card.configurations:
            for channel in each.channels:
                assert channel.panel is None or channel.panel in card.channels_text


def test_the_cards_were_generated_from_the_facts_that_are_recorded(facts_folder, tmp_path) -> None:
    script = [sys.executable, str(ROOT / "catalog" / "generate.py"), str(facts_folder), "--out", str(tmp_path)]
    done = subprocess.run(script, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    again = json.loads((tmp_path / "generated_from.json").read_text(encoding="utf-8"))
    recorded = json.loads((declarations_folder("catalog") / "generated_from.json").read_text(encoding="utf-8"))
    assert again["inputs"] == recorded["inputs"]
    assert len(again["cards"]) == 97


def test_a_card_that_people_edited_is_not_overwritten(facts_folder, tmp_path) -> None:
    script = [sys.executable, str(ROOT / "catalog" / "generate.py"), str(facts_folder), "--out", str(tmp_path)]
    assert subprocess.run(script, capture_output=True, check=False, cwd=ROOT).returncode == 0
    edited = tmp_path / "sources" / "idr0001.yaml"
    text = edited.read_text(encoding="utf-8")
    edited.write_text(text + "magnification: 60\n", encoding="utf-8")
    refused = subprocess.run(script, capture_output=True, text=True, check=False, cwd=ROOT)
    assert refused.returncode == 1
    assert "sources/idr0001.yaml" in refused.stderr and "--force" in refused.stderr
    assert edited.read_text(encoding="utf-8").endswith("magnification: 60\n")
    assert subprocess.run([*script, "--force"], capture_output=True, check=False, cwd=ROOT).returncode == 0
    assert edited.read_text(encoding="utf-8") == text


def test_a_catalog_opened_anew_sees_what_was_edited(new_catalog) -> None:
    folder = new_catalog(fly0001="id: fly0001\n")
    assert Catalog(folder).source("fly0001").title is None
    (folder / "sources" / "fly0001.yaml").write_text("id: fly0001\ntitle: Wings\n", encoding="utf-8")
    assert Catalog(folder).source("fly0001").title == "Wings"


@pytest.mark.parametrize("name", ["idr0017", "nidr0001"])
def test_a_card_says_where_each_group_of_facts_is_stated(catalog, name) -> None:
    card = catalog.source(name)
    covered = {field.partition(".")[0] for entry in card.evidence for field in entry.fields}
    needs_none = {
        "id",
        "platform",
        "accession",
        "evidence",
        "aliases",
        "also_at",
        "metadata_repository",
        "annotation_files",
    }
    said = {name for name, value in card if value not in (None, [])}
    assert said - covered - needs_none <= {"license_statement"}
