"""Withdrawn images: a list beside the store says which, and a damaged list lets none come back."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from chammi75.errors import ChammiError, StoreError
from chammi75.schemas.withdrawal import Withdrawal
from chammi75.store import open_store, verify
from chammi75.store import withdrawals as module
from chammi75.store.copy import copy_store
from chammi75.store.parts import combine, expand
from chammi75.store.withdrawals import add_withdrawals, read_withdrawals, shipped_withdrawals, withdrawn_rows

Maker = Callable[..., Any]
IDS = [f"plate1/A{k:02d}_*.tif" for k in range(6)]


def gone(**what: str) -> Withdrawal:
    return Withdrawal(**what, reason="consent withdrawn", date=date(2026, 1, 31))


@pytest.fixture
def store(store_writer: Maker, image_maker: Maker, tmp_path: Path) -> str:
    """Six images: of two studies, two plates, one source."""
    images = []
    for k in range(6):
        image = image_maker(k, height=40, width=50)
        experiment = {"study": "one" if k < 3 else "two", "plate": f"p{k % 2}"}
        record = image.record.model_copy(
            update={
                "experiment": image.record.experiment.model_copy(update=experiment),
                "provenance": image.record.provenance.model_copy(update={"source": "src" if k != 5 else None}),
            }
        )
        images.append(type(image)(record, image.planes, image.cells))
    return str(store_writer(tmp_path / "store", images))


def rows_of(store: str) -> list[int]:
    mask = withdrawn_rows(open_store(store))
    return [] if mask is None else np.flatnonzero(mask).tolist()


def test_without_a_list_nothing_is_withdrawn_and_no_index_is_opened(store: str) -> None:
    assert read_withdrawals(store) == ()
    (Path(store) / "index.arrow").unlink()
    assert withdrawn_rows(open_store(store)) is None


@pytest.mark.parametrize(
    ("what", "rows"),
    [
        ({"image_id": IDS[2]}, [2]),
        ({"study": "one"}, [0, 1, 2]),
        ({"source": "src"}, [0, 1, 2, 3, 4]),
        ({"study": "two", "plate": "p1"}, [3, 5]),
        ({"source": "src", "plate": "p0"}, [0, 2, 4]),
    ],
)
def test_images_studies_sources_and_their_plates_are_withdrawn(store: str, what: dict[str, str], rows: Any) -> None:
    assert add_withdrawals(store, [gone(**what)]) == len(rows)
    assert rows_of(store) == rows


def test_the_list_grows_keeps_what_is_there_and_takes_nothing_twice(store: str) -> None:
    before = (Path(store) / "manifest.json").read_bytes()
    add_withdrawals(store, [gone(image_id=IDS[0])])
    add_withdrawals(store, [gone(study="two", plate="p0"), gone(image_id=IDS[0])])
    values = json.loads((Path(store) / "withdrawals.json").read_bytes())
    assert values == {
        "format": "chammi75-withdrawals",
        "format_version": 1,
        "withdrawals": [
            {"image_id": IDS[0], "reason": "consent withdrawn", "date": "2026-01-31"},
            {"study": "two", "plate": "p0", "reason": "consent withdrawn", "date": "2026-01-31"},
        ],
    }
    assert rows_of(store) == [0, 4]
    assert verify(store).is_sound
    assert (Path(store) / "manifest.json").read_bytes() == before


@pytest.mark.parametrize("what", [{"image_id": "plate1/A99"}, {"study": "three"}, {"study": "one", "plate": "p7"}])
def test_what_no_image_has_is_refused_and_nothing_is_written(store: str, what: dict[str, str]) -> None:
    with pytest.raises(StoreError, match="no image here has"):
        add_withdrawals(store, [gone(image_id=IDS[0]), gone(**what)])
    assert read_withdrawals(store) == ()


@pytest.mark.parametrize(
    "what", [{}, {"plate": "p1"}, {"image_id": "a", "study": "b"}, {"image_id": "a", "plate": "b"}, {"study": ""}]
)
def test_an_entry_names_one_thing(what: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        gone(**what)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"format": "other"}', b'{"withdrawals": [{"image_id": "a"}]}', b'{"withdrawal": []}', b"\xff"],
)
def test_a_damaged_list_is_an_error_and_stays_as_it_is(store: str, content: bytes, tmp_path: Path) -> None:
    place = Path(store) / "withdrawals.json"
    place.write_bytes(content)
    uses: list[Callable[[], Any]] = [
        lambda: rows_of(store),
        lambda: add_withdrawals(store, [gone(image_id=IDS[0])]),
        lambda: copy_store(store, str(tmp_path / "copy")),
    ]
    for use in uses:
        with pytest.raises(StoreError, match="list of withdrawn images is damaged"):
            use()
    assert place.read_bytes() == content
    assert not (tmp_path / "copy").exists()


@pytest.mark.skipif(os.name != "posix" or os.getuid() == 0, reason="root may read everything")
def test_a_list_that_may_not_be_read_is_an_error(store: str) -> None:
    (Path(store) / "withdrawals.json").write_bytes(b"")
    (Path(store) / "withdrawals.json").chmod(0)
    with pytest.raises(StoreError, match="it is not known which images are withdrawn"):
        rows_of(store)


def test_a_server_that_hides_what_is_absent_is_believed_with_a_warning(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(url: str, options: Any = None) -> bytes:
        raise PermissionError(13, "Forbidden")

    monkeypatch.setattr(module, "read_bytes", refuse)
    with pytest.warns(UserWarning, match="does not say whether this file exists"):
        assert read_withdrawals("s3://bucket/store") == ()
    with pytest.raises(StoreError, match="it is not known which images are withdrawn"):
        read_withdrawals(store)


def add(store: str, number: int) -> None:
    add_withdrawals(store, [gone(image_id=IDS[number])])


@pytest.mark.skipif(os.name != "posix", reason="folders are locked on POSIX alone")
def test_several_processes_add_at_once_and_none_is_lost(store: str) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=add, args=(store, number)) for number in range(6)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert sorted(entry.image_id or "" for entry in read_withdrawals(store)) == IDS
    assert sorted(path.name for path in Path(store).iterdir()) == [
        "index.arrow",
        "index.parquet",
        "manifest.json",
        "shards",
        "withdrawals.json",
    ]


def test_a_copy_leaves_withdrawn_images_behind_and_takes_the_list_along(store: str, tmp_path: Path) -> None:
    add_withdrawals(store, [gone(image_id=IDS[1]), gone(study="two", plate="p0")])
    for name, rows in (("all", None), ("some", np.array([1, 2, 3]))):
        report = copy_store(store, str(tmp_path / name), rows=rows)
        expected = [IDS[k] for k in (range(6) if rows is None else rows) if k not in (1, 4)]
        assert open_store(tmp_path / name).index.table.column("image_id").to_pylist() == expected
        assert report.withdrawn == (2 if rows is None else 1)
        assert read_withdrawals(str(tmp_path / name)) == read_withdrawals(store)
        assert verify(str(tmp_path / name)).is_sound
    with pytest.raises(StoreError, match="not a single image is left"):
        copy_store(store, str(tmp_path / "none"), rows=np.array([1, 4]))


def test_a_list_of_nothing_that_is_here_leaves_a_whole_copy_whole(store: str, tmp_path: Path) -> None:
    add_withdrawals(store, [gone(image_id=IDS[1])])
    copy_store(store, str(tmp_path / "clean"))
    report = copy_store(str(tmp_path / "clean"), str(tmp_path / "again"))
    names = ("manifest.json", "withdrawals.json")
    for name in names:
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "clean" / name).read_bytes()
    assert report.withdrawn == 0


def test_what_a_store_withdraws_is_withdrawn_in_its_parts(
    store: str, store_writer: Maker, image_maker: Maker, tmp_path: Path
) -> None:
    store_writer(tmp_path / "other", [image_maker(9, height=40, width=50)])
    made = combine([store, str(tmp_path / "other")], str(tmp_path / "both"))
    assert add_withdrawals(made.url, [gone(image_id=IDS[5]), gone(study="plate1")]) == 2
    add_withdrawals(store, [gone(image_id=IDS[0])])
    masks = [withdrawn_rows(part) for part in expand(made)]
    assert [np.flatnonzero(mask).tolist() for mask in masks if mask is not None] == [[0, 5], [0]]
    assert rows_of(store) == [0]
    report = copy_store(made.url, str(tmp_path / "copy"))
    assert (report.withdrawn, report.manifest.images) == (3, 4)
    assert len(read_withdrawals(report.store)) == 3


def test_the_shipped_list_reads_and_counts_for_every_store(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(shipped_withdrawals(), tuple)
    monkeypatch.setattr(module, "shipped_withdrawals", lambda: (gone(source="src"),))
    assert rows_of(store) == [0, 1, 2, 3, 4]


def test_there_must_be_a_store(tmp_path: Path) -> None:
    with pytest.raises(ChammiError, match="there is no store here"):
        add_withdrawals(str(tmp_path), [gone(image_id="a")])
