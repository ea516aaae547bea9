"""Writes the record of a planned image: what its files, the recipe and the tables say of it."""

from __future__ import annotations

import math
import posixpath
import re
from collections.abc import Iterable, Mapping
from typing import Any

from chammi75.build.channels import channel_panel, channel_type, nearest_word
from chammi75.build.drafts import Draft
from chammi75.build.joins import ImageKeys
from chammi75.build.planned import Finding
from chammi75.build.wells import lies_beyond_plates
from chammi75.readers.grouping import natural_key
from chammi75.schemas.recipe import BuildRecipe
from chammi75.schemas.record import ImageRecord
from chammi75.schemas.vocabulary import vocabulary

_NORMALISED = {"biology.organism": "organisms", "microscopy.type": "microscopy_types"}
_PATTERN_FIELDS = {
    "study": "experiment.study",
    "plate": "experiment.plate",
    "well": "experiment.well",
    "fov": "microscopy.fov",
}
_FEW = 10  # wells that a finding names
_CREDENTIALS = re.compile(r"(://)[^/@:]*:[^/@]*@")


def image_id(draft: Draft, recipe: BuildRecipe) -> str:
    """The image's identity: the same on every machine."""
    return f"{recipe.source}/{draft.identity}"


def image_keys(draft: Draft, recipe: BuildRecipe) -> ImageKeys:
    """By what the image is found in a table: what its name and the recipe say, and its files."""
    stated = {**_from_names(draft, recipe), **recipe.record}
    fields = ("experiment.plate", "experiment.well", "microscopy.fov", "geometry.z_slice", "geometry.timepoint")
    values: dict[str, tuple[str, ...]] = {name: (str(stated[name]),) for name in fields if stated.get(name) is not None}
    paths = tuple(dict.fromkeys(entry.candidate.path for entry in draft.placed))
    values["storage.path"] = paths
    values["storage.filename"] = tuple(dict.fromkeys(posixpath.basename(path) for path in paths))
    named = {dotted: draft.fields[name] for name, dotted in _PATTERN_FIELDS.items() if draft.fields.get(name)}
    for name, number in (("z_slice", draft.z_slice), ("timepoint", draft.timepoint)):
        if number is not None and draft.fields.get(name[0]):
            named[f"geometry.{name}"] = str(number)
    return ImageKeys(image_id(draft, recipe), values, named)


def write_record(draft: Draft, recipe: BuildRecipe, stated: Mapping[str, Any], uris: Mapping[str, str]) -> ImageRecord:
    """The record of an image.

    A table's word counts most, then the recipe's constants, the file's name, and what the file says of itself. Organism
    and microscopy get the vocabulary's name and its id; words that it lacks stay as they are.

    Parameters
    ----------
    draft : Draft
    recipe : BuildRecipe
    stated : mapping
        Record field -> value, of the tables; None where they contradict themselves.
    uris : mapping
        Path -> original URI; empty for files of a local folder.
    """
    candidates = [entry.candidate for entry in draft.placed]
    flat: dict[str, Any] = {**_from_files(draft), **_from_names(draft, recipe), **recipe.record, **stated}
    for name, words in _NORMALISED.items():
        term = vocabulary(words).find(flat.get(name))
        if term is not None:
            flat[name] = term.name
            if flat.get(f"{name}_id") is None:
                flat[f"{name}_id"] = term.id
    values: dict[str, dict[str, Any]] = {"experiment": {}, "biology": {}, "microscopy": {}, "geometry": {}}
    for dotted, value in flat.items():
        group, name = dotted.split(".")
        values[group][name] = value
    values["geometry"] |= {
        "width": draft.width,
        "height": draft.height,
        "channels": len(draft.placed),
        "dtype": draft.dtype,
    }
    if draft.dtype.startswith("float"):
        values["geometry"]["significant_bits"] = None
    return ImageRecord.model_validate(
        {
            "image_id": image_id(draft, recipe),
            **values,
            "imaging": {
                "channel": [entry.number for entry in draft.placed],
                "channel_type": [channel_type(entry) for entry in draft.placed],
                "panel": [channel_panel(entry) for entry in draft.placed],
                "missing_channel": list(draft.missing),
            },
            "storage": {
                "filename": [posixpath.basename(candidate.path) for candidate in candidates],
                "path": [candidate.path for candidate in candidates],
            },
            "provenance": {
                "platform": recipe.platform,
                "source": recipe.source,
                "title": recipe.title,
                "license": recipe.license,
                "doi": recipe.doi,
                "uri": [_without_password(uris[candidate.path]) for candidate in candidates] if uris else [],
                "reader": _joined(candidate.file.reader for candidate in candidates),
                "reader_version": _joined(candidate.file.reader_version for candidate in candidates),
                "format": _joined(candidate.file.format for candidate in candidates),
                "steps": list(dict.fromkeys(step for candidate in candidates for step in candidate.series.steps)),
            },
        }
    )


