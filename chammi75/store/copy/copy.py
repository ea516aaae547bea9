"""Copying a store, whole or some of its images."""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Literal, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from chammi75.errors import ChammiError, StoreError
from chammi75.files import StorageOptions, join_url, read_bytes, reading_errors, write_atomically
from chammi75.schemas.manifest import StoreManifest
from chammi75.schemas.withdrawal import Withdrawal
from chammi75.store.copy.files import copy_file
from chammi75.store.copy.images import copy_shard, cut_shards, decoded_bytes, shard_task, stored_bytes
from chammi75.store.copy.ranges import source_errors
from chammi75.store.copy.target import CopyMark, Target, refuse_inside
from chammi75.store.parts import expand, merged
from chammi75.store.reader import Store, is_unsaid, open_store, read_manifest
from chammi75.store.withdrawals import WITHDRAWALS, as_file, shipped_withdrawals, stated_withdrawals, withdrawn_rows
from chammi75.store.writer import COPYING, MANIFEST, StoreWriter, plain_errors

Advance = Callable[[int], None]
Result = TypeVar("Result")
WORKERS = 8
_REPORT = "report.json"
_RESERVED = (MANIFEST, WITHDRAWALS, _REPORT)


@dataclass(frozen=True)
class CopyPlan:
    """What is copied.

    Attributes
    ----------
    source : Store
    stores : tuple of Store
        What it consists of.
    rows : tuple of ndarray of int64, or None
        Rows of each that stay; None where the files are copied as they are.
    withdrawals : tuple of Withdrawal
        The lists of the source, which go along.
    withdrawn : int
        Images that were asked for and are left out because they are withdrawn.
    images, bytes : int
        How many images, and how much is to be read of them.
    """

    source: Store
    stores: tuple[Store, ...]
    rows: tuple[NDArray[np.int64], ...] | None
    withdrawals: tuple[Withdrawal, ...]
    withdrawn: int
    images: int
    bytes: int

    @property
    def mark(self) -> CopyMark:
        """By what an interrupted copy of the same is known."""
        selection = None
        if self.rows is not None:
            digest = hashlib.sha256()
            for rows in self.rows:
                digest.update(len(rows).to_bytes(8, "little") + rows.astype("<i8").tobytes())
            selection = digest.hexdigest()
        return CopyMark(str(self.source.manifest.manifest_sha256), selection)


@dataclass(frozen=True)
class CopyReport:
    """What a copy did.

    Attributes
    ----------
    store : str
        URL of the copy.
    manifest : StoreManifest
        Of the copy.
    withdrawn : int
        Images that were left out because they are withdrawn.
    bytes_read : int
        Read from the source's shards, or from all its files where they were copied whole; what an interrupted copy had
        done already is not among it.
    """

    store: str
    manifest: StoreManifest
    withdrawn: int
    bytes_read: int


def copy_store(
    source_url: str,
    target_url: str,
    *,
    rows: NDArray[np.int64] | None = None,
    workers: int = WORKERS,
    source_options: StorageOptions | None = None,
    target_options: StorageOptions | None = None,
    advance: Advance | None = None,
) -> CopyReport:
    """Copy a store, or some of its images, from any URL to any other.

    A whole store is copied byte for byte, each file's hash checked on the way. Of some images only their byte ranges
    are read and written to new shards as they are stored, each image checked against the hash in its index; so are the
    images of a store that has parts (into one without), and those of a store of which images are withdrawn (which stay
    behind). The manifest comes last. An interrupted copy goes on where it stopped when the same is begun again.

    Parameters
    ----------
    source_url : str
        A finished store.
    target_url : str
        Folder of the copy: absent, empty, or left by an interrupted copy of the same.
    rows : ndarray of int64, optional
        Rows of the index that stay, ascending; with parts, the rows of its own come first, then those of the parts.
    workers : int
        Files or shards that are copied at once. The copy does not depend on it.
    source_options, target_options : mapping, optional
        For the fsspec filesystems.
    advance : callable, optional
        Called with numbers of bytes.

    Raises
    ------
    StoreError
        If there is no store, it is damaged, or the target is taken.
    ChammiError
        If the target cannot be written or is full; what is there is kept.
    """
    plan = plan_copy(source_url, rows=rows, source_options=source_options)
    return run_copy(plan, target_url, workers=workers, target_options=target_options, advance=advance)


