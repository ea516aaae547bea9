"""A store against today's cards, and the commands that move stores."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from loading_stores import Known, write_published, write_store
from typer.testing import CliRunner

from chammi75.commands import moving
from chammi75.errors import ChammiError
from chammi75.loading.audit import AuditFinding, audit
from chammi75.loading.layouts import StoreLayout, open_layout
from chammi75.loading.withdrawn import withdrawn
from chammi75.schemas.cards import BadPlate, SourceCard
from chammi75.schemas.withdrawal import Withdrawal
from chammi75.store import open_store, verify
from chammi75.store import withdrawals as withdrawals_module
from chammi75.store.withdrawals import add_withdrawals, read_withdrawals

CARDS: dict[str, dict[str, Any]] = {
    "plate1": {"license": "CC-BY-4.0", "platform": "idr"},
    "plate2": {"license": "cc0-1.0", "platform": "bbbc"},
    "plate3": {"license": "CC-BY-4.0", "platform": "idr"},
}


class Shelf:
    """Cards for the studies of the test's store."""

    def __init__(self, **changes: dict[str, Any] | None) -> None:
        facts = {**CARDS, **changes}
        self.cards = {name: SourceCard(id=name, **fact) for name, fact in facts.items() if fact is not None}

    def find_source(self, name: str) -> SourceCard | None:
        return self.cards.get(name)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Known:
    return write_store(tmp_path_factory.mktemp("audit") / "store")


def found(store: Known, **changes: dict[str, Any] | None) -> tuple[AuditFinding, ...]:
    return audit([open_layout(store.url)], Shelf(**changes))


def test_a_store_that_says_what_the_cards_say_has_no_findings(store: Known) -> None:
    assert found(store) == ()


def test_another_licence_comes_first_and_is_serious(store: Known) -> None:
    changed = {"license": "CC-BY-NC-4.0", "platform": "ebi"}
    first, second = found(store, plate1=changed)
    assert first == AuditFinding("plate1", "license", "CC-BY-4.0", "CC-BY-NC-4.0", 10)
    assert second == AuditFinding("plate1", "platform", "idr", "ebi", 10)
    assert (first.is_serious, second.is_serious) == (True, False)


@pytest.mark.parametrize(
    ("card", "finding"),
    [
        (None, AuditFinding("plate2", "card_missing", None, None, 10)),
        ({"bad_plates": [BadPlate(plate="plate '1'", reason="moved")]}, ("bad_plate", "plate '1'", "moved", 5)),
        ({"expected_images": 9}, ("too_many_images", "10", "9", 10)),
        ({"expected_images": 10, "license": None}, None),
    ],
)
def test_each_difference_is_found(store: Known, card: Any, finding: Any) -> None:
    expected = AuditFinding("plate2", *finding) if isinstance(finding, tuple) else finding
    assert found(store, plate2=card) == ((expected,) if expected is not None else ())


def test_dois_and_what_the_store_does_not_know_are_compared(tmp_path: Path) -> None:
    known = write_published(tmp_path / "published")
    cards = Shelf(study0000={"license": "CC0-1.0"}, study0001={}, study0002=None)
    findings = audit([open_layout(known.url)], cards)
    assert [(finding.source, finding.kind, finding.images) for finding in findings] == [
        ("study0000", "license_unstated", 4),
        ("study0002", "card_missing", 4),
    ]


@pytest.mark.parametrize("stored", ["10.1000/A", "https://doi.org/10.1000/a", "doi:10.1000/b"])
def test_a_doi_is_the_same_however_it_is_written(stored: str) -> None:
    from chammi75.loading.audit import _Kind, _of_source

    kind = _Kind("s", None, None, None, stored, None, None, False, 3)
    for card, expected in (
        (SourceCard(id="s", data_doi="10.1000/a", study_dois=["10.1000/b"]), 0),
        (SourceCard(id="s", data_doi="10.1000/c"), 1),
    ):
        shelf = Shelf()
        shelf.cards["s"] = card
        assert len(list(_of_source("s", [kind], shelf))) == expected


def test_withdrawn_images_are_found_with_their_source(tmp_path: Path) -> None:
    known = write_store(tmp_path / "store")
    gone = [Withdrawal(study="plate3", reason="r", date=date(2026, 1, 1))]
    add_withdrawals(known.url, [*gone, Withdrawal(image_id=known.ids[0], reason="consent", date=date(2026, 1, 1))])
    twice = next(name for name in known.ids if name.startswith("plate3/"))  # the reason that was first stated counts
    add_withdrawals(known.url, [Withdrawal(image_id=twice, reason="again", date=date(2026, 1, 2))])
    findings = found(known)
    assert [(one.source, one.kind, one.today, one.images) for one in findings] == [
        ("plate1", "withdrawn", "consent", 1),
        ("plate3", "withdrawn", "r", 10),
    ]
    assert all(one.is_serious for one in findings)


