"""The JPEG reader against Pillow: kinds of JPEG, what the header tells, files that are cut, and those that lie."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from chammi75.errors import ReadError
from chammi75.readers import open_image, probe
from chammi75.readers.image_file import Series

_RNG = np.random.default_rng(11)


def _picture(height: int = 120, width: int = 163) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    smooth = np.stack([x * 1.5 % 256, y * 2 % 256, (x + y) % 256], -1)
    return (smooth * 0.7 + _RNG.integers(0, 70, smooth.shape)).astype(np.uint8)


_RGB = Image.fromarray(_picture())


def _jpeg(image: Image.Image, **options: object) -> bytes:
    content = io.BytesIO()
    image.save(content, "jpeg", **options)
    return content.getvalue()


_KINDS = {
    "4:4:4": _jpeg(_RGB, quality=90, subsampling=0),
    "4:2:2": _jpeg(_RGB, subsampling=1),
    "4:2:0": _jpeg(_RGB, subsampling=2),
    "progressive": _jpeg(_RGB, progressive=True),
    "grey": _jpeg(_RGB.convert("L")),
    "progressive grey": _jpeg(_RGB.convert("L"), progressive=True),
    "restart markers": _jpeg(_RGB, restart_marker_blocks=3),
    "restart rows": _jpeg(_RGB, restart_marker_rows=1),
    "RGB as it is": _jpeg(_RGB, keep_rgb=True),
    "optimized": _jpeg(_RGB, optimize=True, quality=5),
    "CMYK": _jpeg(_RGB.convert("CMYK")),
}


def _read(content: bytes) -> tuple[Series, np.ndarray]:
    """What the file states, and its channels (height, width, channels)."""
    with open_image("picture.jpg", content=content) as reader:
        series = reader.file.series[0]
        return series, np.stack([reader.read_plane(c=c) for c in range(series.sizes["C"])], -1)


@pytest.mark.parametrize("kind", _KINDS)
def test_every_kind_of_jpeg_decodes_to_pillows_pixels(kind: str) -> None:
    series, pixels = _read(_KINDS[kind])
    expected = np.asarray(Image.open(io.BytesIO(_KINDS[kind])))
    np.testing.assert_array_equal(pixels, expected.reshape(*expected.shape[:2], -1))
    names = {1: (None,), 3: ("r", "g", "b"), 4: ("c", "m", "y", "k")}[pixels.shape[2]]
    assert (series.channel_names, series.rgb, series.dtype) == (names, len(names) == 3, "uint8")
    assert (series.height, series.width, series.significant_bits) == (120, 163, 8)
    assert series.steps == {
        "RGB as it is": (),
        "CMYK": ("inverted CMYK -> amounts of ink",),
        "grey": (),
        "progressive grey": (),
    }.get(kind, ("JPEG YCbCr -> RGB",))
    assert "compressed with loss (JPEG)" in series.notes


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_lossless_jpeg_gives_the_original_values(bits: int) -> None:
    dtype = np.uint8 if bits == 8 else np.uint16
    plane = _RNG.integers(0, 1 << bits, (50, 61)).astype(dtype)
    series, pixels = _read(imagecodecs.jpeg8_encode(plane, lossless=True, bitspersample=bits))
    np.testing.assert_array_equal(pixels[..., 0], plane)
    assert (series.dtype, series.significant_bits) == (np.dtype(dtype).name, bits)
    assert not any("loss" in note for note in series.notes)


def test_twelve_bit_jpeg_is_read_as_uint16() -> None:
    content = imagecodecs.jpeg8_encode(_picture()[..., 0].astype(np.uint16) * 16, bitspersample=12)
    series, pixels = _read(content)
    assert (series.dtype, series.significant_bits, pixels.dtype) == ("uint16", 12, np.uint16)
    np.testing.assert_array_equal(pixels[..., 0], imagecodecs.jpeg8_decode(content))


def test_planes_are_the_callers_own(tmp_path: Path) -> None:
    with open_image("a.jpg", content=_KINDS["4:2:0"]) as reader:
        first = reader.read_plane(c=0)
        kept = first.copy()
        first[:] = 0
        np.testing.assert_array_equal(reader.read_plane(c=0), kept)
        assert first.flags.c_contiguous


def test_the_provenance_names_the_decoder_and_its_version() -> None:
    with open_image("a.jpg", content=_KINDS["grey"]) as reader:
        assert (reader.file.reader, reader.file.format) == ("chammi75.jpeg", "jpeg")
        assert "libjpeg turbo" in reader.file.reader_version


def test_planning_reads_the_header_alone(tmp_path: Path) -> None:
    content = _KINDS["4:2:0"]
    scan = content.index(b"\xff\xda")
    path = tmp_path / "head.jpg"
    path.write_bytes(content[: scan + 20])
    assert probe(path).series[0].width == 163
    with open_image(path) as reader, pytest.raises(ReadError, match="truncated"):
        reader.read_plane()


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_exif_orientation_is_noted_and_the_pixels_stay_as_stored(orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    series, pixels = _read(_jpeg(_RGB, exif=exif))
    np.testing.assert_array_equal(pixels, np.asarray(Image.open(io.BytesIO(_jpeg(_RGB)))))
    assert any(f"Orientation {orientation}" in note for note in series.notes) == (orientation != 1)


def test_a_preview_in_exif_is_not_taken_for_the_picture() -> None:
    preview = _jpeg(_RGB.resize((16, 12)))
    block = b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0" + preview
    content = _KINDS["grey"]
    content = content[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + content[2:]
    series, _ = _read(content)
    assert (series.height, series.width) == (120, 163)


@pytest.mark.parametrize("closed", [False, True], ids=["cut", "cut and closed again"])
@pytest.mark.parametrize("kind", _KINDS)
def test_a_cut_jpeg_is_an_error_and_never_filled_with_grey(kind: str, closed: bool) -> None:
    content = _KINDS[kind]
    _, whole = _read(content)
    for end in [*range(0, len(content) - 8, len(content) // 37), len(content) - 3, len(content) - 1]:
        try:
            _, pixels = _read(content[:end] + (b"\xff\xd9" if closed else b""))
        except ReadError as error:
            assert str(error).startswith("picture.jpg")
        else:
            assert closed and np.array_equal(pixels, whole)  # the last byte held only padding


def test_lost_restart_intervals_are_an_error() -> None:
    content = _KINDS["restart markers"]
    first = content.index(b"\xff\xd3")
    with pytest.raises(ReadError, match="restart markers"):
        _read(content[:first] + content[content.index(b"\xff\xd3", first + 2) :])


def _with_size(height: int, width: int) -> bytes:
    content = bytearray(_KINDS["grey"])
    struct.pack_into(">HH", content, content.index(b"\xff\xc0") + 5, height, width)
    return bytes(content)


def test_a_size_far_beyond_the_file_is_refused_before_anything_is_allocated() -> None:
    with pytest.raises(ReadError, match="declares 4294836225 bytes"):
        probe_bytes(_with_size(65535, 65535))


@pytest.mark.parametrize(("height", "width", "says"), [(0, 163, "DNL"), (120, 0, "declares 0 x 120")])
def test_a_size_of_nothing_is_refused(height: int, width: int, says: str) -> None:
    with pytest.raises(ReadError, match=says):
        probe_bytes(_with_size(height, width))


@pytest.mark.parametrize(("frame", "says"), [(0xC5, "hierarchical"), (0xF7, "JPEG-LS"), (0xCB, "arithmetic")])
def test_other_kinds_of_jpeg_are_refused_by_name(frame: int, says: str) -> None:
    with pytest.raises(ReadError, match=says):
        probe_bytes(_KINDS["grey"].replace(b"\xff\xc0", bytes([0xFF, frame])))


def test_hundreds_of_scans_are_refused() -> None:
    content = _KINDS["progressive grey"]
    scan = content.rindex(b"\xff\xda")
    with pytest.raises(ReadError, match="scans"):
        _read(content[:scan] + content[scan:-2] * 300 + content[-2:])


def probe_bytes(content: bytes) -> None:
    with open_image("a.jpg", content=content):
        pass


def test_real_jpegs_equal_pillows_pixels(shared_data: Path) -> None:
    paths = [path for path in (shared_data / "public").rglob("*") if path.suffix.lower() in (".jpg", ".jpeg")]
    for path in paths:
        with open_image(path) as reader:
            for c in range(3):
                np.testing.assert_array_equal(reader.read_plane(c=c), np.asarray(Image.open(path))[..., c])
    assert len(paths) >= 3
