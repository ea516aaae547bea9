"""From plans to a store: what cannot be read is reported, the rest is built, and the same for any number of workers."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image
from safetensors.numpy import save_file

from chammi75.build.execute import BuildReport, build_store
from chammi75.build.plan import plan_folder
from chammi75.build.planned import BuildPlan
from chammi75.errors import RecipeError, StoreError
from chammi75.schemas.recipe import BuildRecipe
from chammi75.store import open_store, verify

PATTERN = "{well}_{channel}"


def pixels(seed: int, dtype: str = "uint16", shape: tuple[int, int] = (90, 70)) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 100, shape)
    return (noise + np.add.outer(np.arange(shape[0]), np.arange(shape[1]))).astype(dtype)


def write(path: Path, array: np.ndarray, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, array, **({"photometric": "minisblack", "metadata": None} | options))


def plan(folder: Path, **keys: Any) -> BuildPlan:
    return plan_folder(str(folder), BuildRecipe.model_validate({"source": "src", "pattern": PATTERN, **keys}))


def tree(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def plate(tmp_path: Path) -> Path:
    """Six images of two channels."""
    for well in range(6):
        for channel, name in enumerate(("DAPI", "GFP")):
            write(tmp_path / "plate" / f"A{well}_{name}.tif", pixels(10 * well + channel))
    return tmp_path / "plate"


def records(report: BuildReport) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = open_store(report.store).records().to_pylist()
    return rows


def test_any_number_of_workers_writes_the_same_files(plate: Path, tmp_path: Path) -> None:
    planned = plan(plate, shard_bytes=2**16)
    for workers in (1, 2, 4):
        build_store([planned], str(tmp_path / f"{workers}"), workers=workers)
        assert tree(tmp_path / f"{workers}") == tree(tmp_path / "1")
    assert len(open_store(tmp_path / "1").shards) == 3
    assert verify(str(tmp_path / "4")).is_sound


def test_threads_within_one_shard_write_the_same_files(plate: Path, tmp_path: Path) -> None:
    planned = plan(plate)
    build_store([planned], str(tmp_path / "one"))
    build_store([planned], str(tmp_path / "many"), workers=4)
    assert len(open_store(tmp_path / "one").shards) == 1
    assert tree(tmp_path / "one") == tree(tmp_path / "many")


def test_the_content_hash_is_the_same_for_both_codecs(plate: Path, tmp_path: Path) -> None:
    hashes = set()
    for codec, shard_bytes in (("zstd", 2**20), ("deflate", 2**16)):
        report = build_store([plan(plate, codec=codec, shard_bytes=shard_bytes)], str(tmp_path / codec))
        assert report.manifest.codec == codec
        hashes.add(report.manifest.content_sha256)
    assert len(hashes) == 1


def test_shards_are_cut_by_decoded_bytes_and_splits_lie_apart(plate: Path, tmp_path: Path) -> None:
    write(tmp_path / "more" / "B1_DAPI.tif", pixels(77))
    one = plan(plate, shard_bytes=2**16)  # an image has 25,200 bytes: two fit
    other = plan_folder(
        str(tmp_path / "more"), BuildRecipe.model_validate({"source": "more", "pattern": PATTERN, "split": "test"})
    )
    report = build_store([one, other], str(tmp_path / "store"))
    assert [(shard.path, shard.split, shard.rows) for shard in report.manifest.shards] == [
        ("shards/test-00000.arrow", "test", 1),
        ("shards/train-00000.arrow", "train", 2),
        ("shards/train-00001.arrow", "train", 2),
        ("shards/train-00002.arrow", "train", 2),
    ]
    assert report.manifest.pixel_bytes == 6 * 25_200 + 12_600
    assert {row["image_id"].split("/")[0] for row in records(report)[:1]} == {"more"}


def test_pixels_and_checksums_are_those_of_the_files(plate: Path, tmp_path: Path) -> None:
    report = build_store([plan(plate)], str(tmp_path / "store"))
    store = open_store(tmp_path / "store")
    for row, record in enumerate(records(report)):
        files = [plate / path for path in record["storage"]["path"]]
        np.testing.assert_array_equal(store.read_image(row), [tifffile.imread(file) for file in files])
        sums = [f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}" for file in files]
        assert record["provenance"]["checksum"] == sums
    assert report.failed_images == 0
    assert report.findings == ()


def test_files_that_cannot_be_read_are_reported_and_the_others_built(plate: Path, tmp_path: Path) -> None:
    planned = plan(plate, shard_bytes=2**16)
    content = (plate / "A2_GFP.tif").read_bytes()
    (plate / "A2_GFP.tif").write_bytes(content[: len(content) // 2])
    (plate / "A3_DAPI.tif").unlink()
    (plate / "A4_DAPI.tif").write_bytes(b"")
    (plate / "A5_GFP.tif").write_bytes(b"GIF89a" + bytes(100))
    for workers in (1, 2):
        target = tmp_path / f"store{workers}"
        report = build_store([planned], str(target), workers=workers)
        assert report.failed_images == 4
        assert [row["image_id"] for row in records(report)] == ["src/A0_*.tif", "src/A1_*.tif"]
        assert [(f.kind, f.path) for f in report.findings] == [("unreadable", f"src/A{k}_*.tif") for k in (2, 3, 4, 5)]
        for finding, name in zip(report.findings, ("A2_GFP", "A3_DAPI", "A4_DAPI", "A5_GFP"), strict=True):
            assert f"{name}.tif: " in finding.reason
        written = json.loads((target / "report.json").read_bytes())
        assert written["planned_images"] == 6
        assert [finding["path"] for finding in written["findings"]] == [f.path for f in report.findings]
        assert verify(str(target)).is_sound
        assert len(report.manifest.shards) == 1  # a shard of which nothing was left is no file
        assert sorted(path.name for path in (target / "shards").iterdir()) == ["train-00000.arrow"]
    assert tree(tmp_path / "store1") == tree(tmp_path / "store2")


def test_files_that_changed_after_the_plan_are_reported(plate: Path, tmp_path: Path) -> None:
    planned = plan(plate)
    write(plate / "A1_GFP.tif", pixels(1, shape=(91, 70)))
    write(plate / "A2_GFP.tif", pixels(1, "int64") * 2**40)
    report = build_store([planned], str(tmp_path / "store"))
    assert [f.path for f in report.findings] == ["src/A1_*.tif", "src/A2_*.tif"]
    assert "91 x 70 pixels, 90 x 70 were expected" in report.findings[0].reason
    assert report.manifest.images == 4


def test_a_build_of_which_nothing_can_be_read_is_an_error_that_says_why_and_leaves_no_store(
    plate: Path, tmp_path: Path
) -> None:
    planned = plan(plate)
    for file in plate.iterdir():
        file.write_bytes(b"")
    message = r"6 images were planned and not one could be built.*A0_DAPI\.tif: the file is empty"
    with pytest.raises(StoreError, match=message):
        build_store([planned], str(tmp_path / "store"))
    with pytest.raises(StoreError, match="not finished"):
        open_store(tmp_path / "store")
    assert len(json.loads((tmp_path / "store" / "report.json").read_bytes())["findings"]) == 6


def test_channels_of_two_depths_are_stored_in_the_wider_and_the_step_is_recorded(tmp_path: Path) -> None:
    write(tmp_path / "plate" / "A1_DAPI.tif", pixels(1, "uint8"))
    write(tmp_path / "plate" / "A1_GFP.tif", pixels(2, "uint16"))
    report = build_store([plan(tmp_path / "plate")], str(tmp_path / "store"))
    (record,) = records(report)
    assert record["geometry"]["dtype"] == "uint16"
    assert "plane 1: uint8 stored as uint16, values unchanged" in record["provenance"]["steps"]
    np.testing.assert_array_equal(open_store(report.store).read_image(0), [pixels(1, "uint8"), pixels(2, "uint16")])


@pytest.mark.parametrize(
    ("dtype", "stored", "offset"),
    [
        ("int8", "uint8", 0),
        ("int16", "float32", -150),
        ("int16", "uint16", 0),
        ("uint32", "uint16", 0),
        ("int32", "float32", 100_000),
        ("float64", "float32", 0),
        ("float32", "float32", 0),
    ],
)
def test_types_that_a_store_lacks_are_stored_by_a_rule_that_is_recorded(
    tmp_path: Path, dtype: str, stored: str, offset: int
) -> None:
    array = (pixels(3, "int64") % 128 + offset).astype(dtype)
    write(tmp_path / "plate" / "A1_DAPI.tif", array)
    report = build_store([plan(tmp_path / "plate")], str(tmp_path / "store"))
    (record,) = records(report)
    assert record["geometry"]["dtype"] == stored
    found = open_store(report.store).read_plane(0, 0)
    np.testing.assert_array_equal(found.astype(np.float64), array.astype(np.float64))
    steps = [step for step in record["provenance"]["steps"] if "stored as" in step]
    assert steps == ([] if dtype == stored else [f"{dtype} stored as {stored}, values unchanged"])
    assert record["geometry"]["significant_bits"] is None or stored != "float32"


@pytest.mark.parametrize("dtype", ["complex64", "uint32"])
def test_types_without_a_rule_are_reported_and_skipped(plate: Path, tmp_path: Path, dtype: str) -> None:
    write(plate / "B1_DAPI.tif", (pixels(3, "int64") + 2**25).astype(dtype))
    report = build_store([plan(plate)], str(tmp_path / "store"))
    assert report.manifest.images == 6
    (finding,) = (f for f in report.findings if f.kind == "unreadable")
    assert "B1_" in finding.path
    assert dtype in finding.reason or "complex" in finding.reason


def test_guidance_becomes_cells_and_a_broken_one_is_reported_while_its_image_is_kept(
    plate: Path, tmp_path: Path
) -> None:
    guidance = tmp_path / "guidance"
    guidance.mkdir()
    for well in range(6):
        data = np.array([[1.5, 2.5], [60, 80]], np.float32) + well
        save_file({"data": data, "sizes": np.array([20, 30], np.int64)}, guidance / f"A{well}_0.safetensors")
    (guidance / "A2_0.safetensors").write_bytes(b"broken")
    recipe = BuildRecipe.model_validate(
        {"source": "src", "pattern": PATTERN, "guidance": "guidance/{well}_{index}.safetensors"}
    )
    report = build_store([plan_folder(str(plate), recipe, recipe_folder=str(tmp_path))], str(tmp_path / "store"))
    store = open_store(report.store)
    assert report.failed_images == 0
    (finding,) = (f for f in report.findings if f.kind == "unreadable")
    assert finding.path == "src/A2_*.tif"
    assert "its cell positions in A2_0.safetensors are left out" in finding.reason
    for well in range(6):
        cells = store.read_cells(well)
        if well == 2:
            assert cells is None
            continue
        assert cells is not None and cells[0] is not None and cells[1] is None
        np.testing.assert_array_equal(cells[0].centroids, np.array([[1.5, 2.5], [60, 80]], np.float32) + well)
        np.testing.assert_array_equal(cells[0].sizes, [20, 30])


def test_pictures_of_one_bit_and_of_colours_are_built_value_for_value(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    colour = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    Image.fromarray(colour).save(folder / "colour.png")
    bits = pixels(1) % 2 == 1
    Image.fromarray(bits).save(folder / "mask.png")
    report = build_store([plan(folder, pattern=None)], str(tmp_path / "store"))
    store = open_store(report.store)
    np.testing.assert_array_equal(store.read_image(0), np.moveaxis(colour, -1, 0))
    np.testing.assert_array_equal(store.read_plane(1, 0), bits.astype(np.uint8))


def test_plans_that_do_not_go_together_are_refused(plate: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="two recipes have the source 'src'"):
        build_store([plan(plate), plan(plate)], str(tmp_path / "store"))
    other = plan_folder(str(plate), BuildRecipe.model_validate({"source": "b", "codec": "deflate"}))
    with pytest.raises(RecipeError, match="one codec"):
        build_store([plan(plate), other], str(tmp_path / "store"))
    with pytest.raises(RecipeError, match="nothing to build"):
        build_store([], str(tmp_path / "store"))
    assert not (tmp_path / "store").exists()


def test_progress_counts_every_image_once(plate: Path, tmp_path: Path) -> None:
    for workers, shard_bytes in ((1, 2**16), (4, 2**20), (2, 2**16)):
        seen: list[int] = []
        build_store(
            [plan(plate, shard_bytes=shard_bytes)], str(tmp_path / f"{workers}"), workers=workers, advance=seen.append
        )
        assert sum(seen) == 6


def test_a_store_is_built_into_a_url_from_a_url(plate: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    for file in plate.iterdir():
        memory.pipe_file(f"/sources/{file.name}", file.read_bytes())
    try:
        recipe = BuildRecipe.model_validate({"source": "src", "pattern": PATTERN, "shard_bytes": 2**16})
        planned = plan_folder("memory://sources", recipe)
        report = build_store([planned], "memory://built")
        assert verify("memory://built").is_sound
        store = open_store("memory://built")
        for row, record in enumerate(store.records().to_pylist()):
            expected = [tifffile.imread(plate / path) for path in record["storage"]["path"]]
            np.testing.assert_array_equal(store.read_image(row), expected)
            assert all(uri.startswith("memory://") for uri in record["provenance"]["uri"])
        assert report.manifest.images == 6
        local = plan(plate, shard_bytes=2**16)
        with pytest.raises(StoreError, match="worker processes must see the same filesystem"):
            build_store([local], "memory://spread", workers=2)
        assert not memory.exists("/spread/manifest.json")
    finally:
        for folder in ("/sources", "/built", "/spread"):
            if memory.exists(folder):
                memory.rm(folder, recursive=True)


def children(parent: int) -> list[int]:
    """Worker processes of a process."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stated = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(stated[1]) == parent and b"spawn_main" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except (OSError, IndexError):
            continue  # it has ended
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="children are found through /proc")
def test_a_worker_that_is_killed_is_one_clear_error(plate: Path, tmp_path: Path) -> None:
    for number in range(300):
        write(plate / f"{'ABCDEFGHIJKLMNOP'[number // 24]}{number % 24 + 1:02d}_GFP.tif", pixels(0, shape=(150, 150)))
    code = (
        "import sys\n"
        "from chammi75.build.execute import build_store\nfrom chammi75.build.plan import plan_folder\n"
        "from chammi75.schemas.recipe import BuildRecipe\nfrom chammi75.errors import ChammiError\n"
        "if __name__ == '__main__':\n"
        "    recipe = BuildRecipe(source='src', pattern='{well}_{channel}', shard_bytes=2**18)\n"
        "    try:\n        build_store([plan_folder(sys.argv[1], recipe)], sys.argv[2], workers=2)\n"
        "    except ChammiError as error:\n        print('refused:', error)\n"
    )
    script = tmp_path / "script.py"
    script.write_text(code)
    command = [sys.executable, str(script), str(plate), str(tmp_path / "store")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as build:
        shards = tmp_path / "store" / "shards"
        while build.poll() is None and not (shards.is_dir() and any(shards.iterdir())):
            time.sleep(0.01)
        workers = children(build.pid)
        assert workers
        os.kill(workers[0], signal.SIGKILL)
        out, err = build.communicate(timeout=60)
    assert "refused: a worker process of the build ended before its shard was done" in out, (out, err)
    with pytest.raises(StoreError, match="not finished"):
        open_store(tmp_path / "store")
