"""Subsets: the same images on every machine, from a recipe and with a hash; licences; and what is refused."""

from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from loading_stores import STUDIES, Known, write_store

from chammi75 import load_dataset, open_store
from chammi75.errors import ChammiError, FilterError, RecipeError, StoreError
from chammi75.loading.layouts import open_layout
from chammi75.loading.subsets import Subset


def loaded(url: Any, **options: Any) -> list[str]:
    streamed = [s["image_id"] for s in load_dataset(url, streaming=True, **options).select_columns("image_id")]
    assert list(load_dataset(url, **options)["image_id"]) == streamed
    return streamed


@pytest.fixture(scope="module")
def other_codec(tmp_path_factory: pytest.TempPathFactory) -> Known:
    return write_store(tmp_path_factory.mktemp("copies") / "deflate", codec="deflate")


@pytest.fixture(scope="module")
def larger_store(tmp_path_factory: pytest.TempPathFactory) -> Known:
    return write_store(tmp_path_factory.mktemp("copies") / "larger", images=33)


def test_without_a_draw_a_subset_is_what_passes_the_filters(known: Known) -> None:
    subset = Subset.build(known.url, channel_type="nucleus")
    assert sorted(subset.images) == list(subset.images)
    assert list(subset.images) == sorted(loaded(known.url, channel_type="nucleus"))
    assert len(subset) == len(subset.images)
    assert subset.images_sha256 == hashlib.sha256("\n".join(subset.images).encode()).hexdigest()


def test_images_of_every_group(store: Known) -> None:
    subset = Subset.build(store.url, group_by=["experiment.study", "experiment.plate"], per_group=2)
    assert [row["images"] for row in subset.count_by("experiment.study")] == [4, 4, 4]
    assert {row["images"] for row in subset.count_by(["experiment.study", "experiment.plate"])} == {2}
    assert len(Subset.build(store.url, group_by="biology.organism", per_group=3)) == 9  # the unknown is a group
    assert len(Subset.build(store.url, group_by="biology.organism", per_group=3, largest_groups=5)) == 6
    assert len(Subset.build(store.url, group_by="imaging.channel_type", total=7)) == 7


def test_what_was_drawn_from_this_store_once_is_drawn_for_ever(store: Known) -> None:
    subset = Subset.build(store.url, group_by="experiment.study", per_group=1, where="quality.focus > 0.3", seed=75)
    assert subset.images == ("plate1/P08_*.tif", "plate2/P12_*.tif", "plate3/P26_*.tif")


def test_the_order_of_stores_does_not_matter_nor_their_codec(
    store: Known, memory_store: Known, other_codec: Known, published: Known
) -> None:
    options: dict[str, Any] = {"group_by": "microscopy.type", "per_group": 4, "balance": "sqrt", "seed": 7}
    one = Subset.build([store.url, published.url], **options)
    other = Subset.build([open_layout(published.url), open_store(other_codec.url)], **options)
    assert one.images == other.images
    assert (one.images_sha256, one.store_sha256) == (other.images_sha256, other.store_sha256)
    assert loaded([memory_store.url, published.url], subset=one) == loaded([store.url, published.url], subset=one)
    assert sorted(loaded([published.url, store.url], subset=one)) == list(one.images)


def test_a_subset_narrows_what_is_loaded_and_filters_narrow_it_further(known: Known) -> None:
    subset = Subset.build(known.url, total=10)
    assert sorted(loaded(known.url, subset=subset)) == list(subset.images)
    nuclei = loaded(known.url, subset=subset, channel_type="protein")
    assert set(nuclei) == set(subset.images) & set(loaded(known.url, channel_type="protein"))
    with pytest.raises(FilterError, match=r"no image passes all of .*subset="):
        load_dataset(known.url, subset=Subset.build(known.url, num_channels=1, name="one"), channel_type="protein")


def test_the_planes_that_a_subset_keeps_are_those_that_are_loaded(store: Known) -> None:
    subset = Subset.build(store.url, select_channels=["nucleus", "er"], total=5)
    images = [sample["image"].channels for sample in load_dataset(store.url, subset=subset)]
    assert images == [("nucleus", "er")] * 5 or images == [["nucleus", "er"]] * 5
    (channels,) = {tuple(s["image"].channels) for s in load_dataset(store.url, subset=subset, select_channels="er")}
    assert channels == ("er",)
    with pytest.raises(FilterError, match="leaves no channel"):
        load_dataset(store.url, subset=subset, select_channels="protein")


