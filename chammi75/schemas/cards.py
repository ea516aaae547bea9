"""Cards: what is declared of a source and of a platform. What no source states stays null."""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StringConstraints, field_validator

from chammi75.schemas.base import Model
from chammi75.schemas.recipe import SourceId

PlatformId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
Doi = Annotated[str, StringConstraints(pattern=r"^10\.\d{4,9}/\S+$")]
Day = Annotated[str, StringConstraints(pattern=r"^\d{4}-\d{2}-\d{2}$")]
Url = Annotated[str, StringConstraints(pattern=r"^(https?|ftp|s3|gs)://\S+$")]
Word = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]
CropSize = Annotated[int, Field(gt=0)] | Literal["whole plane"]
Checksum = Literal["md5", "sha1", "sha256", "sha512"]


class CardModel(Model):
    """Base of what cards are made of: numbers are written as numbers and words as words, nothing is converted."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class Evidence(CardModel):
    """Where facts are stated."""

    fields: list[Word] = Field(min_length=1, description="The card's fields that it is evidence of.")
    stated_in: Word = Field(description="Repository and commit with the file, page or table that states them.")
    url: Url | None = Field(None, description="That file or page.")
    note: Word | None = Field(None, description="What it says there, or how it was read.")


class LicenseStatement(CardModel):
    """How a licence is stated, and where."""

    text: Word | None = Field(None, description="The licence in the source's words.")
    url: Url | None = Field(None, description="The licence's own page, as the source names it.")
    stated_in: Word | None = Field(None, description="Repository and commit with the file that states it.")
    stated_at: Url | None = Field(None, description="URL of that file.")


class CollectionStatement(CardModel):
    """What a collection that holds the source says of it; it need not agree with the source."""

    name: Word = Field(description="Name of the collection.")
    license: Word | None = Field(None, description="Licence of the collection, an SPDX expression.")
    license_text: Word | None = Field(None, description="The same in the collection's words.")
    stated_in: Word | None = Field(None, description="Where the collection states it.")


class Citation(CardModel):
    """Whom and what to cite, as far as it is stated."""

    authors: Word | None = Field(None, description="Authors, as the platform shortens them (Graml V et al.).")
    title: Word | None = Field(None, description="Title, where it differs from the card's.")
    year: int | None = Field(None, ge=1900, le=2200, description="Year in which the data was released.")


class Organism(CardModel):
    """A species, with its id."""

    name: Word = Field(description="Scientific name, a word of the vocabulary organisms.")
    ncbi_taxon_id: int | None = Field(None, gt=0, description="NCBI Taxonomy id, where the source states it.")


class ImagingMethod(CardModel):
    """A kind of microscopy, in the source's words and in the vocabulary's."""

    text: Word = Field(description="The method in the source's words.")
    microscopy_type: Word | None = Field(
        None, description="Word of the vocabulary microscopy_types; null where it has none for the text."
    )
    ontology_id: Word | None = Field(None, description="Id that the source states (FBbi:00000246).")


class ChannelCard(CardModel):
    """One channel of a source."""

    channel_type: Word | None = Field(None, description="What it shows, a word of the vocabulary channel_types.")
    panel: Word | None = Field(None, description="Stain or label, in the source's word.")


class ChannelConfiguration(CardModel):
    """One set of channels that images of the source have, and how the reference segments its cells."""

    channels: list[ChannelCard] = Field(
        min_length=1, description="The channels, in the order of the published table (by name, not as in the files)."
    )
    segmentation_channel: Word | None = Field(
        None,
        description="What the reference segments, in its words: numbers of channels from 1, 0 for all, skip for none.",
    )
    cell_diameter_px: float | None = Field(None, gt=0, description="Cell diameter given to the segmenter.")


class ContentFilter(CardModel):
    """A step of the reference's content filter: which share of the images it keeps by a content measure."""

    plate: Word | None = Field(None, description="Plate that it applies to; null for all.")
    keywords: Word | None = Field(None, description="Which files it applies to; null for all.")
    keyword_type: Literal["replace", "regex"] | None = Field(None, description="How the keywords are read.")
    measure: Literal["pc", "live"] = Field(description="Name of the measure; the reference does not say what it is.")
    threshold: float = Field(ge=0, description="Share, or value, from which images are kept.")
    direction: Literal["top", "bottom"] = Field(description="Which end is kept.")
    unit: Literal["%", "abs"] = Field(description="Whether the threshold is a share in percent or a value.")


