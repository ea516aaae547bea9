"""Strips, scale bars, montages and files of pictures."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from chammi75.errors import ChammiError
from chammi75.pictures.colours import COLOURS
from chammi75.pictures.jpeg import jpeg_bytes, jpeg_data_uri
from chammi75.pictures.lettering import one_line, shortened
from chammi75.pictures.montage import montage
from chammi75.pictures.png import data_uri, png_bytes
from chammi75.pictures.scale_bar import round_length_um, with_scale_bar
from chammi75.pictures.strip import BACKGROUND, channel_strip

WHITE = np.array([255, 255, 255])


def image(channels: int = 2, height: int = 40, width: int = 40) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 1000, (channels, height, width), dtype=np.uint16)


def test_a_strip_holds_the_composite_and_then_each_channel_in_its_colour() -> None:
    planes = np.zeros((2, 40, 40), np.uint8)
    planes[0, :20], planes[1, 20:] = 255, 255
    strip = channel_strip(planes, ["nucleus", "er"], thumb=40, limits=[(0, 255)] * 2)
    tiles = [strip[6:46, left : left + 40] for left in (6, 52, 98)]
    assert tiles[0][0, 0].tolist() == list(COLOURS["nucleus"]) and tiles[0][39, 0].tolist() == list(COLOURS["er"])
    assert (tiles[1][:20] == COLOURS["nucleus"]).all() and (tiles[1][20:] == 0).all()
    assert (tiles[2][20:] == COLOURS["er"]).all() and (tiles[2][:20] == 0).all()
    assert (strip[:6] == BACKGROUND).all()
    assert (strip[46:] != BACKGROUND).any(), "captions stand under the tiles"


def test_captions_change_the_words_and_nothing_else() -> None:
    planes = image()
    plain = channel_strip(planes, ["nucleus", "er"], captions=[None, None])
    named = channel_strip(planes, ["nucleus", "er"], captions=["DAPI", "ConA"])
    np.testing.assert_array_equal(plain[:166], named[:166])
    assert plain.shape == named.shape
    assert (plain[166:] != named[166:]).any()


def test_tiles_keep_the_aspect_of_the_image_and_wrap_into_rows() -> None:
    strip = channel_strip(image(27, 20, 40), [None] * 27, thumb=80, columns=7)
    assert strip.shape[1] == 7 * 86 + 6
    one_row = channel_strip(image(6, 20, 40), [None] * 6, thumb=80, columns=7)
    assert strip.shape[0] - 6 == 4 * (one_row.shape[0] - 6)


def test_an_image_of_one_channel_is_drawn_once_with_its_scale_bar() -> None:
    strip = channel_strip(np.zeros((1, 200, 200), np.uint16), ["nucleus"], thumb=200, pixel_size_um=0.5)
    assert strip.shape[1] == 212
    assert bar_length(strip[6:206]) == 40


def test_a_missing_plane_is_a_hatched_tile_and_not_a_dark_one() -> None:
    strip = channel_strip([image(1)[0], None], ["nucleus", "er"], thumb=60)
    tile = strip[6:66, 138:198]
    assert len(np.unique(tile.reshape(-1, 3), axis=0)) >= 2
    assert tile.min() >= 34


def test_large_planes_are_averaged_into_tiles() -> None:
    board = (np.indices((256, 256)).sum(axis=0) % 2 * 255).astype(np.uint8)
    strip = channel_strip([board], ["electron microscope"], thumb=32, limits=[(0, 255)])
    assert (strip[6:38, 6:38] == 128).all()


@pytest.mark.parametrize("shape", [(0, 0), (0, 9), (9, 0), (1, 1), (1, 2000)])
def test_strips_of_strange_shapes_can_be_drawn(shape: tuple[int, int]) -> None:
    strip = channel_strip(np.zeros((2, *shape), np.uint16), ["nucleus", None], captions=["a", "b"], pixel_size_um=0.5)
    assert strip.ndim == 3 and strip.dtype == np.uint8


@pytest.mark.parametrize(
    "caption", ["", " ", "\0\x1b[31m\n", "x" * 5000, "α-tubulin", "ядро", "細胞核", "\ud800", "\u202eabc", "😀"]
)
def test_any_caption_can_be_drawn(caption: str) -> None:
    strip = channel_strip(image(1), ["nucleus"], captions=[caption])
    assert strip.shape[1] == 166 + 6


def test_wrong_numbers_are_refused() -> None:
    with pytest.raises(ChammiError, match="1 captions for 2 channels"):
        channel_strip(image(), ["nucleus", "er"], captions=["a"])
    with pytest.raises(ChammiError, match="thumb"):
        channel_strip(image(), ["nucleus", "er"], thumb=0)


def test_words_are_cut_to_their_width() -> None:
    assert shortened("α\n b", 500, 13) == "alpha b"
    cut = shortened("a long name " * 20, 90, 13)
    assert cut.endswith("…") and len(cut) < 30
    assert shortened("abc", 1, 13) == ""


def test_greek_letters_become_their_names_and_accents_go() -> None:
    assert one_line("β-Actin Δ é 5 µm") == "beta-Actin Delta e 5 µm"


def bar_length(picture: np.ndarray) -> int:
    """The longest run of pure white in any row."""
    best = 0
    for row in (picture == 255).all(axis=-1):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], row.astype(np.int8), [0]])))
        best = max(best, max((edges[1::2] - edges[::2]).tolist(), default=0))
    return best


@pytest.mark.parametrize(
    ("width", "pixel_um", "length_px"), [(400, 0.25, 80), (400, 0.65, 77), (1000, 0.1, 200), (300, 13.0, 77)]
)
def test_the_bar_is_as_long_as_its_label_says(width: int, pixel_um: float, length_px: int) -> None:
    picture = with_scale_bar(np.zeros((300, width, 3), np.uint8), pixel_um)
    assert round_length_um(width * pixel_um) == pytest.approx(length_px * pixel_um, rel=0.01)
    assert bar_length(picture) == length_px


def test_the_length_is_round_and_about_a_fifth_of_the_width() -> None:
    for width_um in np.geomspace(0.01, 1e6, 300):
        length = round_length_um(float(width_um))
        assert 0.1 < length / width_um < 0.4
        assert float(f"{length:.0e}") == length and f"{length:.0e}"[0] in "125"


def test_the_bar_is_visible_on_white_and_on_black() -> None:
    for shade in (0, 255):
        before = np.full((200, 200, 3), shade, np.uint8)
        after = with_scale_bar(before, 0.5)
        assert (before == shade).all(), "the picture given is left as it was"
        assert (after == 255).all(axis=-1).any() and (after == 0).all(axis=-1).any()


def test_without_a_pixel_size_or_on_a_tiny_picture_nothing_is_drawn() -> None:
    picture = np.zeros((200, 200, 3), np.uint8)
    assert with_scale_bar(picture, None) is picture
    assert not with_scale_bar(np.zeros((20, 300, 3), np.uint8), 0.5).any()


@pytest.mark.parametrize("size", [0.0, -1.0, float("nan"), float("inf")])
def test_an_impossible_pixel_size_is_refused(size: float) -> None:
    with pytest.raises(ChammiError, match="pixel size"):
        with_scale_bar(np.zeros((200, 200, 3), np.uint8), size)


def test_the_scale_bar_of_a_strip_follows_the_reduction() -> None:
    planes = np.zeros((1, 800, 800), np.uint16)  # 400 um wide: a bar of 100 um is a quarter of the tile
    strip = channel_strip(planes, ["nucleus"], thumb=200, pixel_size_um=0.5)
    assert bar_length(strip[6:206, 6:206]) == 50


def test_a_montage_places_pictures_in_order() -> None:
    pictures = [np.full((2, 3, 3), value, np.uint8) for value in (10, 20, 30)]
    sheet = montage(pictures, columns=2, gap=1, background=(0, 0, 0))
    assert sheet[..., 0].tolist() == [
        [10, 10, 10, 0, 20, 20, 20],
        [10, 10, 10, 0, 20, 20, 20],
        [0, 0, 0, 0, 0, 0, 0],
        [30, 30, 30, 0, 0, 0, 0],
        [30, 30, 30, 0, 0, 0, 0],
    ]


def test_a_montage_centres_smaller_pictures() -> None:
    sheet = montage([np.full((3, 3, 3), 9, np.uint8), np.full((1, 1, 3), 7, np.uint8)], columns=2, gap=0)
    assert sheet[1, 4].tolist() == [7, 7, 7] and sheet[0, 4].tolist() == [255, 255, 255]


def test_a_montage_of_nothing_is_empty_and_of_no_picture_refused() -> None:
    assert montage([]).shape == (0, 0, 3)
    with pytest.raises(ChammiError, match="no picture"):
        montage([np.zeros((2, 2), np.uint8)])
    with pytest.raises(ChammiError, match="columns"):
        montage([np.zeros((2, 2, 3), np.uint8)], columns=0)


@pytest.mark.parametrize("shape", [(5, 7, 3), (5, 7)])
def test_png_keeps_every_pixel(shape: tuple[int, ...]) -> None:
    picture = np.random.default_rng(2).integers(0, 256, shape, dtype=np.uint8)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png_bytes(picture)))), picture)
    head, _, body = data_uri(picture).partition(",")
    assert head == "data:image/png;base64" and base64.b64decode(body) == png_bytes(picture)


def test_jpeg_keeps_saturated_colours_sharp() -> None:
    picture = np.zeros((16, 16, 3), np.uint8)
    picture[:, ::2, 0], picture[:, 1::2, 2] = 255, 255  # red and blue columns: 4:2:0 would mix them to purple
    shown = np.asarray(Image.open(io.BytesIO(jpeg_bytes(picture, 95)))).astype(int)
    assert shown[8, 8, 0] > 200 and shown[8, 8, 2] < 60
    assert jpeg_data_uri(picture).startswith("data:image/jpeg;base64,")


@pytest.mark.parametrize("bad", [np.zeros((0, 4, 3), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3))])
def test_what_is_no_picture_is_not_written(bad: np.ndarray) -> None:
    with pytest.raises(ChammiError, match="cannot be written"):
        png_bytes(bad)