def test_a_subset_can_be_pickled(store: Known) -> None:
    subset = Subset.build(store.url, total=4)
    assert pickle.loads(pickle.dumps(subset)).images == subset.images  # noqa: S301  # our own


def test_selections_have_the_rows(store: Known) -> None:
    subset = Subset.build(store.url, total=6)
    (selection,) = subset.selections
    assert sorted(selection.samples().column("image_id").to_pylist()) == list(subset.images)


def test_a_saved_subset_is_the_same_images_in_any_copy(
    store: Known, memory_store: Known, other_codec: Known, tmp_path: Path
) -> None:
    subset = Subset.build(
        store.url, magnification=(10, None), group_by="experiment.plate", per_group=4, organism={"Homo sapiens"}
    )
    file = subset.save(tmp_path / "mine.yaml")
    for copy in (store, memory_store, other_codec):
        assert Subset.load(file, copy.url).images == subset.images
        assert sorted(loaded(copy.url, subset=file)) == list(subset.images)
        assert subset.on(copy.url).images == subset.images
    assert loaded(store.url, subset=Path(file)) == loaded(store.url, subset=file)


def test_a_split_is_saved_and_read_part_by_part(store: Known, tmp_path: Path) -> None:
    parts = Subset.build(store.url, name="all").split({"train": 0.7, "test": 0.3}, by="experiment.plate")
    files = [part.save(tmp_path / f"{name}.yaml") for name, part in parts.items()]
    again = [Subset.load(file, store.url) for file in files]
    assert [part.images for part in again] == [part.images for part in parts.values()]
    assert [part.name for part in again] == ["all-train", "all-test"]
    assert again[0].leaks(again[1], by="experiment.plate") == []


def test_a_subset_of_another_store_is_refused(
    store: Known, larger_store: Known, published: Known, tmp_path: Path
) -> None:
    nine = Subset.build(store.url, group_by="experiment.study", per_group=9)
    with pytest.raises(StoreError, match="27 images here, others than the 27"):
        load_dataset(larger_store.url, subset=nine)
    subset = Subset.build(store.url, group_by="experiment.study", per_group=11, name="eleven each")
    file = subset.save(tmp_path / "mine.yaml")
    for wanted in (file, subset):
        with pytest.raises(StoreError, match=r"made from another store.*finds 31 images here, not the 30"):
            load_dataset(larger_store.url, subset=wanted)  # plate1 has three more there: 13
        with pytest.raises(StoreError, match="made from another store"):
            load_dataset(published.url, subset=wanted)
    human = Subset.build(store.url, study="plate1").save(tmp_path / "plate1.yaml")
    with pytest.raises(StoreError, match=r"another store.*finds nothing: study='plate1' is not in this dataset"):
        Subset.load(human, published.url)


def test_a_file_that_was_changed_by_hand_is_refused(store: Known, tmp_path: Path) -> None:
    file = Path(Subset.build(store.url, total=5).save(tmp_path / "mine.yaml"))
    file.write_text(file.read_text().replace("total: 5", "total: 6"))
    with pytest.raises(StoreError, match="changed by hand"):
        Subset.load(file, store.url)
    file.write_text("".join(line for line in file.read_text().splitlines(True) if "sha256" not in line))
    assert len(Subset.load(file, store.url)) == 6


