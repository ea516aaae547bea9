"""The subset recipe: which images of a store, in words that give the same images on every machine."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from chammi75.schemas.base import Model
from chammi75.schemas.manifest import Sha256

Balance = Literal["none", "log", "sqrt", "equal"]
Fields = str | Annotated[list[str], Field(min_length=1)]
"""A field of the record by its dotted path, or several that count together."""
Seed = Annotated[int, Field(ge=0, lt=2**64)]
PartName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]


class SubsetPart(Model):
    """One part of a subset that was split; whole units, so that no unit is in two parts."""

    name: PartName = Field(description="Which of the parts.")
    fractions: dict[PartName, Annotated[float, Field(gt=0, le=1)]] = Field(
        min_length=1, description="Share of the images that each part has, nearly; together 1."
    )
    by: Fields = Field(description="What stays whole (experiment.plate).")
    stratify: str | None = Field(None, description="Field whose values every part has in the same shares, nearly.")
    seed: Seed = Field(0, description="Seed of the split.")

    @model_validator(mode="after")
    def _fractions_are_shares(self) -> SubsetPart:
        if abs(sum(self.fractions.values()) - 1) > 1e-6:
            raise ValueError(f"fractions must add up to 1, not {sum(self.fractions.values()):g}")
        if self.name not in self.fractions:
            raise ValueError(f"there is no part {self.name!r} among {', '.join(self.fractions)}")
        return self


class SubsetRecipe(Model):
    """Filters, and how many images of each group.

    ``filters`` takes the keyword filters of ``load_dataset``; ranges are written ``{min: 20, max: 63}``.
    """

    name: str | None = Field(None, description="Short name of the subset.")
    description: str | None = Field(None, description="What it is for.")
    split: str | None = Field("train", description="Split of the store that the images are taken from; null for all.")
    filters: dict[str, Any] = Field({}, description="Keyword filters of load_dataset.")
    where: str | None = Field(None, description="Anything else, as SQL over the record.")
    group_by: Fields | None = Field(
        None, description="Record field by which images are grouped (experiment.study), or several."
    )
    largest_groups: int | None = Field(
        None, gt=0, description="Take so many groups only, those of most images; unknown is no group then."
    )
    per_group: int | None = Field(None, gt=0, description="Images per group, at most.")
    total: int | None = Field(None, gt=0, description="Images in all, at most.")
    matched_with: str | None = Field(
        None,
        description="Another recipe, shipped or a file beside this one: take no more images than it can give, so"
        " that two recipes that name each other have equal numbers.",
    )
    balance: Balance = Field("none", description="How group sizes are evened out.")
    seed: Seed = Field(0, description="Seed of every draw.")
    parts: list[SubsetPart] = Field([], description="Which part it is, if what was drawn was split; split after split.")
    images: int | None = Field(None, ge=0, description="How many images these are.")
    store_sha256: Sha256 | None = Field(
        None, description="Content hash of the store (or stores) that it was made from."
    )
    images_sha256: Sha256 | None = Field(
        None, description="SHA-256 of the ids of exactly these images, sorted and joined by line feeds."
    )

    @model_validator(mode="after")
    def _groups_are_stated(self) -> SubsetRecipe:
        if self.group_by is None:
            stated = {
                "per_group": self.per_group is not None,
                "largest_groups": self.largest_groups is not None,
                "balance": self.balance != "none",
            }
            for name in (name for name, is_stated in stated.items() if is_stated):
                raise ValueError(f"{name} is about groups: say with group_by which (experiment.study)")
        return self
