"""The subset recipe: which images of a store, in words that give the same images on every machine."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from chammi75.schemas.base import Model
from chammi75.schemas.manifest import Sha256


class SubsetRecipe(Model):
    """Filters, and how many images of each group.

    ``filters`` takes the keyword filters of ``load_dataset``; ranges are written ``{min: 20, max: 63}``.
    """

    name: str | None = Field(None, description="Short name of the subset.")
    description: str | None = Field(None, description="What it is for.")
    filters: dict[str, Any] = Field({}, description="Keyword filters of load_dataset.")
    where: str | None = Field(None, description="Anything else, as SQL over the record.")
    group_by: str | None = Field(None, description="Record field by which images are grouped (experiment.study).")
    per_group: int | None = Field(None, gt=0, description="Images per group, at most.")
    balance: Literal["none", "log", "sqrt", "equal"] = Field("none", description="How group sizes are evened out.")
    seed: int = Field(0, ge=0, description="Seed of every draw.")
    store_sha256: Sha256 | None = Field(None, description="content_sha256 of the store that it was made from.")
    images_sha256: Sha256 | None = Field(None, description="Hash of the ids of exactly these images.")
