"""The vocabularies in catalog/vocabularies."""

from __future__ import annotations

import csv
import json

import jsonschema
import pytest
import yaml
from pydantic import ValidationError

from chammi75.declarations import declarations_folder
from chammi75.errors import RecipeError
from chammi75.schemas import Vocabulary, vocabulary

NAMES = ("channel_types", "microscopy_types", "organisms")


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("DAPI", "nucleus"),
        ("Hoechst", "nucleus"),
        ("DNA", "nucleus"),
        ("hoechst-33342", "nucleus"),
        ("MitoTracker", "mitochondria"),
        ("mito_tracker", "mitochondria"),
        ("F-actin", "cytoskeleton"),
        ("KTR", "KTR"),
        ("DIC", "differential interference contrast (DIC)"),
    ],
)
def test_stains_stand_for_channel_types(word: str, name: str) -> None:
    term = vocabulary("channel_types").find(word)
    assert term is not None and term.name == name


@pytest.mark.parametrize("word", ["GFP", "FITC", "Alexa 488", "Cy3", "w1", ""])
def test_dyes_that_may_label_anything_stand_for_nothing(word: str) -> None:
    assert vocabulary("channel_types").find(word) is None


def test_organisms_have_the_ids_that_the_study_files_state() -> None:
    organisms = vocabulary("organisms")
    human = organisms.find("human")
    assert human is not None and (human.name, human.id) == ("Homo sapiens", "NCBITaxon:9606")
    assert all(term.evidence for term in organisms.terms if term.id)


@pytest.mark.parametrize("name", NAMES)
def test_vocabularies_fit_their_json_schema(name: str) -> None:
    schema = json.loads((declarations_folder("schemas") / "vocabulary.schema.json").read_text(encoding="utf-8"))
    file = declarations_folder("catalog") / "vocabularies" / f"{name}.yaml"
    jsonschema.validate(yaml.safe_load(file.read_text(encoding="utf-8")), schema)


def test_a_word_that_stands_for_two_terms_is_refused() -> None:
    terms = [{"name": "nucleus", "synonyms": ["blob"]}, {"name": "er", "synonyms": ["Blob"]}]
    with pytest.raises(ValidationError, match="stands for both 'nucleus' and 'er'"):
        Vocabulary.model_validate({"field": "x", "title": "y", "terms": terms})


def test_an_unknown_vocabulary_names_those_there_are() -> None:
    with pytest.raises(RecipeError, match="channel_types, microscopy_types, organisms"):
        vocabulary("colours")


def test_every_channel_type_of_the_published_dataset_is_a_term(shared_data) -> None:
    facts = shared_data.parent / "facts" / "chammi75_channel_configurations.tsv"
    if not facts.is_file():
        pytest.skip("the facts of the published dataset are not here")
    with open(facts, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    published = set()
    for row in rows:
        published.update(row["channels"].split(","))
    assert published == {term.name for term in vocabulary("channel_types").terms}
