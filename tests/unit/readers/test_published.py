"""The published layout is read as records, and every trap in its table is reported."""

from __future__ import annotations

import csv
import hashlib
import io
import re
import struct
import uuid
from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path

import fsspec
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chammi75.errors import ChammiError, ReadError
from chammi75.readers.published import PublishedTable, find_published_root, read_published
from chammi75.readers.published.csv_rows import PUBLISHED_COLUMNS, REQUIRED_COLUMNS, magnification_number, whole_number
from chammi75.readers.published.files import safe_paths
from chammi75.readers.published.records import wildcard_name
from chammi75.schemas.arrow import record_schema
from chammi75.schemas.record import ImageRecord

Row = dict[str, str]
TABLE = "CHAMMI-75_train_metadata.csv"
SMALL = "CHAMMI-75_small_metadata.csv"


def row(image: str, channel: int, **changes: str) -> Row:
    """A row of the table; in ``changes`` a double underscore stands for the dot."""
    values = dict.fromkeys(PUBLISHED_COLUMNS, "unknown") | {
        "experiment.study": "s1",
        "imaging.multi_channel_id": f"{image}-s1",
        "imaging.panel": "DNA, actin",
        "imaging.channel": str(channel),
        "imaging.channel_type": ("nucleus", "actin", "er")[channel - 1],
        "microscopy.magnification": "20x",
        "geometry.width": "8",
        "geometry.height": "6",
        "geometry.channels": "2",
        "storage.filename": "s1.zip",
        "storage.path": f"CHAMMI-75_train/s1/{image}-ch{channel - 1}.png",
    }
    return values | {name.replace("__", "."): value for name, value in changes.items()}


def two_images() -> list[Row]:
    return [row(image, channel) for image in ("a", "b") for channel in (1, 2)]