def plan_copy(
    source_url: str, *, rows: NDArray[np.int64] | None = None, source_options: StorageOptions | None = None
) -> CopyPlan:
    """Find out what a copy would read; nothing is written (see ``copy_store``).

    Raises
    ------
    StoreError
        If there is no store, its index is damaged, no image is left, or parts are compressed in different ways.
    """
    source = open_store(source_url, source_options)
    leaves = expand(source)
    listed = {entry.target: entry for leaf in leaves for entry in stated_withdrawals(leaf)}
    withdrawals = tuple(listed.values())
    if rows is None and leaves == [source] and not (withdrawals or shipped_withdrawals()):
        return _whole(source, withdrawals)
    leaves = [leaf.checked() for leaf in leaves]
    ends = np.cumsum([0, *(len(leaf) for leaf in leaves)])
    asked = _asked(rows, int(ends[-1]), source.url)
    gone = [withdrawn_rows(leaf) for leaf in leaves]
    kept = asked.copy()
    for start, mask in zip(ends[:-1], gone, strict=True):
        if mask is not None:
            kept[start : start + len(mask)] &= ~mask
    if kept.all() and leaves[0].url == source.url and not source.manifest.parts:
        return _whole(source, withdrawals)
    if not kept.any():
        raise StoreError(f"{source.url}: not a single image is left to copy")
    chosen = tuple(np.flatnonzero(kept[start:end]) for start, end in pairwise(ends))
    codecs = {leaf.manifest.codec for leaf, those in zip(leaves, chosen, strict=True) if len(those)}
    if len(codecs) > 1:
        raise StoreError(
            f"{source.url}: its parts are compressed in different ways ({', '.join(sorted(map(str, codecs)))}), and one"
            " store has one codec: copy the parts one by one and combine the copies"
        )
    size = sum(int(stored_bytes(leaf)[those].sum()) for leaf, those in zip(leaves, chosen, strict=True))
    withdrawn = int(asked.sum() - kept.sum())
    return CopyPlan(source, tuple(leaves), chosen, withdrawals, withdrawn, int(kept.sum()), size)


def run_copy(
    plan: CopyPlan,
    target_url: str,
    *,
    workers: int = WORKERS,
    target_options: StorageOptions | None = None,
    advance: Advance | None = None,
) -> CopyReport:
    """Carry a plan out (see ``copy_store``)."""
    target = Target(target_url, target_options)
    for store in (plan.source, *plan.stores):
        refuse_inside(store.url, target.url)
    with plain_errors(target.url, "make room and run the same copy again, it goes on where it stopped"):
        with target.begun(plan.mark) as is_finished:
            read = 0 if is_finished else _run(plan, target, workers, advance or (lambda amount: None))
            target.finish()
        manifest = open_store(target.url, target_options).manifest
    return CopyReport(target.url, manifest, plan.withdrawn, read)


def _whole(source: Store, withdrawals: tuple[Withdrawal, ...]) -> CopyPlan:
    paths = [entry.path for entry in source.manifest.files]
    for path in paths:
        if path in _RESERVED or path.split("/")[0] == COPYING or paths.count(path) > 1:
            raise StoreError(f"{source.url}: the manifest names a file {path!r}, which no store has")
    size = sum(entry.bytes for entry in source.manifest.files)
    return CopyPlan(source, (source,), None, withdrawals, 0, source.manifest.images, size)


