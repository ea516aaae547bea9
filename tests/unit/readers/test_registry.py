"""The reader is chosen by content; what is no image says what it is instead."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import fsspec
import imagecodecs
import numpy as np
import pytest
import tifffile

from chammi75.errors import ReadError
from chammi75.readers import identify, open_image, probe


def test_magic_bytes_decide_and_the_suffix_does_not(tmp_path: Path) -> None:
    plane = np.arange(64, dtype=np.uint8).reshape(8, 8)
    (tmp_path / "png.tif").write_bytes(imagecodecs.png_encode(plane))
    tifffile.imwrite(tmp_path / "really.tif", plane)
    (tmp_path / "tiff.png").write_bytes((tmp_path / "really.tif").read_bytes())
    for name, form in (("png.tif", "png"), ("tiff.png", "tiff")):
        with open_image(tmp_path / name) as reader:
            assert reader.file.format == form
            assert reader.file.reader_version
            np.testing.assert_array_equal(reader.read_plane(), plane)


@pytest.mark.parametrize("head", [b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"])
def test_all_four_kinds_of_tiff_are_known(head: bytes) -> None:
    form = identify(head + bytes(12))
    assert form is not None and form.name == "TIFF"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "the file is empty"),
        (b"<!DOCTYPE html><html>", "HTML"),
        (b"GIF89a", "a GIF.*PNG, JPEG, TIFF"),
        (b"ZISRAWFILE", "CZI"),
        (b"something", "no reader knows"),
    ],
)
def test_what_is_no_image_says_what_it_is_and_what_is_read(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(content)
    with pytest.raises(ReadError, match=says) as caught:
        probe(path)
    assert str(caught.value).startswith(str(path))


def test_a_file_that_is_not_there_is_a_read_error(tmp_path: Path) -> None:
    for url in (str(tmp_path / "none.tif"), "memory://readers/none.tif"):
        with pytest.raises(ReadError, match="no such file"):
            probe(url)


def test_any_filesystem_gives_the_same_planes() -> None:
    plane = np.random.default_rng(0).integers(0, 65536, (30, 40), dtype=np.uint16)
    fsspec.filesystem("memory").pipe("/readers/a.png", imagecodecs.png_encode(plane))
    with open_image("memory://readers/a.png") as reader:
        np.testing.assert_array_equal(reader.read_plane(), plane)


def test_what_a_program_raises_while_a_file_is_open_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(np.zeros((2, 2), np.uint8)))
    with pytest.raises(KeyError), open_image(tmp_path / "a.png"):
        raise KeyError("mine")


def test_what_a_file_says_travels_between_processes(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((2, 8, 8), np.uint16), imagej=True, metadata={"axes": "TYX"})
    facts = probe(tmp_path / "a.tif")
    assert pickle.loads(pickle.dumps(facts)) == facts  # noqa: S301


def test_importing_the_room_imports_no_decoder() -> None:
    code = (
        "import sys, chammi75.readers as readers; readers.identify; readers.FilePattern;"
        "print({'tifffile', 'numba', 'imagecodecs', 'fsspec'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
