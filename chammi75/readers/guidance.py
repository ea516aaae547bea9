"""Cell positions as the published CHAMMI-75 gives them: one safetensors file per channel."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from chammi75.errors import ReadError
from chammi75.files import StorageOptions, is_local, open_url, read_files
from chammi75.readers.image_file import damage_reported

_LARGEST_BYTES = 256 << 20  # ten million cells


@dataclass(frozen=True)
class CellCentroids:
    """Where the cells of one plane are.

    Parameters
    ----------
    xy : ndarray of float32, shape (n, 2)
        Centroids in pixels, x (column) first.
    sizes : ndarray of float32, shape (n,)
        Their sizes as the file states them.
    """

    xy: np.ndarray
    sizes: np.ndarray


def read_guidance(url: str | os.PathLike[str], storage_options: StorageOptions | None = None) -> CellCentroids:
    """Read the guidance file at ``url``.

    Raises
    ------
    ReadError
        If it is missing, damaged, larger than 256 MiB, or lacks ``data`` (n, 2) and ``sizes`` (n,).
    """
    path = os.fspath(url)
    with damage_reported(path), open_url(path, "rb", storage_options) as file:
        content = file.read(_LARGEST_BYTES + 1)
    return parse_guidance(content, path)


def find_guidance(
    urls: Sequence[str | None], storage_options: StorageOptions | None = None
) -> list[CellCentroids | None]:
    """The guidance files of an image's planes; None stands for none.

    In a bucket nobody lists millions of files to learn which are there: a file that is not there means no cells. On a
    disk it was there when the folder was listed, and is an error.

    Parameters
    ----------
    urls : sequence of (str or None)
        One per plane.

    Raises
    ------
    ReadError
        As of `read_guidance`.
    """
    stated = [url for url in urls if url is not None]
    if not stated:
        return [None] * len(urls)
    if is_local(stated[0]):
        return [None if url is None else read_guidance(url, storage_options) for url in urls]
    with damage_reported(stated[0]):
        contents = iter(read_files(stated, storage_options, missing_ok=True, at_most=_LARGEST_BYTES + 1))
    found: list[CellCentroids | None] = []
    for url in urls:
        content = None if url is None else next(contents)
        found.append(None if url is None or content is None else parse_guidance(content, url))
    return found


def parse_guidance(content: bytes, path: str = "<bytes>") -> CellCentroids:
    """The centroids in the bytes of a guidance file; errors as of `read_guidance`.

    Examples
    --------
    >>> from safetensors.numpy import save
    >>> cells = parse_guidance(save({"data": np.array([[3, 4]]), "sizes": np.array([20])}))
    >>> cells.xy.tolist(), cells.sizes.tolist()
    ([[3.0, 4.0]], [20.0])
    """
    if len(content) > _LARGEST_BYTES:
        raise ReadError(path, f"it is larger than {_LARGEST_BYTES >> 20} MiB, which no table of cells is")
    from safetensors.numpy import load

    with damage_reported(path):
        arrays = load(content)
    lacking = [key for key in ("data", "sizes") if key not in arrays]
    if lacking:
        raise ReadError(path, f"it lacks {' and '.join(lacking)}; it has {', '.join(sorted(arrays)[:5]) or 'nothing'}")
    data, sizes = arrays["data"], arrays["sizes"]
    if data.size == 0 and sizes.size == 0:  # a plane without cells is written in several shapes
        data, sizes = data.reshape(0, 2), sizes.reshape(0)
    if data.ndim != 2 or data.shape[1] != 2 or sizes.shape != data.shape[:1]:
        raise ReadError(path, f"data is {data.shape} and sizes {sizes.shape}; (n, 2) and (n,) are needed")
    for name, array in (("data", data), ("sizes", sizes)):
        if array.dtype.kind not in "iuf":
            raise ReadError(path, f"{name} is {array.dtype}; integers or floats are needed")
        if not np.isfinite(array).all():
            raise ReadError(path, f"{name} has values that are not finite")
    return CellCentroids(np.ascontiguousarray(data, np.float32), np.ascontiguousarray(sizes, np.float32))
