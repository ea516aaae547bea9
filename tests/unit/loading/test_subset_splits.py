"""Splits: whole units go to one part, near-duplicates stay together, shares are met."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chammi75.errors import FilterError, RecipeError
from chammi75.loading.subsets import Subset, run_recipe
from chammi75.loading.subsets.pool import Pool
from chammi75.loading.subsets.splits import Leak
from chammi75.schemas.arrow import record_schema
from chammi75.schemas.subset import SubsetRecipe
from chammi75.store.facets import Facet, facet_columns


class Records:
    """A layout of records alone."""

    url, identity, storage_options = "memory://records", "0" * 64, {}

    def __init__(self, records: list[dict[str, Any]]) -> None:
        schema = record_schema()
        filled = [{"image_id": f"image {number:04d}", **record} for number, record in enumerate(records)]
        for record in filled:
            record["imaging"] = {"channel": [1], "channel_type": ["nucleus"], "panel": [None], "missing_channel": []}
        self.table = pa.Table.from_pylist(filled, schema)

    def __len__(self) -> int:
        return self.table.num_rows

    def facet(self, name: str) -> Facet:
        return Facet.from_column(facet_columns(self.table)[name])

    def searchable(self) -> pa.Table:
        return self.table

    def rows_of_split(self, split: str | None) -> list[range]:
        return [range(len(self))]


def image(
    study: Any = "s", plate: Any = None, well: Any = None, twin: Any = None, organism: Any = None
) -> dict[str, Any]:
    return {
        "experiment": {"study": study, "plate": plate, "well": well},
        "biology": {"organism": organism},
        "curation": {"duplicate_of": twin},
    }


def subset_of_records(records: list[dict[str, Any]]) -> Subset:
    return run_recipe(SubsetRecipe(), [Records(records)])  # type: ignore[list-item]


def part_of(parts: dict[str, Subset]) -> dict[str, str]:
    return {name: key for key, part in parts.items() for name in part.images}


words = st.sampled_from(["A", "B", "C", None])
records = st.lists(
    st.builds(image, words, words, words, st.sampled_from([None, None, "image 0000", "image 0003", "elsewhere"])),
    min_size=1,
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(records, st.sampled_from(["experiment.study", "experiment.plate", "experiment.well"]), st.integers(0, 2**64 - 1))
def test_no_split_leaks_and_none_loses_an_image(images: list[Any], by: str, seed: int) -> None:
    whole = subset_of_records(images)
    try:
        parts = whole.split({"train": 0.6, "val": 0.2, "test": 0.2}, by=by, seed=seed)
    except FilterError as error:
        assert "too few" in str(error) or "unknown for every image" in str(error)
        return
    assert sorted(name for part in parts.values() for name in part.images) == list(whole.images)
    assert all(len(part) for part in parts.values())
    for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
        assert parts[first].leaks(parts[second], by) == []
    place = part_of(parts)
    for number, record in enumerate(images):
        twin = record["curation"]["duplicate_of"]
        if twin in place:
            assert place[f"image {number:04d}"] == place[twin]


def test_a_leak_is_found() -> None:
    whole = subset_of_records(
        [image("s", "P1"), image("s", "P1"), image("s", "P2", twin="image 0000"), image("t", None)]
    )
    first, second, third, last = (Subset(whole.recipe, whole.pool.kept(np.arange(4) == number)) for number in range(4))
    assert first.leaks(second, "experiment.plate") == [Leak("unit", '["s","P1"]')]
    assert first.leaks(third, "experiment.plate") == third.leaks(first, "experiment.plate")
    assert first.leaks(third, "experiment.plate") == [Leak("near-duplicate", "image 0000")]
    assert second.leaks(third, "experiment.plate") == []
    assert last.leaks(last, "experiment.plate") == [Leak("unit", '["t",null]')]


def test_a_well_of_another_plate_is_another_well() -> None:
    whole = subset_of_records([image("s", plate, "A01") for plate in ("P1", "P1", "P2", "P2")])
    parts = whole.split({"one": 0.5, "other": 0.5}, by="experiment.well")
    place = part_of(parts)
    assert place["image 0000"] == place["image 0001"] != place["image 0002"] == place["image 0003"]


def test_images_of_unknown_plate_stay_together_within_their_study() -> None:
    whole = subset_of_records([image("s")] * 3 + [image("t")] * 3 + [image("t", "P1")] * 3)
    place = part_of(whole.split({"a": 0.3, "b": 0.3, "c": 0.4}, by="experiment.plate"))
    units = [{place[f"image {number:04d}"] for number in range(start, start + 3)} for start in (0, 3, 6)]
    assert sorted(map(len, units)) == [1, 1, 1]
    assert set.union(*units) == {"a", "b", "c"}


def test_duplicates_of_an_image_that_is_not_here_stay_together() -> None:
    images = [image("s", f"P{number}", twin="gone" if number in (2, 7) else None) for number in range(10)]
    for seed in range(8):
        place = part_of(subset_of_records(images).split({"a": 0.5, "b": 0.5}, by="experiment.plate", seed=seed))
        assert place["image 0002"] == place["image 0007"]


def test_shares_are_met_where_units_allow() -> None:
    images = [image("s", f"P{number % 50}") for number in range(1000)]
    parts = subset_of_records(images).split({"train": 0.8, "val": 0.1, "test": 0.1}, by="experiment.plate")
    assert [len(part) for part in parts.values()] == [800, 100, 100]


def test_strata_have_their_shares_in_every_part() -> None:
    images = [image(f"s{number % 40}", organism="rare" if number % 40 < 10 else "common") for number in range(400)]
    whole = subset_of_records(images)
    parts = whole.split({"a": 0.5, "b": 0.5}, by="experiment.study", stratify="biology.organism")
    for part in parts.values():
        assert [row["images"] for row in part.count_by("biology.organism")] == [150, 50]


def test_rows_in_another_order_are_split_alike() -> None:
    images = [{"image_id": f"i{number}", **image("s", f"P{number % 13}")} for number in range(100)]
    options: dict[str, Any] = {"by": "experiment.plate", "seed": 3}
    one = subset_of_records(images).split({"a": 0.7, "b": 0.3}, **options)
    other = subset_of_records(images[::-1]).split({"a": 0.7, "b": 0.3}, **options)
    assert [part.images for part in one.values()] == [part.images for part in other.values()]
    again = subset_of_records(images).split({"a": 0.7, "b": 0.3}, by="experiment.plate", seed=4)
    assert again["a"].images != one["a"].images


def test_a_split_is_the_same_for_ever() -> None:
    images = [image("s", f"P{number:02d}") for number in range(20)]
    parts = subset_of_records(images).split({"train": 0.8, "test": 0.2}, by="experiment.plate", seed=75)
    assert [name[-2:] for name in parts["test"].images] == ["01", "07", "10", "18"]


def test_a_part_can_be_split_and_its_recipe_finds_it_again() -> None:
    images = [image(f"s{number % 7}", f"P{number % 21}", f"A{number % 63}") for number in range(300)]
    layout = Records(images)
    whole = run_recipe(SubsetRecipe(seed=1), [layout])  # type: ignore[list-item]
    train = whole.split({"train": 0.7, "test": 0.3}, by="experiment.study")["train"]
    val = train.split({"fit": 0.8, "val": 0.2}, by="experiment.plate", seed=5)["val"]
    assert val.name == "train-val"
    assert run_recipe(val.recipe, [layout]).images == val.images  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("fractions", "options", "words"),
    [
        ({"a": 0.5, "b": 0.4}, {}, ["add up to 1", "0.9"]),
        ({"a": 1.5, "b": -0.5}, {}, ["split", "fractions"]),
        ({}, {}, ["mapping"]),
        ({"a b": 0.5, "c": 0.5}, {}, ["split"]),
        ({"a": 0.5, "b": 0.5}, {"by": "experiment.study"}, ["too few for 2 parts", "finer"]),
        ({"a": 0.5, "b": 0.5}, {"by": "experiment.plaet"}, ["experiment.plaet", "experiment.plate"]),
        ({"a": 0.5, "b": 0.5}, {"by": "experiment"}, ["experiment.plate"]),
        ({"a": 0.5, "b": 0.5}, {"by": "imaging.panel"}, ["one value per channel"]),
        ({"a": 0.5, "b": 0.5}, {"by": "experiment.well"}, ["experiment.well is unknown for every image"]),
        ({"a": 0.5, "b": 0.5}, {"stratify": "biology.organism"}, ["biology.organism is unknown for every image"]),
        ({"a": 0.5, "b": 0.5}, {"by": []}, ["by must name"]),
        ({"a": 0.5, "b": 0.5}, {"seed": -1}, ["seed"]),
    ],
)
def test_what_cannot_be_split_is_an_error_that_helps(fractions: Any, options: Any, words: list[str]) -> None:
    whole = subset_of_records([image("s", f"P{number}") for number in range(5)])
    with pytest.raises((FilterError, RecipeError)) as error:
        whole.split(fractions, **{"by": "experiment.plate", **options})
    for word in words:
        assert word in str(error.value)


def test_an_image_that_two_stores_have_is_named() -> None:
    layouts = (Records([image()] * 3), Records([image()] * 2))
    pool = Pool(layouts, (np.array([0, 1]), np.array([1])))  # type: ignore[arg-type]
    assert pool.first_repeated_id() == "image 0001"
    assert Pool(layouts, (np.array([0]), np.array([1]))).first_repeated_id() is None  # type: ignore[arg-type]
