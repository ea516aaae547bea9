"""The published CHAMMI-75 layout: a metadata table with one row per channel file, read as one record per image.

The table is one CSV of up to 8 million rows; the planes are 8-bit PNG files, one per channel, and beside them lie
guidance files with cell centroids. A file belongs to a row only if a table states it: a file of a likely name is never
taken for it. What does not fit (two files for one channel, a missing one, text where a number stands) is reported and
left out, never repaired by guess.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from chammi75.errors import ChammiError, ReadError
from chammi75.files import StorageOptions, absolute_url, exists, is_local, join_url
from chammi75.readers.published.csv_rows import (
    NULL,
    PublishedProblem,
    PublishedRows,
    TextColumn,
    concatenated,
    magnification_number,
    read_numbers,
    read_rows,
    table_name,
    whole_number,
)
from chammi75.readers.published.files import (
    GUIDANCE_FOLDER,
    PLANES_FOLDER,
    PublishedRoot,
    files_there,
    find_published_root,
    list_folder,
    png_size,
)
from chammi75.readers.published.grouping import INT32_MAXIMUM, MOST_CHANNELS, GroupedRows
from chammi75.readers.published.records import (
    PublishedImages,
    guidance_paths,
    image_names,
    panel_words,
    records_and_guidance,
)

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["PublishedProblem", "PublishedRoot", "PublishedTable", "find_published_root", "read_published"]

_IMAGE_TEXT = (
    *(f"experiment.{name}" for name in ("study", "plate", "well", "reagent", "control")),
    *(f"biology.{name}" for name in ("organism", "cell_line", "cell_type")),
    *(f"microscopy.{name}" for name in ("type", "magnification", "fov")),
)
_IMAGE_NUMBERS = {"width": 1, "height": 1, "depth": 1, "channels": 1, "z_slice": 0, "timepoint": 0}


@dataclass(frozen=True)
class PublishedTable:
    """The images of a published layout.

    Parameters
    ----------
    root : str
        URL of the folder that ``storage.path`` and ``guidance`` are relative to.
    metadata_url : str
        The table that was read.
    metadata_sha256 : str
        SHA-256 of its bytes; where other tables stated files for its rows, of all these hashes in hexadecimal, one
        after another.
    records : pyarrow.Table
        One row per image with the schema of ``chammi75.schemas.arrow.record_schema``, in the order in which the table
        first names them; channels in the order of their numbers.
    guidance : pyarrow.ChunkedArray
        list<string>, one list per record: each plane's guidance file, relative to ``root``; null where there is none.
    unresolved : pyarrow.Table
        The rows whose file no table states: ``row``, ``experiment.study``, ``imaging.multi_channel_id``,
        ``imaging.channel``.
    missing_files : pyarrow.Table
        The rows whose file is stated but not there: the same columns and ``storage.path``. Empty where this was not
        checked.
    problems : tuple of PublishedProblem
        Everything that did not fit: (kind, file or image, reason).
    counts : mapping
        ``rows``, ``duplicate_rows``, ``images``, ``planes``, ``unresolved_rows``, ``missing_files``,
        ``guidance_files``, ``images_left_out``.
    """

    root: str
    metadata_url: str
    metadata_sha256: str
    records: pa.Table
    guidance: pa.ChunkedArray
    unresolved: pa.Table
    missing_files: pa.Table
    problems: tuple[PublishedProblem, ...]
    counts: Mapping[str, int]


def read_published(
    url: str | os.PathLike[str],
    *,
    metadata: str | None = None,
    storage_options: StorageOptions | None = None,
    check_files: bool | None = None,
    guidance: bool = True,
) -> PublishedTable:
    """Read the metadata of a published layout; no pixel is read.

    Parameters
    ----------
    url : str or path
        The folder, or the one above it: a local path or any URL that fsspec knows.
    metadata : str, optional
        Name of the table in the folder, or its URL; then the folder may be of any name and layout. By default that
        ``*_metadata.csv`` which states most files.
    storage_options : mapping, optional
        Options for the filesystem.
    check_files : bool, optional
        Whether to look which of the stated files are there, by listing their folders. By default where the folder is
        local.
    guidance : bool
        Whether to list the guidance files; False leaves all of them null.

    Returns
    -------
    PublishedTable

    Raises
    ------
    ChammiError
        If there is no published layout, no metadata table, or the table cannot be read or lacks a column that is
        needed.
    """
    found = find_published_root(url, storage_options)
    if found is None and metadata and list_folder(absolute_url(url), storage_options) is not None:
        found = PublishedRoot(absolute_url(url), (), False)  # a table that is named says what the files are
    if found is None:
        raise ChammiError(
            f"{os.fspath(url)}: this is no published CHAMMI-75 layout: it holds neither {PLANES_FOLDER}/ nor a"
            " *_metadata.csv with the published columns (nor does a CHAMMI-75/ in it)"
        )
    rows, others, unread = _read_tables(found, metadata, storage_options)
    reading = GroupedRows(rows)
    reading.problems += unread
    reading.take_paths_from(others)
    reading.leave_out_shared_files()
    checked = is_local(found.root) if check_files is None else check_files
    there = files_there(found.root, reading.path, storage_options) if checked else reading.is_stated
    images = _kept_images(reading, there, found.root, storage_options, with_guidance=guidance)
    records, guidance_lists = records_and_guidance(images)
    unresolved = reading.table_of(~reading.is_stated)
    missing = reading.table_of(reading.is_stated & ~there, with_path=True)
    counts = {
        "rows": len(rows.row),
        "duplicate_rows": reading.duplicate_rows,
        "images": len(records),
        "planes": len(images.path),
        "unresolved_rows": len(unresolved),
        "missing_files": len(missing),
        "guidance_files": len(images.guidance) - images.guidance.null_count,
        "images_left_out": len(reading.first_row) - len(records),
    }
    return PublishedTable(
        found.root,
        rows.url,
        reading.sha256,
        records,
        guidance_lists,
        unresolved,
        missing,
        tuple(reading.problems),
        counts,
    )


def _read_tables(
    found: PublishedRoot, metadata: str | None, storage_options: StorageOptions | None
) -> tuple[PublishedRows, list[PublishedRows], list[PublishedProblem]]:
    """The table to read, the other ones beside it, and what is wrong with those that cannot be read."""
    named = _metadata_url(found, metadata, storage_options) if metadata else None
    chosen = read_rows(named, storage_options) if named else None
    others: list[PublishedRows] = []
    failures: list[ReadError] = []
    for url in found.metadata_urls:
        if url == named:
            continue
        try:
            others.append(read_rows(url, storage_options))
        except ReadError as error:
            failures.append(error)
    if chosen is None:
        if not others:
            if failures:
                raise failures[0]
            raise ChammiError(
                f"{found.root}: {PLANES_FOLDER}/ is there, but no *_metadata.csv with the published columns that says"
                " what its files are: name the table with metadata="
            )
        chosen = max(others, key=lambda table: len(table.path) - table.path.null_count)
        others = [table for table in others if table is not chosen]
    return chosen, others, [PublishedProblem("unreadable", table_name(error.path), error.reason) for error in failures]


def _metadata_url(found: PublishedRoot, metadata: str, storage_options: StorageOptions | None) -> str:
    if not is_local(metadata):
        return metadata
    if not Path(metadata).is_absolute():
        inside = join_url(found.root, metadata)
        if exists(inside, storage_options):
            return inside
    if not exists(metadata):
        known = ", ".join(url.rsplit("/", 1)[-1] for url in found.metadata_urls) or "none"
        raise ChammiError(
            f"{metadata}: there is no such metadata table, neither in {found.root} (there: {known}) nor as a path"
        )
    return absolute_url(metadata)


def _kept_images(
    reading: GroupedRows, there: np.ndarray, root: str, storage_options: StorageOptions | None, *, with_guidance: bool
) -> PublishedImages:
    """What is known of the images that have a plane and no conflict."""
    import pyarrow as pa
    from pyarrow import compute as pc

    text = {name: reading.text(name) for name in _IMAGE_TEXT}
    text["experiment.study"] = _plain_studies(reading, text["experiment.study"])
    numbers = {
        f"geometry.{name}": reading.numbers(
            f"geometry.{name}", whole_number, minimum, MOST_CHANNELS if name == "channels" else INT32_MAXIMUM
        )
        for name, minimum in _IMAGE_NUMBERS.items()
    }
    magnifications, problems = read_numbers(reading.rows, "microscopy.magnification", magnification_number, 1e-3, 1e5)
    reading.problems += problems
    numbers["microscopy.magnification"] = magnifications[text["microscopy.magnification"].codes]

    present = there & ~reading.left_out[reading.group]
    _fill_sizes(reading, numbers, present, root, storage_options)
    present &= ~reading.left_out[reading.group]
    image_ids, sources = _image_ids(reading, text["experiment.study"], present)
    present &= ~reading.left_out[reading.group]

    planes = np.flatnonzero(present)
    kept, first_plane = np.unique(reading.group[planes], return_index=True)
    channels = numbers.pop("geometry.channels")
    first_missing, missing = _missing_channels(reading, image_ids, kept, planes, channels)
    rows = reading.source_row[planes]
    columns = reading.rows.columns
    channel = reading.channel[planes]
    path = _taken(reading.path, planes)
    return PublishedImages(
        image_id=image_ids.take(kept),
        multi_channel_id=reading.ids.take(reading.image_code[kept]),
        text={name: column.take(kept) for name, column in {**text, "provenance.source": sources}.items()},
        numbers={name: values[kept] for name, values in numbers.items()},
        first_plane=np.append(first_plane, len(planes)).astype(np.int64),
        channel=channel,
        channel_type=columns["imaging.channel_type"].take(rows),
        panel=panel_words(columns["imaging.panel"].take(rows), channel, channels[reading.group[planes]]),
        filename=columns["storage.filename"].take(rows),
        path=path,
        guidance=_guidance(root, path, storage_options)
        if with_guidance
        else pc.if_else(False, path, pa.scalar(None, path.type)),
        first_missing=first_missing,
        missing=missing,
    )


def _taken(array: pa.Array, positions: np.ndarray) -> pa.Array:
    return array if len(positions) == len(array) else array.take(positions)  # positions ascend: then these are all


def _plain_studies(reading: GroupedRows, studies: TextColumn) -> TextColumn:
    """``studies`` less the words that would make an image id look like another path."""
    odd = [word for word in studies.words if word in (".", "..") or re.search(r"[/\\\x00-\x1f]", word)]
    for word in odd:
        reading.note(f"experiment.study {word[:80]!r} is no plain name; it is read as unknown")
    plain = np.array([-1 if word in odd else code for code, word in enumerate(studies.words)] + [-1], np.int32)
    return TextColumn(studies.words, plain[studies.codes])


def _fill_sizes(
    reading: GroupedRows,
    numbers: dict[str, np.ndarray],
    present: np.ndarray,
    root: str,
    storage_options: StorageOptions | None,
) -> None:
    """Widths and heights that the table does not state, from the header of the image's first file."""
    width, height = numbers["geometry.width"], numbers["geometry.height"]
    planes = np.flatnonzero(present)
    images, first = np.unique(reading.group[planes], return_index=True)
    unknown = (width[images] == NULL) | (height[images] == NULL)
    if not unknown.any():
        return
    filled = []
    for image, plane in zip(images[unknown], planes[first[unknown]], strict=True):
        path = reading.path[int(plane)].as_py()
        try:
            width[image], height[image] = png_size(join_url(root, path), storage_options)
            filled.append(image)
        except ReadError as error:
            reading.left_out[image] = True
            reason = f"its size is stated nowhere, and {error.reason}; image {reading.id_of(image)} is left out"
            reading.problems.append(PublishedProblem("unreadable", path, reason))
    if filled:
        reading.note(
            f"{len(filled)} images have no whole number as geometry.width or height (first:"
            f" {reading.id_of(filled[0])}); their size was read from their files"
        )


