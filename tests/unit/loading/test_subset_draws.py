"""Draws: which images, how many of each group, and that nothing but ids and seed decides."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chammi75.loading.subsets import draws
from chammi75.loading.subsets.draws import Groups, draw
from chammi75.loading.subsets.quotas import quotas
from chammi75.loading.subsets.siphash import siphash
from chammi75.store.facets import Facet

sizes = st.lists(st.integers(1, 10**7), min_size=1, max_size=40)
balances = st.sampled_from(["none", "log", "sqrt", "equal"])


def siphash_in_python(text: str, key: tuple[int, int]) -> int:
    """SipHash-2-4 as its authors write it down."""
    mask = 2**64 - 1
    v = [
        key[0] ^ 0x736F6D6570736575,
        key[1] ^ 0x646F72616E646F6D,
        key[0] ^ 0x6C7967656E657261,
        key[1] ^ 0x7465646279746573,
    ]

    def rotated(x: int, bits: int) -> int:
        return (x << bits | x >> (64 - bits)) & mask

    def rounds(number: int) -> None:
        for _ in range(number):
            for a, b, bits in ((0, 1, 13), (2, 3, 16)):
                v[a] = (v[a] + v[b]) & mask
                v[b] = rotated(v[b], bits) ^ v[a]
            v[0] = rotated(v[0], 32)
            for a, b, bits in ((0, 3, 21), (2, 1, 17)):
                v[a] = (v[a] + v[b]) & mask
                v[b] = rotated(v[b], bits) ^ v[a]
            v[2] = rotated(v[2], 32)

    data = text.encode()
    padded = data + bytes(7 - len(data) % 8) + bytes([len(data) % 256])
    for start in range(0, len(padded), 8):
        word = int.from_bytes(padded[start : start + 8], "little")
        v[3] ^= word
        rounds(2)
        v[0] ^= word
    v[2] ^= 0xFF
    rounds(4)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


def groups_of(words: list[Any]) -> Groups:
    values = list(dict.fromkeys(word for word in words if word is not None))
    return Groups.of([Facet(values, np.array([-1 if w is None else values.index(w) for w in words], np.int32))])


def drawn_ids(ids: list[str], words: list[Any] | None, **options: Any) -> list[str]:
    mask = draw(pa.array(ids, pa.string()), None if words is None else groups_of(words), **{"seed": 0, **options})
    return [name for name, taken in zip(ids, mask, strict=True) if taken]


def test_the_hash_has_the_published_test_vectors() -> None:
    """The first and the fifteenth of the authors' reference implementation: key 00 … 0f, message 00 01 02 …"""
    key = (0x0706050403020100, 0x0F0E0D0C0B0A0908)
    messages = ["", bytes(range(15)).decode()]
    assert siphash(messages, key).tolist() == [0x726FDB47DD0E0E31, 0xA129CA6149BE45E5]


@given(st.lists(st.text(max_size=40), max_size=8), st.tuples(*[st.integers(0, 2**64 - 1)] * 2), st.booleans())
def test_the_hash_is_siphash_of_any_text(texts: list[str], key: tuple[int, int], large: bool) -> None:
    texts = [text.encode("utf-8", "ignore").decode() for text in texts]
    array = pa.array(["in front", *texts], pa.large_string() if large else pa.string()).slice(1)
    assert siphash(array, key).tolist() == [siphash_in_python(text, key) for text in texts]


def test_a_draw_is_the_same_for_ever() -> None:
    """These ids were written down once; if this fails, every subset that anybody saved finds other images."""
    ids = [f"study{number % 3}/image{number:03d}.tif" for number in range(60)]
    words = [name[:6] for name in ids]
    numbers = {"study0": (42, 54), "study1": (28, 40), "study2": (5, 50)}
    expected = [f"{study}/image{number:03d}.tif" for study, pair in numbers.items() for number in pair]
    assert sorted(drawn_ids(ids, words, per_group=2)) == expected
    last = drawn_ids(ids, None, total=4, seed=2**64 - 1)
    assert last == ["study0/image006.tif", "study0/image045.tif", "study0/image054.tif", "study1/image058.tif"]
    assert last == sorted(sorted(ids, key=lambda name: siphash_in_python(name, (2**64 - 1, 1)))[:4])


@settings(max_examples=50)
@given(
    st.lists(
        st.tuples(st.text("abc/é", max_size=5), st.sampled_from(["x", "y", None])), unique_by=lambda pair: pair[0]
    ),
    st.randoms(use_true_random=False),
    st.integers(1, 6),
    balances,
    st.integers(0, 2**64 - 1),
)
def test_order_of_rows_does_not_matter(images: Any, random: Any, number: int, balance: Any, seed: int) -> None:
    shuffled = list(images)
    random.shuffle(shuffled)
    for options in ({"per_group": number}, {"total": number}, {"per_group": number, "largest_groups": 1}):
        one, other = (
            drawn_ids([name for name, _ in order], [word for _, word in order], balance=balance, seed=seed, **options)
            for order in (images, shuffled)
        )
        assert sorted(one) == sorted(other)


