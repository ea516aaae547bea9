"""Who of a node's processes is at work on which file of a cache, said by locks that end with their process.

One lock file serves for all: the lock of a name is one byte of it, at the place that the name's hash gives. POSIX
record locks are taken for that: a forked child does not inherit them, as it would with flock (where a worker that
outlives a killed parent keeps the parent's lock), and the kernel takes them back however a process ends. Their known
weakness, that a process loses all of them when it closes the file anywhere, costs a second download and no more:
nothing of the cache relies on a lock to be right.
"""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from functools import cache
from pathlib import Path

LOCK_FILE = ".lock"
"""Name of the lock file in the cache's folder."""

_HELD = (errno.EACCES, errno.EAGAIN)
_OFFSET_BITS = 62  # offsets of files are signed, and the byte behind must have one too


class CacheLocks:
    """The locks that this process holds on the names of one cache. Get it from ``locks_of``.

    Parameters
    ----------
    path : pathlib.Path
        The lock file; it is made if need be, and stays.

    Attributes
    ----------
    token : str
        Names this process, and no other that has ever been.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._mutex = threading.Lock()
        self._held: set[str] = set()
        self._descriptor: int | None = None
        self._works = os.name == "posix"
        self.token = os.urandom(6).hex()

    @property
    def reach_other_processes(self) -> bool:
        """Whether the system has locks here; else only threads of this process are kept apart."""
        return self._works

    def take(self, name: str) -> bool:
        """Take the lock of a name; False if another process, or another thread of this one, has it."""
        with self._mutex:
            if name in self._held:
                return False
            if not self._lock(name):
                return False
            self._held.add(name)
            return True

    def give(self, name: str) -> None:
        """Let go of a lock that was taken."""
        with self._mutex:
            self._held.discard(name)
            if self._works and self._descriptor is not None:
                import fcntl

                try:
                    fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, _offset(name))
                except OSError:
                    self._works = False

    def _lock(self, name: str) -> bool:
        if not self._works:
            return True
        import fcntl

        try:
            if self._descriptor is None:
                self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _offset(name))
        except OSError as error:
            if error.errno in _HELD and self._descriptor is not None:
                return False
            self._works = False  # a filesystem without locks: what follows is slower there, and as right
        return True


@cache
def locks_of(folder: Path, process: int) -> CacheLocks:
    """The locks of a process on a cache: one object, however many caches are opened on the folder.

    Record locks belong to the process as a whole; two objects would undo each other's. ``process`` is ``os.getpid()``,
    so that a forked child makes its own.
    """
    return CacheLocks(folder / LOCK_FILE)


def _offset(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> (64 - _OFFSET_BITS)
