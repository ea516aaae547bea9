"""Bringing a file of a remote store to this disk: in concurrent parts, hashed in order while they are written."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from chammi75.errors import ChammiError, FetchError, StoreError, UnreachableError
from chammi75.files import StorageOptions, explain, read_ranges, reading_errors

PART_BYTES = 4 * 2**20
AT_ONCE = 8
"""Parts of a file that are asked for at once (0.9 of a wire of 1 Gbit/s at 30 ms); as many are in memory at most."""


@dataclass(frozen=True)
class RemoteFile:
    """A file of a remote store, as its manifest states it.

    Attributes
    ----------
    url : str
        Where it is.
    sha256 : str
        Of its content, 64 hexadecimal digits.
    size : int
        Its bytes.
    storage_options : mapping
        For the fsspec filesystem.
    is_index : bool
        Whether it is an index, which processes map and do not only read.
    """

    url: str
    sha256: str
    size: int
    storage_options: StorageOptions = field(default_factory=dict, repr=False, compare=False)
    is_index: bool = False


class WrongContentError(StoreError):
    """A file that arrived is not what the manifest says."""


class StoppedError(ChammiError):
    """A download was given up because nobody wants it any longer."""


def download(file: RemoteFile, target: Path, is_unwanted: Callable[[], bool] = lambda: False) -> None:
    """Write a remote file to ``target``, which is there already, and check it.

    Parameters
    ----------
    file : RemoteFile
    target : pathlib.Path
    is_unwanted : callable
        Asked several times a second; when it says so the download is given up.

    Raises
    ------
    WrongContentError
        If its length or its SHA-256 is another one.
    StoreError
        If it cannot be read.
    UnreachableError
        If the server gave nothing in time.
    StoppedError
        If it was given up.
    OSError
        If ``target`` cannot be written.
    """
    descriptor = os.open(target, os.O_WRONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0))
    try:
        digest = _Transfer(file, descriptor, is_unwanted).run()
        os.fsync(descriptor)  # a full disk or quota may say so only now; and a power cut must not leave holes
    finally:
        os.close(descriptor)
    if digest != file.sha256:
        raise WrongContentError(
            f"{file.url}: the file is damaged, or another one than it was: its SHA-256 is {digest}, the manifest says"
            f" {file.sha256} (it was fetched twice): chammi75 verify tells what is hit; a store that was built anew is"
            " opened again"
        )


class _Transfer:
    """One download: threads read parts, each waits for its turn to hash and write what it has."""

    def __init__(self, file: RemoteFile, descriptor: int, is_unwanted: Callable[[], bool]) -> None:
        self._file = file
        self._descriptor = descriptor
        self._is_unwanted = is_unwanted
        self._turn = threading.Condition()
        self._digest = hashlib.sha256()
        self._parts = -(-file.size // PART_BYTES)
        self._asked = 0
        self._written = 0
        self._failure: BaseException | None = None
        self._is_over = False

    def run(self) -> str:
        """Transfer all; the SHA-256 of what came."""
        try:
            for _ in range(min(AT_ONCE, self._parts)):
                threading.Thread(target=self._work, name="chammi75-download", daemon=True).start()
            with self._turn:
                while self._written < self._parts and self._failure is None:
                    if self._is_unwanted():
                        raise StoppedError(f"{self._file.url}: nobody wants it any longer")
                    self._turn.wait(0.2)
        finally:
            with self._turn:  # Ctrl-C too: a thread that still waits for an answer writes nothing afterwards
                self._is_over = True
                self._turn.notify_all()
        if self._failure is not None:
            raise self._failure
        return self._digest.hexdigest()

    def _work(self) -> None:
        try:
            while True:
                with self._turn:
                    number = self._asked
                    if self._is_over or self._failure is not None or number >= self._parts:
                        return
                    self._asked += 1
                content = self._read(number)
                self._put(number, content)
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits, whatever it is
            with self._turn:
                self._failure = self._failure or error
                self._turn.notify_all()

    def _put(self, number: int, content: bytes | memoryview) -> None:
        """Hash and write a part when it is its turn; nothing once the download is over."""
        with self._turn:
            self._turn.wait_for(lambda: self._written == number or self._is_over)
            if not self._is_over:
                self._digest.update(content)
                _write_all(self._descriptor, content)
                self._written += 1
                self._turn.notify_all()

    def _read(self, number: int) -> bytes | memoryview:
        url, size = self._file.url, self._file.size
        offset = number * PART_BYTES
        length = min(PART_BYTES, size - offset)
        try:
            (content,) = read_ranges(url, [(offset, length)], self._file.storage_options)
        except UnreachableError:
            raise
        except FetchError as error:
            raise StoreError(f"{url}: it cannot be read: {error.reason}") from error
        except FileNotFoundError as error:
            raise StoreError(f"{url}: a file of the store is missing") from error
        except reading_errors() as error:
            raise StoreError(f"{url}: it cannot be read: {explain(error, url, self._file.storage_options)}") from error
        if len(content) != length:
            raise WrongContentError(
                f"{url}: the file is cut short: the manifest says {size} bytes, and of those from {offset} on only"
                f" {len(content)} came (it was fetched twice)"
            )
        return content


def _write_all(descriptor: int, content: bytes | memoryview) -> None:
    left = memoryview(content)
    while left:
        left = left[os.write(descriptor, left) :]
