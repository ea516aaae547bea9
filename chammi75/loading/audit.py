"""A store against today's cards: licences and DOIs change, plates turn out to be bad, images are withdrawn."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from chammi75.loading.columns import field_facet
from chammi75.loading.layouts import Layout
from chammi75.loading.withdrawn import reasons_of_withdrawal
from chammi75.schemas.cards import SourceCard

FindingKind = Literal[
    "license", "withdrawn", "bad_plate", "doi", "platform", "too_many_images", "license_unstated", "card_missing"
]
_FIELDS = {
    "source": "provenance.source",
    "study": "experiment.study",
    "plate": "experiment.plate",
    "license": "provenance.license",
    "doi": "provenance.doi",
    "platform": "provenance.platform",
}
_WITHIN_A_FILE = ("geometry.z_slice", "geometry.timepoint")
_DOI = re.compile(r"^(https?://(dx\.)?doi\.org/|doi:)", re.IGNORECASE)


class Cards(Protocol):
    """What is asked of a catalog."""

    def find_source(self, name: str) -> SourceCard | None:
        """The card of a source, by its id or another name of it."""


@dataclass(frozen=True)
class AuditFinding:
    """Something that a store says otherwise than today's cards.

    Attributes
    ----------
    source : str
        The source, or the study where no source is known.
    kind : str
        ``license``: another licence; ``withdrawn``: images that must not be used any more; ``bad_plate``: images of a
        plate that is known to be bad; ``doi``, ``platform``: another one; ``too_many_images``: more than the source
        has; ``license_unstated``: the store knows none, the card does; ``card_missing``: there is no card.
    stored, today : str or None
        What the store says, and what the card says; of withdrawn images the reason.
    images : int
        Images that it is about.
    """

    source: str
    kind: FindingKind
    stored: str | None
    today: str | None
    images: int

    @property
    def is_serious(self) -> bool:
        """Whether the images may not be used as the store says."""
        return self.kind in ("license", "withdrawn")


@dataclass(frozen=True)
class _Kind:
    """Images that say the same of where they come from, and how many."""

    source: str | None
    study: str | None
    plate: str | None
    license: str | None
    doi: str | None
    platform: str | None
    withdrawn: str | None
    is_slice: bool
    images: int

    @property
    def name(self) -> str:
        return self.source or self.study or "unknown"


def audit(layouts: Sequence[Layout], cards: Cards) -> tuple[AuditFinding, ...]:
    """Compare what is stored with today's cards and withdrawals.

    Parameters
    ----------
    layouts : sequence of Layout
    cards : Catalog
        Or anything that finds a card by the name of a source.

    Returns
    -------
    tuple of AuditFinding
        The serious ones first, then by source.
    """
    by_name: dict[str, list[_Kind]] = defaultdict(list)
    for layout in layouts:
        for kind in _kinds(layout):
            by_name[kind.name].append(kind)
    findings = [finding for name, kinds in by_name.items() for finding in _of_source(name, kinds, cards)]
    return tuple(
        sorted(
            findings, key=lambda finding: (not finding.is_serious, finding.source, finding.kind, finding.today or "")
        )
    )


def _kinds(layout: Layout) -> Iterator[_Kind]:
    import pyarrow as pa

    facets = {name: field_facet(layout, path) for name, path in _FIELDS.items()}
    facets["withdrawn"] = reasons_of_withdrawal(layout)
    is_slice = np.logical_or(*(field_facet(layout, path).codes >= 0 for path in _WITHIN_A_FILE))
    codes = pa.table({**{name: facet.codes for name, facet in facets.items()}, "is_slice": is_slice})
    for row in codes.group_by(codes.column_names, use_threads=False).aggregate([([], "count_all")]).to_pylist():
        stated = {name: facet.values[row[name]] if row[name] >= 0 else None for name, facet in facets.items()}
        yield _Kind(**stated, is_slice=row["is_slice"], images=row["count_all"])


def _of_source(name: str, kinds: Sequence[_Kind], cards: Cards) -> Iterator[AuditFinding]:
    for reason, count in _counted(kinds, "withdrawn").items():
        if reason is not None:
            yield AuditFinding(name, "withdrawn", None, reason, count)
    card = next(filter(None, (cards.find_source(word) for word in (kinds[0].source, kinds[0].study) if word)), None)
    images = sum(kind.images for kind in kinds)
    if card is None:
        yield AuditFinding(name, "card_missing", None, None, images)
        return
    yield from _license(name, kinds, card)
    dois = [doi for doi in (card.data_doi, *card.study_dois, *(one.data_doi for one in card.containers)) if doi]
    for doi, count in _counted(kinds, "doi").items():
        if doi is not None and dois and _plain_doi(doi) not in map(_plain_doi, dois):
            yield AuditFinding(name, "doi", doi, dois[0], count)
    platforms = {card.platform, *(place.platform for place in card.also_at)}
    for platform, count in _counted(kinds, "platform").items():
        if platform is not None and card.platform is not None and platform not in platforms:
            yield AuditFinding(name, "platform", platform, card.platform, count)
    reasons = {bad.plate: bad.reason for bad in card.bad_plates}
    for plate, count in _counted(kinds, "plate").items():
        if plate is not None and plate in reasons:
            yield AuditFinding(name, "bad_plate", plate, reasons[plate], count)
    is_counted_alike = not any(kind.is_slice for kind in kinds)  # a platform counts a stack or movie once
    if card.expected_images is not None and is_counted_alike and images > card.expected_images:
        yield AuditFinding(name, "too_many_images", str(images), str(card.expected_images), images)


def _license(name: str, kinds: Sequence[_Kind], card: SourceCard) -> Iterator[AuditFinding]:
    today = card.license
    if today is None:
        return
    for stored, count in _counted(kinds, "license").items():
        if stored is None:
            yield AuditFinding(name, "license_unstated", None, today, count)
        elif stored.casefold() != today.casefold():  # SPDX ids are the same in any case
            yield AuditFinding(name, "license", stored, today, count)


def _counted(kinds: Sequence[_Kind], field: str) -> Counter[str | None]:
    counts: Counter[str | None] = Counter()
    for kind in kinds:
        counts[getattr(kind, field)] += kind.images
    return counts


def _plain_doi(doi: str) -> str:
    return _DOI.sub("", doi).casefold()
