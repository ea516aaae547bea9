from __future__ import annotations

import json
from pathlib import Path

import pytest
from loading_stores import Known

from chammi75.errors import ChammiError
from chammi75.export import FORMATS, export, export_format, selections_for
from chammi75.export.target import UNFINISHED, new_export
from chammi75.files import filesystem_of

INTEGERS = "geometry.dtype <> 'float32'"  # what the published layout can hold


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", FORMATS)
def test_the_same_images_make_the_same_files_on_any_number_of_workers(name: str, store: Known, tmp_path: Path) -> None:
    selections = selections_for(store.url, where=INTEGERS)
    one = export(selections, name, tmp_path / "one", workers=1)
    four = export(selections, name, tmp_path / "four", workers=4)
    assert files_of(tmp_path / "one") == files_of(tmp_path / "four")
    assert (one.images, one.planes, one.files, one.bytes) == (four.images, four.planes, four.files, four.bytes)
    assert one.images == 20
    assert sum(origin.images for origin in one.origins) == 20


@pytest.mark.parametrize("name", FORMATS)
def test_an_image_that_cannot_be_read_is_reported_and_the_others_are_there(
    name: str, damaged: tuple[str, str], tmp_path: Path
) -> None:
    url, image_id = damaged
    seen: list[int] = []
    report = export(selections_for(url, where=INTEGERS), name, tmp_path / "out", workers=2, advance=seen.append)
    assert [failed.image_id for failed in report.failed] == [image_id]
    assert "damaged" in report.failed[0].reason
    assert report.images == 19
    assert sum(seen) == 20
    stated = json.loads((tmp_path / "out" / "export.json").read_bytes())
    assert [failed["image_id"] for failed in stated["failed"]] == [image_id]
    assert stated["images"] == 19


@pytest.mark.parametrize("name", FORMATS)
def test_a_bucket_gets_the_same_files(name: str, store: Known, tmp_path: Path) -> None:
    selections = selections_for(store.url, where="experiment.study = 'plate2'")
    url = f"memory://export-{name}"
    report = export(selections, name, url, workers=2)
    export(selections, name, tmp_path / "local")
    filesystem, path = filesystem_of(url)
    there = {entry[len(path) + 1 :]: filesystem.cat_file(entry) for entry in filesystem.find(path)}
    assert there == files_of(tmp_path / "local")
    assert report.out == url
    filesystem.rm(path, recursive=True)


def test_a_folder_that_is_not_empty_is_refused_and_left_alone(store: Known, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ChammiError, match="not empty"):
        export(store.url, "parquet", tmp_path)
    assert files_of(tmp_path) == {"notes.txt": b"mine"}
    with pytest.raises(ChammiError, match="is a file"):
        export(store.url, "parquet", tmp_path / "notes.txt")


def test_an_export_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for out in (tmp_path / "new", tmp_path / "empty"):
        with pytest.raises(RuntimeError), new_export(out) as target:
            target.write("data/a.png", b"1")
            raise RuntimeError
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty"]
    assert not list((tmp_path / "empty").iterdir())


def test_a_killed_export_is_not_taken_for_a_whole_one(store: Known, tmp_path: Path) -> None:
    target = new_export(tmp_path / "out")
    unfinished = target.__enter__()
    unfinished.write("data/train-00000.parquet", b"1")
    assert list((tmp_path / "out").iterdir()) == [tmp_path / "out" / UNFINISHED]
    with pytest.raises(ChammiError, match="interrupted"):
        export(store.url, "parquet", tmp_path / "out")


def test_what_describes_an_export_in_a_bucket_is_written_after_it(tmp_path: Path) -> None:
    filesystem, path = filesystem_of("memory://half")
    with pytest.raises(RuntimeError), new_export("memory://half") as target:
        target.write("a.tar", b"1")
        target.write_last("README.md", b"2")
        raise RuntimeError
    assert sorted(name.rsplit("/", 1)[-1] for name in filesystem.find(path)) == [UNFINISHED, "a.tar"]
    filesystem.rm(path, recursive=True)


def test_no_file_is_written_twice(tmp_path: Path) -> None:
    with pytest.raises(ChammiError, match="two images would have the file"), new_export(tmp_path / "out") as target:
        target.write("a.png", b"1")
        target.write("a.png", b"2")


def test_stores_that_overlap_are_refused(store: Known, tmp_path: Path) -> None:
    with pytest.raises(ChammiError, match="two images have the id"):
        export(selections_for([store.url, store.url]), "webdataset", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_several_layouts_are_exported_together(store: Known, published: Known, tmp_path: Path) -> None:
    report = export(selections_for([store.url, published.url]), "webdataset", tmp_path / "out")
    assert report.images == 42
    assert {origin.license for origin in report.origins} == {"CC-BY-4.0", "CC0-1.0", None}


def test_a_format_or_option_that_is_unknown_is_told_with_the_known_ones(store: Known, tmp_path: Path) -> None:
    assert export_format("ome-zarr").summary
    with pytest.raises(ChammiError, match="did you mean ome-zarr"):
        export(store.url, "omezarr", tmp_path / "out")
    with pytest.raises(ChammiError, match="published, parquet, webdataset, croissant, ome-zarr"):
        export_format("hdf5")
    with pytest.raises(ChammiError, match="parquet takes no option 'colour'; it takes title, license, shard_bytes"):
        export(store.url, "parquet", tmp_path / "out", colour="red")


def test_a_store_without_a_readable_image_is_no_export(damaged: tuple[str, str], tmp_path: Path) -> None:
    url, image_id = damaged
    with pytest.raises(ChammiError, match="not one image could be exported"):
        export(selections_for(url, where=f"image_id = '{image_id}'"), "parquet", tmp_path / "out")
    assert not (tmp_path / "out").exists()
