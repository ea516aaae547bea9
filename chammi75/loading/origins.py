"""Where images come from and what one may do with them: counted by source, licence and DOI."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

    from chammi75.catalog import Cited

_FIELDS = ("source", "study", "platform", "license", "doi", "title")
_Key = tuple[str | None, ...]


@dataclass(frozen=True, order=True)
class Origin:
    """Images of one source under one licence.

    Attributes
    ----------
    source, study, platform : str or None
        As the record names them; None where it does not.
    license : str or None
        SPDX expression; None where the record states none.
    doi, title : str or None
    images : int
    """

    source: str | None = None
    study: str | None = None
    platform: str | None = None
    license: str | None = None
    doi: str | None = None
    title: str | None = None
    images: int = 0

    @property
    def name(self) -> str:
        """What to call it in a message: the source, else the study."""
        return self.source or self.study or "an unnamed source"


class OriginCounter:
    """Counts images by origin as they come.

    Examples
    --------
    >>> counter = OriginCounter()
    >>> counter.add({"provenance": {"source": "idr0001", "license": "CC-BY-4.0"}, "experiment": {"study": "idr0001"}})
    >>> [(origin.name, origin.license, origin.images) for origin in counter.origins]
    [('idr0001', 'CC-BY-4.0', 1)]
    """

    def __init__(self) -> None:
        self._counts: Counter[_Key] = Counter()

    def add(self, record: Mapping[str, Any]) -> None:
        """Count the image of a record."""
        provenance, experiment = record.get("provenance") or {}, record.get("experiment") or {}
        values = {**provenance, "study": experiment.get("study")}
        self._counts[_key(values)] += 1

    def add_table(self, records: pa.Table) -> None:
        """Count the images of a table with the columns ``experiment`` and ``provenance``."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if not records.num_rows:
            return
        columns = {
            name: pc.struct_field(records.column("experiment" if name == "study" else "provenance"), name)
            for name in _FIELDS
        }
        counted = pa.table(columns).group_by(list(_FIELDS)).aggregate([([], "count_all")])
        for row in counted.to_pylist():
            self._counts[_key(row)] += row["count_all"]

    @property
    def origins(self) -> tuple[Origin, ...]:
        """The origins, by name; unknown ones last."""
        found = [Origin(**dict(zip(_FIELDS, key, strict=True)), images=images) for key, images in self._counts.items()]
        return tuple(sorted(found, key=lambda origin: [_order(getattr(origin, name)) for name in _FIELDS]))


def _key(values: Mapping[str, Any]) -> _Key:
    return tuple(values.get(name) for name in _FIELDS)


def _order(value: str | None) -> tuple[bool, str]:
    return value is None, value or ""


def licenses_of(origins: Iterable[Origin]) -> list[str]:
    """The different licences, sorted; those that are unknown do not count."""
    return sorted({origin.license for origin in origins if origin.license})


def without_license(origins: Iterable[Origin]) -> list[Origin]:
    """The origins whose licence the records do not state."""
    return [origin for origin in origins if not origin.license]


def cited(origins: Iterable[Origin]) -> list[Cited]:
    """The sources, with how many images each has, in the order of their names.

    What a source's card in the catalog says, else what its records say; the licence is that of the records where they
    state one.
    """
    from chammi75.catalog import Catalog, Cited

    catalog = Catalog()
    entries: dict[tuple[str, str | None, str | None], Cited] = {}
    for origin in origins:
        card = catalog.find_source(origin.source) or catalog.find_source(origin.study)
        name = card.id if card is not None else origin.name
        known = entries.get((name, origin.doi, origin.license))
        if known is not None:
            entry = replace(known, images=(known.images or 0) + origin.images)
        elif card is not None:
            entry = catalog.cited(card.id, origin.images)
            entry = replace(entry, license=origin.license or entry.license)
        else:
            entry = Cited(name, title=origin.title, data_doi=origin.doi, license=origin.license, images=origin.images)
        entries[name, origin.doi, origin.license] = entry
    return [entries[key] for key in sorted(entries, key=lambda key: tuple(word or "" for word in key))]


def citation(origins: Iterable[Origin]) -> str:
    """BibTeX of the sources of which there is more to say than a name; empty if there are none.

    Examples
    --------
    >>> found = Origin("lab1", "lab1", None, "CC-BY-4.0", "10.5555/12345", "A plate", images=3)
    >>> citation([found]).splitlines()[:2]
    ['@misc{lab1,', '  title = {A plate},']
    """
    from chammi75.catalog import cite

    entries = [entry for entry in cited(origins) if entry.title or entry.study_doi or entry.data_doi]
    return cite(entries, "bibtex").strip()
