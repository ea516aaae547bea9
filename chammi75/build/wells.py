"""Wells: the spellings of their names, and the plates that they can lie on."""

from __future__ import annotations

import re

PLATE_FORMATS: dict[int, tuple[int, int]] = {
    6: (2, 3),
    12: (3, 4),
    24: (4, 6),
    48: (6, 8),
    96: (8, 12),
    384: (16, 24),
    1536: (32, 48),
}
"""Number of wells -> rows and columns of the plates that are sold."""

_LETTERED = re.compile(r"([A-Za-z]{1,2})[-_ ]?0*([1-9][0-9]{0,2})")
_NUMBERED = re.compile(r"[Rr]0*([1-9][0-9]{0,2})[-_ ]?[Cc]0*([1-9][0-9]{0,2})")


def parse_well(text: str) -> tuple[int, int] | None:
    """Row and column of a well, both from 1; None if the text names none.

    Examples
    --------
    >>> parse_well("A01"), parse_well("a1"), parse_well("r01c01"), parse_well("AF48"), parse_well("0002")
    ((1, 1), (1, 1), (1, 1), (32, 48), None)
    """
    text = text.strip()
    numbered = _NUMBERED.fullmatch(text)
    if numbered:
        return int(numbered[1]), int(numbered[2])
    lettered = _LETTERED.fullmatch(text)
    if lettered:
        return row_number(lettered[1]), int(lettered[2])
    return None


def spell_well(row: int, column: int) -> str:
    """The usual name of a well, from its row and column (from 1).

    Examples
    --------
    >>> spell_well(1, 1), spell_well(32, 48)
    ('A01', 'AF48')
    """
    letters = ""
    while row > 0:
        row, letter = divmod(row - 1, 26)
        letters = chr(ord("A") + letter) + letters
    return f"{letters}{column:02d}"


def join_well(row: str, column: str) -> str:
    """The name of a well whose row (a letter or a number) and column stand apart; what they say if it is no well.

    Examples
    --------
    >>> join_well("b", "3"), join_well("02", "03"), join_well("", "3")
    ('B03', 'B03', '')
    """
    place = parse_well(f"r{row}c{column}" if row.isdigit() else f"{row}{column}")
    return spell_well(*place) if place else f"{row}{column}" if row and column else ""


def row_number(letters: str) -> int:
    """The number of a row, from 1: A is 1, AA is 27.

    Examples
    --------
    >>> row_number("h"), row_number("AF")
    (8, 32)
    """
    number = 0
    for letter in letters.upper():
        number = number * 26 + ord(letter) - ord("A") + 1
    return number


def lies_beyond_plates(text: str) -> bool:
    """Whether a text names a well that no plate of `PLATE_FORMATS` has.

    Examples
    --------
    >>> lies_beyond_plates("H12"), lies_beyond_plates("Z60"), lies_beyond_plates("the left one")
    (False, True, False)
    """
    place = parse_well(text)
    rows, columns = max(PLATE_FORMATS.values())
    return place is not None and (place[0] > rows or place[1] > columns)
