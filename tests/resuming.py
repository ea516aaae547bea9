"""Runs that are stopped and go on, with real worker processes, compared with one that was never stopped."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader

from chammi75.loading import GuidedCrop, TrainingStream

RANKS = (1, 2, 3, 8)
WORKERS = (0, 1, 4)
CONTEXTS = ("fork", "spawn")
STOPS = (0.0, 0.4, 1.0)
"""Where a run is stopped: shares of its epoch; 1.0 is behind its last batch."""


@dataclass(frozen=True)
class Run:
    """A run that is stopped twice.

    Attributes
    ----------
    ranks, workers : tuple of int
        Before the first stop, between the stops, and behind the second.
    context : str
        How workers are started.
    stops : tuple of float
        Where it is stopped: shares of what is left of the epoch then.
    shuffle : str
    """

    ranks: tuple[int, int, int]
    workers: tuple[int, int, int]
    context: str
    stops: tuple[float, float]
    shuffle: str

    @property
    def started_workers(self) -> int:
        """Worker processes that it starts."""
        return sum(ranks * workers for ranks, workers in zip(self.ranks, self.workers, strict=True))


def all_runs() -> Iterator[Run]:
    """Every number of ranks with every number of workers before the stops, and others behind them."""
    for number, (ranks, workers, context, *stops) in enumerate(
        itertools.product(RANKS, WORKERS, CONTEXTS, STOPS, STOPS)
    ):
        later = [(RANKS[(number + k) % len(RANKS)], WORKERS[(number + k) % len(WORKERS)]) for k in (1, 2)]
        yield Run(
            ranks=(ranks, later[0][0], later[1][0]),
            workers=(workers, later[0][1], later[1][1]),
            context=context,
            stops=(stops[0], stops[1]),
            shuffle="window:2" if number % 2 else "global",
        )


def differences(url: str, run: Run) -> list[str]:
    """What a run that is stopped twice yields otherwise than one that is not; empty if nothing.

    Two epochs are compared, the first of which is stopped. Beyond an epoch's last sample come repeats that fill the
    last batches; how many depends on the ranks, so they are left out.
    """
    options: dict[str, Any] = {"seed": 3, "batch_size": 2, "crop": GuidedCrop(20), "resize": 12, "shuffle": run.shuffle}
    whole = _samples(url, options, 1, 0, run.context, None, None)[0]
    length = TrainingStream(url, **options).samples
    found: list[tuple[Any, ...]] = []
    state: dict[str, Any] | None = None
    for ranks, workers, stop in zip(run.ranks, run.workers, (*run.stops, None), strict=True):
        samples, state = _samples(url, options, ranks, workers, run.context, state, stop)
        found += samples
    wrong = []
    for epoch in (0, 1):
        one, other = ([key for key in keys if key[0] == epoch and key[1] < length] for keys in (whole, found))
        if sorted(one) != sorted(other):
            missing, extra = set(one) - set(other), set(other) - set(one)
            wrong.append(
                f"{run}: epoch {epoch} lacks {sorted(missing)[:3]}, has {sorted(extra)[:3]} instead,"
                f" {len(other)} samples of {len(one)}"
            )
    return wrong


def _samples(
    url: str,
    options: dict[str, Any],
    ranks: int,
    workers: int,
    context: str,
    state: dict[str, Any] | None,
    stop: float | None,
) -> tuple[list[tuple[Any, ...]], dict[str, Any] | None]:
    """Samples of all ranks from a state on, until they are stopped (or until the end of the epoch 1), and the state."""
    found: list[tuple[Any, ...]] = []
    states = []
    for rank in range(ranks):
        stream = TrainingStream(url, rank=rank, world_size=ranks, **options)
        if state is not None:
            stream.load_state_dict(state)
        loader = DataLoader(
            stream,
            batch_size=None,
            num_workers=workers,
            persistent_workers=workers > 0,
            multiprocessing_context=context if workers else None,
        )
        if stop is not None:
            batches = round(stop * stream.left)
            used = list(itertools.islice(loader, batches)) if batches else []
            found += _keys(used)
            states.append(stream.state_dict(after=used[-1]) if used else stream.state_dict())
            continue
        for epoch in range(stream.epoch, 2):
            stream.set_epoch(epoch)
            found += _keys(list(loader))
    assert all(other == states[0] for other in states), "ranks stand at different places"
    return found, states[0] if states else None


def _keys(batches: Sequence[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Epoch, position, image, channel, window and a checksum of each sample."""
    return [
        (
            batch["epoch"],
            int(batch["position"][k]),
            batch["image_id"][k],
            int(batch["channel"][k]),
            tuple(batch["window"][k].tolist()),
            float(batch["pixels"][k].to(torch.float64).sum()),
        )
        for batch in batches
        for k in range(len(batch["image_id"]))
    ]
