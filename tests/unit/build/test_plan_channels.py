"""The order of channels, and what they show."""

from __future__ import annotations

from typing import Any

import pytest

from chammi75.build.channels import Candidate, Placed, channel_panel, channel_type, lay_out_channels
from chammi75.readers.image_file import ImageFile, Series
from chammi75.schemas.recipe import ChannelRule


def rule(**values: Any) -> ChannelRule:
    return ChannelRule.model_validate(values)


def candidates(token: str | None, *names: str | None, rgb: bool = False) -> list[Candidate]:
    series = Series(0, "CYX", {"T": 1, "Z": 1, "C": len(names)}, 4, 4, "uint8", 8, names, rgb=rgb)
    file = ImageFile(f"{token}.tif", "r", "1", "tiff", 1, (series,))
    return [Candidate(file.path, token, file, series, c) for c in range(len(names))]


def order(placement: Any) -> list[tuple[int, str | None]]:
    return [(entry.number, entry.candidate.token or entry.candidate.name) for entry in placement.placed]


def test_without_rules_tokens_come_in_natural_order_with_one_number_each() -> None:
    layout = lay_out_channels(None, {"w10": 1, "w2": 1, "w1": 1})
    placement = layout.place(candidates("w10", None) + candidates("w1", None))
    assert order(placement) == [(1, "w1"), (3, "w10")]
    assert placement.missing == (2,)
    assert layout.name_of(2) == "w2"


def test_without_rules_channels_of_a_file_keep_their_order() -> None:
    placement = lay_out_channels(None, {}).place(candidates(None, "GFP", None, "DAPI"))
    assert [entry.number for entry in placement.placed] == [1, 2, 3]
    assert [entry.candidate.name for entry in placement.placed] == ["GFP", None, "DAPI"]
    assert placement.missing == ()


def test_channels_inside_files_with_tokens_get_numbers_of_their_own() -> None:
    layout = lay_out_channels(None, {"a": 3, "b": 1})
    placement = layout.place(candidates("a", "r", "g", "b", rgb=True) + candidates("b", None))
    assert [entry.number for entry in placement.placed] == [1, 2, 3, 4]
    assert layout.place(candidates("b", None)).missing == (1, 2, 3)


def test_rules_give_the_order_by_token() -> None:
    layout = lay_out_channels([rule(name="R"), rule(name="D")], {"D": 1, "R": 1})
    placement = layout.place(candidates("D", None) + candidates("R", None))
    assert order(placement) == [(1, "R"), (2, "D")]


def test_rules_find_channels_by_name_in_the_file_and_by_number() -> None:
    by_name = lay_out_channels([rule(name="DAPI"), rule(name="GFP")], {}).place(candidates(None, "GFP", "DAPI"))
    assert order(by_name) == [(1, "DAPI"), (2, "GFP")]
    by_number = lay_out_channels([rule(name="2"), rule(name="1")], {}).place(candidates(None, "GFP", "DAPI"))
    assert order(by_number) == [(1, "DAPI"), (2, "GFP")]


def test_a_name_counts_more_than_a_number() -> None:
    placement = lay_out_channels([rule(name="1"), rule(name="2")], {}).place(candidates(None, "2", "1"))
    assert order(placement) == [(1, "1"), (2, "2")]


def test_rules_without_a_name_go_by_position_of_the_token_in_the_whole_source() -> None:
    layout = lay_out_channels([rule(panel="a"), rule(panel="b"), rule(panel="c")], {"1": 1, "2": 1, "3": 1})
    placement = layout.place(candidates("3", None) + candidates("1", None))
    assert [(entry.number, channel_panel(entry)) for entry in placement.placed] == [(1, "a"), (3, "c")]
    assert placement.missing == (2,)


def test_rules_without_a_name_take_what_rules_with_a_name_leave() -> None:
    layout = lay_out_channels([rule(name="x"), rule(), rule()], {"a": 1, "x": 1, "b": 1})
    placement = layout.place([c for token in "abx" for c in candidates(token, None)])
    assert order(placement) == [(1, "x"), (2, "a"), (3, "b")]


def test_a_channel_that_no_rule_names_is_told() -> None:
    placement = lay_out_channels([rule(name="D")], {"D": 1, "Q": 1}).place(
        candidates("D", None) + candidates("Q", None)
    )
    assert [candidate.token for candidate in placement.unnamed] == ["Q"]
    assert order(placement) == [(1, "D")]


def test_two_channels_of_one_name_are_disputed() -> None:
    placement = lay_out_channels([rule(name="GFP")], {}).place(candidates(None, "GFP", "GFP"))
    assert placement.disputed[0][0] == "GFP"
    assert len(placement.disputed[0][1]) == 2


def test_a_channel_of_a_colour_file_with_a_token_is_named_by_both() -> None:
    layout = lay_out_channels([rule(name="D/g")], {"D": 3})
    placement = layout.place(candidates("D", "r", "g", "b", rgb=True))
    assert [entry.candidate.c for entry in placement.placed] == [1]
    assert len(placement.unnamed) == 2


@pytest.mark.parametrize(
    ("stated", "token", "name", "expected"),
    [
        ({"channel_type": "nucleus", "panel": "GFP"}, "D", None, ("nucleus", "GFP")),
        ({"channel_type": "Hoechst 33342"}, "D", None, ("nucleus", "Hoechst 33342")),
        ({"channel_type": "quux"}, "D", None, ("quux", "D")),
        ({"panel": "Mito Tracker"}, "w1", "DAPI", ("mitochondria", "Mito Tracker")),
        ({}, "w1", "dapi", ("nucleus", "dapi")),
        ({}, "DAPI", None, ("nucleus", "DAPI")),
        ({}, "w1", None, (None, "w1")),
        ({}, None, None, (None, None)),
        ({}, "R", None, (None, "R")),
        ({}, "red", None, (None, "red")),
    ],
)
def test_what_a_channel_shows_is_the_recipes_word_or_what_the_vocabulary_makes_of_the_names(
    stated: dict[str, str], token: str | None, name: str | None, expected: tuple[str | None, str | None]
) -> None:
    (candidate,) = candidates(token, name)
    placed = Placed(1, candidate, rule(**stated) if stated else None)
    assert (channel_type(placed), channel_panel(placed)) == expected


def test_the_parts_of_a_colour_picture_are_called_so() -> None:
    placed = [Placed(1, candidate) for candidate in candidates(None, "r", "g", "b", rgb=True)]
    assert [channel_type(entry) for entry in placed] == ["r", "g", "b"]


@pytest.mark.parametrize(
    ("values", "panel", "kind"),
    [
        ({"channel_type": "DAPI"}, "DAPI", "nucleus"),
        ({"channel_type": "actin", "panel": "Phalloidin"}, "Phalloidin", "cytoskeleton"),
        ({"channel_type": "nucleus"}, "w1", "nucleus"),
        ({"channel_type": "my own"}, "w1", "my own"),
    ],
)
def test_a_stain_given_as_channel_type_stays_as_the_panel(values: dict[str, str], panel: str, kind: str) -> None:
    placed = Placed(1, candidates("w1", None)[0], rule(**values))
    assert (channel_panel(placed), channel_type(placed)) == (panel, kind)
