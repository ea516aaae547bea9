"""``TrainingStream``: guided crops in batches, in one global order, for heavy training."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from chammi75.errors import ChammiError, ChammiWarning, MissingDependencyError, warn
from chammi75.files import StorageOptions, is_local
from chammi75.loading.guided import GuidedCrop
from chammi75.loading.stores import Named, open_stores
from chammi75.loading.stream.ahead import read_ahead
from chammi75.loading.stream.batches import BatchReader, OnError
from chammi75.loading.stream.chosen import choose, selection_hash, store_identity
from chammi75.loading.stream.deal import Deal
from chammi75.loading.stream.layout_source import source_of
from chammi75.loading.stream.lent import check_sockets
from chammi75.loading.stream.order import plan_order
from chammi75.loading.stream.ranks import rank_and_world_size, worker_of
from chammi75.loading.stream.samples import as_batch, as_sample, place_after
from chammi75.loading.stream.shared import SharedPlace
from chammi75.loading.stream.shares import shares_of
from chammi75.loading.stream.state import StreamState
from chammi75.loading.stream.units import Mode, Units
from chammi75.loading.stream.windows import WindowFiles
from chammi75.ranges import Traffic
from chammi75.store.warmup import warm_up

try:
    from torch.utils.data import IterableDataset
except ImportError as error:
    raise MissingDependencyError('TrainingStream needs PyTorch: pip install "chammi75[train]"') from error

if TYPE_CHECKING:
    from chammi75.loading.stream.chosen import Chosen
    from chammi75.loading.stream.order import Order
    from chammi75.store.node_cache import NodeCache

Weighting = Literal["none", "log", "sqrt"] | Mapping[str, float]

_AHEAD = 4
"""Batches that are fetched at the same time where a store is remote."""


class RepeatedEpochWarning(ChammiWarning):
    """An epoch begins again in the same order, since nobody called ``set_epoch``."""


class ReplacedSamplesWarning(ChammiWarning):
    """Samples could not be read, and others stood in for them."""


class TrainingStream(IterableDataset):  # type: ignore[misc,unused-ignore]
    """Single planes (bag of channels) or whole images, cut around cells, in one global order.

    The order depends on the selection, the seed, the epoch and ``shuffle`` alone: it is the same for every number of
    ranks and workers, and each sample is where it is because of its position. Give it to a plain ``DataLoader`` with
    ``batch_size=None``; without that torch puts whole batches into batches again. It works under fork, spawn and
    forkserver; files are opened by the process that reads them.

    Parameters
    ----------
    store : str, path, Store or sequence of them
        As for ``load_dataset``.
    selection : mapping, Subset, str or path, optional
        Filters by the names that ``load_dataset`` has (``{"organism": "Homo sapiens"}``), or a subset of its own, a
        recipe file or the name of a shipped recipe (``{"subset": …}`` together with filters).
    seed : int
    batch_size : int, optional
        Samples of a batch, per rank. None yields samples.
    mode : {"boc", "mca"}
        ``boc``: every plane is a sample, pixels (1, H, W). ``mca``: every image is, pixels (C, H, W).
    crop : GuidedCrop, optional
        What is cut out. None takes whole planes.
    resize : int or (int, int), optional
        Height and width that every window is resized to, antialiased; pixels are float32 then, in the units of the
        stored ones. Without it pixels keep their values, and stand in the upper left corners of a batch as large as
        its largest (``size`` says how large each is); they have the widest dtype of the selection.
    shuffle : str
        ``"global"``: over everything. ``"window:8"``: over windows of eight shards, for remote stores. ``"none"``.
    weighting : {"none", "log", "sqrt"} or mapping of name to weight
        How the groups' shares of an epoch grow with their sizes; ``none`` in proportion.
    weight_by : {"study", "channel_type"}
        What the groups are.
    samples_per_epoch : int, optional
        All by default. Later epochs go on where earlier ones ended.
    last : {"pad", "drop"}
        What becomes of samples that do not fill a batch on every rank: ``pad`` repeats some, with positions beyond the
        epoch's last; ``drop`` leaves them out.
    rank, world_size : int, optional
        Those of torch.distributed, torchrun or Slurm by default, as the stream is made; else 0 of 1.
    on_error : {"raise", "skip"}
        What becomes of samples that cannot be read: ``skip`` puts others in their places, counts them
        (``stream.replaced``) and warns at the end of the epoch.
    split : str, optional
        ``"train"`` by default; None for all.
    threads : int
        Threads that decode a batch, in each worker.
    prefetch : int, optional
        Batches that a worker reads at the same time; by default 1 of a local store and 4 of a remote one.
    cache_dir : path or False, optional
        Where shards of a remote store are kept with ``shuffle="window:N"``; False keeps nothing on disk.
    cache_limit : int or str
        Greatest size of that, in bytes (``"50GB"``).
    metadata, storage_options
        As for ``load_dataset``.

    Yields
    ------
    dict
        ``pixels`` (tensor), ``image_id``, ``channel`` (number as stored; a list of them in ``mca``), ``channel_type``,
        ``channel_id`` (number in the vocabulary; -1: none), ``study``, ``position``, ``epoch``, ``size`` (height,
        width), ``window`` (y, x, height, width), ``dtype``, ``saturation`` (the greatest value that the camera could
        give; NaN for floats). Words that the record lacks are None. In a batch: lists of words, tensors of numbers with
        one entry per sample, and ``resume_at``.

    Raises
    ------
    ChammiError
        If a parameter is wrong, no image passes, or a cache cannot be used.

    Examples
    --------
    >>> from torch.utils.data import DataLoader
    >>> from chammi75.loading import GuidedCrop, TrainingStream
    >>> stream = TrainingStream("mini", batch_size=32, crop=GuidedCrop(64), resize=48)  # doctest: +SKIP
    >>> for batch in DataLoader(stream, batch_size=None, num_workers=4):  # doctest: +SKIP
    ...     batch["pixels"].shape  # (32, 1, 48, 48)
    """

    def __init__(
        self,
        store: Named | Sequence[Named],
        selection: Chosen = None,
        *,
        seed: int = 0,
        batch_size: int | None = None,
        mode: Mode = "boc",
        crop: GuidedCrop | None = GuidedCrop(),  # noqa: B008 - frozen
        resize: int | tuple[int, int] | None = None,
        shuffle: str = "global",
        weighting: Weighting = "none",
        weight_by: Literal["study", "channel_type"] = "study",
        samples_per_epoch: int | None = None,
        last: Literal["pad", "drop"] = "pad",
        rank: int | None = None,
        world_size: int | None = None,
        on_error: OnError = "raise",
        split: str | None = "train",
        threads: int = 1,
        prefetch: int | None = None,
        cache_dir: str | os.PathLike[str] | Literal[False] | None = None,
        cache_limit: int | str = "50GB",
        metadata: str | None = None,
        storage_options: StorageOptions | None = None,
    ) -> None:
        _check_one_of("mode", mode, ("boc", "mca"))
        _check_one_of("weight_by", weight_by, ("study", "channel_type"))
        _check_one_of("last", last, ("pad", "drop"))
        _check_one_of("on_error", on_error, ("raise", "skip"))
        for name, number in (("batch_size", batch_size), ("threads", threads), ("prefetch", prefetch)):
            _check_positive(name, number)
        if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**63:
            raise ChammiError(f"seed is a whole number from 0 on, not {seed!r}")
        if crop is not None and not isinstance(crop, GuidedCrop):
            raise ChammiError(f"crop is a GuidedCrop, such as GuidedCrop(64), or None for whole planes, not {crop!r}")
        limit = _bytes(cache_limit)
        self.rank, self.world_size = rank_and_world_size(rank, world_size)
        self.batch_size, self.mode, self.seed = batch_size, mode, int(seed)
        self._last, self._on_error, self._threads, self._crop = last, on_error, threads, crop
        self._resize = _pair(resize)
        opened = open_stores(
            store,
            metadata=metadata,
            storage_options=storage_options,
            cache_dir=None if cache_dir is False or cache_dir is None else os.fspath(cache_dir),
        )
        self._selections = choose(opened, selection, split)
        remote = any(not is_local(chosen.layout.url) for chosen in self._selections)
        self._prefetch = prefetch if prefetch is not None else _AHEAD if remote else 1
        keeps_shards = remote and isinstance(shuffle, str) and shuffle.startswith("window:")
        self._cache = _cache_of(cache_dir, limit) if remote else None
        self.traffic = Traffic()
        self._sources = [
            source_of(chosen.layout, self._cache, keep_shards=keeps_shards, traffic=self.traffic)
            for chosen in self._selections
        ]
        self._units = Units(self._selections, self._sources, mode)
        self._order, self._shards = self._planned(shuffle, weighting, weight_by, samples_per_epoch)
        if not self._deal(0, 0, 1).steps:
            raise ChammiError(
                f"an epoch of {self.samples} samples does not fill one batch of {batch_size or 1} on each of"
                f" {self.world_size} ranks, and last='drop' leaves them all out: take smaller batches, or last='pad'"
            )
        dtypes = self._dtypes()
        self._dtype = np.dtype(np.float32) if self._resize else max(dtypes, key=lambda dtype: dtype.itemsize)
        warm_up(dtypes, self._dtype, resize=self._resize is not None)
        table = dict(weighting) if isinstance(weighting, Mapping) else weighting
        self._parts = {
            "store": [store_identity(chosen) for chosen in self._selections],
            "selection": [selection_hash(chosen) for chosen in self._selections],
            "seed": self.seed,
            "mode": mode,
            "order": [shuffle, table, weight_by, samples_per_epoch],
        }
        self._place = SharedPlace()
        self._window_files = None
        if keeps_shards and self._cache is not None:
            self._window_files = WindowFiles(self._cache, self._sources, self._shards)
            self._window_files.check_room(self._order)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker, workers = worker_of()
        epoch, start = self._place.read()
        if worker == 0 and self._place.is_finished(worker) and not self._order.is_sequential:
            warn(
                f"epoch {epoch} begins again, in the same order: call stream.set_epoch({epoch + 1}) before it",
                RepeatedEpochWarning,
            )
        return self._iterated(epoch, self._deal(start, worker, workers), self._place.moves)

    def _iterated(self, epoch: int, deal: Deal, moves: int) -> Iterator[dict[str, Any]]:
        """What a worker yields of an epoch."""
        shown = as_sample if self.batch_size is None else as_batch
        if _in_worker():
            check_sockets(whole_batches=self.batch_size is not None)
        replaced = []
        dealt = (
            deal if self._window_files is None else self._window_files.ahead_of(deal, self._order, epoch, deal.start)
        )
        for positions, batch in read_ahead(self.reader(), epoch, dealt, self._prefetch):
            for replacement in batch.replaced:
                replaced.append(replacement.error)
                self._place.count_replaced()
            yield shown(batch, self.mode, epoch, deal.position_after(positions))
        self._place.finish(deal.worker, moves)
        if replaced:
            warn(_replaced_words(epoch, replaced), ReplacedSamplesWarning)

    def __len__(self) -> int:
        """Batches (samples if ``batch_size`` is None) of a whole epoch, on each rank.

        A DataLoader warns where more come than it was told before, so the first epoch after ``load_state_dict``, which
        has ``left`` of them, does not change it.
        """
        return self._deal(0, 0, 1).steps

    @property
    def left(self) -> int:
        """Batches, on each rank, of the epoch that is iterated next, from where the stream stands."""
        _, start = self._place.read()
        return self._deal(start, 0, 1).steps

    @property
    def samples(self) -> int:
        """Samples of an epoch, over all ranks."""
        return self._order.length

    @property
    def units(self) -> int:
        """Planes, or images, that there are to draw from."""
        return len(self._units)

    @property
    def epoch(self) -> int:
        """The epoch that is iterated next."""
        return self._place.read()[0]

    @property
    def replaced(self) -> int:
        """Samples that others stood in for so far, in all workers of this rank."""
        return self._place.replaced

    def set_epoch(self, epoch: int) -> None:
        """Iterate this epoch next; workers that live on hear of it too.

        In the epoch that ``load_state_dict`` went back to, the next iteration goes on from its position.
        """
        if isinstance(epoch, bool) or not isinstance(epoch, int | np.integer) or not 0 <= epoch < 2**62:
            raise ChammiError(f"an epoch is a whole number from 0 on and below 2**62, not {epoch!r}")
        current, position = self._place.read()
        self._place.move(int(epoch), position if epoch == current else 0)

    def state_dict(self, after: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Where to go on: behind a batch, or where the next iteration begins.

        Parameters
        ----------
        after : mapping, optional
            The batch, or sample, that was used last, as the stream yielded it.

        Returns
        -------
        dict
            A few whole numbers and short texts.

        Raises
        ------
        ChammiError
            If ``after`` is not of a stream, or this is asked in a worker.
        """
        if after is None:
            if _in_worker():
                raise ChammiError(
                    "a worker does not know which batches were used: call stream.state_dict(after=batch) in the process"
                    " that trains, with a plain DataLoader"
                )
            epoch, position = self._place.read()
        else:
            epoch, position = place_after(after)
        if self._deal(position, 0, 1).steps == 0:
            epoch, position = epoch + 1, 0
        return StreamState.of(epoch, position, self._parts).to_dict()

    def load_state_dict(self, state: Mapping[str, Any], *, strict: bool = True) -> None:
        """Go on from there with the next iteration, on any number of ranks and workers.

        Parameters
        ----------
        state : mapping
            What ``state_dict`` gave.
        strict : bool
            False takes the state of another store, selection, seed or order too.

        Raises
        ------
        ChammiError
            If it is no state, or one of another stream.
        """
        given = StreamState.from_dict(state)
        if strict:
            given.check(self._parts)
        given = given.normalised(self.samples)  # another order, taken all the same, may be shorter
        self._place.move(given.epoch, given.position)

    def reader(self) -> BatchReader:
        """What reads the stream's batches in this process."""
        return BatchReader(
            self._units,
            self._sources,
            self._order,
            seed=self.seed,
            crop=self._crop,
            resize=self._resize,
            dtype=self._dtype,
            on_error=self._on_error,
            threads=self._threads,
        )

    def _deal(self, start: int, worker: int, workers: int) -> Deal:
        return Deal(
            self._order.length, self.batch_size, self.rank, self.world_size, worker, workers, start, last=self._last
        )

    def _planned(
        self, shuffle: str, weighting: Weighting, weight_by: str, samples: int | None
    ) -> tuple[Order, list[tuple[int, int]]]:
        """The order, and the shards that it goes through: (selection, shard)."""
        per_shard, shards = self._units.per_shard()
        if weighting == "none":
            return plan_order(per_shard, samples=samples, shuffle=shuffle, seed=self.seed), shards
        groups, names = self._units.groups(weight_by)
        counts = np.bincount(groups, minlength=len(names)).tolist()
        shares = shares_of(dict(zip(names, counts, strict=True)), weighting)
        order = plan_order(per_shard, groups=groups, shares=shares, samples=samples, shuffle=shuffle, seed=self.seed)
        return order, shards

    def _dtypes(self) -> list[np.dtype[Any]]:
        """The dtypes of the selected images."""
        kinds = {
            kind
            for chosen, source in zip(self._selections, self._sources, strict=True)
            for kind in source.dtypes(np.asarray(chosen.rows, np.int64))
        }
        return sorted(kinds, key=lambda kind: kind.name)


