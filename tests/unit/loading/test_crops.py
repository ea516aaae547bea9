"""Windows of many images in one call: of every layout, with every choice of channels, into every kind of array."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loading_stores import Known, write_store

from chammi75 import MultiChannelImage, load_dataset
from chammi75.errors import ChammiError, ReadError, StoreError
from chammi75.loading.crops import read_crops


def images_of(known: Known) -> tuple[list[MultiChannelImage], list[np.ndarray]]:
    images = [row["image"] for row in load_dataset(known.url)]
    return images, [known.pixels[str(image.image_id)] for image in images]


def windows_of(pixels: list[np.ndarray], height: int, width: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return np.array(
        [
            (
                random.integers(0, array.shape[1] - height + 1),
                random.integers(0, array.shape[2] - width + 1),
                height,
                width,
            )
            for array in pixels
        ]
    )


def cut(array: np.ndarray, window: Any) -> np.ndarray:
    y, x, height, width = window
    return array[:, y : y + height, x : x + width]


@pytest.mark.parametrize("threads", [1, 3])
def test_crops_of_every_layout_are_the_same_windows_of_the_arrays(known: Known, threads: int) -> None:
    images, pixels = images_of(known)
    windows = windows_of(pixels, 20, 30)
    found = read_crops(images, windows, channels=[0], threads=threads)
    assert found.shape == (len(images), 1, 20, 30)
    assert found.dtype == max((array.dtype for array in pixels), key=lambda dtype: dtype.itemsize)
    for crop, array, window in zip(found, pixels, windows, strict=True):
        assert np.array_equal(crop, cut(array, window)[:1])


def test_images_of_several_layouts_are_read_in_one_call(store: Known, memory_store: Known, published: Known) -> None:
    images, pixels = [], []
    for known in (store, memory_store, published):
        found = images_of(known)
        images += found[0]
        pixels += found[1]
    order = np.random.default_rng(0).permutation(len(images))
    images, pixels = [images[k] for k in order], [pixels[k] for k in order]
    images.append(MultiChannelImage.from_array(pixels[0], [None] * len(pixels[0])))
    pixels.append(pixels[0])
    windows = windows_of(pixels, 16, 16)
    for crop, array, window in zip(read_crops(images, windows, channels=[-1]), pixels, windows, strict=True):
        assert np.array_equal(crop, cut(array, window)[-1:])


def test_all_channels_of_images_with_fewer_go_into_the_array_that_is_given(store: Known) -> None:
    images, pixels = images_of(store)
    windows = windows_of(pixels, 20, 30)
    windows[1] = 2, 3, 11, 12
    out = np.full((len(images), 5, 24, 32), 9, np.float32)
    assert read_crops(images, windows, out=out) is out
    expected = np.full_like(out, 9)
    for target, array, window in zip(expected, pixels, windows, strict=True):
        target[: len(array), : window[2], : window[3]] = cut(array, window)
    assert np.array_equal(out, expected)


def test_an_array_with_gaps_is_filled_where_it_is(store: Known) -> None:
    images, pixels = images_of(store)
    windows = windows_of(pixels, 20, 30)
    memory = np.full((2 * len(images), 3, 25, 90), 9, np.float32)
    out = memory[::2, ::2, :20, 5:80:2]
    read_crops(images, windows, channels=[0], out=out)
    for target, array, window in zip(out, pixels, windows, strict=True):
        assert np.array_equal(target[:1, :, :30], cut(array, window)[:1])
        assert (target[1:] == 9).all() and (target[:, :, 30:] == 9).all()
    assert (memory[1::2] == 9).all() and (memory[:, 1] == 9).all()


def test_each_image_may_have_channels_of_its_own(store: Known) -> None:
    images, pixels = images_of(store)
    picks = np.array([[len(array) - 1, 0] for array in pixels])
    windows = windows_of(pixels, 20, 30)
    found = read_crops(images, windows, channels=picks)
    for crop, array, window, pick in zip(found, pixels, windows, picks, strict=True):
        assert np.array_equal(crop, cut(array, window)[pick])


def test_channels_are_named_by_their_types(store: Known) -> None:
    images, pixels = images_of(store)
    image, array = images[0], pixels[0]
    found = read_crops([image, image], [[0, 0, 40, 40], [1, 1, 40, 40]], channels=["er", "nucleus"])
    assert np.array_equal(found[1], array[[1, 0], 1:41, 1:41])
    with pytest.raises(KeyError, match="pick one"):
        read_crops([image], [[0, 0, 4, 4]], channels=["protein"])
    with pytest.raises(KeyError, match="'nucleus'"):
        read_crops([image], [[0, 0, 4, 4]], channels=["golgi"])
    with pytest.raises(IndexError, match="has 4"):
        read_crops([image], [[0, 0, 4, 4]], channels=[4])
    with pytest.raises(ChammiError, match="sequence"):
        read_crops([image], [[0, 0, 4, 4]], channels="nucleus")
    with pytest.raises(ChammiError, match=r"\(1, C\)"):
        read_crops([image], [[0, 0, 4, 4]], channels=np.array([[0], [1]]))


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_crops_are_resized_alike_in_every_layout(known: Known, dtype: str) -> None:
    from chammi75.store.resize import resize_plane

    images, pixels = images_of(known)
    windows = windows_of(pixels, 30, 24)
    windows[::2] = 1, 2, 20, 30
    out = None if dtype == "float32" else np.empty((len(images), 1, 12, 15), dtype)
    found = read_crops(images, windows, channels=[0], out=out, size=(12, 15), threads=2)
    assert found.dtype == dtype and found.shape == (len(images), 1, 12, 15)
    for (crop,), array, window in zip(found, pixels, windows, strict=True):
        expected = np.empty((12, 15), dtype)
        resize_plane(np.ascontiguousarray(cut(array, window)[0]), expected)
        assert np.array_equal(crop, expected)


def test_windows_sizes_and_channels_are_taken_in_every_usual_form(store: Known) -> None:
    images, pixels = images_of(store)
    image, array = images[0], pixels[0]
    expected = array[[1, 0], 3:11, 5:12]
    for window in ([3, 5, 8, 7], (3, 5, 8, 7), np.array([3, 5, 8, 7], np.uint8), [np.int16(3), 5, np.uint8(8), 7]):
        for channels in (
            [1, 0],
            (1, 0),
            np.array([1, 0]),
            [[1, 0]],
            ["er", np.str_("nucleus")],
            [-3, -4],
            [1, "nucleus"],
        ):
            assert np.array_equal(read_crops([image], [window], channels=channels)[0], expected)
    for size in (np.int32(6), (6, 6), [6, 6], np.array([6, 6])):
        found = read_crops([image], [[3, 5, 8, 7]], size=size, threads=np.int64(2))  # type: ignore[arg-type]
        assert np.array_equal(found, read_crops([image], [[3, 5, 8, 7]], size=6))
    assert read_crops([image], [[3, 5, 8, 7]], channels=[]).shape == (1, 0, 8, 7)


def test_no_images_are_an_empty_array() -> None:
    assert read_crops([], []).shape[0] == 0
    assert read_crops([], np.zeros((0, 4), int)).shape[0] == 0
    assert read_crops([], np.zeros((0, 4), int), size=8).shape[::2] == (0, 8)


def test_what_does_not_fit_together_is_said(store: Known) -> None:
    images, _ = images_of(store)
    large, small = images[0], images[1]
    for arguments, words in (
        (([large], [[0, 0, 5]]), r"\(1, 4\)"),
        (([large], [[0.0, 0, 5, 5]]), "whole numbers"),
        (([large], [["0", "0", "5", "5"]]), "whole numbers"),
        (([large], [[True, True, True, True]]), "whole numbers"),
        (([large, large], [[0, 0, 5, 5], [0, 0, 5]]), "whole numbers"),
        (([large], np.array([[2**63, 0, 5, 5]], np.uint64)), "not inside"),
        (([large], [[-1, 0, 5, 5]]), "not inside"),
        (([large, small], [[0, 0, 5, 5]]), r"\(2, 4\)"),
        (([large], [[296, 0, 5, 5]]), "300 x 280"),
        (([large], [[0, 0, 0, 5]]), "not inside"),
        (([large, large], [[0, 0, 5, 5], [0, 0, 6, 5]]), "differ in size"),
        (([large, images[-1]], [[0, 0, 5, 5]] * 2), "channels"),
    ):
        with pytest.raises(ChammiError, match=words):
            read_crops(*arguments)  # type: ignore[arg-type]
    for out, words in (
        (np.zeros((1, 3, 5, 5), np.uint16), "do not fit"),
        (np.zeros((1, 4, 4, 5), np.uint16), "do not fit"),
        (np.zeros((1, 4, 5, 5), np.uint8), "cannot hold"),
        (np.zeros((1, 4, 5, 5), np.int64), "int64"),
        (np.zeros((1, 4, 5, 5), ">u2"), ">u2"),
        (np.broadcast_to(np.zeros(1, np.uint16), (1, 4, 5, 5)), "read-only"),
        ([[0.0]], "numpy array, not list"),
        (np.zeros((4, 5, 5), np.uint16), "shape"),
    ):
        with pytest.raises(ChammiError, match=words):
            read_crops([large], [[0, 0, 5, 5]], out=out)
    with pytest.raises(ChammiError, match="size"):
        read_crops([large], [[0, 0, 5, 5]], out=np.zeros((1, 4, 5, 5), np.uint16), size=6)
    for size in (0, (5, -1), 5.0, (5,), (5, 5, 1), "5", True):
        with pytest.raises(ChammiError, match="at least 1 pixel"):
            read_crops([large], [[0, 0, 5, 5]], size=size)  # type: ignore[arg-type]
    for threads in (0, -1, 1.5, None):
        with pytest.raises(ChammiError, match="threads are a whole number"):
            read_crops([large], [[0, 0, 5, 5]], threads=threads)  # type: ignore[arg-type]
    for channels in (0, [[0], [0, 1]], [[["er"]]], [["er"]], np.array(0)):
        with pytest.raises(ChammiError, match="channels"):
            read_crops([large], [[0, 0, 5, 5]], channels=channels)  # type: ignore[arg-type]


def test_a_damaged_plane_is_named_and_the_others_are_done(tmp_path: Path) -> None:
    known = write_store(tmp_path / "store", images=3)
    images, pixels = images_of(known)
    shard = Path(str(images[1]["uri"]))
    content = bytearray(shard.read_bytes())
    content[images[1]["offsets"][2] + images[1]["lengths"][2] - 3] ^= 1
    shard.write_bytes(content)
    windows = windows_of(pixels, 30, 30)
    for out in (np.zeros((3, 4, 30, 30), np.uint16), np.zeros((3, 4, 31, 60), np.uint16)[:, :, :30, ::2]):
        with pytest.raises(StoreError, match=r"plate1/P01.*channel 2 \(protein\).*damaged") as caught:
            read_crops(images, windows, out=out)
        assert str(shard) in str(caught.value)
        for n in (0, 2):
            assert np.array_equal(out[n], cut(pixels[n], windows[n]))
        assert np.array_equal(out[1, :2], cut(pixels[1], windows[1])[:2])


def test_a_published_file_that_is_gone_or_is_another_is_named(tmp_path: Path, published: Known) -> None:
    import shutil

    shutil.copytree(published.url, tmp_path / "copy")
    images = [row["image"] for row in load_dataset(str(tmp_path / "copy"))]
    paths = [Path(image["uri"]) / image["paths"][0] for image in images[:2]]
    paths[0].unlink()
    with pytest.raises(ReadError, match=paths[0].name):
        read_crops(images[:2], [[0, 0, 8, 8]] * 2, channels=[0])
    shutil.copyfile(paths[1], paths[0])
    with pytest.raises(ReadError, match="the table states"):
        read_crops(images[:2], [[0, 0, 8, 8]] * 2, channels=[0])
