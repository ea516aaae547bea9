"""How many images of each group are drawn. Integers throughout, so that every machine finds the same numbers.

A group of n images has the weight f(n): n for ``none``, the square root of n for ``sqrt``, ln(1 + n) for ``log``, 1
for ``equal``. It gives min(n, per_group, c f(n)) images, where c follows from what is asked:

- ``total``: c is such that there are so many images in all (fractions are settled by largest remainder);
- ``per_group`` alone: the largest group gives ``per_group``, so c = per_group / f(largest n), rounded to the nearest
  and to one image at least; for ``none`` there is no c, and every group gives what it has up to ``per_group``;
- neither: the smallest group is kept whole, c = n / f(n) of that one; for ``none`` all images are kept.

So ``equal`` with neither gives every group exactly as many as the smallest has.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Context, Decimal
from math import isqrt

from chammi75.schemas.subset import Balance

_SCALE = 10**12


def quotas(
    sizes: Sequence[int], *, balance: Balance = "none", per_group: int | None = None, total: int | None = None
) -> list[int]:
    """How many images of each group are drawn.

    Parameters
    ----------
    sizes : sequence of int
        Images of each group, at least one. Where shares are equal, earlier groups get the images that are left over.
    balance : {"none", "log", "sqrt", "equal"}
        How sizes are evened out.
    per_group, total : int, optional
        Images of a group and in all, at most.

    Examples
    --------
    >>> quotas([10, 1000, 100_000], per_group=100)
    [10, 100, 100]
    >>> quotas([10, 1000, 100_000], per_group=100, balance="log")
    [10, 60, 100]
    >>> quotas([10, 1000, 100_000], total=600, balance="sqrt")
    [5, 54, 541]
    >>> quotas([10, 1000, 100_000], balance="equal")
    [10, 10, 10]
    """
    caps = [size if per_group is None else min(size, per_group) for size in sizes]
    if total is not None:
        return _shared_out(caps, [_weight(size, balance) for size in sizes], total)
    if balance == "none" or not sizes:
        return caps
    if per_group is not None:
        most, amount = _weight(max(sizes), balance), per_group
    else:
        most, amount = _weight(min(sizes), balance), min(sizes)
    shares = (_rounded(amount * _weight(size, balance), most) for size in sizes)
    return [min(cap, max(share, 1)) for cap, share in zip(caps, shares, strict=True)]


def _weight(size: int, balance: Balance) -> int:
    """The weight of a group, times 10**12; a decimal logarithm is rounded alike everywhere, a binary one is not."""
    if balance == "equal":
        return _SCALE
    if balance == "sqrt":
        return isqrt(size * _SCALE**2)
    if balance == "log":
        return int(Decimal(1 + size).ln(Context(prec=28)) * _SCALE)
    return size * _SCALE


def _rounded(numerator: int, denominator: int) -> int:
    """The nearest whole number; halves go up."""
    return (2 * numerator + denominator) // (2 * denominator)


def _shared_out(caps: Sequence[int], weights: Sequence[int], total: int) -> list[int]:
    """``total`` shared out by weight, no share above its cap."""
    if total >= sum(caps):
        return list(caps)
    shares = [0] * len(caps)
    active, left = list(range(len(caps))), total
    while True:  # groups that cannot fill their share give the rest to the others
        weight = sum(weights[k] for k in active)
        full = [k for k in active if left * weights[k] >= caps[k] * weight]
        if not full:
            break
        for k in full:
            shares[k] = caps[k]
        left -= sum(caps[k] for k in full)
        filled = set(full)
        active = [k for k in active if k not in filled]
    remainders = []
    for k in active:
        shares[k], remainder = divmod(left * weights[k], weight)
        remainders.append((-remainder, k))
    for _, k in sorted(remainders)[: total - sum(shares)]:
        shares[k] += 1
    return shares
