"""``MultiChannelImage``: every way to ask for pixels, and what it is besides an array."""

from __future__ import annotations

import copy
import pickle
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loading_stores import Known

from chammi75 import MultiChannelImage, collate, load_dataset
from chammi75.errors import ChammiError


@pytest.fixture(scope="module")
def large(store: Known) -> tuple[MultiChannelImage, np.ndarray]:
    """Four channels of 300 x 280 pixels, in nine tiles each: nucleus, er, protein, protein."""
    return load_dataset(store.url)[0]["image"], store.pixels[store.ids[0]]


@pytest.mark.parametrize(
    ("key", "same"),
    [
        ("nucleus", 0),
        (0, 0),
        (np.int64(2), 2),
        (-1, 3),
        (slice(None), slice(None)),
        (slice(1, 3), slice(1, 3)),
        (slice(None, None, -1), slice(None, None, -1)),
        (slice(2, 2), slice(2, 2)),
        (("er", slice(100, 256), slice(40, 280)), (1, slice(100, 256), slice(40, 280))),
        (("er", slice(-20, None), slice(None, -200)), (1, slice(280, None), slice(None, 80))),
        ((3, slice(0, 1), slice(279, 280)), (3, slice(0, 1), slice(279, 280))),
        ((slice(None), slice(127, 129), slice(127, 129)), (slice(None), slice(127, 129), slice(127, 129))),
        ((slice(None), slice(0, 9999), slice(10, 20)), (slice(None), slice(0, 300), slice(10, 20))),
        (("protein", 1), 3),
        (("protein", 0), 2),
        (("protein", 1, slice(5, 9), slice(6, 7)), (3, slice(5, 9), slice(6, 7))),
        (("nucleus", 0), 0),
        (("nucleus",), 0),
    ],
    ids=str,
)
def test_an_index_gives_the_same_pixels_as_of_the_array(large: Any, key: Any, same: Any) -> None:
    image, pixels = large
    found = image[key]
    assert found.dtype == pixels.dtype
    assert found.shape == pixels[same].shape
    assert np.array_equal(found, pixels[same])


