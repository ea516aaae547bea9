"""The TIFF reader on files written here: OME-TIFF in all orders, ImageJ, samples, packed bits, damage everywhere."""

from __future__ import annotations

import io
import itertools
import logging
import struct
from pathlib import Path

import fsspec
import numpy as np
import pytest
import tifffile

from chammi75.errors import ReadError
from chammi75.readers import open_image, probe

_RNG = np.random.default_rng(7)


def _noise(shape: tuple[int, ...], dtype: str = "uint16") -> np.ndarray:
    if np.dtype(dtype).kind == "f":
        return _RNG.normal(size=shape).astype(dtype)
    info = np.iinfo(dtype)
    return _RNG.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)


def _read_all(path: Path | str) -> None:
    with open_image(path) as reader:
        for series in reader.file.series:
            for t, z, c, page in np.ndindex(*(series.sizes[axis] for axis in "TZC"), series.pages):
                reader.read_plane(series.index, t=int(t), z=int(z), c=int(c), page=int(page))


@pytest.mark.parametrize("order", ["".join(order) for order in itertools.permutations("TZC")])
def test_ome_tiff_planes_are_found_in_every_dimension_order(tmp_path: Path, order: str) -> None:
    lengths = {"T": 2, "Z": 3, "C": 4}
    stack = _noise((*(lengths[axis] for axis in order), 20, 30))
    path = tmp_path / "stack.ome.tif"
    names = ["DNA", "ER", "AGP", "Mito"]
    metadata = {
        "axes": f"{order}YX",
        "Channel": {"Name": names},
        "PhysicalSizeX": 325.0,
        "PhysicalSizeXUnit": "nm",
        "SignificantBits": 12,
    }
    tifffile.imwrite(path, stack, ome=True, metadata=metadata)
    with open_image(path) as reader:
        series = reader.file.series[0]
        assert (reader.file.format, dict(series.sizes), series.axes) == ("ome-tiff", lengths, f"{order}YX")
        assert series.channel_names == tuple(names)
        assert series.pixel_size_um == pytest.approx(0.325)
        assert series.significant_bits == 12
        for t, z, c in np.ndindex(2, 3, 4):
            at = {"T": t, "Z": z, "C": c}
            expected = stack[tuple(at[axis] for axis in order)]
            np.testing.assert_array_equal(reader.read_plane(t=t, z=z, c=c), expected)


def test_a_colour_ome_tiff_has_channels_r_g_b(tmp_path: Path) -> None:
    picture = _noise((3, 24, 32, 3), "uint8")
    path = tmp_path / "colour.ome.tif"
    tifffile.imwrite(path, picture, photometric="rgb", metadata={"axes": "ZYXS"}, ome=True)
    with open_image(path) as reader:
        series = reader.file.series[0]
        assert (series.channel_names, series.rgb, series.sizes["Z"]) == (("r", "g", "b"), True, 3)
        np.testing.assert_array_equal(reader.read_plane(z=2, c=1), picture[2, :, :, 1])


def test_an_ome_pyramid_is_read_at_full_resolution_only(tmp_path: Path) -> None:
    plane = _noise((64, 64))
    path = tmp_path / "pyramid.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as writer:
        writer.write(plane, subifds=1, tile=(16, 16), metadata={"axes": "YX"})
        writer.write(plane[::2, ::2], subfiletype=1, tile=(16, 16))
    with open_image(path) as reader:
        assert [(series.height, series.width) for series in reader.file.series] == [(64, 64)]
        np.testing.assert_array_equal(reader.read_plane(), plane)


def _ome_pair(folder: Path, second: str = "b.ome.tif") -> np.ndarray:
    """Two files of one plane each; the OME-XML of the first names both."""
    planes = _noise((2, 16, 16))
    uuids = ["urn:uuid:00000000-0000-0000-0000-00000000000a", "urn:uuid:00000000-0000-0000-0000-00000000000b"]
    data = "".join(
        f'<TiffData FirstC="{c}" IFD="0" PlaneCount="1"><UUID FileName="{name}">{uuid}</UUID></TiffData>'
        for c, (name, uuid) in enumerate(zip(["a.ome.tif", second], uuids, strict=True))
    )
    xml = (
        f'<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="{uuids[0]}">'
        '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint16" SizeX="16" SizeY="16" SizeC="2"'
        f' SizeZ="1" SizeT="1"><Channel ID="C:0"/><Channel ID="C:1"/>{data}</Pixels></Image></OME>'
    )
    tifffile.imwrite(folder / "a.ome.tif", planes[0], description=xml, metadata=None)
    tifffile.imwrite(folder / "b.ome.tif", planes[1], metadata=None)
    return planes


