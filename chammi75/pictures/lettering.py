"""Words on pictures."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

from chammi75.pictures.colours import RGB

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont, ImageFont

_PLAIN = {
    "–": "-",
    "—": "-",
    "−": "-",
    "‐": "-",
    "‑": "-",
    "×": "x",
    "‘": "'",
    "’": "'",
    "“": '"',
    "”": '"',
    "·": "-",
    "ß": "ss",
}


def font(size: int) -> FreeTypeFont | ImageFont:
    """Pillow's own typeface at ``size`` pixels: the same on every machine.

    It has the letters of ASCII and few more.
    """
    from PIL import ImageFont

    return ImageFont.load_default(size)


def one_line(text: str) -> str:
    """``text`` on one line, in letters that the typeface has.

    Control and format characters go, accents too, Greek letters become their names; what is left unknown becomes a
    question mark.

    Examples
    --------
    >>> one_line(" DAPI\\n 405 nm\\x1b[31m")
    'DAPI 405 nm[31m'
    >>> one_line("α-tubulin, Zürich – 20 µm")
    'alpha-tubulin, Zurich - 20 µm'
    """
    spaced = " ".join(text.split()).replace("\N{GREEK SMALL LETTER MU}m", "µm")
    return "".join(_drawable(character) for character in spaced)


def _drawable(character: str) -> str:
    if " " <= character <= "~" or character in "µ…°":
        return character
    if character in _PLAIN:
        return _PLAIN[character]
    if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Mn"):
        return ""
    name = unicodedata.name(character, "")
    if name.startswith("GREEK") and " LETTER " in name:
        letter = name.partition(" LETTER ")[2].split()[0].lower()
        return letter.capitalize() if "CAPITAL" in name else letter
    plain = "".join(part for part in unicodedata.normalize("NFKD", character) if " " <= part <= "~")
    return plain or "?"


def draw_line(
    draw: ImageDraw,
    position: tuple[float, float],
    text: str,
    size: int,
    fill: RGB,
    *,
    middle: bool = False,
    outline: RGB | None = None,
) -> None:
    """Write ``text`` with its baseline at ``position``, which is its left end or, on request, its middle.

    The micro sign, which Pillow's typeface lacks, is drawn as what it is: a u with a long left stem.
    """
    face = font(size)
    letters = text.replace("µ", "u")
    left = position[0] - (face.getlength(letters) / 2 if middle else 0)
    left, baseline = round(left), round(position[1])
    stroke = max(1, size // 9) if outline is not None else 0
    stem = max(1, round(size / 11))
    stems = []
    for place in (index for index, letter in enumerate(text) if letter == "µ"):
        edge = round(left + face.getlength(letters[:place]) + face.getbbox("u", anchor="ls")[0])
        stems.append((edge, baseline - stem, edge + stem - 1, baseline + max(2, round(size * 0.2))))
    for x0, y0, x1, y1 in stems:
        if outline is not None:
            draw.rectangle((x0 - stroke, y0, x1 + stroke, y1 + stroke), fill=outline)
    draw.text((left, baseline), letters, font=face, fill=fill, anchor="ls", stroke_width=stroke, stroke_fill=outline)
    for stem_box in stems:
        draw.rectangle(stem_box, fill=fill)


def shortened(text: str, width: int, size: int) -> str:
    """``text`` on one line, cut with an ellipsis where it is wider than ``width`` pixels at ``size``.

    Examples
    --------
    >>> shortened("DAPI", 200, 12)
    'DAPI'
    >>> shortened("a very long name of a channel", 60, 12).endswith("…")
    True
    """
    line = one_line(text)[:500]  # longer ones cannot fit, and measuring costs time
    face = font(size)
    if face.getlength(line.replace("µ", "u")) <= width:
        return line
    kept = len(line)
    while kept > 0 and face.getlength(line[:kept].rstrip().replace("µ", "u") + "…") > width:
        kept -= 1
    return line[:kept].rstrip() + "…" if kept else ""
