"""An index.arrow in which bytes have changed: a StoreError wherever it is used, and never a crash."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loading_stores import write_store

from chammi75.errors import ChammiError, StoreError
from chammi75.loading.stream.store_source import StoreSource
from chammi75.store.index import ArrowIndex
from chammi75.store.reader import Store, open_store

ROWS = np.arange(6)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return open_store(write_store(tmp_path_factory.mktemp("index") / "store", images=6).url)


def content_of(store: Store) -> bytearray:
    return bytearray((Path(store.url) / store.index_files.arrow.path).read_bytes())


def opened(store: Store, content: bytes) -> Store:
    other = store.anew()
    other.index = ArrowIndex.from_buffer(pa.py_buffer(bytes(content)))
    return other


def use(store: Store) -> None:
    """Everything that follows what the index says."""
    source = StoreSource(SimpleNamespace(store=store))  # type: ignore[arg-type]
    channels, windows = np.zeros(len(ROWS), np.int64), np.tile([0, 0, 5, 5], (len(ROWS), 1))
    for _ in (source.channel_type_lists, source.studies(), source.channel_type_codes(ROWS), source.study_codes(ROWS)):
        pass
    source.dtypes(ROWS)
    source.describe(ROWS)
    for chosen in (None, channels):
        source.choose_cells(ROWS, chosen, np.full(len(ROWS), 0.5), sizes=True)
    fetched = source.fetch(ROWS, channels, windows)
    source.decode(fetched, np.zeros((len(ROWS), 5, 5), np.float32), resize=True, threads=1)
    for row in ROWS.tolist():
        store.index.places(row)
        store.read_plane(row, 0)
        store.read_cells(row)
    for name in ("study", "channel_types"):
        store.index.facet(name)


def test_a_sound_index_is_used_without_an_error(store: Store) -> None:
    use(opened(store, content_of(store)))


def test_cells_of_a_store_come_with_their_places_and_sizes(store: Store) -> None:
    source = StoreSource(SimpleNamespace(store=store))  # type: ignore[arg-type]
    places, sizes, failures = source.choose_cells(ROWS, None, np.zeros(len(ROWS)), sizes=True)
    assert not failures
    for row in ROWS.tolist():
        cells = store.read_cells(row) or []
        first = next((one for one in cells if one is not None and len(one.sizes)), None)
        if first is None:
            assert np.isnan(sizes[row])
        else:
            assert sizes[row] == first.sizes[0] and np.array_equal(places[row], first.centroids[0])


@pytest.mark.parametrize("number", [-1, 2**31 - 1, -(2**31), 10**9])
@pytest.mark.parametrize(
    ("name", "buffer", "place", "width"),
    [
        ("image_id", 1, 1, 4),
        ("shard", 1, 0, 4),
        ("plane_offsets", 1, 1, 4),
        ("plane_lengths", 1, 1, 4),
        ("cells", 1, 1, 4),
        ("plane_offsets", 3, 0, 8),
        ("plane_lengths", 3, 0, 8),
        ("dtype", 1, 2, 4),
        ("channel_types", 1, 2, 4),
        ("study", 1, 2, 4),
        ("words of dtype", 1, 1, 4),
        ("words of channel_types", 1, 1, 4),
    ],
)
def test_numbers_that_point_elsewhere_are_refused(
    store: Store, name: str, buffer: int, place: int, width: int, number: int
) -> None:
    content = content_of(store)
    memory = pa.py_buffer(content)
    column = ArrowIndex.from_buffer(memory).table.column(name.rpartition(" ")[2]).chunk(0)
    array = column.dictionary if name.startswith("words") else column
    at = array.buffers()[buffer].address - memory.address + place * width
    content[at : at + width] = number.to_bytes(width, "little", signed=True)
    with pytest.raises(StoreError, match=r"damaged|cut short"):
        use(opened(store, content))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_changed_bytes_are_an_error_or_change_nothing_that_is_followed(store: Store, data: st.DataObject) -> None:
    content = content_of(store)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        other = opened(store, content)
        if len(other.index) == len(ROWS):
            use(other)
    except ChammiError:
        pass