def test_a_multi_file_ome_tiff_reads_the_companions_of_its_folder(tmp_path: Path) -> None:
    planes = _ome_pair(tmp_path)
    with open_image(tmp_path / "a.ome.tif") as reader:
        assert reader.file.companions == ("b.ome.tif",)
        for c in (0, 1, 0):
            np.testing.assert_array_equal(reader.read_plane(c=c), planes[c])


def test_a_multi_file_ome_tiff_without_its_companion_says_so_and_never_gives_zeros(tmp_path: Path) -> None:
    planes = _ome_pair(tmp_path)
    (tmp_path / "b.ome.tif").unlink()
    with open_image(tmp_path / "a.ome.tif") as reader:
        assert any("b.ome.tif" in note for note in reader.file.series[0].notes)
        np.testing.assert_array_equal(reader.read_plane(c=0), planes[0])
        with pytest.raises(ReadError, match="missing"):
            reader.read_plane(c=1)


@pytest.mark.parametrize("name", ["../b.ome.tif", "/etc/passwd", "sub/b.ome.tif", "..\\b.ome.tif", "s3://bucket/b.tif"])
def test_a_companion_outside_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    _ome_pair(tmp_path, second=name)
    with pytest.raises(ReadError, match="same folder"):
        probe(tmp_path / "a.ome.tif")


def test_ome_xml_with_entities_is_refused(tmp_path: Path) -> None:
    xml = '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaa">]><OME>&a;</OME>'
    tifffile.imwrite(tmp_path / "bomb.ome.tif", _noise((8, 8)), description=xml, metadata=None)
    with pytest.raises(ReadError, match="entities"):
        probe(tmp_path / "bomb.ome.tif")


@pytest.mark.parametrize("broken", ["<OME><Image></OME>", '<OME><Image><Pixels SizeX="x"/></Image></OME>'])
def test_unusable_ome_xml_leaves_a_plain_tiff_and_a_note(tmp_path: Path, broken: str) -> None:
    plane = _noise((8, 8))
    tifffile.imwrite(tmp_path / "a.ome.tif", plane, description=broken, metadata=None)
    with open_image(tmp_path / "a.ome.tif") as reader:
        assert any("not usable" in note for note in reader.file.series[0].notes)
        np.testing.assert_array_equal(reader.read_plane(), plane)


def test_ome_xml_that_declares_a_billion_planes_is_refused_at_once(tmp_path: Path) -> None:
    xml = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="I"><Pixels ID="P" Type="uint16"'
        ' DimensionOrder="XYCZT" SizeX="8" SizeY="8" SizeC="1" SizeZ="1" SizeT="{frames}">'
        "<TiffData/></Pixels></Image></OME>"
    )
    path = tmp_path / "many.ome.tif"
    tifffile.imwrite(path, _noise((8, 8)), description=xml.format(frames=999_999_999), metadata=None)
    with pytest.raises(ReadError, match="at most"):
        probe(path)
    tifffile.imwrite(path, _noise((8, 8)), description=xml.format(frames=2), metadata=None)
    with open_image(path) as reader:
        assert any("1 of 2 planes" in note for note in reader.file.series[0].notes)
        reader.read_plane(t=0)
        with pytest.raises(ReadError, match="missing"):
            reader.read_plane(t=1)


def test_an_imagej_hyperstack_keeps_its_axes_and_calibration(tmp_path: Path) -> None:
    stack = _noise((2, 3, 2, 20, 24))
    path = tmp_path / "hyper.tif"
    tifffile.imwrite(path, stack, imagej=True, resolution=(4.0, 4.0), metadata={"axes": "TZCYX", "unit": "um"})
    with open_image(path) as reader:
        series = reader.file.series[0]
        assert (reader.file.format, dict(series.sizes)) == ("imagej", {"T": 2, "Z": 3, "C": 2})
        assert series.pixel_size_um == pytest.approx(0.25)
        for t, z, c in np.ndindex(2, 3, 2):
            np.testing.assert_array_equal(reader.read_plane(t=t, z=z, c=c), stack[t, z, c])


