"""How an epoch is shared out among groups (studies, channel types): a weighting into shares, shares into whole draws.

Everything is exact, so that every machine finds the same numbers: logarithms are rounded decimal ones, and shares are
compared as the fractions that they are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from decimal import Context, Decimal
from difflib import get_close_matches
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chammi75.errors import ChammiError

WEIGHTINGS = ("none", "log", "sqrt")
"""How sizes of groups are evened out: not at all, by ln(1 + n), by the square root of n."""

OTHERS = "*"
"""In a table of shares: each group that it does not name."""


def shares_of(counts: Mapping[str, int], weighting: str | Mapping[str, float]) -> NDArray[np.float64]:
    """The share of an epoch that each group has, in proportion: they need not add up to 1.

    Parameters
    ----------
    counts : mapping of str to int
        Units of each group, in the order of their numbers.
    weighting : {"none", "log", "sqrt"} or mapping of str to float
        By the number n of units, by ln(1 + n), by the square root of n, or a table of shares by name of group. A share
        is of samples, however many units a group has. Groups that a table lacks have the share of its entry ``"*"``,
        each; without that entry all must be named. A group with the share 0 is never drawn.

    Returns
    -------
    ndarray of float64, shape (G,)

    Raises
    ------
    ChammiError
        If the weighting is none of these, or a table names an unknown group, leaves one out, has a share that is no
        number of at least 0, or nothing but zeros.

    Examples
    --------
    >>> shares_of({"a": 100, "b": 400}, "sqrt").tolist()
    [10.0, 20.0]
    >>> shares_of({"a": 100, "b": 400, "c": 9}, {"b": 2, "*": 0.5}).tolist()
    [0.5, 2.0, 0.5]
    """
    if isinstance(weighting, Mapping):
        return _from_table(counts, weighting)
    if weighting == "none":
        return np.array([float(count) for count in counts.values()])
    if weighting == "sqrt":
        return np.array([math.sqrt(count) for count in counts.values()])
    if weighting == "log":
        exact = Context(prec=28)  # a decimal logarithm is rounded alike everywhere, a binary one is not
        return np.array([float(Decimal(1 + int(count)).ln(exact)) for count in counts.values()])
    near = get_close_matches(str(weighting), WEIGHTINGS, 1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    raise ChammiError(
        f"weighting={weighting!r} is not known{hint} It can be {', '.join(map(repr, WEIGHTINGS))} "
        f"or a table of shares by name of group"
    )


def apportion(total: int, shares: Sequence[float]) -> list[int]:
    """``total`` shared out in proportion, by largest remainder; of equal remainders the first ones win.

    Examples
    --------
    >>> apportion(10, [1.0, 1.0, 1.0])
    [4, 3, 3]
    >>> apportion(7, [0.0, 2.5, 1.0])
    [0, 5, 2]
    """
    fractions = [Fraction(float(share)) for share in shares]
    scale = math.lcm(*(fraction.denominator for fraction in fractions))
    parts = [fraction.numerator * (scale // fraction.denominator) for fraction in fractions]
    whole = sum(parts)
    found, remainders = map(list, zip(*(divmod(total * part, whole) for part in parts), strict=True))
    left_over = sorted(range(len(parts)), key=lambda group: -remainders[group])[: total - sum(found)]
    for group in left_over:
        found[group] += 1
    return found


def _from_table(counts: Mapping[str, int], table: Mapping[str, float]) -> NDArray[np.float64]:
    for name, share in table.items():
        _check_share(name, share)
        if name not in counts and name != OTHERS:
            near = get_close_matches(str(name), counts, 3, 0.5) or list(counts)[:12]
            raise ChammiError(
                f"the weighting names {name!r}, and there is no such group here; nearest are "
                f"{', '.join(map(repr, near))}"
            )
    missing = [name for name in counts if name not in table]
    if missing and OTHERS not in table:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise ChammiError(
            f"the weighting has no share for {', '.join(map(repr, missing[:5]))}{more}: name each group, with 0 if it "
            f'must not be drawn, or give a share for all others as "*"'
        )
    shares = np.array([float(table[name] if name in table else table[OTHERS]) for name in counts])
    if not shares.any():
        raise ChammiError("the weighting gives every group the share 0: at least one must be above it")
    return shares


def _check_share(name: str, share: Any) -> None:
    number = isinstance(share, int | float | np.integer | np.floating) and not isinstance(share, bool)
    if not number or not math.isfinite(share) or share < 0:
        raise ChammiError(f"the weighting gives {name!r} the share {share!r}: it must be a number, 0 or above")
