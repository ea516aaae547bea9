"""HTML parts, pages and the gallery."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from chammi75.errors import ChammiError
from chammi75.pictures.gallery import GalleryItem, gallery_item, gallery_page
from chammi75.pictures.html import Html, element, escape, facts, figure, image, joined, table
from chammi75.pictures.page import page

HOSTILE = '<script>alert(\'x\')</script>" onload="y" & \x00\x1b\u202e\ud800'
VOID = {"meta", "img", "br", "link"}


class Outline(HTMLParser):
    """What a browser would see: elements, their attributes, text; and whether all are closed in order."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(document)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def item(title: str = "A01", section: str = "study", **facts_: str | None) -> GalleryItem:
    planes = np.random.default_rng(3).integers(0, 500, (3, 64, 48), dtype=np.uint16)
    return gallery_item(
        planes,
        ["nucleus", "er", None],
        title=title,
        section=section,
        subtitle=title,
        facts=facts_,
        captions=[title, None, None],
        pixel_size_um=0.5,
    )


@pytest.mark.parametrize(
    "made",
    [
        escape(HOSTILE),
        element("p", HOSTILE, title=HOSTILE),
        joined([HOSTILE, HOSTILE], HOSTILE),
        table([{HOSTILE: HOSTILE}], caption=HOSTILE),
        facts({HOSTILE: HOSTILE}),
        figure("data:image/png;base64,AA", HOSTILE, HOSTILE),
        Html(page(HOSTILE, [HOSTILE])),
    ],
)
def test_hostile_words_stay_words(made: Html) -> None:
    outline = Outline(made)
    assert not outline.named("script")
    assert not any("onload" in attributes for _, attributes in outline.elements)
    assert not outline.open
    assert "\x00" not in made and "\x1b" not in made and "\u202e" not in made
    made.encode("utf-8")


def test_a_gallery_of_hostile_words_has_no_script_and_loads_nothing() -> None:
    document = gallery_page(
        HOSTILE,
        {HOSTILE: HOSTILE},
        {HOSTILE: [item(HOSTILE, HOSTILE, **{HOSTILE: HOSTILE})], '"><b>': [item()]},
        [{HOSTILE: HOSTILE}],
        HOSTILE,
        lead=HOSTILE,
    )
    outline = Outline(document)
    tags = {tag for tag, _ in outline.elements}
    assert not tags & {"script", "b", "link", "iframe", "object", "form"}
    assert all(not name.startswith("on") for _, attributes in outline.elements for name in attributes)
    assert all(str(attributes["src"]).startswith("data:image/") for attributes in outline.named("img"))
    assert all(str(attributes["href"]).startswith("#") for attributes in outline.named("a"))
    assert "url(" not in document and "@import" not in document and "http:" not in document
    assert not re.search(r"https?://", document)
    document.encode("utf-8")


def test_what_is_markup_of_ours_is_not_escaped_again() -> None:
    assert element("p", element("b", "<")) == "<p><b>&lt;</b></p>"


def test_unknown_values_say_so() -> None:
    shown = table([{"a": None, "b": float("nan")}, {"a": 1}])
    assert shown.count(">unknown<") == 3
    assert 'class="unknown"' in facts({"organism": None})
    assert "unknown" in gallery_page("t", {"license": None}, {})


def test_numbers_stand_right_and_mixed_columns_left() -> None:
    outline = Outline(table([{"n": 1200, "x": "1", "f": True}, {"n": None, "x": 2, "f": False}]))
    assert [attributes.get("class") for attributes in outline.named("th")] == ["number", None, None]
    assert "1,200" in outline.text and "yes" in outline.text


def test_a_table_takes_the_columns_asked_for_in_their_order() -> None:
    outline = Outline(table([{"a": "x", "b": "y"}], columns=["b", "a", "c"]))
    assert outline.text == ["b", "a", "c", "y", "x", "unknown"]


@pytest.mark.parametrize("uri", ["https://example.org/a.png", "javascript:alert(1)", "data:text/html,x", ""])
def test_a_picture_from_elsewhere_is_refused(uri: str) -> None:
    with pytest.raises(ChammiError, match="refused"):
        image(uri, "alt")


def test_every_page_is_in_utf_8_forbids_requests_and_knows_the_dark() -> None:
    document = page("t", [])
    assert document.startswith("<!DOCTYPE html>") and '<meta charset="utf-8">' in document
    assert "default-src &#x27;none&#x27;" in document
    assert "prefers-color-scheme:dark" in document and "width=device-width" in document


def test_a_gallery_has_one_main_heading_sections_and_described_pictures() -> None:
    sections = {"Über & Co": [item("a", organism="Homo sapiens", plate=None)], "über co": [item("b"), item("c")]}
    outline = Outline(gallery_page("title", {"images": 2800000}, sections, [{"study": "x"}], "cite"))
    assert len(outline.named("h1")) == 1 and len(outline.named("h2")) == 2 and len(outline.named("h3")) == 3
    assert not outline.open
    pictures = outline.named("img")
    assert len(pictures) == 6 and all(attributes["alt"] for attributes in pictures)
    ids = [attributes["id"] for _, attributes in outline.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {str(attributes["href"])[1:] for attributes in outline.named("a")}
    assert targets <= set(ids)
    assert "2,800,000" in outline.text and "Homo sapiens" in outline.text and "unknown" in outline.text


def test_an_image_of_one_channel_is_shown_once() -> None:
    single = gallery_item(np.ones((1, 9, 9), np.uint8), ["nucleus"], title="x", section="s", captions=["DAPI"])
    outline = Outline(gallery_page("t", {}, {"s": [single]}))
    assert len(outline.named("img")) == 1 and "DAPI" in outline.text


def test_an_empty_gallery_and_an_image_without_pixels_are_pages() -> None:
    assert "No image is shown." in gallery_page("t", {}, {"s": []})
    nothing = gallery_item(np.zeros((2, 0, 0), np.uint8), ["nucleus", "er"], title="x", section="s")
    assert "no pixels" in gallery_page("t", {}, {"s": [nothing]})


def test_sixty_images_of_five_noisy_channels_stay_below_8_mb() -> None:
    rng = np.random.default_rng(5)
    smooth = np.repeat(np.repeat(rng.normal(400, 150, (5, 40, 40)), 15, axis=1), 15, axis=2)
    planes = (smooth + rng.normal(0, 40, smooth.shape)).clip(0).astype(np.uint16)
    one = gallery_item(planes, ["agp", "er", "mitochondria", "nucleus", "rna"], title="x", section="s")
    assert len(gallery_page("t", {}, {"s": [one]})) * 60 < 8e6