def test_dots_per_inch_are_no_pixel_size(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", _noise((8, 8)), resolution=(72, 72), resolutionunit="inch")
    assert probe(tmp_path / "a.tif").series[0].pixel_size_um is None


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("alpha", [False, True])
def test_colour_samples_become_channels_and_alpha_is_dropped(tmp_path: Path, planar: bool, alpha: bool) -> None:
    picture = _noise((4 if alpha else 3, 24, 32), "uint8")
    path = tmp_path / "colour.tif"
    tifffile.imwrite(
        path,
        picture if planar else np.moveaxis(picture, 0, -1),
        photometric="rgb",
        planarconfig="separate" if planar else "contig",
        extrasamples=["unassalpha"] if alpha else None,
    )
    with open_image(path) as reader:
        series = reader.file.series[0]
        assert (series.channel_names, series.rgb) == (("r", "g", "b"), True)
        assert series.steps == (("alpha dropped",) if alpha else ())
        for c in range(3):
            plane = reader.read_plane(c=c)
            np.testing.assert_array_equal(plane, picture[c])
            plane[:] = 0  # what a caller does to its plane must not reach the next one


def test_one_page_is_decoded_once_for_its_three_channels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "colour.tif"
    tifffile.imwrite(path, _noise((24, 32, 3), "uint8"), photometric="rgb", compression="zlib")
    calls = []
    decode = tifffile.TiffPage.asarray
    monkeypatch.setattr(tifffile.TiffPage, "asarray", lambda *a, **k: calls.append(1) or decode(*a, **k))
    with open_image(path) as reader:
        for c in range(3):
            reader.read_plane(c=c)
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("dtype", "options"),
    [
        ("uint16", {"byteorder": ">", "predictor": 2, "compression": "zlib"}),
        ("float32", {"predictor": 3, "compression": "zlib"}),
        ("float32", {"predictor": 3, "compression": "zlib", "byteorder": ">"}),
        ("uint8", {"compression": "lzw", "predictor": 2}),
        ("uint16", {"compression": "lzw", "tile": (16, 32)}),
        ("uint16", {"compression": "zstd", "tile": (32, 16), "predictor": 2}),
        ("uint8", {"compression": "packbits"}),
        ("uint16", {"bigtiff": True, "rowsperstrip": 5}),
        ("int8", {}),
        ("int16", {"byteorder": ">"}),
        ("uint32", {"compression": "zlib"}),
        ("int32", {}),
        ("float16", {}),
        ("float64", {"compression": "zlib"}),
    ],
)
def test_codecs_layouts_and_dtypes_are_bit_exact_in_native_order(tmp_path: Path, dtype: str, options: dict) -> None:
    plane = _noise((40, 50), dtype)
    path = tmp_path / "plane.tif"
    tifffile.imwrite(path, plane, **options)
    with open_image(path) as reader:
        series, ours = reader.file.series[0], reader.read_plane()
    assert series.dtype == dtype and ours.dtype == np.dtype(dtype) and ours.dtype.isnative
    assert ours.flags.c_contiguous and ours.flags.writeable
    assert series.significant_bits == (None if dtype.startswith("float") else np.dtype(dtype).itemsize * 8)
    np.testing.assert_array_equal(ours.view(f"V{ours.itemsize}"), plane.view(f"V{plane.itemsize}"))


def _packed_tiff(bits: int, rows: bytes, height: int, width: int, photometric: int = 1) -> bytes:
    """A little-endian TIFF of one strip of packed samples."""
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, photometric), (273, 200), (277, 1), (278, height)]
    tags.append((279, len(rows)))
    body = b"".join(struct.pack("<HHII", code, 4, 1, value) for code, value in tags)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + body + b"\0\0\0\0"
    return head.ljust(200, b"\0") + rows


