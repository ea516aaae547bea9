from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loading_stores import Known
from PIL import Image

from chammi75 import load_dataset
from chammi75.export import export


@pytest.fixture(scope="module")
def shards(store: Known, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    out = tmp_path_factory.mktemp("webdataset") / "out"
    export(store.url, "webdataset", out, shard_bytes=300_000)
    return sorted(map(str, out.glob("*.tar")))


def test_webdataset_gives_every_image_back(shards: list[str], store: Known) -> None:
    webdataset = pytest.importorskip("webdataset")

    def decoded(content: bytes) -> Any:
        return np.asarray(Image.open(io.BytesIO(content)))

    handlers = [webdataset.handle_extension(name, decoded) for name in ("png", "tif")]
    samples = list(webdataset.WebDataset(shards, shardshuffle=False).decode(*handlers))
    assert [sample["json"]["image_id"] for sample in samples] == store.ids
    records = load_dataset(store.url)
    for sample, record in zip(samples, records, strict=True):
        pixels = store.pixels[record["image_id"]]
        for channel, expected in enumerate(pixels):
            plane = sample.get(f"ch{channel}.png", sample.get(f"ch{channel}.tif"))
            assert plane.dtype == expected.dtype
            assert np.array_equal(plane, expected)
        for group in ("experiment", "imaging", "geometry", "quality"):
            assert sample["json"][group] == record[group]
        known = store.cells[record["image_id"]]
        assert ("cells.json" in sample) == (known is not None)
        if known is not None:
            assert [entry if entry is None else len(entry) for entry in sample["cells.json"]["sizes"]] == [
                entry if entry is None else len(entry.sizes) for entry in known
            ]


def test_planes_of_8_bits_are_png_and_others_tiff(shards: list[str], store: Known) -> None:
    kinds: dict[str, set[str]] = {}
    for shard in shards:
        with tarfile.open(shard) as archive:
            for member in archive.getmembers():
                if ".ch" in member.name:
                    key, _, kind = member.name.split(".")
                    kinds.setdefault(store.pixels[store.ids[int(key)]].dtype.name, set()).add(kind)
    assert kinds == {"uint8": {"png"}, "uint16": {"tif"}, "float32": {"tif"}}


def test_headers_hold_no_time_and_no_user_and_keys_no_dot(shards: list[str]) -> None:
    for shard in shards:
        with tarfile.open(shard) as archive:
            keys = {member.name.partition(".")[0] for member in archive.getmembers()}
            assert len(keys) == 1 or Path(shard).stat().st_size <= 300_000 + tarfile.RECORDSIZE
            for member in archive.getmembers():
                assert (member.mtime, member.uid, member.gid, member.uname, member.gname) == (0, 0, 0, "", "")
                assert member.name.partition(".")[0].isdigit()
    assert [Path(shard).name for shard in shards] == [f"train-{number:06d}.tar" for number in range(len(shards))]
    assert len(shards) > 1
