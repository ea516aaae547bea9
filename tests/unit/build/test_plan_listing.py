"""Which files of a folder are looked at."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from chammi75.build.listing import file_url, is_companion, list_files, translate_glob
from chammi75.build.planned import Finding
from chammi75.errors import ChammiError, RecipeError


def fill(folder: Path, *paths: str) -> None:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"x")


def names(folder: Path, **options: object) -> tuple[list[str], list[Finding]]:
    files, findings = list_files(str(folder), **options)  # type: ignore[arg-type]
    return [file.path for file in files], findings


def test_files_come_in_the_order_in_which_people_count(tmp_path: Path) -> None:
    fill(tmp_path, "t10.tif", "t2.tif", "b/a.tif", "t1.tif", "b/a10/x.png", "b/a9/x.png")
    files, findings = names(tmp_path)
    assert files == ["b/a9/x.png", "b/a10/x.png", "b/a.tif", "t1.tif", "t2.tif", "t10.tif"]
    assert findings == []


def test_hidden_files_and_what_systems_leave_behind_are_passed_over(tmp_path: Path) -> None:
    fill(
        tmp_path,
        "a.tif",
        ".DS_Store",
        "._a.tif",
        "Thumbs.db",
        "__MACOSX/a.tif",
        ".git/a.tif",
        "desktop.ini",
        "@eaDir/a.tif",
    )
    assert names(tmp_path) == (["a.tif"], [])


def test_companions_are_counted_in_one_note(tmp_path: Path) -> None:
    fill(
        tmp_path,
        "a.tif",
        "README",
        "notes.TXT",
        "b/x.csv",
        "b/y.csv",
        "LICENSE.md",
        "UPSTREAM_LICENSE",
        "cells.safetensors",
    )
    files, (note,) = names(tmp_path)
    assert files == ["a.tif"]
    assert note.kind == "note"
    assert note.path == tmp_path.name
    assert note.reason.startswith("7 files beside the images left out: ")
    assert "2 .csv" in note.reason


def test_what_might_be_an_image_is_no_companion() -> None:
    assert not any(
        is_companion(name) for name in ("a.tif", "a", "a.dat", "readme.tif", "license.png", "a.czi", "a.jpg")
    )


def test_globs_take_and_leave_out(tmp_path: Path) -> None:
    fill(tmp_path, "a.tif", "a_thumb.tif", "p/b.tif", "p/b_thumb.tif", "p/c.png")
    files, findings = names(tmp_path, include=["**/*.tif"], exclude=["**/*_thumb*"])
    assert files == ["a.tif", "p/b.tif"]
    assert [finding.reason for finding in findings] == ["3 files left out by include and exclude"]


def test_a_glob_that_fits_nothing_is_said_with_how_to_write_it(tmp_path: Path) -> None:
    fill(tmp_path, "p/b.tif")
    _, (note,) = names(tmp_path, exclude=["*_thumb*"])
    assert note.path == "*_thumb*"
    assert "**/*_thumb*" in note.reason


@pytest.mark.parametrize(
    ("glob", "fitting", "others"),
    [
        ("*.tif", ["a.tif"], ["p/a.tif", "a.TIF", "atif"]),
        ("**/*.tif", ["a.tif", "p/a.tif", "p/q/a.tif"], ["a.tiff"]),
        ("p/**", ["p/a", "p/q/a"], ["pp/a", "p"]),
        ("p/**/a", ["p/a", "p/q/r/a"], ["p/qa"]),
        ("a?.tif", ["ab.tif"], ["a/.tif", "a.tif"]),
        ("[ab]1", ["a1", "b1"], ["c1", "[ab]1"]),
        ("[!ab]1", ["c1"], ["a1", "/1"]),
        ("a[1.tif", ["a[1.tif"], ["a1.tif"]),
        ("a+(b).tif", ["a+(b).tif"], ["aab.tif"]),
    ],
)
def test_globs_mean_what_they_mean_elsewhere(glob: str, fitting: list[str], others: list[str]) -> None:
    expression = re.compile(translate_glob(glob))
    assert [path for path in fitting + others if expression.fullmatch(path)] == fitting


def test_a_zarr_is_one_finding_however_many_chunks_it_has(tmp_path: Path) -> None:
    fill(tmp_path, "a.tif", "p/x.ome.zarr/zarr.json", "p/x.ome.zarr/0/c/0/0", "p/x.ome.zarr/0/c/0/1", "y.zarr.tif")
    files, (finding,) = names(tmp_path)
    assert files == ["a.tif", "y.zarr.tif"]
    assert (finding.kind, finding.path) == ("unreadable", "p/x.ome.zarr")
    assert "3 files" in finding.reason


def test_a_glob_that_cannot_be_read_is_a_recipe_error(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"\[z-a\]"):
        list_files(str(tmp_path), exclude=["[z-a]"])


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_links_out_of_the_folder_are_refused_and_reported(tmp_path: Path) -> None:
    fill(tmp_path, "outside/secret.tif", "in/a.tif", "in/p/b.tif")
    root = tmp_path / "in"
    (root / "out.tif").symlink_to(tmp_path / "outside/secret.tif")
    (root / "outdir").symlink_to(tmp_path / "outside")
    (root / "loop").symlink_to(root)
    (root / "broken.tif").symlink_to(root / "none")
    (root / "same.tif").symlink_to(root / "a.tif")
    files, findings = names(root)
    assert files == ["a.tif", "p/b.tif", "same.tif"]
    assert {finding.path: finding.kind for finding in findings} == dict.fromkeys(
        ["broken.tif", "loop", "out.tif", "outdir"], "unreadable"
    )
    reasons = {finding.path: finding.reason for finding in findings}
    assert "leads out of the folder" in reasons["out.tif"]
    assert "leads out of the folder" in reasons["outdir"]
    assert "leads nowhere" in reasons["broken.tif"]


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names are Unicode there")
def test_a_name_that_is_no_text_is_reported(tmp_path: Path) -> None:
    import os

    with open(os.fsencode(tmp_path) + b"/a\xff.tif", "wb"):
        pass
    files, (finding,) = names(tmp_path)
    assert files == []
    assert finding.path == "a\\xff.tif"
    finding.path.encode()


def test_tables_are_left_out_by_their_url(tmp_path: Path) -> None:
    fill(tmp_path, "plates.dat", "a.tif")
    assert names(tmp_path, leave_out={file_url(str(tmp_path), "plates.dat")}) == (["a.tif"], [])


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    fill(tmp_path, "a.tif")
    with pytest.raises(ChammiError, match="there is no such folder"):
        list_files(str(tmp_path / "none"))
    with pytest.raises(ChammiError, match="a folder is needed"):
        list_files(str(tmp_path / "a.tif"))
    with pytest.raises(ChammiError, match="no such folder"):
        list_files("memory://chammi75-nothing-here")


def test_a_bucket_is_listed_like_a_folder() -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    root = "/chammi75-test-listing"
    try:
        for name in ("t10.tif", "t2.tif", "p/a.tif", ".hidden/a.tif", "notes.md"):
            memory.pipe_file(f"{root}/{name}", b"x")
        files, findings = list_files(f"memory:/{root}")
    finally:
        memory.rm(root, recursive=True)
    assert [file.path for file in files] == ["p/a.tif", "t2.tif", "t10.tif"]
    assert files[0].url == f"memory:/{root}/p/a.tif"
    assert len(findings) == 1


def test_a_zip_archive_is_listed_like_a_folder_and_names_that_climb_out_are_refused(tmp_path: Path) -> None:
    import zipfile

    from chammi75.files import read_bytes

    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("p/a.tif", b"pixels")
        archive.writestr("../evil.tif", b"x")
    files, findings = list_files(f"zip://::{(tmp_path / 'a.zip').as_posix()}")
    assert [file.path for file in files] == ["p/a.tif"]
    assert read_bytes(files[0].url) == b"pixels"
    assert [finding.kind for finding in findings] == ["unreadable"]