@pytest.mark.parametrize(
    ("bits", "dtype", "stored"),
    [(1, "uint8", "bool"), (2, "uint8", "uint8"), (4, "uint8", "uint8"), (12, "uint16", "uint16")],
)
def test_packed_samples_are_unpacked_with_their_values(tmp_path: Path, bits: int, dtype: str, stored: str) -> None:
    values = _RNG.integers(0, 1 << bits, (7, 16))
    packed = np.packbits((values[:, :, None] >> np.arange(bits - 1, -1, -1)) & 1, axis=None).tobytes()
    path = tmp_path / "packed.tif"
    path.write_bytes(_packed_tiff(bits, packed, 7, 16))
    with open_image(path) as reader:
        series, plane = reader.file.series[0], reader.read_plane()
    assert (series.significant_bits, series.dtype, plane.dtype) == (bits, stored, np.dtype(dtype))
    assert any(step.startswith(f"bits {bits} ->") for step in series.steps)
    np.testing.assert_array_equal(plane, values)


def test_values_where_zero_is_white_are_kept_with_a_note(tmp_path: Path) -> None:
    plane = _noise((8, 8), "uint8")
    tifffile.imwrite(tmp_path / "a.tif", plane, photometric="miniswhite")
    with open_image(tmp_path / "a.tif") as reader:
        assert any("0 is white" in note for note in reader.file.series[0].notes)
        np.testing.assert_array_equal(reader.read_plane(), plane)


def test_complex_samples_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.ones((8, 8), "complex64"))
    with pytest.raises(ReadError, match="complex"):
        probe(tmp_path / "a.tif")


def test_pages_of_another_size_are_series_of_their_own(tmp_path: Path) -> None:
    big, small = _noise((3, 32, 32)), _noise((8, 8))
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for plane in (*big, small):
            writer.write(plane, metadata=None, contiguous=False)
    with open_image(tmp_path / "a.tif") as reader:
        assert [(series.pages, series.height) for series in reader.file.series] == [(3, 32), (1, 8)]
        np.testing.assert_array_equal(reader.read_plane(0, page=2), big[2])
        np.testing.assert_array_equal(reader.read_plane(1), small)


