"""Every number of ranks, workers and interruptions yields one and the same sequence of units."""

from __future__ import annotations

from functools import cache
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chammi75.errors import ChammiError
from chammi75.loading.stream.deal import Deal
from chammi75.loading.stream.order import Order, plan_order
from chammi75.loading.stream.state import StreamState

RANKS = (1, 2, 3, 8)
WORKERS = (0, 1, 4)
LAYOUTS = tuple(product(RANKS, WORKERS))
SHARDS = [4, 0, 6, 1, 8]
LENGTH = sum(SHARDS)
SHUFFLES = ("global", "window:1", "window:2", "none")
BATCH_SIZES = (None, 1, 2, 5)
EPOCHS = 3

Line = tuple[int, ...]


def rank_batches(
    length: int, size: int | None, rank: int, ranks: int, workers: int, start: int, last: str
) -> list[list[int]]:
    """Batches of a rank as a DataLoader puts them together: it asks its workers in turn."""
    number = max(workers, 1)
    deals = [Deal(length, size, rank, ranks, worker, number, start, last) for worker in range(number)]
    waiting = [iter(deal) for deal in deals]
    batches = []
    for step in range(deals[0].steps):
        positions = next(waiting[step % number])
        assert positions.dtype == np.int64 and positions.shape == (size or 1,)
        batches.append(positions.tolist())
    assert all(next(left, None) is None for left in waiting)
    assert sum(len(deal) for deal in deals) == len(batches)
    return batches


@cache
def run(size: int | None, last: str, ranks: int, workers: int, start: int) -> tuple[tuple[Line, ...], Line]:
    """What all ranks see together, step by step, and where they go on behind each step."""
    dealt = [rank_batches(LENGTH, size, rank, ranks, workers, start, last) for rank in range(ranks)]
    assert len({len(batches) for batches in dealt}) == 1, "ranks have different numbers of batches"
    steps, after = [], []
    for step in range(len(dealt[0])):
        steps.append(tuple(position for batches in dealt for position in batches[step]))
        places = {
            Deal(LENGTH, size, rank, ranks, 0, 1, start, last).position_after(dealt[rank][step])
            for rank in range(ranks)
        }
        assert len(places) == 1, "ranks do not agree on where to go on"
        after.append(places.pop())
    return tuple(steps), tuple(after)


@cache
def seen(size: int | None, last: str, ranks: int, workers: int, start: int, steps: int) -> Line:
    """Positions of the first steps."""
    return tuple(position for step in run(size, last, ranks, workers, start)[0][:steps] for position in step)


@cache
def orders() -> dict[str, Order]:
    owners = np.random.default_rng(1).integers(0, 3, LENGTH)
    found = {shuffle: plan_order(SHARDS, shuffle=shuffle, seed=9) for shuffle in SHUFFLES}
    found["samples"] = plan_order([7, 7, 7, 7, 7], shuffle="window:2", samples=LENGTH, seed=9)
    found["shares"] = plan_order(SHARDS, groups=owners, shares=[3.0, 1.0, 1.0], samples=LENGTH, shuffle="window:2")
    return found


def resume(epoch: int, position: int, size: int | None, last: str, ranks: int, workers: int) -> tuple[int, int]:
    """The state as a checkpoint keeps it, and where another run begins with it."""
    kept = StreamState.of(epoch, position, {"seed": 9}).to_dict()
    state = StreamState.from_dict(kept).normalised(LENGTH)
    if not run(size, last, ranks, workers, state.position)[0]:  # dropping: too little is left for one step
        return state.epoch + 1, 0
    return state.epoch, state.position


@cache
def known_units(name: str, epoch: int) -> Line:
    """The unbroken epoch, and what follows it as repeats."""
    return tuple(orders()[name].units(epoch, np.arange(4 * LENGTH)).tolist())


@cache
def units_of(name: str, epoch: int, positions: Line) -> Line:
    """What a run that begins and ends with these positions yields."""
    return tuple(orders()[name].units(epoch, np.array(positions, np.int64)).tolist())


@pytest.mark.parametrize("size", BATCH_SIZES)
@pytest.mark.parametrize("last", ["pad", "drop"])
def test_prefix_and_resumed_run_are_the_unbroken_one_however_often_it_is_broken(size: int | None, last: str) -> None:
    """All ranks x workers, broken behind every step, resumed on all ranks x workers, broken and resumed again."""
    batch = size or 1
    for (ranks, workers), (ranks2, workers2) in product(LAYOUTS, LAYOUTS):
        for broken, position in enumerate(run(size, last, ranks, workers, 0)[1], 1):
            parts = {0: [seen(size, last, ranks, workers, 0, broken)]}
            epoch, start = resume(0, position, size, last, ranks2, workers2)
            if epoch == 1:
                _check_finished(parts[0], last, ranks * batch, ranks2 * batch)
            for broken2, position2 in enumerate(run(size, last, ranks2, workers2, start)[1], 1):
                more = {**parts, epoch: [*parts.get(epoch, []), seen(size, last, ranks2, workers2, start, broken2)]}
                third = LAYOUTS[(broken + 3 * broken2) % len(LAYOUTS)]  # each of them has its turn
                epoch3, start3 = resume(epoch, position2, size, last, *third)
                if epoch3 > epoch:
                    _check_finished(more[epoch], last, ranks2 * batch, third[0] * batch)
                more[epoch3] = [*more.get(epoch3, []), seen(size, last, *third, start3, LENGTH)]
                _check_finished(more[epoch3], last, third[0] * batch, third[0] * batch)
                if (broken + broken2) % 3 == 0 or broken2 == 1:
                    _check_units(more)


