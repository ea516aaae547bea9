"""A shard is a standard file: Hugging Face datasets alone, where chammi75 was never imported, shows its planes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from chammi75.build.execute import build_store
from chammi75.build.plan import plan_folder
from chammi75.schemas.recipe import BuildRecipe

SCRIPT = """
import json, sys
import numpy as np
from datasets import List, Image, load_dataset
from PIL.Image import Image as Picture

shards, cache, out = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3]
arrays, ids = {}, {}
for streaming in (False, True):
    dataset = load_dataset("arrow", data_files=shards, split="train", streaming=streaming, cache_dir=cache)
    assert dataset.features["planes"] == List(Image()), dataset.features
    for row in dataset:
        ids.setdefault(str(streaming), []).append(row["image_id"])
        assert row["experiment"]["well"] and row["geometry"]["channels"] == len(row["planes"])
        for number, plane in enumerate(row["planes"]):
            assert isinstance(plane, Picture)
            arrays[f"{streaming}|{row['image_id']}|{number}"] = np.asarray(plane)
assert "chammi75" not in sys.modules
np.savez(out, **arrays)
print(json.dumps(ids))
"""


@pytest.mark.parametrize("codec", ["zstd", "deflate"])
def test_datasets_shows_the_planes_of_shards_as_pictures(tmp_path: Path, codec: str) -> None:
    if codec == "zstd" and sys.platform != "linux":
        pytest.skip("Pillow's wheels for this system have no Zstandard")
    random = np.random.default_rng(0)
    expected: dict[str, np.ndarray] = {}
    folder = tmp_path / "plate"
    folder.mkdir()
    for well, dtype in enumerate(("uint8", "uint16", "float32")):
        for number, channel in enumerate(("DAPI", "GFP")):
            array = random.integers(0, 250, (140, 150)).astype(dtype) * (1 if dtype == "uint8" else 3)
            expected[f"src/A{well}_*.tif|{number}"] = array
            path = folder / f"A{well}_{channel}.tif"
            tifffile.imwrite(path, array, photometric="minisblack", metadata=None)
    keys: dict[str, Any] = {"source": "src", "pattern": "{well}_{channel}", "codec": codec, "shard_bytes": 2**16}
    report = build_store([plan_folder(str(folder), BuildRecipe.model_validate(keys))], str(tmp_path / "store"))
    shards = [str(tmp_path / "store" / shard.path) for shard in report.manifest.shards]
    arguments = [json.dumps(shards), str(tmp_path / "cache"), str(tmp_path / "found.npz")]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True, cwd=tmp_path, timeout=120
    )
    assert done.returncode == 0, done.stderr
    ids = [f"src/A{well}_*.tif" for well in range(3)]
    assert len(shards) > 1
    assert json.loads(done.stdout.splitlines()[-1]) == {"False": ids, "True": ids}
    with np.load(tmp_path / "found.npz") as found:
        assert len(found.files) == 2 * len(expected)
        for name in found.files:
            plane = expected[name.partition("|")[2]]
            assert found[name].dtype == plane.dtype
            np.testing.assert_array_equal(found[name], plane)
