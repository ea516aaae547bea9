"""Crop sizes: how large a part of an image of each study training looks at."""

from __future__ import annotations

from functools import cache
from typing import Annotated

from pydantic import Field

from chammi75.declarations import declarations_folder
from chammi75.schemas.base import Model
from chammi75.schemas.cards import CropSize, Word

Sizes = Annotated[list[CropSize], Field(min_length=1)]


class CropSizes(Model):
    """The sizes that guided crops are drawn from: edges in pixels, or the whole plane."""

    stated_in: Word = Field(description="Where they are stated.")
    other: Sizes = Field(description="Sizes of all studies that are not named.")
    studies: dict[Word, Sizes] = Field(description="Sizes of each study.")


@cache
def crop_sizes() -> CropSizes:
    """The table in ``catalog/crop_sizes.yaml``.

    Examples
    --------
    >>> crop_sizes().studies["nidr0004"], crop_sizes().other
    ([600, 'whole plane'], ['whole plane'])
    """
    import yaml

    path = declarations_folder("catalog") / "crop_sizes.yaml"
    return CropSizes.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