class Container(CardModel):
    """A screen or experiment of the study, as the platform lists it."""

    name: Word = Field(description="Its name (screenA).")
    images: int | None = Field(None, ge=0, description="Images that the platform counts.")
    plates: int | None = Field(None, ge=0, description="Plates or datasets that the platform counts.")
    bytes: int | None = Field(None, ge=0, description="Bytes that the platform counts.")
    data_doi: Doi | None = Field(None, description="DOI of its data.")


class Accession(CardModel):
    """Another place of the same study."""

    platform: PlatformId = Field(description="Id of that platform's card.")
    accession: Word = Field(description="Its identifier there.")
    note: Word | None = Field(None, description="What is there.")


class BadPlate(CardModel):
    """A plate that is known to be bad."""

    plate: Word = Field(description="The plate.")
    reason: Word = Field(description="What is wrong with it.")
    url: Url | None = Field(None, description="Where it is reported.")


class SourceCard(CardModel):
    """One study as some platform hosts it."""

    id: SourceId = Field(description="Id of the source.")
    aliases: list[Word] = Field([], description="Other names of it.")
    title: Word | None = Field(None, description="Title of the study.")
    platform: PlatformId | None = Field(None, description="Id of the platform's card.")
    accession: Word | None = Field(None, description="The platform's own identifier.")
    also_at: list[Accession] = Field([], description="Other places of the same study.")
    url: Url | None = Field(None, description="Page of the study.")
    download_path: Word | None = Field(None, description="Where its files lie, as the platform's site states it.")
    data_location: Word | None = Field(None, description="Which storage of the platform's that path belongs to.")
    metadata_repository: Word | None = Field(None, description="GitHub repository of its metadata (owner/name).")
    annotation_files: list[Word] = Field([], description="Annotation tables, relative to that repository.")
    data_doi: Doi | None = Field(None, description="DOI of the data.")
    study_dois: list[Doi] = Field([], description="DOIs of the publications, the study's own first.")
    pubmed_ids: list[Word] = Field([], description="PubMed ids of the publications.")
    license: Word | None = Field(
        None, description="Licence of the source itself, an SPDX expression; null where none is stated."
    )
    license_statement: LicenseStatement | None = Field(None, description="How and where that licence is stated.")
    copyright: Word | None = Field(None, description="Holder of the copyright, in the source's words.")
    collection: CollectionStatement | None = Field(None, description="What a collection that holds it says of it.")
    citation: Citation | None = Field(None, description="Whom and what to cite.")
    release_date: Day | None = Field(None, description="Day on which the platform released it (YYYY-MM-DD, quoted).")
    study_types: list[Word] = Field([], description="Kinds of study, in the source's words.")
    technology_types: list[Word] = Field([], description="Kinds of perturbation, in the source's words.")
    organisms: list[Organism] = Field([], description="Species: hosts, and what infects them.")
    cell_lines: list[Word] = Field([], description="Cell lines or strains, in the source's words.")
    imaging_methods: list[ImagingMethod] = Field([], description="Kinds of microscopy.")
    magnification: float | None = Field(None, gt=0, description="Nominal magnification.")
    channels_text: Word | None = Field(None, description="What the source says of its channels, verbatim.")
    configurations: list[ChannelConfiguration] = Field([], description="Its sets of channels.")
    crop_sizes_px: list[CropSize] = Field([], description="Sizes that the reference draws guided crops from.")
    content_filters: list[ContentFilter] = Field([], description="The reference's content filter.")
    pattern: Word | None = Field(None, description="What its file names say (as in a build recipe).")
    image_dimensions: list[Word] = Field([], description="Mean size of its images, as X x Y x Z x C x T.")
    expected_images: int | None = Field(
        None, ge=0, description="Images that the platform counts; a stack or movie is one."
    )
    expected_bytes: int | None = Field(None, ge=0, description="Bytes that the platform counts.")
    expected_plates: int | None = Field(None, ge=0, description="Plates or datasets that the platform counts.")
    containers: list[Container] = Field([], description="Its screens or experiments.")
    bad_plates: list[BadPlate] = Field([], description="Plates known to be bad.")
    evidence: list[Evidence] = Field([], description="Where the facts are stated.")

    @field_validator("evidence")
    @classmethod
    def _evidence_is_of_fields(cls, evidence: list[Evidence]) -> list[Evidence]:
        return _of_fields(cls, evidence)

    @property
    def sha256(self) -> str:
        """Hash of what the card says, however its file is laid out."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    @property
    def study_doi(self) -> str | None:
        """DOI of the study's own publication."""
        return self.study_dois[0] if self.study_dois else None

    @property
    def doi(self) -> str | None:
        """DOI of the data, else of the study: what a record carries."""
        return self.data_doi or self.study_doi

    @property
    def microscopy_types(self) -> list[str]:
        """Kinds of microscopy: words of the vocabulary, the source's own where it has none."""
        return list(dict.fromkeys(method.microscopy_type or method.text for method in self.imaging_methods))

    @property
    def channel_types(self) -> list[str]:
        """Channel types of all configurations, each once."""
        types = (channel.channel_type for one in self.configurations for channel in one.channels)
        return list(dict.fromkeys(name for name in types if name is not None))


