"""C functions of libzstd and libdeflate that installed packages carry, by their addresses, for kernels to call.

A tile has 16 kB. To decompress it through a Python package costs about as much for the call as for the work (measured:
610 MB/s through ``zstandard``, 966 MB/s by ``ZSTD_decompressDCtx`` itself), and each call takes the GIL. A kernel that
calls the C function by its address decodes a whole batch of crops in one stretch, without the GIL.

Both libraries are looked for where they come anyhow: beside imagecodecs and Pillow, whose wheels hold them as shared
libraries, in the Zstandard module of Python 3.14 or of ``backports.zstd``, and in the system. What is found is used
only if it decodes a known frame, and refuses it damaged. Where nothing is found (some wheels link their codecs
statically), the packages ``zstandard`` and ``isal`` decode one tile at a time: the same pixels and errors, slower.

The environment variable ``CHAMMI75_NATIVE_CODECS=0`` chooses that slower way everywhere.

References
----------
Interfaces: zstd.h (stable part, 1.4 and later), libdeflate.h (1.0 and later).
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.machinery import PathFinder
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SWITCH = "CHAMMI75_NATIVE_CODECS"
ZSTD_DECOMPRESS, ZSTD_CONTENT_SIZE, ZSTD_FRAME_SIZE, ZSTD_CONTEXT, DEFLATE_DECOMPRESS, DEFLATE_CONTEXT = range(6)
"""What stands at which place of ``Contexts.tools``."""

_PACKAGES = {"imagecodecs": ("../imagecodecs.libs", ".dylibs"), "PIL": ("../pillow.libs", ".dylibs")}  # Linux, macOS
_ZSTD_MODULES = ("_zstd", "backports.zstd._zstd")  # linked statically, but they show the functions
_CONTENT = b"chammi75 " * 3
_ZSTD_FRAME = bytes.fromhex("28b52ffd241b7d0000486368616d6d693735200100f4ca119eab3402")
_ZLIB_STREAM = bytes.fromhex("78da4bce48cccdcd34375548c6600000834008f2")
_local = threading.local()


@dataclass(frozen=True, slots=True)
class Library:
    """A shared library that was found and does what it must.

    Attributes
    ----------
    path : str
        The file, or the name that the system knows it by.
    addresses : tuple of int
        Of its functions; for zstd ``ZSTD_decompressDCtx``, ``ZSTD_getFrameContentSize`` and
        ``ZSTD_findFrameCompressedSize``, for deflate ``libdeflate_zlib_decompress_ex``.
    new : function
        Makes a context for one thread, and gives its address (None without memory).
    free : function
        Gives it back.
    """

    path: str
    addresses: tuple[int, ...]
    new: Callable[[], int | None]
    free: Callable[[int], None]


@lru_cache(maxsize=1)
def find_zstd() -> Library | None:
    """A libzstd whose functions can be called; None if there is none."""
    return _first_working("zstd", _open_zstd)


@lru_cache(maxsize=1)
def find_deflate() -> Library | None:
    """A libdeflate whose functions can be called; None if there is none."""
    return _first_working("deflate", _open_deflate)


class Contexts:
    """What a thread needs to call both libraries. They are given back when the thread ends.

    Attributes
    ----------
    tools : ndarray of int64, shape (6,)
        Addresses of functions and contexts, at the places named in this module; 0 where there is none.
    """

    def __init__(self) -> None:
        self.tools: NDArray[np.int64] = np.zeros(6, np.int64)
        self._held: list[tuple[Library, int]] = []
        for library, at in ((find_zstd(), ZSTD_DECOMPRESS), (find_deflate(), DEFLATE_DECOMPRESS)):
            context = library and library.new()
            if library and context:
                self._held.append((library, context))
                self.tools[at : at + len(library.addresses) + 1] = [*library.addresses, context]

    def __del__(self) -> None:
        for library, context in self._held:
            library.free(context)


def tools() -> NDArray[np.int64]:
    """``Contexts.tools`` of this thread; only zeros where the environment says that no native codec is to be used.

    A context is plain memory of this process: after a fork, the child's one thread goes on with its own copy.
    """
    if os.environ.get(SWITCH) == "0":
        return np.zeros(6, np.int64)
    contexts: Contexts | None = getattr(_local, "contexts", None)
    if contexts is None:
        contexts = _local.contexts = Contexts()
    return contexts.tools


def _first_working(name: str, open_library: Callable[[str], Library | None]) -> Library | None:
    if sys.maxsize < 2**32:  # the kernels call with arguments of 64 bits
        return None
    for path in _places(name):
        try:
            library = open_library(path)
        except (OSError, AttributeError):  # no library, or one without these functions: the next place
            continue
        if library is not None:
            return library
    return None


def _places(name: str) -> Iterator[str]:
    """Where a library may be: files of installed packages, then the system's own."""
    for package, folders in _PACKAGES.items():
        file = _module_file(package)
        for folder in folders if file else ():
            yield from (str(path) for path in sorted((Path(str(file)).parent / folder).glob(f"*{name}*")))
    if name == "zstd":
        yield from (path for path in map(_module_file, _ZSTD_MODULES) if path)
    yield from (f"lib{name}.so.{1 if name == 'zstd' else 0}", f"lib{name}.dylib", f"lib{name}.dll")


