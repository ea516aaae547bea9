"""The lazy dict of an image's cells: it reads when it is asked, and is a dict for everybody."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from loading_stores import Known, write_store

from chammi75 import collate, load_dataset
from chammi75.errors import StoreError
from chammi75.loading import annotation as annotation_module
from chammi75.loading.annotation import Annotation


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Known:
    return write_store(tmp_path_factory.mktemp("stores") / "store", images=8)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The shard of each reading of cells."""
    seen: list[str] = []
    read = annotation_module.read_cells

    def counted(storage: Any, options: Any = None) -> Any:
        seen.append(storage["uri"])
        return read(storage, options)

    monkeypatch.setattr(annotation_module, "read_cells", counted)
    return seen


def annotation_of(store: Known, number: int = 1) -> Annotation:
    found = load_dataset(store.url)[number]["annotation"]
    assert isinstance(found, Annotation)
    return found


def travelled(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))  # noqa: S301


def assert_right(store: Known, found: dict[str, list[Any]], number: int = 1) -> None:
    known = store.cells[store.ids[number]]
    assert known is not None and set(found) == {"centroids", "sizes"}
    for xy, sizes, cell in zip(found["centroids"], found["sizes"], known, strict=True):
        assert (xy is None) == (sizes is None) == (cell is None)
        assert cell is None or (np.array_equal(xy, cell.centroids) and np.array_equal(sizes, cell.sizes))


@pytest.mark.parametrize("streaming", [False, True], ids=["dataset", "stream"])
def test_no_cells_are_read_for_who_looks_at_none(store: Known, reads: list[str], streaming: bool) -> None:
    dataset = load_dataset(store.url, streaming=streaming)
    for sample in dataset:
        assert len(sample["annotation"] or "--") == 2
        assert not sample["annotation"] or "centroids" in sample["annotation"]
    changed = dataset.filter(lambda sample: sample["image"].dtype == np.uint16).map(lambda sample: {"n": 1})
    assert sum(sample["n"] for sample in changed) == 8
    assert reads == []


@pytest.mark.parametrize(
    "look",
    [
        dict,
        lambda found: {**found},
        lambda found: found | {},
        lambda found: {} | found,
        lambda found: found.copy(),
        lambda found: dict(found.items()),
        lambda found: dict(zip(found.keys(), found.values(), strict=True)),
        lambda found: {name: found[name] for name in found},
        lambda found: {name: found.get(name) for name in reversed(found)},
        lambda found: {name: found.setdefault(name) for name in ("centroids", "sizes")},
        lambda found: {name: found.pop(name) for name in ("centroids", "sizes")},
        lambda found: dict([found.popitem(), found.popitem()]),
        lambda found: dict(copy.copy(found)),
        lambda found: dict(copy.deepcopy(found)),
        lambda found: dict(travelled(found)),
    ],
)
def test_every_way_to_a_dict_s_values_reads_them(store: Known, look: Callable[[Annotation], dict[str, Any]]) -> None:
    assert_right(store, look(annotation_of(store)))


def test_cells_are_read_once(store: Known, reads: list[str]) -> None:
    found = annotation_of(store)
    assert not found.is_read
    for _ in range(3):
        assert_right(store, found)
    assert found.is_read and len(reads) == 1


def test_what_is_set_before_a_reading_stays_and_what_is_not_set_is_read(store: Known) -> None:
    found = annotation_of(store)
    found["sizes"] = [None]
    found["more"] = [1]
    assert found["sizes"] == [None] and found["more"] == [1] and len(found["centroids"]) == 4
    found = annotation_of(store)
    found.update(sizes=[None])
    del found["centroids"]
    assert found == {"sizes": [None]}


def test_unread_cells_travel_as_references_and_read_ones_as_a_dict(store: Known, reads: list[str]) -> None:
    found = annotation_of(store)
    other = travelled(found)
    assert isinstance(other, Annotation) and not other.is_read and reads == []
    assert_right(store, found)
    assert type(travelled(found)) is dict
    assert_right(store, travelled(found))


def test_what_goes_round_the_methods_fails_and_loses_nothing(store: Known) -> None:
    with pytest.raises(pa.ArrowException):
        pa.array([annotation_of(store)])
    assert "not read" not in repr(annotation_of(store))
    found = annotation_of(store)
    listed = {name: [None if entry is None else entry.tolist() for entry in found[name]] for name in found}
    found.update(listed)
    assert json.loads(json.dumps(found)) == listed and pa.array([found]).to_pylist() == [listed]


@pytest.mark.parametrize("change", [None, lambda sample: {"n": 1}], ids=["as it is", "after a map"])
@pytest.mark.parametrize("streaming", [False, True], ids=["dataset", "stream"])
def test_tensor_formats_have_the_cells(store: Known, streaming: bool, change: Any) -> None:
    dataset = load_dataset(store.url, streaming=streaming)
    dataset = (dataset.map(change) if change else dataset).with_format("torch")
    for sample, image_id in zip(dataset, store.ids, strict=True):
        known = store.cells[image_id]
        for xy, cell in zip(sample["annotation"]["centroids"] if known else (), known or (), strict=True):
            assert (xy is None) == (cell is None)
            assert cell is None or np.array_equal(np.asarray(xy).reshape(-1, 2), cell.centroids)


def test_cells_that_a_map_returns_become_values(store: Known) -> None:
    mapped = load_dataset(store.url).map(lambda sample: {"annotation": sample["annotation"], "image": None})
    assert_right(store, mapped[1]["annotation"])


def test_a_batch_has_the_cells_and_unused_ones_are_not_read(store: Known, reads: list[str]) -> None:
    from torch.utils.data import DataLoader

    loader: DataLoader[Any] = DataLoader(
        load_dataset(store.url, select_channels="nucleus").select_columns(["annotation", "image_id"]),  # type: ignore[arg-type]
        batch_size=3,
        sampler=[1, 2, 3],
        collate_fn=collate,
    )
    (batch,) = list(loader)
    for number, xy in zip([1, 2, 3], batch["annotation"]["centroids"], strict=True):
        known = store.cells[store.ids[number]]
        assert known is not None and known[0] is not None and np.array_equal(xy[0], known[0].centroids)
    assert len(reads) == 3


def test_cells_of_a_shard_that_vanished_name_it_when_they_are_asked_for(tmp_path: Path) -> None:
    store = write_store(tmp_path / "store", images=3)
    (tmp_path / "store" / "shards" / "train-00000.arrow").unlink()
    samples = list(load_dataset(store.url, streaming=True))
    assert [sample["image_id"] for sample in samples] == store.ids
    with pytest.raises(StoreError, match=r"train-00000\.arrow"):
        samples[1]["annotation"]["centroids"]
    assert not samples[1]["annotation"].is_read  # and again, should the file come back
    with pytest.raises(StoreError, match=r"train-00000\.arrow"):
        repr(samples[1]["annotation"])