def test_the_shipped_list_counts_for_the_published_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = open_layout(write_published(tmp_path / "published").url)
    assert withdrawn(layout) is None
    gone = [{"study": "study0001"}, {"study": "study0002", "plate": "01"}, {"image_id": "study0000/img000-ch*.png"}]
    entries = tuple(Withdrawal(**what, reason="r", date=date(2026, 1, 1)) for what in gone)
    monkeypatch.setattr("chammi75.loading.withdrawn.shipped_withdrawals", lambda: entries)
    mask = withdrawn(layout)
    assert mask is not None
    studies = layout.facet("study")
    expected = [studies.values[code] != "study0000" for code in studies.codes]
    expected[0] = True
    assert mask.tolist() == expected


runner = CliRunner()


def run(*words: str) -> Any:
    app = typer.Typer()
    moving.register(app)
    return runner.invoke(app, list(words))


def test_the_command_copies_a_store_and_says_how_much(store: Known, tmp_path: Path) -> None:
    done = run("copy", store.url, "--to", str(tmp_path / "copy"), "--workers", "2")
    assert done.exit_code == 0 and "30 images" in done.output
    assert verify(str(tmp_path / "copy")).is_sound
    done = run("copy", store.url, "--to", str(tmp_path / "json"), "--json")
    values = json.loads(done.stdout)
    assert values["images"] == 30 and values["content_sha256"] == open_store(store.url).manifest.content_sha256
    again = run("copy", store.url, "--to", str(tmp_path / "copy"))
    assert isinstance(again.exception, ChammiError) and "finished store" in str(again.exception)


def test_the_command_copies_a_subset(store: Known, tmp_path: Path) -> None:
    from chammi75.loading.subsets import Subset

    subset = Subset.build(store.url, organism="Mus musculus", group_by="experiment.plate", per_group=2)
    subset.save(tmp_path / "mice.yaml")
    done = run("copy", store.url, "--subset", str(tmp_path / "mice.yaml"), "--to", str(tmp_path / "copy"))
    assert done.exit_code == 0, done.exception
    copy = open_store(tmp_path / "copy")
    assert sorted(copy.index.table.column("image_id").to_pylist()) == list(subset.images)
    for row, image_id in enumerate(copy.index.table.column("image_id").to_pylist()):
        assert np.array_equal(copy.read_image(row), store.pixels[image_id])


def test_the_command_withdraws_and_a_copy_is_without(tmp_path: Path) -> None:
    known = write_store(tmp_path / "store")
    done = run("withdraw", known.url, "--study", "plate2", "--plate", "plate '0'", "--reason", "blurred", "--url", "u")
    assert done.exit_code == 0 and "5 images withdrawn" in done.output
    assert run("withdraw", known.url, "--image", known.ids[0], "--reason", "consent").exit_code == 0
    entries = read_withdrawals(known.url)
    assert [(entry.study, entry.plate, entry.image_id, entry.reason) for entry in entries] == [
        ("plate2", "plate '0'", None, "blurred"),
        (None, None, known.ids[0], "consent"),
    ]
    done = run("copy", known.url, "--to", str(tmp_path / "copy"))
    assert "24 images" in done.output and "6 images left out: withdrawn" in done.output
    assert run("withdraw", known.url, "--reason", "none named").exit_code == 2
    assert run("withdraw", known.url, "--image", "a", "--plate", "b", "--reason", "r").exit_code == 2
    assert run("withdraw", known.url, "--image", known.ids[0]).exit_code == 2


def test_the_command_combines(store: Known, tmp_path: Path) -> None:
    add = run("combine", store.url, "--out", str(tmp_path / "all"))
    assert add.exit_code == 0 and "30 images" in add.output and "1 part" in add.output
    twice = run("combine", store.url, store.url, "--out", str(tmp_path / "twice"))
    assert isinstance(twice.exception, ChammiError) and "share 30 images" in str(twice.exception)


def test_the_command_audits_and_fails_on_what_is_serious(
    store: Known, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chammi75.catalog.Catalog", Shelf)
    done = run("audit", store.url)
    assert done.exit_code == 0 and "agrees with today's cards" in done.output
    monkeypatch.setattr("chammi75.catalog.Catalog", lambda: Shelf(plate2=None))
    done = run("audit", store.url, "--json")
    assert done.exit_code == 0 and [row["kind"] for row in json.loads(done.stdout)] == ["card_missing"]
    monkeypatch.setattr("chammi75.catalog.Catalog", lambda: Shelf(plate2={"license": "CC-BY-NC-4.0"}))
    known = write_store(tmp_path / "store")
    run("withdraw", known.url, "--study", "plate3", "--reason", "consent")
    done = run("audit", known.url)
    assert done.exit_code == 1 and isinstance(done.exception, ChammiError)
    assert "1 source with another licence today and 10 withdrawn images" in str(done.exception)
    assert "CC-BY-NC-4.0" in done.output


def test_a_layout_of_a_part_knows_what_its_collection_withdraws(store: Known, tmp_path: Path) -> None:
    from chammi75.store.parts import combine, expand

    made = combine([store.url], str(tmp_path / "all"))
    add_withdrawals(made.url, [Withdrawal(image_id=store.ids[3], reason="r", date=date(2026, 1, 1))])
    (part,) = expand(made)
    mask = withdrawn(StoreLayout(part))
    assert mask is not None and np.flatnonzero(mask).tolist() == [3]
    assert withdrawals_module.shipped_withdrawals() is withdrawals_module.shipped_withdrawals()