@pytest.mark.parametrize(
    ("key", "error", "words"),
    [
        ("protein", KeyError, "pick one"),
        (("protein", slice(0, 5), slice(0, 5)), KeyError, "pick one"),
        (("protein", 2), IndexError, "0 to 1"),
        ("golgi", KeyError, "'nucleus'"),
        (4, IndexError, "has 4"),
        (-5, IndexError, "has 4"),
        (True, KeyError, "True"),
        (None, KeyError, "None"),
        (1.5, KeyError, "1.5"),
        (("er", slice(0, 5)), IndexError, "rows, columns"),
        (("er", slice(0, 5), slice(0, 5), slice(0, 5)), IndexError, "rows, columns"),
        (("er", 0, 3, 4), IndexError, "slice"),
        ((), KeyError, "picked"),
        ((slice(None), slice(0, 10, 2), slice(0, 10)), ChammiError, "step"),
        ((slice(None), slice(10, 0, -1), slice(0, 10)), ChammiError, "step"),
        (("er", slice(10, 10), slice(0, 10)), ChammiError, "no rows"),
        (("er", slice(0, 10), slice(500, 600)), ChammiError, "no columns"),
        ((..., slice(0, 10), slice(0, 10)), KeyError, "Ellipsis"),
    ],
    ids=str,
)
def test_an_index_that_fits_nothing_says_what_does(large: Any, key: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        large[0][key]


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_crops_are_the_same_window_of_the_array(large: Any, data: st.DataObject) -> None:
    image, pixels = large
    y, x = data.draw(st.integers(0, 299)), data.draw(st.integers(0, 279))
    height, width = data.draw(st.integers(1, 300 - y)), data.draw(st.integers(1, 280 - x))
    assert np.array_equal(image.crop(y, x, height, width), pixels[:, y : y + height, x : x + width])


@pytest.mark.parametrize("window", [(-1, 0, 5, 5), (0, 0, 301, 5), (295, 0, 6, 5), (0, 276, 5, 5), (0, 0, 0, 5)])
def test_a_crop_that_leaves_the_image_is_refused(large: Any, window: tuple[int, int, int, int]) -> None:
    with pytest.raises(ChammiError, match="300 x 280"):
        large[0].crop(*window)


@pytest.mark.parametrize("window", [(0.5, 0, 4, 4), (0, 0, 4.0, 4), ("0", 0, 4, 4), (None, 0, 4, 4)])
def test_a_crop_is_four_whole_numbers(large: Any, window: Any) -> None:
    with pytest.raises(ChammiError, match="four whole numbers"):
        large[0].crop(*window)
    pixels = large[0].crop(np.int64(1), np.uint8(2), np.int32(3), 4)
    assert np.array_equal(pixels, large[0].crop(1, 2, 3, 4))


def test_it_is_an_array(large: Any) -> None:
    image, pixels = large
    assert (image.shape, image.ndim, image.dtype) == (pixels.shape, 3, pixels.dtype)
    assert np.array_equal(np.asarray(image), pixels)
    assert np.asarray(image, np.float32).dtype == np.float32
    assert np.array(image, copy=True).flags.writeable
    assert float(np.mean(image)) == float(pixels.mean())
    with pytest.raises(ValueError, match="copy"):
        np.asarray(image, copy=False)


def test_it_becomes_a_tensor_of_the_same_type(store: Known) -> None:
    for number, dtype in ((1, torch.uint16), (11, torch.uint8), (21, torch.float32)):
        tensor = load_dataset(store.url)[number]["image"].to_torch()
        assert tensor.dtype == dtype
        assert np.array_equal(tensor.numpy(), store.pixels[store.ids[number]])


def test_it_becomes_a_labelled_array(store: Known) -> None:
    xarray = pytest.importorskip("xarray")
    labelled = load_dataset(store.url)[11]["image"].to_xarray()
    assert isinstance(labelled, xarray.DataArray)
    assert labelled.dims == ("channel", "y", "x")
    assert labelled.coords["channel"].values.tolist() == ["nucleus", "er"]
    assert labelled.coords["x"].values[:3].tolist() == [0.0, 0.5, 1.0]
    assert labelled.coords["x"].attrs["units"] == "µm"
    assert np.array_equal(labelled.sel(channel="er"), store.pixels[store.ids[11]][1])
    assert "x" not in load_dataset(store.url)[10]["image"].to_xarray().coords  # its pixel size is unknown


def test_a_notebook_shows_a_picture_and_escapes_names(store: Known) -> None:
    for number in (0, 12, 22):
        html = load_dataset(store.url)[number]["image"]._repr_html_()
        assert "data:image/" in html
        assert "<nucleus>" not in html
        assert "<bright-field>" not in html
    assert "&lt;bright-field&gt; &amp; dye" in html
    hostile = MultiChannelImage.from_array(np.ones((1, 20, 20), np.uint8), ["<script>alert(1)</script>"])
    assert "<script>" not in hostile._repr_html_()


def test_it_is_a_mapping_over_its_storage(large: Any) -> None:
    image, _ = large
    assert isinstance(image, Mapping)
    assert image["uri"].endswith("train-00000.arrow")
    assert MultiChannelImage(dict(image)) == image
    assert {**image}["height"] == 300
    assert len(image) == len(list(image)) == len(image.keys())
    assert "nucleus" in image
    assert "uri" in image
    assert "golgi" not in image
    assert image.get("golgi") is None
    assert image != MultiChannelImage.from_array(np.zeros((1, 20, 20), np.uint8))
    assert repr(image) == "MultiChannelImage(4 x 300 x 280 uint16: nucleus, er, protein, protein)"
    with pytest.raises(TypeError):
        hash(image)


def test_it_pickles_and_copies_without_pixels(large: Any) -> None:
    image, pixels = large
    content = pickle.dumps(image)
    assert len(content) < 2000
    for again in (pickle.loads(content), copy.copy(image), copy.deepcopy(image)):  # noqa: S301 - our own
        assert again == image
        assert np.array_equal(again, pixels)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_pixels_make_an_image(dtype: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (3, 130, 17)).astype(dtype)
    image = MultiChannelImage.from_array(pixels, ["r", None, "b"], pixel_size_um=0.3, image_id="a/b")
    assert np.array_equal(image, pixels)
    assert (image.channels, image.panels, image.pixel_size_um) == (["r", None, "b"], [None] * 3, 0.3)
    assert np.array_equal(image["b", 128:130, 3:5], pixels[2, 128:130, 3:5])


@pytest.mark.parametrize(
    ("pixels", "names"),
    [
        (np.zeros((4, 5), np.uint8), None),
        (np.zeros((2, 4, 5), np.uint8), ["nucleus"]),
        (np.zeros((2, 4, 5), np.complex64), None),
        (np.zeros((2, 4, 5), np.int64), None),
        (np.zeros((0, 4, 5), np.uint8), None),
        (np.zeros((1, 0, 5), np.uint8), None),
    ],
    ids=["two axes", "names", "complex", "int64", "no channel", "no row"],
)
def test_what_cannot_be_an_image_is_refused(pixels: np.ndarray, names: Any) -> None:
    with pytest.raises(ChammiError):
        MultiChannelImage.from_array(pixels, names)


def test_collate_stacks_what_has_one_shape(store: Known) -> None:
    samples = [load_dataset(store.url)[k] for k in (3, 6, 9)]
    batch = collate(samples)
    assert batch["image"].shape == (3, 4, 40, 48)
    assert batch["image"].dtype == torch.uint16
    assert batch["image_id"] == [store.ids[k] for k in (3, 6, 9)]
    assert batch["experiment"]["study"] == ["plate1"] * 3
    mixed = collate([load_dataset(store.url)[k] for k in (0, 11)])["image"]
    assert [tuple(tensor.shape) for tensor in mixed] == [(4, 300, 280), (2, 42, 48)]
    assert collate([]) == {}


@pytest.mark.parametrize(("method", "package"), [("to_torch", "torch"), ("to_xarray", "xarray")])
def test_a_missing_package_is_named_with_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, method: str, package: str
) -> None:
    from chammi75.errors import MissingDependencyError

    monkeypatch.setitem(sys.modules, package, None)
    image = MultiChannelImage.from_array(np.zeros((1, 4, 4), np.uint8))
    with pytest.raises(MissingDependencyError, match="pip install"):
        getattr(image, method)()
