"""Windows of many planes at once: the pixels and errors of the Python packages, by C functions and by threads."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from chammi75.errors import ChammiError, StoreError
from chammi75.store import native
from chammi75.store.decode import decode_crops
from chammi75.store.plane import STORED_DTYPES, decode_plane, encode_plane, head_bytes, parse_head

CODECS = ("zstd", "deflate")
ROUTES = ("native", "packages")


def use_route(patch: pytest.MonkeyPatch, route: str) -> None:
    patch.setenv(native.SWITCH, "0" if route == "packages" else "1")


@pytest.fixture(params=ROUTES)
def route(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    use_route(monkeypatch, request.param)
    return str(request.param)


def picture(height: int, width: int, dtype: str, seed: int = 0) -> np.ndarray:
    """Pixels like a camera's: a gradient with noise; seen as float32, fractions too."""
    ramp = np.add.outer(np.arange(height), np.arange(width)) / 3
    pixels = ramp % 200 + np.random.default_rng(seed).normal(20, 2, (height, width))
    return pixels.clip(0, 250).astype(dtype)


def decoded(plane: Any, pixels: np.ndarray, window: tuple[int, ...]) -> np.ndarray | str:
    """The window of one plane, or what is wrong with it."""
    out = np.zeros((1, window[2], window[3]), pixels.dtype)
    failures = decode_crops([plane], np.array([window]), out, shapes=np.array([pixels.shape]), dtypes=[pixels.dtype])
    return str(failures[0]) if failures else out[0]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_windows_of_planes_of_any_kind_come_back_bit_for_bit(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 5))
    kinds = [data.draw(st.sampled_from(STORED_DTYPES)) for _ in range(count)]
    out_dtype = data.draw(st.sampled_from(STORED_DTYPES[max(STORED_DTYPES.index(kind) for kind in kinds) :]))
    planes, windows = [], []
    for k, kind in enumerate(kinds):
        height, width = data.draw(st.integers(1, 300)), data.draw(st.integers(1, 300))
        y, x = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
        windows.append((y, x, data.draw(st.integers(1, height - y)), data.draw(st.integers(1, width - x))))
        planes.append(picture(height, width, kind, k))
    encoded = [encode_plane(plane, data.draw(st.sampled_from(CODECS))) for plane in planes]
    out = np.full((count, *np.array(windows)[:, 2:].max(axis=0)), 7, out_dtype)
    expected = out.copy()
    for target, plane, (y, x, rows, columns) in zip(expected, planes, windows, strict=True):
        target[:rows, :columns] = plane[y : y + rows, x : x + columns]
    for route in ROUTES:
        with pytest.MonkeyPatch.context() as patch:
            use_route(patch, route)
            out[:] = 7
            shapes = np.array([plane.shape for plane in planes])
            dtypes = [plane.dtype for plane in planes]
            threads = data.draw(st.integers(1, 3))
            assert decode_crops(encoded, np.array(windows), out, shapes=shapes, dtypes=dtypes, threads=threads) == {}
            assert out.tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("dtype", "out_dtype"), [("uint8", "float32"), ("uint16", "uint16"), ("float32", "uint8"), ("float32", "float32")]
)
def test_a_window_that_is_resized_is_the_window_resized(dtype: str, out_dtype: str, route: str) -> None:
    from chammi75.store.resize import resize_plane

    planes = [picture(300, 280, dtype, seed) for seed in range(3)]
    windows = np.array([[3, 5, 200, 190], [100, 60, 64, 64], [0, 0, 300, 280]])
    out = np.zeros((3, 64, 80), out_dtype)
    failures = decode_crops(
        [encode_plane(plane) for plane in planes],
        windows,
        out,
        shapes=np.array([[300, 280]] * 3),
        dtypes=[np.dtype(dtype)] * 3,
        resize="bilinear",
        threads=2,
    )
    assert failures == {}
    for found, plane, (y, x, rows, columns) in zip(out, planes, windows.tolist(), strict=True):
        expected = np.zeros((64, 80), out_dtype)
        resize_plane(plane[y : y + rows, x : x + columns], expected)
        assert found.tobytes() == expected.tobytes()