@given(st.sets(st.text(max_size=6).map(lambda t: t.encode("utf-8", "ignore").decode()), min_size=1), st.integers(1, 9))
def test_larger_draws_hold_smaller_ones(names: set[str], number: int) -> None:
    ids = sorted(names)
    smaller, larger = (set(drawn_ids(ids, None, total=n)) for n in (number, number + 1))
    assert smaller <= larger
    assert len(smaller) == min(number, len(ids))


def test_equal_hashes_are_told_apart_by_the_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draws, "ranks", lambda texts, seed, purpose: np.zeros(len(texts), np.uint64))
    assert drawn_ids(["c", "a", "b"], None, total=2) == ["a", "b"]


def test_another_seed_is_another_draw_and_all_images_come_up_alike() -> None:
    ids = [f"image {number}" for number in range(40)]
    counts = Counter(name for seed in range(300) for name in drawn_ids(ids, None, total=10, seed=seed))
    assert set(counts) == set(ids)
    assert all(40 < count < 115 for count in counts.values())  # 75 ± 7.5 expected, at more than four sigma


def test_groups_of_several_fields_are_their_combinations_in_a_fixed_order() -> None:
    first = Facet(["b", "a"], np.array([0, 1, 1, -1, 0], np.int32))
    second = Facet([2.0, 1.0], np.array([1, 0, 0, 0, -1], np.int32))
    groups = Groups.of([first, second])
    assert groups.keys == [("a", 2.0), ("b", 1.0), ("b", None), (None, 2.0)]
    assert [groups.keys[code] for code in groups.codes] == [
        ("b", 1.0),
        ("a", 2.0),
        ("a", 2.0),
        (None, 2.0),
        ("b", None),
    ]
    assert groups.sizes.tolist() == [2, 1, 1, 1]


def test_the_largest_groups_are_known_ones_and_ties_go_by_name() -> None:
    ids = [f"{number}" for number in range(9)]
    words = [None, None, None, None, "b", "b", "a", "a", "c"]
    assert drawn_ids(ids, words, largest_groups=1) == ["6", "7"]
    assert drawn_ids(ids, words, largest_groups=3, per_group=1, balance="equal")[-1] == "8"
    assert drawn_ids(ids, [None] * 9, largest_groups=2) == []


@given(sizes, st.integers(1, 10**6), balances)
def test_a_group_gives_no_more_than_asked_and_no_less_than_one(
    group_sizes: list[int], number: int, balance: Any
) -> None:
    shares = quotas(group_sizes, per_group=number, balance=balance)
    assert all(1 <= share <= min(size, number) for share, size in zip(shares, group_sizes, strict=True))
    ordered = [share for _, share in sorted(zip(group_sizes, shares, strict=True))]
    assert ordered == sorted(ordered)  # a larger group gives no less
    assert shares[group_sizes.index(max(group_sizes))] == min(max(group_sizes), number)


@given(sizes, st.integers(1, 10**7), balances, st.none() | st.integers(1, 10**5))
def test_a_total_is_met_to_the_image(group_sizes: list[int], total: int, balance: Any, per_group: int | None) -> None:
    caps = [size if per_group is None else min(size, per_group) for size in group_sizes]
    shares = quotas(group_sizes, total=total, balance=balance, per_group=per_group)
    assert sum(shares) == min(total, sum(caps))
    assert all(0 <= share <= cap for share, cap in zip(shares, caps, strict=True))


@given(sizes)
def test_balance_alone_keeps_the_smallest_group_whole(group_sizes: list[int]) -> None:
    assert quotas(group_sizes, balance="equal") == [min(group_sizes)] * len(group_sizes)
    assert quotas(group_sizes) == group_sizes
    for balance in ("log", "sqrt"):
        shares = quotas(group_sizes, balance=balance)  # type: ignore[arg-type]
        assert shares[group_sizes.index(min(group_sizes))] == min(group_sizes)


@pytest.mark.parametrize(
    ("balance", "total", "shares"),
    [
        ("none", 1001, [1, 100, 900]),
        ("sqrt", 300, [7, 73, 220]),
        ("log", 300, [10, 125, 165]),
        ("equal", 300, [10, 145, 145]),
    ],
)
def test_the_formula_by_hand(balance: Any, total: int, shares: list[int]) -> None:
    """Of groups of 10, 1000 and 9000. By sqrt: 300 x 31.6 / (3.2 + 31.6 + 94.9) = 73.2 of the second. By log the first
    gives its 10, and the second 290 x 6.91 / (6.91 + 9.11) = 125.1."""
    found = quotas([10, 1000, 9000], total=total, balance=balance)
    assert found == shares
