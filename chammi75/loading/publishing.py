"""Plain datasets that know where their images come from, and are not published without a licence.

They are what ``to_plain`` gives: datasets of Hugging Face whose ``push_to_hub`` looks at the licences first. What
``.map`` and the like make of them are ordinary datasets again. Importing this module imports datasets.
"""

from __future__ import annotations

from typing import Any, TypeVar

import datasets

from chammi75.loading.licenses import hub_license, license_url, require_licenses
from chammi75.loading.origins import Origin, OriginCounter, citation, licenses_of, without_license

DatasetT = TypeVar("DatasetT", datasets.Dataset, datasets.IterableDataset)

_ORIGIN_COLUMNS = ["experiment", "provenance"]
_BLOCK = 10_000


def publishable(plain: DatasetT, references: DatasetT) -> DatasetT:
    """``plain`` with a ``push_to_hub`` that asks for a licence, and with licences and citation in its ``info``.

    Parameters
    ----------
    plain : datasets.Dataset or datasets.IterableDataset
        The dataset to publish.
    references : datasets.Dataset or datasets.IterableDataset
        The same samples with the record's groups, before pixels are read. The ``info`` of a stream says no more than it
        did: all of its index would have to be read for that.
    """
    missing = [name for name in _ORIGIN_COLUMNS if name not in (references.column_names or ())]
    if missing:  # nothing says where the images come from
        origins: Any = None
    elif isinstance(references, datasets.Dataset):
        origins = _counted(references)
        plain.info.license = ", ".join(_stated(origins))
        plain.info.citation = citation(origins)
        plain.info.description = plain.info.description or (
            f"{len(plain)} multi-channel microscopy images; the licence of each is in provenance.license."
        )
    else:
        origins = references.select_columns(_ORIGIN_COLUMNS)
    if isinstance(plain, datasets.Dataset):
        return PlainDataset.of(plain, origins)
    return PlainIterableDataset.of(plain, origins)


class PlainDataset(datasets.Dataset):  # type: ignore[misc]
    """A ``datasets.Dataset`` whose ``push_to_hub`` refuses images without a licence."""

    _origins: tuple[Origin, ...] | None = None

    @classmethod
    def of(cls, dataset: datasets.Dataset, origins: tuple[Origin, ...] | None) -> PlainDataset:
        """``dataset``, as one of these."""
        made = cls(dataset._data, dataset.info, dataset.split, dataset._indices, dataset._fingerprint)
        made._origins = origins
        return made

    def push_to_hub(self, repo_id: str, *args: Any, license: str | None = None, **kwargs: Any) -> Any:
        """As ``datasets.Dataset.push_to_hub``; then the licence is written into the dataset card.

        Parameters
        ----------
        repo_id : str
        *args, **kwargs
            As for ``datasets.Dataset.push_to_hub``.
        license : str, optional
            SPDX licence of the images whose records state none: yours to say.

        Raises
        ------
        ChammiError
            If images have no licence, and ``license`` states none. Then nothing is sent.
        """
        licenses = require_licenses(self._origins or _unknown(len(self)), license)
        pushed = super().push_to_hub(repo_id, *args, **kwargs)
        _state_license(repo_id, licenses, kwargs, pushed)
        return pushed


class PlainIterableDataset(datasets.IterableDataset):  # type: ignore[misc]
    """A ``datasets.IterableDataset`` whose ``push_to_hub`` refuses images without a licence."""

    _references: Any = None

    @classmethod
    def of(cls, dataset: datasets.IterableDataset, references: Any) -> PlainIterableDataset:
        """``dataset``, as one of these."""
        made = cls(
            ex_iterable=dataset._ex_iterable,
            info=dataset.info,
            split=dataset.split,
            formatting=dataset._formatting,
            distributed=dataset._distributed,
            token_per_repo_id=dataset._token_per_repo_id,
        )
        made._references = references
        return made

    def push_to_hub(self, repo_id: str, *args: Any, license: str | None = None, **kwargs: Any) -> Any:
        """As ``datasets.IterableDataset.push_to_hub``; see ``PlainDataset.push_to_hub``."""
        origins = _counted(self._references) if self._references is not None else _unknown(1)
        licenses = require_licenses(origins, license)
        pushed = super().push_to_hub(repo_id, *args, **kwargs)
        _state_license(repo_id, licenses, kwargs, pushed)
        return pushed


def _counted(references: Any) -> tuple[Origin, ...]:
    """The origins of a dataset, of which only the record is read."""
    counter = OriginCounter()
    for block in references.select_columns(_ORIGIN_COLUMNS).with_format("arrow").iter(_BLOCK):
        counter.add_table(block.combine_chunks())
    return counter.origins


def _unknown(images: int) -> tuple[Origin, ...]:
    return (Origin(images=images),)


def _stated(origins: tuple[Origin, ...]) -> list[str]:
    return [*licenses_of(origins), *(["unknown"] if without_license(origins) else [])]


def _state_license(repo_id: str, licenses: list[str], options: dict[str, Any], pushed: Any) -> None:
    """Write licences into the front matter of the card that Hugging Face datasets has just pushed."""
    from huggingface_hub import metadata_update

    entries = hub_license(licenses)
    if len(licenses) == 1 and entries["license"] == "other" and (url := license_url(licenses[0])):
        entries["license_link"] = url
    metadata_update(
        repo_id,
        entries,
        repo_type="dataset",
        overwrite=True,
        token=options.get("token"),
        revision=getattr(pushed, "pr_revision", None) or options.get("revision"),
        commit_message="State the licence",
    )
