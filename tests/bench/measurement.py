"""Measuring one case of the loading bench: build, check that all give the same, take turns, make rows."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib import import_module
from math import nan
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from cases import Case, Rival
from contestant import Contestant, ContestantError, Turn
from fields import read_fields, write_fields
from paired import Row, faster, take_turns
from peers.remote import Remote

if TYPE_CHECKING:
    from slow_server import SlowServer

_BUCKET = "bench"
_LATENCY_S, _BITS_PER_S = 0.03, 1e9
_TRIES = 3
_FOLDER_OF_TESTS = Path(__file__).resolve().parents[1]


@dataclass
class Bench:
    """What a run has made so far: fields, datasets, running contestants, and the object server."""

    root: Path
    quick: bool
    stack: ExitStack
    origins: dict[str, str] = field(default_factory=dict)
    running: dict[tuple[str, bool], Contestant] = field(default_factory=dict)
    titles: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    _server: SlowServer | None = None

    @property
    def server(self) -> SlowServer:
        """The object server, over all datasets; started when first asked for."""
        if self._server is None:
            sys.path.append(os.fspath(_FOLDER_OF_TESTS))
            from slow_server import slow_server

            started = slow_server(self.root, latency_s=_LATENCY_S, bits_per_s=_BITS_PER_S)
            self._server = self.stack.enter_context(started)
        return self._server

    def fields(self, case: Case) -> Path:
        """The folder of a case's fields, written when first asked for."""
        count = case.quick_count if self.quick else case.count
        folder = self.root / "fields" / f"{case.edge}-{count}"
        if not folder.exists():
            origin = write_fields(folder, case.edge, count)
            (folder / "origin.txt").write_text(origin, encoding="utf-8")
        self.origins[folder.name] = (folder / "origin.txt").read_text(encoding="utf-8")
        return folder

    def contestant(self, name: str, is_remote: bool = False) -> Contestant:
        """A contestant, started when first asked for; ``ContestantError`` where it is not installed."""
        if (name, is_remote) not in self.running:
            environment = Remote(self.server.url, _BUCKET).environment if is_remote else {}
            contestant = self.stack.enter_context(Contestant(name, environment))
            self.running[name, is_remote] = contestant
            known = contestant.describe()
            self.titles[name], self.versions[name] = known["title"], known["versions"]
        return self.running[name, is_remote]

    def dataset(self, case: Case, rival: Rival) -> Path:
        """The dataset of a contestant, built when first asked for."""
        fields = self.fields(case)
        folder = self.root / _BUCKET / fields.name / f"{rival.module}-{rival.variant}".rstrip("-")
        if rival.module == "raw_ranges":
            folder.mkdir(parents=True, exist_ok=True)
        elif not folder.exists():
            print(f"{case.name}: {self.titles[rival.module]} builds its dataset …", file=sys.stderr)
            self.contestant(rival.module).build(folder, fields, rival.variant)
        return folder

    def place(self, case: Case, rival: Rival) -> dict[str, Any]:
        """Where a contestant finds its dataset, and how it is to read it."""
        folder = self.dataset(case, rival)
        settings = {"task": case.task, "workers": case.workers, **rival.settings, "folder": folder}
        if rival.variant:
            settings["variant"] = rival.variant
        if case.is_remote:
            settings["remote"] = Remote(self.server.url, folder.relative_to(self.root).as_posix())
        return settings


