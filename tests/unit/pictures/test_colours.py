"""A colour for each channel."""

from __future__ import annotations

import itertools
import subprocess
import sys

import pytest

from chammi75.pictures.colours import COLOURS, GRAY_BASE, TRUE_COLOUR, channel_colours

NAMES = [
    "agp",
    "assorted",
    "b",
    "bright-field",
    "cell body",
    "centrosomes",
    "circadian rhythm",
    "cytoskeleton",
    "cytosol",
    "dark-field",
    "differential interference contrast (DIC)",
    "electron microscope",
    "er",
    "g",
    "golgi",
    "KTR",
    "membrane",
    "microtubules",
    "mitochondria",
    "nucleus",
    "phase-contrast",
    "proliferation",
    "protein",
    "r",
    "rna",
    "sub-nuclear",
]

CONFIGURATIONS = [
    "er,microtubules,nucleus,protein",
    "sub-nuclear,sub-nuclear",
    "cell body,cytosol,protein",
    "protein,protein",
    "cytoskeleton,cytoskeleton,microtubules,nucleus",
    "cell body,microtubules,nucleus,proliferation",
    "er,golgi,mitochondria,nucleus,rna",
    "assorted,bright-field,membrane,nucleus,proliferation",
    "centrosomes,cytoskeleton,microtubules,nucleus",
    "assorted,circadian rhythm,nucleus",
    "assorted,nucleus,proliferation,protein,rna",
    "bright-field,cytoskeleton,nucleus,protein,protein",
    "nucleus,sub-nuclear,sub-nuclear,sub-nuclear,sub-nuclear,sub-nuclear,sub-nuclear",
    "agp,er,mitochondria,nucleus,rna",
    "bright-field,nucleus,nucleus",
    "cytoskeleton,er,golgi,mitochondria,nucleus,rna",
    "cytoskeleton,golgi,membrane,nucleus,rna",
    "bright-field,cell body,nucleus,protein",
]


def distance(first: tuple[int, int, int], second: tuple[int, int, int]) -> float:
    """The red-mean distance, another measure than the module's own."""
    mean = (first[0] + second[0]) / 2
    red, green, blue = (a - b for a, b in zip(first, second, strict=True))
    return float(((2 + mean / 256) * red**2 + 4 * green**2 + (2 + (255 - mean) / 256) * blue**2) ** 0.5)


def test_every_channel_type_of_the_dataset_has_a_colour() -> None:
    assert set(COLOURS) == {*NAMES, None}


def test_habits_are_kept() -> None:
    red, green, blue = COLOURS["nucleus"]
    assert blue > max(red, green)
    red, green, blue = COLOURS["er"]
    assert green > max(red, blue)
    red, green, blue = COLOURS["mitochondria"]
    assert red > max(green, blue)
    red, green, blue = COLOURS["agp"]
    assert red > green > blue
    assert all(len(set(COLOURS[name])) == 1 for name in GRAY_BASE)


def test_a_single_channel_has_the_colour_of_its_type() -> None:
    for name in [*NAMES, None]:
        assert channel_colours([name]) == [COLOURS[name]]


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_the_channels_of_one_image_can_be_told_apart(configuration: str) -> None:
    kinds = configuration.split(",")
    drawn = [colour for colour, kind in zip(channel_colours(kinds), kinds, strict=True) if kind not in GRAY_BASE]
    assert min(distance(*pair) for pair in itertools.combinations(drawn, 2)) > 90


def seen_by_a_deuteranope(colour: tuple[int, int, int]) -> tuple[int, int, int]:
    """Machado, Oliveira and Fernandes 2009, severity 1, on linear light."""
    linear = [(value / 255) ** 2.2 for value in colour]
    rows = ((0.367, 0.861, -0.228), (0.280, 0.673, 0.047), (-0.012, 0.043, 0.969))
    mixed = [sum(weight * value for weight, value in zip(row, linear, strict=True)) for row in rows]
    red, green, blue = (round(255 * min(max(value, 0.0), 1.0) ** (1 / 2.2)) for value in mixed)
    return red, green, blue


@pytest.mark.parametrize("other", ["er", "agp", "mitochondria", "protein", "microtubules", "rna", "golgi", "membrane"])
def test_a_deuteranope_tells_nuclei_from_the_rest(other: str) -> None:
    nucleus, second = (seen_by_a_deuteranope(COLOURS[name]) for name in ("nucleus", other))
    assert distance(nucleus, second) > 90


def test_a_deuteranope_tells_the_stains_of_cell_painting_apart() -> None:
    drawn = [
        seen_by_a_deuteranope(colour) for colour in channel_colours(["agp", "er", "mitochondria", "nucleus", "rna"])
    ]
    assert min(distance(*pair) for pair in itertools.combinations(drawn, 2)) > 60


def test_a_repeated_type_never_takes_the_colour_of_a_type_that_is_there() -> None:
    colours = channel_colours(["protein", "protein", "mitochondria", "nucleus"])
    assert colours[0] == COLOURS["protein"]
    assert colours[2:] == [COLOURS["mitochondria"], COLOURS["nucleus"]]
    assert len(set(colours)) == 4


def test_colour_components_and_transmitted_light_are_never_moved() -> None:
    assert channel_colours(["b", "g", "r"]) == [(0, 0, 255), (0, 255, 0), (255, 0, 0)]
    assert channel_colours(["bright-field", "bright-field"]) == [(255, 255, 255)] * 2
    assert {"r", "g", "b"} == TRUE_COLOUR


def test_an_unknown_word_is_drawn_like_an_unknown_type() -> None:
    assert channel_colours(["something new"]) == channel_colours([None])


def test_more_channels_than_colours_are_possible() -> None:
    colours = channel_colours(["protein"] * 27)
    assert len(colours) == 27
    assert len(set(colours)) >= 8


def test_importing_the_room_does_not_import_pillow() -> None:
    code = "import sys, chammi75.pictures; sys.exit('PIL' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
