"""The node cache, with real processes and a real server."""

from __future__ import annotations

import errno
import hashlib
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_server import Fault, SlowServer, slow_server

from chammi75.errors import StoreError
from chammi75.store.node_cache import (
    CacheError,
    NodeCache,
    RemoteFile,
    download,
    entries,
    folder,
    index_file,
    open_files,
    open_index_cached,
    session,
    shard_files,
)
from chammi75.store.reader import open_store

needs_posix = pytest.mark.skipif(os.name != "posix", reason="POSIX locks, signals and descriptors")
SIZE = 200_000


@dataclass(frozen=True)
class Source:
    """Files on a server, and their contents."""

    server: SlowServer
    files: list[RemoteFile]
    contents: list[bytes]

    def bodies(self) -> int:
        """Bytes that the server has sent."""
        return self.server.counts().body_bytes


@pytest.fixture(scope="module")
def _source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Source]:
    where = tmp_path_factory.mktemp("source")
    with slow_server(where, latency_s=0.02) as server:
        files, contents = [], []
        for number in range(6):
            content = np.random.default_rng(number).bytes(SIZE)
            (where / f"{number}.arrow").write_bytes(content)
            files.append(RemoteFile(f"{server.url}/{number}.arrow", _sha256(content), SIZE))
            contents.append(content)
        yield Source(server, files, contents)


@pytest.fixture
def source(_source: Source) -> Source:
    _source.server.reset()
    return _source


@pytest.fixture
def where(tmp_path: Path) -> Path:
    return tmp_path / "cache"


Body = Callable[[NodeCache, list[RemoteFile]], Any]


@dataclass(frozen=True)
class Child:
    """A process that opens the cache and runs a function on it, once it is let go."""

    process: Any
    pipe: Any

    def go(self) -> None:
        self.pipe.send(None)

    def signal(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def answer(self) -> Any:
        assert self.pipe.poll(60), "no answer"
        kind, answer = self.pipe.recv()
        assert kind == "done", answer
        return answer


def _run(pipe: Any, where: Path, limit: int, files: list[RemoteFile], body: Body) -> None:
    pipe.send("ready")
    pipe.recv()
    try:
        pipe.send(("done", body(NodeCache(where, limit), files)))
    except BaseException as error:  # noqa: BLE001 - the test says it
        pipe.send(("failed", repr(error)))


@pytest.fixture
def start(where: Path) -> Iterator[Callable[..., Any]]:
    """Starts processes, which wait to be let go when they are returned. They are forked, as a DataLoader's workers."""
    if not hasattr(os, "fork"):
        pytest.skip("there is no fork here")
    context = multiprocessing.get_context("fork")
    children: list[Child] = []

    def begin(files: list[RemoteFile], body: Body, *, limit: int = 10**9, times: int = 1) -> Any:
        new = []
        for _ in range(times):
            ours, theirs = context.Pipe()
            process = context.Process(target=_run, args=(theirs, where, limit, files, body), daemon=True)
            process.start()
            new.append(Child(process, ours))
        children.extend(new)
        assert [child.pipe.recv() for child in new] == ["ready"] * times
        return new if times > 1 else new[0]

    yield begin
    for child in children:
        child.process.kill()
        child.process.join()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _wait_for(condition: Callable[[], Any], timeout_s: float = 15) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
    return found


def _names(where: Path, ending: str = "arrow") -> list[str]:
    return sorted(path.name for path in where.iterdir() if path.name.endswith(ending)) if where.exists() else []


def _parts(where: Path) -> list[str]:
    return _names(where, ".part")


def _read_all(cache: NodeCache, files: list[RemoteFile]) -> Any:
    same = all(_sha256(cache.read(file, [(0, file.size)])[0]) == file.sha256 for file in files)
    traffic = cache.traffic
    return same, traffic.fetched, traffic.waited, traffic.hits + traffic.misses


def _fetch_first(cache: NodeCache, files: list[RemoteFile]) -> Any:
    return cache.fetch(files[0])


# Fetching and reading


def test_a_file_is_fetched_once_and_read_from_the_cache(source: Source, where: Path) -> None:
    cache = NodeCache(where, 10**9)
    file, content = source.files[0], source.contents[0]
    assert cache.read(file, [(10, 5), (0, 3), (SIZE, 0), (SIZE - 4, 4)]) == [
        content[10:15],
        content[:3],
        b"",
        content[-4:],
    ]
    assert cache.fetch(file).read_bytes() == content
    assert source.bodies() == SIZE
    traffic = cache.traffic
    assert (traffic.hits, traffic.misses, traffic.fetched_bytes, traffic.read_bytes) == (1, 1, SIZE, 12)
    assert traffic.hit_rate == 0.5
    assert not _parts(where)
    assert NodeCache(where, 10**9).read(file, [(7, 2)]) == [content[7:9]]
    assert source.bodies() == SIZE


def test_a_large_file_comes_in_concurrent_parts(source: Source, where: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "PART_BYTES", 30_000)
    cache = NodeCache(where, 10**9)
    assert cache.fetch(source.files[1]).read_bytes() == source.contents[1]
    counts = source.server.counts()
    assert counts.requests == 7
    assert 1 < counts.most_at_once <= download.AT_ONCE


def test_an_empty_file_is_fetched_too(tmp_path: Path, where: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    file = RemoteFile(str(tmp_path / "empty"), _sha256(b""), 0)
    assert NodeCache(where, 10).fetch(file).read_bytes() == b""


@settings(max_examples=40, deadline=None)
@given(ranges=st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 1000)), max_size=6))
def test_what_is_read_is_what_the_file_has_there(ranges: list[tuple[int, int]], tmp_path_factory: Any) -> None:
    content = np.random.default_rng(1).bytes(1000)
    where = tmp_path_factory.getbasetemp() / "ranges"
    where.mkdir(exist_ok=True)
    (where / "file").write_bytes(content)
    file = RemoteFile(str(where / "file"), _sha256(content), 1000)
    cache = NodeCache(where / "cache", 10_000)
    if all(offset + length <= 1000 for offset, length in ranges):
        assert cache.read(file, ranges) == [content[offset : offset + length] for offset, length in ranges]
    else:
        with pytest.raises(StoreError, match="does not belong to its index"):
            cache.read(file, ranges)


