"""Where an export is written: a new or empty folder, in which a half-written export is never taken for a whole one.

On a local disk everything is written into a hidden folder inside the target and moved out of it at the end; elsewhere a
mark says that the export is not finished. What describes the data (a card, a metadata table) is written after them, and
``export.json`` after that.
"""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from chammi75.errors import ChammiError
from chammi75.files import (
    StorageOptions,
    absolute_url,
    create_file,
    filesystem_of,
    is_local,
    join_url,
    local_path,
    reading_errors,
    write_atomically,
)
from chammi75.schemas.manifest import FileEntry
from chammi75.store.writer import HashingFile

UNFINISHED = ".unfinished-export"
"""The hidden folder, or the mark, of an export that is not finished."""


class ExportTarget:
    """An export in the making. ``write`` may be called from several threads.

    Attributes
    ----------
    url : str
        Where the export will be.
    files, bytes : int
        Written so far.
    entries : list of FileEntry
        The files that ``create`` has written, with their hashes.
    """

    def __init__(self, url: str, storage_options: StorageOptions | None) -> None:
        self.url = url
        self.files = 0
        self.bytes = 0
        self.entries: list[FileEntry] = []
        self._options = dict(storage_options or {})
        self._work = join_url(url, UNFINISHED) if is_local(url) else url
        self._last: list[tuple[str, bytes]] = []
        self._renamed: list[tuple[str, str]] = []
        self._made: set[Path] = set()
        self._lock = threading.Lock()

    def write(self, path: str, content: bytes) -> None:
        """Write a file below the target; its name must be a new one."""
        url = join_url(self._work, path)
        if is_local(url):
            target = local_path(url)
            if target.parent not in self._made:
                target.parent.mkdir(parents=True, exist_ok=True)
                self._made.add(target.parent)
            try:
                with open(target, "xb") as file:  # never over another image
                    file.write(content)
            except FileExistsError as error:
                raise ChammiError(f"{self.url}: two images would have the file {path}; export them apart") from error
        else:
            write_atomically(url, content, self._options)
        self._count(len(content))

    @contextmanager
    def create(self, path: str) -> Iterator[HashingFile]:
        """A new file below the target, to write to bit by bit; its size and hash go to ``entries``."""
        with create_file(join_url(self._work, path), self._options) as target:
            file = HashingFile(target)
            yield file
        self.entries.append(file.entry(path))
        self._count(file.position)

    def rename(self, path: str, name: str) -> None:
        """Give a file that ``create`` has written its name when everything else is in place: it describes the rest."""
        self._renamed.append((path, name))

    def write_last(self, path: str, content: bytes) -> None:
        """Keep a small file that describes the others, to be written after them, in the order of the calls."""
        self._last.append((path, content))

    def _count(self, size: int) -> None:
        with self._lock:
            self.files += 1
            self.bytes += size

    def begin(self) -> None:
        """Refuse a target that is not new or empty, and mark it."""
        filesystem, path = filesystem_of(self.url, self._options, writing=True)
        filesystem.invalidate_cache()
        if filesystem.isfile(path):
            raise ChammiError(f"{self.url} is a file: an export is a folder, name a new one")
        names = []
        if filesystem.isdir(path):
            names = [entry.rstrip("/").rsplit("/", 1)[-1] for entry in filesystem.ls(path, detail=False)]
        if UNFINISHED in names:
            raise ChammiError(
                f"{self.url}: an export was interrupted there, or is at work: name another folder, or delete this one"
            )
        if names:
            raise ChammiError(f"{self.url} is not empty: an export goes to a new or empty folder, name another")
        if is_local(self.url):
            self.existed = bool(filesystem.isdir(path))
            local_path(self._work).mkdir(parents=True)
        else:
            write_atomically(join_url(self.url, UNFINISHED), b"this export is not finished\n", self._options)

    def commit(self) -> None:
        """Put everything into place, what describes it last."""
        if is_local(self.url):
            work, out = local_path(self._work), local_path(self.url)
            for entry in sorted(work.iterdir()):
                os.replace(entry, out / entry.name)
        for path, name in self._renamed:
            filesystem, full = filesystem_of(join_url(self.url, path), self._options, writing=True)
            filesystem.mv(full, filesystem_of(join_url(self.url, name), self._options, writing=True)[1])
        for path, content in self._last:
            write_atomically(join_url(self.url, path), content, self._options)
        if is_local(self.url):
            work.rmdir()
        else:
            filesystem, path = filesystem_of(join_url(self.url, UNFINISHED), self._options, writing=True)
            filesystem.rm_file(path)

    def abandon(self) -> None:
        """Remove what was written to a local target; elsewhere the mark stays."""
        if is_local(self.url):
            shutil.rmtree(local_path(self._work), ignore_errors=True)
            if not self.existed:
                with suppress(OSError):
                    local_path(self.url).rmdir()


@contextmanager
def new_export(out: str | os.PathLike[str], storage_options: StorageOptions | None = None) -> Iterator[ExportTarget]:
    """Begin an export at ``out``; it is committed when the block ends, and abandoned when it fails.

    Raises
    ------
    ChammiError
        If ``out`` is not new or empty, or cannot be written.
    """
    target = ExportTarget(absolute_url(out), storage_options)
    with _plain_errors(target.url):
        target.begin()
        try:
            yield target
            target.commit()
        except BaseException:
            target.abandon()
            raise


@contextmanager
def _plain_errors(url: str) -> Iterator[None]:
    """Turn what the system says of a target into a sentence."""
    try:
        yield
    except reading_errors() as error:
        if isinstance(error, ChammiError):
            raise
        number: Any = getattr(error, "errno", None)
        if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            reason = "there is no room left; nothing there counts as an export, make room and begin again"
        elif number in (errno.EACCES, errno.EPERM, errno.EROFS):
            reason = "it cannot be written (no permission, or read-only)"
        else:
            reason = "it cannot be written"
        raise ChammiError(f"{url}: {reason} [{error}]") from error
