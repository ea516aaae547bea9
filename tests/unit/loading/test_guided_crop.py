"""Guided crops: which window of a plane a sample is."""

from __future__ import annotations

import csv
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from chammi75.declarations import declarations_folder
from chammi75.errors import RecipeError
from chammi75.loading.guided import GuidedCrop, choose_cells
from chammi75.schemas.crop_sizes import CropSizes, crop_sizes

STUDIES = ["idr0001", "idr0130", "nidr0004", "nidr0003", "a study of one's own", None]
_UNIT = st.floats(0, 1, exclude_max=True)
_PLACE = st.one_of(st.just(np.nan), st.floats(-1e6, 1e6), st.just(np.inf))
_SAMPLE = st.tuples(
    st.tuples(*[_UNIT] * 6),
    st.sampled_from(STUDIES),
    st.integers(1, 2000),
    st.integers(1, 2000),
    st.tuples(_PLACE, _PLACE),
    st.one_of(st.just(np.nan), st.floats(0, 1e6)),
)
_CROPS = (
    GuidedCrop(),
    GuidedCrop("cell", factor=3),
    GuidedCrop(64, jitter=0.5),
    GuidedCrop((3, 900), jitter=0),
    GuidedCrop(1, jitter=0.9),
    GuidedCrop({"idr0001": [7, "whole plane"]}, other=(33, 44)),
    GuidedCrop("whole plane"),
)


def _windows(crop: GuidedCrop, samples: list[Any]) -> np.ndarray:
    randoms, studies, heights, widths, places, areas = zip(*samples, strict=True)
    return crop.windows(
        np.array(randoms, np.float64),
        studies=studies,
        heights=np.array(heights),
        widths=np.array(widths),
        centroids=np.array(places, np.float64),
        cell_sizes=np.array(areas, np.float64),
    )


def _one_plane(
    crop: GuidedCrop, count: int, *, study: str | None = None, place: Any = np.nan, **values: Any
) -> np.ndarray:
    """Windows of one plane, with random numbers of a fixed seed."""
    return crop.windows(
        np.random.default_rng(values.get("seed", 0)).random((count, 6)),
        studies=[study] * count,
        heights=np.full(count, values.get("height", 1000)),
        widths=np.full(count, values.get("width", 800)),
        centroids=np.broadcast_to(np.asarray(place, np.float64), (count, 2)),
        cell_sizes=np.full(count, values.get("area", np.nan)),
    )


@given(st.lists(_SAMPLE, min_size=1, max_size=20), st.sampled_from(_CROPS))
def test_windows_lie_inside_of_their_planes_and_have_pixels(samples: list[Any], crop: GuidedCrop) -> None:
    windows = _windows(crop, samples)
    planes = np.array([sample[2:4] for sample in samples])
    assert windows.dtype == np.int64 and windows.shape == (len(samples), 4)
    assert (windows[:, :2] >= 0).all() and (windows[:, 2:] >= 1).all()
    assert (windows[:, :2] + windows[:, 2:] <= planes).all()


@given(st.lists(_SAMPLE, min_size=1, max_size=20), st.sampled_from(_CROPS))
def test_a_sample_s_window_does_not_depend_on_the_others(samples: list[Any], crop: GuidedCrop) -> None:
    together = _windows(crop, samples)
    assert np.array_equal(together, np.concatenate([_windows(crop, [sample]) for sample in samples]))


@given(st.lists(_SAMPLE, min_size=1, max_size=20), st.sampled_from(_CROPS))
def test_no_window_is_larger_than_the_largest(samples: list[Any], crop: GuidedCrop) -> None:
    for sample, window in zip(samples, _windows(crop, samples), strict=True):
        assert tuple(window[2:]) <= crop.largest_window(sample[2], sample[3], [sample[1]])
        most = crop.largest_window(sample[2], sample[3], [sample[1]])
        assert window[2] <= most[0] and window[3] <= most[1]
        any_study = crop.largest_window(sample[2], sample[3])
        assert most[0] <= any_study[0] and most[1] <= any_study[1]


def _reference_window(size: tuple[int, int], place: tuple[int, int], plane: tuple[int, int]) -> list[int]:
    """The rule of the reference: y1, x1, y2 and x2 of ``get_crop_location``."""
    starts, ends = [], []
    for edge, centre, length in zip(size, place[::-1], plane, strict=True):
        start, end = centre - edge // 2, centre + edge // 2
        if start < 0:
            start, end = 0, end - start
        elif end > length:
            start, end = start - (end - length), length
        starts.append(start)
        ends.append(end)
    return [*starts, *ends]


@given(st.tuples(*[st.integers(1, 150)] * 2), st.tuples(*[st.integers(300, 400)] * 2), st.data())
def test_windows_of_even_sizes_are_those_of_the_reference(
    halves: tuple[int, int], plane: tuple[int, int], data: st.DataObject
) -> None:
    size = (2 * halves[0], 2 * halves[1])
    place = (data.draw(st.integers(0, plane[1] - 1)), data.draw(st.integers(0, plane[0] - 1)))
    sample = ((0.0,) * 6, None, *plane, place, np.nan)
    ((y, x, height, width),) = _windows(GuidedCrop(size, jitter=0), [sample]).tolist()
    assert [y, x, y + height, x + width] == _reference_window(size, place, plane)