def _asked(rows: NDArray[np.int64] | None, images: int, url: str) -> NDArray[np.bool_]:
    """Which images are asked for, shape (images,)."""
    if rows is None:
        return np.ones(images, bool)
    rows = np.asarray(rows)
    if rows.ndim != 1 or (rows.size and not np.issubdtype(rows.dtype, np.integer)):
        raise ChammiError("rows are whole numbers in one dimension")
    if rows.size and (rows[0] < 0 or rows[-1] >= images or (np.diff(rows) <= 0).any()):
        raise ChammiError(f"{url}: rows must ascend and lie between 0 and {images - 1}")
    asked = np.zeros(images, bool)
    asked[rows.astype(np.int64)] = True
    return asked


def _run(plan: CopyPlan, target: Target, workers: int, advance: Advance) -> int:
    """Copy all but what is there; bytes read."""
    if plan.rows is None:
        return _copy_files(plan, target, workers, advance)
    return _copy_images(plan, plan.rows, target, workers, advance)


def _copy_files(plan: CopyPlan, target: Target, workers: int, advance: Advance) -> int:
    source = plan.source
    content = read_manifest(source.url, source.storage_options)
    if StoreManifest.from_bytes(content, source.url) != source.manifest:
        raise StoreError(f"{source.url}: the store was exchanged for another one while it was opened: try again")
    tasks = (partial(copy_file, source, entry, target) for entry in source.manifest.files)
    read = sum(_in_order(tasks, workers, advance))
    beside = _report(source)
    if beside is not None:
        write_atomically(join_url(target.url, _REPORT), beside, target.storage_options)
    _write_withdrawals(plan, target)
    write_atomically(join_url(target.url, MANIFEST), content, target.storage_options)
    return read


def _report(source: Store) -> bytes | None:
    """The report of the build; None where there is none."""
    url = join_url(source.url, _REPORT)
    with source_errors(url):
        try:
            return read_bytes(url, source.storage_options)
        except FileNotFoundError:
            return None
        except reading_errors() as error:
            if is_unsaid(error, url):
                return None
            raise


def _copy_images(
    plan: CopyPlan, rows: tuple[NDArray[np.int64], ...], target: Target, workers: int, advance: Advance
) -> int:
    stores = plan.stores
    cuts = cut_shards(stores, rows)
    taken = [(store, chosen) for store, chosen in zip(stores, rows, strict=True) if len(chosen)]
    read = 0
    with StoreWriter(target.url, target.storage_options) as writer:
        tasks = (partial(copy_shard, shard_task(cut, stores), target) for cut in cuts)
        for cut, (written, size) in zip(cuts, _in_order(tasks, workers, advance), strict=True):
            writer.add_shard(cut.path, cut.split, written)
            read += size
        _write_withdrawals(plan, target)
        writer.commit(
            codec=cast(Literal["zstd", "deflate"], taken[0][0].manifest.codec),
            pixel_bytes=sum(int(decoded_bytes(store)[chosen].sum()) for store, chosen in taken),
            recipes=merged([store.manifest.recipes for store, _ in taken]),
            cards=merged([store.manifest.cards for store, _ in taken]),
        )
    return read


def _write_withdrawals(plan: CopyPlan, target: Target) -> None:
    """The source's lists go along: what was withdrawn stays known."""
    if plan.withdrawals:
        write_atomically(join_url(target.url, WITHDRAWALS), as_file(plan.withdrawals), target.storage_options)


def _in_order(tasks: Iterator[Callable[[Advance], Result]], workers: int, advance: Advance) -> Iterator[Result]:
    """What tasks give, in their order; several are at work at once, and all stop soon when one fails."""
    stopped = threading.Event()

    def step(amount: int) -> None:
        if stopped.is_set():
            raise ChammiError("the copy was stopped")
        advance(amount)

    with ThreadPoolExecutor(max(workers, 1)) as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            for task in tasks:
                waiting.append(pool.submit(task, step))
                if len(waiting) > workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            stopped.set()
            for future in waiting:
                future.cancel()
