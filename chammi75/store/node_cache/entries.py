"""What is in a cache's folder: the names of its files, and how a file that is right is told from one that was changed.

- ``<sha256>.arrow`` or ``<sha256>.index.arrow`` is a file of a store, whole. Its access time is when it was last used.
  Its time of change is one that only the cache gives: when it was found to be right, set back by less than a day to an
  even second that the hash determines. A file that has another time, or another size, was written to by somebody: it
  is hashed again before it is used.
- ``<sha256>.<machine>.<process>.<number>.part`` is a file that is being fetched, with its full length from the start.

Nothing else in the folder is the cache's, and no symbolic link is.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_NAME = re.compile(r"(?P<sha256>[0-9a-f]{64})(?P<suffix>\.index\.arrow|\.arrow)")
_PART = re.compile(r"(?P<sha256>[0-9a-f]{64})\.(?P<machine>[0-9a-f]{12})\.(?P<process>[0-9a-f]{12})\.\d+\.part")
_DAY_S = 86400
_WRITING_S = 60  # a part that has not changed for so long is not being written
_NO_LINK = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
_READ = os.O_RDONLY | _NO_LINK
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_LINK


@dataclass(frozen=True)
class Entry:
    """A whole file in the cache: its path, the SHA-256 in its name, its size, and when it was last used."""

    path: Path
    sha256: str
    size: int
    used_s: float

    @property
    def is_index(self) -> bool:
        """Whether processes may have mapped it."""
        return self.path.name.endswith(".index.arrow")


@dataclass(frozen=True)
class Part:
    """A file that is being fetched, or was when its process ended: who writes it, and when it last changed."""

    path: Path
    sha256: str
    machine: str
    process: str
    size: int
    changed_s: float
    age_s: float

    @property
    def may_be_written(self) -> bool:
        """Whether it changed in the last minute (or in the next: clocks of machines differ)."""
        return abs(self.age_s) < _WRITING_S


def entry_name(sha256: str, *, is_index: bool = False) -> str:
    """Name of a whole file.

    Examples
    --------
    >>> entry_name("0" * 64).count("0"), entry_name("0" * 64, is_index=True)[64:]
    (64, '.index.arrow')
    """
    return f"{sha256}{'.index' if is_index else ''}.arrow"


def part_name(sha256: str, process: str, number: int) -> str:
    """Name of a file that a process of this machine fetches; ``number`` tells its parts apart."""
    return f"{sha256}.{machine_token()}.{process}.{number}.part"


def recognised(path: Path, status: os.stat_result) -> Entry | Part | None:
    """What a file is to the cache, by its name and status (of itself: of no link's target); None for anybody else's."""
    if not stat.S_ISREG(status.st_mode):
        return None
    whole = _NAME.fullmatch(path.name)
    if whole:
        return Entry(path, whole["sha256"], status.st_size, status.st_atime)
    part = _PART.fullmatch(path.name)
    if part:
        words = part["sha256"], part["machine"], part["process"]
        return Part(path, *words, status.st_size, status.st_mtime, time.time() - status.st_mtime)
    return None


def open_entry(path: Path) -> int:
    """A descriptor of a file of the cache, for reading; a symbolic link is not followed."""
    return os.open(path, _READ)


def create_part(path: Path, size: int) -> None:
    """Make an empty file of ``size`` bytes: others see in the listing how much room it takes."""
    descriptor = os.open(path, _CREATE, 0o666)
    try:
        os.ftruncate(descriptor, size)
    finally:
        os.close(descriptor)


def stamp(path: Path, sha256: str) -> None:
    """Give a file that was found to be right the time of change that says so, and now as its last use."""
    now = time.time_ns()
    second = now // 10**9
    _set_times(path, now, (second - (second - _offset_in_day(sha256)) % _DAY_S) * 10**9)


def is_stamped(status: os.stat_result, sha256: str) -> bool:
    """Whether a file's time of change is one that ``stamp`` gives it.

    Whole even seconds survive on every filesystem; that a write happens to leave such a time is one in 43 200 where
    times are kept in seconds, and next to nothing elsewhere. Less than a day back, it does not mislead those who clear
    old files away.
    """
    return status.st_mtime_ns % 10**9 == 0 and status.st_mtime_ns // 10**9 % _DAY_S == _offset_in_day(sha256)


def note_use(path: Path) -> None:
    """Record that a file is in use; where that is not allowed (another user's file) it counts as older."""
    try:
        status = path.lstat()
        if stat.S_ISREG(status.st_mode):
            _set_times(path, time.time_ns(), status.st_mtime_ns)
    except OSError:  # gone since, or another user's: it loses its turn, nothing else
        return


def _set_times(path: Path, used_ns: int, changed_ns: int) -> None:
    os.utime(path, ns=(used_ns, changed_ns), follow_symlinks=os.utime not in os.supports_follow_symlinks)


def _offset_in_day(sha256: str) -> int:
    return int(sha256[:8], 16) % (_DAY_S // 2) * 2


@cache
def machine_token() -> str:
    """Twelve characters that name the running system: locks reach the processes that have the same."""
    try:
        word = Path("/proc/sys/kernel/random/boot_id").read_text()
    except OSError:
        import platform

        word = platform.node()
    return hashlib.sha256(word.encode()).hexdigest()[:12]