def test_a_window_of_odd_size_has_all_its_pixels() -> None:
    windows = _one_plane(GuidedCrop(65, jitter=0), 1, place=(400, 500))
    assert windows.tolist() == [[468, 368, 65, 65]]


@pytest.mark.parametrize(("size", "centre"), [(120, 70), (150, 80), (120, 20), (150, 10)])
def test_a_plane_smaller_than_the_window_is_taken_whole_not_a_strip_of_it(size: int, centre: int) -> None:
    windows = _one_plane(GuidedCrop(size, jitter=0), 1, place=(centre, centre), height=100, width=1000)
    assert windows[0, [0, 2]].tolist() == [0, 100] and windows[0, 3] == size


def test_positions_may_be_floats_and_lie_outside_of_the_plane() -> None:
    crop = GuidedCrop(10, jitter=0)
    assert _one_plane(crop, 1, place=(20.49, 30.5)).tolist() == [[26, 15, 10, 10]]
    assert _one_plane(crop, 1, place=(-50, 1e9)).tolist() == [[990, 0, 10, 10]]


def test_an_image_without_cells_is_cut_at_uniform_places() -> None:
    for place in ((np.nan, np.nan), (3.0, np.nan)):
        windows = _one_plane(GuidedCrop(998, jitter=0), 60_000, place=place, width=1001)
        for axis, places in ((0, 3), (1, 4)):
            counts = np.bincount(windows[:, axis])
            assert len(counts) == places
            np.testing.assert_allclose(counts, 60_000 / places, rtol=0.03)


def test_one_of_the_study_s_sizes_is_drawn_and_height_and_width_vary_independently() -> None:
    windows = _one_plane(GuidedCrop(), 100_000, study="idr0130", place=(400, 500))  # 20 and 150
    heights, widths = windows[:, 2], windows[:, 3]
    small = heights < 100
    assert abs(small.mean() - 0.5) < 0.01 and np.array_equal(small, widths < 100)
    for edge, part in ((20, windows[small]), (150, windows[~small])):
        expected = np.arange(int(0.9 * edge), int(1.1 * edge) + 1)
        for axis in (2, 3):
            values, counts = np.unique(part[:, axis], return_counts=True)
            assert np.array_equal(values, expected)
            np.testing.assert_allclose(counts, len(part) / len(expected), rtol=0.12)
        assert abs(np.corrcoef(part[:, 2], part[:, 3])[0, 1]) < 0.02


@pytest.mark.parametrize("edge", sorted({size for sizes in crop_sizes().studies.values() for size in sizes}, key=str))
def test_the_ends_of_the_sizes_are_those_of_the_reference(edge: Any) -> None:
    crop = GuidedCrop(edge)
    randoms = np.repeat(np.nextafter([[0.0], [1.0]], [[0.0], [0.0]]), 6, axis=1)
    windows = crop.windows(
        randoms,
        studies=[None] * 2,
        heights=np.full(2, 5000),
        widths=np.full(2, 5000),
        centroids=np.full((2, 2), 2500.0),
    )
    ends = [5000, 5000] if edge == "whole plane" else [int(0.9 * edge), int(1.1 * edge)]
    assert windows[:, 2].tolist() == windows[:, 3].tolist() == ends


def test_whole_planes_do_not_vary_and_are_drawn_as_often_as_the_other_size() -> None:
    windows = _one_plane(GuidedCrop(), 20_000, study="nidr0004", place=(1, 1))
    whole = (windows == [0, 0, 1000, 800]).all(axis=1)
    assert abs(whole.mean() - 0.5) < 0.02 and windows[~whole, 2].max() == 660


def test_studies_that_the_table_does_not_have_get_the_other_size() -> None:
    assert _one_plane(GuidedCrop(), 1, study="mine")[0].tolist() == [0, 0, 1000, 800]
    assert _one_plane(GuidedCrop(other=100, jitter=0), 1, study="mine")[0, 2:].tolist() == [100, 100]
    assert _one_plane(GuidedCrop(other=(100, 50), jitter=0), 1)[0, 2:].tolist() == [100, 50]
    assert _one_plane(GuidedCrop({"mine": [30]}, jitter=0), 1, study="mine")[0, 2:].tolist() == [30, 30]


def test_a_window_may_go_by_the_size_of_the_cell() -> None:
    crop = GuidedCrop("cell", factor=3, jitter=0)
    assert _one_plane(crop, 1, area=np.pi * 20**2, place=(400, 500))[0].tolist() == [440, 340, 120, 120]
    assert _one_plane(crop, 1, area=1e-9)[0, 2:].tolist() == [1, 1]
    for unknown in (np.nan, 0, -1, np.inf):
        assert _one_plane(crop, 1, area=unknown, study="idr0130")[0, 2] in (20, 150)
    assert crop.needs_cell_sizes and not GuidedCrop().needs_cell_sizes