def _image_ids(reading: GroupedRows, studies: TextColumn, present: np.ndarray) -> tuple[pa.Array, TextColumn]:
    """``image_id`` (null without a plane) and source, shape (images,). Of images of one id one stays."""
    import pyarrow as pa
    from pyarrow import compute as pc

    planes = np.flatnonzero(present)
    images, first = np.unique(reading.group[planes], return_index=True)
    names = image_names(_taken(reading.path, planes), np.append(first, len(planes)).astype(np.int64))
    codes = studies.codes.copy()
    nameless = np.flatnonzero(codes[images] < 0)
    words = list(studies.words)
    if len(nameless):  # the layout names the source too: its folder
        folders = pc.replace_substring_regex(
            names.take(nameless), f"^(?:{PLANES_FOLDER}/)?([^/]*).*$", r"\1"
        ).to_pylist()
        code_of = {word: code for code, word in enumerate(words)}
        codes[images[nameless]] = [code_of.setdefault(folder, len(code_of)) for folder in folders]
        words = list(code_of)
    sources = TextColumn(tuple(words), codes)
    names = pc.replace_substring_regex(names, f"^{PLANES_FOLDER}/[^/]+/", "")
    ids = concatenated(sources.take(images).to_arrow(), "/", names)
    encoded = ids.dictionary_encode()
    if len(encoded.dictionary) < len(ids):
        code = encoded.indices.to_numpy(zero_copy_only=False)
        _, earliest = np.unique(code, return_index=True)
        for position in np.setdiff1d(np.arange(len(code)), earliest):
            image, other = images[position], images[earliest[code[position]]]
            reading.left_out[image] = True
            reason = f"its files are those of {reading.id_of(other)} ({ids[int(position)]}); the image is left out"
            reading.problems.append(PublishedProblem("conflict", reading.id_of(image), reason))
    position_of = np.full(len(reading.first_row), -1)
    position_of[images] = np.arange(len(images))
    return ids.take(pa.array(position_of, mask=position_of < 0)), sources


