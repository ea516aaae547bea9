"""Parts of an HTML page.

Words in them come from strangers' files, so every function escapes what it is given, unless that is `Html` already:
text that this room wrote. There is no other way to make markup here.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Mapping, Sequence

from chammi75.errors import ChammiError

UNKNOWN = "unknown"
"""What stands where a fact is in no source."""

# What HTML 5 does not allow in text: controls other than tab and line ends, lone surrogates, non-characters.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
# These turn the reading direction of what follows, so that a name could rewrite the text around it.
_DIRECTION = re.compile("[\u202a-\u202e\u2066-\u2069]")


class Html(str):
    """Markup that is safe to put into a page: escaped text, or built of such.

    Examples
    --------
    >>> escape(Html("<b>bold</b>"))
    '<b>bold</b>'
    """

    __slots__ = ()

    def __html__(self) -> str:
        """Itself, for notebooks and template engines."""
        return str(self)


def escape(value: object) -> Html:
    """``value`` as text of a page, also within an attribute in quotes; None and NaN read "unknown".

    Examples
    --------
    >>> escape('<script>alert("hi")</script>')
    '&lt;script&gt;alert(&quot;hi&quot;)&lt;/script&gt;'
    >>> escape(None), escape("it's"), escape(0.65)
    ('unknown', 'it&#x27;s', '0.65')
    """
    if isinstance(value, Html):
        return value
    return Html(html.escape(_DIRECTION.sub("", _FORBIDDEN.sub("\ufffd", _text(value))), quote=True))


def element(tag: str, *children: object, **attributes: object) -> Html:
    """One element; children and attribute values are escaped, attributes that are None left out.

    A trailing underscore of an attribute's name is dropped and others become hyphens: ``class_``, ``aria_label``.

    Examples
    --------
    >>> element("p", "a < b", class_="note", title=None)
    '<p class="note">a &lt; b</p>'
    """
    words = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for name, value in attributes.items()
        if value is not None
    )
    return Html(f"<{tag}{words}>{joined(children)}</{tag}>")


def joined(parts: Iterable[object], separator: str = "") -> Html:
    """``parts``, each escaped, one after the other.

    Examples
    --------
    >>> joined(["a", Html("<br>"), "b & c"])
    'a<br>b &amp; c'
    """
    return Html(escape(separator).join(escape(part) for part in parts))


def image(
    uri: str, alt: str, *, width: int | None = None, height: int | None = None, class_: str | None = None
) -> Html:
    """A picture that is part of the page.

    Parameters
    ----------
    uri : str
        A ``data:image/`` URI: a page of ours asks for nothing over the network.
    alt : str
        What the picture shows, for those who do not see it.
    width, height : int, optional
        Its size in pixels, so that nothing moves while the page loads.
    class_ : str, optional
        Its CSS class.

    Raises
    ------
    ChammiError
        If ``uri`` is anything else.
    """
    if not uri.startswith("data:image/"):
        raise ChammiError(f"a picture from {uri[:80]!r} is refused: a page carries its pictures as data:image/ URIs")
    sizes = "".join(f' {name}="{int(value)}"' for name, value in (("width", width), ("height", height)) if value)
    style = "" if class_ is None else f' class="{escape(class_)}"'
    return Html(f'<img src="{escape(uri)}" alt="{escape(alt)}"{sizes}{style} loading="lazy" decoding="async">')


def figure(uri: str, alt: str, caption: object = None, *, width: int | None = None, height: int | None = None) -> Html:
    """A picture with an optional caption under it; parameters as `image`.

    Examples
    --------
    >>> figure("data:image/png;base64,AAAA", "nuclei", "Well <A01>")[-50:]
    '<figcaption>Well &lt;A01&gt;</figcaption></figure>'
    """
    under = Html("") if caption is None else element("figcaption", caption)
    return element("figure", image(uri, alt, width=width, height=height), under)


def table(rows: Sequence[Mapping[str, object]], columns: Sequence[str] | None = None, caption: object = None) -> Html:
    """``rows`` as a table that scrolls sideways where it is wide; numbers stand right, unknown values are muted.

    Parameters
    ----------
    rows : sequence of mapping
        From column to value; a column that a row lacks is unknown.
    columns : sequence of str, optional
        Which, and their order; those of the rows in order of appearance if left out.
    caption : object, optional
        What the table is.

    Examples
    --------
    >>> table([{"study": "a<b", "images": 12}]).count("&lt;")
    1
    """
    names = list(dict.fromkeys(name for row in rows for name in row)) if columns is None else list(columns)
    numeric = {name for name in names if _is_numeric([row.get(name) for row in rows])}
    head = joined(element("th", name, scope="col", class_="number" if name in numeric else None) for name in names)
    body = joined(element("tr", joined(_cell(row.get(name), name in numeric) for name in names)) for row in rows)
    title = Html("") if caption is None else element("caption", caption)
    content = element("table", title, element("thead", element("tr", head)), element("tbody", body))
    label = "Table" if caption is None else str(caption)
    return element("div", content, class_="table", role="region", tabindex="0", aria_label=label)


def facts(values: Mapping[str, object]) -> Html:
    """Labels and what is known of each, as a description list.

    Examples
    --------
    >>> facts({"organism": None})
    '<dl class="facts"><div><dt>organism</dt><dd class="unknown">unknown</dd></div></dl>'
    """
    entries = joined(
        element("div", element("dt", label), element("dd", value, class_=_class(value, number=False)))
        for label, value in values.items()
    )
    return element("dl", entries, class_="facts")


def _cell(value: object, number: bool) -> Html:
    return element("td", value, class_=_class(value, number))


def _class(value: object, number: bool) -> str | None:
    names = [name for name, holds in (("number", number), (UNKNOWN, _text(value) == UNKNOWN)) if holds]
    return " ".join(names) or None


def _is_numeric(values: Sequence[object]) -> bool:
    known = [value for value in values if value is not None]
    return bool(known) and all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in known)


def _text(value: object) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return UNKNOWN
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (list, tuple, set, frozenset)):
        items = sorted(value, key=str) if isinstance(value, (set, frozenset)) else value
        return ", ".join(_text(item) for item in items) or UNKNOWN
    return str(value)
