"""Damaged frames of a shard are told apart before Arrow, which would crash on some, reads them."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow as pa
import pytest

from chammi75.errors import StoreError
from chammi75.schemas.arrow import shard_schema
from chammi75.store.frames import check_batch, check_schema, end_of_schema
from chammi75.store.shard import read_batches


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A shard of three images, in one batch."""
    rows = [{"image_id": f"a/{k}", "planes": [{"bytes": bytes(300), "path": None}]} for k in range(3)]
    path = Path(tmp_path_factory.mktemp("shard")) / "x.arrow"
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, shard_schema()) as writer:
        writer.write_batch(pa.RecordBatch.from_pylist(rows, shard_schema()))
    return path.read_bytes()


def metadata_of_the_batch(shard: bytes) -> range:
    start = end_of_schema(pa.py_buffer(shard))
    return range(start + 8, start + 8 + int.from_bytes(shard[start + 4 : start + 8], "little"))


def test_a_sound_shard_passes(shard: bytes) -> None:
    content = pa.py_buffer(shard)
    check_schema(content)
    assert [batch.num_rows for _, _, batch in read_batches(content)] == [3]


@pytest.mark.parametrize("seed", range(4))
def test_no_damage_to_the_metadata_of_a_batch_ends_the_process(shard: bytes, seed: int) -> None:
    randomly = random.Random(seed)
    places = metadata_of_the_batch(shard)
    refused = 0
    for _ in range(150):
        damaged = bytearray(shard)
        for _ in range(randomly.choice([1, 1, 2, 20])):
            damaged[randomly.choice(places)] = randomly.randrange(256)
        try:
            for _, _, batch in read_batches(pa.py_buffer(bytes(damaged))):
                batch.validate(full=True)
                assert [len(column) for column in batch.columns] == [batch.num_rows] * batch.num_columns
        except (StoreError, pa.ArrowException, ValueError):
            refused += 1
    assert refused > 50


def test_a_damaged_schema_is_never_read(shard: bytes) -> None:
    for at in range(8, end_of_schema(pa.py_buffer(shard)), 7):
        damaged = bytearray(shard)
        damaged[at] ^= 0x41
        with pytest.raises(StoreError, match="schema"):
            check_schema(pa.py_buffer(bytes(damaged)))


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xff\xff\xff", bytes(64), b"\xff\xff\xff\xff\xff\xff\xff\x7f" + bytes(64)]
)
def test_what_is_no_stream_is_refused(content: bytes) -> None:
    with pytest.raises(StoreError, match="does not begin"):
        end_of_schema(pa.py_buffer(content))


def test_a_batch_of_another_schema_is_refused() -> None:
    other = pa.RecordBatch.from_pydict({"image_id": ["a"]}).serialize()
    with pytest.raises(StoreError, match="another number of columns"):
        check_batch(pa.ipc.read_message(other), shard_schema())
