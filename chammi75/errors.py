"""Every error that chammi75 raises on purpose.

One base class, so that a program can catch them all and the command line can print each as one line. A message says
what happened, to which file or value, what would be accepted and what to do next.
"""

from __future__ import annotations

import errno
import os
import sys
import warnings


class ChammiError(Exception):
    """Base class of all errors that chammi75 raises on purpose.

    Examples
    --------
    >>> from chammi75.errors import ChammiError
    >>> issubclass(ReadError, ChammiError)
    True
    """


class ReadError(ChammiError):
    """A file that cannot be read: missing, truncated, lying about its size, or of no known format.

    Parameters
    ----------
    path : str
        The file, as its user knows it.
    reason : str
        What is wrong with it, in one clause without the path.

    Examples
    --------
    >>> str(ReadError("plate/a.tif", "the file ends 40 bytes early"))
    'plate/a.tif: the file ends 40 bytes early'
    """

    def __init__(self, path: str, reason: str = "") -> None:
        # torch raises the error of a worker anew in the parent, with one argument, its message and traceback
        super().__init__(f"{path}: {reason}" if reason else path)
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[type[ReadError], tuple[str, str]]:
        return (type(self), (self.path, self.reason))


class FetchError(ChammiError, OSError):
    """What a server did not give, however often it was asked, or gave otherwise than it must.

    Parameters
    ----------
    path : str
        The file, as its user knows it.
    reason : str
        What happened, in one clause without the path; also ``strerror``.

    Examples
    --------
    >>> str(FetchError("s3://bucket/a.arrow", "the server answers 503 (asked 9 times in 118.2 s)"))
    's3://bucket/a.arrow: the server answers 503 (asked 9 times in 118.2 s)'
    """

    def __init__(self, path: str, reason: str = "") -> None:  # without one where torch tells it from a worker
        OSError.__init__(self, errno.EIO, reason, path)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}" if self.reason else self.path

    def __reduce__(self) -> tuple[type[FetchError], tuple[str, str]]:
        return (type(self), (self.path, self.reason))


class UnreachableError(FetchError):
    """A server that gave nothing in time, however often it was asked: the network is down, or the server is.

    Other files of it would fare no better, so who may leave out files that are missing or damaged does not leave out
    these.
    """


class RecipeError(ChammiError, ValueError):
    """A recipe, card, pattern or table that does not say what it must."""


class StoreError(ChammiError):
    """A store that is absent, unfinished, damaged, of another version, or already there."""


class FilterError(ChammiError, ValueError):
    """A filter on an unknown value, an unknown or empty column, or SQL that is refused."""


class MissingDependencyError(ChammiError, ImportError):
    """A package that an optional part of chammi75 needs is not installed; the message names the extra."""


class ChammiWarning(UserWarning):
    """Base of all warnings of this library: something was left out or is slower, and the work goes on."""


def warn(message: str, category: type[Warning]) -> None:
    """Warn, at the line outside of this library that led here, however deep inside it was noticed.

    Examples
    --------
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     warn("three images are left out", ChammiWarning)
    >>> str(caught[0].message)
    'three images are left out'
    """
    package = os.path.dirname(os.path.abspath(__file__)) + os.sep  # noqa: PTH120 - compared with names of code
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and os.path.abspath(frame.f_code.co_filename).startswith(package):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
