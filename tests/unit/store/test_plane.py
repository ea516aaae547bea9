"""A plane on disk: bit-exact, a standard TIFF, and loud when it is damaged."""

from __future__ import annotations

import io
import struct
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chammi75.errors import ChammiError, StoreError
from chammi75.store.plane import (
    PlaneHead,
    decode_plane,
    encode_plane,
    head_bytes,
    parse_head,
    tile_shape,
    transcode_plane,
)

CODECS = ("zstd", "deflate")
DTYPES = ("uint8", "uint16", "float32")
SHAPES = ((1, 1), (1, 300), (300, 1), (16, 16), (17, 33), (127, 129), (128, 128), (129, 256), (300, 300))


def noise(height: int, width: int, dtype: str, seed: int = 0, flat: bool = False) -> np.ndarray:
    """Pixels of any value; floats are any bits, so NaN of all kinds, infinities and -0.0 are among them."""
    random = np.random.default_rng(seed)
    if dtype == "float32":
        bits = random.integers(0, 2**32, (height, width), np.uint32)
        bits.reshape(-1)[:5] = [0x80000000, 0x7F800000, 0xFF800000, 0x7FC00001, 0x7F800001][: bits.size]
        pixels = bits.view(np.float32)
    else:
        pixels = random.integers(0, np.iinfo(dtype).max + 1, (height, width)).astype(dtype)
    return np.full_like(pixels, pixels[0, 0]) if flat else pixels


def smooth(height: int, width: int, dtype: str) -> np.ndarray:
    """Pixels like a picture's: a gradient with a little noise."""
    ramp = np.add.outer(np.arange(height), np.arange(width)) / 3
    return (ramp % 200 + np.random.default_rng(1).normal(20, 2, (height, width))).astype(dtype)


def same_bits(found: np.ndarray, expected: np.ndarray) -> bool:
    return found.dtype == expected.dtype and found.shape == expected.shape and found.tobytes() == expected.tobytes()


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    seed=st.integers(0, 2**32 - 1),
    flat=st.booleans(),
    window=st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)),
)
def test_every_plane_and_every_window_of_it_come_back_bit_for_bit(
    codec: Any, dtype: str, height: int, width: int, seed: int, flat: bool, window: tuple[float, ...]
) -> None:
    pixels = noise(height, width, dtype, seed, flat)
    encoded = encode_plane(pixels, codec)
    assert same_bits(decode_plane(encoded), pixels)
    y, x = int(window[0] * (height - 1)), int(window[1] * (width - 1))
    rows, columns = 1 + int(window[2] * (height - y - 1)), 1 + int(window[3] * (width - x - 1))
    assert same_bits(decode_plane(encoded, (y, x, rows, columns)), pixels[y : y + rows, x : x + columns])


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_plane_is_a_tiff_that_tifffile_reads(shape: tuple[int, int], dtype: str, codec: Any) -> None:
    tifffile = pytest.importorskip("tifffile")
    pixels = noise(*shape, dtype)
    encoded = encode_plane(pixels, codec)
    with tifffile.TiffFile(io.BytesIO(encoded)) as file:
        (page,) = file.pages
        assert file.byteorder == "<" and not file.is_bigtiff
        assert (page.tilelength, page.tilewidth) == tile_shape(*shape)
        assert page.compression == {"zstd": 50000, "deflate": 8}[codec]
        assert page.predictor == (3 if dtype == "float32" else 2)
        assert page.photometric == 1
        assert list(page.dataoffsets) == sorted(page.dataoffsets)
        assert page.dataoffsets[0] == head_bytes(*shape)
        assert page.dataoffsets[-1] + page.databytecounts[-1] == len(encoded)
        assert same_bits(page.asarray(), pixels)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_pillow_and_the_image_feature_of_datasets_see_the_same_pixels(
    shape: tuple[int, int], dtype: str, codec: Any
) -> None:
    from datasets import Image as ImageFeature
    from PIL import Image

    pixels = noise(*shape, dtype)
    encoded = encode_plane(pixels, codec)
    try:
        picture = Image.open(io.BytesIO(encoded))
        picture.load()
    except OSError as error:
        if codec == "zstd":
            pytest.skip(f"the libtiff of this Pillow has no Zstandard ({error})")
        raise
    assert picture.mode == {"uint8": "L", "uint16": "I;16", "float32": "F"}[dtype]
    assert same_bits(np.asarray(picture), pixels)
    decoded = ImageFeature().decode_example({"bytes": encoded, "path": None})
    assert same_bits(np.asarray(decoded), pixels)


def test_tiles_are_128_pixels_wide_and_smaller_ones_go_in_steps_of_16() -> None:
    assert tile_shape(1, 1) == (16, 16)
    assert tile_shape(16, 17) == (16, 32)
    assert tile_shape(112, 113) == (112, 128)
    assert tile_shape(128, 5000) == (128, 128)


