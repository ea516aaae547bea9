"""Memory and C functions by their addresses, for kernels: what ``native`` found is called with the GIL released.

An address is an argument of the kernel, never a part of it: so its machine code can be kept on disk.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.core import cgutils

from chammi75.kernels import inlined, intrinsic


def _call(result: ir.Type, context: Any, builder: Any, values: Any) -> Any:
    """A call of the function at ``values[0]`` with the tuple ``values[1]``, all of them 64 bits wide; ``result`` is
    the C type of what it gives."""
    address, arguments = values
    arguments = cgutils.unpack_tuple(builder, arguments)
    word = ir.IntType(64)
    function = builder.inttoptr(address, ir.FunctionType(result, [word] * len(arguments)).as_pointer())
    found = builder.call(function, arguments)
    return found if result == word else builder.sext(found, word)


@intrinsic
def call_size_t(typing_context, address, arguments):  # type: ignore[no-untyped-def]
    """Call a C function that gives a ``size_t``, or another number of 64 bits; all arguments are int64."""
    return types.int64(types.int64, arguments), lambda context, builder, _, values: _call(
        ir.IntType(64), context, builder, values
    )


@intrinsic
def call_int(typing_context, address, arguments):  # type: ignore[no-untyped-def]
    """Call a C function that gives an ``int`` or an enum; all arguments are int64."""
    return types.int64(types.int64, arguments), lambda context, builder, _, values: _call(
        ir.IntType(32), context, builder, values
    )


@intrinsic
def _pointer(typing_context, address):  # type: ignore[no-untyped-def]
    def generate(context, builder, signature, values):  # type: ignore[no-untyped-def]
        return builder.inttoptr(values[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), generate


@inlined
def bytes_at(address, count):  # type: ignore[no-untyped-def]
    """The ``count`` bytes at an address, as an array. Whoever calls a kernel with it holds the memory."""
    return carray(_pointer(address), count, np.uint8)


@inlined
def uint16_at(address, count):  # type: ignore[no-untyped-def]
    """The same for uint16."""
    return carray(_pointer(address), count, np.uint16)


@inlined
def uint32_at(address, count):  # type: ignore[no-untyped-def]
    """The same for uint32."""
    return carray(_pointer(address), count, np.uint32)


@inlined
def float32_at(address, count):  # type: ignore[no-untyped-def]
    """The same for float32."""
    return carray(_pointer(address), count, np.float32)
