"""Compiled kernels."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pytest

from chammi75.kernels import kernel


def _sum(values):
    total = 0
    for value in values:
        total += value
    return total


def test_a_kernel_gives_what_its_function_gives_and_keeps_its_code() -> None:
    compiled = kernel(_sum)
    assert compiled(np.arange(5)) == 10
    assert compiled.stats.cache_path


def test_where_numba_finds_no_folder_for_its_code_a_kernel_is_compiled_anew() -> None:
    names: dict[str, Any] = {}
    exec("def double(value):\n    return 2 * value\n", names)  # noqa: S102 - a function of no file has no place either
    with pytest.raises(RuntimeError, match="no locator available"):
        numba.njit(cache=True)(names["double"])
    assert kernel(names["double"])(4) == 8
