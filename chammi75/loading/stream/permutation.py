"""Keyed permutations and keyed random numbers that are computed for any position alone, without a table.

A permutation of [0, n) is a generalised Feistel network (J. Black and P. Rogaway, "Ciphers with arbitrary finite
domains", CT-RSA 2002, their third method): a number is written as (left, right) with left below a, the first even
number from sqrt(n) on, and right below b = ceil(n / a), and each round adds to one half, modulo its size, a keyed hash
of the other. That permutes [0, a b), which is less than a larger than [0, n); whatever lands outside is put through
again until it is inside (cycle walking). A balanced network over bits would walk up to four times as far, and were a
and b both odd, no round could make an odd permutation.

The hash is the finaliser of splitmix64 (G. Steele, D. Lea and C. Flood, "Fast splittable pseudorandom number
generators", OOPSLA 2014, with the constants of D. Stafford's mix 13). All of it is arithmetic of unsigned 64-bit
integers, so that every platform and version of NumPy finds the same numbers. It is meant to look random, not to keep a
secret.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from chammi75.errors import ChammiError

_Words = NDArray[np.uint64]

_MASK = 2**64 - 1
_GAMMA = 0x9E3779B97F4A7C15
"""2**64 divided by the golden ratio: the step of splitmix64."""

_FIRST = 0xBF58476D1CE4E5B9
_SECOND = 0x94D049BB133111EB
_FACTORS = (np.uint64(_FIRST), np.uint64(_SECOND))
_SHIFTS = (np.uint64(30), np.uint64(27), np.uint64(31))
_HALF = np.uint64(32)

_ROUNDS = 6
"""Four make a permutation that cannot be told from a random one where the halves are large (Luby and Rackoff 1988)."""

_SHORT = 256
_ROUNDS_OF_SHORT = 24
"""Below that length halves have few values: it takes more rounds until all permutations are about equally frequent."""

_LONGEST = 2**40

_UNIFORMS = 0x756E69666F726D73
"""Keeps keys of ``uniforms`` apart from keys of ``permuted``."""


def permuted(positions: ArrayLike, length: int | NDArray[np.int64], *key: int | NDArray[np.int64]) -> NDArray[np.int64]:
    """Where a keyed permutation of [0, length) takes each position.

    Parameters
    ----------
    positions : array of int, shape (N,)
        Each at least 0 and below its length.
    length : int or ndarray of int64, shape (N,)
        1 to 2**40. An array gives each position a permutation of its own length.
    *key : int or ndarray of int64, shape (N,)
        Which permutation: numbers from 0 to 2**64 - 1, in an order that matters. Arrays give each position its own.

    Returns
    -------
    ndarray of int64, shape (N,)

    Raises
    ------
    ChammiError
        If a length or an entry of the key is out of range, or a position is not inside of its length.

    Examples
    --------
    >>> permuted([0, 1, 2, 3, 4], 5, 7).tolist()
    [3, 4, 0, 2, 1]
    >>> sorted(permuted(range(1000), 1000, 1, 2).tolist()) == list(range(1000))
    True
    >>> permuted([3, 3], np.array([4, 1000]), np.array([1, 2])).shape
    (2,)
    """
    numbers = np.atleast_1d(_integers(positions, "positions")).astype(np.uint64)
    if not numbers.size:
        return numbers.astype(np.int64)
    size = _lengths(length)
    if (numbers >= size).any():
        shown = int(numbers[numbers >= size][0])
        raise ChammiError(f"position {shown} is not in the permutation, which holds 0 to its length less 1")
    secret = np.asarray(_hashed(key), np.uint64)
    short = size < np.uint64(_SHORT)
    if short.all() or not short.any():
        return _walked(numbers, size, secret, _ROUNDS_OF_SHORT if short.all() else _ROUNDS).astype(np.int64)
    for part, rounds in ((short, _ROUNDS_OF_SHORT), (~short, _ROUNDS)):
        places = np.flatnonzero(part)
        numbers[places] = _walked(numbers[places], size[places], _at(secret, places), rounds)
    return numbers.astype(np.int64)


def uniforms(seed: int, epoch: int, positions: ArrayLike, draws: int) -> NDArray[np.float64]:
    """Random numbers in [0, 1) that depend on nothing but the seed, the epoch, the position and the number of the draw.

    Parameters
    ----------
    seed, epoch : int
        At least 0, below 2**64.
    positions : array of int, shape (N,)
        Positions in the epoch, in any order and any company.
    draws : int
        Numbers for each position. More draws leave the first ones as they are.

    Returns
    -------
    ndarray of float64, shape (N, draws)
        Multiples of 2**-53.

    Examples
    --------
    >>> table = uniforms(0, 3, [10, 11, 12], 2)
    >>> bool((uniforms(0, 3, [12], 4)[0, :2] == table[2]).all())
    True
    """
    numbers = np.atleast_1d(_integers(positions, "positions")).astype(np.uint64)
    base = int(_hashed((_UNIFORMS, seed, epoch)))
    streams = _mixed((numbers * np.uint64(_GAMMA)) ^ np.uint64(base))
    steps = np.array([_GAMMA * (draw + 1) & _MASK for draw in range(draws)], np.uint64)
    words = _mixed(streams[:, None] + steps)
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _walked(numbers: _Words, size: _Words, secret: _Words, rounds: int) -> _Words:
    """The permutation of [0, size): through the network until inside."""
    left = np.sqrt(size.astype(np.float64)).astype(np.uint64)  # IEEE 754 rounds a square root alike everywhere
    left = left + (left * left < size)
    left = left + (left & np.uint64(1))
    right = (size + (left - np.uint64(1))) // left
    numbers = _network(numbers, left, right, secret, rounds)
    outside = np.flatnonzero(numbers >= size)
    while outside.size:
        walked = _network(numbers[outside], _at(left, outside), _at(right, outside), _at(secret, outside), rounds)
        numbers[outside] = walked
        outside = outside[walked >= _at(size, outside)]
    return numbers


def _network(numbers: _Words, left_size: _Words, right_size: _Words, secret: _Words, rounds: int) -> _Words:
    """Each number of [0, a b) through all rounds, of which there is an even number."""
    left = numbers // right_size
    right = numbers - left * right_size
    spare, hashed = np.empty_like(left), np.empty_like(left)
    sizes = (left_size, right_size)
    steps = np.array([_GAMMA * (number + 1) & _MASK for number in range(rounds)], np.uint64)
    keys = secret + steps.reshape((rounds,) + (1,) * secret.ndim)
    for number in range(rounds):
        size = sizes[number % 2]
        np.bitwise_xor(right, keys[number], out=hashed)
        _mixed(hashed, spare)
        np.right_shift(hashed, _HALF, out=hashed)  # to [0, size) by multiplication (D. Lemire 2019): no slow remainder
        np.multiply(hashed, size, out=hashed)
        np.right_shift(hashed, _HALF, out=hashed)
        np.add(left, hashed, out=left)
        np.subtract(left, size, out=hashed)  # below 0 is far above: the smaller of both is the remainder
        np.minimum(left, hashed, out=left)
        left, right = right, left
    return left * right_size + right


def _mixed(words: _Words, spare: _Words | None = None) -> _Words:
    """The finaliser of splitmix64, in place."""
    spare = np.empty_like(words) if spare is None else spare
    np.right_shift(words, _SHIFTS[0], out=spare)
    np.bitwise_xor(words, spare, out=words)
    np.multiply(words, _FACTORS[0], out=words)
    np.right_shift(words, _SHIFTS[1], out=spare)
    np.bitwise_xor(words, spare, out=words)
    np.multiply(words, _FACTORS[1], out=words)
    np.right_shift(words, _SHIFTS[2], out=spare)
    return np.bitwise_xor(words, spare, out=words)


def _mixed_integer(word: int) -> int:
    word = (word ^ (word >> 30)) * _FIRST & _MASK
    word = (word ^ (word >> 27)) * _SECOND & _MASK
    return word ^ (word >> 31)


def _hashed(key: tuple[Any, ...]) -> int | _Words:
    """A key as one word, or as one for each position."""
    word: int | _Words = len(key)
    for part in key:
        if isinstance(word, int) and not isinstance(part, np.ndarray):
            word = _mixed_integer(((word ^ _key_part(part)) + _GAMMA) & _MASK)
            continue
        parts = _integers(part, "an entry of the key").astype(np.uint64) if isinstance(part, np.ndarray) else part
        if not isinstance(part, np.ndarray):
            parts = np.uint64(_key_part(part))
        word = _mixed(np.atleast_1d((np.asarray(word, np.uint64) ^ parts) + np.uint64(_GAMMA)))
    return word


def _key_part(part: Any) -> int:
    if isinstance(part, bool | np.bool_) or not isinstance(part, int | np.integer) or not 0 <= part <= _MASK:
        raise ChammiError(f"{part!r} cannot be part of a key: seeds and epochs are whole numbers from 0 to 2**64 - 1")
    return int(part)


def _integers(values: ArrayLike, what: str) -> NDArray[Any]:
    array = np.asarray(values)
    if not array.size:
        return array.astype(np.int64)
    if array.dtype.kind not in "iu" or array.ndim > 1 or array.min() < 0:
        raise ChammiError(f"{what} must be whole numbers, at least 0, in one dimension")
    return array


def _lengths(length: int | NDArray[np.int64]) -> _Words:
    sizes = np.asarray(length)
    if sizes.dtype.kind not in "iu" or sizes.ndim > 1 or sizes.min() < 1 or sizes.max() > _LONGEST:
        raise ChammiError("the length of a permutation must be a whole number from 1 to 2**40")
    return sizes.astype(np.uint64)


def _at(values: _Words, places: NDArray[np.intp]) -> _Words:
    return values[places] if values.ndim else values