@dataclass
class _Results:
    """What came out of a case, by the keys of the contestants."""

    places: dict[str, dict[str, Any]] = field(default_factory=dict)
    checks: dict[str, dict[str, Any]] = field(default_factory=dict)
    traffic: dict[str, str] = field(default_factory=dict)
    turns: dict[str, list[Turn]] = field(default_factory=dict)
    times: Mapping[str, list[float]] = field(default_factory=dict)
    tries: dict[str, list[str]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def try_again(self, key: str, contestant: Contestant, work: Callable[[], Any]) -> Any:
        """Do something, three times at most: some peers fail now and then, and are not to lose their row for that."""
        for _ in range(_TRIES - 1):
            try:
                return work()
            except ContestantError as error:
                self.tries.setdefault(key, []).append(str(error))
                contestant.stop()
        return work()


def measure(bench: Bench, case: Case, repeats: int) -> list[Row]:
    """All contestants of a case, interleaved; one row for each rival.

    Raises
    ------
    ContestantError
        If we ourselves cannot do it.
    AssertionError
        If the contestants give different things.
    """
    found = _Results()
    contestants = {rival.key: rival for rival in (case.ours, *case.rivals)}
    for key, rival in contestants.items():
        try:
            bench.contestant(rival.module, case.is_remote)
            found.places[key] = bench.place(case, rival)
            _check(bench, case, rival, found)
        except ContestantError as failure:
            if key == case.ours.key:
                raise
            found.failures[key] = str(failure)
    _assert_equal(bench, case, contestants, found)

    def work(rival: Rival) -> float:
        if rival.key in found.failures:
            return nan
        turns = found.turns.setdefault(rival.key, [])
        try:
            contestant = bench.contestant(rival.module, case.is_remote)
            least_s = 0.3 if bench.quick else 0.6
            settings = {"least_s": least_s, "turn": len(turns) + 1, **found.places[rival.key]}
            turns.append(found.try_again(rival.key, contestant, lambda: contestant.take_turn(**settings)))
        except ContestantError as failure:
            found.failures[rival.key] = str(failure)
            return nan
        return turns[-1].seconds_per_sample

    found.times = take_turns({key: lambda rival=rival: work(rival) for key, rival in contestants.items()}, repeats)  # type: ignore[misc]
    if case.ours.key in found.failures:
        raise ContestantError(found.failures[case.ours.key])
    return [_row(bench, case, rival, found) for rival in case.rivals]


def _check(bench: Bench, case: Case, rival: Rival, found: _Results) -> None:
    """Warm up, and note what comes out and, over a network, what is asked for."""
    contestant = bench.contestant(rival.module, case.is_remote)
    if rival.module == "raw_ranges":
        return

    def check() -> dict[str, Any]:
        if case.is_remote:
            bench.server.reset()
        return contestant.check(turn=0, **found.places[rival.key])

    seen = found.try_again(rival.key, contestant, check)
    found.checks[rival.key] = seen
    if not case.is_remote:
        return
    counts = bench.server.counts()
    each = counts.body_bytes / seen["samples"] / 1000, counts.requests / seen["samples"]
    found.traffic[rival.key] = f"{each[0]:.0f} kB in {each[1]:.2g} requests"
    if rival.key == case.ours.key and any(other.module == "raw_ranges" for other in case.rivals):
        asked = [(entry.path.partition("?")[0], entry.range) for entry in bench.server.seen() if entry.range]
        ranges = [(path, span) for path, span in asked if "/shards/" in path]
        folder = bench.dataset(case, Rival("raw_ranges"))
        (folder / "ranges.json").write_text(json.dumps({"ranges": ranges, "samples": seen["samples"]}))


def _assert_equal(bench: Bench, case: Case, contestants: Mapping[str, Rival], found: _Results) -> None:
    """All give as many samples of one kind, and the same pixels where the windows are the same.

    Our stream draws its own windows, and resizes by itself: its tensors must have the same mean, within a tenth.
    """
    seen = found.checks
    kinds = {(entry["samples"], tuple(entry["shape"]), entry["dtype"]) for entry in seen.values()}
    assert len(kinds) == 1, f"{case.name}: the contestants give different things: {seen}"
    wanted = case.settings.get("samples") or (case.quick_count if bench.quick else case.count)
    assert next(iter(kinds))[0] == wanted, f"{case.name}: not every plane came once: {seen}"
    own_windows = case.task.kind == "tensor"
    digests = {
        entry["digest"] for key, entry in seen.items() if not (own_windows and contestants[key].module == "ours")
    }
    assert len(digests) <= 1, f"{case.name}: the contestants give other pixels: {seen}"
    means = [entry["mean"] for entry in seen.values()]
    assert max(means) <= 1.1 * min(means), f"{case.name}: the contestants give other pixels: {seen}"


def _row(bench: Bench, case: Case, rival: Rival, found: _Results) -> Row:
    ours, key = case.ours.key, rival.key
    against = rival.words or bench.titles.get(rival.module, rival.module)
    if rival.variant:
        against += f", {import_module(f'peers.{rival.module}').VARIANTS[rival.variant]}"
    words = f"{case.words} : {against}"
    times = found.times[ours], found.times[key]
    if key in found.failures:
        return Row(words, 1000 * median(times[0]), None, "ms", note=f"not done: {found.failures[key]}")
    if case.is_remote:
        notes = [found.traffic[name] for name in (ours, key) if name in found.traffic]
        note = " and ".join(notes) + " a sample"
    else:
        kilobytes = f"{_bytes_read(bench, case, found, case.ours):.0f}"
        if rival.module != "ours":
            kilobytes += f" and {_bytes_read(bench, case, found, rival):.0f}"
        note = f"{kilobytes} kB read a sample"
    if not case.workers:
        cpu = [
            1000 * sum(t.cpu_seconds for t in turns) / sum(t.samples for t in turns)
            for turns in _turns(found, ours, key)
        ]
        note += f"; processor {cpu[0]:.2f} and {cpu[1]:.2f} ms"
    if key in found.tries:
        note += f"; failed {len(found.tries[key])} times: {found.tries[key][0]}"
    return faster(words, times, rival.goal, note)


def _turns(found: _Results, *keys: str) -> list[list[Turn]]:
    return [found.turns[key] for key in keys]


def _bytes_read(bench: Bench, case: Case, found: _Results, rival: Rival) -> float:
    """Kilobytes of a sample: all that a peer stores of it, since all decode whole planes; of ours what is touched."""
    folder = found.places[rival.key]["folder"]
    if rival.module == "ours":
        return bench.contestant("ours").bytes_read(folder, task=case.task) / 1000
    files = [path for path in folder.rglob("*") if path.is_file()]
    return sum(path.stat().st_size for path in files) / len(read_fields(bench.fields(case))) / 1000
