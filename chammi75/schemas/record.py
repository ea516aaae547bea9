"""The record: what is known of one image.

The six groups experiment, biology, imaging, microscopy, geometry and storage have the names of the published
CHAMMI-75 metadata; the others are what that table lacks. A row here is an *image* (all channels, one z, one t), there
it is a channel file: so what belongs to a channel is a list here, all lists of one length and in one order. Unknown
is None.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import Field, model_validator

from chammi75.schemas.base import Float32, Int32, Model, Point


class Channel(Model):
    """One channel of an image, as the lists of its record describe it."""

    channel: Int32 = Field(ge=1, description="Number of the channel in the source's order, from 1.")
    channel_type: str | None = Field(None, description="What it shows, a word of the vocabulary.")
    panel: str | None = Field(None, description="Its stain or name, in the source's own word.")
    filename: str | None = Field(None, description="The file that it comes from, or the archive that holds it.")
    path: str | None = Field(None, description="Path of that file inside the source.")


class Experiment(Model):
    """Where in an experiment the image was taken. All identifiers are text: leading zeros survive."""

    study: str | None = Field(None, description="The study, by its short name (idr0001).")
    plate: str | None = Field(None, description="The plate, as the source names it.")
    well: str | None = Field(None, description="The well, as the source names it (A01).")
    reagent: str | None = Field(None, description="Compound, siRNA, gene … that the cells were treated with.")
    control: str | None = Field(None, description="What kind of control the well is (negative, positive …), or 'no'.")


class Biology(Model):
    """What was imaged."""

    organism: str | None = Field(None, description="Species, by its scientific name.")
    organism_id: str | None = Field(None, description="NCBI Taxonomy id, as NCBITaxon:9606.")
    cell_line: str | None = Field(None, description="Cell line, by its name.")
    cell_line_id: str | None = Field(None, description="Cellosaurus accession, as CVCL_0042.")
    cell_type: str | None = Field(None, description="Cell type or tissue.")


class Imaging(Model):
    """The channels: lists with one entry per stored plane."""

    multi_channel_id: str | None = Field(None, description="What ties the channels together in the source's own table.")
    channel: list[Int32] = Field(description="Number of each channel in the source's order, from 1.")
    channel_type: list[str | None] = Field(description="What each channel shows, a word of the vocabulary.")
    panel: list[str | None] = Field(description="Each channel's stain or name, in the source's own word.")
    missing_channel: list[Int32] = Field([], description="Numbers of channels that the image should have and has not.")


class Microscopy(Model):
    """How it was imaged."""

    type: str | None = Field(None, description="Kind of microscopy, a word of the vocabulary.")
    type_id: str | None = Field(
        None, description="Its id in the Biological Imaging Methods Ontology, as FBbi:00000246."
    )
    magnification: float | None = Field(None, gt=0, description="Nominal magnification of the objective (20.0).")
    magnification_text: str | None = Field(None, description="The magnification as the source writes it.")
    fov: str | None = Field(None, description="Field of view (site) in the well, as the source names it.")


class Geometry(Model):
    """Size and sampling of each plane."""

    width: Int32 = Field(gt=0, description="Columns, in pixels.")
    height: Int32 = Field(gt=0, description="Rows, in pixels.")
    depth: Int32 | None = Field(None, gt=0, description="Number of z-slices of the stack that the image comes from.")
    channels: Int32 = Field(gt=0, description="Number of stored planes.")
    z_slice: Int32 | None = Field(None, ge=0, description="Which z-slice this is, as the source counts.")
    timepoint: Int32 | None = Field(None, ge=0, description="Which timepoint this is, as the source counts.")
    pixel_size_um: float | None = Field(None, gt=0, description="Edge of a pixel in the sample, in micrometres.")
    dtype: str = Field(description="Stored pixel type: uint8, uint16 or float32.")
    significant_bits: Int32 | None = Field(
        None, ge=1, le=32, description="Bits that the camera filled (12); None for floats."
    )


class Storage(Model):
    """Which files of the source the planes come from: one entry per plane."""

    filename: list[str | None] = Field(description="The file, or the archive that holds it.")
    path: list[str | None] = Field(description="Path inside the source, relative, with forward slashes.")


class Provenance(Model):
    """Where the image comes from, what one may do with it, and what was done to its pixels."""

    platform: str | None = Field(None, description="Id of the hosting platform's card.")
    source: str | None = Field(None, description="Id of the source.")
    title: str | None = Field(None, description="Title of the source, for citations.")
    license: str | None = Field(None, description="Licence of the source, an SPDX expression.")
    doi: str | None = Field(None, description="DOI of the data, else of the study.")
    uri: list[str | None] = Field(
        [], description="Original URI of each plane's file; None for files of a local folder."
    )
    checksum: list[str | None] = Field([], description="Checksum of each plane's file, as sha256:….")
    reader: str | None = Field(None, description="What decoded the files (tifffile, png …).")
    reader_version: str | None = Field(None, description="Version of that reader.")
    format: str | None = Field(None, description="What the files are (ome-tiff, imagej, tiff, png …).")
    steps: list[str] = Field([], description="Every step that changed pixels or their type, in order.")


class QualityPerChannel(Model):
    """Quality measures with one entry per plane."""

    focus: list[Float32 | None] | None = Field(None, description="Sharpness, higher is sharper.")
    contrast: list[Float32 | None] | None = Field(None, description="Signal against background.")
    saturation: list[Float32 | None] | None = Field(None, description="Share of pixels at the top of the range.")


class Quality(Model):
    """Quality measures of the image: the worst channel's. None until curation has computed them."""

    focus: Float32 | None = Field(None, description="Sharpness of the least sharp channel.")
    contrast: Float32 | None = Field(None, description="Contrast of the faintest channel.")
    saturation: Float32 | None = Field(None, description="Largest share of saturated pixels of a channel.")
    per_channel: QualityPerChannel = Field(default_factory=QualityPerChannel, description="The same, per channel.")


