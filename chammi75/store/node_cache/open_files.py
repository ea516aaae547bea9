"""Cached files that a process has open for reading."""

from __future__ import annotations

import mmap
import os
import threading
import time
from collections import OrderedDict
from pathlib import Path

from chammi75.store.node_cache.entries import note_use, open_entry

OPEN_FILES = 64
"""Files that a process keeps open."""

NOTED_EVERY_S = 60.0
"""How often the use of a file is recorded on it."""

IDLE_S = 5.0
"""How long a file that was evicted is kept open after its last use: its room on the disk is only free then."""


class OpenFile:
    """A file of the cache, open; its descriptor is closed when nobody reads through it any more."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor = open_entry(path)
        self.used_s = time.monotonic()
        self._mutex = None if hasattr(os, "pread") else threading.Lock()
        self._mapped: mmap.mmap | None = None

    def read(self, offset: int, length: int) -> bytes:
        """Bytes at an offset; fewer only at the file's end."""
        content = self._read_some(offset, length)
        if len(content) == length or not content:
            return content
        parts, have = [content], len(content)
        while have < length and (content := self._read_some(offset + have, length - have)):
            parts.append(content)
            have += len(content)
        return b"".join(parts)

    def _read_some(self, offset: int, length: int) -> bytes:
        if self._mutex is None:
            return os.pread(self.descriptor, length, offset)
        with self._mutex:  # Windows: no pread
            os.lseek(self.descriptor, offset, os.SEEK_SET)
            return os.read(self.descriptor, length)

    def view(self) -> memoryview:
        """The whole file, mapped, as long as it is now; the view outlives this object and the file's name."""
        size = os.fstat(self.descriptor).st_size
        if not size:
            return memoryview(b"")
        mapped = self._mapped
        if mapped is None or len(mapped) != size:
            mapped = self._mapped = mmap.mmap(self.descriptor, size, access=mmap.ACCESS_READ)
        return memoryview(mapped)

    @property
    def is_evicted(self) -> bool:
        """Whether the file has no name any more, and its bytes are only held by those who have it open."""
        return os.fstat(self.descriptor).st_nlink == 0

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


class OpenFiles:
    """The most recently used open files of a process, by SHA-256."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._files: OrderedDict[str, OpenFile] = OrderedDict()
        self._noted_s = time.monotonic()

    def get(self, sha256: str) -> OpenFile | None:
        """An open file, if it is."""
        with self._mutex:
            found = self._files.get(sha256)
            if found is not None:
                self._files.move_to_end(sha256)
                found.used_s = time.monotonic()
        return found

    def add(self, sha256: str, path: Path) -> OpenFile:
        """Open a file and keep it; the least recently used one beyond ``OPEN_FILES`` is let go, and what is evicted.

        Raises
        ------
        OSError
            If it cannot be opened.
        """
        opened = OpenFile(path)
        idle_since_s = opened.used_s - IDLE_S
        with self._mutex:
            for known, file in list(self._files.items()):
                if file.used_s < idle_since_s and file.is_evicted:
                    del self._files[known]
            self._files[sha256] = opened
            while len(self._files) > OPEN_FILES:
                self._files.popitem(last=False)
        return opened

    def drop(self, sha256: str) -> None:
        """Let a file go."""
        with self._mutex:
            self._files.pop(sha256, None)

    def drop_all(self) -> None:
        """Let all files go; also those that a forked child has inherited, whatever its parent's threads were doing."""
        self._files = OrderedDict()

    @property
    def is_note_due(self) -> bool:
        """Whether uses were last noted a minute ago."""
        return time.monotonic() - self._noted_s >= NOTED_EVERY_S

    def note_uses(self, mapped: list[Path]) -> None:
        """Record which files were used since the last time.

        Parameters
        ----------
        mapped : list of pathlib.Path
            Files that are in use without being open here.
        """
        with self._mutex:
            used = [file.path for file in self._files.values() if file.used_s >= self._noted_s]
            self._noted_s = time.monotonic()
        for path in (*used, *mapped):
            note_use(path)
