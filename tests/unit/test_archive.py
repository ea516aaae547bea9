"""Files inside zip archives: the directory is read as zipfile reads it, and nothing that it claims is trusted."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chammi75 import archive as archive_module
from chammi75.errors import ReadError
from chammi75.files import exists, filesystem_of, join_url, open_url, read_bytes, read_files, read_ranges
from chammi75.zip_directory import ArchiveDirectory, parse_directory


def directory(content: bytes) -> ArchiveDirectory:
    return parse_directory(lambda start, stop: content[start:stop], len(content), "a.zip")


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_STORED, comment: bytes = b"") -> bytes:
    with zipfile.ZipFile(file := io.BytesIO(), "w", method) as archive:
        archive.comment = comment
        for name, content in files.items():
            archive.writestr(name, content)
    return file.getvalue()


def laid(content: bytes, folder: Path) -> str:
    (folder / "a.zip").write_bytes(content)
    return f"zip://::{folder / 'a.zip'}"


class Unseekable(io.RawIOBase):
    """Makes zipfile write sizes behind the files, as data descriptors."""

    def __init__(self) -> None:
        super().__init__()
        self.content = b""

    def writable(self) -> bool:
        return True

    def write(self, part: object) -> int:
        self.content += bytes(part)  # type: ignore[call-overload]
        return len(bytes(part))  # type: ignore[call-overload]


# --- what zipfile writes is read ----------------------------------------------------------------------------------

part = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters='/\\:"'), min_size=1, max_size=8
)
names = st.lists(part.filter(lambda text: text not in (".", "..")), min_size=1, max_size=3).map("/".join)


@settings(max_examples=80, deadline=None)
@given(
    files=st.dictionaries(names, st.binary(max_size=300), max_size=8),
    method=st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]),
    comment=st.binary(max_size=60),
    before=st.binary(max_size=40),
    zip64=st.booleans(),
    streamed=st.booleans(),
)
def test_what_zipfile_writes_is_read(
    tmp_path_factory: pytest.TempPathFactory,
    files: dict[str, bytes],
    method: int,
    comment: bytes,
    before: bytes,
    zip64: bool,
    streamed: bool,
) -> None:
    limit = 0 if zip64 else zipfile.ZIP64_LIMIT
    out = Unseekable() if streamed else io.BytesIO()
    with (
        mock.patch.object(zipfile, "ZIP64_LIMIT", limit),
        mock.patch.object(zipfile, "ZIP_FILECOUNT_LIMIT", 0 if zip64 else 65535),
        zipfile.ZipFile(out, "w", method) as archive,  # type: ignore[arg-type]
    ):
        archive.comment = comment
        for name, content in files.items():
            with archive.open(name, "w", force_zip64=zip64) as file:
                file.write(content)
    content = out.content if isinstance(out, Unseekable) else out.getvalue()
    if b"PK\5\6" in comment:
        return  # zipfile itself is at a loss then
    found = directory(before + content)
    assert not found.problems
    assert sorted(found.names.to_pylist()) == sorted(files)
    url = laid(before + content, tmp_path_factory.mktemp("zip"))
    for name, expected in files.items():
        assert read_bytes(join_url(url, name)) == expected


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=3), st.floats(0.5, 1))
def test_damaged_bytes_are_an_error_or_the_files_as_they_were(changes: list[tuple[float, int]], kept: float) -> None:
    files = {"a/x.png": b"first" * 9, "a/y.png": bytes(range(40)), "b.csv": b"1,2\n" * 20}
    content = bytearray(zipped(files, zipfile.ZIP_DEFLATED))
    for place, value in changes:
        content[int(place * len(content))] = value
    cut = bytes(content[: int(kept * len(content))])
    with fsspec.filesystem("memory").open("/fuzz.zip", "wb") as file:
        file.write(cut)
    archive_module.forget_archives()
    archive_module._directory.cache_clear()
    try:
        filesystem, _ = filesystem_of("zip://::memory://fuzz.zip")
    except ReadError:
        return
    for name in filesystem.directory.names.to_pylist():
        try:
            found = filesystem.cat_file(name)
        except ReadError:
            continue
        assert found in files.values() or zlib.crc32(found) in filesystem.directory.checksums


def test_names_that_are_no_utf8_are_read_as_code_page_437() -> None:
    content = zipped({"aXb.png": b"x"}).replace(b"aXb.png", b"a\x81b.png")
    assert directory(content).names.to_pylist() == ["aüb.png"]


def test_backslashes_of_windows_are_slashes() -> None:
    content = zipped({"aXb.png": b"x"}).replace(b"aXb.png", b"a\\b.png")
    assert directory(content).names.to_pylist() == ["a/b.png"]


# --- the files are reached through URLs ---------------------------------------------------------------------------


def test_folders_and_files_are_found_like_those_of_a_disk(tmp_path: Path) -> None:
    files = {"a/x.png": b"xx", "a/b/y.png": b"yyy", "a-z.png": b"z", "a.csv": b"c"}
    url = laid(zipped(files), tmp_path)
    filesystem, _ = filesystem_of(url)
    assert filesystem.ls("", detail=False) == ["a-z.png", "a.csv", "a"]
    assert filesystem.ls("a/", detail=False) == ["a/b", "a/x.png"]
    assert filesystem.info("a/b")["type"] == "directory" and filesystem.info("a/x.png")["size"] == 2
    assert exists(join_url(url, "a/b")) and not exists(join_url(url, "a/c")) and not exists(join_url(url, "a/x.pn"))
    with pytest.raises(FileNotFoundError):
        filesystem.ls("nowhere")
    with pytest.raises(FileNotFoundError):
        read_bytes(join_url(url, "a/none.png"))
    assert read_files([join_url(url, name) for name in ("a/none.png", "a.csv")], missing_ok=True) == [None, b"c"]
    assert read_ranges(join_url(url, "a/b/y.png"), [(1, 2), (0, 1)]) == [b"yy", b"y"]
    with open_url(join_url(url, "a/x.png")) as file:
        assert file.read(1) == b"x" and file.seek(0) == 0 and file.read() == b"xx"


def test_each_file_is_one_range_of_a_remote_archive_and_the_directory_is_read_once(tmp_path: Path) -> None:
    files = {f"s/{k:03d}.png": os.urandom(500 + k) for k in range(50)}
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/once.zip", zipped(files))
    asked: list[tuple[int, int]] = []
    original = type(memory).cat_file

    def counting(self: object, path: str, start: int | None = None, end: int | None = None, **more: object) -> bytes:
        asked.append((start or 0, end or 0))
        content: bytes = original(self, path, start, end, **more)
        return content

    with mock.patch.object(type(memory), "cat_file", counting):
        for name, content in files.items():
            assert read_bytes(f"zip://{name}::memory://once.zip") == content
    assert len(asked) == 2 + len(files)
    assert sum(stop - start for start, stop in asked[2:]) == sum(len(content) + 30 + 9 for content in files.values())


def test_a_large_file_is_unpacked_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_module, "_IN_MEMORY", 1000)
    monkeypatch.setattr(archive_module, "_BLOCK_BYTES", 512)
    files = {"t.csv": b"".join(b"%d,%d\n" % (k, k * k) for k in range(5000)), "u.csv": os.urandom(5000)}
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        url = laid(zipped(files, method), tmp_path)
        for name, content in files.items():
            with open_url(join_url(url, name)) as file:
                assert file.read() == content


def test_an_archive_that_is_replaced_is_read_afresh(tmp_path: Path) -> None:
    url = laid(zipped({"a.png": b"one"}), tmp_path)
    assert read_bytes(join_url(url, "a.png")) == b"one"
    (tmp_path / "a.zip").unlink()
    laid(zipped({"b.png": b"two!"}), tmp_path)
    assert read_bytes(join_url(url, "b.png")) == b"two!" and not exists(join_url(url, "a.png"))


# --- hostile archives ---------------------------------------------------------------------------------------------


def reasons(content: bytes) -> dict[str, str]:
    return dict(directory(content).problems)


@pytest.mark.parametrize(
    "name", ["../x.png", "a/../../x.png", "/etc/x.png", "C:\\x.png", "a\\..\\..\\x.png", "s3://b/x.png", "x::y.png"]
)
def test_names_that_lead_out_are_left_out(name: str) -> None:
    content = zipped({"X" * len(name): b"evil", "good.png": b"g"}).replace(b"X" * len(name), name.encode())
    found = directory(content)
    assert found.names.to_pylist() == ["good.png"]
    ((_, reason),) = found.problems
    assert "leads out" in reason


def test_links_and_encrypted_files_and_other_compressions_are_left_out() -> None:
    with zipfile.ZipFile(file := io.BytesIO(), "w") as archive:
        link = zipfile.ZipInfo("link.png")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("packed.png", b"x" * 99, zipfile.ZIP_LZMA)
        archive.writestr("secret.png", b"s")
        archive.writestr("good.png", b"g")
    content = bytearray(file.getvalue())
    at = content.rindex(b"secret.png") - 46
    content[at + 8] |= 1
    found = reasons(bytes(content))
    assert "link" in found["link.png"] and "encrypted" in found["secret.png"] and "compressed" in found["packed.png"]
    assert directory(bytes(content)).names.to_pylist() == ["good.png"]


def test_a_name_that_stands_there_twice_is_left_out() -> None:
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(file := io.BytesIO(), "w") as archive:
        for content in (b"one", b"two"):
            archive.writestr("a.png", content)
        archive.writestr("b.png", b"b")
    found = directory(file.getvalue())
    assert found.names.to_pylist() == ["b.png"] and [name for name, _ in found.problems] == ["a.png", "a.png"]


def central(content: bytes, name: bytes, field: int, value: int, kind: str = "<L") -> bytes:
    """``content`` with a field of the directory's entry ``name`` set."""
    changed = bytearray(content)
    struct.pack_into(kind, changed, content.rindex(name) - 46 + field, value)
    return bytes(changed)