@pytest.mark.parametrize("dtype", DTYPES)
def test_zstandard_frames_carry_a_checksum_and_their_size(dtype: str) -> None:
    import zstandard

    encoded = encode_plane(smooth(200, 300, dtype), "zstd")
    head = parse_head(encoded)
    assert len(head.offsets) == 6
    for offset, count in zip(head.offsets.tolist(), head.counts.tolist(), strict=True):
        frame = zstandard.get_frame_parameters(encoded[offset : offset + count])
        assert frame.has_checksum
        assert frame.content_size == head.tile_height * head.tile_width * head.dtype.itemsize


def test_planes_of_other_byte_order_and_of_strided_memory_are_stored_as_their_values() -> None:
    pixels = noise(60, 70, "uint16")
    assert same_bits(decode_plane(encode_plane(pixels.astype(">u2"))), pixels)
    assert same_bits(decode_plane(encode_plane(pixels[::2, ::-3])), np.ascontiguousarray(pixels[::2, ::-3]))
    assert same_bits(decode_plane(encode_plane(np.asfortranarray(pixels))), pixels)
    floats = noise(40, 50, "float32")
    assert same_bits(decode_plane(encode_plane(floats.astype(">f4"))), floats)


def test_the_same_plane_is_always_the_same_bytes() -> None:
    for dtype in DTYPES:
        for codec in CODECS:
            pixels = smooth(150, 140, dtype)
            assert encode_plane(pixels, codec) == encode_plane(pixels.copy(), codec)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_plane_changes_its_codec_without_changing_its_pixels(dtype: str) -> None:
    pixels = noise(140, 150, dtype)
    zstd = encode_plane(pixels, "zstd")
    deflate = transcode_plane(zstd, "deflate")
    assert parse_head(deflate).codec == "deflate"
    assert same_bits(decode_plane(deflate), pixels)
    assert transcode_plane(deflate, "zstd") == zstd
    assert transcode_plane(zstd, "zstd") == zstd


def test_a_plane_is_decoded_into_an_array_that_is_given() -> None:
    pixels = noise(140, 150, "float32")
    whole = np.zeros((3, 50, 60), np.float32)
    assert decode_plane(encode_plane(pixels), (80, 90, 50, 60), whole[1]) is not None
    assert same_bits(whole[1], pixels[80:130, 90:150])
    assert not whole[0].any() and not whole[2].any()
    column = np.zeros((50, 120), np.float32)[:, ::2]  # not contiguous
    decode_plane(encode_plane(pixels), (80, 90, 50, 60), column)
    assert column.tobytes() == pixels[80:130, 90:150].tobytes()
    with pytest.raises(ChammiError, match="out must have"):
        decode_plane(encode_plane(pixels), out=np.zeros((140, 150), np.uint8))


def test_what_a_store_does_not_hold_is_refused_by_name() -> None:
    with pytest.raises(ChammiError, match="int16"):
        encode_plane(np.zeros((4, 4), np.int16))
    with pytest.raises(ChammiError, match=r"\(0, 4\)"):
        encode_plane(np.zeros((0, 4), np.uint8))
    with pytest.raises(ChammiError, match=r"\(2, 3, 4\)"):
        encode_plane(np.zeros((2, 3, 4), np.uint8))
    with pytest.raises(ChammiError, match="lzw"):
        encode_plane(np.zeros((4, 4), np.uint8), "lzw")  # type: ignore[arg-type]


