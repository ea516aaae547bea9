"""The published layout gives the same images wherever it lies: folder, zip, bucket on loopback, converted store."""

from __future__ import annotations

import contextlib
import csv
import io
import multiprocessing
import os
import pickle
import re
import shutil
import socket
import threading
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from loading_stores import write_published
from loopback import S3, s3_server
from typer.testing import CliRunner

from chammi75 import load_dataset
from chammi75.build.execute import build_store
from chammi75.build.published import plan_published
from chammi75.errors import ChammiError, ReadError
from chammi75.files import write_atomically
from chammi75.loading.layouts import PublishedLayout, UnresolvedImagesWarning, open_layout
from chammi75.loading.names import resolve_name
from chammi75.readers.published import CacheWarning, read_published
from chammi75.readers.published import cached as cached_module

pytest.importorskip("moto.server")

FULL = "CHAMMI-75_train_metadata.csv"
SMALL = "CHAMMI-75_small_metadata.csv"
RUBBISH = {
    "AWS_ACCESS_KEY_ID": "rubbish",
    "AWS_SECRET_ACCESS_KEY": "rubbish",
    "AWS_SESSION_TOKEN": "rubbish",
    "AWS_PROFILE": "no-such-profile",
    "AWS_DEFAULT_REGION": "no such region",
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CHAMMI75_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


# --- where it lies ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["simulated", "sample"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The layout in a folder, with a full table that lacks storage.path as that of the bucket may."""
    top: Path = tmp_path_factory.mktemp("published") / "CHAMMI-75"
    if request.param == "sample":
        shutil.copytree(request.getfixturevalue("shared_data") / "published", top)
        return top
    write_published(top)
    with open(top / SMALL, newline="") as file:
        rows = list(csv.DictReader(file))
    extra = {**rows[0], "imaging.multi_channel_id": "study0000/elsewhere"}
    with open(top / FULL, "w", newline="") as file:
        table = csv.DictWriter(file, [name for name in rows[0] if name != "storage.path"], extrasaction="ignore")
        table.writeheader()
        table.writerows([*rows, extra])
    return top


def packed(folder: Path, target: Path, method: int, prefix: str = "", tables: bool = False) -> str:
    with zipfile.ZipFile(target, "w", method) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.suffix != ".zip" and (tables or path.suffix != ".csv"):
                archive.write(path, f"{prefix}{path.relative_to(folder).as_posix()}")
    return str(target)


class Server:
    """S3 on loopback, and what it was asked: (method, path, Authorization)."""

    def __init__(self, running: S3) -> None:
        import boto3

        self.url, self.seen = running.url, running.seen
        self.client: Any = boto3.client(
            "s3", endpoint_url=self.url, aws_access_key_id="a", aws_secret_access_key="b", region_name="us-east-1"
        )

        self.client.create_bucket(Bucket="first")
        with contextlib.suppress(self.client.exceptions.NoSuchKey):  # moto looks for a profile at its first error
            self.client.get_object(Bucket="first", Key="absent")

    def upload(self, folder: Path, bucket: str, prefix: str = "") -> None:
        client = self.client
        client.create_bucket(Bucket=bucket, ACL="public-read")
        for path in folder.rglob("*"):
            if path.is_file():
                name = f"{prefix}{path.relative_to(folder).as_posix()}"
                client.put_object(Bucket=bucket, Key=name, Body=path.read_bytes(), ACL="public-read")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with s3_server() as running:
        yield Server(running)


@pytest.fixture(autouse=True)
def s3_here(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """All of S3 is the loopback server, for whoever has no or wrong credentials."""
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    for name, value in RUBBISH.items():
        monkeypatch.setenv(name, value)
    if "server" in request.fixturenames:
        monkeypatch.setenv("AWS_ENDPOINT_URL", request.getfixturevalue("server").url)


@pytest.fixture(scope="module")
def places(folder: Path, server: Server, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """URLs of the same layout."""
    top = tmp_path_factory.mktemp("places")
    beside, name = top / "beside", folder.parent.name
    beside.mkdir()
    for table in folder.glob("*.csv"):
        shutil.copy(table, beside)
    stored = packed(folder, beside / "stored.zip", zipfile.ZIP_STORED)
    inside = packed(folder, top / "inside.zip", zipfile.ZIP_DEFLATED, "some/CHAMMI-75/", tables=True)
    server.upload(folder, f"{name}-plain")
    server.upload(folder, f"{name}-leading", "CHAMMI-75/")
    server.upload(top, f"{name}-zips")
    return {
        "folder above": str(folder.parent),
        "zip, table beside": stored,
        "zip, table inside": inside,
        "bucket": f"s3://{name}-plain",
        "bucket with a leading folder": f"s3://{name}-leading",
        "folder in a bucket": f"s3://{name}-leading/CHAMMI-75",
        "zip in a bucket": f"s3://{name}-zips/inside.zip",
        "zip in a bucket, table beside": f"s3://{name}-zips/beside/stored.zip",
        "zip as a chain": f"zip://::{inside}",
    }


KINDS = [
    "folder above",
    "zip, table beside",
    "zip, table inside",
    "bucket",
    "bucket with a leading folder",
    "folder in a bucket",
    "zip in a bucket",
    "zip in a bucket, table beside",
    "zip as a chain",
]


def samples(url: str, **options: Any) -> dict[str, dict[str, Any]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnresolvedImagesWarning)
        dataset = load_dataset(url, streaming=True, **options)
    return {sample["image_id"]: sample for sample in dataset}


def assert_same(found: dict[str, dict[str, Any]], expected: dict[str, dict[str, Any]], *, built: bool = False) -> None:
    assert list(found) == list(expected)
    for image_id, sample in found.items():
        other = expected[image_id]
        for group in ("experiment", "biology", "imaging", "microscopy", "geometry", "storage", "provenance"):
            one, two = dict(sample[group]), dict(other[group])
            if built:  # a build adds what only the files say
                one, two = ({key: value for key, value in group.items() if two[key]} for group in (one, two))
            assert one == two, (image_id, group)
        assert np.array_equal(sample["image"], other["image"])
        cells, known = sample["annotation"], other["annotation"]
        assert (cells is None) == (known is None), image_id
        for name in ("centroids", "sizes") if cells else ():
            for a, b in zip(cells[name], known[name], strict=True):
                assert (a is None) == (b is None) and (a is None or np.array_equal(a, b))


@pytest.mark.parametrize("kind", KINDS)
def test_images_records_pixels_and_cells_are_those_of_the_folder(
    folder: Path, places: dict[str, str], kind: str
) -> None:
    expected = samples(str(folder))
    assert len(expected) in (12, 15) and any(sample["annotation"] for sample in expected.values())
    assert_same(samples(places[kind]), expected)


@pytest.mark.parametrize("kind", ["zip, table inside", "bucket", "zip in a bucket"])
def test_the_converted_store_is_the_folder(
    folder: Path, places: dict[str, str], kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    plan = plan_published(places[kind])
    report = build_store([plan], str(tmp_path / "store"), workers=2)
    assert not report.failed_images
    kinds = {finding.kind for finding in report.findings} - {"note"}
    assert kinds == ({"unresolved"} if kind == "bucket" or "sample" in request.node.name else set())
    assert_same(samples(str(tmp_path / "store")), samples(str(folder)), built=True)


def test_the_small_zip_of_the_sample_takes_the_table_that_states_most_of_its_files(shared_data: Path) -> None:
    published = shared_data / "published"
    with pytest.warns(UnresolvedImagesWarning, match="1 of the 16 images"):
        layout = open_layout(str(published / "CHAMMI-75_small.zip"))
    assert isinstance(layout, PublishedLayout) and layout.table.metadata_url.endswith(FULL)
    folder, zipped = samples(str(published)), samples(str(published / "CHAMMI-75_small.zip"))
    assert list(folder) == list(zipped)
    for image_id, sample in zipped.items():
        assert np.array_equal(sample["image"], folder[image_id]["image"])
        assert sample["annotation"] is None  # there is no guidance in it
    named = samples(str(published / "CHAMMI-75_small.zip"), metadata=SMALL)
    assert list(named) == list(samples(str(published), metadata=SMALL)) and len(named) == 8


# --- the bucket ---------------------------------------------------------------------------------------------------


def test_nothing_is_signed_and_no_folder_of_planes_is_listed(places: dict[str, str], server: Server) -> None:
    server.seen.clear()
    samples(places["bucket"])
    assert not [one.path for one in server.seen if one.authorization]
    planes = [one.path for one in server.seen if one.path.endswith(".png")]
    assert len(planes) == len(set(planes))


def test_images_without_a_stated_file_are_counted_in_one_warning(places: dict[str, str]) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        layout = open_layout(places["bucket"])
    (warning,) = [entry for entry in caught if issubclass(entry.category, UnresolvedImagesWarning)]
    assert "no table states the files of 1 of the" in str(warning.message)
    assert isinstance(layout, PublishedLayout) and layout.table.counts["unresolved_images"] == 1


def test_the_warning_is_shown_once_and_with_the_line_of_the_caller(places: dict[str, str]) -> None:
    for streaming in (True, False):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            load_dataset(places["bucket"], streaming=streaming, organism="Homo sapiens")
        (warning,) = [entry for entry in caught if issubclass(entry.category, UnresolvedImagesWarning)]
        assert warning.filename == __file__


@pytest.fixture(scope="module")
def private(server: Server) -> str:
    server.client.create_bucket(Bucket="private")
    server.client.put_object(Bucket="private", Key="note.txt", Body=b"private")
    return "s3://private/note.txt"


@pytest.mark.parametrize(
    "options",
    [
        {"anon": False},
        {"key": "a", "secret": "b"},
        {"client_kwargs": {"aws_access_key_id": "a", "aws_secret_access_key": "b"}},
    ],
)
def test_credentials_are_used_when_options_name_them(
    private: str, server: Server, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from chammi75.files import read_bytes

    for name in ("AWS_PROFILE", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name)
    server.seen.clear()
    assert read_bytes(private, options) == b"private"
    assert all(one.authorization for one in server.seen)


@pytest.mark.parametrize(("configured", "is_signed"), [("False", True), (False, True), ("true", False), (None, False)])
def test_the_configuration_of_fsspec_may_ask_for_credentials(
    places: dict[str, str], server: Server, configured: Any, is_signed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from chammi75.files import exists

    for name in ("AWS_PROFILE", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name)
    monkeypatch.setitem(fsspec.config.conf, "s3", {} if configured is None else {"anon": configured})
    server.seen.clear()
    assert exists(f"{places['bucket']}/{SMALL}")
    assert all(bool(one.authorization) == is_signed for one in server.seen) and server.seen


def test_writing_is_signed(private: str, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_PROFILE", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name)
    server.seen.clear()
    write_atomically("s3://private/new.txt", b"new")
    assert [bool(one.authorization) for one in server.seen if one.method == "PUT"] == [True]


def answering(status: str, code: str, *headers: tuple[str, str]) -> Any:
    """A server that always answers so."""
    from werkzeug.serving import make_server

    def application(environ: Any, start_response: Any) -> Any:
        start_response(status, [("Content-Type", "application/xml"), *headers])
        return [b"" if environ["REQUEST_METHOD"] == "HEAD" else f"<Error><Code>{code}</Code></Error>".encode()]

    http = make_server("127.0.0.1", 0, application, threaded=True)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    return http


@pytest.mark.parametrize("url", ["s3://bucket/CHAMMI-75", "s3://bucket/small.zip"])
@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        ("403 Forbidden", "AccessDenied", r'refuses anonymous access \(403\): give storage_options=\{"anon": False\}'),
        ("301 Moved Permanently", "PermanentRedirect", "moved to the region eu-west-1"),
        ("404 Not Found", "NoSuchBucket", "there is nothing here"),
        ("500 Internal Server Error", "InternalError", "cannot be opened"),
    ],
)
def test_a_bucket_that_refuses_or_moved_is_told_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, url: str, status: str, code: str, words: str
) -> None:
    headers = [("x-amz-bucket-region", "eu-west-1")] if status.startswith("301") else []
    http = answering(status, code, *headers)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{http.server_port}")
    try:
        with pytest.raises(ChammiError, match=words) as caught:
            load_dataset(url)
    finally:
        http.shutdown()
    assert url in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9", "http://no-such-host.invalid"])
def test_without_a_network_the_public_name_fails_in_seconds_and_names_mini(
    monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    start = time.monotonic()
    with pytest.raises(ChammiError, match=r"s3://chammi-data.*no server answers.*mini") as caught:
        load_dataset(resolve_name("chammi75"))
    assert time.monotonic() - start < 30
    assert "\n" not in str(caught.value)


@pytest.fixture
def public_bucket(folder: Path, server: Server) -> Iterator[None]:
    """The public bucket, for as long as a test runs."""
    server.upload(folder, "chammi-data", "CHAMMI-75/")
    yield
    for entry in server.client.list_objects_v2(Bucket="chammi-data")["Contents"]:
        server.client.delete_object(Bucket="chammi-data", Key=entry["Key"])
    server.client.delete_bucket(Bucket="chammi-data")


@pytest.mark.usefixtures("public_bucket")
def test_the_public_name_works_in_all_that_takes_a_store(folder: Path, server: Server, tmp_path: Path) -> None:
    from chammi75.cli import app

    expected = samples(str(folder), organism="Homo sapiens")
    server.seen.clear()
    assert expected and samples("chammi75", organism="Homo sapiens").keys() == expected.keys()
    subset, store = tmp_path / "human.yaml", tmp_path / "store"
    for arguments, words in (
        (["info", "chammi75"], "1 image of the table unresolved"),
        (["cite", "chammi75", "--style", "text"], "Images used"),
        (["subset", "chammi75", "--where", "biology.organism = 'Homo sapiens'", "--out", str(subset)], "images"),
        (["convert", "chammi75", "--out", str(store)], "images"),
    ):
        found = CliRunner().invoke(app, arguments)
        assert found.exit_code == 0 and words in found.output, found.output
    assert samples("chammi75", subset=str(subset)).keys() == expected.keys()
    assert_same(samples(str(store), organism="Homo sapiens"), expected, built=True)
    assert not [one.path for one in server.seen if one.authorization]


@pytest.mark.usefixtures("public_bucket")
@pytest.mark.parametrize("broken", ["AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "region"])
def test_broken_files_of_credentials_do_not_stop_anonymous_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    for name in RUBBISH:
        monkeypatch.delenv(name)
    (tmp_path / "config").write_text("[default]\nregion = no such one\n" if broken == "region" else "[default\n= =")
    monkeypatch.setenv("AWS_CONFIG_FILE" if broken == "region" else broken, str(tmp_path / "config"))
    assert samples("chammi75")


def test_a_setting_that_is_no_endpoint_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "nonsense")
    with pytest.raises(ChammiError, match="cannot be opened: Invalid endpoint: nonsense"):
        load_dataset("chammi75")


@pytest.mark.parametrize("url", ["chammi75", "s3://bucket/small.zip", "zip://::s3://bucket/small.zip"])
def test_a_server_that_is_silent_is_given_up(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    from chammi75 import files

    monkeypatch.setattr(files, "_FIRST_ANSWER_S", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        start = time.monotonic()
        with pytest.raises(ChammiError, match=r"no server answers \(in time\).*mini"):
            load_dataset(url)
    assert time.monotonic() - start < 10


# --- archives -----------------------------------------------------------------------------------------------------


def planes(rows: int) -> tuple[bytes, dict[str, bytes]]:
    """A table of images with one plane each, and the planes."""
    from PIL import Image

    text = io.StringIO(newline="")
    names = [
        "experiment.study",
        "imaging.multi_channel_id",
        "imaging.channel",
        "geometry.width",
        "geometry.height",
        "storage.path",
    ]
    table = csv.writer(text)
    table.writerow(names)
    files = {}
    for number in range(rows):
        path = f"CHAMMI-75_train/s1/i{number}-ch0.png"
        table.writerow(["s1", f"i{number}", 1, 9, 7, path])
        Image.fromarray(np.full((7, 9), number, np.uint8)).save(file := io.BytesIO(), "png")
        files[path] = file.getvalue()
    return text.getvalue().encode(), files


def test_hostile_members_are_reported_and_the_others_load(tmp_path: Path) -> None:
    table, files = planes(4)
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(SMALL, table)
        for path, content in files.items():
            archive.writestr(path, content)
        archive.writestr("../../up.png", b"up")
        archive.writestr("/etc/passwd", b"root")
        archive.writestr("CHAMMI-75_train/s1/i3-ch0.png", b"another")
    layout = open_layout(str(tmp_path / "x.zip"))
    assert isinstance(layout, PublishedLayout) and len(layout) == 3
    reported = {problem.path: problem.reason for problem in layout.table.problems if problem.kind == "unreadable"}
    assert "leads out" in reported["../../up.png"] and "leads out" in reported["/etc/passwd"]
    assert "twice" in reported["CHAMMI-75_train/s1/i3-ch0.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "x.zip"]  # nothing was unpacked


@pytest.mark.parametrize(
    "damage", [lambda content: content[: len(content) // 2], lambda content: b"no zip at all"], ids=["cut", "other"]
)
def test_a_damaged_archive_is_refused_in_one_sentence(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    table, files = planes(3)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for path, content in {SMALL: table, **files}.items():
            archive.writestr(path, content)
    (tmp_path / "x.zip").write_bytes(damage((tmp_path / "x.zip").read_bytes()))
    with pytest.raises(ChammiError, match=r"x\.zip: this is no (whole )?zip archive"):
        load_dataset(str(tmp_path / "x.zip"))


def test_a_plane_that_was_damaged_is_named(tmp_path: Path) -> None:
    table, files = planes(3)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for path, content in {SMALL: table, **files}.items():
            archive.writestr(path, content)
    content = (tmp_path / "x.zip").read_bytes()
    (tmp_path / "x.zip").write_bytes(
        content.replace(files["CHAMMI-75_train/s1/i1-ch0.png"], bytes(len(files["CHAMMI-75_train/s1/i1-ch0.png"])))
    )
    dataset = load_dataset(str(tmp_path / "x.zip"))
    assert np.asarray(dataset[2]["image"]).max() == 2
    with pytest.raises(ReadError, match=r"i1-ch0\.png.*CRC-32"):
        np.asarray(dataset[1]["image"])


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_read_an_archive_and_a_pickled_dataset_is_small(tmp_path: Path, method: str) -> None:
    from torch.utils.data import DataLoader

    from chammi75 import collate

    table, files = planes(40)
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in {SMALL: table, **files}.items():
            archive.writestr(path, content)
    stream = load_dataset(str(tmp_path / "x.zip"), streaming=True)
    loader: DataLoader[Any] = DataLoader(
        stream, batch_size=5, num_workers=2, collate_fn=collate, multiprocessing_context=method, timeout=120
    )
    seen = [int(image.max()) for batch in loader for image in batch["image"]]
    assert sorted(seen) == list(range(40))
    layout = open_layout(str(tmp_path / "x.zip"))
    assert len(pickle.dumps(layout)) < 1000


def test_the_commands_take_an_archive(places: dict[str, str], tmp_path: Path) -> None:
    from chammi75.cli import app

    runner = CliRunner()
    found = runner.invoke(app, ["info", places["zip, table inside"]])
    assert found.exit_code == 0 and "The published layout" in found.output
    found = runner.invoke(
        app, ["gallery", places["zip, table inside"], "--out", str(tmp_path / "g.html"), "--per-study", "1"]
    )
    assert found.exit_code == 0 and (tmp_path / "g.html").stat().st_size > 1000
    found = runner.invoke(app, ["convert", places["zip, table beside"], "--out", str(tmp_path / "store")])
    assert found.exit_code == 0, found.output


# --- the index in the cache ---------------------------------------------------------------------------------------


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    write_published(tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture
def tables_read(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """One entry for each time that tables were read rather than the cache."""
    read: list[Any] = []
    original = cached_module.read_published

    def counting(*arguments: Any, **options: Any) -> Any:
        read.append(arguments)
        return original(*arguments, **options)

    monkeypatch.setattr(cached_module, "read_published", counting)
    return read


def test_the_second_opening_reads_no_table(copy: Path, tables_read: list[Any]) -> None:
    first = open_layout(str(copy))
    content = (copy / SMALL).read_bytes()
    status = (copy / SMALL).stat()
    (copy / SMALL).write_bytes(b"?" * len(content))  # would not be read as a table
    os.utime(copy / SMALL, ns=(status.st_atime_ns, status.st_mtime_ns))
    second = open_layout(str(copy))
    assert len(tables_read) == 1 and second.table.records.equals(first.table.records)  # type: ignore[attr-defined]


def test_what_changes_is_noticed(copy: Path, tables_read: list[Any]) -> None:
    assert len(open_layout(str(copy))) == 12
    text = (copy / SMALL).read_text()
    (copy / SMALL).write_text(text.replace("Homo sapiens", "Mus musculus"))  # as long as before
    layout = open_layout(str(copy))
    assert len(tables_read) == 2 and list(layout.facet("organism").values) == ["Mus musculus"]
    next((copy / "CHAMMI-75_train").rglob("img000-ch0.png")).unlink()
    assert len(open_layout(str(copy))) == 11 and len(tables_read) == 3
    next((copy / "CHAMMI-75_guidance").rglob("img001-ch0.safetensors")).unlink()
    assert load_dataset(str(copy))[0]["annotation"] is None and len(tables_read) == 4
    shutil.rmtree(copy / "CHAMMI-75_guidance")
    assert not any(load_dataset(str(copy))["annotation"])


def test_which_file_is_missing_is_part_of_the_identity(copy: Path) -> None:
    first, second = sorted((copy / "CHAMMI-75_train").rglob("*-ch0.png"))[:2]
    identities = set()
    for path in (first, second):
        content = path.read_bytes()
        path.unlink()
        identities.add(open_layout(str(copy)).identity)
        path.write_bytes(content)
    assert len(identities) == 2


def test_a_folder_whose_files_are_elsewhere_says_so(copy: Path) -> None:
    shutil.rmtree(copy / "CHAMMI-75_train")
    with pytest.raises(ChammiError, match=r"files that it states are not there \(first: CHAMMI-75_train/"):
        load_dataset(str(copy))
    with zipfile.ZipFile(copy / "study0000.zip", "w") as archive:
        archive.writestr("CHAMMI-75_train/study0000/x-ch0.png", b"x")
    with pytest.raises(ChammiError, match=r"Archives are opened by their own names, here study0000\.zip"):
        load_dataset(str(copy))


def test_a_table_that_knows_no_file_says_so(copy: Path) -> None:
    text = (copy / SMALL).read_text()
    (copy / SMALL).write_text(re.sub(r"CHAMMI-75_train/[^,\n]*", "unknown", text))
    with pytest.raises(ChammiError, match="no table states their files"):
        load_dataset(str(copy))


def test_problems_of_many_images_are_counted(tmp_path: Path) -> None:
    rows = "".join(f"s,i{k},1,9,7,2,CHAMMI-75_train/s/i{k}-ch0.png\n" for k in range(1500))
    names = "experiment.study,imaging.multi_channel_id,imaging.channel,geometry.width,geometry.height"
    (tmp_path / SMALL).write_text(f"{names},geometry.channels,storage.path\n{rows}")
    table = read_published(tmp_path, check_files=False)
    reasons = [problem.reason for problem in table.problems if problem.kind == "missing_channel"]
    assert len(reasons) == 1001 and reasons[-1].startswith("500 more images lack")
    assert table.records["imaging"][1499]["missing_channel"].as_py() == [2]


def test_guidance_that_is_added_in_the_bucket_is_noticed(copy: Path, server: Server) -> None:
    name = f"guided-{os.getpid()}"
    shutil.move(copy / "CHAMMI-75_guidance", copy.parent / "guidance")
    study = next((copy.parent / "guidance").iterdir()).name
    server.upload(copy, name)
    server.upload(copy.parent / "guidance" / study, name, "CHAMMI-75_guidance/another/")
    assert not any(sample["annotation"] for sample in samples(f"s3://{name}").values())
    server.upload(copy.parent / "guidance" / study, name, f"CHAMMI-75_guidance/{study}/")
    assert any(sample["annotation"] for sample in samples(f"s3://{name}").values())


def test_what_was_left_half_written_is_removed_after_a_day(copy: Path, own_cache: Path) -> None:
    open_layout(str(copy))
    (kept,) = (own_cache / "published").iterdir()
    left = kept.with_name(f".{kept.name}.01234567.part")
    for path in (left, kept.with_name(f".{kept.name}.89abcdef.part")):
        path.write_bytes(b"half")
    os.utime(left, (0, 0))
    kept.unlink()
    open_layout(str(copy))
    assert sorted(path.suffix for path in (own_cache / "published").iterdir()) == [".arrow", ".part"]
    assert not left.exists()


def test_cards_that_change_are_noticed(copy: Path, tables_read: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    open_layout(str(copy))
    monkeypatch.setattr(cached_module, "declarations_digest", lambda: "changed")
    open_layout(str(copy))
    assert len(tables_read) == 2


def test_a_table_that_changed_in_the_bucket_is_noticed(copy: Path, server: Server, tables_read: list[Any]) -> None:
    name = f"changing-{os.getpid()}"
    server.upload(copy, name)
    for _ in range(2):
        assert list(open_layout(f"s3://{name}").facet("organism").values) == ["Mus musculus", "Homo sapiens"]
    assert len(tables_read) == 1
    text = (copy / SMALL).read_text().replace("Homo sapiens", "Mus musculus")
    server.client.put_object(Bucket=name, Key=SMALL, Body=text.encode(), ACL="public-read")
    assert list(open_layout(f"s3://{name}").facet("organism").values) == ["Mus musculus"]
    assert len(tables_read) == 2


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: b"something else",
        lambda content: content[: len(content) // 2],
        lambda content: content[:5000] + b"\xff" * 64 + content[5064:],
        lambda content: content[:-200] + b"{" * 100 + content[-100:],
        lambda content: bytes(len(content)),
    ],
    ids=["empty", "foreign", "cut", "changed bytes", "changed description", "zeros"],
)
def test_a_damaged_index_is_made_anew(
    copy: Path, own_cache: Path, tables_read: list[Any], damage: Callable[[bytes], bytes]
) -> None:
    records = open_layout(str(copy)).table.records.to_pylist()  # type: ignore[attr-defined]
    (path,) = (own_cache / "published").iterdir()
    path.write_bytes(damage(path.read_bytes()))
    for _ in range(2):
        assert open_layout(str(copy)).table.records.to_pylist() == records  # type: ignore[attr-defined]
    assert len(tables_read) == 2 and list((own_cache / "published").iterdir()) == [path]


def test_a_cache_that_cannot_be_written_is_one_warning(copy: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.warns(CacheWarning, match="cannot be kept") as caught:
        layout = open_layout(str(copy), cache_dir=tmp_path / "file")
    assert len(layout) == 12 and len(caught) == 1
    assert len(pickle.loads(pickle.dumps(layout))) == 12  # noqa: S301 - our own


def _open_and_count(url: str, counts: Any) -> None:
    counts.put(len(open_layout(url)))


def test_several_processes_may_make_the_index_at_once(copy: Path, own_cache: Path) -> None:
    context = multiprocessing.get_context("spawn")
    counts = context.Queue()
    processes = [context.Process(target=_open_and_count, args=(str(copy), counts)) for _ in range(3)]
    for process in processes:
        process.start()
    assert [counts.get(timeout=120) for _ in processes] == [12] * 3
    for process in processes:
        process.join()
    assert [path.suffix for path in (own_cache / "published").iterdir()] == [".arrow"]


def test_an_index_that_is_gone_says_what_to_do(copy: Path, own_cache: Path) -> None:
    travelling = pickle.dumps(open_layout(str(copy)))
    shutil.rmtree(own_cache)
    with pytest.raises(ChammiError, match="load_dataset again"):
        pickle.loads(travelling)  # noqa: S301 - our own


def test_licences_come_from_the_cards(tmp_path: Path) -> None:
    table, files = planes(2)
    text = table.decode().replace("s1,i0", "idr0001,i0").replace("s1,i1", "no-such-study,i1")
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / SMALL).write_text(text)
    for path, content in files.items():
        (tmp_path / "x" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "x" / path).write_bytes(content)
    from chammi75.catalog import Catalog

    known, unknown = (sample["provenance"] for sample in load_dataset(str(tmp_path / "x")))
    card = Catalog().provenance("idr0001")
    assert card.license and (known["license"], known["doi"], known["platform"]) == (
        card.license,
        card.doi,
        card.platform,
    )
    assert known["source"] == "idr0001" and unknown["source"] == "no-such-study"
    assert unknown["license"] is None and unknown["doi"] is None and unknown["platform"] is None