def test_cells_are_chosen_with_equal_chances() -> None:
    randoms = np.random.default_rng(0).random(70_000)
    np.testing.assert_allclose(np.bincount(choose_cells(randoms, np.full(70_000, 7))), 10_000, rtol=0.04)
    last = np.nextafter(1.0, 0.0)
    counts = np.array([0, 1, 3, 2**31, 10**15])
    assert choose_cells(np.full(5, last), counts).tolist() == [-1, 0, 2, 2**31 - 1, 10**15 - 1]
    assert choose_cells(np.zeros(5), counts).tolist() == [-1, 0, 0, 0, 0]


@pytest.mark.parametrize(
    "values",
    [
        {"size": 0},
        {"size": -5},
        {"size": True},
        {"size": 64.0},
        {"size": "studies"},
        {"size": (64,)},
        {"size": (64, "whole plane")},
        {"size": {}},
        {"size": {"mine": 64}},
        {"size": {"mine": []}},
        {"size": {"mine": [64, "all"]}},
        {"size": {1: [64]}},
        {"other": "study"},
        {"other": None},
        {"jitter": 1.0},
        {"jitter": -0.1},
        {"jitter": float("nan")},
        {"jitter": "0.1"},
        {"factor": 0},
        {"factor": float("inf")},
    ],
)
def test_settings_that_mean_nothing_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match=r"of a guided crop|of stud|of studies"):
        GuidedCrop(**values)


def test_arrays_that_do_not_fit_are_refused() -> None:
    for values in ({"randoms": np.zeros((2, 5))}, {"centroids": np.zeros((2, 3))}, {"heights": np.ones(3)}):
        fitting = {
            "randoms": np.zeros((2, 6)),
            "centroids": np.zeros((2, 2)),
            "heights": np.ones(2),
            "widths": np.ones(2),
        }
        with pytest.raises(RecipeError, match="arrays of the shapes"):
            GuidedCrop().windows(studies=[None] * 2, **{**fitting, **values})
    with pytest.raises(RecipeError, match="at least 1"):
        _one_plane(GuidedCrop(), 2, height=0)
    with pytest.raises(RecipeError, match="size of a cell each"):
        GuidedCrop("cell").windows(**{**fitting, "studies": [None] * 2, "cell_sizes": np.ones(3)})


def test_no_samples_are_no_windows() -> None:
    assert _one_plane(GuidedCrop("cell"), 0).shape == (0, 4)


def test_the_fingerprint_is_that_of_the_settings_and_of_the_table() -> None:
    crops = [*_CROPS, GuidedCrop(jitter=0.2), GuidedCrop(other=100), GuidedCrop("cell", factor=4)]
    assert len({crop.fingerprint for crop in crops}) == len(crops)
    assert GuidedCrop(np.int32(64)).fingerprint == GuidedCrop(64).fingerprint
    assert GuidedCrop(64, factor=3, other=100).fingerprint == GuidedCrop(64).fingerprint
    assert GuidedCrop({"a": [1], "b": [2]}).fingerprint == GuidedCrop({"b": (2,), "a": (1,)}).fingerprint
    assert GuidedCrop({"a": [1]}).fingerprint != GuidedCrop({"a": [2]}).fingerprint


def test_a_crop_travels_to_workers() -> None:
    for crop in _CROPS:
        _one_plane(crop, 1)
        again = pickle.loads(pickle.dumps(crop))  # noqa: S301 - our own
        assert again == crop and np.array_equal(_one_plane(again, 5), _one_plane(crop, 5))


def _facts() -> dict[str, list[Any]]:
    path = Path(__file__).resolve().parents[4] / "shared" / "facts" / "chammi75_crop_sizes.tsv"
    if not path.is_file():
        pytest.skip("the facts of the published dataset (shared/facts beside the checkout) are not here")
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return {row["study"]: [_fact(size) for size in row["crop_px"].split(";")] for row in rows}


def _fact(text: str) -> int | str:
    return text if text == "whole plane" else int(text)


def test_the_shipped_table_is_that_of_the_facts() -> None:
    facts = _facts()
    shipped = {**crop_sizes().studies, "(any other)": crop_sizes().other}
    assert shipped.pop("hpa0001") == facts["hpa0018"]
    assert shipped == facts


def test_the_cards_of_studies_say_the_same_as_the_shipped_table() -> None:
    folder = declarations_folder("catalog") / "sources"
    cards = [yaml.load(path.read_bytes(), yaml.CSafeLoader) for path in sorted(folder.glob("*.yaml"))]
    of_cards = {card["id"]: card["crop_sizes_px"] for card in cards if "crop_sizes_px" in card}
    table = crop_sizes()
    assert len(of_cards) > 70
    for study, sizes in of_cards.items():
        assert table.studies.get(study, table.other) == sizes, study
    assert set(table.studies) - set(of_cards) == {"hpa0018", "hpa0023"}  # other names of hpa0001


def test_the_table_refuses_what_is_no_size() -> None:
    for wrong in ([], [0], ["half"]):
        with pytest.raises(ValueError):
            CropSizes.model_validate({"stated_in": "here", "other": ["whole plane"], "studies": {"a": wrong}})
