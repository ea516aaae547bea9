"""Permutations, random numbers, shares and the order of epochs, as pure functions."""

from __future__ import annotations

import pickle
from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from chammi75.errors import ChammiError
from chammi75.loading.stream.cells import floor_sums
from chammi75.loading.stream.order import Order, Shuffle, plan_order
from chammi75.loading.stream.permutation import _mixed_integer, permuted, uniforms
from chammi75.loading.stream.shares import apportion, shares_of

SHARDS = [5, 0, 9, 1, 12, 7, 3]
UNITS = sum(SHARDS)
SHUFFLES = ["global", "window:1", "window:2", "window:100", "none"]
OWNERS = np.random.default_rng(5).integers(-1, 4, UNITS).astype(np.int32)

keys = st.lists(st.integers(0, 2**64 - 1), max_size=3)


def whole(order: Order, epoch: int) -> list[int]:
    return order.units(epoch, np.arange(order.length)).tolist()


def deviations(counts: NDArray[Any], expected: float) -> float:
    """Chi-squared of counts, in standard deviations from what chance gives."""
    freedom = counts.size - 1
    return float((((counts - expected) ** 2 / expected).sum() - freedom) / np.sqrt(2 * freedom))


# permutations


@given(st.integers(1, 600), keys)
@settings(max_examples=150, deadline=None)
def test_a_permutation_takes_each_number_to_another_one(length: int, key: list[int]) -> None:
    assert sorted(permuted(range(length), length, *key).tolist()) == list(range(length))


@given(st.integers(1, 2**40), st.data(), keys)
@settings(max_examples=60, deadline=None)
def test_a_long_permutation_is_computed_for_any_position_alone(length: int, data: Any, key: list[int]) -> None:
    positions = data.draw(st.lists(st.integers(0, length - 1), min_size=1, max_size=30, unique=True))
    found = permuted(positions, length, *key)
    assert found.dtype == np.int64
    assert found.min() >= 0 and found.max() < length
    assert len(set(found.tolist())) == len(positions)
    assert [int(permuted([position], length, *key)[0]) for position in positions] == found.tolist()