def _module_file(name: str) -> str | None:
    """The file of a module, which is not imported for that; None if it is not installed, or has no file."""
    spec, places, whole = None, None, ""
    for part in name.split("."):
        whole = f"{whole}.{part}" if whole else part
        spec = PathFinder.find_spec(whole, places)
        if spec is None:
            return None
        places = list(spec.submodule_search_locations or ())
    return spec.origin if spec and spec.has_location else None


def _open_zstd(path: str) -> Library | None:
    library = ctypes.CDLL(path)
    size, pointer = ctypes.c_size_t, ctypes.c_void_p
    decompress = _typed(library.ZSTD_decompressDCtx, size, pointer, pointer, size, pointer, size)
    content_size = _typed(library.ZSTD_getFrameContentSize, ctypes.c_ulonglong, pointer, size)
    frame_size = _typed(library.ZSTD_findFrameCompressedSize, size, pointer, size)
    found = Library(
        path,
        tuple(_address(function) for function in (decompress, content_size, frame_size)),
        _typed(library.ZSTD_createDCtx, pointer),
        _typed(library.ZSTD_freeDCtx, None, pointer),
    )

    def decode(context: int, content: bytes) -> bytes | None:
        if content_size(content, len(content)) != len(_CONTENT) or frame_size(content, len(content)) != len(content):
            return None
        out = ctypes.create_string_buffer(len(_CONTENT))
        done = decompress(context, out, len(out), content, len(content))
        return out.raw if done == len(out) else None

    return found if _works(found, decode, _ZSTD_FRAME) else None


def _open_deflate(path: str) -> Library | None:
    library = ctypes.CDLL(path)
    size, pointer = ctypes.c_size_t, ctypes.c_void_p
    decompress = _typed(
        library.libdeflate_zlib_decompress_ex, ctypes.c_int, pointer, pointer, size, pointer, size, pointer, pointer
    )
    found = Library(
        path,
        (_address(decompress),),
        _typed(library.libdeflate_alloc_decompressor, pointer),
        _typed(library.libdeflate_free_decompressor, None, pointer),
    )

    def decode(context: int, content: bytes) -> bytes | None:
        out, taken = ctypes.create_string_buffer(len(_CONTENT)), ctypes.c_size_t()
        status = decompress(context, content, len(content), out, len(out), ctypes.byref(taken), None)
        return out.raw if status == 0 and taken.value == len(content) else None

    return found if _works(found, decode, _ZLIB_STREAM) else None


def _works(library: Library, decode: Callable[[int, bytes], bytes | None], known: bytes) -> bool:
    """Whether a library decodes what is known, and refuses it with a bit of its checksum flipped."""
    context = library.new()
    if not context:
        return False
    try:
        damaged = known[:-1] + bytes([known[-1] ^ 1])
        return decode(context, known) == _CONTENT and decode(context, damaged) is None
    finally:
        library.free(context)


def _typed(function: ctypes._NamedFuncPointer, result: type | None, *arguments: type) -> ctypes._NamedFuncPointer:
    function.restype, function.argtypes = result, arguments
    return function


def _address(function: ctypes._NamedFuncPointer) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0
