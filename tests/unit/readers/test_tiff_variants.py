"""Kinds of TIFF beyond the plain: palettes, pyramids, stacks of unlike pages, old compressions, other byte orders."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from chammi75.errors import ReadError
from chammi75.readers import open_image
from chammi75.readers.image_file import ImageFile, ImageReader, Series

_RNG = np.random.default_rng(5)


def _noise(*shape: int, dtype: str = "uint16") -> np.ndarray:
    return _RNG.integers(0, 250, shape).astype(dtype)


def _written(*args: object, **options: object) -> bytes:
    content = io.BytesIO()
    tifffile.imwrite(content, *args, **options)
    return content.getvalue()


def _saved(image: Image.Image, **options: object) -> bytes:
    content = io.BytesIO()
    image.save(content, "tiff", **options)
    return content.getvalue()


def _all_planes(reader: ImageReader, series: Series) -> list[np.ndarray]:
    sizes = [series.pages, *(series.sizes[axis] for axis in "TZC")]
    return [
        reader.read_plane(series.index, page=page, t=t, z=z, c=c) for page, t, z, c in map(tuple, np.ndindex(*sizes))
    ]


def _read(content: bytes) -> tuple[ImageFile, list[list[np.ndarray]]]:
    """What the file states, and the planes of each of its series."""
    with open_image("image.tif", content=content) as reader:
        return reader.file, [_all_planes(reader, series) for series in reader.file.series]


def _assert_planes(found: list[np.ndarray], expected: list[np.ndarray]) -> None:
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


_GREY, _DEEP, _COLOUR = _noise(50, 70, dtype="uint8"), _noise(50, 70) * 257, _noise(50, 70, 3, dtype="uint8")
_COMPRESSIONS = {
    "lzw": {},
    "packbits": {},
    "zlib": {},
    "deflate": {},
    "lzma": {},
    "zstd": {},
    "png": {},
    "jpegxl": {"lossless": True},
    "jpeg2000": {"level": 0},
    "aperio_jp2000_rgb": {"level": 0},
    "lerc": {},
    "webp": {"lossless": True},
}


@pytest.mark.parametrize("image", [_GREY, _DEEP, _COLOUR], ids=["uint8", "uint16", "colour"])
@pytest.mark.parametrize("compression", _COMPRESSIONS)
def test_every_lossless_compression_is_bit_exact(compression: str, image: np.ndarray) -> None:
    if compression == "webp" and image.ndim == 2:
        pytest.skip("WebP holds colour pictures of 8 bits only")
    photometric = "rgb" if image.ndim == 3 else "minisblack"
    arguments = _COMPRESSIONS[compression] or None
    content = _written(image, compression=compression, photometric=photometric, compressionargs=arguments)
    _, (planes,) = _read(content)
    _assert_planes(planes, [image] if image.ndim == 2 else [image[..., k] for k in range(3)])


@pytest.mark.parametrize("white", [0, 1])
@pytest.mark.parametrize("compression", ["tiff_ccitt", "group3", "group4", "packbits", "tiff_lzw", "raw"])
def test_fax_and_other_one_bit_compressions_keep_the_stored_bits(compression: str, white: int) -> None:
    bits = _GREY > 120
    content = _saved(Image.fromarray(bits), compression=compression, tiffinfo={262: white})
    _, (planes,) = _read(content)
    _assert_planes(planes, [(bits if white else ~bits).astype(np.uint8)])


@pytest.mark.parametrize("options", [0, 1, 4, 5])
def test_all_options_of_group_3_are_read(options: int) -> None:
    bits = _GREY > 120
    _, (planes,) = _read(_saved(Image.fromarray(bits), compression="group3", tiffinfo={292: options}))
    _assert_planes(planes, [bits.astype(np.uint8)])


@pytest.mark.parametrize("bigtiff", [False, True], ids=["classic", "bigtiff"])
@pytest.mark.parametrize("order", ["<", ">"], ids=["II", "MM"])
@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8"])
def test_both_byte_orders_with_and_without_predictor(dtype: str, order: str, bigtiff: bool) -> None:
    plane = _noise(40, 33).astype(dtype)
    plain = _written(plane, byteorder=order, bigtiff=bigtiff)
    predictor = 3 if dtype.startswith("f") else 2
    packed = _written(plane, byteorder=order, bigtiff=bigtiff, compression="zlib", predictor=predictor)
    for content in (plain, packed):
        _, ((found,),) = _read(content)
        assert found.dtype == np.dtype(dtype) and found.dtype.isnative
        np.testing.assert_array_equal(found, plane)


@pytest.mark.parametrize("bits", [2, 3, 4, 6, 10, 12, 14, 24])
def test_packed_samples_of_any_width_keep_their_values(bits: int) -> None:
    values = _RNG.integers(0, 1 << bits, (16, 21)).astype("u1" if bits < 8 else "u2" if bits < 16 else "u4")
    file, (planes,) = _read(_written(values, bitspersample=bits, metadata=None))
    assert file.series[0].significant_bits == bits
    _assert_planes(planes, [values])


@pytest.mark.parametrize("samples", [2, 5])
@pytest.mark.parametrize("planar", [False, True])
def test_samples_without_colours_are_channels(samples: int, planar: bool) -> None:
    planes = _noise(samples, 16, 20)
    image = planes if planar else np.ascontiguousarray(np.moveaxis(planes, 0, -1))
    layout = "separate" if planar else "contig"
    _, (found,) = _read(_written(image, planarconfig=layout, photometric="minisblack", metadata=None))
    _assert_planes(found, list(planes))


# Palettes ------------------------------------------------------------------------------------------------------------


def _mapped(colors: np.ndarray, **options: object) -> bytes:
    return _written(_GREY, photometric="palette", colormap=colors.T.astype(np.uint16), **{"metadata": None, **options})


def test_a_picture_of_few_colours_is_expanded_to_red_green_and_blue() -> None:
    picture = Image.fromarray(_COLOUR).quantize(64)
    file, (planes,) = _read(_saved(picture))
    series = file.series[0]
    assert (series.channel_names, series.rgb, series.dtype) == (("r", "g", "b"), True, "uint8")
    assert series.steps == ("palette expanded to red, green, blue",)
    expected = np.asarray(picture.convert("RGB"))
    _assert_planes(planes, [expected[..., k] for k in range(3)])


def test_colours_of_16_bits_stay_16_bits() -> None:
    colors = _RNG.integers(0, 65536, (256, 3))
    file, (planes,) = _read(_mapped(colors))
    assert (file.series[0].dtype, file.series[0].significant_bits) == ("uint16", 16)
    _assert_planes(planes, [colors[_GREY, k] for k in range(3)])


@pytest.mark.parametrize("factor", [1, 256, 257])
def test_colours_of_8_bits_are_found_however_the_map_scales_them(factor: int) -> None:
    colors = _RNG.integers(0, 256, (256, 3))
    _, (planes,) = _read(_mapped(colors * factor))
    _assert_planes(planes, [colors[_GREY, k].astype(np.uint8) for k in range(3)])


def test_a_map_of_shuffled_greys_gives_one_grey_plane() -> None:
    levels = _RNG.permutation(256)
    file, (planes,) = _read(_mapped(np.repeat(levels[:, None] * 257, 3, axis=1)))
    assert file.series[0].steps == ("palette expanded to grey",)
    _assert_planes(planes, [levels[_GREY].astype(np.uint8)])


@pytest.mark.parametrize("tint", [(1, 1, 1), (0, 1, 0), (1, 0.5, 0)])
@pytest.mark.parametrize("falling", [False, True])
def test_a_display_of_grey_values_in_a_colour_keeps_the_values(tint: tuple[float, ...], falling: bool) -> None:
    ramp = np.arange(256)[:: -1 if falling else 1, None] * 257 * np.array(tint)
    file, (planes,) = _read(_mapped(ramp))
    assert file.series[0].steps == () and "pseudo-coloured" in file.series[0].notes[0]
    _assert_planes(planes, [_GREY])


def test_a_map_that_marks_the_darkest_and_the_brightest_value_is_a_display() -> None:
    ramp = np.repeat(np.arange(256)[:, None] * 257, 3, axis=1)
    ramp[0], ramp[-1] = (0, 0, 65535), (65535, 0, 0)
    _, (planes,) = _read(_mapped(ramp))
    _assert_planes(planes, [_GREY])


def test_imagej_writes_maps_for_display_only() -> None:
    _, (planes,) = _read(_mapped(_RNG.integers(0, 65536, (256, 3)), imagej=True))
    _assert_planes(planes, [_GREY])


def test_an_index_beyond_a_short_map_is_an_error() -> None:
    content = bytearray(_saved(Image.fromarray(_COLOUR).quantize(200)))
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        tag = file.pages[0].tags[320]
    struct.pack_into("<I", content, tag.offset + 4, 3 * 16)
    with pytest.raises(ReadError):
        _read(bytes(content))


# Pyramids, masks, unlike pages ---------------------------------------------------------------------------------------


def _pages(*pages: tuple[np.ndarray, dict[str, object]], **options: object) -> bytes:
    content = io.BytesIO()
    with tifffile.TiffWriter(content, **options) as writer:
        for page, keys in pages:
            writer.write(page, **{"metadata": None, "contiguous": False, **keys})
    return content.getvalue()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("count", [1, 3])
def test_levels_in_subdirectories_are_left_out(order: str, count: int) -> None:
    stack = _noise(count, 128, 128)
    parts = []
    for plane in stack:
        parts += [(plane, {"subifds": 2, "tile": (32, 32)})]
        parts += [(plane[::step, ::step], {"subfiletype": 1, "tile": (32, 32)}) for step in (2, 4)]
    file, (planes,) = _read(_pages(*parts, bigtiff=True, byteorder=order))
    assert any("left out: 2 smaller levels" in note for note in file.series[0].notes)
    _assert_planes(planes, list(stack))


@pytest.mark.parametrize("marked", [False, True])
def test_levels_in_the_chain_of_pages_are_left_out(marked: bool) -> None:
    plane = _noise(128, 128)
    keys = [{"tile": (32, 32), "subfiletype": int(marked and step > 1)} for step in (1, 2, 4)]
    _, series = _read(_pages(*((plane[::step, ::step], key) for step, key in zip((1, 2, 4), keys, strict=True))))
    assert len(series) == 1
    _assert_planes(series[0], [plane])


def test_a_thumbnail_before_or_behind_each_page_is_left_out() -> None:
    stack = _noise(4, 64, 64)
    behind = [part for plane in stack for part in ((plane, {}), (plane[::3, ::3], {"subfiletype": 1}))]
    before = [part for plane in stack for part in ((plane[::3, ::3], {"subfiletype": 1}), (plane, {}))]
    for parts in (behind, before):
        _, series = _read(_pages(*parts))
        assert len(series) == 1
        _assert_planes(series[0], list(stack))


def test_a_reduced_copy_of_equal_size_is_left_out() -> None:
    _, series = _read(_pages((_GREY, {}), (_GREY // 2, {"subfiletype": 1})))
    assert len(series) == 1
    _assert_planes(series[0], [_GREY])


def test_a_transparency_mask_is_left_out() -> None:
    content = bytearray(_pages((_COLOUR, {"photometric": "rgb"}), (_GREY > 99, {"subfiletype": 1})))
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        struct.pack_into("<I", content, file.pages[1].tags[254].offset + 8, 4)
    _, series = _read(bytes(content))
    assert len(series) == 1
    _assert_planes(series[0], [_COLOUR[..., k] for k in range(3)])


def test_a_file_of_nothing_but_a_reduced_page_is_read() -> None:
    _, series = _read(_pages((_GREY, {"subfiletype": 1})))
    _assert_planes(series[0], [_GREY])


@pytest.mark.parametrize("count", [5, 12])
@pytest.mark.parametrize("odd", ["size", "dtype", "compression"])
def test_one_unlike_page_in_a_stack_is_never_decoded_as_the_others(count: int, odd: str) -> None:
    stack = [_noise(16, 20) for _ in range(count)]
    keys: dict[str, object] = {"compression": "zlib"} if odd == "compression" else {}
    stack[3] = {"size": stack[3][:8, :10], "dtype": stack[3].astype(np.uint8)}.get(odd, stack[3])
    content = _pages(*((plane, keys if number == 3 else {}) for number, plane in enumerate(stack)))
    _, (others, (single,)) = _read(content)
    _assert_planes(others, stack[:3] + stack[4:])
    np.testing.assert_array_equal(single, stack[3])


def test_a_slide_is_its_full_resolution_without_label_and_macro(shared_data: Path) -> None:
    with open_image(shared_data / "public/libvips_ometiff_svs/CMU-1-Small-Region.svs") as reader:
        (series,) = reader.file.series
        assert (series.height, series.width) == (2967, 2220)
        assert any("thumbnail" in note and "label" in note and "macro" in note for note in series.notes)


@pytest.mark.parametrize("name", ["tiff_strip_planar_raw_with_overviews.tif", "child_ifd.tiff"])
def test_real_overviews_are_left_out(shared_data: Path, name: str) -> None:
    path = shared_data / "public/pillow_tiff_variants" / name
    with open_image(path) as reader:
        (series,) = reader.file.series
        expected = tifffile.imread(path, key=0)
        expected = expected if expected.shape[0] == 3 else np.moveaxis(expected, -1, 0)
        _assert_planes(_all_planes(reader, series), list(expected))


# Microscopes' stacks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["<", ">"], ids=["II", "MM"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_imagej_stacks_in_both_byte_orders(order: str, dtype: str) -> None:
    stack = _noise(2, 3, 16, 20, dtype=dtype)
    file, (planes,) = _read(_written(stack, imagej=True, byteorder=order, metadata={"axes": "TZYX"}))
    assert dict(file.series[0].sizes) == {"T": 2, "Z": 3, "C": 1}
    _assert_planes(planes, list(stack.reshape(6, 16, 20)))


def _large_imagej_stack(stack: np.ndarray) -> bytes:
    """As ImageJ writes stacks above 4 GB: one directory, all planes one behind the other."""
    description = f"ImageJ=1.53\nimages={len(stack)}\nslices={len(stack)}\nloop=false\n"
    head = _written(stack[0], description=description, metadata=None, byteorder=">")
    return head + stack[1:].astype(stack.dtype.newbyteorder(">")).tobytes()


def test_an_imagej_stack_of_one_directory_has_all_its_planes() -> None:
    stack = _noise(4, 16, 20)
    file, (planes,) = _read(_large_imagej_stack(stack))
    assert file.series[0].sizes["Z"] == 4
    _assert_planes(planes, list(stack))


@pytest.mark.parametrize("lost", [1, 640, 1500])
def test_a_cut_imagej_stack_of_one_directory_is_an_error(lost: int) -> None:
    with pytest.raises(ReadError, match="4 ImageJ planes"):
        _read(_large_imagej_stack(_noise(4, 16, 20))[:-lost])


def test_a_plane_behind_the_first_four_gigabytes_is_found(tmp_path: Path) -> None:
    count, side = 1100, 1400
    path = tmp_path / "large.tif"
    with open(path, "wb") as file:
        description = f"ImageJ=1.53\nimages={count}\nframes={count}\nloop=false\n"
        file.write(_written(np.ones((side, side), "u2"), description=description, metadata=None, byteorder=">"))
        first = file.tell() - 2 * side * side
        file.truncate(first + 2 * side * side * count)  # sparse: it takes no room
        file.seek(first + 2 * side * side * (count - 1))
        file.write(np.full((side, side), 4660, ">u2").tobytes())
    with open_image(path) as reader:
        assert reader.file.size_bytes > 1 << 32
        assert (reader.read_plane(t=count - 1) == 4660).all()
        assert (reader.read_plane(t=1) == 0).all()
    path.unlink()


def test_a_micro_manager_stack_has_its_names_and_pixel_size() -> None:
    stack = _noise(2, 3, 16, 20)
    page = json.dumps({"PixelSizeUm": 0.65, "Summary": {"ChNames": ["DAPI", "GFP", "Cy5"]}}) + "\0"
    content = _written(
        stack, imagej=True, metadata={"axes": "ZCYX"}, extratags=[(51123, 2, len(page), page, True)], byteorder="<"
    )
    file, (planes,) = _read(content)
    series = file.series[0]
    assert (file.format, series.channel_names, series.pixel_size_um) == ("micromanager", ("DAPI", "GFP", "Cy5"), 0.65)
    _assert_planes(planes, list(stack.reshape(6, 16, 20)))


def test_metaxpress_files_state_illumination_and_objective(shared_data: Path) -> None:
    folder = shared_data / "public"
    path = min((folder / "faim_ImageXpress_ProjectionMix").rglob("*_s1_w1[0-9A-F]*.tif"))
    with open_image(path) as reader:
        series = reader.file.series[0]
    assert (reader.file.format, series.magnification) == ("metaseries", 20.0)
    assert series.channel_names[0]
    with open_image(min((folder / "cpex_ExampleUntangleWorms").glob("*_w1*.tif"))) as reader:
        series = reader.file.series[0]
    assert (reader.file.format, series.magnification, series.channel_names) == ("stk", 2.0, ("TRITC",))


# Old and odd kinds of colour -----------------------------------------------------------------------------------------


def test_old_style_jpeg_in_pieces_is_decoded_as_libtiff_does(shared_data: Path) -> None:
    path = shared_data / "public/libvips_ometiff_svs/ojpeg-tile.tif"
    expected = imagecodecs.tiff_decode(path.read_bytes())
    with open_image(path) as reader:
        assert reader.file.series[0].rgb
        _assert_planes(_all_planes(reader, reader.file.series[0]), [expected[..., k] for k in range(3)])


def _subsampled(content: bytes, side: int) -> bytes:
    tags = [(256, 4, 1, side), (257, 4, 1, side), (258, 3, 3, 300), (259, 3, 1, 1), (262, 3, 1, 6), (273, 4, 1, 400)]
    tags += [(277, 3, 1, 3), (278, 4, 1, side), (279, 4, 1, len(content)), (284, 3, 1, 1), (530, 3, 2, 2 | 2 << 16)]
    body = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + body + bytes(4)
    return (head.ljust(300, b"\0") + struct.pack("<3H", 8, 8, 8)).ljust(400, b"\0") + content


def test_subsampled_ycbcr_without_jpeg_is_decoded_as_libtiff_does() -> None:
    content = _subsampled(_noise(16 * 6, dtype="uint8").tobytes(), 8)
    expected = imagecodecs.tiff_decode(content, asrgb=True)
    file, (planes,) = _read(content)
    assert "YCbCr -> RGB" in file.series[0].steps
    _assert_planes(planes, [expected[..., k] for k in range(3)])
    with pytest.raises(ReadError, match="truncated"):
        _read(content[:-1])


def test_new_style_jpeg_equals_pillow(shared_data: Path) -> None:
    folder = shared_data / "public/pillow_tiff_variants"
    for name in ("hopper_jpg.tif", "pil168.tif", "tiff_tiled_ycbcr_jpeg_1x1_sampling.tif", "tiff_tiled_cmyk_jpeg.tif"):
        with open_image(folder / name) as reader, Image.open(folder / name) as picture:
            pixels = np.asarray(picture)
            _assert_planes(_all_planes(reader, reader.file.series[0]), [pixels[..., k] for k in range(pixels.shape[2])])


# Compressed strips that lie ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", ["jpeg", "jpeg2000", "png", "webp"])
def test_a_strip_that_states_more_pixels_than_its_page_is_refused(compression: str) -> None:
    small, large = _noise(16, 16, 3, dtype="uint8"), np.zeros((2000, 2000, 3), np.uint8)
    inner = _written(large, compression=compression, photometric="rgb", rowsperstrip=2000, metadata=None)
    outer = bytearray(_written(small, compression=compression, photometric="rgb", metadata=None))
    with tifffile.TiffFile(io.BytesIO(inner)) as file:
        page = file.pages[0]
        strip = inner[page.dataoffsets[0] : page.dataoffsets[0] + page.databytecounts[0]]
    with tifffile.TiffFile(io.BytesIO(outer)) as file:
        page = file.pages[0]
        places = page.tags[273].offset + 8, page.tags[279].offset + 8
        formats = tuple({3: "<HH", 4: "<I"}[int(page.tags[code].dtype)] for code in (273, 279))
    for place, form, value in zip(places, formats, (len(outer), len(strip)), strict=True):
        struct.pack_into(form, outer, place, *((value, 0) if form == "<HH" else (value,)))
    with pytest.raises(ReadError, match="2000 x 2000 pixels, too many"):
        _read(bytes(outer) + strip)
