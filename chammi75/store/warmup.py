"""Compiling what decodes, once on a node, before anybody waits for it."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np

from chammi75.store.decode import decode_crops
from chammi75.store.lock import locked_folder
from chammi75.store.plane import STORED_DTYPES, blank_plane


def warm_up(dtypes: Iterable[np.dtype[Any]], out: np.dtype[Any], *, resize: bool) -> None:
    """Load the kernels that a reader will need; the first process that ever needs them compiles them, which takes 10 s.

    Processes that are forked from this one have them then. Others load them from where the first one keeps them; those
    that begin at the same moment wait for it, and do not all compile the same.

    Parameters
    ----------
    dtypes : iterable of numpy.dtype
        Of the planes.
    out : numpy.dtype
        Of the pixels that are wanted.
    resize : bool
        Whether they are resized.

    Examples
    --------
    >>> warm_up([np.dtype(np.uint8)], np.dtype(np.float32), resize=True)
    """
    planes = [dtype for dtype in dtypes if dtype.name in STORED_DTYPES]
    if not planes:
        return
    encoded = [blank_plane(dtype) for dtype in planes]
    shapes = np.full((len(planes), 2), 16, np.int64)
    windows = np.tile(np.array([0, 0, 16, 16], np.int64), (len(planes), 1))
    target = np.zeros((len(planes), 8, 8) if resize else (len(planes), 16, 16), out)
    with ExitStack() as held:
        with suppress(OSError):  # of a package in an archive, which is no folder: it is decoded all the same
            held.enter_context(locked_folder(Path(__file__).parent))
        decode_crops(encoded, windows, target, shapes=shapes, dtypes=planes, resize="bilinear" if resize else None)
