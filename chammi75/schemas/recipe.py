"""The build recipe: how a folder of files becomes images."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StringConstraints, field_validator, model_validator

from chammi75.schemas.base import Model
from chammi75.schemas.manifest import Codec
from chammi75.schemas.record import Biology, Experiment, Geometry, Microscopy

SourceId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]

RECORD_FIELDS: tuple[str, ...] = (
    *(f"experiment.{name}" for name in Experiment.model_fields),
    *(f"biology.{name}" for name in Biology.model_fields),
    *(f"microscopy.{name}" for name in Microscopy.model_fields),
    *(f"geometry.{name}" for name in ("pixel_size_um", "significant_bits", "z_slice", "timepoint", "depth")),
)
"""Fields of the record that a recipe or a table may state; the rest comes from the files."""

MATCH_FIELDS: tuple[str, ...] = (
    "experiment.plate",
    "experiment.well",
    "microscopy.fov",
    "geometry.z_slice",
    "geometry.timepoint",
    "storage.path",
    "storage.filename",
)
"""Fields by which a table's rows are joined to images. ``storage.*`` match any file of the image."""


_WELL_PARTS = ("row", "column")
"""What a table may match in place of ``experiment.well``, as in a pattern of file names."""


class ChannelRule(Model):
    """One channel of the images, in the order in which it is stored."""

    name: str | None = Field(
        None,
        description="What stands for the channel in the file name, or its name in the file; None: by position.",
    )
    channel_type: str | None = Field(None, description="What it shows (nucleus); else found from panel or name.")
    panel: str | None = Field(None, description="Stain or label, in the source's word (DAPI); else the name.")


def _short_forms(value: Any) -> Any:
    """``[nucleus, er]`` and ``{w1: nucleus, w2: {channel_type: er, panel: ConA}}`` as lists of rules."""
    if isinstance(value, dict):
        return [
            {"name": name, **(rule if isinstance(rule, dict) else {"channel_type": rule})}
            for name, rule in value.items()
        ]
    if isinstance(value, list):
        return [{"channel_type": rule} if isinstance(rule, str) else rule for rule in value]
    return value


def _allow_short_forms(schema: dict[str, Any]) -> None:
    rule = schema["anyOf"][0]["items"]
    word = {"type": "string"}
    schema["anyOf"][0]["items"] = {"anyOf": [rule, word]}
    named = {"anyOf": [rule, word, {"type": "null"}]}
    schema["anyOf"].insert(1, {"type": "object", "minProperties": 1, "additionalProperties": named})


class TableJoin(Model):
    """A table (CSV, TSV or XLSX) that says what wells or files are: rows with columns, or a grid as a plate lies."""

    path: str = Field(description="The file, relative to the recipe: CSV, TSV or XLSX.")
    layout: Literal["rows", "grid"] = Field(
        "rows", description="rows: a header and a row for each well or file; grid: letters down, columns across."
    )
    match: dict[str, str] = Field(
        {},
        description="Record field -> column, by which rows are joined; row and column -> columns that give the well.",
    )
    columns: dict[str, str] = Field({}, description="Record field -> column, which is taken over.")
    value: str | None = Field(None, description="Record field that the cells of a grid state (experiment.reagent).")
    only: dict[str, str] = Field(
        {}, description="Record field -> text: the images that the table speaks of (experiment.plate: P1), if not all."
    )
    sheet: str | None = Field(None, description="Sheet of an XLSX file; the first where it is left out.")
    delimiter: str | None = Field(
        None, min_length=1, max_length=1, description="Comma, semicolon or tab; None: detected."
    )
    max_unlabelled: float = Field(
        0.1, ge=0, le=1, description="Which part of the images may have no row; above it a build is refused."
    )
    max_unused: float = Field(
        1.0, ge=0, le=1, description="Which part of the rows may fit no image; above it a build is refused."
    )
    max_contradictions: int = Field(
        0, ge=0, description="How often the table may contradict itself, another or the file names (then: unknown)."
    )

    @field_validator("match")
    @classmethod
    def _match_fields_are_known(cls, value: dict[str, str]) -> dict[str, str]:
        checked = _known(value, (*MATCH_FIELDS, *_WELL_PARTS), "match")
        parts = [name for name in _WELL_PARTS if name in value]
        if parts and (len(parts) < len(_WELL_PARTS) or "experiment.well" in value):
            raise ValueError("row and column stand together, in place of experiment.well")
        return checked

    @field_validator("only")
    @classmethod
    def _only_fields_are_known(cls, value: dict[str, str]) -> dict[str, str]:
        return _known(value, MATCH_FIELDS, "only")

    @field_validator("value")
    @classmethod
    def _value_is_a_known_field(cls, value: str | None) -> str | None:
        return value if value is None else next(iter(_known({value: ""}, RECORD_FIELDS, "value")))

    @field_validator("columns")
    @classmethod
    def _column_fields_are_known(cls, value: dict[str, str]) -> dict[str, str]:
        return _known(value, RECORD_FIELDS, "columns")

    @model_validator(mode="after")
    def _keys_fit_the_layout(self) -> TableJoin:
        if self.layout == "grid":
            if self.value is None:
                raise ValueError("value is missing: the record field that the cells of a grid state")
            if self.match or self.columns:
                raise ValueError("match and columns are for layout: rows; a grid has wells and one value")
        elif self.value is not None:
            raise ValueError("value is for layout: grid; with rows, columns says what is taken over")
        else:
            for name in ("match", "columns"):
                if not getattr(self, name):
                    raise ValueError(f"{name} is missing: {type(self).model_fields[name].description}")
        return self


