"""SipHash-2-4 of many texts at once: what draws and splits rank by.

A keyed hash with published test vectors (J.-P. Aumasson and D. J. Bernstein, "SipHash: a fast short-input PRF",
INDOCRYPT 2012), so that anybody can draw the same images with any other implementation: no number here comes out of a
random generator, whose stream may change with its version.

Importing this module imports numba.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from chammi75.kernels import inlined, kernel

if TYPE_CHECKING:
    import pyarrow as pa


def siphash(texts: pa.Array | Sequence[str], key: tuple[int, int]) -> NDArray[np.uint64]:
    """SipHash-2-4 of each text's UTF-8 bytes.

    Parameters
    ----------
    texts : pyarrow.Array of string or large_string, or sequence of str
        None of them null.
    key : tuple of int
        The two halves of the key, each below 2**64: the first is read from bytes 0 to 7 of the key, little-endian.

    Returns
    -------
    ndarray of uint64, shape (texts,)

    Examples
    --------
    >>> [f"{value:016x}" for value in siphash(["", "chammi75"], (0, 0))]
    ['1e924b9d737700d7', '5b947574025f11f8']
    """
    import pyarrow as pa

    array = texts if isinstance(texts, pa.Array) else pa.array(list(texts), pa.large_string())
    width = np.int64 if pa.types.is_large_string(array.type) else np.int32
    _, offsets, content = array.buffers()
    if not len(array):
        return np.empty(0, np.uint64)
    ends = np.frombuffer(offsets, width)[array.offset : array.offset + len(array) + 1]
    data = np.frombuffer(content, np.uint8) if content is not None and content.size else np.zeros(1, np.uint8)
    hashes = np.empty(len(array), np.uint64)
    _hash_all(data, ends.astype(np.int64, copy=False), np.uint64(key[0]), np.uint64(key[1]), hashes)
    return hashes


@inlined
def _round(v0: Any, v1: Any, v2: Any, v3: Any) -> Any:
    v0 += v1
    v1 = (v1 << np.uint64(13)) | (v1 >> np.uint64(51))
    v1 ^= v0
    v0 = (v0 << np.uint64(32)) | (v0 >> np.uint64(32))
    v2 += v3
    v3 = (v3 << np.uint64(16)) | (v3 >> np.uint64(48))
    v3 ^= v2
    v0 += v3
    v3 = (v3 << np.uint64(21)) | (v3 >> np.uint64(43))
    v3 ^= v0
    v2 += v1
    v1 = (v1 << np.uint64(17)) | (v1 >> np.uint64(47))
    v1 ^= v2
    v2 = (v2 << np.uint64(32)) | (v2 >> np.uint64(32))
    return v0, v1, v2, v3


@kernel
def _hash_all(data: Any, ends: Any, key0: Any, key1: Any, hashes: Any) -> None:
    """``ends`` has the place of each text's first byte, and that behind the last."""
    for k in range(len(hashes)):
        start, length = ends[k], ends[k + 1] - ends[k]
        v0 = key0 ^ np.uint64(0x736F6D6570736575)
        v1 = key1 ^ np.uint64(0x646F72616E646F6D)
        v2 = key0 ^ np.uint64(0x6C7967656E657261)
        v3 = key1 ^ np.uint64(0x7465646279746573)
        words = length // 8
        for word in range(words + 1):
            place = start + 8 * word
            m = np.uint64(0)
            if word < words:
                for byte in range(8):
                    m |= np.uint64(data[place + byte]) << np.uint64(8 * byte)
            else:  # the last bytes, and the length
                m = np.uint64(length & 0xFF) << np.uint64(56)
                for byte in range(length - 8 * words):
                    m |= np.uint64(data[place + byte]) << np.uint64(8 * byte)
            v3 ^= m
            v0, v1, v2, v3 = _round(v0, v1, v2, v3)
            v0, v1, v2, v3 = _round(v0, v1, v2, v3)
            v0 ^= m
        v2 ^= np.uint64(0xFF)
        for _ in range(4):
            v0, v1, v2, v3 = _round(v0, v1, v2, v3)
        hashes[k] = v0 ^ v1 ^ v2 ^ v3