def report_words(records: Iterable[ImageRecord], recipe: BuildRecipe) -> list[Finding]:
    """A ``note`` for each word of the recipe and the tables that a vocabulary lacks, with the nearest that it has."""
    strange: dict[tuple[str, str], None] = {}
    for rule in recipe.channels or ():
        if rule.channel_type is not None and vocabulary("channel_types").find(rule.channel_type) is None:
            strange["imaging.channel_type", rule.channel_type] = None
    for record in records:
        for dotted, word in (
            ("biology.organism", record.biology.organism),
            ("microscopy.type", record.microscopy.type),
        ):
            if word is not None and vocabulary(_NORMALISED[dotted]).find(word) is None:
                strange[dotted, word] = None
    findings = []
    for dotted, word in strange:
        words = vocabulary(_NORMALISED.get(dotted, "channel_types"))
        near = nearest_word(words, word)
        hint = f"; did you mean {near!r}?" if near else ""
        findings.append(Finding("note", dotted, f"{word!r} is no word of the vocabulary and is kept as it is{hint}"))
    return findings


def report_wells(drafts: Iterable[Draft]) -> list[Finding]:
    """A ``note`` on wells of file names that no plate has."""
    names: dict[str, str] = {}
    for draft in drafts:
        well = draft.fields.get("well", "")
        if well not in names and lies_beyond_plates(well):
            names[well] = draft.identity
    if not names:
        return []
    few = ", ".join(sorted(names, key=natural_key)[:_FEW]) + (" …" if len(names) > _FEW else "")
    what = f"no plate has the well{'' if len(names) == 1 else 's'} {few}"
    reason = f"{what} (plates of 1536 wells have rows A to AF and columns 1 to 48): is the name read as it is meant?"
    return [Finding("note", next(iter(names.values())), reason)]


def report_calibration(draft: Draft) -> str | None:
    """In what the files of an image contradict each other about its scale; None if in nothing."""
    for what, name in (("pixel sizes", "pixel_size_um"), ("magnifications", "magnification")):
        values = _stated(draft, name)
        if values and not _agree(values):
            told = ", ".join(f"{value:g}" for value in dict.fromkeys(values))
            return f"its files state different {what} ({told}): none is taken"
    return None


def _from_files(draft: Draft) -> dict[str, Any]:
    pixel_sizes, magnifications = _stated(draft, "pixel_size_um"), _stated(draft, "magnification")
    bits = [entry.candidate.series.significant_bits for entry in draft.placed]
    known = [count for count in bits if count is not None and 1 <= count <= 32]
    return {
        "geometry.pixel_size_um": pixel_sizes[0] if pixel_sizes and _agree(pixel_sizes) else None,
        "microscopy.magnification": magnifications[0] if magnifications and _agree(magnifications) else None,
        "geometry.significant_bits": max(known) if known and len(known) == len(bits) else None,
    }


def _from_names(draft: Draft, recipe: BuildRecipe) -> dict[str, Any]:
    named = {dotted: draft.fields[name] for name, dotted in _PATTERN_FIELDS.items() if draft.fields.get(name)}
    geometry = {
        "geometry.z_slice": draft.z_slice,
        "geometry.timepoint": draft.timepoint,
        "geometry.depth": draft.depth,
    }
    return {"experiment.study": recipe.study or recipe.source, **named, **geometry}


def _stated(draft: Draft, name: str) -> list[float]:
    """What the files of the channels state for a calibration, where it makes sense."""
    values = [getattr(entry.candidate.series, name) for entry in draft.placed]
    return [float(value) for value in values if value is not None and math.isfinite(value) and value > 0]


def _agree(values: list[float]) -> bool:
    return math.isclose(min(values), max(values), rel_tol=1e-6)


def _joined(words: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(words))


def _without_password(url: str) -> str:
    return _CREDENTIALS.sub(r"\1", url)
