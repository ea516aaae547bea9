"""The one place that compiles kernels: numba functions that release the GIL.

Machine code is kept on disk where there is a place for it, beside the module or in the user's cache, so that only the
first process of a machine compiles. Where neither can be written (a read-only installation without a home), kernels are
compiled anew in each process.

numba by itself asks only whether the file of the kernel that is called has changed, and writes all signatures of a
kernel into files that they share. Machine code holds the kernels that it calls too, and those are often of other files;
and processes that compile at the same moment could give each other's code out. So here each signature has files of its
own, named by the text of every module that it may have been made from.
"""

from __future__ import annotations

import hashlib
import inspect
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numba
import numba.extending
from numba.core.caching import FunctionCache, IndexDataCacheFile

from chammi75.errors import ChammiError

_PACKAGE = __name__.partition(".")[0]
_IMPORTS = re.compile(rf"^(?:from|import) ({_PACKAGE}\.[\w.]+)", re.MULTILINE)
_BROKEN = (EOFError, OSError, numba.core.caching.pickle.UnpicklingError)  # of numba's own files
"""What numba raises where a file of its cache is empty, cut short or cannot be read."""


def kernel(function: Callable[..., Any]) -> Any:
    """Compile ``function`` for the types that it is called with, at its first call with them.

    A module of kernels imports what they use from this package with ``from chammi75.module import name``, at its top:
    that is how it is known which files the machine code was made from.
    """
    return _compiled(function, inline="never")


def inlined(function: Callable[..., Any]) -> Any:
    """The same for a function that is written into the kernels that call it."""
    return _compiled(function, inline="always")


def intrinsic(function: Callable[..., Any]) -> Any:
    """A function in LLVM's words, for kernels only (see ``numba.extending.intrinsic``).

    Raises
    ------
    ChammiError
        Where numba is told to compile nothing.
    """
    if numba.config.DISABLE_JIT:
        raise ChammiError(
            "pixels are decoded by compiled code, and NUMBA_DISABLE_JIT forbids numba to compile: unset that variable"
        )
    return numba.extending.intrinsic(function)


def _compiled(function: Callable[..., Any], inline: str) -> Any:
    compiled = numba.njit(nogil=True, inline=inline)(function)
    if not numba.config.DISABLE_JIT:
        with suppress(RuntimeError):  # "no locator available": numba found no folder that it may write to
            compiled._cache = _Cache(function)
    return compiled


class _Cache(FunctionCache):  # type: ignore[misc]
    """The machine code of one kernel on disk: where numba would keep it, in other files."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self._cache_file = _Files(self._cache_path, self._impl.filename_base, _digest(function.__module__))


class _Files:
    """Files of one kernel: an index and a code file for each signature, named by signature and source."""

    def __init__(self, folder: str, base: str, source: str) -> None:
        self._folder, self._base, self._source = folder, base, source

    def load(self, key: Any) -> Any:
        try:
            return self._files(key).load(key)
        except _BROKEN:  # it is compiled and written anew
            with suppress(OSError):
                Path(self._folder, f"{self._name(key)}.nbi").unlink()
            return None

    def save(self, key: Any, data: Any) -> None:
        with suppress(*_BROKEN):  # a full disk, perhaps: this process has the code all the same
            self._files(key).save(key, data)
            for path in Path(self._folder).glob(f"{self._base.rpartition('-')[0]}-*.nb[ci]"):
                if f".{self._source}-" not in path.name:
                    path.unlink(missing_ok=True)

    def flush(self) -> None:
        for path in Path(self._folder).glob(f"{self._base}.{self._source}-*.nb[ci]"):
            path.unlink(missing_ok=True)

    def _files(self, key: Any) -> Any:
        return IndexDataCacheFile(self._folder, self._name(key), self._source)

    def _name(self, key: Any) -> str:
        return f"{self._base}.{self._source}-{hashlib.sha256(repr(key).encode()).hexdigest()[:16]}"


@cache
def _digest(module: str) -> str:
    """Of the text of a module and of all modules of this package that it imports, down to the last."""
    texts: dict[str, str] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name not in texts:
            try:
                texts[name] = inspect.getsource(sys.modules[name])
            except (KeyError, OSError, TypeError):  # of no file: such a function has no place for its code either
                texts[name] = ""
            waiting += _IMPORTS.findall(texts[name])
    return hashlib.sha256(repr(sorted(texts.items())).encode()).hexdigest()[:16]
