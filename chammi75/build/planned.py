"""What a plan is made of: which file gives which plane of which image, before a pixel is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from chammi75.schemas.record import ImageRecord

if TYPE_CHECKING:
    import numpy as np


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
    ``conflict`` (two files for one channel), ``mismatch`` (channels of different shape), ``missing_channel``,
    ``unlabelled`` (an image that a table says nothing of), ``unused_row`` (a table's row that fits no image),
    ``unresolved`` (a row whose file is stated nowhere), ``note``.
    """

    kind: str
    path: str
    reason: str


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