def csv_bytes(rows: Iterable[Row], columns: Iterable[str] = PUBLISHED_COLUMNS, end: str = "\n") -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(columns), extrasaction="ignore", lineterminator=end)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def png_header(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", width, height)


Lay = Callable[..., str]


@pytest.fixture(params=["local", "memory"])
def lay(request: pytest.FixtureRequest, tmp_path: Path) -> Lay:
    """Writes tables and files to a new folder, local or in memory, and gives its URL."""
    base = str(tmp_path / "bucket") if request.param == "local" else f"memory://{uuid.uuid4().hex}"

    def write(tables: dict[str, bytes], files: Iterable[str] | None = None, content: bytes = png_header(8, 6)) -> str:
        stated = [
            line["storage.path"]
            for table in tables.values()
            for line in csv.DictReader(io.StringIO(table.decode("utf-8-sig", "replace")))
            if (line.get("storage.path") or "").startswith("CHAMMI-75_train/") and ".." not in line["storage.path"]
        ]
        parts = {**tables, **dict.fromkeys(stated if files is None else files, content)}
        filesystem, path = fsspec.url_to_fs(base)
        for name, part in parts.items():
            filesystem.makedirs(f"{path}/{name}".rsplit("/", 1)[0], exist_ok=True)
            filesystem.pipe_file(f"{path}/{name}", part)
        return base

    return write


def read(lay: Lay, rows: Iterable[Row], files: Iterable[str] | None = None) -> PublishedTable:
    return read_published(lay({TABLE: csv_bytes(rows)}, files), check_files=True)


def ids(table: PublishedTable) -> list[str]:
    return table.records["image_id"].to_pylist()


def reasons(table: PublishedTable, kind: str) -> list[tuple[str, str]]:
    return [(problem.path, problem.reason) for problem in table.problems if problem.kind == kind]


# --- the sample ---------------------------------------------------------------------------------------------------


def test_the_published_sample_becomes_valid_records(shared_data: Path) -> None:
    table = read_published(shared_data / "published")
    assert table.metadata_url.endswith("/CHAMMI-75_train_metadata.csv")
    assert table.records.schema.equals(record_schema())
    records = [ImageRecord.model_validate(values) for values in table.records.to_pylist()]
    assert len(records) == 15 and sum(record.geometry.channels for record in records) == 37
    by_id = {record.image_id: record for record in records}
    fly = by_id["fly0001/01_POS002-ch*.png"]
    assert fly.imaging.panel == ["DNA", "phospho-histone H3", "actin"] and fly.imaging.channel == [1, 2, 3]
    assert (fly.geometry.width, fly.geometry.height, fly.microscopy.fov) == (1000, 1006, "002")
    assert (fly.microscopy.magnification, fly.microscopy.magnification_text) == (40.0, "40")
    assert (fly.biology.organism_id, fly.microscopy.type_id) == ("NCBITaxon:7227", "FBbi:00000246")
    assert by_id["nf10001/B7_3-ch*.png"].microscopy.magnification_text == "20x"
    assert by_id["phase0001/cell-ch*.png"].biology.organism is None
    assert not table.problems and not len(table.missing_files)
    content = (shared_data / "published/CHAMMI-75_train_metadata.csv").read_bytes()
    assert table.metadata_sha256 == hashlib.sha256(content).hexdigest()


def test_files_of_a_likely_name_are_never_taken_for_rows_that_state_none(shared_data: Path) -> None:
    table = read_published(shared_data / "published")
    assert (shared_data / "published/CHAMMI-75_train/dna0001/actin-ch0.png").is_file()
    assert not any(image_id.startswith("dna0001/") for image_id in ids(table))
    assert table.unresolved.to_pylist() == [
        {
            "row": 38 + channel,
            "experiment.study": "dna0001",
            "imaging.multi_channel_id": "00016-dna0001",
            "imaging.channel": channel,
        }
        for channel in (1, 2, 3)
    ]


def test_guidance_is_null_where_the_sample_has_none(shared_data: Path) -> None:
    table = read_published(shared_data / "published")
    guidance = dict(zip(ids(table), table.guidance.to_pylist(), strict=True))
    assert guidance["histo0001/ihc-ch*.png"] == [None, None, None]
    assert guidance["vitra0001/12-A-12-ch*.png"] == [
        f"CHAMMI-75_guidance/vitra0001/12-A-12-ch{channel}.safetensors" for channel in (0, 1)
    ]
    for path in filter(None, chain(*guidance.values())):
        assert (shared_data / "published" / path).is_file()
    assert table.counts["guidance_files"] == 31


def test_the_smaller_table_is_read_when_it_is_named(shared_data: Path) -> None:
    folder = shared_data / "published"
    by_name = read_published(folder, metadata=SMALL)
    by_url = read_published(folder, metadata=str(folder / SMALL))
    assert ids(by_name) == ids(by_url) and len(by_name.records) == 8


def test_the_sample_inside_its_zip_is_read_with_the_table_beside_it(shared_data: Path) -> None:
    folder = shared_data / "published"
    url = f"zip://::{folder / 'CHAMMI-75_small.zip'}"
    table = read_published(url, metadata=str(folder / SMALL), check_files=True)
    assert not len(table.missing_files) and table.root == url
    assert ids(table) == ids(read_published(folder, metadata=SMALL))


# --- the root -----------------------------------------------------------------------------------------------------


def test_a_leading_folder_is_found_and_taken_off_the_paths(lay: Lay) -> None:
    rows = two_images()
    stated = [line["storage.path"] for line in rows]
    for line in rows:
        line["storage.path"] = f"CHAMMI-75/{line['storage.path']}"
    url = lay({f"CHAMMI-75/{TABLE}": csv_bytes(rows)}, [f"CHAMMI-75/{path}" for path in stated])
    found = find_published_root(url)
    assert found is not None and found.root.endswith("/CHAMMI-75") and found.has_planes
    table = read_published(url, check_files=True)
    assert list(chain(*(storage["path"] for storage in table.records["storage"].to_pylist()))) == stated
    assert ids(read_published(f"{url}/CHAMMI-75", check_files=True)) == ids(table)


def test_a_table_above_the_leading_folder_is_found(lay: Lay) -> None:
    rows = two_images()
    url = lay({TABLE: csv_bytes(rows)}, [f"CHAMMI-75/{line['storage.path']}" for line in rows])
    table = read_published(url, check_files=True)
    assert table.root.endswith("/CHAMMI-75") and len(table.records) == 2


def test_other_folders_are_no_published_layout(lay: Lay) -> None:
    url = lay({"plate_metadata.csv": b"well,dose\nA01,3\n", "x/y.png": b""})
    assert find_published_root(url) is None
    assert find_published_root(f"{url}/nowhere") is None
    with pytest.raises(ChammiError, match="no published CHAMMI-75 layout"):
        read_published(url)


def test_a_table_that_is_named_needs_no_folder_of_a_known_name(lay: Lay, tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_bytes(csv_bytes([row("a", 1, storage__path="planes/a-ch0.png")]))
    url = lay({}, ["planes/a-ch0.png"])
    table = read_published(url, metadata=str(tmp_path / "mine.csv"), check_files=True)
    assert table.root == url and ids(table) == ["s1/planes/a-ch*.png"] and not len(table.missing_files)
    with pytest.raises(ChammiError, match="no published CHAMMI-75 layout"):
        read_published(f"{url}/nowhere", metadata=str(tmp_path / "mine.csv"))


def test_planes_without_a_table_ask_for_one(lay: Lay) -> None:
    url = lay({}, ["CHAMMI-75_train/s1/a-ch0.png"])
    with pytest.raises(ChammiError, match="metadata="):
        read_published(url)
    with pytest.raises(ChammiError, match=r"nope\.csv: there is no such metadata table"):
        read_published(url, metadata="nope.csv")


# --- the table ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_columns_may_stand_in_any_order_among_others(lay: Lay, end: str, mark: bytes) -> None:
    plain = read_published(lay({TABLE: csv_bytes(two_images())}), check_files=True)
    columns = ["note", *reversed(PUBLISHED_COLUMNS), "note", ""]
    other = read_published(lay({TABLE: mark + csv_bytes(two_images(), columns, end)}), check_files=True)
    assert other.records.equals(plain.records) and not other.problems


def test_line_ends_may_be_mixed_and_lines_empty(lay: Lay) -> None:
    lines = csv_bytes([*two_images(), row("c", 1, geometry__width="wide")]).splitlines()
    content = b"\r\n".join(lines[:3]) + b"\n\n\r\n" + b"\n".join(lines[3:])
    table = read_published(lay({TABLE: content}), check_files=True)
    assert len(table.records) == 3
    assert any(reason.startswith("row 8: geometry.width") for _, reason in reasons(table, "note"))


@pytest.mark.parametrize("column", REQUIRED_COLUMNS)
def test_a_column_that_is_needed_and_missing_is_an_error_that_names_it(lay: Lay, column: str) -> None:
    url = lay({TABLE: csv_bytes(two_images(), [name for name in PUBLISHED_COLUMNS if name != column])})
    with pytest.raises(ReadError) as error:
        read_published(url)
    assert TABLE in str(error.value) and column in str(error.value) and "experiment.well" in str(error.value)


def test_another_missing_column_is_unknown_and_said(lay: Lay) -> None:
    url = lay({TABLE: csv_bytes(two_images(), [name for name in PUBLISHED_COLUMNS if name != "experiment.well"])})
    table = read_published(url)
    assert table.records["experiment"].to_pylist()[0]["well"] is None
    assert "experiment.well" in reasons(table, "note")[0][1]


def test_a_table_that_is_no_unicode_is_an_error_that_names_it(lay: Lay) -> None:
    url = lay({TABLE: csv_bytes([row("a", 1, biology__cell_line="HÜL")]).decode().encode("latin-1")})
    with pytest.raises(ReadError, match="UTF-8"):
        read_published(url)


def test_a_table_of_a_header_only_gives_no_images(lay: Lay) -> None:
    table = read_published(lay({TABLE: csv_bytes([])}, []))
    assert len(table.records) == 0 and table.records.schema.equals(record_schema()) and not table.problems


def test_rows_of_wrong_length_are_named_and_left_out(lay: Lay) -> None:
    content = csv_bytes(two_images()).replace(b"\ns1", b"\nstray,cells\ns1", 1)
    table = read_published(lay({TABLE: content}), check_files=True)
    assert len(table.records) == 2
    assert reasons(table, "unused_row") == [(TABLE, "row 2 has 2 cells, the header has 23; it is left out")]


def test_rows_are_numbered_as_in_the_file_far_into_a_long_table(tmp_path: Path) -> None:
    lines = csv_bytes(row(f"i{k}", 1) for k in range(12_000)).split(b"\n")
    lines[9_000 - 1] = b"stray"
    lines[11_000 - 1] = lines[11_000 - 1].replace(b"20x", b"many")
    (tmp_path / TABLE).write_bytes(b"\n".join(lines))
    table = read_published(tmp_path, check_files=False)
    assert len(b"\n".join(lines)) > 2 * 2**20 and len(table.records) == 11_999  # longer than a block of the CSV reader
    assert "row 9000 has 1 cells" in reasons(table, "unused_row")[0][1]
    assert any(reason.startswith("row 11000: microscopy.magnification") for _, reason in reasons(table, "note"))


def test_unknown_and_empty_are_null_wherever_they_stand(lay: Lay) -> None:
    rows = [
        row(
            "a",
            1,
            experiment__plate="",
            experiment__well=" Unknown ",
            geometry__depth="unknown",
            geometry__channels="1",
        )
    ]
    table = read(lay, rows)
    (record,) = table.records.to_pylist()
    assert record["experiment"]["plate"] is None and record["experiment"]["well"] is None
    assert record["geometry"]["depth"] is None and not table.problems


def test_identifiers_keep_their_leading_zeros(lay: Lay) -> None:
    (record,) = read(lay, [row("a", 1, experiment__plate="007", microscopy__fov="010")]).records.to_pylist()
    assert (record["experiment"]["plate"], record["microscopy"]["fov"]) == ("007", "010")


def test_text_where_a_number_stands_is_null_and_names_its_row(lay: Lay) -> None:
    rows = [row("a", 1, microscopy__magnification="abc", geometry__z_slice="-3", geometry__timepoint="4.0")]
    table = read(lay, rows)
    (record,) = table.records.to_pylist()
    assert record["microscopy"]["magnification"] is None and record["microscopy"]["magnification_text"] == "abc"
    assert record["geometry"]["z_slice"] is None and record["geometry"]["timepoint"] == 4
    notes = [reason for _, reason in reasons(table, "note")]
    assert any(reason.startswith("row 2: microscopy.magnification is 'abc'") for reason in notes)
    assert any(reason.startswith("row 2: geometry.z_slice is '-3'") for reason in notes)


def test_a_size_that_the_table_does_not_state_is_read_from_the_file(lay: Lay) -> None:
    rows = [row("a", 1, geometry__width="unknown"), row("b", 1, geometry__height="tall"), row("c", 1)]
    table = read(lay, rows)
    sizes = [(geometry["width"], geometry["height"]) for geometry in table.records["geometry"].to_pylist()]
    assert sizes == [(8, 6)] * 3
    assert any("2 images" in reason and "read from their files" in reason for _, reason in reasons(table, "note"))


def test_an_image_whose_size_is_nowhere_is_left_out_and_named(lay: Lay) -> None:
    url = lay({TABLE: csv_bytes([row("a", 1, geometry__width="unknown"), row("b", 1)])}, content=b"GIF89a")
    table = read_published(url)
    assert ids(table) == ["s1/b-ch*.png"]
    assert [path for path, _ in reasons(table, "unreadable")] == ["CHAMMI-75_train/s1/a-ch0.png"]


def test_quoted_commas_make_one_panel_word_per_channel_only_if_their_number_fits(lay: Lay) -> None:
    rows = [
        row("a", 1),
        row("a", 2),
        row("b", 1, imaging__panel="DNA, actin, ER"),
        row("b", 2, imaging__panel="DNA, actin, ER"),
        row("c", 1, imaging__panel="unknown", geometry__channels="1"),
    ]
    panels = [imaging["panel"] for imaging in read(lay, rows).records["imaging"].to_pylist()]
    assert panels == [["DNA", "actin"], ["DNA, actin, ER"] * 2, [None]]


def test_rows_may_stand_in_any_order(lay: Lay) -> None:
    rows = [row("b", 2), row("a", 2), row("b", 1), row("a", 1)]
    table = read(lay, rows)
    assert ids(table) == ["s1/b-ch*.png", "s1/a-ch*.png"]
    for imaging, storage in zip(
        table.records["imaging"].to_pylist(), table.records["storage"].to_pylist(), strict=True
    ):
        assert imaging["channel"] == [1, 2] and [path[-5] for path in storage["path"]] == ["0", "1"]
        assert imaging["channel_type"] == ["nucleus", "actin"]


def test_repeated_rows_count_once(lay: Lay) -> None:
    table = read(lay, two_images() * 2)
    assert table.counts["duplicate_rows"] == 4 and not table.problems
    assert table.records.equals(read(lay, two_images()).records)


def test_repeated_rows_that_differ_are_noted_and_the_earlier_one_holds(lay: Lay) -> None:
    table = read(lay, [*two_images(), row("a", 1, imaging__channel_type="protein")])
    assert table.records["imaging"].to_pylist()[0]["channel_type"] == ["nucleus", "actin"]
    assert any("imaging.channel_type" in reason and "row 6" in reason for _, reason in reasons(table, "note"))


def test_two_files_for_one_channel_leave_the_image_out(lay: Lay) -> None:
    other = row("a", 1, storage__path="CHAMMI-75_train/s1/other-ch0.png")
    table = read(lay, [*two_images(), other])
    assert ids(table) == ["s1/b-ch*.png"]
    ((image, reason),) = reasons(table, "conflict")
    assert image == "a-s1" and "other-ch0.png" in reason and "a-ch0.png" in reason and "row 6" in reason


@pytest.mark.parametrize("channels", [(1, 2), (1, 3)])
def test_one_file_for_two_channels_leaves_the_image_out(lay: Lay, channels: tuple[int, int]) -> None:
    rows = [row("a", channel) for channel in (1, 2, 3)]
    rows[channels[1] - 1]["storage.path"] = rows[channels[0] - 1]["storage.path"]
    table = read(lay, [*rows, row("b", 1)])
    assert ids(table) == ["s1/b-ch*.png"] and [image for image, _ in reasons(table, "conflict")] == ["a-s1"]


def test_two_images_of_one_file_keep_the_first(lay: Lay) -> None:
    table = read(lay, [row("a", 1), row("a", 1, imaging__multi_channel_id="twin")])
    assert table.records["imaging"].to_pylist()[0]["multi_channel_id"] == "a-s1" and len(table.records) == 1
    assert [image for image, _ in reasons(table, "conflict")] == ["twin"]


def test_channels_of_different_size_leave_the_image_out(lay: Lay) -> None:
    table = read(lay, [row("a", 1), row("a", 2, geometry__width="9"), row("b", 1)])
    assert ids(table) == ["s1/b-ch*.png"] and [image for image, _ in reasons(table, "mismatch")] == ["a-s1"]


def test_channels_that_differ_in_another_field_are_noted_and_the_first_stated_is_taken(lay: Lay) -> None:
    rows = [
        row("a", 1),
        row("a", 2, microscopy__type="confocal"),
        row("b", 1, microscopy__type="fluorescence"),
        row("b", 2, microscopy__type="confocal"),
    ]
    table = read(lay, rows)
    assert [values["type"] for values in table.records["microscopy"].to_pylist()] == ["confocal", "fluorescence"]
    assert [reason for _, reason in reasons(table, "note")] == [
        "the channels of 1 images differ in microscopy.type (first: b-s1); the first channel's is taken"
    ]


def test_missing_channels_are_reported_never_filled(lay: Lay) -> None:
    rows = [row("a", 2, geometry__channels="4"), row("b", 1), row("b", 2)]
    table = read(lay, rows)
    first, second = table.records.to_pylist()
    assert first["imaging"]["missing_channel"] == [1, 3, 4] and first["geometry"]["channels"] == 1
    assert second["imaging"]["missing_channel"] == []
    assert reasons(table, "missing_channel") == [("s1/a-ch*.png", "of its 4 channels these have no file: 1, 3, 4")]


def test_a_file_that_is_not_there_is_a_missing_channel_and_a_missing_file(lay: Lay) -> None:
    rows = two_images()
    table = read(lay, rows, [line["storage.path"] for line in rows[1:]])
    assert table.records["imaging"].to_pylist()[0]["missing_channel"] == [1]
    assert table.missing_files.to_pylist() == [
        {
            "row": 2,
            "experiment.study": "s1",
            "imaging.multi_channel_id": "a-s1",
            "imaging.channel": 1,
            "storage.path": "CHAMMI-75_train/s1/a-ch0.png",
        }
    ]


def test_files_far_below_their_study_are_found(lay: Lay) -> None:
    rows = [row("a", 1, storage__path=f"CHAMMI-75_train/s1/plate.{k}/x/a{k}-ch0.png") for k in range(3)]
    for k, line in enumerate(rows):
        line["imaging.multi_channel_id"] = str(k)
    table = read(lay, rows)
    assert ids(table) == [f"s1/plate.{k}/x/a{k}-ch*.png" for k in range(3)] and not len(table.missing_files)


@pytest.mark.parametrize(
    "path",
    [
        "../up-ch0.png",
        "/etc/passwd",
        "CHAMMI-75_train/../../x.png",
        "C:\\x.png",
        "s3://other/x.png",
        "a/..",
        "x::y.png",
    ],
)
def test_paths_out_of_the_folder_are_refused_and_named(lay: Lay, path: str) -> None:
    table = read(lay, [row("a", 1, storage__path=path), row("b", 1)])
    assert ids(table) == ["s1/b-ch*.png"] and len(table.unresolved) == 0
    ((where, reason),) = reasons(table, "unused_row")
    assert where == TABLE and reason.startswith("row 2 (") and "leads out" in reason


def test_a_study_that_looks_like_a_path_is_read_as_unknown(lay: Lay) -> None:
    table = read(lay, [row("a", 1, experiment__study="../s1")])
    (record,) = table.records.to_pylist()
    assert record["experiment"]["study"] is None and record["image_id"] == "s1/a-ch*.png"
    assert any("../s1" in reason for _, reason in reasons(table, "note"))


def test_rows_without_an_image_or_a_channel_are_named(lay: Lay) -> None:
    rows = [
        row("a", 1, imaging__multi_channel_id="unknown"),
        row("b", 1, imaging__channel="first"),
        row("c", 1, imaging__channel="0"),
        row("d", 1),
    ]
    table = read(lay, rows)
    assert ids(table) == ["s1/d-ch*.png"]
    assert [reason[:5] for _, reason in reasons(table, "unused_row")] == ["row 2", "row 3", "row 4"]


# --- several tables -----------------------------------------------------------------------------------------------


def test_the_table_that_states_most_files_is_read(lay: Lay) -> None:
    full = two_images()
    bare = [line | {"storage.path": "unknown"} for line in full]
    table = read_published(
        lay({"a_metadata.csv": csv_bytes(full[:2]), TABLE: csv_bytes(full), "z_metadata.csv": csv_bytes(bare)})
    )
    assert table.metadata_url.endswith(TABLE)


def test_a_row_without_a_file_takes_the_one_that_another_table_states_for_the_same_channel(lay: Lay) -> None:
    full = [*two_images(), row("c", 1, geometry__channels="1")]
    full[1]["storage.path"] = "unknown"
    full[4]["storage.path"] = "unknown"
    tables = {TABLE: csv_bytes(full), SMALL: csv_bytes(two_images()[:2])}
    table = read_published(lay(tables, [line["storage.path"] for line in two_images()]), check_files=True)
    assert ids(table) == ["s1/a-ch*.png", "s1/b-ch*.png"]
    assert table.records["imaging"].to_pylist()[0]["missing_channel"] == []
    assert table.unresolved["imaging.multi_channel_id"].to_pylist() == ["c-s1"]
    hashes = "".join(hashlib.sha256(content).hexdigest() for content in tables.values())
    assert table.metadata_sha256 == hashlib.sha256(hashes.encode()).hexdigest()


def test_a_full_table_without_the_column_of_files_takes_them_from_the_small_one(lay: Lay) -> None:
    full = [*two_images(), row("c", 1)]
    columns = [name for name in PUBLISHED_COLUMNS if name != "storage.path"]
    tables = {TABLE: csv_bytes(full, columns), SMALL: csv_bytes(two_images())}
    table = read_published(lay(tables), check_files=True)
    assert table.metadata_url.endswith(TABLE) and ids(table) == ["s1/a-ch*.png", "s1/b-ch*.png"]
    assert (table.counts["unresolved_images"], table.counts["unresolved_rows"]) == (1, 1)


def test_tables_of_which_none_says_which_files_are_meant_are_refused(lay: Lay) -> None:
    columns = [name for name in PUBLISHED_COLUMNS if name != "storage.path"]
    with pytest.raises(ReadError, match=r"no metadata table has the column storage\.path.*metadata="):
        read_published(lay({TABLE: csv_bytes(two_images(), columns)}))


def test_a_table_that_is_named_is_the_only_one_that_is_read(lay: Lay, monkeypatch: pytest.MonkeyPatch) -> None:
    from chammi75.readers.published import tables as tables_module

    url = lay({TABLE: csv_bytes([*two_images(), row("c", 1)]), SMALL: csv_bytes(two_images())})
    read: list[str] = []
    original = tables_module.read_rows
    monkeypatch.setattr(tables_module, "read_rows", lambda url, options: read.append(url) or original(url, options))
    assert len(read_published(url, metadata=SMALL).records) == 2
    assert [url.rsplit("/", 1)[-1] for url in read] == [SMALL]


def test_other_tables_that_state_two_files_for_a_channel_are_a_conflict(lay: Lay) -> None:
    main = two_images()
    main[0]["storage.path"] = ""
    others = {
        "y_metadata.csv": csv_bytes([row("a", 1)]),
        "z_metadata.csv": csv_bytes([row("a", 1, storage__path="CHAMMI-75_train/s1/z-ch0.png")]),
    }
    table = read_published(lay({TABLE: csv_bytes(main), **others}), check_files=True)
    assert ids(table) == ["s1/b-ch*.png"] and [image for image, _ in reasons(table, "conflict")] == ["a-s1"]


def test_a_second_table_that_cannot_be_read_is_reported(lay: Lay) -> None:
    broken = csv_bytes(two_images(), PUBLISHED_COLUMNS[:9])
    table = read_published(lay({TABLE: csv_bytes(two_images()), SMALL: broken}))
    assert len(table.records) == 2 and [path for path, _ in reasons(table, "unreadable")] == [SMALL]


# --- guidance -----------------------------------------------------------------------------------------------------


def test_guidance_comes_from_one_listing(lay: Lay) -> None:
    rows = two_images()
    files = [line["storage.path"] for line in rows]
    url = lay({TABLE: csv_bytes(rows)}, [*files, "CHAMMI-75_guidance/s1/a-ch1.safetensors"])
    assert read_published(url, check_files=True).guidance.to_pylist() == [
        [None, "CHAMMI-75_guidance/s1/a-ch1.safetensors"],
        [None, None],
    ]
    assert read_published(url, guidance=False).guidance.to_pylist() == [[None, None], [None, None]]


def test_guidance_that_is_not_listed_is_where_it_would_be(lay: Lay) -> None:
    rows = [*two_images(), row("c", 1, experiment__study="s2", storage__path="CHAMMI-75_train/s2/c-ch0.png")]
    table = read_published(
        lay({TABLE: csv_bytes(rows)}, ["CHAMMI-75_guidance/s1/a-ch1.safetensors"]), check_files=False
    )
    assert table.guidance.to_pylist() == [
        [f"CHAMMI-75_guidance/s1/{image}-ch{channel}.safetensors" for channel in (0, 1)] for image in "ab"
    ] + [[None]]
    assert "guidance_files" not in table.counts


# --- properties ---------------------------------------------------------------------------------------------------

cell = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Z"]), min_size=1, max_size=12).filter(
    lambda text: text.casefold() != "unknown"
)


@settings(max_examples=40, deadline=None)
@given(wells=st.lists(cell, min_size=1, max_size=6), block=st.integers(1, 3))
def test_any_text_of_a_cell_survives(tmp_path_factory: pytest.TempPathFactory, wells: list[str], block: int) -> None:
    folder = tmp_path_factory.mktemp("table")
    rows = [
        row(f"i{k}", channel, experiment__well=well) for k, well in enumerate(wells) for channel in range(1, block + 1)
    ]
    (folder / TABLE).write_bytes(csv_bytes(rows))
    table = read_published(folder, check_files=False)
    assert [values["well"] for values in table.records["experiment"].to_pylist()] == wells
    for values in table.records.to_pylist():
        ImageRecord.model_validate(values)
    assert table.records.equals(pa.Table.from_pylist(table.records.to_pylist(), record_schema()))


@given(st.text("ab./\\:\0C", min_size=1, max_size=12))
def test_safe_paths_stay_inside(path: str) -> None:
    safe, refused = safe_paths(pa.array([path, "CHAMMI-75_train/s/a.png"], pa.large_string()))
    assert safe[1].as_py() == "CHAMMI-75_train/s/a.png" and not refused[1]
    if not refused[0]:
        normal = safe[0].as_py()
        assert ".." not in normal.split("/") and "\0" not in normal and "::" not in normal
        assert not normal.startswith("/") and re.match("[A-Za-z]:", normal) is None


@given(st.integers(-(10**20), 10**20))
def test_whole_numbers_are_read_as_written(number: int) -> None:
    assert whole_number(str(number)) == (number if abs(number) < 10**18 else None)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("20x", 20.0),
        ("40", 40.0),
        ("0.5X", 0.5),
        ("63x/1.4", 63.0),
        ("20 x", 20.0),
        ("0", None),
        ("x20", None),
        ("1e3", None),
        ("nan", None),
    ],
)
def test_magnifications_are_the_number_before_the_x(text: str, number: float | None) -> None:
    assert magnification_number(text) == number


def test_names_keep_what_the_planes_share() -> None:
    assert wildcard_name(["s/a_DAPI_1.png", "s/a_GFP_1.png"]) == "s/a_*_1.png"
    assert wildcard_name(["s/a-ch9.png", "s/a-ch10.png"]) == "s/a-ch*.png"
