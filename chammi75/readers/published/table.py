"""The published CHAMMI-75 layout: a metadata table with one row per channel file, read as one record per image.

The table is one CSV of up to 8 million rows; the planes are 8-bit PNG files, one per channel, and beside them lie
guidance files with cell centroids. A file belongs to a row only if a table states it: a file of a likely name is never
taken for it. What does not fit (two files for one channel, a missing one, text where a number stands) is reported and
left out, never repaired by guess.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from chammi75.errors import ReadError
from chammi75.files import StorageOptions, absolute_url, is_local, join_url
from chammi75.readers.published.csv_rows import (
    NULL,
    PATH_COLUMN,
    SOURCE_COLUMNS,
    PublishedProblem,
    TextColumn,
    concatenated,
    magnification_number,
    read_numbers,
    whole_number,
)
from chammi75.readers.published.files import (
    GUIDANCE_FOLDER,
    PLANES_FOLDER,
    files_there,
    folder_stamp,
    list_folder,
    png_sizes,
)
from chammi75.readers.published.grouping import INT32_MAXIMUM, MOST_CHANNELS, GroupedRows
from chammi75.readers.published.records import (
    PublishedImages,
    guidance_paths,
    image_names,
    panel_words,
    records_and_guidance,
)
from chammi75.readers.published.root import (
    NotPublishedError,
    PublishedRoot,
    archive_problems,
    archive_url,
    find_published_root,
    is_archive,
    members,
)
from chammi75.readers.published.tables import read_tables

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["PublishedProblem", "PublishedRoot", "PublishedTable", "find_published_root", "read_published"]

_IMAGE_TEXT = (
    *(f"experiment.{name}" for name in ("study", "plate", "well", "reagent", "control")),
    *(f"biology.{name}" for name in ("organism", "cell_line", "cell_type")),
    *(f"microscopy.{name}" for name in ("type", "magnification", "fov")),
    "geometry.dtype",
    *SOURCE_COLUMNS,
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
    files_sha256 : str
        SHA-256 over which of the stated files, and which guidance files, are taken to be there.
    records : pyarrow.Table
        One row per image with the schema of ``chammi75.schemas.arrow.record_schema``, in the order in which the table
        first names them; channels in the order of their numbers.
    guidance : pyarrow.ChunkedArray
        list<string>, one list per record: each plane's guidance file, relative to ``root``; null where there is none.
        Where files were not checked, this is where the file would be: it may not be there.
    unresolved : pyarrow.Table
        The rows whose file no table states: ``row``, ``experiment.study``, ``imaging.multi_channel_id``,
        ``imaging.channel``.
    missing_files : pyarrow.Table
        The rows whose file is stated but not there: the same columns and ``storage.path``. Empty where this was not
        checked.
    problems : tuple of PublishedProblem
        Everything that did not fit: (kind, file or image, reason).
    counts : mapping
        ``rows``, ``duplicate_rows``, ``images``, ``planes``, ``unresolved_rows``, ``unresolved_images`` (no file of
        theirs is stated), ``missing_files``, ``images_left_out``; ``guidance_files`` where files were checked.
    stamps : mapping
        The local folders whose listing says which files are there, relative to ``root``, and when each changed last;
        None for one that is not there.
    """

    root: str
    metadata_url: str
    metadata_sha256: str
    files_sha256: str
    records: pa.Table
    guidance: pa.ChunkedArray
    unresolved: pa.Table
    missing_files: pa.Table
    problems: tuple[PublishedProblem, ...]
    counts: Mapping[str, int]
    stamps: Mapping[str, int | None] = field(default_factory=dict)


