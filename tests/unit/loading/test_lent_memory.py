"""Batches come from workers in memory that is lent: their values stay as long as anybody looks, and nothing is left."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from multiprocessing import current_process
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loading_stores import Known

pytest.importorskip("torch", reason="the training stream needs PyTorch")

import torch
from torch.utils.data import DataLoader, IterableDataset

from chammi75.errors import ChammiError
from chammi75.loading import GuidedCrop, TrainingStream
from chammi75.loading.stream import lent

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is lent on Linux alone")

BATCHES = 60


def stream_of(store: Known, **options: Any) -> TrainingStream:
    settings: dict[str, Any] = {"batch_size": 4, "crop": GuidedCrop(24), "resize": 16, "samples_per_epoch": 4 * BATCHES}
    return TrainingStream(store.url, **{**settings, **options})


def loader_of(dataset: Any, **options: Any) -> DataLoader[Any]:
    return DataLoader(dataset, batch_size=None, **{"num_workers": 2, **options})


def is_lent(batch: dict[str, Any]) -> bool:
    mapped = [mapped for loan in lent._loans.values() for mapped in loan._maps.values()]
    starts = [np.frombuffer(memory, np.uint8).ctypes.data for memory in mapped]
    return batch["pixels"].data_ptr() in starts


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    yield
    gc.collect()
    lent._forget_the_dead()
    assert not lent._loans


@pytest.mark.parametrize("start", ["fork", "spawn"])
@pytest.mark.parametrize("options", [{}, {"resize": None, "crop": None}, {"mode": "mca"}])
def test_lent_batches_hold_what_batches_without_workers_hold(store: Known, start: str, options: dict[str, Any]) -> None:
    expected = list(stream_of(store, **options))
    count = 0
    for batch, other in zip(
        loader_of(stream_of(store, **options), multiprocessing_context=start), expected, strict=True
    ):
        assert type(batch) is dict
        assert batch.keys() == other.keys()
        assert {key: value for key, value in batch.items() if not isinstance(value, torch.Tensor)} == {
            key: value for key, value in other.items() if not isinstance(value, torch.Tensor)
        }
        for key, value in batch.items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(value.nan_to_num(-1), other[key].nan_to_num(-1)) and value.dtype == other[key].dtype
        count += is_lent(batch)
        batch["pixels"].zero_()  # what is lent may be written to
    assert count > BATCHES - 30


def test_what_is_kept_is_not_written_over(store: Known) -> None:
    expected = [batch["pixels"] for batch in stream_of(store)]
    views, whole = {}, {}
    for number, batch in enumerate(loader_of(stream_of(store))):
        if number % 3 == 0:
            views[number] = batch["pixels"][1]  # a view alone keeps the memory
        if number % 7 == 0:
            whole[number] = batch["pixels"].numpy()
    assert all(torch.equal(view, expected[number][1]) for number, view in views.items())
    assert all(torch.equal(torch.from_numpy(array), expected[number]) for number, array in whole.items())


def test_more_batches_may_be_kept_than_there_are_slots(store: Known) -> None:
    expected = [batch["pixels"] for batch in stream_of(store, samples_per_epoch=8 * lent.SLOTS * 4)]
    kept = list(loader_of(stream_of(store, samples_per_epoch=8 * lent.SLOTS * 4), num_workers=1))
    assert sum(map(is_lent, kept)) == lent.SLOTS
    assert all(torch.equal(batch["pixels"], pixels) for batch, pixels in zip(kept, expected, strict=True))


def test_slots_come_back_when_an_epoch_is_broken_off(store: Known) -> None:
    stream = stream_of(store)
    loader = loader_of(stream, num_workers=1, persistent_workers=True)
    used = set()
    for epoch in range(12):
        stream.set_epoch(epoch)
        batches = iter(loader)
        for _ in range(12):
            batch = next(batches)
        if epoch:
            assert is_lent(batch)
            used.add(batch["pixels"].data_ptr())
    assert len(used) < lent.SLOTS / 2
    del batch, batches, loader


def test_open_files_do_not_grow_in_number(store: Known) -> None:
    counts = []
    for _ in range(4):
        for _batch in loader_of(stream_of(store)):
            pass
        del _batch
        gc.collect()
        counts.append(len(list(Path("/proc/self/fd").iterdir())))
    assert counts[-1] <= counts[1]


def test_where_the_memory_cannot_be_opened_batches_come_otherwise(
    store: Known, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any) -> Any:
        raise PermissionError("no access to this process")

    monkeypatch.setattr(lent, "_Loan", refused)
    expected = [batch["pixels"] for batch in stream_of(store)]
    found = [batch["pixels"] for batch in loader_of(stream_of(store))]
    assert all(torch.equal(pixels, other) for pixels, other in zip(found, expected, strict=True))


def test_a_forked_child_gives_nothing_back(store: Known) -> None:
    batches = iter(loader_of(stream_of(store), num_workers=1))
    batch = next(batch for batch in batches if is_lent(batch))
    copy = batch["pixels"].clone()
    child = os.fork()
    if child == 0:
        try:
            del batch
            gc.collect()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    for _later in batches:
        pass
    assert torch.equal(batch["pixels"], copy)


class Changed(IterableDataset[dict[str, Any]]):
    """What a user may make of batches in a worker."""

    def __init__(self, stream: TrainingStream) -> None:
        self.stream = stream

    def __iter__(self) -> Iterator[dict[str, Any]]:
        before = None
        for batch in self.stream:
            batch["turned"] = batch["pixels"].transpose(2, 3)
            batch["half"] = batch["pixels"][:2]
            batch["before"] = before  # a tensor that was sent already
            before = batch["pixels"]
            yield batch


def test_a_worker_may_change_its_batches(store: Known) -> None:
    expected = [batch["pixels"] for batch in stream_of(store)]
    for number, batch in enumerate(loader_of(Changed(stream_of(store)), num_workers=1)):
        assert torch.equal(batch["pixels"], expected[number])
        assert torch.equal(batch["turned"], expected[number].transpose(2, 3))
        assert torch.equal(batch["half"], expected[number][:2])
        assert number == 0 or torch.equal(batch["before"], expected[number - 1])


def test_a_folder_with_a_name_too_long_for_sockets_is_refused_where_sockets_are_needed(
    store: Known, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("n" * 120)
    long.mkdir()
    monkeypatch.setattr(lent, "get_temp_dir", lambda: str(long))
    monkeypatch.setitem(current_process()._config, "tempdir", str(long))  # type: ignore[attr-defined]
    with pytest.raises(ChammiError, match="set TMPDIR to a shorter one"):
        list(DataLoader(stream_of(store, batch_size=None), batch_size=None, num_workers=1))
    assert len(list(loader_of(stream_of(store)))) == BATCHES