def test_planes_of_several_dtypes_are_resized_in_one_call() -> None:
    planes = [picture(100, 90, dtype) for dtype in STORED_DTYPES]
    shared: dict[str, Any] = {"shapes": np.array([[100, 90]] * 3), "dtypes": [plane.dtype for plane in planes]}
    encoded = [encode_plane(plane) for plane in planes]
    windows, out = np.array([[0, 0, 100, 90]] * 3), np.zeros((3, 50, 50), np.float32)
    assert decode_crops(encoded, windows, out, resize="bilinear", **shared) == {}
    assert np.allclose(out[0], out[2], atol=1) and np.allclose(out[0], out[1])


def test_windows_go_to_the_places_that_are_named() -> None:
    planes = [picture(40, 40, "uint8", seed) for seed in range(2)]
    for resize in (None, "bilinear"):
        out = np.zeros((5, 40, 40), np.uint8)
        decode_crops(
            [encode_plane(plane) for plane in planes],
            np.array([[0, 0, 40, 40]] * 2),
            out,
            shapes=np.array([[40, 40]] * 2),
            dtypes=[planes[0].dtype] * 2,
            places=np.array([3, 1]),
            resize=resize,
        )
        assert np.array_equal(out[3], planes[0]) and np.array_equal(out[1], planes[1])
        assert not out[[0, 2, 4]].any()


@pytest.mark.parametrize("resize", [None, "bilinear"])
def test_memory_with_gaps_is_filled_like_any_other(resize: str | None) -> None:
    pixels = picture(60, 50, "uint16")
    common: dict[str, Any] = {"shapes": np.array([[60, 50]] * 2), "dtypes": [pixels.dtype] * 2, "resize": resize}
    encoded, windows = [encode_plane(pixels)] * 2, np.array([[0, 0, 60, 50], [1, 1, 59, 49]])
    plain = np.zeros((2, 60, 50), np.uint16)
    decode_crops(encoded, windows, plain, **common)
    memory = np.zeros((4, 61, 103), np.uint16)
    for gaps in (memory[::2, :60, :50], memory[::2, :60, :100:2], memory[1:3, 59::-1, 49::-1]):
        gaps[:] = 0
        decode_crops(encoded, windows, gaps, **common)
        assert np.array_equal(gaps, plain)


def test_a_plane_is_read_from_any_memory_and_at_any_address() -> None:
    pixels = picture(140, 150, "uint16")
    encoded = encode_plane(pixels)
    for shift in range(8):
        memory = bytearray(shift) + bytearray(encoded) + bytearray(3)
        view = memoryview(memory)[shift : shift + len(encoded)]
        assert np.array_equal(decoded(view, pixels, (0, 0, 140, 150)), pixels)
    assert np.array_equal(decoded(np.frombuffer(encoded, np.uint8), pixels, (0, 0, 140, 150)), pixels)


def test_only_the_head_and_the_tiles_of_a_window_need_to_be_there(route: str) -> None:
    pixels = picture(400, 400, "uint8")
    encoded = encode_plane(pixels)
    head = parse_head(encoded)
    sparse = bytearray(len(encoded))
    sparse[: head_bytes(400, 400)] = encoded[: head_bytes(400, 400)]
    start, count = int(head.offsets[5]), int(head.counts[5])
    sparse[start : start + count] = encoded[start : start + count]
    assert np.array_equal(decoded(sparse, pixels, (128, 128, 128, 128)), pixels[128:256, 128:256])
    assert "damaged" in str(decoded(sparse, pixels, (127, 128, 128, 128)))


def test_one_damaged_plane_spoils_no_other(route: str) -> None:
    pixels = picture(150, 140, "uint8")
    encoded = [bytearray(encode_plane(pixels, CODECS[k % 2])) for k in range(6)]
    encoded[1][0] ^= 1
    encoded[2][-3] ^= 1
    encoded[4] = encoded[4][:200]
    out = np.zeros((6, 150, 140), np.uint8)
    shared: dict[str, Any] = {"shapes": np.array([[150, 140]] * 6), "dtypes": [pixels.dtype] * 6}
    for threads in (1, 4):
        out[:] = 0
        failures = decode_crops(encoded, np.array([[0, 0, 150, 140]] * 6), out, threads=threads, **shared)
        assert sorted(failures) == [1, 2, 4]
        assert "does not begin as a TIFF" in str(failures[1])
        assert "does not decompress" in str(failures[2])
        assert "directory" in str(failures[4]) or "beyond its end" in str(failures[4])
        for k in (0, 3, 5):
            assert np.array_equal(out[k], pixels)


