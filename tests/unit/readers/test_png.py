"""The PNG decoder on files written here: every kind, every filter, damage at every place."""

from __future__ import annotations

import io
import struct
import zlib
from itertools import pairwise
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from chammi75.errors import ReadError
from chammi75.readers import open_image, probe
from chammi75.readers.png import decode
from chammi75.readers.png.filters import unfilter

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _pack(pixels: np.ndarray, depth: int) -> np.ndarray:
    """Rows of samples (height, n) as rows of bytes."""
    if depth == 16:
        return pixels.astype(">u2").view(np.uint8)
    bits = (pixels[:, :, None] >> np.arange(depth - 1, -1, -1)) & 1
    return np.packbits(bits.reshape(len(pixels), -1).astype(np.uint8), axis=1)


def _filter_rows(rows: np.ndarray, step: int, kinds: list[int]) -> bytes:
    """PNG's five filters as the standard words them, byte for byte."""
    out, above = bytearray(), [0] * rows.shape[1]
    for number, row in enumerate(rows.tolist()):
        kind = kinds[number % len(kinds)]
        out.append(kind)
        for x, value in enumerate(row):
            a, b, c = row[x - step] if x >= step else 0, above[x], above[x - step] if x >= step else 0
            p = a + b - c
            nearest = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]
            out.append((value - (0, a, b, (a + b) // 2, nearest)[kind]) % 256)
        above = row
    return bytes(out)


def _png(
    samples: np.ndarray,
    depth: int,
    color: int,
    *,
    interlaced: bool = False,
    kinds: tuple[int, ...] = (0, 1, 2, 3, 4),
    palette: bytes | None = None,
    extra: bytes = b"",
    parts: int = 1,
) -> bytes:
    """A PNG of samples (height, width, samples per pixel), with its rows filtered in turn by ``kinds``."""
    height, width, count = samples.shape
    raw = b""
    for y, x, dy, dx in _ADAM7 if interlaced else ((0, 0, 1, 1),):
        part = samples[y::dy, x::dx]
        if part.size:
            raw += _filter_rows(_pack(part.reshape(len(part), -1), depth), max(1, depth * count // 8), list(kinds))
    stream = zlib.compress(raw, 6)
    cuts = np.linspace(0, len(stream), parts + 1).astype(int)
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, int(interlaced))
    return b"".join(
        [
            _SIGNATURE,
            _chunk(b"IHDR", header),
            extra,
            _chunk(b"PLTE", palette) if palette else b"",
            *(_chunk(b"IDAT", stream[a:b]) for a, b in pairwise(cuts)),
            _chunk(b"IEND", b""),
        ]
    )


_KINDS = [(0, 1), (0, 2), (0, 4), (0, 8), (0, 16), (2, 8), (2, 16), (4, 8), (4, 16), (6, 8), (6, 16)]


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(("color", "depth"), _KINDS)
@pytest.mark.parametrize("size", [(1, 1), (3, 2), (13, 17), (33, 40)])
def test_every_colour_type_depth_and_interlacing_is_bit_exact(
    tmp_path: Path, color: int, depth: int, interlaced: bool, size: tuple[int, int]
) -> None:
    samples = np.random.default_rng(depth).integers(0, 1 << depth, (*size, _SAMPLES[color]))
    path = tmp_path / "a.png"
    path.write_bytes(_png(samples, depth, color, interlaced=interlaced, parts=3))
    channels = 3 if color in (2, 6) else 1
    with open_image(path) as reader:
        series = reader.file.series[0]
        assert (series.sizes["C"], series.rgb, series.significant_bits) == (channels, channels == 3, depth)
        assert (series.height, series.width) == size
        assert series.dtype == {1: "bool", 16: "uint16"}.get(depth, "uint8")
        assert ("alpha dropped" in series.steps) == (color in (4, 6))
        for c in range(channels):
            plane = reader.read_plane(c=c)
            assert plane.dtype == (np.uint16 if depth == 16 else np.uint8)
            assert plane.flags.c_contiguous and plane.flags.writeable and plane.dtype.isnative
            np.testing.assert_array_equal(plane, samples[:, :, c])
            plane[:] = 0


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
@pytest.mark.parametrize("gray", [False, True])
def test_a_palette_is_expanded_to_colours_or_to_one_grey(tmp_path: Path, depth: int, gray: bool) -> None:
    rng = np.random.default_rng(depth)
    colors = rng.integers(0, 256, (1 << depth, 3), dtype=np.uint8)
    if gray:
        colors[:] = colors[:, :1]
    indices = rng.integers(0, 1 << depth, (9, 11, 1))
    path = tmp_path / "a.png"
    path.write_bytes(_png(indices, depth, 3, palette=colors.tobytes()))
    with open_image(path) as reader:
        series = reader.file.series[0]
        assert (series.sizes["C"], series.dtype, series.significant_bits) == (1 if gray else 3, "uint8", 8)
        assert series.steps == (f"palette expanded to {'grey' if gray else 'red, green, blue'}",)
        for c in range(series.sizes["C"]):
            np.testing.assert_array_equal(reader.read_plane(c=c), colors[indices[:, :, 0], c])
    assert np.array_equal(np.asarray(Image.open(path).convert("RGB")), colors[indices[:, :, 0]])


def test_an_index_beyond_the_palette_is_an_error() -> None:
    with pytest.raises(ReadError, match="palette of 2"):
        decode(_png(np.full((2, 2, 1), 3), 8, 3, palette=bytes(6)))


def test_declared_significant_bits_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(_png(np.zeros((4, 4, 1), int), 16, 0, extra=_chunk(b"sBIT", b"\x0c")))
    assert probe(path).series[0].significant_bits == 12


@settings(max_examples=150, deadline=None)
@given(
    data=st.data(),
    height=st.integers(1, 14),
    row_bytes=st.integers(1, 40),
    step=st.sampled_from([1, 2, 3, 4, 6, 8]),
)
def test_undoing_any_mix_of_filters_gives_the_bytes_that_were_filtered(
    data: st.DataObject, height: int, row_bytes: int, step: int
) -> None:
    kinds = data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=height))
    rows = np.frombuffer(data.draw(st.binary(min_size=height * row_bytes, max_size=height * row_bytes)), np.uint8)
    rows = rows.reshape(height, row_bytes)
    np.testing.assert_array_equal(unfilter(_filter_rows(rows, step, kinds), height, row_bytes, step), rows)


@pytest.mark.parametrize("step", [1, 2, 3, 8])
def test_runs_of_paeth_rows_of_any_length_and_width_are_exact(step: int) -> None:
    rng = np.random.default_rng(step)
    for height in range(1, 10):
        for row_bytes in (1, 2, 3, 5, 16, 31):
            rows = rng.integers(0, 256, (height, row_bytes), dtype=np.uint8)
            filtered = _filter_rows(rows, step, [4])
            np.testing.assert_array_equal(unfilter(filtered, height, row_bytes, step), rows)


def test_a_filter_that_png_does_not_have_is_an_error() -> None:
    with pytest.raises(ValueError, match="row 1 has filter 5"):
        unfilter(bytes([0, 1, 5, 1]), 2, 1, 1)
    with pytest.raises(ValueError, match="are not 2 rows"):
        unfilter(bytes(3), 2, 1, 1)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([np.uint8, np.uint16]), st.integers(0, 9))
def test_what_imagecodecs_writes_comes_back(height: int, width: int, dtype: type, level: int) -> None:
    plane = np.random.default_rng(height * width).integers(0, np.iinfo(dtype).max, (height, width), dtype)
    np.testing.assert_array_equal(decode(imagecodecs.png_encode(plane, level=level))[:, :, 0], plane)


def test_a_png_cut_anywhere_is_an_error_with_path_and_reason(tmp_path: Path) -> None:
    content = _png(np.random.default_rng(0).integers(0, 256, (20, 20, 1)), 8, 0, parts=2)
    path = tmp_path / "cut.png"
    for end in range(len(content)):
        path.write_bytes(content[:end])
        with pytest.raises(ReadError) as caught, open_image(path) as reader:
            reader.read_plane()
        assert str(caught.value).startswith(str(path))


def test_any_flipped_bit_is_an_error(tmp_path: Path) -> None:
    content = _png(np.random.default_rng(0).integers(0, 256, (6, 6, 1)), 8, 0)
    path = tmp_path / "flipped.png"
    for place in range(len(content)):
        broken = bytearray(content)
        broken[place] ^= 1 << (place % 8)
        path.write_bytes(broken)
        with pytest.raises(ReadError), open_image(path) as reader:
            reader.read_plane()


def test_pixel_data_of_another_length_or_checksum_is_an_error() -> None:
    good = _png(np.zeros((8, 8, 1), int), 8, 0)
    at = good.index(b"IDAT") - 4
    length = struct.unpack_from(">I", good, at)[0]
    stream = good[at + 8 : at + 8 + length]
    raw = zlib.decompress(stream)
    wrong = {
        "less": zlib.compress(raw[:-1]),
        "more": zlib.compress(raw + b"\0"),
        "(?i)adler|checksum": stream[:-1] + bytes([stream[-1] ^ 1]),
    }
    for says, body in wrong.items():
        with pytest.raises(ReadError, match=says):
            decode(good[:at] + _chunk(b"IDAT", body) + _chunk(b"IEND", b""))


def test_a_png_bomb_is_refused_by_its_header_and_inflated_no_further_than_declared(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 16, 6, 0, 0, 0)
    path.write_bytes(
        _SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(bytes(10**6))) + _chunk(b"IEND", b"")
    )
    with pytest.raises(ReadError, match=r"declares \d+ bytes of pixels, the file has"):
        probe(path)
    header = struct.pack(">IIBBBBB", 4, 4, 8, 0, 0, 0, 0)
    huge = zlib.compress(bytes(50 << 20), 9)
    path.write_bytes(_SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", huge) + _chunk(b"IEND", b""))
    with open_image(path) as reader, pytest.raises(ReadError, match="inflates to more than the 20 bytes"):
        reader.read_plane()


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ((0, 4, 8, 0, 0, 0, 0), "size of 0 x 4"),
        ((4, 4, 3, 0, 0, 0, 0), "colour type 0 with 3 bits"),
        ((4, 4, 8, 1, 0, 0, 0), "colour type 1"),
        ((4, 4, 8, 0, 0, 0, 2), "interlace"),
        ((4, 4, 8, 3, 0, 0, 0), "palette"),
    ],
)
def test_headers_that_png_does_not_have_are_refused(fields: tuple[int, ...], says: str) -> None:
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", *fields))
    with pytest.raises(ReadError, match=says):
        decode(_SIGNATURE + header + _chunk(b"IDAT", zlib.compress(bytes(20))) + _chunk(b"IEND", b""))


