"""Several stores loaded as one: parts of a store, lists, images in two of them, images that are withdrawn."""

from __future__ import annotations

import shutil
import warnings
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from loading_stores import Known, write_store

from chammi75 import load_dataset
from chammi75.errors import FilterError, StoreError
from chammi75.loading.selection import RepeatedImagesWarning, WithdrawnWarning
from chammi75.loading.subsets import Subset
from chammi75.schemas.manifest import ShardEntry, StoreManifest
from chammi75.schemas.withdrawal import Withdrawal
from chammi75.store.copy import copy_store
from chammi75.store.parts import combine
from chammi75.store.withdrawals import add_withdrawals


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Known:
    return write_store(tmp_path_factory.mktemp("joined") / "whole")


@pytest.fixture
def parts(whole: Known, tmp_path: Path) -> list[str]:
    urls = [str(tmp_path / "all" / name) for name in ("one", "two", "three")]
    for url, rows in zip(urls, np.array_split(np.arange(30), 3), strict=True):
        copy_store(whole.url, url, rows=rows)
    return urls


@pytest.fixture
def joined(parts: list[str]) -> str:
    """A store with a part that has parts."""
    folder = Path(parts[0]).parent
    first = combine(parts[:2], str(folder / "first"))
    return combine([first.url, parts[2]], str(folder / "joined")).url


def ids(*args: object, **kwargs: object) -> list[str]:
    return list(load_dataset(*args, **kwargs)["image_id"])  # type: ignore[call-overload]


def gone(**what: str) -> Withdrawal:
    return Withdrawal(**what, reason="consent withdrawn", date=date(2026, 1, 31))


def test_a_joined_store_loads_as_the_whole_wherever_it_is_moved(whole: Known, joined: str, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ids(joined) == whole.ids
        assert ids(joined, study="plate2") == ids(whole.url, study="plate2")
        shutil.move(Path(joined).parent, tmp_path / "elsewhere")
        assert ids(str(tmp_path / "elsewhere" / "joined")) == whole.ids


def test_subsets_of_a_joined_store_of_a_list_and_of_the_whole_are_the_same(
    whole: Known, joined: str, parts: list[str], tmp_path: Path
) -> None:
    files = []
    for number, named in enumerate((joined, whole.url, parts[::-1])):
        subset = Subset.build(named, group_by="experiment.study", per_group=3, balance="log", seed=5, name="same")
        files.append(subset.save(tmp_path / f"{number}.yaml"))
    contents = {Path(file).read_bytes() for file in files}
    assert len(contents) == 1  # the hash of the store is the same, too
    for named in (joined, whole.url, parts):
        assert len(ids(named, subset=files[0])) == 9
    with pytest.raises(StoreError, match="made from another store"):
        load_dataset(parts[0], subset=files[0])


def test_images_in_two_stores_are_loaded_with_a_warning(whole: Known, parts: list[str]) -> None:
    with pytest.warns(RepeatedImagesWarning, match="and 9 more images are in two of these datasets") as caught:
        assert len(load_dataset([whole.url, parts[1]])) == 40
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(load_dataset(parts)) == 30


def test_a_split_that_one_part_has_need_not_be_in_the_others(parts: list[str]) -> None:
    place = Path(parts[1]) / "manifest.json"
    manifest = StoreManifest.from_bytes(place.read_bytes(), str(place))
    shards = [ShardEntry(**{**shard.model_dump(), "split": "test"}) for shard in manifest.shards]
    place.write_bytes(manifest.model_copy(update={"shards": shards}).to_bytes())
    joined = combine(parts, str(Path(parts[0]).parent / "splits")).url
    assert len(ids(joined)) == 20
    assert len(ids(joined, split="test")) == len(Subset.build(joined, split="test")) == 10
    assert len(ids(joined, split=None)) == 30
    with pytest.raises(FilterError, match="there is no split 'val'"):
        load_dataset(joined, split="val")


@pytest.mark.parametrize("streaming", [False, True])
def test_what_is_withdrawn_is_left_out_and_said_once_where_it_is_loaded(
    whole: Known, joined: str, parts: list[str], streaming: bool
) -> None:
    before = Subset.build(joined, total=30)
    add_withdrawals(parts[0], [gone(image_id=whole.ids[0])])
    add_withdrawals(joined, [gone(study="plate2")])
    expected = [name for name in ids(whole.url, study=["plate1", "plate3"]) if name != whole.ids[0]]
    for subset in (None, before, Subset.build(joined)):
        with pytest.warns(WithdrawnWarning, match="11 images are withdrawn and left out") as caught:
            found = load_dataset(joined, subset=subset, streaming=streaming)
        assert [sample["image_id"] for sample in found] == expected
        assert [Path(one.filename) for one in caught if one.category is WithdrawnWarning] == [Path(__file__)]
    with (
        warnings.catch_warnings(),
        pytest.raises(FilterError, match="every image that passes is withdrawn"),
    ):
        warnings.simplefilter("ignore", WithdrawnWarning)
        load_dataset(joined, study="plate2")