@pytest.mark.parametrize("window", [(-1, 0, 5, 5), (0, 0, 0, 5), (0, 0, 5, 0), (16, 0, 5, 5), (0, 16, 5, 5)])
def test_a_window_must_lie_inside_the_plane(window: tuple[int, int, int, int]) -> None:
    with pytest.raises(ChammiError, match="20 x 20"):
        decode_plane(encode_plane(np.zeros((20, 20), np.uint8)), window)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_flipped_bit_is_an_error_or_changes_no_pixel(dtype: str, codec: Any) -> None:
    """All bits of the head, and bits all over the tiles. The two numbers that only the index can guard are left out:
    height and width within the last tiles (``test_reader`` has them)."""
    pixels = smooth(150, 170, dtype)
    encoded = encode_plane(pixels, codec)
    head = head_bytes(150, 170)
    sizes = range(10 + 8, 10 + 12), range(10 + 12 + 8, 10 + 12 + 12)  # values of the first two entries
    in_head = [bit for bit in range(8 * head) if not any(bit // 8 in size for size in sizes)]
    step = max(1, 8 * (len(encoded) - head) // 1500)
    noticed = 0
    for bit in (*in_head, *range(8 * head, 8 * len(encoded), step)):
        damaged = bytearray(encoded)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            found = decode_plane(damaged)
        except StoreError:
            noticed += 1
        else:
            assert same_bits(found, pixels), f"bit {bit} of {8 * len(encoded)} silently changed pixels"
    assert noticed > len(in_head)


@pytest.mark.parametrize("codec", CODECS)
def test_a_plane_that_is_cut_short_is_an_error_wherever_it_is_cut(codec: Any) -> None:
    encoded = encode_plane(smooth(150, 170, "uint16"), codec)
    lengths = {*range(220), *range(220, len(encoded), 997), len(encoded) - 1}
    for length in lengths:
        with pytest.raises(StoreError, match="damaged"):
            decode_plane(encoded[:length])


def with_tile(encoded: bytes, tile: bytes) -> bytes:
    """A plane of one tile with another tile in its place, and a directory that agrees."""
    start = head_bytes(100, 100)
    plane = bytearray(encoded[:start] + tile)
    for entry in range(10, 10 + 144, 12):
        if struct.unpack_from("<H", plane, entry) == (325,):
            struct.pack_into("<I", plane, entry + 8, len(tile))
    struct.pack_into("<I", plane, start - 4, len(tile))
    return bytes(plane)


@pytest.mark.parametrize("size", [0, 1, 112 * 112 - 1, 112 * 112 + 1, 2**26])
def test_a_tile_of_another_size_than_it_must_have_is_refused_before_it_is_unpacked(size: int) -> None:
    import zlib

    import zstandard

    content = bytes(size)
    compressor = zstandard.ZstdCompressor(write_checksum=True)
    tiles = {"zstd": compressor.compress(content), "deflate": zlib.compress(content, 9)}
    del content
    for codec in CODECS:
        plane = with_tile(encode_plane(np.zeros((100, 100), np.uint8), codec), tiles[codec])  # type: ignore[arg-type]
        tracemalloc.start()
        with pytest.raises(StoreError, match="damaged"):
            decode_plane(plane)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 16 * 2**20


def test_a_frame_without_a_stated_size_is_refused() -> None:
    import zstandard

    frame = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(112 * 112))
    with pytest.raises(StoreError, match="another size"):
        decode_plane(with_tile(encode_plane(np.zeros((100, 100), np.uint8)), frame))


@pytest.mark.parametrize("edge", [2**16, 2**31, 2**32 - 1])
def test_a_lying_height_or_width_is_refused_without_memory(edge: int) -> None:
    encoded = bytearray(encode_plane(smooth(150, 170, "uint8")))
    for at in (10 + 8, 10 + 12 + 8):
        lying = bytearray(encoded)
        struct.pack_into("<I", lying, at, edge)
        tracemalloc.start()
        with pytest.raises(StoreError, match="damaged"):
            decode_plane(lying)
        assert tracemalloc.get_traced_memory()[1] < 2**20
        tracemalloc.stop()


@pytest.mark.parametrize("offset", [0, 8, 2**31, 2**32 - 1])
def test_lying_tile_offsets_and_lengths_are_refused(offset: int) -> None:
    encoded = encode_plane(smooth(150, 170, "uint8"))
    for at in range(160, head_bytes(150, 170), 4):
        lying = bytearray(encoded)
        struct.pack_into("<I", lying, at, offset)
        with pytest.raises(StoreError, match="damaged"):
            decode_plane(lying)


def test_other_tiffs_and_other_bytes_are_refused() -> None:
    tifffile = pytest.importorskip("tifffile")
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.zeros((64, 64), np.uint8), tile=(16, 16))
    for content in (b"", b"II*\0", buffer.getvalue(), bytes(1000), b"\x89PNG\r\n\x1a\n" + bytes(300)):
        with pytest.raises(StoreError, match="damaged"):
            parse_head(content)


def test_the_head_alone_says_what_is_where() -> None:
    pixels = noise(300, 200, "uint16")
    encoded = encode_plane(pixels)
    head = parse_head(encoded[: head_bytes(300, 200)])
    assert isinstance(head, PlaneHead)
    assert (head.height, head.width, head.dtype, head.codec, head.tiles_across) == (
        300,
        200,
        np.dtype("<u2"),
        "zstd",
        2,
    )
    assert same_bits(decode_plane(encoded, head=head), pixels)


def test_threads_decode_and_encode_at_once() -> None:
    from concurrent.futures import ThreadPoolExecutor

    planes = [smooth(150 + k, 170, dtype) for k in range(8) for dtype in DTYPES]
    with ThreadPoolExecutor(8) as pool:
        encoded = list(pool.map(encode_plane, planes))
        decoded = list(pool.map(decode_plane, encoded))
    assert all(same_bits(found, plane) for found, plane in zip(decoded, planes, strict=True))
    assert encoded == [encode_plane(plane) for plane in planes]