def test_a_plane_that_says_otherwise_than_the_index_is_damaged(route: str) -> None:
    pixels = picture(150, 140, "uint8")
    encoded, windows = encode_plane(pixels), np.array([[0, 0, 9, 9]])
    out = np.zeros((1, 9, 9), np.float32)
    for shape, dtype in (((150, 141), "uint8"), ((149, 140), "uint8"), ((150, 140), "uint16"), ((150, 140), "float32")):
        failures = decode_crops([encoded], windows, out, shapes=np.array([shape]), dtypes=[np.dtype(dtype)])
        assert f"states 150 x 140 pixels of uint8, the index {shape[0]} x {shape[1]} of {dtype}" in str(failures[0])


def test_a_plane_whose_size_the_index_states_far_too_large_costs_no_memory(route: str) -> None:
    encoded, edge = encode_plane(picture(150, 140, "uint8")), 2**31
    out = np.zeros((1, 8, 8), np.float32)
    shared: dict[str, Any] = {"shapes": np.array([[edge, edge]]), "dtypes": [np.dtype(np.uint8)]}
    failures = decode_crops([encoded], np.array([[0, 0, edge, edge]]), out, resize="bilinear", **shared)
    assert "states 150 x 140" in str(failures[0])


def test_a_plane_that_is_mended_while_it_is_decoded_is_not_written_beyond_the_memory_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from chammi75.store import decode, fused

    pixels = picture(150, 140, "uint8")
    encoded = bytearray(encode_plane(pixels))
    encoded[0] ^= 1

    def mended_after(jobs: np.ndarray, first: int, end: int, height: int, width: int) -> tuple[int, int]:
        encoded[0] ^= 1
        return 0, 0

    monkeypatch.setattr(decode, "_local", threading.local())
    monkeypatch.setattr(fused, "rooms_needed", mended_after)
    out, shared = np.zeros((1, 64, 64), np.float32), {"shapes": np.array([[150, 140]]), "dtypes": [pixels.dtype]}
    failures = decode_crops([encoded], np.array([[0, 0, 150, 140]]), out, resize="bilinear", **shared)  # type: ignore[arg-type]
    assert "changed while it was decoded" in str(failures[0]) and not out.any()


def hostile(encoded: bytes, data: st.DataObject) -> bytes:
    """A plane with bits flipped, bytes replaced, numbers of its table changed, a part moved, or its end cut off."""
    damaged = bytearray(encoded)
    table = range(160, parse_head(encoded).offsets[0], 4)
    at = data.draw(st.integers(0, len(damaged) - 1))
    match data.draw(st.integers(0, 4)):
        case 0:
            for _ in range(data.draw(st.integers(1, 3))):
                damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        case 1:
            return bytes(damaged[:at])
        case 2:
            number = data.draw(st.sampled_from([0, 1, len(damaged), 2**31, 2**32 - 1]) | st.integers(0, 2**32 - 1))
            start = data.draw(st.sampled_from(table))
            damaged[start : start + 4] = number.to_bytes(4, "little")
        case 3:
            damaged[at : at + 12] = data.draw(st.binary(min_size=1, max_size=12))
        case _:  # the first bytes of a tile, where sizes stand
            tile = data.draw(st.sampled_from(parse_head(encoded).offsets.tolist())) + data.draw(st.integers(0, 12))
            damaged[tile : tile + 4] = data.draw(st.binary(min_size=4, max_size=4))
    return bytes(damaged)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("dtype", STORED_DTYPES)
@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_hostile_planes_are_judged_alike_on_both_routes(codec: Any, dtype: str, data: st.DataObject) -> None:
    pixels = picture(150, 140, dtype)
    damaged = hostile(encode_plane(pixels, codec), data)
    window = data.draw(st.sampled_from([(0, 0, 150, 140), (100, 100, 40, 40), (0, 0, 1, 1)]))
    with pytest.MonkeyPatch.context() as patch:
        found = []
        for route in ROUTES:
            use_route(patch, route)
            found.append(decoded(damaged, pixels, window))
    if isinstance(found[0], str):
        assert found[0] == found[1] and found[0].startswith("the plane is damaged")
    else:
        assert found[0].tobytes() == np.asarray(found[1]).tobytes()


