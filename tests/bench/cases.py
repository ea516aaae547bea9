"""What the loading bench compares, and what is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from peers import GENERAL
from peers.task import Task


@dataclass(frozen=True)
class Rival:
    """Whom we are compared with.

    Attributes
    ----------
    module : str
        ``ours``, ``raw_ranges`` or a module of ``peers``.
    goal : float, optional
        How many times as fast as this one we are to be.
    variant : str
        Of its dataset or reading.
    words : str
        Instead of its title.
    settings : mapping
        More for its ``batches``.
    """

    module: str
    goal: float | None = None
    variant: str = ""
    words: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """A name that no other rival of the same case has."""
        return " ".join([self.module, self.variant, *(f"{name}={value}" for name, value in self.settings.items())])


@dataclass(frozen=True)
class Case:
    """One comparison.

    Attributes
    ----------
    name : str
        For ``--cases``.
    words : str
    edge, count, quick_count : int
        Edge of the fields in pixels, how many there are, and how many with ``--quick``.
    task : Task
    rivals : tuple of Rival
    run : {"quick", "goals", "full"}
        The smallest run that has it.
    workers : int
        Worker processes, of all.
    is_remote : bool
        Whether all is read from the object server.
    settings : mapping
        More for our ``batches``.
    """

    name: str
    words: str
    edge: int
    count: int
    quick_count: int
    task: Task
    rivals: tuple[Rival, ...]
    run: Literal["quick", "goals", "full"] = "quick"
    workers: int = 0
    is_remote: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ours(self) -> Rival:
        """Ourselves in this case."""
        return Rival("ours", settings=self.settings)


_CUT, _TENSOR, _PLANE = Task("cut"), Task("tensor"), Task("plane")
_FAR_TENSOR, _FAR_PLANE = Task("tensor", batch_size=16), Task("plane", batch_size=16)
_TO_TENSOR = "guided 256 px crop of {} px planes to a float tensor of 224 px"
_SMALL, _MIDDLE, _LARGE, _FAR = (512, 192, 96), (1024, 128, 64), (2048, 64, 64), (1024, 480, 240)
_FAR_WORDS = "30 ms away over 1 Gbit/s, 2 workers: "
_LONG = {"samples": 3840}
"""An epoch beside which what is loaded ahead before the first batch does not count."""


def _general(goal: float | None) -> tuple[Rival, ...]:
    return tuple(Rival(name, goal) for name in GENERAL)


def _far(goal: float | None) -> tuple[Rival, ...]:
    return tuple(Rival(name, goal, "parquet" if name == "hugging_face" else "") for name in GENERAL)


CASES = (
    Case("cut-1024", "guided 256 px crop of 1024 px planes, decoded", *_MIDDLE, _CUT, (Rival("opencv", 25),)),
    Case("cut-2048", "guided 256 px crop of 2048 px planes, decoded", *_LARGE, _CUT, (Rival("opencv", 100),)),
    Case("tensor-1024", _TO_TENSOR.format(1024), *_MIDDLE, _TENSOR, (Rival("reference", 20), *_general(15))),
    Case("tensor-2048", _TO_TENSOR.format(2048), *_LARGE, _TENSOR, (Rival("reference", 80),)),
    Case("plane-512", "whole 512 px planes", *_SMALL, _PLANE, _general(2)),
    Case(
        "shuffle",
        f"shuffled globally: {_TO_TENSOR.format(1024)}",
        *_MIDDLE,
        _TENSOR,
        (Rival("ours", 0.8, words="ourselves, in stored order", settings={"shuffle": "none"}),),
    ),
    Case(
        "scaling",
        f"2 worker processes: {_TO_TENSOR.format(1024)}",
        *_MIDDLE,
        _TENSOR,
        (Rival("ours", 1.8, words="ourselves, 1 worker process", settings={"workers": 1, **_LONG}),),
        "quick",
        2,
        settings=_LONG,
    ),
    Case(
        "far-tensor",
        _FAR_WORDS + _TO_TENSOR.format(1024),
        *_FAR,
        _FAR_TENSOR,
        (*_far(1), Rival("raw_ranges", 0.8)),
        "goals",
        2,
        True,
    ),
    Case(
        "far-shuffle",
        f"{_FAR_WORDS}shuffled globally",
        *_FAR,
        _FAR_TENSOR,
        (Rival("ours", 0.8, words="ourselves, in stored order", settings={"shuffle": "none"}),),
        "goals",
        2,
        True,
    ),
    Case(
        "far-window",
        f"{_FAR_WORDS}shuffled over windows of 2 shards, nothing cached yet, one crop of each plane",
        *_FAR,
        _FAR_TENSOR,
        (Rival("ours", 0.8, words="ourselves, in stored order", settings={"shuffle": "none"}),),
        "goals",
        2,
        True,
        {"shuffle": "window:2"},
    ),
    Case(
        "variants",
        _TO_TENSOR.format(1024),
        *_MIDDLE,
        _TENSOR,
        (
            Rival("reference", variant="documented"),
            Rival("mosaic", variant="documented"),
            Rival("lit_data", variant="documented"),
            Rival("mosaic", variant="raw"),
            Rival("lit_data", variant="raw"),
        ),
        "full",
    ),
    Case("general-2048", _TO_TENSOR.format(2048), *_LARGE, _TENSOR, _general(None), "full"),
    Case("far-plane", f"{_FAR_WORDS}whole 1024 px planes", *_FAR, _FAR_PLANE, _far(None), "full", 2, True),
)
