"""Shuffling, resuming and memory of ``load_dataset(…, streaming=True)``, by what is read and made, not by a clock."""

from __future__ import annotations

import gc
import shutil
import threading
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from loading_stores import Known, write_store

from chammi75 import load_dataset
from chammi75.loading import dataset as dataset_module
from chammi75.loading import selection as selection_module
from chammi75.loading.selection import Selection


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Known:
    return write_store(tmp_path_factory.mktemp("stores") / "store", images=60)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of each table of samples that is made."""
    rows: list[int] = []
    samples = Selection.samples

    def counted(self: Selection, first: int = 0, end: int | None = None) -> pa.Table:
        table = samples(self, first, end)
        rows.append(table.num_rows)
        return table

    monkeypatch.setattr(Selection, "samples", counted)
    return rows


def ids(samples: Any) -> list[str]:
    return [sample["image_id"] for sample in samples]


def assert_shuffled(found: list[str], store: Known) -> None:
    assert sorted(found) == sorted(store.ids) and found != store.ids


def test_a_shuffled_pass_touches_no_shard(tmp_path: Path) -> None:
    known = write_store(tmp_path / "store", images=20)
    shutil.rmtree(tmp_path / "store" / "shards")
    stream = load_dataset(known.url, streaming=True)
    assert_shuffled(ids(stream.shuffle(seed=1, buffer_size=8)), known)
    assert_shuffled(ids(stream.shuffle(seed=1).filter(lambda sample: True).map(lambda sample: {"n": 1})), known)


@pytest.mark.parametrize("buffer", [2, 10, 100])
def test_shuffling_makes_each_large_part_once(
    store: Known, made: list[int], monkeypatch: pytest.MonkeyPatch, buffer: int
) -> None:
    monkeypatch.setattr(dataset_module, "_PARTS", (6,))
    monkeypatch.setattr(dataset_module, "_ROWS_AT_ONCE", 10)
    monkeypatch.setattr(selection_module, "_KEPT_BYTES", 0)
    stream = load_dataset([store.url], streaming=True).shuffle(seed=3, buffer_size=buffer)
    assert stream.num_shards == 6
    assert_shuffled(ids(stream), store)
    assert made == [10] * 6


def test_shuffling_makes_the_rows_of_small_parts_once_as_long_as_they_are_kept(store: Known, made: list[int]) -> None:
    stream = load_dataset(store.url, streaming=True).shuffle(seed=3, buffer_size=10)
    assert stream.num_shards == 60
    for epoch in range(3):
        stream.set_epoch(epoch)
        assert_shuffled(ids(stream), store)
    assert made == [60]


def test_what_is_kept_of_small_parts_is_bounded(store: Known, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset_module, "_ROWS_AT_ONCE", 4)
    monkeypatch.setattr(selection_module, "_KEPT_BYTES", 20_000)
    stream = load_dataset(store.url, streaming=True)
    (selection,) = stream._ex_iterable.kwargs["selections"]
    for epoch in range(3):
        stream.set_epoch(epoch)
        assert_shuffled(ids(stream.shuffle(seed=epoch, buffer_size=5)), store)
        (blocks,) = selection._blocks.values()
        assert blocks._bytes == sum(table.nbytes for table in blocks._tables.values())
        assert blocks._bytes <= 20_000 and 0 < len(blocks._tables) < 15


def test_no_block_of_large_parts_is_kept(store: Known, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset_module, "_ROWS_AT_ONCE", 1)
    stream = load_dataset(store.url, streaming=True)
    assert ids(stream) == store.ids
    (blocks,) = stream._ex_iterable.kwargs["selections"][0]._blocks.values()
    assert blocks._tables == {}


def test_records_are_read_by_one_thread_however_many_datasets_shuffles_with(
    store: Known, monkeypatch: pytest.MonkeyPatch
) -> None:
    readers = set()
    samples = Selection.samples

    def noted(*args: Any) -> pa.Table:
        readers.add(threading.current_thread().name)
        return samples(*args)

    monkeypatch.setattr(Selection, "samples", noted)
    monkeypatch.setattr(dataset_module, "_ROWS_AT_ONCE", 1)
    assert_shuffled(ids(load_dataset([store.url], streaming=True).shuffle(seed=0)), store)
    assert len(readers) == 1


def test_parts_of_several_stores_are_whole(store: Known, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = write_store(tmp_path / "other", images=13)
    for together in (1, 7, 30, 1024):
        for parts in (5, 12, 73):
            monkeypatch.setattr(dataset_module, "_PARTS", (parts,))
            monkeypatch.setattr(dataset_module, "_ROWS_AT_ONCE", together)
            with pytest.warns(UserWarning, match="in two of these datasets"):
                stream = load_dataset([store.url, other.url], streaming=True)
            assert ids(stream) == store.ids + other.ids
            assert sorted(ids(stream.shuffle(seed=1, buffer_size=9))) == sorted(store.ids + other.ids)


def test_a_dataset_is_made_in_pieces(store: Known, made: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset_module, "_ROWS_OF_A_CHUNK", 25)
    dataset = load_dataset(store.url)
    assert made == [25, 25, 10]
    assert dataset["image_id"][:] == store.ids
    assert dataset[37]["image_id"] == store.ids[37] and dataset.shuffle(seed=0)[3]["image_id"] in store.ids


def kept(sample: dict[str, Any]) -> bool:
    return int(sample["experiment"]["well"][1:]) % 3 != 1


def with_size(sample: dict[str, Any]) -> dict[str, Any]:
    return {"size": sample["image"].shape[1]}


@pytest.mark.parametrize("changed", [False, True], ids=["as it is", "filtered and mapped"])
@pytest.mark.parametrize("parts", [7, 60])
def test_a_resumed_stream_goes_on_exactly(
    store: Known, monkeypatch: pytest.MonkeyPatch, changed: bool, parts: int
) -> None:
    monkeypatch.setattr(dataset_module, "_PARTS", (parts,))

    def anew() -> Any:
        stream = load_dataset(store.url, streaming=True)
        return stream.filter(kept).map(with_size) if changed else stream

    whole = ids(anew())
    assert len(whole) == (40 if changed else 60)
    for done in (0, 1, 8, 9, 20, len(whole) - 1, len(whole)):
        stream = anew()
        first = ids(islice(iter(stream), done))
        again = anew()
        again.load_state_dict(stream.state_dict())
        second = ids(islice(iter(again), 5))
        last = anew()
        last.load_state_dict(again.state_dict())
        assert first + second + ids(last) == whole, done


def test_a_resumed_shuffled_stream_goes_on_but_for_what_its_buffers_held(store: Known) -> None:
    def anew() -> Any:
        return load_dataset(store.url, streaming=True).shuffle(seed=5, buffer_size=10)

    for done in (5, 17, 40):
        stream = anew()
        first = ids(islice(iter(stream), done))
        again = anew()
        again.load_state_dict(stream.state_dict())
        rest = ids(again)
        assert len(set(rest)) == len(rest) and set(rest) <= set(store.ids)
        assert len(set(first + rest)) >= 60 - 20  # datasets keeps no buffer: docs/load.md says so


def test_each_epoch_has_an_order_of_its_own_and_the_same_again(store: Known) -> None:
    stream = load_dataset(store.url, streaming=True).shuffle(seed=0, buffer_size=4)
    orders = []
    for epoch in (0, 1, 2, 1):
        stream.set_epoch(epoch)
        orders.append(ids(stream))
        assert_shuffled(orders[-1], store)
    assert orders[1] == orders[3] and len({tuple(order) for order in orders}) == 3


def epochs(stream: Any, count: int) -> Iterator[tuple[int, int]]:
    """Bytes that Arrow holds, and objects that Python tracks, after each epoch."""
    for epoch in range(count):
        if hasattr(stream, "set_epoch"):
            stream.set_epoch(epoch)
        assert sum(np.asarray(sample["image"]).size > 0 for sample in stream) == 60
        gc.collect()
        yield pa.total_allocated_bytes(), len(gc.get_objects())


@pytest.mark.parametrize("kind", ["dataset", "stream", "shuffled", "shuffled and mapped"])
def test_memory_is_flat_over_ten_epochs(store: Known, kind: str) -> None:
    stream: Any = load_dataset(store.url, streaming=kind != "dataset")
    if kind.startswith("shuffled"):
        stream = stream.shuffle(seed=0, buffer_size=20)
    if kind.endswith("mapped"):
        stream = stream.map(with_size)
    arrow, objects = np.array(list(epochs(stream, 13))[2:]).T
    assert arrow[-1] <= arrow[0] + 50_000
    # what other threads hold comes and goes; what an epoch leaves behind lifts the lowest counts too
    assert objects[-5:].min() - objects[:5].min() < 30, "objects are left behind by each epoch"
