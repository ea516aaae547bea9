"""Crops out of remote shards: what is fetched is what is needed, and decodes to the right pixels."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from slow_server import Fault, SlowServer, slow_server

from chammi75.errors import ChammiError, FetchError, StoreError
from chammi75.loading.remote_planes import PlanePlace, fetch_windows
from chammi75.ranges import Patience, Traffic
from chammi75.store.plane import decode_plane, encode_plane, head_bytes

QUICK = Patience(stall_s=0.4, deadline_s=20.0, first_wait_s=0.01, longest_wait_s=0.05)
SHAPES = [
    (1024, 1024, "uint16"),
    (1500, 900, "uint16"),
    (700, 700, "float32"),
    (60, 60, "uint8"),
    (1024, 1024, "uint16"),
]


class Shards:
    """Planes of noise in two shards of a served folder."""

    def __init__(self, server: SlowServer, folder: Path) -> None:
        self.server = server
        self.options = server.s3_options
        self.folder = folder / "bucket"
        self.folder.mkdir()
        random = np.random.default_rng(0)
        self.planes: list[NDArray[Any]] = []
        self.places: list[PlanePlace] = []
        contents = {name: bytearray(b"shard ") for name in ("0.arrow", "1.arrow")}
        for k, (height, width, dtype) in enumerate(SHAPES):
            plane = random.integers(0, 200, (height, width)).astype(dtype)
            encoded, name = encode_plane(plane), f"{k % 2}.arrow"
            self.planes.append(plane)
            place = PlanePlace(f"s3://bucket/{name}", len(contents[name]), len(encoded), height, width)
            self.places.append(place)
            contents[name] += encoded
        for name, content in contents.items():
            (self.folder / name).write_bytes(content)

    def assert_same(self, numbers: list[int], windows: list[tuple[int, int, int, int]], fetched: list[Any]) -> None:
        for k, (y, x, height, width), content in zip(numbers, windows, fetched, strict=True):
            assert len(memoryview(content).cast("B")) == self.places[k].length
            pixels = decode_plane(content, (y, x, height, width))
            assert np.array_equal(pixels, self.planes[k][y : y + height, x : x + width])


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shards]:
    folder = tmp_path_factory.mktemp("served")
    with slow_server(folder, latency_s=0.002) as server:
        yield Shards(server, folder)


@pytest.fixture
def shards(kept: Shards) -> Shards:
    kept.server.reset()
    return kept


def test_a_batch_takes_two_rounds_and_only_the_tiles_of_its_windows(shards: Shards) -> None:
    numbers, windows = [0, 1] * 40, [(300, 200, 100, 100), (1200, 500, 100, 100)] * 40
    windows = [(y, x + 2 * (k // 2), height, width) for k, (y, x, height, width) in enumerate(windows)]
    traffic = Traffic()
    places = [shards.places[k] for k in numbers]
    fetched = fetch_windows(places, np.array(windows), shards.options, traffic=traffic)
    shards.assert_same(numbers, windows, fetched)
    assert (traffic.requests, traffic.bytes) == (shards.server.counts().requests, shards.server.counts().body_bytes)
    heads = [one.range_bytes for one in shards.server.seen()[:2]]
    assert sorted(heads) == sorted(head_bytes(*SHAPES[k][:2]) for k in (0, 1))
    assert traffic.requests <= 2 + 4  # two rows of tiles each, asked for once
    assert traffic.bytes < sum(place.length for place in places[:2]) / 3


def test_small_planes_and_large_windows_take_one_round(shards: Shards) -> None:
    numbers, windows = [3, 0], [(0, 0, 10, 10), (0, 0, 1000, 1000)]
    fetched = fetch_windows([shards.places[k] for k in numbers], np.array(windows), shards.options)
    shards.assert_same(numbers, windows, fetched)
    assert sorted(one.range_bytes for one in shards.server.seen()) == sorted(shards.places[k].length for k in numbers)


def test_local_shards_go_the_same_way(shards: Shards) -> None:
    place = shards.places[0]
    local = PlanePlace(str(shards.folder / "0.arrow"), place.offset, place.length, place.height, place.width)
    windows = [(300, 200, 100, 100)] * 40
    shards.assert_same([0] * 40, windows, fetch_windows([local] * 40, np.array(windows)))
    assert shards.server.seen() == []


def test_nothing_is_fetched_for_nothing(shards: Shards) -> None:
    assert fetch_windows([], np.empty((0, 4), np.int64), shards.options) == []


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_window_of_any_plane_decodes_to_its_pixels(kept: Shards, data: st.DataObject) -> None:
    numbers = data.draw(st.lists(st.integers(0, len(SHAPES) - 1), min_size=1, max_size=12))
    windows = []
    for k in numbers:
        height, width, _ = SHAPES[k]
        y, x = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
        windows.append((y, x, data.draw(st.integers(1, height - y)), data.draw(st.integers(1, width - x))))
    padding = 60 - len(numbers)  # a large batch, so that heads come first
    fetched = fetch_windows(
        [kept.places[k] for k in numbers + numbers[:1] * padding],
        np.array(windows + windows[:1] * padding),
        kept.options,
    )
    kept.assert_same(numbers, windows, fetched[: len(numbers)])


@pytest.mark.parametrize("kind", ["stall", "reset", "truncate", "short", "status"])
@pytest.mark.parametrize("skip", [0, 1], ids=["head", "tiles"])
def test_a_crop_outlives_a_bad_network(shards: Shards, kind: str, skip: int) -> None:
    shards.server.fail(Fault(kind, skip=skip, times=2, after_bytes=50))
    windows, traffic = [(300, 200, 100, 100)] * 40, Traffic()
    fetched = fetch_windows([shards.places[0]] * 40, np.array(windows), shards.options, traffic=traffic, patience=QUICK)
    shards.assert_same([0] * 40, windows, fetched)
    assert traffic.retries == shards.server.counts().failed == 2


def test_what_cannot_be_fetched_is_raised_or_told_by_number(shards: Shards) -> None:
    gone = PlanePlace("s3://bucket/gone.arrow", 0, 500_000, 1024, 1024)
    cut = PlanePlace("s3://bucket/1.arrow", 10**8, 500_000, 1024, 1024)
    places, windows = [shards.places[0], gone, cut] * 20, np.array([(300, 200, 100, 100)] * 60)
    with pytest.raises((FileNotFoundError, FetchError)):
        fetch_windows(places, windows, shards.options)
    failures: dict[int, Exception] = {}
    fetched = fetch_windows(places, windows, shards.options, failures=failures)
    assert sorted(failures) == [k for k in range(60) if k % 3]
    assert isinstance(failures[1], FileNotFoundError) and isinstance(failures[2], FetchError)
    assert [len(memoryview(plane)) for plane in fetched] == [place.length for place in places]
    shards.assert_same([0] * 20, [(300, 200, 100, 100)] * 20, fetched[::3])


def test_a_damaged_head_is_left_to_who_decodes_it(shards: Shards) -> None:
    wrong = PlanePlace(shards.places[0].url, shards.places[0].offset + 1, shards.places[0].length - 1, 1024, 1024)
    fetched = fetch_windows([wrong] * 40, np.array([(300, 200, 100, 100)] * 40), shards.options)
    assert len(shards.server.seen()) == 1
    with pytest.raises(StoreError, match="damaged"):
        decode_plane(fetched[0], (300, 200, 100, 100))
    other = PlanePlace(shards.places[0].url, shards.places[0].offset, shards.places[0].length, 512, 1024)
    fetch_windows([other] * 40, np.array([(300, 200, 100, 100)] * 40), shards.options)
    assert len(shards.server.seen()) == 2


@pytest.mark.parametrize("window", [(-1, 0, 5, 5), (0, 0, 5, 0), (1020, 0, 5, 5), (0, 1000, 5, 30)])
def test_a_window_outside_of_its_plane_is_refused(shards: Shards, window: tuple[int, int, int, int]) -> None:
    with pytest.raises(ChammiError, match="is not inside the plane of 1024 x 1024 pixels"):
        fetch_windows([shards.places[0]], np.array([window]), shards.options)


def crop_in_child(place: PlanePlace, options: dict[str, Any]) -> NDArray[Any]:
    (plane, *_) = fetch_windows([place] * 40, np.array([(300, 200, 100, 100)] * 40), options)
    return decode_plane(plane, (300, 200, 100, 100))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_crops_are_fetched_before_and_after_a_fork(shards: Shards, method: str) -> None:
    expected = crop_in_child(shards.places[0], shards.options)
    with multiprocessing.get_context(method).Pool(1) as pool:
        found = pool.apply_async(crop_in_child, (shards.places[0], shards.options))
        assert np.array_equal(crop_in_child(shards.places[0], shards.options), expected)
        assert np.array_equal(found.get(60), expected)
