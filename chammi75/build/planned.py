"""What a plan is made of: which file gives which plane of which image, before a pixel is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from chammi75.errors import RecipeError
from chammi75.schemas.record import ImageRecord

if TYPE_CHECKING:
    import numpy as np


_NAMED = 5  # wells that a sentence names


@dataclass(frozen=True, slots=True)
class PlaneSource:
    """Where one plane's pixels are: a file, and the place in it (all counted from 0)."""

    url: str
    series: int = 0
    z: int = 0
    t: int = 0
    c: int = 0
    page: int = 0
    axes: str | None = None
    """Axes that a recipe states for a file that does not name them."""


@dataclass(frozen=True, slots=True)
class PlannedImage:
    """One image that is to be built.

    ``record`` is whole but for what only the pixels tell: ``geometry.dtype`` is the file's own (the build may store
    it as another type, and records that as a step), ``provenance.checksum`` is empty, and ``annotation`` is not part
    of a record.
    """

    record: ImageRecord
    planes: tuple[PlaneSource, ...]
    guidance: tuple[str | None, ...] = ()
    """URL of each plane's guidance file; empty or None where there is none."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that the user must know of: a file or image, and what is the matter with it.

    ``kind`` is one of ``unreadable`` (the file cannot be read), ``unmatched`` (the file fits no pattern),
    ``conflict`` (two files for one channel; tables that contradict themselves, each other or the file names),
    ``mismatch`` (channels of different shape), ``missing_channel``, ``unlabelled`` (an image that a table says nothing
    of), ``unused_row`` (a table's row that fits no image), ``unresolved`` (a row whose file is stated nowhere),
    ``note``.
    """

    kind: str
    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """How a table and the images met.

    ``labelled`` of ``images`` have a row; ``rows_used`` of ``rows`` have an image. ``without_row`` and ``unused`` name
    the first of the others by what they are looked up with (wells), ``unknown_plates`` the table's plates of which
    there is no image; ``contradictions`` say in words what was contradicted. The limits are the table's.
    """

    table: str
    images: int
    labelled: int
    rows: int
    rows_used: int
    without_row: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    unknown_plates: tuple[str, ...] = ()
    contradictions: tuple[str, ...] = ()
    max_unlabelled: float = 1.0
    max_unused: float = 1.0
    max_contradictions: int = 0

    @property
    def unlabelled(self) -> int:
        """How many images have no row."""
        return self.images - self.labelled

    @property
    def rows_unused(self) -> int:
        """How many rows have no image."""
        return self.rows - self.rows_used

    @property
    def problems(self) -> tuple[str, ...]:
        """What is above the table's limits, each in a sentence without its table.

        Examples
        --------
        >>> Reconciliation("w.csv", 8, 6, 3, 3, ("B02", "B03"), max_unlabelled=0.1).problems
        ('2 of 8 images have no row, more than max_unlabelled: 0.1 allows (B02, B03)',)
        """
        told = []
        if len(self.contradictions) > self.max_contradictions:
            told.append(
                f"{len(self.contradictions)} contradiction{'' if len(self.contradictions) == 1 else 's'}, more than"
                f" max_contradictions: {self.max_contradictions} allows ({_few(self.contradictions, '; ')})"
            )
        if self.unlabelled > self.max_unlabelled * self.images:
            plates = f"; no image is of its plates {_few(self.unknown_plates)}" if self.unknown_plates else ""
            told.append(
                f"{self.unlabelled} of {self.images} images have no row, more than max_unlabelled:"
                f" {self.max_unlabelled:g} allows ({_few(self.without_row)}{plates})"
            )
        if self.rows_unused > self.max_unused * self.rows:
            told.append(
                f"{self.rows_unused} of {self.rows} rows fit no image, more than max_unused: {self.max_unused:g} allows"
                f" ({_few(self.unused)})"
            )
        return tuple(told)


def _few(words: Sequence[str], between: str = ", ") -> str:
    return between.join(words[:_NAMED]) + (" …" if len(words) > _NAMED else "")


@dataclass(frozen=True)
class BuildPlan:
    """Everything that a build will do.

    ``pixel_bytes`` has the decoded size of each image, shape (images,), int64, from headers alone; shards are cut by
    it.
    """

    source: str
    split: str
    images: Sequence[PlannedImage]
    pixel_bytes: np.ndarray
    findings: tuple[Finding, ...] = ()
    recipe_sha256: str = ""
    codec: str = "zstd"
    shard_bytes: int = 512 * 2**20
    groups: tuple[str, ...] = field(default=())
    """Lines that show what was grouped with what, for people."""
    reconciliations: tuple[Reconciliation, ...] = ()
    """How each table met the images, in the recipe's order."""
    cards: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of each source card that says something of these images, by the source's id."""

    @property
    def problems_above_limits(self) -> tuple[str, ...]:
        """What is above the limits of the recipe's tables: a build of this plan is refused."""
        return tuple(f"{entry.table}: {problem}" for entry in self.reconciliations for problem in entry.problems)


def check_limits(plans: Sequence[BuildPlan]) -> None:
    """Refuse plans whose tables and images meet worse than the recipe allows.

    Raises
    ------
    RecipeError
        With each table and what is above its limits.
    """
    problems = [problem for plan in plans for problem in plan.problems_above_limits]
    if problems:
        hint = "mend the table or the recipe (--plan shows the findings), or raise the limit in the recipe's tables"
        raise RecipeError(f"{' | '.join(problems)}: {hint}")