def with_tile(codec: str, tile: bytes) -> bytes:
    """A plane of one tile of 112 x 112 bytes, which is ``tile``, with a directory that agrees."""
    from chammi75.store.plane import _directory

    head = _directory(100, 100, np.dtype(np.uint8), codec, len(tile))
    return head + head_bytes(100, 100).to_bytes(4, "little") + len(tile).to_bytes(4, "little") + tile


def frames(content: bytes) -> dict[str, tuple[str, bytes]]:
    frame = zstandard.ZstdCompressor(write_checksum=True).compress(content)
    skippable = b"\x50\x2a\x4d\x18\x03\0\0\0abc"
    no_size = zstandard.ZstdCompressor(write_content_size=False).compress(content)
    stream = zlib.compress(content)
    return {
        "two frames": ("zstd", frame + frame),
        "an empty frame behind": ("zstd", frame + zstandard.ZstdCompressor().compress(b"")),
        "a skippable frame before": ("zstd", skippable + frame),
        "a skippable frame behind": ("zstd", frame + skippable),
        "a frame without its size": ("zstd", no_size),
        "a frame cut short": ("zstd", frame[:-1]),
        "a frame and a byte": ("zstd", frame + b"\0"),
        "nothing at all": ("zstd", b""),
        "a stream and a byte": ("deflate", stream + b"\0"),
        "a stream without its checksum": ("deflate", stream[:-4]),
        "a stream of gzip": ("deflate", zlib.compress(content, wbits=31)),
        "a raw stream": ("deflate", zlib.compress(content, wbits=-15)),
        "no stream at all": ("deflate", b""),
    }


@pytest.mark.parametrize("name", frames(b""))
def test_a_tile_is_one_frame_or_stream_and_nothing_else(name: str, route: str) -> None:
    pixels = np.zeros((100, 100), np.uint8)
    codec, tile = frames(bytes(112 * 112))[name]
    assert "the plane is damaged: a tile" in str(decoded(with_tile(codec, tile), pixels, (0, 0, 100, 100)))


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("size", [0, 112 * 112 - 1, 112 * 112 + 1, 2**24])
def test_a_tile_of_another_size_is_refused(codec: str, size: int, route: str) -> None:
    compressor = zstandard.ZstdCompressor(write_checksum=True)
    tile = compressor.compress(bytes(size)) if codec == "zstd" else zlib.compress(bytes(size))
    pixels = np.zeros((100, 100), np.uint8)
    assert "another size" in str(decoded(with_tile(codec, tile), pixels, (0, 0, 100, 100)))


def test_arguments_that_do_not_fit_each_other_are_refused_by_name() -> None:
    pixels = picture(40, 40, "uint16")
    good: dict[str, Any] = {
        "planes": [encode_plane(pixels)],
        "windows": np.array([[0, 0, 8, 8]]),
        "out": np.zeros((1, 8, 8), np.uint16),
        "shapes": np.array([[40, 40]]),
        "dtypes": [pixels.dtype],
    }
    read_only = np.zeros((1, 8, 8), np.uint16)
    read_only.flags.writeable = False
    for name, value, words in (
        ("windows", np.array([[0, 0, 8]]), r"\(1, 4\)"),
        ("windows", np.array([[33, 0, 8, 8]]), "not inside plane 0 of 40 x 40"),
        ("windows", np.array([[0, -1, 8, 8]]), "not inside"),
        ("windows", np.array([[0, 0, 0, 8]]), "not inside"),
        ("windows", np.array([[2**62, 2**62, 2**62, 2**62]]), "not inside"),
        ("windows", np.array([[0, 0, 9, 8]]), "does not fit"),
        ("out", np.zeros((1, 8, 8), np.uint8), "cannot hold"),
        ("out", np.zeros((8, 8), np.uint16), r"\(N, H, W\)"),
        ("out", np.zeros((1, 8, 8), np.int32), "int32"),
        ("out", np.zeros((1, 8, 8), ">u2"), ">u2"),
        ("out", read_only, "read-only"),
        ("dtypes", [], "0 dtypes"),
        ("shapes", np.array([[40]]), "shapes"),
        ("places", np.array([1]), "places"),
        ("resize", "cubic", "bilinear"),
        ("threads", 0, "threads are a whole number"),
        ("threads", 1.5, "threads are a whole number"),
    ):
        with pytest.raises(ChammiError, match=words):
            decode_crops(**{**good, name: value})
    assert decode_crops([], np.zeros((0, 4), int), good["out"], shapes=np.zeros((0, 2), int), dtypes=[]) == {}