class Annotation(Model):
    """Cells, per channel. An entry is None where the source has no positions for that channel."""

    centroids: list[list[Point] | None] = Field([], description="Cell centroids (x, y), in pixels.")
    sizes: list[list[Float32] | None] = Field([], description="Size of each of these cells, as the source gives it.")


class Curation(Model):
    """What curation found and decided. None until it has run."""

    fingerprint: str | None = Field(None, description="Perceptual fingerprint, in hexadecimal.")
    cluster: Int32 | None = Field(None, ge=0, description="Cluster that the image fell into.")
    duplicate_of: str | None = Field(None, description="image_id of the image that this one nearly equals.")
    kept: bool | None = Field(None, description="Whether curation keeps the image.")
    reason: str | None = Field(None, description="Why not, if not.")


class ImageRecord(Model):
    """One image: all its channels at one z and one t.

    ``image_id`` is the source's id, the path inside the source, and the place inside a file of many images; the same
    on every machine. Where the channels lie in files of their own, ``*`` stands for what tells those files apart:
    ``fly0001/01_POS002_*.TIF``, ``mini0002/movie_01.tif#t=3&z=1``.
    """

    image_id: str = Field(min_length=1, description="Identity of the image, the same on every machine.")
    experiment: Experiment = Experiment()
    biology: Biology = Biology()
    imaging: Imaging
    microscopy: Microscopy = Microscopy()
    geometry: Geometry
    storage: Storage
    provenance: Provenance = Provenance()
    quality: Quality = Quality()
    curation: Curation = Curation()

    @model_validator(mode="after")
    def _lists_have_one_length(self) -> ImageRecord:
        for name, values in self.per_channel_lists():
            if len(values) != self.geometry.channels:
                raise ValueError(
                    f"{name} has {len(values)} entries, geometry.channels is {self.geometry.channels}: lists of what"
                    " belongs to a channel have one entry per plane"
                )
        return self

    @property
    def channels(self) -> list[Channel]:
        """The stored channels, in order."""
        imaging, storage = self.imaging, self.storage
        lists = (imaging.channel, imaging.channel_type, imaging.panel, storage.filename, storage.path)
        names = ("channel", "channel_type", "panel", "filename", "path")
        return [Channel(**dict(zip(names, values, strict=True))) for values in zip(*lists, strict=True)]

    def per_channel_lists(self) -> Iterator[tuple[str, list[Any]]]:
        """Dotted names and values of the lists that have one entry per plane."""
        for group, fields in PER_CHANNEL_FIELDS.items():
            for field in fields:
                values = getattr(getattr(self, group), field)
                if values or group in ("imaging", "storage"):  # provenance's may be left out
                    yield f"{group}.{field}", values


PER_CHANNEL_FIELDS: dict[str, tuple[str, ...]] = {
    "imaging": ("channel", "channel_type", "panel"),
    "storage": ("filename", "path"),
    "provenance": ("uri", "checksum"),
}
"""Groups and their fields that hold one entry per plane, beside ``quality.per_channel`` and ``annotation``."""

RECORD_GROUPS: tuple[str, ...] = tuple(name for name in ImageRecord.model_fields if name != "image_id")
"""The groups of a record, in order."""