def _check_finished(parts: list[Line], last: str, step: int, next_step: int) -> None:
    """Positions of an epoch in order, none twice; what is repeated or dropped does not fill one step of all ranks."""
    line = sum(parts, ())
    assert line == tuple(range(len(line)))
    if last == "pad":
        assert 0 <= len(line) - LENGTH < step
    else:
        assert 0 <= LENGTH - len(line) < max(step, next_step)


def _check_units(parts: dict[int, list[Line]]) -> None:
    for name in (*SHUFFLES, "samples", "shares"):
        for epoch, runs in parts.items():
            line = sum((units_of(name, epoch, positions) for positions in runs), ())
            assert line == known_units(name, epoch)[: len(line)]


@pytest.mark.parametrize("name", [*SHUFFLES, "samples", "shares"])
def test_batches_hold_the_units_that_the_order_has_there(name: str) -> None:
    order = orders()[name]
    for epoch, size in product(range(EPOCHS), BATCH_SIZES):
        line = order.units(epoch, np.arange(LENGTH)).tolist()
        for ranks, workers in LAYOUTS:
            batches = [rank_batches(LENGTH, size, rank, ranks, workers, 0, "pad") for rank in range(ranks)]
            units = [
                unit
                for step in range(len(batches[0]))
                for rank in range(ranks)
                for unit in order.units(epoch, batches[rank][step]).tolist()
            ]
            assert units == (3 * line)[: len(units)]


@pytest.mark.parametrize("last", ["pad", "drop"])
def test_ranks_and_workers_share_out_the_epoch_without_overlap(last: str) -> None:
    for size, (ranks, workers), start in product(BATCH_SIZES, LAYOUTS, range(LENGTH + 3)):
        number = max(workers, 1)
        found = [
            position
            for rank in range(ranks)
            for worker in range(number)
            for positions in Deal(LENGTH, size, rank, ranks, worker, number, start, last)
            for position in positions.tolist()
        ]
        assert sorted(found) == list(range(start, start + len(found)))
        step = ranks * (size or 1)
        left = max(LENGTH - start, 0)
        assert len(found) == (-(-left // step) if last == "pad" else left // step) * step


def test_the_same_batch_has_the_same_positions_on_one_worker_and_on_four() -> None:
    for size, ranks, start in product(BATCH_SIZES, RANKS, (0, 7)):
        for rank in range(ranks):
            runs = [rank_batches(LENGTH, size, rank, ranks, workers, start, "pad") for workers in WORKERS]
            assert runs[0] == runs[1] == runs[2]


@given(
    st.integers(0, 2**40),
    st.none() | st.integers(1, 5000),
    st.integers(1, 300),
    st.integers(1, 40),
    st.floats(0, 1.1),
    st.sampled_from(["pad", "drop"]),
    st.data(),
)
@settings(max_examples=150, deadline=None)
def test_long_epochs_are_dealt_without_counting_through_them(
    length: int, size: int | None, ranks: int, workers: int, part: float, last: str, data: Any
) -> None:
    rank, worker = data.draw(st.integers(0, ranks - 1)), data.draw(st.integers(0, workers - 1))
    deal = Deal(length, size, rank, ranks, worker, workers, int(length * part), last)
    assert deal.batches == len(range(worker, deal.steps, workers))
    first = next(iter(deal), None)
    assert (first is None) == (deal.batches == 0)
    if first is None:
        return
    step = worker + workers * data.draw(st.integers(0, deal.batches - 1))
    after = deal.position_after(deal.positions(step))
    assert after == deal.start + (step + 1) * ranks * (size or 1)
    left = Deal(length, size, 0, ranks, start=after, last=last)
    assert left.steps == deal.steps - step - 1


def test_nothing_left_is_no_step() -> None:
    for last, start in product(("pad", "drop"), (10, 11, 1000)):
        deal = Deal(10, 4, 1, 2, start=start, last=last)
        assert (deal.steps, len(deal), list(deal)) == (0, 0, [])


def test_a_deal_stays_what_it_was() -> None:
    deal = Deal(100, 4, rank=1, world_size=3, worker=1, workers=2, start=30)
    assert [positions.tolist() for positions in deal] == [[46, 47, 48, 49], [70, 71, 72, 73], [94, 95, 96, 97]]
    assert deal.position_after([70, 71, 72, 73]) == 78


@pytest.mark.parametrize("positions", [[], [0, 1], [2], [2, 3, 4], [3, 4], [2.0, 3.0], [22, 23], [-2, -1]])
def test_positions_of_another_rank_or_epoch_are_no_place_to_go_on(positions: list[float]) -> None:
    deal = Deal(20, 2, rank=1, world_size=2)
    assert deal.position_after([2, 3]) == 4
    with pytest.raises(ChammiError, match="no batch of rank 1 of 2"):
        deal.position_after(positions)


@pytest.mark.parametrize(
    "wrong",
    [
        {"length": -1},
        {"length": 1.0},
        {"batch_size": 0},
        {"batch_size": True},
        {"world_size": 0},
        {"rank": 2},
        {"rank": -1},
        {"workers": 0},
        {"worker": 1},
        {"start": -1},
        {"last": "wrap"},
    ],
)
def test_numbers_out_of_range_are_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ChammiError, match=next(iter(wrong))):
        Deal(**{"length": 10, "batch_size": 2, "world_size": 2, **wrong})
