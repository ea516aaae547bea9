"""Byte ranges of local and remote files; the servers are real, on loopback, and fail as real ones do."""

from __future__ import annotations

import errno
import multiprocessing
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memory import memory
from slow_server import Fault, SlowServer, slow_server

from chammi75.errors import ChammiError, FetchError, UnreachableError
from chammi75.files import explain, is_unreachable, join_url, read_files, read_ranges, reading_errors
from chammi75.ranges import Patience, Traffic, fetch_ranges, fetch_ranges_and_more
from chammi75.transfer import PIECE_BYTES, _Pieces, fetch

QUICK = Patience(stall_s=0.4, deadline_s=20.0, first_wait_s=0.01, longest_wait_s=0.05)
CONTENT = bytes(range(256)) * 400
RUBBISH = {"AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "nothing", "AWS_PROFILE": "no-such-profile"}
PASSING = {
    "stalls at once": Fault("stall"),
    "stalls within": Fault("stall", after_bytes=100),
    "is reset": Fault("reset", after_bytes=100),
    "is closed too soon": Fault("truncate", after_bytes=100),
    "is closed at once": Fault("truncate"),
    "is busy (503)": Fault("status", status=503, times=3),
    "is asked too often (429)": Fault("status", status=429, times=2),
    "has an error (500)": Fault("status", status=500),
    "sends too little": Fault("short", after_bytes=10),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    bucket = folder / "bucket"
    bucket.mkdir()
    (bucket / "a.bin").write_bytes(CONTENT)
    (bucket / "b c+é.bin").write_bytes(CONTENT[::-1])
    (bucket / "large.bin").write_bytes(os.urandom(1000) * (2 * PIECE_BYTES // 1000 + 500))
    for name, method in (("stored.zip", zipfile.ZIP_STORED), ("deflated.zip", zipfile.ZIP_DEFLATED)):
        with zipfile.ZipFile(bucket / name, "w", method) as archive:
            archive.writestr("inside/a.bin", CONTENT)
    return folder


@pytest.fixture(scope="module")
def running(folder: Path) -> Iterator[SlowServer]:
    with slow_server(folder, latency_s=0.005) as server:
        yield server


@pytest.fixture
def server(running: SlowServer) -> SlowServer:
    running.reset()
    return running


def place(server: SlowServer, scheme: str, name: str = "a.bin") -> tuple[str, dict[str, Any] | None]:
    """URL and options of a file by one of the ways to it."""
    if scheme == "http":
        return f"{server.url}/bucket/{name}", None
    signed = {"key": "me", "secret": "word"} if scheme == "signed s3" else {}
    return f"s3://bucket/{name}", {**server.s3_options, **signed}


WAYS = ["http", "s3", "signed s3"]


@pytest.mark.parametrize("scheme", WAYS)
def test_ranges_come_in_their_order_near_ones_in_one_request_and_each_once(server: SlowServer, scheme: str) -> None:
    url, options = place(server, scheme)
    traffic = Traffic()
    asked = [(90_000, 10), (5, 10), (20, 30), (5, 10), (12, 3), (0, 0), (40_000, 5)]
    parts = fetch_ranges([(url, at, length) for at, length in asked], options, traffic=traffic, gap_bytes=16 * 2**10)
    assert [bytes(part) for part in parts] == [CONTENT[at : at + length] for at, length in asked]
    assert {one.range for one in server.seen()} == {"bytes=5-49", "bytes=40000-40004", "bytes=90000-90009"}
    counts = server.counts()
    assert (traffic.requests, traffic.bytes, traffic.retries) == (counts.requests, counts.body_bytes, 0) == (3, 60, 0)


def test_the_gap_that_is_bridged_can_be_set(server: SlowServer) -> None:
    url, options = place(server, "s3")
    requests = [(url, 0, 10), (url, 110, 10)]
    fetch_ranges(requests, options, gap_bytes=99)
    assert len(server.seen()) == 2
    fetch_ranges(requests, options, gap_bytes=100)
    assert server.seen()[2:] == [replace(server.seen()[0], range="bytes=0-119")]


@pytest.mark.parametrize("scheme", ["http", "s3"])
def test_long_ranges_come_in_pieces(server: SlowServer, folder: Path, scheme: str) -> None:
    url, options = place(server, scheme, "large.bin")
    content = (folder / "bucket" / "large.bin").read_bytes()
    (part,) = fetch_ranges([(url, 3, len(content) - 3)], options)
    assert part == content[3:]
    assert sorted(one.range_bytes for one in server.seen()) == [len(content) - 3 - 2 * PIECE_BYTES] + [PIECE_BYTES] * 2
    (shorter,) = read_ranges(url, [(3, len(content) + PIECE_BYTES)], options)
    assert shorter == content[3:]


@pytest.mark.parametrize("scheme", WAYS)
def test_names_are_quoted_as_servers_want_them(server: SlowServer, scheme: str) -> None:
    url, options = place(server, scheme, "b c+é.bin" if scheme != "http" else "b%20c+%C3%A9.bin")
    assert bytes(fetch_ranges([(url, 0, 256)], options)[0]) == CONTENT[::-1][:256]


@pytest.mark.parametrize("where", ["plain", "file", "stored.zip", "deflated.zip", "remote zip"])
def test_local_files_and_archives_go_the_same_way(server: SlowServer, folder: Path, where: str) -> None:
    bucket, options = folder / "bucket", None
    url = {"plain": str(bucket / "a.bin"), "file": (bucket / "a.bin").as_uri()}.get(where, "")
    if where.endswith(".zip"):
        url = join_url(f"zip://::{bucket / where}", "inside/a.bin")
    elif where == "remote zip":
        url, options = "zip://inside/a.bin::s3://bucket/stored.zip", server.s3_options
    traffic = Traffic()
    parts = fetch_ranges([(url, 300, 7), (url, 0, 3), (url, 300, 7)], options, traffic=traffic)
    assert [bytes(part) for part in parts] == [CONTENT[300:307], CONTENT[:3], CONTENT[300:307]]
    assert traffic.requests and traffic.bytes
    with pytest.raises(FetchError, match="cut short"):
        fetch_ranges([(url, len(CONTENT) - 5, 6)], options)


def test_a_remote_archive_outlives_faults(server: SlowServer) -> None:
    url = "zip://inside/a.bin::s3://bucket/deflated.zip"
    fetch_ranges([(url, 0, 3)], server.s3_options)
    server.fail(Fault("status", status=503), Fault("reset", after_bytes=10))
    assert bytes(fetch_ranges([(url, 10, 3)], server.s3_options)[0]) == CONTENT[10:13]
    assert server.counts().failed == 2


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
@pytest.mark.parametrize("scheme", WAYS)
def test_what_may_pass_is_asked_again(server: SlowServer, scheme: str, fault: Fault) -> None:
    url, options = place(server, scheme)
    server.fail(fault)
    traffic = Traffic()
    requests = [(url, at, 1000) for at in (0, 50_000, 100_000)]
    parts = fetch_ranges(requests, options, traffic=traffic, gap_bytes=0, patience=QUICK)
    assert [bytes(part) for part in parts] == [CONTENT[at : at + 1000] for _, at, _ in requests]
    counts = server.counts()
    assert counts.failed == fault.times
    assert traffic.retries >= 1
    assert traffic.requests == 3 + traffic.retries
    assert counts.requests == 3 + counts.failed


@pytest.mark.parametrize("scheme", ["http", "s3"])
def test_a_server_is_left_alone_as_long_as_it_asks_for(server: SlowServer, scheme: str) -> None:
    url, options = place(server, scheme)
    server.fail(Fault("status", status=503, retry_after_s=1))
    start = perf_counter()
    fetch_ranges([(url, 0, 10)], options, patience=QUICK)
    assert 1.0 <= perf_counter() - start < 3.0
    server.fail(Fault("status", status=503, retry_after_s=3600))
    start = perf_counter()
    with pytest.raises(FetchError, match=r"the server answers 503 \(asked once"):
        fetch_ranges([(url, 0, 10)], options, patience=QUICK)
    assert perf_counter() - start < 2.0


@pytest.mark.parametrize("scheme", WAYS)
def test_a_missing_file_is_asked_for_once(server: SlowServer, scheme: str) -> None:
    url, options = place(server, scheme, "nothing.bin")
    with pytest.raises(FileNotFoundError):
        fetch_ranges([(url, 0, 10)], options, patience=QUICK)
    assert len(server.seen()) == 1
    known, _ = place(server, scheme)
    assert read_files([url, known], options, missing_ok=True, at_most=3) == [None, CONTENT[:3]]
    assert read_files([known], options) == [CONTENT]


@pytest.mark.parametrize("scheme", WAYS)
def test_a_refused_file_is_not_asked_for_again_and_again(server: SlowServer, scheme: str) -> None:
    url, options = place(server, scheme)
    server.fail(Fault("status", status=403, times=None))
    with pytest.raises(reading_errors()) as caught:
        fetch_ranges([(url, 0, 10)], options, patience=QUICK)
    assert "403" in explain(caught.value, url, options)
    assert len(server.seen()) <= 2  # the second is s3fs's, which says it best


@pytest.mark.parametrize("scheme", WAYS)
def test_what_lies_behind_the_end_is_not_asked_for_again(server: SlowServer, scheme: str) -> None:
    url, options = place(server, scheme)
    with pytest.raises(FetchError, match=r"a\.bin: the file is cut short: of bytes 102000 to 102500, 400 are there"):
        fetch_ranges([(url, 102_000, 500)], options, patience=QUICK)
    with pytest.raises(FetchError, match="of bytes 900000 to 900010, 0 are there"):
        fetch_ranges([(url, 900_000, 10)], options, patience=QUICK)
    assert len(server.seen()) == 2
    assert read_ranges(url, [(102_000, 500), (900_000, 10)], options) == [CONTENT[102_000:], b""]


def test_a_server_without_ranges_is_read_whole(server: SlowServer) -> None:
    url, _ = place(server, "http")
    server.fail(Fault("whole", times=None))
    assert bytes(fetch_ranges([(url, 300, 20)])[0]) == CONTENT[300:320]


def test_an_s3_server_that_refuses_plain_requests_is_read_through_its_filesystem(server: SlowServer) -> None:
    url, options = place(server, "signed s3")
    server.fail(Fault("status", status=400))
    assert bytes(fetch_ranges([(url, 300, 20)], options)[0]) == CONTENT[300:320]
    first, second = server.seen()
    assert first.authorization is None and "Signature=" in first.path
    assert second.authorization is not None and "Signature=" not in second.path


def test_s3_is_read_anonymously_whatever_credentials_lie_around(
    server: SlowServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    for name, value in RUBBISH.items():
        monkeypatch.setenv(name, value)
    url, options = place(server, "s3")
    assert bytes(fetch_ranges([(url, 0, 10)], options)[0]) == CONTENT[:10]
    assert [(one.path, one.authorization) for one in server.seen()] == [("/bucket/a.bin", None)]


@pytest.mark.parametrize("scheme", WAYS)
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault("stall", times=None, after_bytes=5), "the server stalls: nothing came for 0.2 s"),
        (Fault("status", status=503, times=None), "the server answers 503"),
        (Fault("short", times=None, after_bytes=3), "7 bytes where 10 were asked for"),
    ],
    ids=lambda value: value.kind if isinstance(value, Fault) else "",
)
def test_what_does_not_pass_in_time_is_said(server: SlowServer, scheme: str, fault: Fault, words: str) -> None:
    url, options = place(server, scheme)
    server.fail(fault)
    hasty = Patience(stall_s=0.2, deadline_s=0.5, first_wait_s=0.01, longest_wait_s=0.05)
    start = perf_counter()
    with pytest.raises(FetchError, match=words) as caught:
        fetch_ranges([(url, 0, 10), (url, 70_000, 10)], options, patience=hasty)
    assert perf_counter() - start < 5.0
    assert isinstance(caught.value, UnreachableError) == (fault.kind != "short")
    text = str(caught.value)
    assert "a.bin: bytes " in text and "(asked " in text and " times in " in text and text.endswith("try again later")
    assert isinstance(caught.value, OSError) and caught.value.errno == errno.EIO
    assert is_unreachable(caught.value) == (fault.kind == "stall")
    assert str(pickle.loads(pickle.dumps(caught.value))) == text  # noqa: S301 - our own


def test_a_closed_port_is_noticed_soon() -> None:
    start = perf_counter()
    with pytest.raises(FetchError, match=r"no connection .*\(asked [23] times") as caught:
        fetch_ranges([("http://127.0.0.1:9/a.bin", at, 5) for at in range(0, 10**7, 10**5)])
    assert perf_counter() - start < 5.0
    assert "check the network and the address" in explain(caught.value, "http://127.0.0.1:9/a.bin")


def test_one_bad_file_can_be_told_from_the_others(server: SlowServer, folder: Path) -> None:
    good, options = place(server, "s3")
    bad, _ = place(server, "s3", "nothing.bin")
    failures: dict[int, Exception] = {}
    parts = fetch_ranges([(good, 0, 3), (bad, 0, 3), (good, len(CONTENT), 3)], options, failures=failures)
    assert [bytes(part) for part in parts] == [CONTENT[:3], b"", b""]
    assert [type(failures[k]) for k in (1, 2)] == [FileNotFoundError, FetchError] and len(failures) == 2
    failures.clear()
    local = str(folder / "bucket" / "a.bin")
    fetch_ranges([(local, 0, 3), (f"{local}.not", 0, 3)], failures=failures)
    assert [type(error) for error in failures.values()] == [FileNotFoundError]


def test_many_requests_are_on_their_way_at_once_but_not_more_than_allowed(server: SlowServer) -> None:
    url, options = place(server, "s3")
    requests = [(url, 500 * k, 10) for k in range(200)]
    fetch_ranges(requests, options, gap_bytes=0)
    assert server.counts().most_at_once >= 20
    from chammi75.files import filesystem_of

    server.reset()
    filesystem, path = filesystem_of(url, options)
    fetch(filesystem, [(path, at, at + 10) for _, at, _ in requests], gap_bytes=0, at_once=7)
    assert server.counts().most_at_once <= 7 and server.counts().requests == 200


def test_threads_share_connections(server: SlowServer) -> None:
    url, options = place(server, "s3")

    def read(k: int) -> bytes:
        return bytes(fetch_ranges([(url, 1000 * k, 100)], options)[0])

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(read, range(100))) == [CONTENT[1000 * k : 1000 * k + 100] for k in range(100)]
    assert server.counts().connections <= 16


def read_in_child(url: str, options: dict[str, Any] | None) -> bytes:
    return b"".join(fetch_ranges([(url, at, 10) for at in range(0, 10**5, 2 * 10**4)], options, gap_bytes=0))


@pytest.mark.parametrize("scheme", ["http", "s3"])
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_parent_and_children_read_before_and_after_a_fork(server: SlowServer, scheme: str, method: str) -> None:
    url, options = place(server, scheme)
    expected = read_in_child(url, options)
    with multiprocessing.get_context(method).Pool(2) as pool:
        found = [pool.apply_async(read_in_child, (url, options)) for _ in range(4)]
        assert read_in_child(url, options) == expected
        assert [one.get(60) for one in found] == [expected] * 4
    assert read_in_child(url, options) == expected


_FORKING = """
import os, sys
from chammi75.ranges import Patience, Traffic, fetch_ranges
url, traffic = sys.argv[1], Traffic()
read = lambda: fetch_ranges([(url, 0, 10)], traffic=traffic, patience=Patience(stall_s=5))
read()
child = os.fork()
read()
if child:
    assert os.waitpid(child, 0)[1] == 0
    read()
assert traffic.retries == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_child_that_ends_as_any_program_does_leaves_its_parent_alone(server: SlowServer) -> None:
    url, _ = place(server, "http")
    done = subprocess.run([sys.executable, "-c", _FORKING, url], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "Unclosed" not in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("bad", [(-1, 5), (5, -1)])
def test_negative_places_are_refused(tmp_path: Path, bad: tuple[int, int]) -> None:
    with pytest.raises(ChammiError, match="both must be 0 or more"):
        fetch_ranges([(str(tmp_path / "a.bin"), *bad)])


def test_no_length_makes_us_allocate_what_is_not_there(server: SlowServer, folder: Path) -> None:
    url, options = place(server, "s3")
    for where in (url, str(folder / "bucket" / "a.bin")):
        with pytest.raises(FetchError, match=r"cut short|fit into memory"):
            fetch_ranges([(where, 0, 2**62)], options)


def test_nothing_is_asked_where_nothing_is_wanted(server: SlowServer) -> None:
    url, options = place(server, "s3")
    assert fetch_ranges([]) == []
    assert fetch_ranges([(url, 5, 0)], options) == [b""]
    assert server.seen() == []


@settings(max_examples=60, deadline=None)
@given(
    spans=st.lists(
        st.tuples(st.sampled_from("ab"), st.integers(0, 3000), st.none() | st.integers(0, 500)), min_size=1, max_size=30
    ),
    gap=st.integers(0, 300),
)
def test_joined_requests_give_what_single_ones_do(spans: list[tuple[str, int, int | None]], gap: int) -> None:
    from fsspec import filesystem

    memory = filesystem("memory")
    content = {"a": bytes(k % 251 for k in range(2900)), "b": bytes(k % 7 for k in range(1000))}
    for name, value in content.items():
        memory.pipe_file(f"/joined/{name}", value)
    asked = [(f"/joined/{name}", at, None if size is None else at + size) for name, at, size in spans]
    traffic = Traffic()
    parts = fetch(memory, asked, gap_bytes=gap, traffic=traffic)
    assert [bytes(part) for part in parts] == [
        content[name][at : None if size is None else at + size] for name, at, size in spans
    ]
    assert traffic.requests <= len(set(asked))


_FORKED = """
import asyncio, gc, os, sys
from chammi75.files import filesystem_of, read_bytes
url, endpoint = sys.argv[1:]
options = {"client_kwargs": {"endpoint_url": endpoint}}
before = read_bytes(url, options)
child = os.fork()
if not child:
    filesystem, path = filesystem_of(url, options)
    same = filesystem.cat_file(path) == before
    async def collect():
        gc.collect()
        await asyncio.sleep(0.05)
    asyncio.run_coroutine_threadsafe(collect(), filesystem.loop).result()
    os._exit(not same)
assert os.waitpid(child, 0)[1] == 0
assert read_bytes(url, options) == before
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_leaves_the_connections_of_its_parent_alone(server: SlowServer) -> None:
    url, _ = place(server, "s3")
    command = [sys.executable, "-W", "ignore", "-c", _FORKED, url, server.url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("scheme", ["http", "s3"])
def test_what_a_range_tells_of_is_asked_for_as_soon_as_it_is_there(server: SlowServer, scheme: str) -> None:
    url, options = place(server, scheme)
    server.fail(Fault("stall", times=1))
    start = perf_counter()
    times = []

    def follow(number: int, part: memoryview) -> list[tuple[int, int]]:
        times.append(perf_counter() - start)
        assert bytes(part) == CONTENT[number * 1000 : number * 1000 + 10]
        return [(50_000 + 1000 * number, 5), (60_000, 3)][: number + 1]

    requests = [(url, 1000 * k, 10) for k in range(3)]
    parts, more = fetch_ranges_and_more(requests, follow, options, gap_bytes=0, patience=QUICK)
    assert [bytes(part) for part in parts] == [CONTENT[at : at + 10] for at in (0, 1000, 2000)]
    assert [[bytes(part) for part in found] for found in more] == [
        [CONTENT[50_000 + 1000 * k :][:5], CONTENT[60_000:60_003]][: k + 1] for k in range(3)
    ]
    assert max(times) - min(times) > 0.5 * QUICK.stall_s  # the others did not wait for the one that stalled


def test_what_follows_may_fail_by_itself(server: SlowServer) -> None:
    url, options = place(server, "s3")
    failures: dict[int, Exception] = {}
    beyond = len(CONTENT)
    parts, more = fetch_ranges_and_more(
        [(url, 0, 10), (url, 10, 10)],
        lambda number, part: [(beyond - 2, 5)] if number else [(5, 5)],
        options,
        failures=failures,
    )
    assert [len(part) for part in parts] == [10, 10]
    assert bytes(more[0][0]) == CONTENT[5:10]
    assert list(failures) == [1]
    assert "cut short" in str(failures[1])
    with pytest.raises(FetchError, match="cut short"):
        fetch_ranges_and_more([(url, 0, 10)], lambda number, part: [(beyond, 5)], options)
    with pytest.raises(ChammiError, match="0 or more"):
        fetch_ranges_and_more([(url, 0, 10)], lambda number, part: [(-1, 5)], options)


@pytest.mark.skipif(memory() is None, reason="this system does not say how much memory a process has")
def test_room_for_long_parts_of_short_files_takes_no_memory() -> None:
    before = memory()
    pieces = [_Pieces(("file", 0, 2**28)) for _ in range(20)]
    for whole in pieces:
        whole.put(whole.left[0], b"short")
    after = memory()
    assert before is not None and after is not None
    assert after.own - before.own < 100  # MB, of 5 GB that were asked for
    assert [bytes(whole.content) for whole in pieces] == [b"short"] * 20
