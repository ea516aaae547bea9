"""What a cell's text means in a field of the record."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chammi75.build.cells import cell_text, cell_value, number_kind
from chammi75.schemas.recipe import RECORD_FIELDS


@pytest.mark.parametrize(
    "word", ["", "  ", "unknown", "Unknown", "n/a", "N/A", "NA", "nan", "NaN", "None", "NULL", " - ", None]
)
def test_null_words_say_nothing_in_any_case(word: str | None) -> None:
    assert cell_text(word) is None


@pytest.mark.parametrize("word", ["no", "0", "false", "none of these", "N", "--"])
def test_other_words_are_kept(word: str) -> None:
    assert cell_text(f" {word} ") == word


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("20", 20.0),
        ("20x", 20.0),
        ("20X", 20.0),
        ("20 x", 20.0),
        ("40×", 40.0),
        ("62.5", 62.5),
        ("1,000.5", 1000.5),
        ("1e2", 100.0),
    ],
)
def test_a_magnification_may_be_written_with_x(text: str, value: float) -> None:
    assert cell_value("microscopy.magnification", text) == value


@pytest.mark.parametrize("text", ["high", "x20", "20x/0.75", "-20", "0", "inf", "1,000", "0,65", "1e999", "20xx", "٢٠"])
def test_what_is_no_magnification_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"number|greater"):
        cell_value("microscopy.magnification", text)


def test_a_comma_that_may_mean_two_things_is_said_to_do_so() -> None:
    with pytest.raises(ValueError, match="decimal point or a thousand"):
        cell_value("geometry.pixel_size_um", "0,650")


def test_x_is_no_part_of_a_pixel_size() -> None:
    with pytest.raises(ValueError, match="a number is needed"):
        cell_value("geometry.pixel_size_um", "0.65x")


@pytest.mark.parametrize(("text", "value"), [("3", 3), ("03", 3), ("3.0", 3), ("1,234,567", 1234567)])
def test_whole_numbers_are_read(text: str, value: int) -> None:
    result = cell_value("geometry.timepoint", text)
    assert result == value
    assert isinstance(result, int)


@pytest.mark.parametrize("text", ["3.5", "-1", "99999999999", "3a"])
def test_what_is_no_index_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"number|greater"):
        cell_value("geometry.z_slice", text)


def test_more_bits_than_a_sample_has_are_refused() -> None:
    with pytest.raises(ValueError, match="less than or equal to 32"):
        cell_value("geometry.significant_bits", "64")


@given(st.text(min_size=1))
def test_identifiers_stay_text(text: str) -> None:
    assert cell_value("experiment.plate", text) == text


@given(st.text(min_size=1))
def test_any_text_is_a_number_or_a_value_error(text: str) -> None:
    try:
        assert cell_value("geometry.pixel_size_um", text) > 0  # type: ignore[operator]
    except ValueError as error:
        assert str(error)


def test_the_kind_of_every_field_that_a_table_may_state_is_known() -> None:
    numbers = {name: number_kind(name) for name in RECORD_FIELDS if number_kind(name)}
    assert numbers == {
        "microscopy.magnification": float,
        "geometry.pixel_size_um": float,
        "geometry.significant_bits": int,
        "geometry.z_slice": int,
        "geometry.timepoint": int,
        "geometry.depth": int,
    }