def test_sizes_that_cannot_be_are_left_out(tmp_path: Path) -> None:
    bomb = zipped({"bomb.png": b"\0" * 20_000_000, "good.png": b"g" * 100}, zipfile.ZIP_DEFLATED)
    assert "size" in reasons(bomb)["bomb.png"] and directory(bomb).names.to_pylist() == ["good.png"]
    small = zipped({"a.png": b"a" * 100, "b.png": b"b" * 100}, zipfile.ZIP_DEFLATED)
    assert "size" in reasons(central(small, b"b.png", 24, 10**9))["b.png"]
    assert "beyond" in reasons(central(small, b"b.png", 20, 10**6))["b.png"]
    assert "beyond" in reasons(central(small, b"b.png", 42, 10**6))["b.png"]
    stored = zipped({"a.png": b"a" * 100, "b.png": b"b" * 100})
    assert "two sizes" in reasons(central(stored, b"b.png", 24, 101))["b.png"]
    lying = laid(central(small, b"b.png", 24, 50), tmp_path)  # less than it unpacks to
    with pytest.raises(ReadError, match="not those that the archive's directory states"):
        read_bytes(join_url(lying, "b.png"))


def test_files_in_the_same_bytes_are_left_out() -> None:
    content = zipped({"a.png": b"a" * 100, "b.png": b"b" * 100, "c.png": b"c"})
    found = directory(central(content, b"b.png", 42, 0))
    assert found.names.to_pylist() == ["c.png"] and all("same bytes" in reason for _, reason in found.problems)