@dataclass
class _Files:
    """Which files are there: asked of an archive's directory or of the folders, or believed.

    Parameters
    ----------
    root : str
        The folder that paths are relative to.
    storage_options : mapping, optional
        For its filesystem.
    is_checked : bool
        Whether to look.
    inside : pyarrow.LargeStringArray, optional
        The files of the archive.
    stamps : dict
        The local folders that were listed.
    """

    root: str
    storage_options: StorageOptions | None
    is_checked: bool
    inside: pa.Array | None
    stamps: dict[str, int | None] = field(default_factory=dict)

    def there(self, paths: pa.Array) -> np.ndarray:
        from pyarrow import compute as pc

        if not self.is_checked:
            return np.asarray(paths.is_valid().to_numpy(zero_copy_only=False))
        if self.inside is not None:
            found = pc.and_(paths.is_valid(), pc.is_in(paths, value_set=self.inside))
            return np.asarray(found.to_numpy(zero_copy_only=False))
        return files_there(self.root, paths, self.storage_options, self.stamps)


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
        The folder, the one above it, or a zip archive: a local path or any URL that fsspec knows.
    metadata : str, optional
        Name of the table in the folder, in the archive or beside it, or its URL; then the folder may be of any name
        and layout. By default that ``*_metadata.csv`` which states most files, of an archive most of its files.
    storage_options : mapping, optional
        Options for the filesystem.
    check_files : bool, optional
        Whether to look which of the stated files are there, by listing their folders. By default where the folder is
        local; of an archive always, since its directory says it.
    guidance : bool
        Whether to look for the guidance files; False leaves all of them null.

    Returns
    -------
    PublishedTable

    Raises
    ------
    NotPublishedError
        If there is no published layout.
    ChammiError
        If there is no metadata table, or the table cannot be read or lacks a column that is
        needed.
    """
    found = find_published_root(url, storage_options)
    if found is None and metadata:
        top = archive_url(url, storage_options) or absolute_url(url)
        if list_folder(top, storage_options) is not None:
            found = PublishedRoot(top, (), False)  # a table that is named says what the files are
    if found is None:
        raise NotPublishedError(
            f"{os.fspath(url)}: this is no published CHAMMI-75 layout: it holds neither {PLANES_FOLDER}/ nor a"
            " *_metadata.csv with the published columns (nor does a CHAMMI-75/ in it)"
        )
    inside = members(found.root, storage_options) if is_archive(found.root) else None
    checked = inside is not None or (is_local(found.root) if check_files is None else check_files)
    files = _Files(found.root, storage_options, checked, inside)
    tables = read_tables(found, metadata, storage_options, inside)
    reading = GroupedRows(tables.chosen)
    if not reading.is_stated.all():
        reading.take_paths_from(tables.read_others(storage_options))
    reading.problems += tables.problems
    if not reading.path.is_valid().to_numpy(zero_copy_only=False).any() and not tables.states_paths:
        raise ReadError(
            tables.chosen.url,
            f"no metadata table has the column {PATH_COLUMN}, so that nothing says which files the images are. Name"
            " another table with metadata=",
        )
    if inside is not None:
        reading.problems += archive_problems(found.root, storage_options)
    reading.leave_out_shared_files()
    there = files.there(reading.path)
    images = _kept_images(reading, there, files, with_guidance=guidance)
    records, guidance_lists = records_and_guidance(images)
    unresolved = reading.table_of(~reading.is_stated)
    missing = reading.table_of(reading.is_stated & ~there, with_path=True)
    is_resolved = np.logical_or.reduceat(reading.is_stated, reading.first_row) if len(reading.first_row) else there
    counts = {
        "rows": len(tables.chosen.row),
        "duplicate_rows": reading.duplicate_rows,
        "images": len(records),
        "planes": len(images.path),
        "unresolved_rows": len(unresolved),
        "unresolved_images": int(np.count_nonzero(~is_resolved)),
        "missing_files": len(missing),
        "images_left_out": len(reading.first_row) - len(records),
    }
    if checked:
        counts["guidance_files"] = len(images.guidance) - images.guidance.null_count
    return PublishedTable(
        found.root,
        tables.chosen.url,
        reading.sha256,
        _files_sha256(there, images.guidance),
        records,
        guidance_lists,
        unresolved,
        missing,
        tuple(reading.problems),
        counts,
        files.stamps,
    )


def _files_sha256(there: np.ndarray, guidance: pa.Array) -> str:
    digest = hashlib.sha256()
    for flags in (there, guidance.is_valid().to_numpy(zero_copy_only=False)):
        digest.update(len(flags).to_bytes(8, "little") + np.packbits(flags).tobytes())
    return digest.hexdigest()


def _kept_images(reading: GroupedRows, there: np.ndarray, files: _Files, *, with_guidance: bool) -> PublishedImages:
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
    numbers["geometry.significant_bits"] = reading.numbers("geometry.significant_bits", whole_number, 1, 16)
    magnifications, problems = read_numbers(reading.rows, "microscopy.magnification", magnification_number, 1e-3, 1e5)
    reading.problems += problems
    numbers["microscopy.magnification"] = magnifications[text["microscopy.magnification"].codes]

    present = there & ~reading.left_out[reading.group]
    _fill_sizes(reading, numbers, present, files)
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
        guidance=_guidance(files, path) if with_guidance else pc.if_else(False, path, pa.scalar(None, path.type)),
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
    files: _Files,
) -> None:
    """Widths and heights that the table does not state, from the header of the image's first file."""
    width, height = numbers["geometry.width"], numbers["geometry.height"]
    planes = np.flatnonzero(present)
    images, first = np.unique(reading.group[planes], return_index=True)
    unknown = (width[images] == NULL) | (height[images] == NULL)
    if not unknown.any():
        return
    lacking, first_planes = images[unknown], planes[first[unknown]]
    paths = reading.path.take(first_planes).to_pylist()
    sizes = png_sizes([join_url(files.root, path) for path in paths], files.storage_options)
    filled, failed = [], []
    for number, (image, size) in enumerate(zip(lacking, sizes, strict=True)):
        if isinstance(size, ReadError):
            failed.append(number)
        else:
            width[image], height[image] = size
            filled.append(image)
    reading.left_out[lacking[failed]] = True

    def unreadable(k: int) -> tuple[str, str]:
        image, error = lacking[failed[k]], sizes[failed[k]]
        reason = f"its size is stated nowhere, and {getattr(error, 'reason', error)}"
        return paths[failed[k]], f"{reason}; image {reading.id_of(image)} is left out"

    what = "files state no size, nor does the table; their images are left out"
    reading.report("unreadable", len(failed), unreadable, what)
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
        again = np.setdiff1d(np.arange(len(code)), earliest)
        reading.left_out[images[again]] = True

        def conflict(k: int) -> tuple[str, str]:
            image, other = images[again[k]], images[earliest[code[again[k]]]]
            reason = f"its files are those of {reading.id_of(other)} ({ids[int(again[k])]}); the image is left out"
            return reading.id_of(image), reason

        what = "images have the files of another image; they are left out"
        reading.report("conflict", len(again), conflict, what)
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
    incomplete = np.flatnonzero(counts)

    def lacking(k: int) -> tuple[str, str]:
        image = int(incomplete[k])
        numbers = ", ".join(map(str, missing[offsets[image] : offsets[image + 1]]))
        name = image_ids[int(kept[image])].as_py()
        return name, f"of its {stated[image]} channels these have no file: {numbers}"

    what = "images lack files of channels: imaging.missing_channel of their records says which"
    reading.report("missing_channel", len(incomplete), lacking, what)
    return offsets, missing.astype(np.int64)


def _guidance(files: _Files, paths: pa.Array) -> pa.Array:
    """Each plane's guidance file, null where it is not there.

    Where files are not checked, a listing of millions of them would be needed to know: there, all planes of the
    studies that have a guidance folder get a path.
    """
    import pyarrow as pa
    from pyarrow import compute as pc

    nothing = pa.nulls(len(paths), pa.large_string())
    expected = guidance_paths(paths)
    if files.inside is None:
        if files.is_checked and is_local(files.root):
            files.stamps[GUIDANCE_FOLDER] = folder_stamp(join_url(files.root, GUIDANCE_FOLDER))
        studies = list_folder(join_url(files.root, GUIDANCE_FOLDER), files.storage_options)
        if not studies:
            return nothing
        if not files.is_checked:
            study = pc.replace_substring_regex(expected, f"^{GUIDANCE_FOLDER}/([^/]*)/.*$", r"\1")
            there = pc.is_in(study, value_set=pa.array(studies, study.type))
            return pc.if_else(there, expected, pa.scalar(None, expected.type))
    return pc.if_else(pa.array(files.there(expected)), expected, pa.scalar(None, expected.type))
