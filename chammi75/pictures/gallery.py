"""A page to look at a dataset: what is in it, and pictures of it, study by study."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from chammi75.pictures.composite import Planes, blended, scaled_planes
from chammi75.pictures.html import Html, element, facts, image, joined, table
from chammi75.pictures.jpeg import jpeg_data_uri
from chammi75.pictures.page import page
from chammi75.pictures.scale_bar import with_scale_bar
from chammi75.pictures.strip import channel_strip

_COMPOSITE_SIDE = 480  # shown at up to 390 CSS pixels: sharp, and with quality 85 about 40 kB
_STRIP_WIDTH = 480
_QUALITIES = (85, 75, 65, 55, 45)  # the first that fits
_PICTURE_BYTES = 48_000  # two pictures for each image, four characters for three bytes: sixty images in 7.7 MB

_STYLE = """
.hero{background:linear-gradient(160deg,#101522,#1a2340 60%,#1c3350);color:#eef2fa;
padding:52px 0 40px;margin-bottom:36px}
.hero .lead{color:#b9c4da;max-width:52rem;font-size:1.05rem}
.numbers{display:flex;flex-wrap:wrap;gap:14px 40px;margin-top:26px}
.numbers div{min-width:7rem}.numbers dt{color:#9fb0cd;font-size:.8rem}
.numbers dd{font-size:1.35rem;font-weight:640;letter-spacing:-.01em;font-variant-numeric:tabular-nums;line-height:1.3}
.numbers dd.unknown{color:#9fb0cd}
.contents{display:flex;flex-wrap:wrap;gap:8px;list-style:none;margin:18px 0 0;padding:0}
.contents a{display:inline-block;padding:5px 13px;border-radius:99px;background:var(--card);box-shadow:var(--shadow);
text-decoration:none;font-size:.875rem}
.contents a:hover{text-decoration:underline}.contents span{color:var(--soft);margin-left:.5em}
section{margin-top:48px;scroll-margin-top:16px}
.section{display:flex;align-items:baseline;justify-content:space-between;gap:16px;border-bottom:1px solid var(--faint);
padding-bottom:10px;margin-bottom:18px}
.section p{margin:0;color:var(--soft);font-size:.875rem;white-space:nowrap}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,330px),1fr));gap:22px;align-items:start}
.card{background:var(--card);border-radius:14px;overflow:hidden;box-shadow:var(--shadow)}
.card .view{background:#0d0f14;position:relative;aspect-ratio:1}
.card .view img{position:absolute;inset:0;width:100%;height:100%;object-fit:contain}
.card .strip img{width:100%}
.card .legend{background:#0d0f14;color:#eceff4;margin:0;padding:8px 16px;font-size:.82rem}
.card .text{padding:14px 16px 16px}
.card .sub{color:var(--soft);font-size:.875rem;margin:2px 0 0}
.card .facts{margin-top:10px;padding-top:10px;border-top:1px solid var(--faint);font-size:.82rem}
@media(min-width:760px){.card:only-child{grid-column:1/-1;display:grid;
grid-template-columns:minmax(0,382px) minmax(0,1fr);grid-template-rows:auto 1fr}
.card:only-child .view{grid-row:1/span 2;aspect-ratio:auto;min-height:382px}.card:only-child .strip{background:#0d0f14}
.card:only-child .strip img{width:auto}.card:only-child .text{padding:16px 24px}}
.empty{color:var(--soft)}
"""


@dataclass(frozen=True)
class GalleryItem:
    """One image of a gallery.

    Attributes
    ----------
    title, subtitle : str
        What it is; the subtitle may be empty.
    facts : mapping of str to str or None
        Label to text: organism, cell line, plate, magnification, license …; None where it is unknown.
    strip : numpy.ndarray, shape (h, w, 3), uint8
        Its channels, as `chammi75.pictures.strip.channel_strip` draws them; empty where the one channel is the picture.
    composite : numpy.ndarray, shape (H, W, 3), uint8
        All channels together, with a scale bar where the pixel size is known.
    section : str
        The study it belongs to.
    channels : tuple of str
        The names of the channels, for those who cannot see the strip.
    """

    title: str
    subtitle: str
    facts: Mapping[str, str | None]
    strip: npt.NDArray[np.uint8]
    composite: npt.NDArray[np.uint8]
    section: str
    channels: tuple[str, ...] = field(default=())


def gallery_item(
    planes: Planes,
    channel_types: Sequence[str | None],
    *,
    title: str,
    section: str,
    subtitle: str = "",
    facts: Mapping[str, str | None] = MappingProxyType({}),
    captions: Sequence[str | None] | None = None,
    pixel_size_um: float | None = None,
    significant_bits: int | None = None,
) -> GalleryItem:
    """An image drawn in the sizes that the page shows.

    Parameters
    ----------
    planes, channel_types, captions, pixel_size_um, significant_bits
        As `chammi75.pictures.strip.channel_strip` takes them.
    title, section, subtitle, facts
        As in `GalleryItem`.

    Raises
    ------
    ChammiError
        As `channel_strip`.

    Examples
    --------
    >>> item = gallery_item(np.zeros((1, 8, 8), np.uint8), ["nucleus"], title="A01", section="a study")
    >>> item.composite.shape, item.channels
    ((480, 480, 3), ('nucleus',))
    """
    shape = next((plane.shape for plane in planes if plane is not None), (0, 0))
    units = scaled_planes(planes, channel_types, significant_bits=significant_bits, longest=_COMPOSITE_SIDE)
    shown_pixel_um = None if pixel_size_um is None or not all(shape) else pixel_size_um * max(shape) / _COMPOSITE_SIDE
    columns = _columns(len(channel_types))
    strip = (
        np.zeros((0, 0, 3), np.uint8)
        if len(channel_types) == 1
        else channel_strip(
            planes,
            channel_types,
            captions=captions,
            thumb=_thumb(columns, *shape),
            columns=columns,
            with_composite=False,
            font_size=17,
            significant_bits=significant_bits,
        )
    )
    names = [None] * len(channel_types) if captions is None else list(captions)
    return GalleryItem(
        title=title,
        subtitle=subtitle,
        facts=facts,
        strip=strip,
        composite=with_scale_bar(blended(units, channel_types), shown_pixel_um),
        section=section,
        channels=tuple(name or kind or "unknown" for name, kind in zip(names, channel_types, strict=True)),
    )


def gallery_page(
    title: str,
    intro_facts: Mapping[str, object],
    items_by_section: Mapping[str, Sequence[GalleryItem]],
    summary_table: Sequence[Mapping[str, object]] = (),
    footer: str = "",
    *,
    lead: str = "",
) -> str:
    """A self-contained page: the dataset's facts, a table of its contents, and a section of pictures for each study.

    Parameters
    ----------
    title : str
        The dataset's name.
    intro_facts : mapping of str to object
        What to know of the whole: number of images, of studies, licenses …; None where unknown.
    items_by_section : mapping of str to sequence of GalleryItem
        Sections in order, usually one for each study.
    summary_table : sequence of mapping
        Rows of the table of contents, for example study x organism x channels.
    footer : str
        How the page was made and how to cite.
    lead : str
        A sentence under the title.

    Returns
    -------
    str
        HTML 5, to be written as UTF-8. Pictures are JPEG at quality 85, less where noise would make one larger
        than 48 kB: at most about 0.13 MB for each image, 8 MB for sixty.

    Examples
    --------
    >>> "<h1>mini</h1>" in gallery_page("mini", {"images": 0}, {})
    True
    """
    anchors = _anchors(list(items_by_section))
    numbers = element(
        "dl",
        joined(
            element("div", element("dt", label), element("dd", value, class_="unknown" if value is None else None))
            for label, value in intro_facts.items()
        ),
        class_="numbers",
    )
    hero = element(
        "header",
        element(
            "div", element("h1", title), element("p", lead, class_="lead") if lead else Html(""), numbers, class_="wrap"
        ),
        class_="hero",
    )
    contents = element(
        "ul",
        joined(
            element("li", element("a", name, element("span", len(items)), href=f"#{anchors[name]}"))
            for name, items in items_by_section.items()
        ),
        class_="contents",
    )
    parts: list[object] = []
    if summary_table:
        parts.append(table(summary_table, caption="What is in it"))
    if len(items_by_section) > 1:
        parts.append(element("nav", contents, aria_label="Sections"))
    for name, items in items_by_section.items():
        parts.append(_section(name, anchors[name], items))
    if not any(items_by_section.values()):
        parts.append(element("p", "No image is shown.", class_="empty"))
    end = element("footer", footer) if footer else Html("")
    skip = element("a", "Skip to the images", href="#images", class_="skip")
    body = element("div", element("main", joined(parts, "\n"), id="images"), end, class_="wrap")
    return page(title, [skip, hero, body], style=_STYLE)


def _section(name: str, anchor: str, items: Sequence[GalleryItem]) -> Html:
    count = "1 image" if len(items) == 1 else f"{len(items):,} images"
    heading = element("div", element("h2", name, id=anchor), element("p", count), class_="section")
    cards = element("div", joined((_card(item) for item in items), "\n"), class_="grid")
    return element("section", heading, cards, aria_labelledby=anchor)


def _card(item: GalleryItem) -> Html:
    channels = ", ".join(item.channels)
    together = f"{item.title}: all channels together" + (f" ({channels})" if channels else "")
    alone = f"{item.title}: each channel alone" + (f" ({channels})" if channels else "")
    text = element(
        "div",
        element("h3", item.title),
        element("p", item.subtitle, class_="sub") if item.subtitle else Html(""),
        facts(item.facts) if item.facts else Html(""),
        class_="text",
    )
    return element(
        "article",
        element("div", _picture(item.composite, together), class_="view"),
        element("div", _picture(item.strip, alone), class_="strip") if item.strip.size else _legend(item.channels),
        text,
        class_="card",
    )


def _legend(channels: Sequence[str]) -> Html:
    return element("p", ", ".join(channels), class_="legend") if channels else Html("")


def _picture(rgb: npt.NDArray[np.uint8], alt: str) -> Html:
    if rgb.size == 0:
        return element("p", "no pixels", class_="empty")
    uris = (jpeg_data_uri(rgb, quality) for quality in _QUALITIES)
    uri = next((uri for uri in uris if len(uri) * 3 // 4 <= _PICTURE_BYTES), None) or jpeg_data_uri(rgb, _QUALITIES[-1])
    return image(uri, alt, width=rgb.shape[1], height=rgb.shape[0])


def _anchors(names: Sequence[str]) -> dict[str, str]:
    """An id for each section: readable where it can be, unlike any other on the page."""
    return {
        name: f"s{number}-{re.sub('[^a-z0-9]+', '-', name.lower()).strip('-')[:40]}".rstrip("-")
        for number, name in enumerate(names, start=1)
    }


def _columns(channels: int) -> int:
    """Tiles in a row of a card's strip: few enough that their names can be read."""
    return channels if channels <= 3 else 2 if channels == 4 else 3


def _thumb(columns: int, height: int, width: int) -> int:
    """The longer side of a tile such that ``columns`` of them fill a card."""
    across = (_STRIP_WIDTH - 6 * (columns + 1)) // columns
    return max(1, round(across * max(height, width) / width)) if width else across
