"""The dataset card (``README.md``) of an export: front matter for the Hub, then what is in it and how it is read."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chammi75.export.report import ExportReport
from chammi75.loading.licenses import hub_license, license_url
from chammi75.loading.origins import Origin, citation, licenses_of, without_license
from chammi75.version import __version__

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_SHOWN_SOURCES = 500


@dataclass(frozen=True)
class WrittenSplit:
    """A split as Parquet files.

    Attributes
    ----------
    name : str
    rows : int
    bytes : int
        In memory, as Arrow.
    """

    name: str
    rows: int
    bytes: int


def dataset_card(report: ExportReport, splits: Sequence[WrittenSplit], title: str, license: str | None = None) -> bytes:
    """``README.md``, in UTF-8.

    Parameters
    ----------
    report : ExportReport
    splits : sequence of WrittenSplit
    title : str
    license : str, optional
        SPDX licence of the images whose records state none.
    """
    front = front_matter(report, splits, title, license)
    lines = [
        f"# {_plain(title)}",
        "",
        f"{report.images} multi-channel microscopy images ({report.planes} planes), each at one z and one t; written by"
        f" chammi75 {__version__}.",
        "",
        "```python",
        "from datasets import load_dataset",
        "",
        'dataset = load_dataset("parquet", data_files="data/*.parquet", split="train")  # or this repository',
        'dataset[0]["planes"]  # one picture for each channel',
        'dataset[0]["imaging"]["channel_type"]  # what each of them shows',
        "```",
        "",
        "A row is an image: `planes` are its channels as TIFF (or PNG) without loss, in the dtype of the source; the"
        " groups `experiment`, `biology`, `imaging`, `microscopy`, `geometry` … are what is known; `annotation` has"
        " the cells of each channel, as (x, y). What is unknown is null.",
        "",
        "## Sources and licences",
        "",
        *_source_table(report.origins, license),
    ]
    if without_license(report.origins) and license is None:
        lines += ["", "**Some images have no stated licence: do not publish them before it is settled.**"]
    citations = citation(report.origins)
    if citations:
        lines += ["", "## Cite", "", "```bibtex", citations, "```"]
    if report.failed:
        lines += ["", f"{len(report.failed)} images could not be read and are not here; `export.json` names them."]
    return (front + "\n".join(lines) + "\n").encode()


def front_matter(report: ExportReport, splits: Sequence[WrittenSplit], title: str, license: str | None = None) -> str:
    """The YAML between two lines of ``---``."""
    import yaml

    values: dict[str, Any] = {
        **license_entries(report.origins, license),
        "pretty_name": title,
        "size_categories": [next((name for limit, name in _SIZES if report.images < limit), "1M<n<10M")],
        "task_categories": ["image-feature-extraction"],
        "tags": ["microscopy", "biology", "chammi75"],
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": split.name, "path": f"data/{split.name}-*.parquet"} for split in splits],
            }
        ],
        "dataset_info": _dataset_info(splits, report.bytes),
    }
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=1000)
    return f"---\n{text}---\n"


def license_entries(origins: Sequence[Origin], license: str | None) -> dict[str, str]:
    """``license`` (and ``license_name``) of a card; images of unknown licence make it unknown."""
    known = licenses_of(origins)
    if without_license(origins):
        if license is None:
            return hub_license([]) if not known else hub_license([*known, "unknown"])
        known = sorted({*known, license})
    return hub_license(known)


def _dataset_info(splits: Sequence[WrittenSplit], stored_bytes: int) -> Mapping[str, Any]:
    from datasets import DatasetInfo, Features, SplitDict, SplitInfo
    from datasets.info import DatasetInfosDict
    from huggingface_hub import DatasetCardData

    from chammi75.schemas.arrow import shard_schema

    info = DatasetInfo(
        features=Features.from_arrow_schema(shard_schema()),
        splits=SplitDict({split.name: SplitInfo(split.name, split.bytes, split.rows) for split in splits}),
        download_size=stored_bytes,
        dataset_size=sum(split.bytes for split in splits),
    )
    data = DatasetCardData()
    DatasetInfosDict({"default": info}).to_dataset_card_data(data)
    found: Mapping[str, Any] = data["dataset_info"]
    return found


def _source_table(origins: Sequence[Origin], license: str | None) -> list[str]:
    rows = ["| source | images | licence | DOI |", "| --- | ---: | --- | --- |"]
    for origin in origins[:_SHOWN_SOURCES]:
        if origin.license:
            url = license_url(origin.license)
            words = f"[{_plain(origin.license)}]({url})" if url else _plain(origin.license)
        else:
            words = f"{_plain(license)} (stated at export)" if license else "unknown"
        doi = f"[{_plain(origin.doi)}](https://doi.org/{_plain(origin.doi)})" if origin.doi else "unknown"
        rows.append(f"| {_plain(origin.name)} | {origin.images} | {words} | {doi} |")
    if len(origins) > _SHOWN_SOURCES:
        rows.append(f"| {len(origins) - _SHOWN_SOURCES} more, in `export.json` | | | |")
    return rows


def _plain(text: str) -> str:
    """Text of strangers as Markdown shows it: no markup, no cell of its own, on one line."""
    escaped = html.escape(" ".join(text.split()), quote=False)
    return "".join(f"\\{letter}" if letter in "|\\`[]" else letter for letter in escaped)