def _cache_of(cache_dir: str | os.PathLike[str] | Literal[False] | None, limit: int) -> NodeCache | None:
    if cache_dir is False:
        return None
    from chammi75.store.node_cache import NodeCache
    from chammi75.store.node_cache.cache import shards_folder

    return NodeCache(shards_folder(cache_dir), limit)


def _bytes(size: int | str) -> int:
    """Bytes of ``50GB``, ``200 MiB`` or a number."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kKMGT]?)(i?)B?", str(size).strip())
    if isinstance(size, bool) or match is None:
        raise ChammiError(f"cache_limit is a number of bytes, or one with a unit as 50GB or 20GiB, not {size!r}")
    number, unit, binary = match.groups()
    power = " KMGT".index(unit.upper() or " ")
    return int(float(number) * (1024 if binary else 1000) ** power)


def _pair(resize: int | tuple[int, int] | None) -> tuple[int, int] | None:
    if resize is None:
        return None
    pair = tuple(resize) if isinstance(resize, Sequence) else (resize, resize)
    if len(pair) != 2 or not all(
        isinstance(side, int | np.integer) and not isinstance(side, bool) and side > 0 for side in pair
    ):
        raise ChammiError(f"resize is a number of pixels, or (height, width), not {resize!r}")
    return int(pair[0]), int(pair[1])


def _check_one_of(name: str, value: object, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ChammiError(f"{name} is {' or '.join(map(repr, known))}, not {value!r}")


def _check_positive(name: str, number: int | None) -> None:
    if number is not None and (isinstance(number, bool) or not isinstance(number, int | np.integer) or number < 1):
        raise ChammiError(f"{name} is a whole number from 1 on, not {number!r}")


def _in_worker() -> bool:
    from torch.utils.data import get_worker_info

    return get_worker_info() is not None


def _replaced_words(epoch: int, errors: Sequence[ChammiError]) -> str:
    many = "1 sample" if len(errors) == 1 else f"{len(errors)} samples"
    return (
        f"epoch {epoch}: {many} of this process could not be read, and others stood in for them; the first:"
        f" {errors[0]}; chammi75 verify names all damage"
    )
