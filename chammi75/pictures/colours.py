"""A colour for every type of channel.

Colours follow the habits of the field (nuclei blue, endoplasmic reticulum green, mitochondria magenta, actin orange,
transmitted light gray) in variants that stay apart for most colour-blind readers, after Okabe and Ito's palette (2008):
blue, bluish green, yellow, orange, vermilion and magenta differ in lightness too. A picture never rests on colour
alone: strips name each channel.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType

RGB = tuple[int, int, int]
"""Red, green and blue, 0 to 255 each."""

_BLUE: RGB = (64, 120, 255)
_GREEN: RGB = (38, 205, 100)
_MAGENTA: RGB = (255, 60, 190)
_ORANGE: RGB = (255, 150, 20)
_YELLOW: RGB = (244, 228, 66)
_CYAN: RGB = (0, 212, 235)
_VERMILION: RGB = (255, 78, 48)
_VIOLET: RGB = (190, 100, 255)
_LIME: RGB = (160, 240, 60)
_GRAY: RGB = (200, 200, 200)
_WHITE: RGB = (255, 255, 255)

COLOURS: MappingProxyType[str | None, RGB] = MappingProxyType(
    {
        "KTR": _GREEN,
        "agp": _ORANGE,
        "assorted": _GRAY,
        "b": (0, 0, 255),
        "bright-field": _WHITE,
        "cell body": _MAGENTA,
        "centrosomes": _YELLOW,
        "circadian rhythm": _YELLOW,
        "cytoskeleton": _ORANGE,
        "cytosol": _CYAN,
        "dark-field": _WHITE,
        "differential interference contrast (DIC)": _WHITE,
        "electron microscope": _WHITE,
        "er": _GREEN,
        "g": (0, 255, 0),
        "golgi": _CYAN,
        "membrane": _MAGENTA,
        "microtubules": _VERMILION,
        "mitochondria": _MAGENTA,
        "nucleus": _BLUE,
        "phase-contrast": _WHITE,
        "proliferation": _VERMILION,
        "protein": _LIME,
        "r": (255, 0, 0),
        "rna": _YELLOW,
        "sub-nuclear": _MAGENTA,
        None: _GRAY,
    }
)
"""The preferred colour of each channel type; a type that is not listed is drawn like None."""

TRANSMITTED_LIGHT = frozenset({"bright-field", "phase-contrast", "differential interference contrast (DIC)"})
"""Types whose background is bright: structure lies on both sides of it."""

TRUE_COLOUR = frozenset({"r", "g", "b"})
"""Types that are one of the three components of a colour camera."""

GRAY_BASE = TRANSMITTED_LIGHT | {"electron microscope"}
"""Types that are drawn as a gray base, which fluorescence may lie over."""

_ALTERNATIVES = (
    _GREEN,
    _MAGENTA,
    _CYAN,
    _YELLOW,
    _ORANGE,
    _VERMILION,
    _VIOLET,
    _LIME,
)  # no blue: it would look like nuclei
_NEAR = 45.0  # in CIE76 differences; red and orange, or green and lime, lie below it


def channel_colours(channel_types: Sequence[str | None]) -> list[RGB]:
    """One colour for each channel of one image.

    A channel gets the colour of its type. Where that would lie close to one already given in this image (two proteins,
    or the two kinds of filaments), the later channel takes the alternative that is farthest from all colours of the
    image.

    Parameters
    ----------
    channel_types : sequence of str or None
        The type of each channel, in order; None or a word that is not in `COLOURS` is drawn light gray.

    Returns
    -------
    list of (int, int, int)
        Red, green and blue for each channel, 0 to 255.

    Examples
    --------
    >>> channel_colours(["nucleus", "er"])
    [(64, 120, 255), (38, 205, 100)]
    >>> first, second = channel_colours(["protein", "protein"])
    >>> first == COLOURS["protein"], second == first
    (True, False)
    """
    colours: dict[int, RGB] = {}
    repeated: list[int] = []
    taken: list[RGB] = []
    seen: set[str | None] = set()
    for position, channel_type in enumerate(channel_types):
        preferred = COLOURS.get(channel_type, COLOURS[None])
        if channel_type in TRUE_COLOUR or channel_type in GRAY_BASE:  # their look is fixed by what they are
            colours[position] = preferred
        elif channel_type in seen or any(_difference(preferred, other) < _NEAR for other in taken):
            repeated.append(position)
        else:
            colours[position] = preferred
            taken.append(preferred)
        seen.add(channel_type)
    for position in repeated:  # after all others, so that a repeat never takes the colour that a type is known by
        colours[position] = _farthest(taken)
        taken.append(colours[position])
    return [colours[position] for position in range(len(channel_types))]


def _farthest(taken: Sequence[RGB]) -> RGB:
    """The alternative used least so far in ``taken`` whose nearest neighbour there is farthest away."""

    def merit(colour: RGB) -> tuple[int, float]:
        return -taken.count(colour), min((_difference(colour, other) for other in taken), default=0.0)

    return max(_ALTERNATIVES, key=merit)


def _difference(first: RGB, second: RGB) -> float:
    """The CIE76 colour difference: the distance in CIE L*a*b* (D65)."""
    return float(sum((a - b) ** 2 for a, b in zip(_lab(first), _lab(second), strict=True)) ** 0.5)


def _lab(colour: RGB) -> tuple[float, float, float]:
    """CIE L*a*b* of an sRGB colour (IEC 61966-2-1, white D65)."""
    red, green, blue = (
        value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
        for value in (component / 255 for component in colour)
    )
    x = (0.4124 * red + 0.3576 * green + 0.1805 * blue) / 0.9505
    y = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    z = (0.0193 * red + 0.1192 * green + 0.9505 * blue) / 1.089
    fx, fy, fz = (value ** (1 / 3) if value > 0.008856 else 7.787 * value + 16 / 116 for value in (x, y, z))
    return 116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)