def test_many_threads_at_once_have_their_own_contexts() -> None:
    pixels = [picture(300, 290, dtype, seed) for seed in range(4) for dtype in STORED_DTYPES]
    encoded = [encode_plane(plane, CODECS[k % 2]) for k, plane in enumerate(pixels)]  # type: ignore[arg-type]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(decode_plane, encoded * 4))
    assert all(np.array_equal(one, plane) for one, plane in zip(found, pixels * 4, strict=True))


@pytest.fixture
def _found() -> Iterator[None]:
    if native.find_zstd() is None or native.find_deflate() is None:
        pytest.skip("no installed package carries libzstd and libdeflate as shared libraries here")
    yield


@pytest.mark.usefixtures("_found")
def test_a_library_is_found_beside_imagecodecs_or_elsewhere_and_works() -> None:
    contexts = native.Contexts()
    assert all(contexts.tools)
    library = native.find_zstd()
    assert library is not None and len(library.addresses) == 3


@pytest.mark.usefixtures("_found")
def test_contexts_are_given_back_when_their_thread_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    freed: list[int] = []
    monkeypatch.setattr(
        native,
        "find_zstd",
        lambda: native.Library("one", (1, 2, 3), lambda: 1234, lambda context: freed.append(context)),
    )
    monkeypatch.setattr(native, "find_deflate", lambda: None)
    tools: list[list[int]] = []
    thread = threading.Thread(target=lambda: tools.append(native.tools().tolist()))
    thread.start()
    thread.join()
    assert tools == [[1, 2, 3, 1234, 0, 0]]
    assert freed == [1234]


def test_a_library_that_decodes_wrongly_or_lacks_a_function_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def open_library(path: str) -> native.Library | None:
        tried.append(path)
        if path == "absent":
            raise OSError("no such library")
        if path == "too old":
            raise AttributeError("undefined symbol")
        return None if path == "wrong" else native.Library(path, (), lambda: 1, lambda context: None)

    monkeypatch.setattr(native, "_places", lambda name: iter(["absent", "too old", "wrong", "right", "never asked"]))
    found = native._first_working("zstd", open_library)
    assert found is not None and found.path == "right"
    assert tried == ["absent", "too old", "wrong", "right"]
    monkeypatch.setattr(native, "_places", lambda name: iter(["absent"]))
    assert native._first_working("zstd", open_library) is None


def test_where_a_library_decodes_another_content_it_is_not_used() -> None:
    library = native.Library("one", (), lambda: 1, lambda context: None)
    assert not native._works(library, lambda context, frame: b"something else", b"frame")
    assert not native._works(library, lambda context, frame: native._CONTENT, b"a checksum that is never looked at")
    assert not native._works(native.Library("one", (), lambda: None, lambda context: None), lambda *_: None, b"frame")


def _decodes_after_fork(queue: Any, encoded: bytes, pixels: np.ndarray) -> None:
    queue.put(bool(np.array_equal(decode_plane(encoded), pixels)))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_process_goes_on_decoding() -> None:
    pixels = picture(200, 200, "uint8")
    encoded = encode_plane(pixels)
    out = np.zeros((4, 200, 200), np.uint8)
    shared: dict[str, Any] = {"shapes": np.array([[200, 200]] * 4), "dtypes": [pixels.dtype] * 4, "threads": 2}
    decode_crops([encoded] * 4, np.array([[0, 0, 200, 200]] * 4), out, **shared)
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    process = context.Process(target=_decodes_after_fork, args=(queue, encoded, pixels))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert queue.get() is True


def test_the_store_is_imported_without_numba() -> None:
    code = "import sys, chammi75.store.decode, chammi75.store.native; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_damaged_plane_raises_what_a_batch_returns(route: str) -> None:
    damaged = bytearray(encode_plane(picture(150, 140, "uint8")))
    damaged[-3] ^= 4
    with pytest.raises(StoreError, match="does not decompress"):
        decode_plane(damaged)
    assert "does not decompress" in str(decoded(damaged, picture(150, 140, "uint8"), (0, 0, 150, 140)))