class Bucket(CardModel):
    """A bucket of an object store."""

    protocol: Literal["s3", "gs"] = Field(description="fsspec protocol of the object store.")
    name: Word = Field(description="Name of the bucket.")
    region: Word | None = Field(None, description="Region that it is in.")


class PlatformCard(CardModel):
    """A platform that hosts sources, and how it is read."""

    id: PlatformId = Field(description="Id of the platform.")
    name: Word = Field(description="Its name.")
    aliases: list[Word] = Field([], description="Other names of it.")
    protocol: Word | None = Field(None, description="fsspec protocol that reads it.")
    homepage: Url | None = Field(None, description="Its web site.")
    kind_of_access: Word | None = Field(None, description="By what its files are reached.")
    path_shapes: list[Word] = Field([], description="Shapes of its addresses and paths; {…} stands for a part.")
    buckets: list[Bucket] = Field([], description="Its public buckets.")
    checksums: list[Checksum] = Field([], description="Checksums that it gives of the content of its files.")
    checksum_note: Word | None = Field(None, description="What is known of its checksums.")
    authentication: Word | None = Field(None, description="What it asks for before it hands files out.")
    default_license: Word | None = Field(
        None, description="SPDX expression, where all that it hosts has one licence; else null."
    )
    license_note: Word | None = Field(None, description="What it says of licences.")
    python_client: Word | None = Field(None, description="Python packages that read it.")
    notes: Word | None = Field(None, description="What else one should know.")
    evidence: list[Evidence] = Field([], description="Where the facts are stated.")

    @field_validator("evidence")
    @classmethod
    def _evidence_is_of_fields(cls, evidence: list[Evidence]) -> list[Evidence]:
        return _of_fields(cls, evidence)


def _of_fields(model: type[CardModel], evidence: list[Evidence]) -> list[Evidence]:
    from difflib import get_close_matches

    for entry in evidence:
        for name in entry.fields:
            if name.partition(".")[0] not in model.model_fields:
                near = get_close_matches(name, model.model_fields, 1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise ValueError(f"{name!r} is no field of this card{hint}")
    return evidence
