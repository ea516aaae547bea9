"""Withdrawals: images that must not be used any more, and who says so where."""

from __future__ import annotations

import datetime
from typing import Literal

from pydantic import Field, model_validator

from chammi75.schemas.base import Model


class Withdrawal(Model):
    """What is withdrawn: one image, a study, or a source; of the latter two perhaps only one plate."""

    image_id: str | None = Field(None, min_length=1, description="The image.")
    study: str | None = Field(None, min_length=1, description="All images of this study (experiment.study).")
    source: str | None = Field(None, min_length=1, description="All images of this source (provenance.source).")
    plate: str | None = Field(None, min_length=1, description="Only those of this plate (experiment.plate).")
    reason: str = Field(min_length=1, description="Why.")
    date: datetime.date = Field(description="Since when, as 2026-01-31.")
    stated_by: str | None = Field(None, description="Who says so.")
    url: str | None = Field(None, description="Where it is stated.")

    @model_validator(mode="after")
    def _one_thing_is_named(self) -> Withdrawal:
        if sum(value is not None for value in (self.image_id, self.study, self.source)) != 1:
            raise ValueError("name one of image_id, study and source")
        if self.plate is not None and self.image_id is not None:
            raise ValueError("plate goes with study or source, not with image_id")
        return self

    @property
    def target(self) -> tuple[str | None, ...]:
        """What is withdrawn, without why and since when."""
        return self.image_id, self.study, self.source, self.plate


class WithdrawalList(Model):
    """All withdrawals that somebody states: ``withdrawals.json`` beside a store's manifest, or the shipped list."""

    format: Literal["chammi75-withdrawals"] = "chammi75-withdrawals"
    format_version: Literal[1] = Field(1, description="Version of this list.")
    withdrawals: list[Withdrawal] = Field([], description="The withdrawals, oldest first.")