def _missing_channels(
    reading: GroupedRows, image_ids: pa.Array, kept: np.ndarray, planes: np.ndarray, channels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The numbers from 1 to ``geometry.channels`` without a plane, as offsets (images + 1,) and values."""
    stated = np.where(channels[kept] == NULL, 0, channels[kept])
    position = np.repeat(
        np.arange(len(kept)), np.diff(np.append(np.unique(reading.group[planes], return_index=True)[1], len(planes)))
    )
    channel = reading.channel[planes]
    inside = channel <= stated[position]
    beyond = np.unique(position[~inside & (stated[position] > 0)])
    if len(beyond):
        reading.note(
            f"{len(beyond)} images have channel numbers beyond their geometry.channels (first:"
            f" {reading.id_of(kept[beyond[0]])})"
        )
    begins = np.concatenate([[0], np.cumsum(stated)])
    lacks = np.ones(int(begins[-1]), bool)
    lacks[begins[position[inside]] + channel[inside] - 1] = False
    where = np.flatnonzero(lacks)
    owner = np.searchsorted(begins, where, side="right") - 1
    missing = where - begins[owner] + 1
    counts = np.bincount(owner, minlength=len(kept)) if len(owner) else np.zeros(len(kept), np.int64)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    for image in np.flatnonzero(counts):
        numbers = ", ".join(map(str, missing[offsets[image] : offsets[image + 1]]))
        reason = f"of its {stated[image]} channels these have no file: {numbers}"
        reading.problems.append(PublishedProblem("missing_channel", image_ids[int(kept[image])].as_py(), reason))
    return offsets, missing.astype(np.int64)


def _guidance(root: str, paths: pa.Array, storage_options: StorageOptions | None) -> pa.Array:
    """Each plane's guidance file, null where it is not there."""
    import pyarrow as pa
    from pyarrow import compute as pc

    names = list_folder(join_url(root, GUIDANCE_FOLDER), storage_options)
    if not names:
        return pa.nulls(len(paths), pa.large_string())
    expected = guidance_paths(paths)
    there = files_there(root, expected, storage_options)
    return pc.if_else(pa.array(there), expected, pa.scalar(None, expected.type))
