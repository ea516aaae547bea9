"""The folder of a node cache: which files are there, which of them are right, and which go when room is needed.

Everything is read off the folder itself; there is no list of it that could be wrong after a crash. ``CACHEDIR.TAG``
marks it (the standard mark, so that backups leave it out): where that is missing nothing is touched. Of what is there
only files with the names of ``chammi75.store.node_cache.entries`` are the cache's; anything else stays.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from chammi75.errors import StoreError
from chammi75.store.node_cache.entries import (
    Entry,
    Part,
    create_part,
    entry_name,
    is_stamped,
    machine_token,
    open_entry,
    part_name,
    recognised,
    stamp,
)
from chammi75.store.node_cache.locks import LOCK_FILE, CacheLocks, locks_of
from chammi75.terminal import human_bytes

TAG = "CACHEDIR.TAG"
_SIGNATURE = b"Signature: 8a477f597d28d172789f06886806bc55\n"
_TAG_CONTENT = _SIGNATURE + b"# This folder is a chammi75 cache, version 1. It may be deleted at any time.\n"

_ROOM = "room"  # the lock under which room is made; no hash is called that
_INDEX_KEPT_S = 86400  # those who use an index touch it every few minutes
_FORGOTTEN_S = 3600  # a part that has not changed for so long is nobody's, whatever the locks say
_SPARE_BYTES = 64 * 2**20  # of the disk, left to others
_GONE = (errno.ENOENT, errno.ESTALE)
_TRIES = 4


class CacheError(StoreError):
    """A cache folder that cannot be used: it cannot be written, is full, belongs to others, or is too small."""


class CacheFolder:
    """The folder of a cache.

    Parameters
    ----------
    path : pathlib.Path
        Absolute.
    limit_bytes : int
        What its files may take together.

    Attributes
    ----------
    evicted : int
        Files that were removed through this object to make room.
    """

    def __init__(self, path: Path, limit_bytes: int) -> None:
        self.path = path
        self.limit_bytes = limit_bytes
        self.evicted = 0

    @property
    def locks(self) -> CacheLocks:
        """The locks of this process."""
        return locks_of(self.path, os.getpid())

    def entry_path(self, sha256: str, *, is_index: bool = False) -> Path:
        """Where a file has its place."""
        return self.path / entry_name(sha256, is_index=is_index)

    def prepare(self) -> None:
        """Make the folder if need be, see that it can be used, and remove what dead processes left.

        Raises
        ------
        CacheError
            If it cannot be made or written, or is not empty and no cache.
        """
        tag = self.path / TAG
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if not _is_marked(tag):
                if self._has_others_files() and not _is_marked(
                    tag
                ):  # it may have been marked by another process since, and used
                    raise CacheError(
                        f"{self.path}: this folder is not empty and no chammi75 cache (no {TAG} of ours), so nothing in"
                        " it is touched: name a new or an empty folder"
                    )
                self._mark(tag)
            self._probe()
        except OSError as error:
            raise self.unusable(error) from error
        with self._room():
            self._remove_dead(self.parts())

    def _has_others_files(self) -> bool:
        """Whether there are files that no cache makes; one whose mark was removed while it was used has none."""
        with os.scandir(self.path) as listing:
            return any(
                not (item.name == LOCK_FILE or item.name.startswith(f".{TAG}."))
                and (status := _status(item)) is not None
                and recognised(Path(item.path), status) is None
                for item in listing
            )

    def unusable(self, error: OSError) -> CacheError:
        """What to raise where the folder, or a file in it, could not be used."""
        return CacheError(_why_unusable(self.path, error))

    def full(self, size: int) -> CacheError:
        """What to raise where no room can be made."""
        parts, entries = self.parts(), self.entries()
        held = sum(entry.size for entry in entries if entry.is_index)
        return CacheError(
            f"{self.path}: there is no room for a file of {human_bytes(size)}: the cache may hold"
            f" {human_bytes(self.limit_bytes)}, of which indexes in use take {human_bytes(held)} and files that others"
            f" are fetching {human_bytes(sum(part.size for part in parts))}, and its disk has"
            f" {human_bytes(self.free_bytes())} free: give it a higher limit, or another disk"
        )

    def _mark(self, tag: Path) -> None:
        partial = self.path / f".{TAG}.{os.urandom(6).hex()}"
        try:
            partial.write_bytes(_TAG_CONTENT)
            os.replace(partial, tag)
        finally:
            partial.unlink(missing_ok=True)

    def _probe(self) -> None:
        """See that a file can be made here: a folder may belong to others, or lie on a disk mounted for reading."""
        path = self._new_part("0" * 64)
        try:
            create_part(path, 0)
        finally:
            path.unlink(missing_ok=True)

    def _new_part(self, sha256: str) -> Path:
        return self.path / part_name(sha256, self.locks.token, int.from_bytes(os.urandom(5), "big"))

    def find(self, sha256: str, size: int, *, is_index: bool = False) -> Path | None:
        """A file of the cache that is right; one that is not is removed.

        Its size and its time of change say whether anyone wrote to it since it was checked; then it is hashed again.

        Raises
        ------
        CacheError
            If something else is at its place: a folder, a symbolic link.
        """
        path = self.entry_path(sha256, is_index=is_index)
        try:
            status = path.lstat()
        except OSError as error:
            if error.errno in _GONE:
                return None
            raise self.unusable(error) from error
        if not stat.S_ISREG(status.st_mode):
            raise CacheError(f"{path}: this is no file of the cache (a link or a folder): move it away")
        if status.st_size == size and is_stamped(status, sha256):
            return path
        if status.st_size == size and self.check(sha256, is_index=is_index):
            return path
        self._dropped(path)
        return None

    def check(self, sha256: str, *, is_index: bool = False) -> bool:
        """Hash a file of the cache whole: if it is right its times say so, if not it is removed."""
        path = self.entry_path(sha256, is_index=is_index)
        try:
            with open(open_entry(path), "rb") as file:
                is_right = hashlib.file_digest(file, "sha256").hexdigest() == sha256
        except OSError as error:
            is_right = False
            if error.errno in _GONE:
                return False
        if not is_right:
            self._dropped(path)
            return False
        try:
            stamp(path, sha256)
        except OSError as error:
            if not isinstance(error, PermissionError) and error.errno not in _GONE:
                raise self.unusable(error) from error
        return True  # another user's file keeps the times that it has

    def _dropped(self, path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise CacheError(f"{path}: a damaged file of the cache cannot be removed ({error.strerror})") from error

    def entries(self) -> list[Entry]:
        """The whole files, least recently used first."""
        found = [item for item in self._listed() if isinstance(item, Entry)]
        return sorted(found, key=lambda entry: (entry.used_s, entry.sha256))

    def parts(self) -> list[Part]:
        """The files that are being fetched, or were."""
        return [item for item in self._listed() if isinstance(item, Part)]

    def _listed(self) -> list[Entry | Part]:
        try:
            with os.scandir(self.path) as listing:
                found = [recognised(Path(item.path), status) for item in listing if (status := _status(item))]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self.unusable(error) from error
        return [item for item in found if item is not None]

    def begin(self, sha256: str, size: int, keep: Mapping[str, int], *, insist: bool) -> Path | None:
        """Make room for a file and take it: an empty file of its size, for this process to write.

        Parameters
        ----------
        sha256 : str
            The file that will be written.
        size : int
        keep : mapping of str to int
            Files (by SHA-256) that this process will need, with when: they stay if possible, the soonest the longest.
        insist : bool
            Whether those of ``keep`` may go too.

        Returns
        -------
        pathlib.Path or None
            None if there is no room and nothing more may go: what others fetch takes it, or ``keep``.

        Raises
        ------
        CacheError
            If the file is larger than the cache, or the folder cannot be written.
        """
        if size > self.limit_bytes:
            raise CacheError(
                f"{self.path}: a file of {human_bytes(size)} is larger than the cache may be"
                f" ({human_bytes(self.limit_bytes)}): give it a higher limit"
            )
        for _ in range(_TRIES - 1):
            try:
                return self._begun(sha256, size, keep, insist=insist)
            except CacheError as error:
                if getattr(error.__cause__, "errno", None) not in _GONE:  # else somebody deletes it at this moment
                    raise
        return self._begun(sha256, size, keep, insist=insist)

    def _begun(self, sha256: str, size: int, keep: Mapping[str, int], *, insist: bool) -> Path | None:
        try:
            is_marked = _is_marked(self.path / TAG)
        except OSError as error:
            raise self.unusable(error) from error
        if not is_marked:  # somebody deleted the cache
            self.prepare()
        with self._room():
            if not self.make_room(size, keep, insist=insist):
                if insist and not self.parts():
                    raise self.full(size)
                return None
            path = self._new_part(sha256)
            try:
                create_part(path, size)
            except OSError as error:
                path.unlink(missing_ok=True)
                raise self.unusable(error) from error
            return path

    def make_room(self, size: int, keep: Mapping[str, int], *, insist: bool) -> bool:
        """Remove the least recently used files until ``size`` bytes more fit; nothing is removed if they cannot."""
        parts = self._remove_dead(self.parts())
        entries = self.entries()
        used = sum(entry.size for entry in entries) + sum(part.size for part in parts)
        excess = max(used + size - self.limit_bytes, size + _SPARE_BYTES - self.free_bytes())
        return excess <= 0 or self._evict(entries, excess, keep, insist=insist)

    def shrink(self, size: int, keep: Mapping[str, int], *, insist: bool) -> bool:
        """Remove files of ``size`` bytes: the disk, or a quota, was full before the limit was reached."""
        with self._room():
            return self._evict(self.entries(), size, keep, insist=insist)

    def _evict(self, entries: Sequence[Entry], excess: int, keep: Mapping[str, int], *, insist: bool) -> bool:
        now = time.time()
        loose = [entry for entry in entries if not (entry.is_index and now - entry.used_s < _INDEX_KEPT_S)]
        victims = [entry for entry in loose if entry.sha256 not in keep]
        if insist:
            kept = [entry for entry in loose if entry.sha256 in keep]
            victims += sorted(kept, key=lambda entry: -keep[entry.sha256])
        if sum(entry.size for entry in victims) < excess:
            return False
        for entry in victims:
            if excess <= 0:
                break
            if _removed(entry.path):
                self.evicted += 1
                excess -= entry.size
        return excess <= 0

    def finish(self, part: Path, sha256: str, *, is_index: bool = False) -> Path:
        """Move a file that was written and checked to its place, in one step.

        Raises
        ------
        FileNotFoundError
            If it was taken for a dead process's and removed.
        OSError
            If it cannot be moved.
        """
        path = self.entry_path(sha256, is_index=is_index)
        stamp(part, sha256)
        try:
            os.replace(part, path)
        except PermissionError:  # Windows, where the same file is there and open
            if not path.is_file():
                raise
            part.unlink(missing_ok=True)
        return path

    def is_written_elsewhere(self, sha256: str, before: Path | None = None) -> bool:
        """Whether a process that the lock does not reach seems to fetch a file.

        Of two that begin at the same moment the one whose part sorts first goes on: ``before`` is one's own part.
        """
        locks, here = self.locks, machine_token()
        return any(
            part.sha256 == sha256
            and part.process != locks.token
            and (before is None or part.path.name < before.name)
            and part.may_be_written
            and not (locks.reach_other_processes and part.machine == here)
            for part in self.parts()
        )

    def free_bytes(self) -> int:
        """Free bytes of the disk."""
        try:
            return shutil.disk_usage(self.path).free
        except OSError as error:
            raise self.unusable(error) from error

    def _remove_dead(self, parts: Sequence[Part]) -> list[Part]:
        """Remove parts whose process is no more; what is left.

        On this machine the lock says so: a process that writes a part holds the lock of its name. Of other machines,
        and where there are no locks, only a part that has not changed for an hour is given up.
        """
        locks, here = self.locks, machine_token()
        alive = []
        for part in parts:
            is_dead = part.age_s > _FORGOTTEN_S and part.process != locks.token
            if not is_dead and part.machine == here and part.process != locks.token and locks.reach_other_processes:
                is_dead = locks.take(part.sha256)
                if is_dead:
                    locks.give(part.sha256)
                    is_dead = locks.reach_other_processes  # taking it may have told that there are none
            if not (is_dead and _removed(part.path)):
                alive.append(part)
        return alive

    @contextmanager
    def _room(self) -> Iterator[None]:
        """Keep other processes from making room at the same time; it takes them milliseconds."""
        deadline = time.monotonic() + 30
        is_held = self.locks.take(_ROOM)
        while not is_held and time.monotonic() < deadline:  # one that was stopped in the middle is not waited for
            time.sleep(0.002)
            is_held = self.locks.take(_ROOM)
        try:
            yield
        finally:
            if is_held:
                self.locks.give(_ROOM)


def _status(item: os.DirEntry[str]) -> os.stat_result | None:
    """Of a file itself, not of a link's target; None where it is gone meanwhile."""
    try:
        return item.stat(follow_symlinks=False)
    except OSError as error:
        if error.errno in _GONE:
            return None
        raise


def _is_marked(tag: Path) -> bool:
    try:
        return tag.read_bytes().startswith(_TAG_CONTENT[:-1])
    except FileNotFoundError:
        return False


def _removed(path: Path) -> bool:
    """Remove a file; False if it stays (open on Windows, or another user's)."""
    try:
        path.unlink()
    except OSError as error:
        return error.errno in _GONE
    return True


def _why_unusable(path: Path, error: OSError) -> str:
    full = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
    if error.errno in full:
        return f"{path}: the disk of the cache is full: make room, or name another folder"
    if isinstance(error, FileExistsError | NotADirectoryError):
        return f"{path}: the cache cannot be here, since this, or what it is said to lie in, is a file: name a folder"
    if isinstance(error, PermissionError) or error.errno == errno.EROFS:
        return f"{path}: the cache folder cannot be written ({error.strerror}): name one that can"
    return f"{path}: the cache folder cannot be used ({error.strerror}): name another one"
