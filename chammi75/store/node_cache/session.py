"""What one process does with a cache: finding, fetching and reading its files."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from chammi75.errors import StoreError, UnreachableError
from chammi75.store.node_cache.ahead import Ahead
from chammi75.store.node_cache.download import RemoteFile, StoppedError, WrongContentError, download
from chammi75.store.node_cache.entries import note_use
from chammi75.store.node_cache.folder import CacheError, CacheFolder
from chammi75.store.node_cache.open_files import OpenFile, OpenFiles
from chammi75.terminal import human_bytes

PATIENCE_S = 180.0
"""How long nothing may happen before another process that fetches a file is thought to hang; servers get less."""

_TRIES = 4
_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
_GONE = (errno.ENOENT, errno.ESTALE)


class Session:
    """A process's use of a cache. A forked child makes its own.

    Parameters
    ----------
    folder : CacheFolder

    Attributes
    ----------
    process : int
        Its id.
    indexes : dict of str to RemoteFile
        Index files that were asked for, by SHA-256: they may be mapped.
    """

    def __init__(self, folder: CacheFolder) -> None:
        self.folder = folder
        self.process = os.getpid()
        self.indexes: dict[str, RemoteFile] = {}
        self.files = OpenFiles()
        self._ahead = Ahead(self._is_there, self._note_uses, folder.limit_bytes)
        self._mutex = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._had: set[str] = set()
        self._damaged: set[str] = set()
        self._unreachable: tuple[float, str, str] | None = None  # when, and what a server did not give

    def counts(self) -> dict[str, int]:
        """What was counted so far (see ``CacheTraffic``)."""
        with self._mutex:
            return {**self._counts, "evicted": self.folder.evicted}

    def _count(self, **amounts: int) -> None:
        with self._mutex:
            for name, amount in amounts.items():
                self._counts[name] += amount

    def prefetch(self, files: Iterable[RemoteFile]) -> None:
        """As ``NodeCache.prefetch``."""
        self._ahead.start(files)

    def close(self) -> None:
        """Stop the thread and close all files; in a process that was forked meanwhile, nothing."""
        if self.process == os.getpid():
            self._ahead.stop()
            self.files.drop_all()

    def fetch(self, file: RemoteFile) -> Path:
        """As ``NodeCache.fetch``."""
        self._note_uses()
        path = self._find(file)
        if path is not None:
            self._count(hits=1)
        else:
            self._count(misses=1)
            path = self._obtain(file)
        self._had.add(file.sha256)
        if file.is_index:
            self.indexes[file.sha256] = file
        return path

    def check(self, file: RemoteFile) -> bool:
        """As ``NodeCache.check``."""
        is_right = self.folder.check(file.sha256, is_index=file.is_index)
        if not is_right:
            self._damaged.add(file.sha256)
        self.files.drop(file.sha256)
        return is_right

    def _find(self, file: RemoteFile) -> Path | None:
        path = self.folder.find(file.sha256, file.size, is_index=file.is_index)
        if path is not None:
            note_use(path)
        return path

    def _obtain(self, file: RemoteFile) -> Path:
        """Fetch a file, or wait until somebody else has; who hangs is not waited for.

        What another thread learned meanwhile of a server that is away holds for this one too: else they would find it
        out one after the other.
        """
        pause_s, changed_s = 0.01, time.monotonic()
        started_s = changed_s
        seen: list[tuple[str, float]] | None = None
        while True:
            is_late = time.monotonic() - changed_s > PATIENCE_S
            if self._unreachable is not None and self._unreachable[0] >= started_s:
                raise UnreachableError(*self._unreachable[1:])
            path = self._try_to_obtain(file, insist=True, is_late=is_late)
            if path is None and is_late:
                raise self.folder.full(file.size)
            if path is not None:
                return path
            time.sleep(pause_s)
            pause_s = min(pause_s * 1.5, 0.25)
            parts = self.folder.parts()
            its_own = [part for part in parts if part.sha256 == file.sha256]  # else it is room that is waited for
            found = [(part.path.name, part.changed_s) for part in its_own or parts]
            if found != seen:
                seen, changed_s = found, time.monotonic()

    def _try_to_obtain(self, file: RemoteFile, *, insist: bool, is_late: bool = False) -> Path | None:
        """Fetch a file, if nobody does and there is room; None if not now.

        One that hangs (``is_late``) keeps its lock, and its part, which is not in the way of another.
        """
        locks = self.folder.locks
        is_taken = locks.take(file.sha256)
        try:
            path = self._find(file)
            if path is not None:
                self._count(waited=int(insist))
                return path
            if is_late or (is_taken and not self.folder.is_written_elsewhere(file.sha256)):
                return self._download(file, insist=insist)
            return None
        finally:
            if is_taken:
                locks.give(file.sha256)

    def _download(self, file: RemoteFile, *, insist: bool) -> Path | None:
        tries, wrong = _TRIES, 0
        while True:
            tries -= 1
            part = self.folder.begin(file.sha256, file.size, self._ahead.ranks, insist=insist)
            if part is None:
                return None
            if not insist:
                self._ahead.parts.add(part)
            try:
                if self.folder.is_written_elsewhere(file.sha256, before=part):
                    return None
                download(file, part, lambda: not insist and self._ahead.is_unwanted(file))
                path = self.folder.finish(part, file.sha256, is_index=file.is_index)
            except WrongContentError:
                self._count(fetched_bytes=file.size)
                wrong += 1
                if wrong == 2:
                    raise
            except UnreachableError as error:
                self._unreachable = time.monotonic(), error.path, error.reason
                raise
            except FileNotFoundError as error:  # somebody deletes the cache, or took the part for a dead process's
                if tries <= 0:
                    raise self.folder.unusable(error) from error
            except OSError as error:
                part.unlink(missing_ok=True)
                is_full = error.errno in _FULL
                if not (tries > 0 and is_full and self.folder.shrink(file.size, self._ahead.ranks, insist=insist)):
                    raise self.folder.unusable(error) from error
            else:
                again = file.size if file.sha256 in self._had else 0
                self._count(fetched=1, fetched_bytes=file.size, refetched_bytes=again)
                return path
            finally:
                part.unlink(missing_ok=True)
                self._ahead.parts.discard(part)

    def read(self, file: RemoteFile, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """As ``NodeCache.read``."""
        for offset, length in ranges:
            if offset < 0 or length < 0 or offset + length > file.size:
                raise StoreError(
                    f"{file.url}: bytes {offset} to {offset + length} are not in this file, which has {file.size}: it"
                    " does not belong to its index"
                )
        failure: OSError | None = None
        for _ in range(_TRIES):
            opened = self._open(file)
            try:
                parts = [opened.read(offset, length) for offset, length in ranges]
            except OSError as error:
                failure = error
                self.files.drop(file.sha256)
                if error.errno not in _GONE:  # a bad disk: hashing it fails, and removes it
                    self.folder.check(file.sha256, is_index=file.is_index)
                continue
            if all(len(part) == length for part, (_, length) in zip(parts, ranges, strict=True)):
                self._count(read_bytes=sum(length for _, length in ranges))
                return parts
            self.files.drop(file.sha256)  # somebody cut the file: it has another size now, and is fetched again
        raise CacheError(
            f"{self.folder.path}: the cached copy of {file.url} could not be read {_TRIES} times"
            f" ({failure.strerror if failure else 'it was cut short each time'}): name a folder on another disk"
        ) from failure

    def view(self, file: RemoteFile) -> memoryview:
        """As ``NodeCache.view``."""
        for _ in range(_TRIES):
            opened = self._open(file)
            view = opened.view()
            if len(view) == file.size:
                return view
            self.files.drop(file.sha256)  # somebody cut the file: it is fetched again
        raise CacheError(
            f"{self.folder.path}: the cached copy of {file.url} was cut short {_TRIES} times: name a folder on another"
            " disk"
        )

    def _open(self, file: RemoteFile) -> OpenFile:
        opened = self.files.get(file.sha256)
        if opened is not None and file.sha256 in self._damaged and opened.is_evicted:
            self.files.drop(file.sha256)  # another thread opened it just before it was found to be damaged
            opened = None
        if opened is not None:
            self._note_uses()
            return opened
        for _ in range(_TRIES):
            path = self.fetch(file)
            try:
                return self.files.add(file.sha256, path)
            except OSError as error:
                if error.errno not in _GONE:  # else it was evicted between the two
                    raise self.folder.unusable(error) from error
        raise CacheError(
            f"{self.folder.path}: {file.url} was fetched {_TRIES} times and evicted each time before it could be"
            f" opened: {human_bytes(self.folder.limit_bytes)} are too little for all who share this cache: raise its"
            " limit"
        )

    def _is_there(self, file: RemoteFile) -> bool:
        """Fetch a planned file unless it is there, or somebody else does; whether it is."""
        try:
            found = self._find(file) or self._try_to_obtain(file, insist=False)
        except StoppedError:
            return False
        if found is not None:
            self._had.add(file.sha256)
        return found is not None

    def _note_uses(self) -> None:
        if self.files.is_note_due:
            self.files.note_uses([self.folder.entry_path(sha256, is_index=True) for sha256 in self.indexes])