@pytest.mark.parametrize("kind", ["plain", "zlib", "ome", "imagej", "pages", "tiled", "jpeg"])
def test_a_truncated_tiff_is_an_error_or_its_planes_are_whole(tmp_path: Path, kind: str) -> None:
    stack = _noise((5, 40, 48), "uint8")
    whole = io.BytesIO()
    options = {
        "plain": {"metadata": None},
        "zlib": {"compression": "zlib", "rowsperstrip": 7},
        "ome": {"ome": True, "metadata": {"axes": "CYX"}},
        "imagej": {"imagej": True, "metadata": {"axes": "TYX"}},
        "pages": {"metadata": None, "compression": "lzw"},
        "tiled": {"tile": (16, 16), "compression": "zlib"},
        "jpeg": {"compression": "jpeg", "metadata": None},
    }[kind]
    tifffile.imwrite(whole, stack, **options)
    content = whole.getvalue()
    path = tmp_path / "cut.tif"
    path.write_bytes(content)
    with open_image(path) as reader:
        facts = reader.file
    refused = 0
    for end in sorted({*range(0, len(content), max(1, len(content) // 60)), *range(len(content) - 4, len(content))}):
        path.write_bytes(content[:end])
        try:
            with open_image(path) as reader:
                assert reader.file.series[0].sizes == facts.series[0].sizes
            _read_all(path)
        except ReadError as error:
            assert str(error).startswith(str(path))
            refused += 1
        else:
            assert end > len(content) - 64, f"{kind} cut at {end} of {len(content)} was read"
    assert refused > 50


@pytest.mark.parametrize("compression", [None, "zlib", "lzw", "packbits", "zstd", "jpeg"])
def test_a_strip_that_is_missing_or_cut_short_is_an_error_not_zeros(tmp_path: Path, compression: str | None) -> None:
    path = tmp_path / "strips.tif"
    content = io.BytesIO()
    tifffile.imwrite(content, _noise((32, 64), "uint8"), rowsperstrip=8, compression=compression, metadata=None)
    with tifffile.TiffFile(io.BytesIO(content.getvalue())) as tiff:
        tag = tiff.pages[0].tags["StripByteCounts"]
        counts, width = tag.value, "H" if tag.dtype == 3 else "I"
    for replacement in (0, counts[2] // 2):
        broken = bytearray(content.getvalue())
        struct.pack_into("<" + width, broken, tag.valueoffset + 2 * struct.calcsize(width), replacement)
        path.write_bytes(broken)
        assert probe(path).series[0].height == 32
        with open_image(path) as reader, pytest.raises(ReadError):
            reader.read_plane()


def test_damaged_bytes_give_an_error_or_planes_and_nothing_else(tmp_path: Path) -> None:
    content = io.BytesIO()
    tifffile.imwrite(content, _noise((2, 24, 24)), ome=True, compression="zlib", metadata={"axes": "CYX"})
    original = content.getvalue()
    path = tmp_path / "damaged.tif"
    rng = np.random.default_rng(3)
    for _ in range(300):
        broken = bytearray(original)
        for place in rng.integers(0, len(broken), 3):
            broken[place] = rng.integers(256)
        path.write_bytes(broken)
        try:
            _read_all(path)
        except ReadError as error:
            assert str(path) in str(error)


@pytest.mark.parametrize(
    ("compression", "says"), [(1, "uncompressed"), (8, "declares"), (5, "declares")], ids=["none", "deflate", "lzw"]
)
def test_a_size_far_beyond_the_file_is_refused_before_anything_is_allocated(
    tmp_path: Path, compression: int, says: str
) -> None:
    content = bytearray(_packed_tiff(8, bytes(64), 60000, 60000))
    struct.pack_into("<I", content, 10 + 12 * 3 + 8, compression)
    path = tmp_path / "bomb.tif"
    path.write_bytes(content)
    with pytest.raises(ReadError, match=says):
        probe(path)


def test_what_tifffile_warns_of_becomes_a_note_and_is_not_logged_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = bytearray(_packed_tiff(8, bytes(64), 8, 8))
    struct.pack_into("<I", content, 10 + 12 * 9, 8)  # the chain of pages runs back to its first
    path = tmp_path / "loop.tif"
    path.write_bytes(content)
    before = list(logging.getLogger("tifffile").handlers)
    series = probe(path).series[0]
    assert any("circle" in note for note in series.notes)
    assert logging.getLogger("tifffile").handlers == before


@pytest.mark.timeout(20)
def test_a_circle_of_pages_of_different_sizes_comes_to_an_end(tmp_path: Path) -> None:
    path = tmp_path / "circle.tif"
    with tifffile.TiffWriter(path) as writer:
        for size in (8, 16, 24):
            writer.write(np.full((size, size), size, np.uint8), metadata=None, contiguous=False)
    content = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tiff:
        second, last = tiff.pages[1].offset, tiff.pages[2]
        end = last.offset + 2 + 12 * len(last.tags)
    struct.pack_into("<I", content, end, second)
    path.write_bytes(content)
    with open_image(path) as reader:
        assert [series.height for series in reader.file.series] == [8, 16, 24]
        assert [int(reader.read_plane(number)[0, 0]) for number in range(3)] == [8, 16, 24]


def test_vendor_metadata_in_disorder_leaves_the_pixels_and_a_note(tmp_path: Path) -> None:
    plane = _noise((8, 8))
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, plane, description="<MetaData><prop id=</MetaData>", metadata=None, software="MetaSeries")
    with open_image(path) as reader:
        assert any("calibration cannot be read" in note for note in reader.file.series[0].notes)
        np.testing.assert_array_equal(reader.read_plane(), plane)


def test_a_tiff_reads_the_same_from_another_filesystem(tmp_path: Path) -> None:
    stack = _noise((2, 16, 16))
    content = io.BytesIO()
    tifffile.imwrite(content, stack, ome=True, metadata={"axes": "CYX"})
    fsspec.filesystem("memory").pipe("/readers/a.ome.tif", content.getvalue())
    with open_image("memory://readers/a.ome.tif") as reader:
        np.testing.assert_array_equal(reader.read_plane(c=1), stack[1])


def test_axes_that_mean_nothing_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", _noise((5, 8, 8)), metadata=None)
    for axes in ("T", "QYX", "TTYX", "YXT"):
        with pytest.raises(ReadError, match="not understood"):
            probe(tmp_path / "a.tif", axes=axes)


def test_a_plane_that_is_not_there_is_named_in_the_error(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", _noise((8, 8)))
    with open_image(tmp_path / "a.tif") as reader:
        with pytest.raises(ReadError, match="z=1"):
            reader.read_plane(z=1)
        with pytest.raises(ReadError, match="no series 2"):
            reader.read_plane(2)