def test_many_refused_files_are_counted() -> None:
    content = zipped({f"XX/{k:03d}": b"" for k in range(300)}).replace(b"XX/", b"../")
    problems = directory(content).problems
    assert len(problems) == 101 and "200 more" in problems[-1][1]


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: content[:-1],
        lambda content: b"",
        lambda content: b"PK\3\4" + bytes(40),
        lambda content: content.replace(b"PK\1\2", b"PK\1\3"),
        lambda content: content[:-10] + struct.pack("<L", 2**31) + content[-6:],
        lambda content: content[:-12] + struct.pack("<H", 77) + content[-10:],
        lambda content: content[:-18] + struct.pack("<H", 3) + content[-16:],
    ],
    ids=["half", "one byte short", "empty", "no directory", "no entries", "size of the directory", "count", "in parts"],
)
def test_a_damaged_archive_is_refused_in_words(damage: Callable[[bytes], bytes]) -> None:
    with pytest.raises(ReadError, match=r"a\.zip: "):
        directory(damage(zipped({"a.png": b"a" * 100, "b.png": b"b" * 100})))


def test_bytes_that_changed_are_noticed(tmp_path: Path) -> None:
    content = zipped({"a.png": b"a" * 100})
    url = laid(content.replace(b"aaaa", b"abab", 1), tmp_path)
    with pytest.raises(ReadError, match="CRC-32"):
        read_bytes(join_url(url, "a.png"))


def test_errors_travel_between_processes(tmp_path: Path) -> None:
    url = laid(zipped({"a.png": b"a" * 100}).replace(b"aaaa", b"abab", 1), tmp_path)
    with pytest.raises(ReadError) as caught:
        read_bytes(join_url(url, "a.png"))
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # noqa: S301 - our own
