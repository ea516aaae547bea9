"""Torch workers under every start method, over a local store and the published layout."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loading_stores import Known, write_published, write_store
from torch.utils.data import DataLoader

from chammi75 import collate, load_dataset

CASES = [  # spawned workers import torch anew, which takes seconds each
    (True, "fork", 4),
    (True, "spawn", 4),
    (True, "forkserver", 2),
    (False, "fork", 4),
    (False, "spawn", 2),
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Known:
    return write_store(tmp_path_factory.mktemp("stores") / "store")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Known:
    return write_published(tmp_path_factory.mktemp("published"))


def check_epoch(loader: DataLoader[Any], known: Known) -> list[str]:
    """Each sample once, with its own pixels."""
    seen = []
    for batch in loader:
        seen += batch["image_id"]
        for name, pixels in zip(batch["image_id"], batch["image"], strict=True):
            assert np.array_equal(pixels.numpy(), known.pixels[name])
    assert sorted(seen) == sorted(known.ids)
    return seen


@pytest.mark.parametrize(("streaming", "method", "workers"), CASES)
def test_workers_yield_every_sample_once(store: Known, streaming: bool, method: str, workers: int) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system has no {method}")
    dataset = load_dataset(store.url, streaming=streaming)
    next(iter(dataset))  # the parent has files open when it forks
    loader: DataLoader[Any] = DataLoader(
        dataset, batch_size=4, num_workers=workers, collate_fn=collate, multiprocessing_context=method
    )
    check_epoch(loader, store)


def test_persistent_workers_shuffle_anew_in_each_epoch(store: Known) -> None:
    stream = load_dataset(store.url, streaming=True).shuffle(seed=0, buffer_size=6)
    loader: DataLoader[Any] = DataLoader(
        stream, batch_size=3, num_workers=2, collate_fn=collate, persistent_workers=True
    )
    orders = []
    for epoch in range(2):
        stream.set_epoch(epoch)
        orders.append(check_epoch(loader, store))
    assert orders[0] != orders[1]


def test_workers_read_the_published_layout_in_place(published: Known) -> None:
    stream = load_dataset(published.url, streaming=True, select_channels=["nucleus", "protein"])
    check_epoch(DataLoader(stream, batch_size=5, num_workers=4, collate_fn=collate), published)


def test_workers_after_a_split_by_node_share_one_part(store: Known) -> None:
    from datasets.distributed import split_dataset_by_node

    seen: list[str] = []
    for rank in range(3):
        part = split_dataset_by_node(load_dataset(store.url, streaming=True), rank, 3)
        for batch in DataLoader(part, batch_size=4, num_workers=2, collate_fn=collate):
            seen += batch["image_id"]
    assert sorted(seen) == sorted(store.ids)


def test_workers_stream_a_shuffled_part_that_was_mapped(store: Known) -> None:
    stream = load_dataset(store.url, streaming=True).shuffle(seed=1).map(_with_mean)
    means = {}
    for batch in DataLoader(stream, batch_size=4, num_workers=2, collate_fn=collate):
        means.update(zip(batch["image_id"], batch["mean"], strict=True))
    assert means == {name: float(pixels.mean()) for name, pixels in store.pixels.items()}


def _with_mean(sample: dict[str, Any]) -> dict[str, Any]:
    return {"mean": float(np.asarray(sample["image"]).mean())}


def test_mini_loads_filters_and_streams(tmp_path: Path) -> None:
    from chammi75.mini.dataset import build_mini

    build_mini(tmp_path / "sources", tmp_path / "store", size=0.1)
    url = str(tmp_path / "store")
    whole = load_dataset(url, split=None)
    assert len(set(whole["image_id"])) == len(whole) > 3
    types = whole[0]["image"].channels
    found = load_dataset(url, split=None, channel_type=types, streaming=True)
    for sample in found:
        assert set(types) <= set(sample["image"].channels)
        assert np.asarray(sample["image"]).std() > 0
