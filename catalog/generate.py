"""Writes the first version of the cards from the tables of facts: ``python catalog/generate.py FACTS_DIR``.

After that the cards are data that people edit: a card that was edited since is never overwritten, unless ``--force`` is
given. ``generated_from.json`` keeps the SHA-256 of each table and of each card as it was written. A fact that no table
states is left out.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import re
import sys
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import yaml

from chammi75.errors import ChammiError
from chammi75.schemas.cards import PlatformCard, SourceCard
from chammi75.schemas.vocabulary import vocabulary

HERE = Path(__file__).resolve().parent
TABLES = {
    "studies": "idr_studies.tsv",
    "platforms": "platforms.tsv",
    "configurations": "chammi75_channel_configurations.tsv",
    "crop_sizes": "chammi75_crop_sizes.tsv",
    "content": "chammi75_content_thresholds.tsv",
}
RECORD = "generated_from.json"
Row = dict[str, str]

REFERENCE = "CaicedoLab/CHAMMI-75@b84a4ec"
IDR_SITE = "IDR/idr.openmicroscopy.org@632dd59"
COLLECTION = {
    "name": "CHAMMI-75",
    "license": "CC-BY-4.0",
    "license_text": "CC BY 4.0",
    "stated_in": "awslabs/open-data-registry datasets/chammi.yaml",
}
OTHER_NAMES = {"hpa0001": ["hpa0018", "hpa0023"]}  # as folders and code of the reference call it
CROPS_UNDER = {"hpa0001": "hpa0018"}  # the name under which the table of crop sizes has it
STRUCTURED = ("annotation CSV column", "rendering labels", "study.txt Raw Image Organization")
"""Sources of channel texts that are lists of labels; the others are sentences."""

PLATFORMS = {
    "Image Data Resource (IDR)": ("idr", "idr"),
    "BioImage Archive / BioStudies": ("biostudies", "biostudies"),
    "EMPIAR": ("empiar", "empiar"),
    "Broad Bioimage Benchmark Collection (BBBC)": ("bbbc", "bbbc"),
    "Cell Painting Gallery": ("cellpainting-gallery", "s3"),
    "Human Protein Atlas": ("hpa", "hpa"),
    "Allen Cell Explorer (Allen Cell Imaging Collections)": ("allencell", "allencell"),
    "Recursion RxRx": ("rxrx", "rxrx"),
    "Zenodo": ("zenodo", "zenodo"),
    "Figshare": ("figshare", "figshare"),
    "Dryad": ("dryad", "dryad"),
    "Mendeley Data": ("mendeley", "mendeley"),
    "OSF": ("osf", "osf"),
    "Dataverse (Harvard and others)": ("dataverse", "dataverse"),
    "Kaggle": ("kaggle", "kaggle"),
    "Hugging Face Hub": ("huggingface", "hf"),
    "Cell Tracking Challenge": ("ctc", "ctc"),
    "SSBD:database / SSBD:repository (RIKEN)": ("ssbd", "ssbd"),
    "NCI Imaging Data Commons": ("idc", "s3"),
    "DANDI": ("dandi", "s3"),
    "AWS open data: chammi-data (CHAMMI-75)": ("chammi75", "s3"),
    "AWS open data: cytodata (Cell Painting Image Collection, extra)": ("cytodata", "s3"),
}
"""Platform in the table -> id of its card, and the fsspec protocol that reads it."""


def main(arguments: list[str]) -> int:
    """Write the cards; 1 if edited ones stand in the way."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("facts", type=Path, help="folder with the tables of facts")
    parser.add_argument("--out", type=Path, default=HERE, help="catalog to write to (the one beside this script)")
    parser.add_argument("--force", action="store_true", help="overwrite cards that people edited since")
    options = parser.parse_args(arguments)
    tables = {name: read_table(options.facts / file) for name, file in TABLES.items()}
    files = {}
    for card in source_cards(tables):
        SourceCard.model_validate(card)
        files[f"sources/{card['id']}.yaml"] = card_text(card, "source-card")
    for card in platform_cards(tables["platforms"]):
        PlatformCard.model_validate(card)
        files[f"platforms/{card['id']}.yaml"] = card_text(card, "platform-card")
    edited = edited_cards(options.out, files)
    if edited and not options.force:
        print(f"nothing was written: {len(edited)} cards were edited since they were generated", file=sys.stderr)
        print(f"({', '.join(edited[:8])}); --force overwrites them", file=sys.stderr)
        return 1
    for name, text in files.items():
        path = options.out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
    record = {
        "inputs": {
            file: {"sha256": sha256((options.facts / file).read_bytes()), "rows": len(tables[name])}
            for name, file in TABLES.items()
        },
        "cards": {name: sha256(text.encode()) for name, text in files.items()},
    }
    (options.out / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8", newline="\n")
    print(f"{len(files)} cards written to {options.out}")
    return 0


def edited_cards(folder: Path, files: dict[str, str]) -> list[str]:
    """Cards that are neither what was generated last time nor what would be written now."""
    record = folder / RECORD
    before = json.loads(record.read_text(encoding="utf-8"))["cards"] if record.is_file() else {}
    there = {name: sha256((folder / name).read_bytes()) for name in files if (folder / name).is_file()}
    return [name for name, now in there.items() if now not in (before.get(name), sha256(files[name].encode()))]


def read_table(path: Path) -> list[Row]:
    """A table of facts, its cells without white space around them."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            return [
                {name: (cell or "").strip() for name, cell in row.items()}
                for row in csv.DictReader(file, delimiter="\t")
            ]
    except OSError as error:
        raise ChammiError(
            f"{path}: the table cannot be read ({error.strerror}); FACTS_DIR holds {path.name}"
        ) from error


def sha256(content: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


# Sources


def source_cards(tables: dict[str, list[Row]]) -> Iterator[dict[str, Any]]:
    """A card for each study of the table of channel configurations."""
    studies = {row["study_id"]: row for row in tables["studies"]}
    crops = {row["study"]: row["crop_px"] for row in tables["crop_sizes"]}
    for study, rows in groupby(tables["configurations"], key=lambda row: row["study"]):
        facts = studies.get(study)
        card: dict[str, Any] = {"id": study}
        if study in OTHER_NAMES:
            card["aliases"] = OTHER_NAMES[study]
        if facts is not None:
            card |= study_card(facts)
        card["collection"] = COLLECTION
        card["configurations"] = configurations(list(rows), facts)
        named = CROPS_UNDER.get(study, study)
        row_used = named if named in crops else "(any other)"
        card["crop_sizes_px"] = [crop if crop == "whole plane" else int(crop) for crop in crops[row_used].split(";")]
        card["content_filters"] = [content_filter(row) for row in tables["content"] if row["study"] == study]
        card = without_unknown(card)
        evidence = [*(study_evidence(facts) if facts else []), *reference_evidence(study, row_used, crops)]
        yield card | {"evidence": [without_unknown(one) for one in of_stated_fields(evidence, card)]}


def study_card(row: Row) -> dict[str, Any]:
    """What the IDR states of a study."""
    repository = row["repository"]
    own = repository != "IDR/idr-metadata"
    folder = repository.partition("/")[2] if own else row["study_file_path"].partition("/")[0]
    also = [("bioimage_archive_accession", "as the study file states it"), ("bia_ngff_id", "OME-Zarr copy")]
    title, released = row["title"], row["release_date"]
    return {
        "aliases": [folder],
        "title": title,
        "platform": "idr",
        "accession": row["study_id"],
        "also_at": [
            {"platform": "biostudies", "accession": row[column], "note": note} for column, note in also if row[column]
        ],
        "download_path": row["download_path"],
        "data_location": row["data_location"],
        "metadata_repository": repository,
        "annotation_files": parts(row["annotation_csv_paths"]),
        "data_doi": row["data_doi"],
        "study_dois": parts(row["publication_doi"]),
        "pubmed_ids": parts(row["pubmed_id"]),
        "license": row["license_name"].replace(" ", "-"),
        "license_statement": {
            "text": row["license_name"],
            "url": row["license_url"],
            "stated_in": f"{repository}@{row['study_file_commit']} {row['study_file_path']}",
            "stated_at": study_file_url(row),
        },
        "copyright": row["copyright"],
        "citation": {"authors": row["authors_short"], "year": int(released[:4]) if released else None},
        "release_date": released,
        "study_types": parts(row["study_type"]),
        "technology_types": parts(row["technology_type"]),
        "organisms": [
            {"name": name, "ncbi_taxon_id": int(taxon)}
            for name, taxon in zip(parts(row["organism"]), parts(row["organism_ncbi_taxon_id"]), strict=True)
        ],
        "cell_lines": cell_lines(row["sample_type_cell_lines"]),
        "imaging_methods": imaging_methods(row),
        "channels_text": row["channels_text"],
        "image_dimensions": [" ".join(text.split()) for text in parts(row["avg_image_dim_xyzct"])],
        "expected_images": number(row["n_images_5d"]),
        "expected_bytes": number(row["total_size"].removesuffix("bytes")),
        "expected_plates": number(row["n_sets_plates"]),
        "containers": containers(row),
    }


def study_file_url(row: Row) -> str:
    """The study file at its commit."""
    return f"https://github.com/{row['repository']}/blob/{row['study_file_commit']}/{row['study_file_path']}"


def cell_lines(text: str) -> list[str]:
    """The lines that ``cell | HeLa; U2OS (study.txt)`` names."""
    named = text.partition("|")[2]
    lines = (re.sub(r"\s*\((?:[^()]*study\.txt|\d+ lines)\)", "", line).strip() for line in named.split(";"))
    return list(dict.fromkeys(line for line in lines if line and not line.startswith("...")))


def imaging_methods(row: Row) -> list[dict[str, Any]]:
    """Methods with the vocabulary's word and the id stated: in pairs, or where the vocabulary says whose it is."""
    words = vocabulary("microscopy_types")
    texts = parts(row["imaging_methods"])
    ids = [re.sub(r"(?i)^fbbi_", "FBbi:", one).replace("_", ":") for one in parts(row["imaging_method_fbbi_ids"])]
    methods = []
    for place, text in enumerate(texts):
        term = words.find(text)
        own = next((one for one in ids if term is not None and one == term.id), None)
        stated = ids[place] if len(ids) == len(texts) else own
        methods.append({"text": text, "microscopy_type": term.name if term else None, "ontology_id": stated})
    return methods


def containers(row: Row) -> list[dict[str, Any]]:
    """``screenA: 40608 images, 141 sets, 118128088276 bytes, demo1; …`` with the DOIs of their data."""
    dois = dict(part.split("=") for part in parts(row["container_data_dois"]))
    found = {}
    for part in parts(row["containers_detail"]):
        name, images, plates, size = re.match(r"(\w+): ([\d,]+) images, ([\d,]+) sets, ([\d,]+) bytes", part).groups()  # type: ignore[union-attr]
        found[name] = {"name": name, "images": number(images), "plates": number(plates), "bytes": number(size)}
    for name, doi in dois.items():
        found.setdefault(name, {"name": name})["data_doi"] = doi
    return list(found.values())


def content_filter(row: Row) -> dict[str, Any]:
    """A row of the reference's content filter."""
    names = ("keywords", "keyword_type", "measure", "direction", "unit")
    step: dict[str, Any] = {name: row[name] for name in names}
    return {"plate": None if row["plate"] == "all" else row["plate"], **step, "threshold": number(row["threshold"])}


# Channels and their stains


def configurations(rows: list[Row], facts: Row | None) -> list[dict[str, Any]]:
    """The table's channel configurations of a study, with the stains that the study's channel text names."""
    sets = [row["channels"].split(",") for row in rows]
    found = []
    for row, types in zip(rows, sets, strict=True):
        of_this_size = sum(len(one) == len(types) for one in sets)
        labels = panels(types, facts, of_this_size, alone=len(sets) == 1) if facts is not None else {}
        found.append(
            {
                "channels": [{"channel_type": name, "panel": labels.get(name)} for name in types],
                "segmentation_channel": row["segmentation_channel"],
                "cell_diameter_px": number(row["cell_diameter_px"]),
            }
        )
    return found


def panels(types: list[str], facts: Row, of_this_size: int, alone: bool) -> dict[str, str]:
    """Channel type -> stain, where the channel text is lists of labels that leave no doubt.

    Lists with another number of channels say nothing of this configuration, and fewer lists than the study has
    configurations of this size could belong to others. A label belongs to the type that the vocabulary makes of its
    words, if all lists agree. Where there is one list for one configuration, and one label and one type are left over,
    they belong together. A type that occurs twice gets none.
    """
    source = facts["channels_source"]
    if not source.startswith(STRUCTURED) or "not seen for" in source:
        return {}
    everything = list(label_lists(facts["channels_text"]))
    lists = [one for number, one in enumerate(everything) if len(one) == len(types) and one not in everything[:number]]
    if not lists or len(lists) < of_this_size:
        return {}
    found = [assigned(types, one) for one in lists]
    if len(lists) == of_this_size == 1 and (found[0] or alone):
        left = [label for label in lists[0] if label[0] not in found[0].values()]
        missing = [name for name in types if name not in found[0]]
        if len(left) == len(missing) == 1:
            found[0][missing[0]] = left[0][0]
    agreed = {name: label for name, label in found[0].items() if all(one.get(name) == label for one in found)}
    return {name: label for name, label in agreed.items() if types.count(name) == 1 and label.casefold() != name}


def assigned(types: list[str], labels: list[list[str]]) -> dict[str, str]:
    """Channel type -> the first word of the label that stands for it by the vocabulary."""
    words = vocabulary("channel_types")
    taken: dict[str, str] = {}
    for label in labels:
        terms = {term.name for word in label if (term := words.find(word)) is not None}
        meant = terms & set(types)
        if len(meant) == 1 and (name := meant.pop()) not in taken:
            taken[name] = label[0]
    return taken


def label_lists(text: str) -> Iterator[list[list[str]]]:
    """The lists of labels in a channel text; each label as its words, what only counts channels left out."""
    for section in text.split(" || "):
        section = re.sub(r"^(?:screen|experiment)[A-Z](?:,(?:screen|experiment)[A-Z])*: ", "", section)
        for alternative in re.split(r" / ", section):
            labels = re.split(r";" if ";" in alternative else r",(?![^(]*\))", alternative)
            words = [list(label_words(label)) for label in labels if label.strip(" .")]
            if all(words):
                yield words


def label_words(label: str) -> Iterator[str]:
    """``w1 : Hoechst (DNA)`` -> Hoechst, DNA."""
    for word in re.split(r"[:(),]", label):
        word = word.strip(" .")
        if word and not re.fullmatch(r"(?i)w\d+|ch\d+|channel \d+|exp\d+cam\d+|\d+|blue|green|red", word):
            yield word


# Evidence


def study_evidence(row: Row) -> list[dict[str, Any]]:
    """Where the facts of an IDR study are stated."""
    study_file = f"{row['repository']}@{row['study_file_commit']} {row['study_file_path']}"
    evidence = [
        {
            "fields": [
                *("title", "study_dois", "data_doi", "pubmed_ids", "license", "copyright", "citation", "release_date"),
                *("study_types", "technology_types", "organisms", "imaging_methods"),
            ],
            "stated_in": study_file,
            "url": study_file_url(row),
            "note": f"organisms: {row['organism_source'].removeprefix('study.txt ')}; the year is that of the release",
        },
        {"fields": ["channels_text", "configurations.channels.panel"], "stated_in": row["channels_source"]},
        {
            "fields": ["expected_images", "expected_bytes", "expected_plates", "containers", "image_dimensions"],
            "stated_in": IDR_SITE,
            "note": "sums over the site's table of studies",
        },
        {"fields": ["download_path", "data_location"], "stated_in": f"{IDR_SITE} _data/download_urls.tsv"},
    ]
    lines = row["sample_type_cell_lines"].partition("|")[2].strip()
    if lines:
        partial = "some of the lines; " if "..." in lines else ""
        text = {"fields": ["cell_lines"], "stated_in": "annotation tables and study file of the study"}
        evidence.append({**text, "note": f"{partial}read as: {lines}"})
    return evidence


def of_stated_fields(evidence: Iterable[dict[str, Any]], card: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The evidence of fields that the card has."""
    has_panels = any("panel" in channel for one in card["configurations"] for channel in one["channels"])
    there = {*card, *(["configurations.channels.panel"] if has_panels else [])}
    for entry in evidence:
        fields = [name for name in entry["fields"] if name in there]
        if fields:
            yield {**entry, "fields": fields}


def reference_evidence(study: str, row_used: str, crops: dict[str, str]) -> list[dict[str, Any]]:
    """Where the facts of the published dataset are stated."""
    note = "the table's row for all studies that it does not name" if row_used == "(any other)" else None
    if study in CROPS_UNDER:
        others = [name for name in OTHER_NAMES[study] if name != row_used and name in crops]
        note = f"the table has it as {row_used}" + "".join(f"; for {name} it has {crops[name]}" for name in others)
    evidence: list[dict[str, Any]] = [
        {"fields": ["configurations", "content_filters"], "stated_in": REFERENCE},
        {"fields": ["crop_sizes_px"], "stated_in": REFERENCE, "note": note},
        {"fields": ["collection"], "stated_in": COLLECTION["stated_in"]},
    ]
    if study in OTHER_NAMES:
        evidence.append({"fields": ["aliases"], "stated_in": REFERENCE, "note": "folders and code call it so"})
    return evidence


# Platforms


def platform_cards(rows: Iterable[Row]) -> Iterator[dict[str, Any]]:
    """A card for each row of the table of platforms."""
    spdx = {"CC0 1.0": "CC0-1.0", "CC BY 4.0": "CC-BY-4.0"}
    for row in rows:
        name, protocol = PLATFORMS[row["platform"]]
        shapes = row["api_or_bucket_path_shape"]
        yield without_unknown(
            {
                "id": name,
                "name": row["platform"],
                "protocol": protocol,
                "kind_of_access": row["kind_of_access"],
                "path_shapes": [shape.strip() for shape in shapes.split(" ; ")],
                "buckets": buckets(shapes),
                "checksums": checksums(row["checksum_given"]),
                "checksum_note": row["checksum_given"],
                "authentication": row["auth_needed"],
                "default_license": spdx.get(row["default_license"]),
                "license_note": row["default_license"],
                "python_client": row["python_client_if_any"],
                "notes": row["notes"],
                "evidence": [
                    {
                        "fields": ["kind_of_access", "path_shapes", "checksums", "authentication", "license_note"],
                        "stated_in": row["evidence"],
                    }
                ],
            }
        )


def checksums(text: str) -> list[str]:
    """The hashes that a platform gives; what others keep of it does not count."""
    if text.startswith(("none", "no ")):
        return []
    found = re.findall(r"\bmd5\b|\bsha1\b|\bsha2?-?256\b|\bsha512\b", text)
    return list(dict.fromkeys("sha256" if name.endswith("256") else name for name in found))


def buckets(shapes: str) -> list[dict[str, Any]]:
    """``s3 bucket cellpainting-gallery (us-east-1): …``"""
    found: list[dict[str, Any]] = []
    for names, region in re.findall(r"s3 buckets? ([a-z0-9-]+(?:, [a-z0-9-]+)*) \(([a-z0-9-]+)\)", shapes):
        found += [{"protocol": "s3", "name": name, "region": region} for name in names.split(", ")]
    names = re.findall(r"gs bucket ([a-z0-9-]+)/\S+ , ([a-z0-9-]+)/", shapes)
    found += [{"protocol": "gs", "name": name} for pair in names for name in pair]
    return found


# Text


def parts(cell: str) -> list[str]:
    """The values of a cell that are divided by semicolons."""
    return [part.strip() for part in cell.split(";") if part.strip()]


def number(text: str) -> int | None:
    """A whole number, perhaps with thousands commas."""
    digits = text.replace(",", "").strip()
    return int(digits) if digits else None


def without_unknown(value: Any) -> Any:
    """``value`` without what is None, empty text or an empty list, at any depth."""
    if isinstance(value, dict):
        cleaned = {name: without_unknown(one) for name, one in value.items()}
        return {name: one for name, one in cleaned.items() if one not in (None, "", [], {})}
    return [without_unknown(one) for one in value] if isinstance(value, list) else value


class _Flow(dict):  # type: ignore[type-arg]
    """A mapping that is written on one line."""


class _FlowList(list):  # type: ignore[type-arg]
    """A list that is written on one line."""


class _Dumper(yaml.SafeDumper):
    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_representer(_Flow, lambda dumper, data: dumper.represent_mapping("tag:yaml.org,2002:map", data, True))
_Dumper.add_representer(_FlowList, lambda dumper, data: dumper.represent_sequence("tag:yaml.org,2002:seq", data, True))


def card_text(card: dict[str, Any], schema: str) -> str:
    """The card as people read and edit it: short lists and mappings on one line."""
    shown = {name: _laid_out(value) for name, value in card.items()}
    text = yaml.dump(shown, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
    return f"# yaml-language-server: $schema=../../schemas/{schema}.schema.json\n{text}"


def _laid_out(value: Any) -> Any:
    if isinstance(value, dict):
        laid = {name: _laid_out(one) for name, one in value.items()}
        return _Flow(laid) if _is_short(value) else laid
    if isinstance(value, list):
        laid_out = [_laid_out(one) for one in value]
        short = not any(isinstance(one, dict) or len(str(one)) > 40 for one in value)
        return _FlowList(laid_out) if short else laid_out
    return value


def _is_short(value: dict[str, Any]) -> bool:
    return len(str(value)) < 100 and not any(isinstance(one, dict | list) for one in value.values())


if __name__ == "__main__":
    try:
        raise SystemExit(main(sys.argv[1:]))
    except ChammiError as error:
        raise SystemExit(f"{error}") from None