def test_a_cache_pickles_small_and_opens_anew(source: Source, where: Path) -> None:
    cache = NodeCache(where, 10**9)
    cache.fetch(source.files[0])
    pickled = pickle.dumps(cache)
    assert len(pickled) < 500
    again = pickle.loads(pickled)  # noqa: S301 - our own
    assert again.traffic.hit_rate is None
    assert again.read(source.files[0], [(0, 4)]) == [source.contents[0][:4]]
    assert again.traffic.hit_rate == 1


def test_credentials_are_not_shown() -> None:
    assert "word" not in repr(RemoteFile("s3://b/a", "0" * 64, 1, {"secret": "word"}))


# What is wrong at the source


def test_a_file_that_is_another_one_is_fetched_twice_and_refused_by_name(source: Source, where: Path) -> None:
    file = RemoteFile(source.files[0].url, _sha256(b"another"), SIZE)
    with pytest.raises(StoreError, match=f"{source.files[0].url}: the file is damaged, or another one.*twice"):
        NodeCache(where, 10**9).fetch(file)
    assert source.bodies() == 2 * SIZE
    assert not _parts(where)
    assert not _names(where)


def test_a_file_that_arrives_wrong_once_is_fetched_again(
    source: Source, where: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def garbled(url: str, *arguments: Any) -> list[bytes]:
        asked.append(url)
        (content,) = read_ranges(url, *arguments)
        return [content[:-1] + bytes([content[-1] ^ 1])] if len(asked) == 1 else [content]

    read_ranges = download.read_ranges
    monkeypatch.setattr(download, "read_ranges", garbled)
    assert NodeCache(where, 10**9).fetch(source.files[0]).read_bytes() == source.contents[0]
    assert len(asked) == 2


def test_a_file_cut_short_at_the_source_is_refused_by_name(tmp_path: Path, where: Path) -> None:
    (tmp_path / "short").write_bytes(b"12345")
    with pytest.raises(StoreError, match="short: the file is cut short: the manifest says 9 bytes"):
        NodeCache(where, 10**9).fetch(RemoteFile(str(tmp_path / "short"), _sha256(b"123456789"), 9))
    assert not _parts(where)


def test_a_file_that_is_not_there_is_missing(source: Source, where: Path) -> None:
    with pytest.raises(StoreError, match=r"nothing\.arrow: a file of the store is missing"):
        NodeCache(where, 10**9).fetch(RemoteFile(f"{source.server.url}/nothing.arrow", "0" * 64, 5))


# What is wrong in the cache


def _alter(path: Path, *, keep_times: bool = False) -> None:
    status = path.stat()
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
    if keep_times:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_a_cached_file_that_was_changed_is_fetched_again(source: Source, where: Path) -> None:
    path = NodeCache(where, 10**9).fetch(source.files[0])
    _alter(path)
    cache = NodeCache(where, 10**9)
    assert cache.read(source.files[0], [(995, 10)]) == [source.contents[0][995:1005]]
    assert cache.traffic.fetched == 1


def test_a_cached_file_that_was_cut_is_fetched_again_while_it_is_open(source: Source, where: Path) -> None:
    cache = NodeCache(where, 10**9)
    cache.read(source.files[0], [(0, 1)])
    os.truncate(cache.fetch(source.files[0]), 1000)
    assert cache.read(source.files[0], [(0, 10), (5000, 10)]) == [
        source.contents[0][:10],
        source.contents[0][5000:5010],
    ]
    assert cache.traffic.refetched_bytes == SIZE


def test_a_cached_file_with_new_times_is_hashed_and_kept(source: Source, where: Path) -> None:
    path = NodeCache(where, 10**9).fetch(source.files[0])
    os.utime(path)
    cache = NodeCache(where, 10**9)
    assert cache.fetch(source.files[0]) == path
    assert cache.traffic.fetched == 0
    assert entries.is_stamped(path.stat(), source.files[0].sha256)


def test_a_bit_that_the_disk_flipped_is_found_when_one_asks(source: Source, where: Path) -> None:
    cache = NodeCache(where, 10**9)
    path = cache.fetch(source.files[0])
    assert cache.check(source.files[0])
    cache.read(source.files[0], [(0, 1)])
    _alter(path, keep_times=True)
    assert not cache.check(source.files[0])
    assert cache.read(source.files[0], [(995, 10)]) == [source.contents[0][995:1005]]


@given(sha256=st.text("0123456789abcdef", min_size=64, max_size=64))
@settings(max_examples=50, deadline=None)
def test_the_stamp_is_less_than_a_day_old_and_of_one_hash(sha256: str, tmp_path_factory: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "stamped"
    path.touch()
    entries.stamp(path, sha256)
    status = path.stat()
    assert entries.is_stamped(status, sha256)
    assert 0 <= time.time() - status.st_mtime < 86400
    assert status.st_mtime_ns % (2 * 10**9) == 0
    path.write_bytes(b"1")
    assert not entries.is_stamped(path.stat(), sha256)


# Room


def _age(path: Path, seconds: float) -> None:
    status = path.stat()
    os.utime(path, ns=(time.time_ns() - int(seconds * 1e9), status.st_mtime_ns))


def test_the_least_recently_used_file_goes(source: Source, where: Path) -> None:
    cache = NodeCache(where, 3 * SIZE)
    paths = [cache.fetch(file) for file in source.files[:3]]
    for seconds, path in zip((30, 50, 40), paths, strict=True):
        _age(path, seconds)
    cache.fetch(source.files[1])  # now the oldest is the third
    fourth = cache.fetch(source.files[3])
    assert _names(where) == sorted(path.name for path in (paths[0], paths[1], fourth))
    assert cache.traffic.evicted == 1


def test_the_cache_never_holds_more_than_its_limit_and_counts_what_comes_again(source: Source, where: Path) -> None:
    cache = NodeCache(where, 2 * SIZE + 10)
    for file, content in [*zip(source.files, source.contents, strict=True)] * 2:
        assert cache.read(file, [(50, 50)]) == [content[50:100]]
        assert sum(path.stat().st_size for path in where.glob("*.arrow")) <= 2 * SIZE + 10
        cache.close()
    assert cache.traffic.evicted == 10
    assert cache.traffic.refetched_bytes == 6 * SIZE


def test_files_of_others_and_links_survive(source: Source, where: Path, tmp_path: Path) -> None:
    cache = NodeCache(where, SIZE + 10)
    cache.fetch(source.files[0])
    (tmp_path / "precious").write_bytes(b"x" * SIZE)
    (where / "notes.txt").write_bytes(b"x" * SIZE)
    (where / f"{'0' * 63}.arrow").write_bytes(b"x" * SIZE)
    (where / f"{'1' * 64}.arrow").symlink_to(tmp_path / "precious")
    (where / f"{'2' * 64}.arrow").mkdir()
    part = f"{'3' * 64}.{'0' * 12}.{'0' * 12}.1.part"
    (where / part).symlink_to(tmp_path / "precious")
    before = {path.name for path in where.iterdir()} - set(_names(where, f"{source.files[0].sha256}.arrow"))
    NodeCache(where, SIZE + 10).fetch(source.files[1])
    after = {path.name for path in where.iterdir()}
    assert after == before | {f"{source.files[1].sha256}.arrow"}
    assert (tmp_path / "precious").stat().st_size == SIZE


def test_a_link_in_the_place_of_a_file_is_not_followed(source: Source, where: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(source.contents[0])
    cache = NodeCache(where, 10**9)
    cache.prepare()
    (where / f"{source.files[0].sha256}.arrow").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CacheError, match="no file of the cache"):
        cache.fetch(source.files[0])


def test_a_folder_that_is_no_cache_is_refused_and_left_alone(source: Source, where: Path) -> None:
    where.mkdir()
    (where / "thesis.tex").write_text("mine")
    with pytest.raises(CacheError, match="not empty and no chammi75 cache"):
        NodeCache(where, 10**9).fetch(source.files[0])
    assert [path.name for path in where.iterdir()] == ["thesis.tex"]


def test_a_limit_that_is_too_low_is_refused_with_the_numbers(source: Source, where: Path) -> None:
    cache = NodeCache(where, 1000)
    with pytest.raises(CacheError, match=r"1 kB \(1000 bytes\), and two windows take 2 kB \(2000 bytes\): raise"):
        cache.check_room(2000, "two windows")
    cache.check_room(1000, "two windows")
    with pytest.raises(CacheError, match="larger than the cache may be"):
        cache.fetch(source.files[0])


def test_a_disk_that_is_too_small_is_refused_with_the_numbers(
    source: Source, where: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = NodeCache(where, 10**9)
    cache.fetch(source.files[0])
    monkeypatch.setattr(folder.CacheFolder, "free_bytes", lambda self: 1000)
    cache.check_room(SIZE + 1000, "two windows")  # what is in the cache can go
    with pytest.raises(
        CacheError, match=r"the disk has 1 kB free and 200 kB in this cache, and two windows take 201 kB"
    ):
        cache.check_room(SIZE + 1001, "two windows")


def test_a_disk_that_others_fill_makes_the_cache_smaller(
    source: Source, where: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = NodeCache(where, 10**9)
    cache.fetch(source.files[0])
    monkeypatch.setattr(folder, "_SPARE_BYTES", 0)
    monkeypatch.setattr(folder.CacheFolder, "free_bytes", lambda self: 1000)
    cache.fetch(source.files[1])
    assert _names(where) == [f"{source.files[1].sha256}.arrow"]
    _wipe(where)
    with pytest.raises(CacheError, match="there is no room for a file of 200 kB"):
        cache.fetch(source.files[2])


def _wipe(where: Path) -> None:
    for path in where.glob("*.arrow"):
        path.unlink()


def test_a_quota_that_is_reached_evicts_first_and_is_said_then(
    source: Source, where: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, content: Any) -> None:
        if _names(where):
            raise OSError(errno.EDQUOT, "Disk quota exceeded")
        write_all(descriptor, content)

    write_all = download._write_all
    cache = NodeCache(where, 10**9)
    cache.fetch(source.files[0])
    monkeypatch.setattr(download, "_write_all", full)
    cache.fetch(source.files[1])
    assert _names(where) == [f"{source.files[1].sha256}.arrow"]

    def always(descriptor: int, content: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(download, "_write_all", always)
    with pytest.raises(CacheError, match="the disk of the cache is full"):
        cache.fetch(source.files[2])
    assert not _parts(where)


def _fetch_with_small_files(cache: NodeCache, files: list[RemoteFile]) -> Any:
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    with pytest.raises(CacheError) as caught:
        cache.fetch(files[0])
    return str(caught.value)


def test_a_write_that_the_system_refuses_is_one_clear_error(source: Source, where: Path, start: Any) -> None:
    child = start(source.files[:1], _fetch_with_small_files)
    child.go()
    message = child.answer()
    assert "File too large" in message
    assert str(where) in message
    assert not _parts(where)


def test_a_folder_that_cannot_be_is_an_error_of_its_own_kind(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "cache"):
        with pytest.raises(CacheError, match="is a file: name a folder"):
            NodeCache(path, 10**9).prepare()
    with pytest.raises(CacheError, match=r"cannot be (used|written)"):
        NodeCache("/proc/chammi75-cache" if Path("/proc").exists() else tmp_path / "\0", 10**9).prepare()


def test_a_cache_that_somebody_deletes_is_made_anew(source: Source, where: Path) -> None:
    import shutil

    cache = NodeCache(where, 10**9)
    cache.fetch(source.files[0])
    shutil.rmtree(where)
    assert cache.fetch(source.files[1]).read_bytes() == source.contents[1]
    assert cache.read(source.files[0], [(0, 9)]) == [source.contents[0][:9]]


def test_a_cache_whose_mark_was_removed_while_it_was_used_is_marked_again(source: Source, where: Path) -> None:
    cache = NodeCache(where, 10**9)
    cache.fetch(source.files[0])
    (where / "CACHEDIR.TAG").unlink()
    cache.fetch(source.files[1])
    assert (where / "CACHEDIR.TAG").is_file()
    (where / "CACHEDIR.TAG").unlink()
    NodeCache(where, 10**9).prepare()
    (where / "CACHEDIR.TAG").unlink()
    (where / "mine.txt").write_text("not the cache's")
    with pytest.raises(CacheError, match="not empty"):
        NodeCache(where, 10**9).prepare()


def test_what_was_opened_just_before_it_was_found_damaged_is_not_read_again(source: Source, where: Path) -> None:
    from chammi75.store.node_cache.open_files import OpenFile

    cache, file = NodeCache(where, 10**9), source.files[0]
    path = cache.fetch(file)
    path.write_bytes(bytes(SIZE))
    opened_by_another_thread = OpenFile(path)
    assert not cache.check(file)
    cache._mine().files._files[file.sha256] = opened_by_another_thread
    assert cache.view(file) == source.contents[0]
    cache._mine().files._files[file.sha256] = opened_by_another_thread
    assert cache.read(file, [(0, 9)]) == [source.contents[0][:9]]


def test_a_view_outlives_its_file(source: Source, where: Path) -> None:
    cache = NodeCache(where, 2 * SIZE)
    view = cache.view(source.files[0])
    cache.fetch(source.files[0]).unlink()
    assert view == source.contents[0]
    os.truncate(cache.fetch(source.files[1]), 100)
    assert cache.view(source.files[1]) == source.contents[1]  # fetched anew, since it was cut


def test_disks_are_told_apart_by_what_is_mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from chammi75.store.node_cache import disks

    mounts = tmp_path / "mounts"
    mounts.write_text(
        "/dev/a / ext4 rw 0 0\nserver:/x /far nfs4 rw 0 0\n/dev/b /far/me/fast\\040disk xfs rw 0 0\n"
        "fuse /media fuse.s3 rw 0 0\n/dev/c /over ext4 rw 0 0\nserver:/y /over nfs rw 0 0\n"
    )
    monkeypatch.setattr(disks, "_MOUNTS", mounts)
    own = {name: disks.is_own_disk(Path(name)) for name in ("/tmpx", "/far/me", "/fars", "/media/a", "/over/a")}
    assert own == {"/tmpx": True, "/far/me": False, "/fars": True, "/media/a": False, "/over/a": False}
    assert disks.is_own_disk(Path("/far/me/fast disk/cache"))
    monkeypatch.setattr(disks, "_MOUNTS", tmp_path / "none")
    assert not disks.is_own_disk(Path("/tmpx"))


# Several processes


def test_processes_that_start_on_an_empty_cache_fetch_each_file_once(source: Source, where: Path, start: Any) -> None:
    children = start(source.files, _read_all, times=4)
    for child in children:
        child.go()
    answers = [child.answer() for child in children]
    assert all(same and asked == len(source.files) for same, _, _, asked in answers)
    assert sum(fetched for _, fetched, _, _ in answers) == len(source.files)
    assert sum(waited for _, _, waited, _ in answers) > 0
    assert source.bodies() == SIZE * len(source.files)


def _prefetch_all(cache: NodeCache, files: list[RemoteFile]) -> Any:
    cache.prefetch(files)
    _wait_for(lambda: all(cache.check(file) for file in files))
    return cache.traffic.fetched


def test_processes_that_prefetch_the_same_files_share_the_work(source: Source, where: Path, start: Any) -> None:
    children = start(source.files, _prefetch_all, times=2)
    for child in children:
        child.go()
    fetched = [child.answer() for child in children]
    assert sum(fetched) == len(source.files)
    assert min(fetched) >= 1
    assert source.bodies() == SIZE * len(source.files)


@needs_posix
def test_after_kill_9_while_fetching_the_next_run_cleans_up_and_goes_on(
    source: Source, where: Path, start: Any
) -> None:
    source.server.fail(Fault("stall", after_bytes=1000, times=None))
    child = start(source.files[:1], _fetch_first)
    child.go()
    _wait_for(lambda: _parts(where))
    NodeCache(where, 10**9).prepare()
    assert len(_parts(where)) == 1  # its writer lives
    child.signal(signal.SIGKILL)
    child.process.join()
    source.server.reset()
    begun = time.monotonic()
    cache = NodeCache(where, 10**9)
    cache.prepare()
    assert not _parts(where)
    assert cache.fetch(source.files[0]).read_bytes() == source.contents[0]
    assert time.monotonic() - begun < 5


@needs_posix
def test_who_waits_goes_on_when_the_one_that_fetches_is_killed(source: Source, where: Path, start: Any) -> None:
    source.server.fail(Fault("stall", after_bytes=1000, times=1))
    child = start(source.files[:1], _fetch_first)
    child.go()
    _wait_for(lambda: source.server.counts().failed)
    other = start(source.files[:1], _fetch_first)
    other.go()
    time.sleep(0.3)
    assert other.process.is_alive()
    assert source.server.counts().requests == 1  # it waits, and asks for nothing
    child.process.kill()
    assert other.answer().read_bytes() == source.contents[0]


@needs_posix
def test_who_hangs_is_not_waited_for_without_end(
    source: Source, where: Path, start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    source.server.fail(Fault("stall", after_bytes=1000, times=1))
    child = start(source.files[:1], _fetch_first)
    child.go()
    _wait_for(lambda: source.server.counts().failed)
    child.signal(signal.SIGSTOP)
    monkeypatch.setattr(session, "PATIENCE_S", 0.4)
    cache = NodeCache(where, 10**9)
    assert cache.fetch(source.files[0]).read_bytes() == source.contents[0]
    child.signal(signal.SIGCONT)


def _read_for_two_seconds(cache: NodeCache, files: list[RemoteFile]) -> Any:
    rounds, deadline = 0, time.monotonic() + 2
    while time.monotonic() < deadline:
        for file in files:
            (content,) = cache.read(file, [(0, file.size)])
            assert _sha256(content) == file.sha256
            cache.close()  # else it goes on reading what is evicted
        rounds += 1
    return rounds, cache.traffic


def test_a_reader_is_not_hurt_by_the_eviction_of_another_process(source: Source, where: Path, start: Any) -> None:
    children = [start(source.files[k : k + 2], _read_for_two_seconds, limit=2 * SIZE) for k in (0, 2)]
    for child in children:
        child.go()
    for child in children:
        rounds, traffic = child.answer()
        assert rounds > 1
        assert traffic.refetched_bytes > 0
        assert traffic.evicted > 0


@needs_posix
def test_an_open_file_is_read_on_after_its_eviction(source: Source, where: Path) -> None:
    cache = NodeCache(where, 10**9)
    cache.read(source.files[0], [(0, 1)])
    _wipe(where)
    assert cache.read(source.files[0], [(100, 5)]) == [source.contents[0][100:105]]
    assert source.bodies() == SIZE


@needs_posix
def test_a_stale_handle_is_fetched_again(source: Source, where: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = NodeCache(where, 10**9)
    cache.read(source.files[0], [(0, 1)])
    stale = cache._mine().files.get(source.files[0].sha256)

    def read(self: open_files.OpenFile, offset: int, length: int) -> bytes:
        if self is stale:  # another node's eviction, as NFS tells of it
            _wipe(where)
            raise OSError(errno.ESTALE, "Stale file handle")
        return as_ever(self, offset, length)

    as_ever = open_files.OpenFile.read
    monkeypatch.setattr(open_files.OpenFile, "read", read)
    assert cache.read(source.files[0], [(100, 5)]) == [source.contents[0][100:105]]
    assert cache.traffic.fetched == 2


@needs_posix
def test_few_files_stay_open_and_those_that_are_evicted_and_idle_do_not(
    source: Source, where: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def descriptors() -> int:
        links = (path for path in Path("/proc/self/fd").iterdir() if path.is_symlink())
        return sum(str(where) in os.path.realpath(path) and ".arrow" in os.path.realpath(path) for path in links)

    if not Path("/proc/self/fd").exists():
        pytest.skip("descriptors are counted in /proc")
    monkeypatch.setattr(open_files, "OPEN_FILES", 3)
    cache = NodeCache(where, 10**9)
    for file in source.files[:5]:
        cache.read(file, [(0, 1)])
    assert descriptors() == 3
    _wipe(where)
    monkeypatch.setattr(open_files, "IDLE_S", 0.0)
    cache.read(source.files[5], [(0, 1)])
    assert descriptors() == 1
    cache.close()
    assert descriptors() == 0


def test_use_is_recorded_on_the_file(source: Source, where: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_files, "NOTED_EVERY_S", 0.0)
    cache = NodeCache(where, 10**9)
    path = cache.fetch(source.files[0])
    cache.read(source.files[0], [(0, 1)])
    _age(path, 5000)
    cache.read(source.files[0], [(0, 1)])
    assert time.time() - path.stat().st_atime < 100
    assert entries.is_stamped(path.stat(), source.files[0].sha256)


def _child_of_a_fork(cache: NodeCache, file: RemoteFile, other: RemoteFile, out: Any) -> None:
    before = cache.traffic
    (content,) = cache.read(file, [(0, 9)])
    cache.prefetch([other])
    deadline = time.monotonic() + 10
    while not cache.check(other) and time.monotonic() < deadline:
        time.sleep(0.02)
    out.put((content, before.hit_rate, cache.traffic.hits, cache.check(other)))
    cache.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_starts_with_nothing_and_prefetches_for_itself(source: Source, where: Path) -> None:
    cache = NodeCache(where, 10**9)
    cache.prefetch(source.files[:1])
    _wait_for(lambda: cache.check(source.files[0]))
    cache.read(source.files[0], [(0, 1)])
    context = multiprocessing.get_context("fork")
    out = context.Queue()
    process = context.Process(target=_child_of_a_fork, args=(cache, source.files[0], source.files[1], out))
    process.start()
    assert out.get(timeout=30) == (source.contents[0][:9], None, 1, True)
    process.join(30)
    assert process.exitcode == 0
    assert cache.read(source.files[0], [(1, 1)]) == [source.contents[0][1:2]]


# Where locks do not reach


def _part_of_another_machine(where: Path, file: RemoteFile) -> Path:
    part = where / f"{file.sha256}.{'f' * 12}.{'0' * 12}.1.part"
    part.write_bytes(b"1")
    return part


def test_a_file_that_another_machine_fetches_is_waited_for(
    source: Source, where: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    cache = NodeCache(where, 10**9)
    cache.prepare()
    part = _part_of_another_machine(where, source.files[0])
    monkeypatch.setattr(entries, "_WRITING_S", 5.0)

    def finish() -> None:
        part.write_bytes(source.contents[0])
        entries.stamp(part, source.files[0].sha256)
        part.rename(where / f"{source.files[0].sha256}.arrow")

    threading.Timer(0.3, finish).start()
    assert cache.fetch(source.files[0]).read_bytes() == source.contents[0]
    assert cache.traffic.waited == 1
    assert source.bodies() == 0


def test_a_part_that_another_machine_has_left_is_not_waited_for_long_and_removed_in_the_end(
    source: Source, where: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = NodeCache(where, 10**9)
    cache.prepare()
    part = _part_of_another_machine(where, source.files[0])
    monkeypatch.setattr(entries, "_WRITING_S", 0.3)
    assert cache.fetch(source.files[0]).read_bytes() == source.contents[0]
    assert part.exists()
    os.utime(part, (0, time.time() - 7200))
    NodeCache(where, 10**9).prepare()
    assert not part.exists()


def _read_all_without_locks(cache: NodeCache, files: list[RemoteFile]) -> Any:
    import fcntl

    def lockf(*arguments: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    fcntl.lockf = lockf  # type: ignore[assignment]
    return _read_all(cache, files)


def test_without_locks_files_are_fetched_rightly(source: Source, where: Path, start: Any) -> None:
    children = start(source.files[:3], _read_all_without_locks, times=3)
    for child in children:
        child.go()
    answers = [child.answer() for child in children]
    assert all(same for same, *_ in answers)
    assert 3 <= sum(fetched for _, fetched, *_ in answers) <= 6
    assert not _parts(where)


# Fetching ahead


def test_files_are_fetched_ahead_in_order_within_the_limit(source: Source, where: Path) -> None:
    cache = NodeCache(where, 3 * SIZE)
    cache.prefetch(source.files)
    _wait_for(lambda: len(_names(where)) == 3)
    time.sleep(0.3)
    assert _names(where) == sorted(f"{file.sha256}.arrow" for file in source.files[:3])
    cache.prefetch(source.files[2:5])
    _wait_for(lambda: _names(where) == sorted(f"{file.sha256}.arrow" for file in source.files[2:5]))
    for file in source.files[2:5]:
        cache.fetch(file)
    assert cache.traffic.hit_rate == 1
    cache.close()


def test_what_is_planned_is_evicted_last(source: Source, where: Path) -> None:
    cache = NodeCache(where, 3 * SIZE)
    cache.prefetch(source.files[:2])
    _wait_for(lambda: len(_names(where)) == 2)
    cache.fetch(source.files[2])
    for file in source.files[:2]:
        _age(where / f"{file.sha256}.arrow", 900)
    cache.fetch(source.files[3])
    assert f"{source.files[2].sha256}.arrow" not in _names(where)
    cache.fetch(source.files[4])
    cache.prefetch(source.files[:2])
    _wipe(where)
    cache.close()


def test_what_went_wrong_ahead_is_said_by_fetch(source: Source, where: Path) -> None:
    wrong = RemoteFile(f"{source.server.url}/nothing.arrow", "0" * 64, 5)
    cache = NodeCache(where, 10**9)
    cache.prefetch([wrong, source.files[0]])
    _wait_for(lambda: cache.check(source.files[0]))
    with pytest.raises(StoreError, match="missing"):
        cache.fetch(wrong)
    cache.close()


def test_prefetching_stops_when_the_cache_is_closed_or_forgotten(source: Source, where: Path) -> None:
    import threading

    others = set(threading.enumerate())

    def threads() -> int:
        return sum(thread.name == "chammi75-prefetch" for thread in set(threading.enumerate()) - others)

    source.server.fail(Fault("stall", after_bytes=1000, times=None))
    cache = NodeCache(where, 10**9)
    cache.prefetch(source.files)
    _wait_for(lambda: _parts(where))
    cache.close()
    assert not _parts(where)
    _wait_for(lambda: not threads())
    source.server.reset()
    cache.prefetch(source.files[:1])
    _wait_for(lambda: _names(where))
    del cache
    _wait_for(lambda: not threads())


ENDING = """
import pathlib, sys, time
from chammi75.store.node_cache import NodeCache, RemoteFile
where, url, sha256, size = sys.argv[1:]
cache = NodeCache(where, 10**9)
cache.prefetch([RemoteFile(url, sha256, int(size))])
while not list(pathlib.Path(where).glob("*.part")):
    time.sleep(0.01)
time.sleep(0.1)
print("end", flush=True)
"""


def test_the_interpreter_ends_at_once_and_leaves_nothing_half_fetched(source: Source, where: Path) -> None:
    source.server.fail(Fault("stall", after_bytes=1000, times=None))
    file = source.files[0]
    command = [sys.executable, "-c", ENDING, str(where), file.url, file.sha256, str(file.size)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "end\n"
        begun = time.monotonic()
        assert process.wait(20) == 0
        assert time.monotonic() - begun < 5
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert not _parts(where)


def _fetch_until_interrupted(cache: NodeCache, files: list[RemoteFile]) -> Any:
    with pytest.raises(KeyboardInterrupt):
        cache.fetch(files[0])
    return "interrupted"


def test_ctrl_c_ends_a_fetch_at_once_and_leaves_nothing(source: Source, where: Path, start: Any) -> None:
    source.server.fail(Fault("stall", after_bytes=1000, times=None))
    child = start(source.files, _fetch_until_interrupted)
    child.go()
    _wait_for(lambda: source.server.counts().failed)
    child.signal(signal.SIGINT)
    begun = time.monotonic()
    assert child.answer() == "interrupted"
    assert time.monotonic() - begun < 5
    assert not _parts(where)


# A store's files


def test_the_index_of_a_remote_store_is_fetched_once_and_mapped(
    tmp_path: Path, where: Path, image_maker: Any, store_writer: Any
) -> None:
    store_writer(tmp_path / "remote" / "store", [image_maker(number) for number in range(7)])
    with slow_server(tmp_path / "remote") as server:
        store = open_store(f"{server.url}/store")
        cache = NodeCache(where, 10**9)
        index = open_index_cached(store, cache)
        assert index.table.equals(open_store(tmp_path / "remote" / "store").index.table)
        size = index_file(store).size
        assert cache.traffic.fetched_bytes == size
        before = server.counts().requests
        other = NodeCache(where, 10**9)
        assert open_index_cached(store, other).table.equals(index.table)
        assert server.counts().requests == before
        store.index = index
        shards = shard_files(store)
        place = store.index.places(4)
        shard = shards[place.shard]
        parts = cache.read(shard, list(zip(place.plane_offsets, place.plane_lengths, strict=True)))
        assert parts == [
            bytes(part)
            for part in store.read_stored(4, list(zip(place.plane_offsets, place.plane_lengths, strict=True)))
        ]
    assert open_index_cached(open_store(tmp_path / "remote" / "store"), cache).table.equals(index.table)


def test_an_index_in_use_is_not_evicted_for_a_day(source: Source, where: Path) -> None:
    first = source.files[0]
    index = RemoteFile(first.url, first.sha256, first.size, is_index=True)
    cache = NodeCache(where, 2 * SIZE)
    path = cache.fetch(index)
    _age(path, 3600)
    cache.fetch(source.files[1])
    cache.fetch(source.files[2])
    assert path.exists()
    with pytest.raises(CacheError, match="indexes in use take 200 kB"):
        NodeCache(where, SIZE + 10).fetch(source.files[3])
    _age(path, 2 * 86400)
    cache.fetch(source.files[4])
    assert not path.exists()