def test_a_chunk_that_must_be_understood_and_is_not_is_an_error() -> None:
    content = _png(np.zeros((4, 4, 1), int), 8, 0, extra=_chunk(b"CRIT", b""))
    with pytest.raises(ReadError, match="CRIT"):
        decode(content)
    assert decode(_png(np.zeros((4, 4, 1), int), 8, 0, extra=_chunk(b"fine", b"x"))).shape == (4, 4, 1)


def test_pillow_pictures_of_every_mode_agree() -> None:
    rng = np.random.default_rng(5)
    for mode in ("1", "L", "LA", "RGB", "RGBA", "P", "I;16"):
        bands = len(Image.new(mode if mode != "I;16" else "L", (1, 1)).getbands())
        pixels = rng.integers(0, 255, (19, 23, bands), dtype=np.uint8)
        if mode == "I;16":
            picture = Image.fromarray(rng.integers(0, 65535, (19, 23), dtype=np.uint16))
        elif mode in ("1", "P"):
            picture = Image.fromarray(pixels[:, :, 0]).convert(mode)
        else:
            picture = Image.fromarray(pixels.squeeze(), mode)
        stored = io.BytesIO()
        picture.save(stored, "png", optimize=True)
        expected = np.asarray(picture.convert("L") if mode == "P" else picture).astype(np.uint16)
        expected = expected.reshape(19, 23, -1)[:, :, : 3 if bands > 2 else 1]
        np.testing.assert_array_equal(decode(stored.getvalue()), expected)
