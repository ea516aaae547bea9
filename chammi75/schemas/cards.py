"""Cards: what is declared of a source and of a platform. What no source states stays null."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from chammi75.schemas.base import Model
from chammi75.schemas.recipe import SourceId


class Evidence(Model):
    """Where a fact is stated."""

    url: str | None = Field(None, description="Page or file that states it.")
    text: str | None = Field(None, description="What it says there.")


class LicenseStatement(Model):
    """A licence and where it is stated."""

    spdx: str | None = Field(None, description="SPDX expression; null where the text maps to none.")
    text: str | None = Field(None, description="The licence in the source's words.")
    url: str | None = Field(None, description="The licence's own page, as the source names it.")
    stated_in: str | None = Field(None, description="Where the source states it.")


class ChannelCard(Model):
    """One channel of a source, in order."""

    channel_type: str | None = Field(None, description="What it shows, a word of the vocabulary.")
    panel: str | None = Field(None, description="Stain or label, in the source's word.")
    wavelength_nm: float | None = Field(None, gt=0, description="Emission wavelength.")


class ChannelConfiguration(Model):
    """One set of channels that images of the source have, and how its cells are segmented."""

    channels: list[ChannelCard] = Field(min_length=1, description="The channels, in order.")
    segmentation_channel: str | None = Field(
        None, description="Which channel is segmented, as the reference states it."
    )
    cell_diameter_px: float | None = Field(None, gt=0, description="Cell diameter given to the segmenter.")


class BadPlate(Model):
    """A plate that is known to be bad."""

    plate: str = Field(description="The plate.")
    reason: str = Field(description="What is wrong with it.")
    url: str | None = Field(None, description="Where it is reported.")


class SourceCard(Model):
    """One study as some platform hosts it."""

    id: SourceId = Field(description="Id of the source.")
    aliases: list[str] = Field([], description="Other names of it.")
    title: str | None = Field(None, description="Title of the study.")
    platform: str | None = Field(None, description="Id of the platform's card.")
    accession: str | None = Field(None, description="The platform's own identifier.")
    url: str | None = Field(None, description="Where its files are listed.")
    data_doi: str | None = Field(None, description="DOI of the data.")
    study_doi: str | None = Field(None, description="DOI of the publication.")
    license: LicenseStatement | None = Field(None, description="The licence of the source itself.")
    collection_license: LicenseStatement | None = Field(None, description="What a collection says of it.")
    citation: str | None = Field(None, description="How to cite it.")
    organisms: list[str] = Field([], description="Species, by scientific name.")
    cell_lines: list[str] = Field([], description="Cell lines.")
    microscopy_types: list[str] = Field([], description="Kinds of microscopy, words of the vocabulary.")
    magnification: float | None = Field(None, gt=0, description="Nominal magnification.")
    configurations: list[ChannelConfiguration] = Field([], description="Its sets of channels.")
    pattern: str | None = Field(None, description="What its file names say.")
    expected_images: int | None = Field(None, ge=0, description="Images that it should have.")
    expected_bytes: int | None = Field(None, ge=0, description="Bytes that it should have.")
    crop_sizes_px: list[int] = Field([], description="Crop sizes for guided crops.")
    bad_plates: list[BadPlate] = Field([], description="Plates known to be bad.")
    evidence: dict[str, Evidence] = Field({}, description="Where a field's fact is stated, by field.")


class PlatformCard(Model):
    """A platform that hosts sources, and how it is read."""

    id: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]*$")] = Field(description="Id of the platform.")
    name: str = Field(description="Its name.")
    protocol: str | None = Field(None, description="fsspec protocol that reads it.")
    homepage: str | None = Field(None, description="Its web site.")
    checksum: Literal["md5", "sha1", "sha256", "sha512"] | None = Field(None, description="Checksum that it gives.")
    authentication: str | None = Field(None, description="What it asks for before it hands files out.")
    license_note: str | None = Field(None, description="What it says of licences.")
    evidence: dict[str, Evidence] = Field({}, description="Where a field's fact is stated, by field.")
