"""Tiles decompressed one at a time through the packages ``zstandard`` and ``isal``, with an error that says why not."""

from __future__ import annotations

import threading
from collections.abc import Callable

from chammi75.errors import StoreError

_ANOTHER_SIZE = "the plane is damaged: a tile has another size than it must"
_MAGIC = b"\x28\xb5\x2f\xfd"
_local = threading.local()


def decompressor(codec: str) -> Callable[[memoryview, int], bytes]:
    """A function from (compressed tile, its decoded size) to bytes of that very size; not to be shared by threads.

    It raises StoreError where the tile is anything else than that, and allocates no more than that.

    Examples
    --------
    >>> import zlib
    >>> decompressor("deflate")(memoryview(zlib.compress(b"tile")), 4)
    b'tile'
    """
    return _inflate if codec == "deflate" else _unzstd()


def _unzstd() -> Callable[[memoryview, int], bytes]:
    import zstandard

    decompressor = getattr(_local, "decompressor", None)
    if decompressor is None:
        decompressor = _local.decompressor = zstandard.ZstdDecompressor()
    content_size, decompress = zstandard.frame_content_size, decompressor.decompress

    def unzstd(part: memoryview, size: int) -> bytes:
        if part[:4] != _MAGIC:
            raise StoreError("the plane is damaged: a tile does not decompress (it is no Zstandard frame)")
        try:
            if content_size(part) != size:  # checked first: a lying frame must not make us allocate
                raise StoreError(_ANOTHER_SIZE)
            content: bytes = decompress(part, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise StoreError(f"the plane is damaged: a tile does not decompress ({error})") from error
        return content

    return unzstd


def _inflate(part: memoryview, size: int) -> bytes:
    from isal import igzip_lib, isal_zlib

    inflate = isal_zlib.decompressobj()
    try:
        content: bytes = inflate.decompress(part, size + 1)
    except igzip_lib.IsalError as error:  # type: ignore[misc]  # its stub calls it an instance
        raise StoreError(f"the plane is damaged: a tile does not decompress ({error})") from error
    if len(content) == size and not inflate.eof:
        raise StoreError("the plane is damaged: a tile does not decompress (it is cut short)")
    if len(content) != size or inflate.unused_data:
        raise StoreError(_ANOTHER_SIZE)
    return content