def test_a_file_that_says_something_else_is_not_replaced(store: Known, tmp_path: Path) -> None:
    five, six = (Subset.build(store.url, total=total) for total in (5, 6))
    file = Path(five.save(tmp_path / "mine.yaml"))
    before = file.read_bytes()
    assert five.save(file) == str(file)
    with pytest.raises(StoreError, match="is there already and says something else"):
        six.save(file)
    assert file.read_bytes() == before
    six.save(file, overwrite=True)
    assert Subset.load(file, store.url).images == six.images
    with pytest.raises(RecipeError, match=r"ends with \.yaml"):
        five.save(tmp_path / "mine.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]


def test_two_stores_that_share_an_image_are_refused(store: Known, other_codec: Known) -> None:
    with pytest.raises(StoreError, match=r"plate1/P00_\*.tif is in two of these stores"):
        Subset.build([store.url, other_codec.url], total=3)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"group_by": "experiment.studdy", "per_group": 1}, FilterError, ["experiment.studdy", "experiment.study"]),
        ({"group_by": "experiment", "per_group": 1}, FilterError, ["group of fields", "experiment.plate"]),
        ({"group_by": "storage.path", "per_group": 1}, FilterError, ["one value per channel"]),
        (
            {"group_by": "curation.cluster", "per_group": 1},
            FilterError,
            ["curation.cluster", "unknown for every image"],
        ),
        ({"per_group": 3}, RecipeError, ["per_group", "group_by"]),
        ({"balance": "log"}, RecipeError, ["balance", "group_by"]),
        ({"group_by": "experiment.study", "balance": "even"}, RecipeError, ["balance", "'sqrt'"]),
        ({"group_by": []}, RecipeError, ["group_by"]),
        ({"total": 0}, RecipeError, ["total", "greater than 0"]),
        ({"seed": 2**64}, RecipeError, ["seed", "less than"]),
        ({"study": "plate9"}, FilterError, ["'plate1'"]),
        ({"study": "plate1", "organism": "Mus musculus"}, FilterError, ["no image passes"]),
        ({"matched_with": "fluorescence"}, RecipeError, ["'fluorescence'", "fluorescence-only"]),
        ({"split": "tset"}, FilterError, ["'tset'", "train"]),
        ({"license": "CC-BY"}, FilterError, ["'CC-BY-4.0'", "'commercial'"]),
    ],
    ids=str,
)
def test_what_cannot_be_built_is_an_error_that_helps(
    store: Known, options: Any, error: type[ChammiError], words: list[str]
) -> None:
    with pytest.raises(error) as raised:
        Subset.build(store.url, **options)
    for word in words:
        assert word in str(raised.value)


def test_what_is_no_subset_is_named(store: Known) -> None:
    with pytest.raises(RecipeError, match="not 3"):
        load_dataset(store.url, subset=3)  # type: ignore[call-overload]


def test_sets_of_licences(store: Known, published: Known) -> None:
    assert Subset.build(store.url, license="commercial").images == Subset.build(store.url).images
    assert loaded(store.url, license="public-domain") == loaded(store.url, license="CC0-1.0")
    assert loaded(store.url, license=["public-domain", "CC-BY-4.0"]) == loaded(store.url)
    with pytest.raises(FilterError, match="license"):  # unknown is in no set
        load_dataset(published.url, license="commercial")


def test_a_set_that_no_licence_here_is_in_says_what_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loading_stores.STUDIES", [{**study, "license": "CC-BY-NC-4.0"} for study in STUDIES])
    url = write_store(tmp_path / "non-commercial", images=3).url
    with pytest.raises(
        FilterError, match=r"license='commercial' .*no licence here is in that set; here are CC-BY-NC-4.0"
    ):
        load_dataset(url, license="commercial")


def test_licences_of_exactly_these_images(store: Known) -> None:
    subset = Subset.build(store.url, where="experiment.study = 'plate2' OR experiment.well < 'A04'")
    assert subset.licenses == [
        {"license": "CC0-1.0", "images": 10, "sources": ["plate2"]},
        {"license": "CC-BY-4.0", "images": 4, "sources": ["plate1"]},
    ]


def test_citations_name_the_sources_of_exactly_these_images(store: Known, tmp_path: Path, monkeypatch: Any) -> None:
    studies = [{**STUDIES[0], "study": "idr0001"}, *STUDIES[1:]]
    monkeypatch.setattr("loading_stores.STUDIES", studies)
    subset = Subset.build(write_store(tmp_path / "cited").url, study=["idr0001", "plate2"], num_channels=(1, 9))
    items = {item["id"]: item for item in json.loads(subset.cite("csl"))}
    assert set(items) == {"idr0001", "plate2"}
    assert items["idr0001"]["DOI"] == "10.17867/10000101" or items["idr0001"]["DOI"].startswith("10.")  # of its card
    assert items["plate2"]["license"] == "CC0-1.0"
    assert "Images used: 10" in items["plate2"]["note"]
    bibtex = subset.cite()
    assert bibtex.count("@") == 2
    assert "CC0-1.0" in bibtex
    only = Subset.build(store.url, study="plate2").cite("text")
    assert "plate2" in only and "plate1" not in only