@given(st.lists(st.tuples(st.integers(1, 5000), st.integers(0, 2**63 - 1)), min_size=1, max_size=20))
@settings(max_examples=50, deadline=None)
def test_each_position_may_have_a_length_and_a_key_of_its_own(pairs: list[tuple[int, int]]) -> None:
    lengths, last = (np.array(column) for column in zip(*pairs, strict=True))
    found = permuted(lengths // 2, lengths, 3, last, 8)
    alone = [int(permuted([length // 2], length, 3, key, 8)[0]) for length, key in pairs]
    assert found.tolist() == alone


@pytest.mark.parametrize("length", [2, 3, 5, 7, 9, 16, 37])
def test_every_position_goes_to_every_place_about_equally_often(length: int) -> None:
    times = 20_000
    positions = np.tile(np.arange(length), times)
    found = permuted(positions, np.full(positions.size, length), 1, np.repeat(np.arange(times), length))
    table = np.zeros((length, length))
    np.add.at(table, (positions, found), 1)
    expected = times / length
    freedom = (length - 1) ** 2
    assert abs(((table - expected) ** 2 / expected).sum() - freedom) < 5 * np.sqrt(2 * freedom)


def test_all_permutations_of_five_numbers_are_about_equally_frequent() -> None:
    times = 60_000
    positions = np.tile(np.arange(5), times)
    found = permuted(positions, np.full(positions.size, 5), 2, np.repeat(np.arange(times), 5)).reshape(times, 5)
    _, counts = np.unique(found @ 5 ** np.arange(5), return_counts=True)
    assert counts.size == 120
    assert deviations(counts, times / 120) < 4


@pytest.mark.parametrize("length", [300, 4096, 100_003, 1 << 20])
def test_neighbours_are_as_far_apart_as_in_a_random_permutation(length: int) -> None:
    found = permuted(np.arange(length), length, 0, 1).astype(np.float64)
    assert abs(np.abs(np.diff(found)).mean() / (length / 3) - 1) < 5 / np.sqrt(length)
    for lag in (1, 2, 7, 64):
        assert abs(np.corrcoef(found[:-lag], found[lag:])[0, 1]) < 5 / np.sqrt(length)
    assert abs(np.corrcoef(found, np.arange(length))[0, 1]) < 5 / np.sqrt(length)


def test_neighbouring_seeds_give_unrelated_permutations() -> None:
    first, second = (permuted(np.arange(50_000), 50_000, seed, 0) for seed in (0, 1))
    assert abs(np.corrcoef(first, second)[0, 1]) < 5 / np.sqrt(50_000)
    assert (first == second).sum() < 10


def test_the_hash_is_that_of_splitmix64() -> None:
    assert _mixed_integer(0x9E3779B97F4A7C15) == 0xE220A8397B1DCDAF  # the first number of its stream from 0


def test_permutations_stay_what_they_were() -> None:
    assert permuted(range(7), 7, 0).tolist() == GOLDEN["seven"]
    assert permuted([0, 1, 2, 8_399_999], 8_400_000, 42, 3).tolist() == GOLDEN["millions"]
    assert permuted([0, 2**40 - 1], 2**40, 2**64 - 1).tolist() == GOLDEN["longest"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (([5], 5, 0), "position 5"),
        (([-1], 5, 0), "at least 0"),
        (([0.5], 5, 0), "whole numbers"),
        (([0], 0, 0), "2\\*\\*40"),
        (([0], 2**40 + 1, 0), "2\\*\\*40"),
        (([0], 5, -1), "-1 cannot be part of a key"),
        (([0], 5, True), "True cannot be part of a key"),
        (([0], 5, 2**64), "cannot be part of a key"),
    ],
)
def test_what_cannot_be_permuted_is_said(arguments: tuple[Any, ...], said: str) -> None:
    with pytest.raises(ChammiError, match=said):
        permuted(*arguments)


# random numbers


def test_random_numbers_depend_on_the_position_and_not_on_its_company() -> None:
    together = uniforms(1, 2, range(1000), 3)
    assert together.shape == (1000, 3)
    assert np.array_equal(uniforms(1, 2, [7, 3], 3), together[[7, 3]])
    assert np.array_equal(uniforms(1, 2, [7], 9)[:, :3], together[[7]])
    assert not np.array_equal(uniforms(1, 3, range(1000), 3), together)
    assert not np.array_equal(uniforms(2, 2, range(1000), 3), together)
    assert uniforms(1, 2, [], 3).shape == (0, 3)


def test_random_numbers_are_uniform_and_independent() -> None:
    numbers = uniforms(0, 0, range(100_000), 4)
    assert numbers.min() >= 0 and numbers.max() < 1
    for column in numbers.T:
        assert deviations(np.bincount((column * 64).astype(int), minlength=64), 100_000 / 64) < 4
        assert abs(np.corrcoef(column[:-1], column[1:])[0, 1]) < 5 / np.sqrt(100_000)
    between = np.corrcoef(numbers.T) - np.eye(4)
    assert np.abs(between).max() < 5 / np.sqrt(100_000)
    assert np.array_equal(numbers * 2**53, np.floor(numbers * 2**53))


def test_random_numbers_stay_what_they_were() -> None:
    assert uniforms(42, 3, [0, 8_399_999], 2).tolist() == GOLDEN["uniforms"]


# shares


def test_shares_follow_the_weighting() -> None:
    counts = {"a": 100, "b": 10_000, "c": 0}
    assert shares_of(counts, "none").tolist() == [100, 10_000, 0]
    assert shares_of(counts, "sqrt").tolist() == [10, 100, 0]
    assert shares_of(counts, "log") == pytest.approx(np.log1p([100, 10_000, 0]))
    assert shares_of(counts, {"a": 1, "b": 0.5, "c": 0}).tolist() == [1, 0.5, 0]
    assert shares_of(counts, {"b": 0, "*": 2}).tolist() == [2, 0, 2]


@pytest.mark.parametrize(
    ("weighting", "said"),
    [
        ("lgo", "did you mean 'log'"),
        ({"nucleos": 1, "*": 1}, "nearest are 'nucleus'"),
        ({"nucleus": 1}, "no share for 'er'"),
        ({"nucleus": -1, "er": 1}, "'nucleus' the share -1"),
        ({"nucleus": float("nan"), "er": 1}, "'nucleus' the share nan"),
        ({"nucleus": True, "er": 1}, "'nucleus' the share True"),
        ({"nucleus": 0, "er": 0}, "every group the share 0"),
    ],
)
def test_a_weighting_that_says_too_little_is_refused(weighting: Any, said: str) -> None:
    with pytest.raises(ChammiError, match=said):
        shares_of({"nucleus": 5, "er": 6}, weighting)


@given(st.integers(0, 10**6), st.lists(st.floats(0, 1e6), min_size=1, max_size=20).filter(any))
@settings(deadline=None)
def test_parts_add_up_and_are_within_one_of_the_ideal(total: int, shares: list[float]) -> None:
    parts = apportion(total, shares)
    assert sum(parts) == total
    ideal = total * np.array(shares) / np.sum(shares)
    assert np.abs(np.array(parts) - ideal).max() < 1 + 1e-6
    assert all(part == 0 for part, share in zip(parts, shares, strict=True) if not share)


@given(st.integers(0, 60), st.integers(1, 60), st.data())
@settings(max_examples=200, deadline=None)
def test_floor_sums_are_what_adding_up_gives(terms: int, modulus: int, data: Any) -> None:
    factor, addend = data.draw(st.integers(0, modulus - 1)), data.draw(st.integers(0, 3 * modulus))
    found = floor_sums(*(np.array([value, value]) for value in (terms, modulus, factor, addend)))
    assert found.tolist() == [sum((factor * i + addend) // modulus for i in range(terms))] * 2


# the order without shares


@pytest.mark.parametrize("shuffle", SHUFFLES)
def test_an_epoch_is_every_unit_once_and_another_one_is_another_order(shuffle: str) -> None:
    order = plan_order(SHARDS, shuffle=shuffle, seed=7)
    assert order.length == UNITS
    assert sorted(whole(order, 0)) == list(range(UNITS))
    if shuffle == "none":
        assert order.is_sequential
        assert whole(order, 0) == whole(order, 1) == list(range(UNITS))
    else:
        assert len({tuple(whole(order, epoch)) for epoch in range(4)}) == 4
        assert whole(plan_order(SHARDS, shuffle=shuffle, seed=8), 0) != whole(order, 0)


@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=12).filter(any),
    st.sampled_from(SHUFFLES),
    st.none() | st.integers(1, 200),
    st.integers(0, 2**64 - 1),
    st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None)
def test_no_unit_comes_a_second_time_before_all_came_once(
    shards: list[int], shuffle: str, samples: int | None, seed: int, first: int
) -> None:
    order = plan_order(shards, shuffle=shuffle, samples=samples, seed=seed)
    total = sum(shards)
    first = first * total // order.length  # some epoch, far from the first
    epochs = [whole(order, first + step) for step in range(2 + 2 * total // order.length)]
    assert {len(epoch) for epoch in epochs} == {samples or total}
    line = [unit for epoch in epochs for unit in epoch]
    begin = -first * order.length % total
    for cycle in range(begin, len(line) - total + 1, total):
        assert sorted(line[cycle : cycle + total]) == list(range(total))


def test_epochs_of_a_window_order_read_few_shards_where_they_are_short() -> None:
    order = plan_order([100] * 50, shuffle="window:2", samples=500)
    assert max(len(set((np.array(whole(order, epoch)) // 100).tolist())) for epoch in range(10)) <= 6


@pytest.mark.parametrize("shuffle", SHUFFLES)
@pytest.mark.parametrize("samples", [None, 11, 2 * UNITS + 3])
@pytest.mark.parametrize("weighted", [False, True])
def test_units_do_not_depend_on_how_positions_are_asked_for(shuffle: str, samples: int | None, weighted: bool) -> None:
    extra: dict[str, Any] = {"groups": OWNERS, "shares": [1, 2, 0, 0.7]} if weighted else {}
    order = plan_order(SHARDS, shuffle=shuffle, samples=samples, seed=3, **extra)
    for epoch in (0, 1, 5):
        line = np.array(whole(order, epoch))
        again = pickle.loads(pickle.dumps(order))  # noqa: S301 - our own
        mixed = np.random.default_rng(epoch).permutation(order.length)
        assert np.array_equal(again.units(epoch, mixed), line[mixed])
        assert [int(order.units(epoch, [position])[0]) for position in range(0, order.length, 5)] == line[::5].tolist()
        repeats = order.units(epoch, [order.length, order.length + 1, 3 * order.length])
        assert repeats.tolist() == [line[0], line[1 % order.length], line[0]]
        assert order.units(epoch, []).shape == (0,)


def test_a_far_epoch_costs_nothing_and_is_whole() -> None:
    order = plan_order([1000] * 20, shuffle="window:3", groups=np.arange(20_000) % 7, shares=np.ones(7), samples=999)
    assert len(whole(order, 10**9)) == 999


def test_a_global_order_mixes_the_whole_store_and_a_window_only_its_shards() -> None:
    shards = [100] * 20
    units = np.array(whole(plan_order(shards, shuffle="global", seed=1), 0))
    assert len(set((units[:100] // 100).tolist())) > 15
    order = plan_order(shards, shuffle="window:4", seed=1)
    units = np.array(whole(order, 0))
    for window in order.windows(0):
        inside = units[window.start : window.stop]
        assert set((inside // 100).tolist()) == set(window.shards.tolist())
        assert len(window.shards) == 4
        assert len(set((inside[:40] // 100).tolist())) == 4


# windows


@pytest.mark.parametrize("shuffle", SHUFFLES)
@pytest.mark.parametrize("samples", [None, 11, 3 * UNITS + 5])
@pytest.mark.parametrize("weighted", [False, True])
def test_windows_cover_the_epoch_and_hold_the_shards_of_their_units(
    shuffle: str, samples: int | None, weighted: bool
) -> None:
    extra: dict[str, Any] = {"groups": OWNERS, "shares": [1, 2, 0, 0.7]} if weighted else {}
    order = plan_order(SHARDS, shuffle=shuffle, samples=samples, seed=4, **extra)
    shard_of = np.repeat(np.arange(len(SHARDS)), SHARDS)
    for epoch in range(5):
        windows = list(order.windows(epoch))
        edges = [(window.start, window.stop) for window in windows]
        assert edges[0][0] == 0 and edges[-1][1] == order.length
        assert all(before[1] == after[0] for before, after in pairwise(edges))
        numbers = order.window_of(epoch, np.arange(order.length))
        shards = shard_of[whole(order, epoch)]
        for window in windows:
            assert window.start < window.stop
            assert (numbers[window.start : window.stop] == window.number).all()
            assert set(shards[window.start : window.stop].tolist()) <= set(window.shards.tolist())
            for position in {window.start, window.stop - 1}:
                later = list(order.windows(epoch, position))
                assert [found.number for found in later] == [found.number for found in windows[-len(later) :]]
                assert later[0].number == window.number
        assert not list(order.windows(epoch, order.length))


def test_empty_shards_take_no_place_in_a_window() -> None:
    order = plan_order([0, 5, 0, 5, 0, 5, 5], shuffle="window:2")
    assert [len(window.shards) for window in order.windows(0)] == [2, 2]


# the order with shares


@pytest.mark.parametrize("shuffle", SHUFFLES)
@pytest.mark.parametrize("samples", [None, 1, 10, 29, 100])
def test_every_epoch_has_the_same_number_of_each_group(shuffle: str, samples: int | None) -> None:
    shares = [1.0, 2.5, 0.0, 0.3]
    order = plan_order(SHARDS, groups=OWNERS, shares=shares, samples=samples, shuffle=shuffle, seed=2)
    drawn = int(np.isin(OWNERS, [0, 1, 3]).sum())
    assert order.draws == tuple(apportion(drawn if samples is None else samples, shares))
    for epoch in range(30):
        groups = OWNERS[whole(order, epoch)]
        assert tuple(np.bincount(groups, minlength=4).tolist()) == order.draws


@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=10).filter(any),
    st.sampled_from(SHUFFLES),
    st.integers(1, 120),
    st.integers(0, 2**32),
)
@settings(max_examples=60, deadline=None)
def test_a_group_goes_through_all_its_units_before_one_comes_again(
    shards: list[int], shuffle: str, samples: int, seed: int
) -> None:
    owners = np.random.default_rng(seed).integers(0, 3, sum(shards))
    counts = np.bincount(owners, minlength=3)
    order = plan_order(shards, groups=owners, shares=(counts > 0) * [1.0, 4.0, 2.0], samples=samples, shuffle=shuffle)
    assert order.draws is not None
    seen: Counter[int] = Counter()
    for epoch in range(12):
        seen.update(whole(order, epoch))
        for group in range(3):
            times = [seen[int(unit)] for unit in np.flatnonzero(owners == group)]
            assert sum(times) == (epoch + 1) * order.draws[group]
            assert not times or max(times) - min(times) <= 1


def test_all_shards_of_a_thinly_spread_group_have_their_turn() -> None:
    shards = [100] * 200
    owners = np.where(np.arange(20_000) % 100 == 17, 1, 0)  # one unit in each shard
    order = plan_order(shards, groups=owners, shares=[9.0, 1.0], samples=100, shuffle="window:10", seed=1)
    assert order.draws == (90, 10)
    seen = [unit // 100 for epoch in range(20) for unit in whole(order, epoch) if owners[unit]]
    assert sorted(seen) == list(range(200))


def test_the_parts_of_shards_stay_near_their_ideal() -> None:
    shards = np.random.default_rng(0).integers(200, 600, 100)
    order = plan_order(
        shards, groups=np.zeros(shards.sum(), int), shares=[1.0], samples=int(shards.sum() * 0.17), shuffle="window:4"
    )
    ideal = shards * 0.17
    for epoch in range(60):
        drawn = order.cells.drawn_before(epoch + 1) - order.cells.drawn_before(epoch)
        assert drawn.sum() == order.length
        assert np.abs(drawn - ideal).max() < 5


def test_draws_of_all_groups_are_mixed() -> None:
    owners = np.repeat([0, 1], 5000)
    order = plan_order([1000] * 10, groups=owners, shares=[1.0, 1.0], samples=4000, seed=1)
    groups = owners[whole(order, 0)]
    assert abs(np.corrcoef(groups[:-1], groups[1:])[0, 1]) < 5 / np.sqrt(4000)
    assert abs(groups[:400].mean() - 0.5) < 0.15


def test_a_group_goes_through_its_units_in_another_order_each_time() -> None:
    owners = np.repeat([0, 1], [30, 300])
    order = plan_order([110] * 3, groups=owners, shares=[1.0, 1.0], samples=60, seed=1)
    assert order.draws == (30, 30)
    rounds = []
    for epoch in range(6):  # each epoch takes the small group once
        units = order.units(epoch, np.arange(60))
        rounds.append(tuple(units[units < 30].tolist()))
    assert all(sorted(line) == list(range(30)) for line in rounds)
    assert len(set(rounds)) == 6


def test_units_of_a_group_are_kept_as_a_list_only_where_they_are_scattered() -> None:
    together = plan_order([50] * 4, groups=np.repeat([1, 0, 2], [60, 60, 80]), shares=[1.0, 1.0, 0.0], samples=50)
    assert together.cells.members is None
    assert set(whole(together, 0)) <= set(range(120))
    scattered = plan_order([50] * 4, groups=np.arange(200) % 3, shares=[1.0, 1.0, 0.0], samples=50)
    assert scattered.cells.members is not None and scattered.cells.members.dtype == np.int32


# golden values, and what is refused


def test_orders_stay_what_they_were() -> None:
    millions = [3000] * 2800
    assert plan_order(millions, seed=42).units(3, [0, 1, 8_399_999]).tolist() == GOLDEN["global"]
    assert plan_order(millions, seed=42, shuffle="window:16").units(3, [0, 1, 8_399_999]).tolist() == GOLDEN["window"]
    thousand = plan_order(millions, seed=42, shuffle="window:16", samples=1000)
    assert thousand.units(3, [0, 1, 999]).tolist() == GOLDEN["samples"]
    groups = np.arange(UNITS) % 3
    for shuffle in ("global", "window:2", "none"):
        order = plan_order(SHARDS, groups=groups, shares=[1.0, 2.0, 3.0], samples=8, seed=42, shuffle=shuffle)
        assert whole(order, 5) == GOLDEN[f"shares {shuffle}"]


@pytest.mark.parametrize(
    "text", ["", "Global", "window", "window:", "window:0", "window:-1", "window:1.5", "window:٣", 5]
)
def test_an_unknown_shuffle_names_those_that_there_are(text: Any) -> None:
    with pytest.raises(ChammiError, match=r"'global'.*'none'.*'window:N'.*'window:16'"):
        Shuffle.parse(text)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"shard_units": []}, "nothing is selected"),
        ({"shard_units": [0, 0]}, "nothing is selected"),
        ({"shard_units": [-1, 2]}, "shard_units"),
        ({"shard_units": [0.5]}, "shard_units"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": True}, "seed=True"),
        ({"samples": 0}, "samples=0"),
        ({"samples": 2.0}, "samples=2.0"),
        ({"samples": 2**41}, "too long"),
        ({"shares": [1.0]}, "shares are given without groups"),
        ({"groups": np.zeros(6, int)}, "groups are given without shares"),
        ({"groups": np.zeros(5, int), "shares": [1.0]}, "each of the 6 units"),
        ({"groups": np.zeros(6), "shares": [1.0]}, "each of the 6 units"),
        ({"groups": np.full(6, 2), "shares": [1.0]}, "group 2, and there are shares for 1"),
        ({"groups": np.zeros(6, int), "shares": [0.0]}, "at least one above"),
        ({"groups": np.zeros(6, int), "shares": [1.0, -1.0]}, "none below 0"),
        ({"groups": np.zeros(6, int), "shares": [1.0, np.inf]}, "none below 0"),
        ({"groups": np.zeros(6, int), "shares": [1.0, 1.0]}, "group 1 has a share"),
        ({"groups": np.full(6, -1), "shares": [1.0]}, "group 0 has a share"),
    ],
)
def test_what_cannot_be_ordered_is_said(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ChammiError, match=said):
        plan_order(**{"shard_units": [2, 4], **arguments})


@pytest.mark.parametrize(
    ("epoch", "positions", "said"),
    [
        (-1, [0], "epoch=-1"),
        (True, [0], "epoch=True"),
        (2**60, [0], "too far"),
        (0, [-1], "at least 0"),
        (0, [0.5], "whole"),
    ],
)
def test_a_place_that_no_epoch_has_is_refused(epoch: int, positions: list[float], said: str) -> None:
    with pytest.raises(ChammiError, match=said):
        plan_order([4, 4]).units(epoch, positions)


GOLDEN: dict[str, list[Any]] = {
    "seven": [5, 1, 3, 4, 2, 0, 6],
    "millions": [6513013, 658093, 6505267, 2648540],
    "longest": [621009625533, 531374685265],
    "uniforms": [[0.9087019123434676, 0.07360857606185267], [0.041979245819706135, 0.7120875980305299]],
    "global": [6268020, 8234411, 593805],
    "window": [3814791, 7258323, 1097053],
    "samples": [6063327, 1730457, 5542932],
    "shares global": [4, 27, 8, 35, 25, 23, 13, 26],
    "shares window:2": [26, 31, 23, 25, 32, 3, 2, 13],
    "shares none": [3, 2, 7, 22, 23, 26, 28, 32],
}
