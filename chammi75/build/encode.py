"""From a planned image to an encoded one: read its planes and cells, bring them to a stored dtype, encode them."""

from __future__ import annotations

import hashlib
import posixpath
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from chammi75.build.pixels import to_one_dtype
from chammi75.build.planned import Finding, PlaneSource, PlannedImage
from chammi75.errors import ReadError
from chammi75.files import StorageOptions, open_url
from chammi75.readers.guidance import find_guidance
from chammi75.readers.image_file import ImageReader, damage_reported
from chammi75.readers.registry import open_image
from chammi75.schemas.record import ImageRecord
from chammi75.store.plane import encode_plane
from chammi75.store.shard import Cells, EncodedImage, content_digest

_READ_WHOLE = 256 * 2**20  # larger files are opened in place, and hashed in pieces
_OPEN_FILES = 8


@dataclass
class _OpenFile:
    reader: ImageReader
    checksum: str
    closing: ExitStack


class SourceFiles:
    """Source files, opened and hashed once for all the images that lie in them.

    Parameters
    ----------
    storage_options : mapping, optional
        For the fsspec filesystem of the sources.
    """

    def __init__(self, storage_options: StorageOptions | None = None) -> None:
        self.storage_options = storage_options
        self._open: OrderedDict[tuple[str, str | None], _OpenFile] = OrderedDict()

    def __enter__(self) -> SourceFiles:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._open:
            self._open.popitem()[1].closing.close()

    def read(self, plane: PlaneSource) -> tuple[NDArray[Any], str]:
        """A plane's pixels in the file's own dtype, and the checksum of its file.

        Raises
        ------
        ReadError
            If the file cannot be read, or has no such plane.
        """
        key = (plane.url, plane.axes)
        found = self._open.get(key)
        if found is None:
            found = self._open[key] = self._opened(plane)
            if len(self._open) > _OPEN_FILES:
                self._open.popitem(last=False)[1].closing.close()
        else:
            self._open.move_to_end(key)
        pixels = found.reader.read_plane(plane.series, z=plane.z, t=plane.t, c=plane.c, page=plane.page)
        return pixels, found.checksum

    def _opened(self, plane: PlaneSource) -> _OpenFile:
        with damage_reported(plane.url):
            checksum, content = self._hash(plane.url)
        closing = ExitStack()
        reader = closing.enter_context(
            open_image(plane.url, axes=plane.axes, storage_options=self.storage_options, content=content)
        )
        return _OpenFile(reader, checksum, closing)

    def _hash(self, url: str) -> tuple[str, bytes | None]:
        with open_url(url, "rb", self.storage_options) as file:
            content: bytes | None = file.read(_READ_WHOLE)
            digest = hashlib.sha256(content or b"")
            while chunk := file.read(4 * 2**20):
                content = None
                digest.update(chunk)
        return f"sha256:{digest.hexdigest()}", content


def encode_image(
    image: PlannedImage, files: SourceFiles, codec: Literal["zstd", "deflate"]
) -> tuple[EncodedImage, list[Finding]]:
    """Read and encode one image.

    Returns
    -------
    image : EncodedImage
    findings : list of Finding
        What was not as it should be and did not stop it (a guidance file that cannot be read).

    Raises
    ------
    ChammiError
        If the image cannot be built: a file that cannot be read, planes of another shape than announced, pixels that
        no rule stores.
    """
    read = [files.read(plane) for plane in image.planes]
    expected = (image.record.geometry.height, image.record.geometry.width)
    for plane, (pixels, _) in zip(image.planes, read, strict=True):
        if pixels.shape != expected:
            raise ReadError(plane.url, f"the plane has {_size(pixels.shape)} pixels, {_size(expected)} were expected")
    stored, steps = to_one_dtype([pixels for pixels, _ in read])
    record = _completed(image.record, stored[0].dtype.name, [checksum for _, checksum in read], steps)
    cells, findings = _cells(image, files.storage_options)
    planes = [encode_plane(plane, codec) for plane in stored]
    return EncodedImage(record, planes, cells, content_digest(record, stored, cells)), findings


def _size(shape: Sequence[int]) -> str:
    return " x ".join(str(edge) for edge in shape)


def _completed(record: ImageRecord, dtype: str, checksums: list[str], steps: list[str]) -> ImageRecord:
    bits = record.geometry.significant_bits
    if dtype == "float32":
        bits = None
    elif bits is not None and bits > np.iinfo(dtype).bits:
        bits = None  # values of a wider integer that happen to fit: what the camera filled is not known
    elif record.geometry.dtype in ("int8", "int16") and bits == np.iinfo(record.geometry.dtype).bits:
        bits -= 1  # no value is negative: the sign's bit is not filled
    geometry = record.geometry.model_copy(update={"dtype": dtype, "significant_bits": bits})
    steps = [*record.provenance.steps, *steps]
    provenance = record.provenance.model_copy(update={"checksum": checksums, "steps": steps})
    return record.model_copy(update={"geometry": geometry, "provenance": provenance})


def _cells(image: PlannedImage, storage_options: StorageOptions | None) -> tuple[list[Cells | None], list[Finding]]:
    cells: list[Cells | None] = []
    findings: list[Finding] = []
    for url in image.guidance:
        if url is None:
            cells.append(None)
            continue
        try:
            (centroids,) = find_guidance([url], storage_options)
        except ReadError as error:
            findings.append(
                Finding(
                    "unreadable",
                    image.record.image_id,
                    f"its cell positions in {posixpath.basename(url)} are left out: {error.reason}",
                )
            )
            cells.append(None)
        else:
            cells.append(None if centroids is None else Cells(centroids.xy, centroids.sizes))
    return (cells if any(entry is not None for entry in cells) else []), findings
