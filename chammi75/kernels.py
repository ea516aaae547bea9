"""The one place that compiles kernels: numba functions that release the GIL.

Machine code is kept on disk where there is a place for it, beside the module or in the user's cache, so that only the
first process of a machine compiles. Where neither can be written (a read-only installation without a home), kernels are
compiled anew in each process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def kernel(function: Callable[..., Any]) -> Any:
    """Compile ``function`` for the types that it is called with, at its first call with them."""
    return _compiled(function, inline="never")


def inlined(function: Callable[..., Any]) -> Any:
    """The same for a function that is written into the kernels that call it."""
    return _compiled(function, inline="always")


def _compiled(function: Callable[..., Any], inline: str) -> Any:
    try:
        return numba.njit(nogil=True, cache=True, inline=inline)(function)
    except RuntimeError:  # "no locator available": numba found no folder that it may write to
        return numba.njit(nogil=True, inline=inline)(function)
