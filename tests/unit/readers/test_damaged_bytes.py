"""Small files of every kind with bytes changed and ends cut: whatever comes, it is pixels or a ReadError, and soon."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from chammi75.errors import ReadError
from chammi75.readers import open_image

_CASES = 60
_MOST_SECONDS = 5.0


def samples() -> dict[str, bytes]:
    """A valid small file of each kind."""
    rng = np.random.default_rng(3)
    grey, colour = rng.integers(0, 255, (40, 48), dtype=np.uint8), rng.integers(0, 255, (40, 48, 3), dtype=np.uint8)

    def tiff(array: np.ndarray, **options: object) -> bytes:
        content = io.BytesIO()
        tifffile.imwrite(content, array, **options)
        return content.getvalue()

    def saved(image: Image.Image, form: str, **options: object) -> bytes:
        content = io.BytesIO()
        image.save(content, form, **options)
        return content.getvalue()

    codecs = ("none", "lzw", "packbits", "zlib", "lzma", "zstd", "jpeg", "jpeg2000", "lerc", "jpegxl", "png")
    files = {f"tiff {codec}": tiff(grey, compression=codec) for codec in codecs}
    files["tiff webp"] = tiff(colour, compression="webp", photometric="rgb")
    files["tiff palette"] = tiff(grey, photometric="palette", colormap=rng.integers(0, 65535, (3, 256)).astype("u2"))
    files["imagej"] = tiff(np.stack([grey] * 3), imagej=True, metadata={"axes": "TYX"})
    files["ome-tiff"] = tiff(np.stack([grey] * 3), ome=True, photometric="minisblack")
    files["bigtiff"] = tiff(
        np.stack([grey] * 3), bigtiff=True, byteorder=">", tile=(16, 16), compression="zlib", photometric="minisblack"
    )
    pyramid = io.BytesIO()
    with tifffile.TiffWriter(pyramid) as writer:
        writer.write(np.kron(grey, np.ones((2, 2), np.uint8)), subifds=1, tile=(16, 16))
        writer.write(grey, subfiletype=1, tile=(16, 16))
    files["pyramid"] = pyramid.getvalue()
    for codec in ("group3", "group4", "tiff_ccitt"):
        files[f"tiff {codec}"] = saved(Image.fromarray(grey > 99), "tiff", compression=codec)
    picture = Image.fromarray(colour)
    files["jpeg"] = saved(picture, "jpeg")
    files["jpeg progressive"] = saved(picture, "jpeg", progressive=True)
    files["jpeg restarts"] = saved(picture, "jpeg", restart_marker_blocks=2)
    files["jpeg cmyk"] = saved(picture.convert("CMYK"), "jpeg")
    files["png"] = saved(picture, "png")
    files["png palette"] = saved(picture.quantize(16), "png")
    return files


_SAMPLES = samples()


def damaged(content: bytes, seed: int) -> Iterator[bytes]:
    """Copies with a few bytes changed, most of them near the start, and some cut off as well."""
    rng = np.random.default_rng(seed)
    for case in range(_CASES):
        copy = bytearray(content)
        for _ in range(int(rng.integers(1, 5))):
            reach = len(copy) if rng.random() < 0.3 else min(len(copy), 400)
            copy[int(rng.integers(reach))] = int(rng.integers(256))
        yield bytes(copy[: int(rng.integers(len(copy)))] if case % 5 == 0 else copy)


def read_some(content: bytes) -> None:
    with open_image("damaged", content=content) as reader:
        for series in reader.file.series[:4]:
            for t, z, c, page in np.ndindex(*(min(series.sizes[axis], 3) for axis in "TZC"), min(series.pages, 3)):
                reader.read_plane(series.index, t=int(t), z=int(z), c=int(c), page=int(page))


@pytest.mark.parametrize("kind", _SAMPLES)
def test_changed_bytes_give_pixels_or_a_read_error_and_soon(kind: str) -> None:
    read_some(_SAMPLES[kind])
    refused = 0
    for content in damaged(_SAMPLES[kind], seed=len(kind)):
        begun = time.monotonic()
        try:
            read_some(content)
        except ReadError as error:
            refused += 1
            assert error.path == "damaged" and error.reason
        assert time.monotonic() - begun < _MOST_SECONDS
    assert refused, "not one of the damaged files was refused"


_PEAK = """
import json, resource, sys
sys.path.insert(0, sys.argv[1])
import test_damaged_bytes as tests
from chammi75.errors import ReadError
for content in tests._SAMPLES.values():
    tests.read_some(content)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for kind, content in tests._SAMPLES.items():
    for case in tests.damaged(content, seed=99):
        try:
            tests.read_some(case)
        except ReadError:
            pass
unit = 1 if sys.platform == "darwin" else 1024
print(json.dumps((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * unit))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="the resource module is Unix's")
def test_changed_bytes_make_no_reader_allocate_much() -> None:
    folder = str(Path(__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", _PEAK, folder], capture_output=True, text=True, timeout=200, check=True
    )
    assert json.loads(done.stdout.splitlines()[-1]) < 600 << 20
