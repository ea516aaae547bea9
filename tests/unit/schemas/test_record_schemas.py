"""The record, its Arrow mapping and its JSON Schemas."""

from __future__ import annotations

import datasets
import pyarrow as pa
import pytest
from pydantic import ValidationError

from chammi75.schemas import Channel, Geometry, ImageRecord, Imaging, Storage
from chammi75.schemas.arrow import arrow_type, record_schema, shard_schema
from chammi75.schemas.json_schema import json_schemas, stale_schemas

PUBLISHED_COLUMNS = (
    *(f"experiment.{name}" for name in ("study", "plate", "well", "reagent", "control")),
    *(f"biology.{name}" for name in ("organism", "cell_line", "cell_type")),
    *(f"imaging.{name}" for name in ("multi_channel_id", "panel", "channel", "channel_type")),
    *(f"microscopy.{name}" for name in ("type", "magnification", "fov")),
    *(f"geometry.{name}" for name in ("width", "height", "depth", "channels", "z_slice", "timepoint")),
    *(f"storage.{name}" for name in ("filename", "path")),
)


def record(**groups: object) -> ImageRecord:
    values: dict[str, object] = {
        "image_id": "source/image.tif",
        "imaging": {"channel": [1, 2], "channel_type": ["nucleus", None], "panel": ["DAPI", None]},
        "geometry": {"width": 4, "height": 3, "channels": 2, "dtype": "uint8"},
        "storage": {"filename": ["image.tif"] * 2, "path": ["image.tif"] * 2},
        **groups,
    }
    return ImageRecord.model_validate(values)


@pytest.mark.parametrize("column", PUBLISHED_COLUMNS)
def test_every_column_of_the_published_table_is_a_path_of_the_record(column: str) -> None:
    group, name = column.split(".")
    assert record_schema().field(group).type.get_field_index(name) >= 0


def test_a_record_survives_arrow() -> None:
    rows = [record().model_dump()]
    assert pa.Table.from_pylist(rows, record_schema()).to_pylist() == rows


def test_a_list_of_another_length_than_the_planes_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"imaging.panel has 1 entries, geometry.channels is 2"):
        record(imaging={"channel": [1, 2], "channel_type": [None, None], "panel": ["DAPI"]})


def test_identifiers_are_text_so_that_a_number_is_refused() -> None:
    with pytest.raises(ValidationError, match="valid string"):
        record(experiment={"plate": 1})
    assert record(experiment={"plate": "007"}).experiment.plate == "007"


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(ValidationError, match="organsim"):
        record(biology={"organsim": "Homo sapiens"})


def test_the_channels_of_a_record_read_its_lists() -> None:
    first, second = record().channels
    assert first == Channel(channel=1, channel_type="nucleus", panel="DAPI", filename="image.tif", path="image.tif")
    assert second.panel is None


def test_the_shard_schema_is_what_datasets_writes_for_a_list_of_images() -> None:
    features = datasets.Features.from_arrow_schema(shard_schema())
    assert features["planes"] == datasets.List(datasets.Image())
    assert features.arrow_schema.equals(shard_schema(), check_metadata=True)


def test_plane_bytes_are_plain_binary_and_nullable() -> None:
    field = shard_schema().field("planes").type.value_type.field("bytes")
    assert field.type == pa.binary() and field.nullable


def test_a_type_without_a_rule_is_an_error() -> None:
    with pytest.raises(TypeError, match="no Arrow type"):
        arrow_type(complex)


def test_the_published_json_schemas_are_current() -> None:
    from chammi75.declarations import declarations_folder

    assert stale_schemas(declarations_folder("schemas")) == []


def test_a_changed_or_foreign_json_schema_is_noticed(tmp_path) -> None:
    for name, content in json_schemas().items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    (tmp_path / "image-record.schema.json").write_text("{}", encoding="utf-8")
    (tmp_path / "old.schema.json").write_text("{}", encoding="utf-8")
    (tmp_path / "subset-recipe.schema.json").unlink()
    assert stale_schemas(tmp_path) == ["image-record.schema.json", "old.schema.json", "subset-recipe.schema.json"]


def test_sizes_are_at_least_one_pixel() -> None:
    with pytest.raises(ValidationError):
        Geometry(width=0, height=1, channels=1, dtype="uint8")


def test_groups_that_only_planes_can_tell_have_no_default() -> None:
    with pytest.raises(ValidationError):
        ImageRecord.model_validate({"image_id": "a"})
    assert {name for name, field in ImageRecord.model_fields.items() if field.is_required()} == {
        "image_id",
        "imaging",
        "geometry",
        "storage",
    }
    assert Imaging.model_fields["missing_channel"].default == []
    assert set(Storage.model_fields) == {"filename", "path"}
