"""Locks that the system takes back when a process ends, however it ends: nothing stays behind."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from chammi75.errors import StoreError


def lock(descriptor: int, busy: str | None) -> None:
    """Lock an open file or folder for this process.

    Where the system or its filesystem has no such locks (Windows, some network filesystems) nothing is locked.

    Parameters
    ----------
    descriptor : int
        Of the open file or folder; closing it lets go.
    busy : str or None
        What to say if another process holds it; None to wait for it.

    Raises
    ------
    StoreError
        If another process holds it and ``busy`` is given.
    """
    if os.name != "posix":
        return
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if busy is None else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if busy is not None and error.errno in (errno.EWOULDBLOCK, errno.EAGAIN):
            raise StoreError(busy) from error


@contextmanager
def locked_folder(folder: Path, busy: str | None = None) -> Iterator[None]:
    """Hold a folder for this process (see ``lock``); no file is written for that."""
    if os.name != "posix":
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        lock(descriptor, busy)
        yield
    finally:
        os.close(descriptor)