class BuildRecipe(Model):
    """How a folder of files becomes images.

    Every key may be left out: then each file is one image of the channels that it holds.
    """

    source: SourceId | None = Field(
        None, description="Id of the source; image ids begin with it. The folder's name where it is left out."
    )
    title: str | None = Field(None, description="What the source is, in a line.")
    study: str | None = Field(None, description="experiment.study; the source's id where it is left out.")
    platform: str | None = Field(None, description="Id of the platform that hosts the source.")
    license: str | None = Field(None, description="Licence of the images, an SPDX expression (CC-BY-4.0).")
    doi: str | None = Field(None, description="DOI of the data, else of the study.")
    split: Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]+$")] = Field(
        "train", description="Split of the images."
    )
    include: list[str] = Field(["**/*"], min_length=1, description="Globs of the files to take, below the folder.")
    exclude: list[str] = Field([], description="Globs of files to leave out (thumbnails).")
    pattern: str | None = Field(
        None,
        description="What file names say: '{plate}_{well}_s{fov}_w{channel}'. Files that differ in {channel} only are"
        " one image.",
    )
    naming: str | None = Field(
        None, description="Whose names the files have, in place of a pattern: imagexpress, opera-harmony, cellvoyager …"
    )
    axes: str | None = Field(
        None,
        pattern=r"^[TZCS]*YXS?$",
        description="Axes of files that do not name them (TYX: pages are timepoints).",
    )
    channels: Annotated[list[ChannelRule] | None, BeforeValidator(_short_forms)] = Field(
        None,
        min_length=1,
        description="The channels, in stored order: rules, or channel types, or name -> rule or channel type.",
        json_schema_extra=_allow_short_forms,
    )
    missing_channel: Literal["keep", "skip"] = Field(
        "keep", description="Images that lack a channel: keep what is there, or skip them. Both are reported."
    )
    record: dict[str, Any] = Field({}, description="Record fields that are the same for all images.")
    tables: list[TableJoin] = Field([], description="Tables (CSV, TSV, XLSX) that say what wells or files are.")
    guidance: str | None = Field(
        None,
        description="Path of published-style guidance files, with the pattern's fields, {stem}, {z}, {t} and {index}"
        " (channel from 0).",
    )
    codec: Codec = Field("zstd", description="zstd for training; deflate for exchange.")
    shard_bytes: int = Field(
        512 * 2**20, ge=2**16, description="Decoded bytes per shard, at most (one image at least)."
    )

    @field_validator("record")
    @classmethod
    def _record_fields_are_known(cls, value: dict[str, Any]) -> dict[str, Any]:
        flat: dict[str, Any] = {}
        for key, entry in value.items():
            if isinstance(entry, dict):
                flat.update({f"{key}.{name}": inner for name, inner in entry.items()})
            else:
                flat[key] = entry
        checked = _known(flat, RECORD_FIELDS, "record")
        groups: dict[str, type[Model]] = {"experiment": Experiment, "biology": Biology, "microscopy": Microscopy}
        for group, model in groups.items():
            model.model_validate({k.split(".")[1]: v for k, v in checked.items() if k.startswith(f"{group}.")})
        geometry = {key.split(".")[1]: entry for key, entry in checked.items() if key.startswith("geometry.")}
        Geometry.model_validate({"width": 1, "height": 1, "channels": 1, "dtype": "uint8", **geometry})
        return checked

    @model_validator(mode="after")
    def _names_are_read_one_way(self) -> BuildRecipe:
        if self.pattern is not None and self.naming is not None:
            raise ValueError("naming: pattern says how files are named, too: leave one of them")
        return self

    @model_validator(mode="after")
    def _channel_names_differ(self) -> BuildRecipe:
        names = [rule.name for rule in self.channels or () if rule.name is not None]
        if len(set(names)) != len(names):
            raise ValueError(
                f"channels: names must differ, these repeat: {sorted({n for n in names if names.count(n) > 1})}"
            )
        return self


def _known(value: dict[str, Any], allowed: tuple[str, ...], what: str) -> dict[str, Any]:
    from difflib import get_close_matches

    for key in value:
        if key not in allowed:
            same = [name for name in allowed if name.rpartition(".")[2] == str(key).casefold()]
            near = same or get_close_matches(str(key), allowed, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ValueError(f"{what}: {key!r} is no field that can be stated here{hint} (known: {', '.join(allowed)})")
    return value
