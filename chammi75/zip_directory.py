"""The directory of a zip archive as columns: a hundred bytes for each file, so that millions of them fit.

Nothing that a directory says is trusted: names that lead out, links, encrypted files, files that overlap, and sizes
that cannot be are left out and named. The format is PKWARE's APPNOTE 6.3.10; stored and deflated files are
read, ZIP64 too, archives in parts are not.
"""

from __future__ import annotations

import os
import re
import struct
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from chammi75.errors import ReadError

if TYPE_CHECKING:
    import pyarrow as pa

MOST_REPORTED = 100
"""How many files that are left out are named one by one."""

_END = struct.Struct("<4s4H2LH")
_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
LOCAL_HEADER = struct.Struct("<4s5H3L2H")
_RECORD = np.dtype(
    [
        ("signature", "S4"),
        ("made_by", "<u2"),
        ("needs", "<u2"),
        ("flags", "<u2"),
        ("method", "<u2"),
        ("time", "<u4"),
        ("crc", "<u4"),
        ("stored", "<u4"),
        ("bytes", "<u4"),
        ("name", "<u2"),
        ("extra", "<u2"),
        ("comment", "<u2"),
        ("disk", "<u2"),
        ("internal", "<u2"),
        ("external", "<u4"),
        ("offset", "<u4"),
    ]
)
_LONGEST_TAIL = _END.size + 0xFFFF + _LOCATOR.size
_BLOCK_RECORDS = 65536
_STORED, _DEFLATED = 0, 8
_ENCRYPTED = 0x1 | 0x40 | 0x2000
_LINK = 0o120000
_LARGEST_BYTES = 16 * 2**30  # the published table has 2 GB
_DEFLATE_LIMIT = 1032  # no deflate stream says more with less
_SUSPICIOUS_RATIO, _SUSPICIOUS_BYTES = 200, 16 * 2**20  # PNG hardly compresses, a table of text 20 to 50 times

Read = Callable[[int, int], bytes]
"""Gives bytes of the archive from one offset up to another."""


@dataclass(frozen=True)
class ArchiveDirectory:
    """The files of an archive, sorted by name.

    Parameters
    ----------
    names : pyarrow.LargeStringArray
        Shape (files,): their paths inside, with forward slashes.
    offsets, spans : numpy.ndarray
        Shape (files,), int64: where each file's header begins, and bytes from there that hold all of the file.
    stored_bytes, sizes : numpy.ndarray
        Shape (files,), int64: bytes in the archive, and unpacked.
    checksums : numpy.ndarray
        Shape (files,), uint32: CRC-32 of the unpacked bytes.
    deflated : numpy.ndarray
        Shape (files,), bool.
    problems : tuple of (str, str)
        Name and reason of what was left out; of many, the first, and one more entry that counts the others.
    """

    names: pa.Array
    offsets: NDArray[np.int64]
    spans: NDArray[np.int64]
    stored_bytes: NDArray[np.int64]
    sizes: NDArray[np.int64]
    checksums: NDArray[np.uint32]
    deflated: NDArray[np.bool_]
    problems: tuple[tuple[str, str], ...]

    def __len__(self) -> int:
        return len(self.offsets)

    def name(self, row: int) -> str:
        """The name in a row."""
        return str(self.names[row].as_py())

    def position(self, name: str) -> int:
        """The first row whose name is not before ``name``."""
        return bisect_left(range(len(self)), name.encode(), key=lambda row: self.name(row).encode())

    def find(self, name: str) -> int | None:
        """The row of a file; None if it is not there."""
        row = self.position(name)
        return row if row < len(self) and self.name(row) == name else None


def parse_directory(read: Read, size: int, path: str) -> ArchiveDirectory:
    """The directory of the zip archive ``path``.

    Parameters
    ----------
    read : callable
        ``read(start, stop)`` gives those bytes of the archive.
    size : int
        Bytes of the archive.
    path : str
        Its name, for messages.

    Raises
    ------
    ReadError
        If it is no zip archive, is cut short or comes in parts, or its directory is damaged.

    Examples
    --------
    >>> import io, zipfile
    >>> with zipfile.ZipFile(file := io.BytesIO(), "w") as archive:
    ...     archive.writestr("a/b.txt", "hello")
    >>> content = file.getvalue()
    >>> directory = parse_directory(lambda start, stop: content[start:stop], len(content), "a.zip")
    >>> directory.names.to_pylist(), directory.sizes.tolist()
    (['a/b.txt'], [5])
    """
    start, stop, shift, count = _find_directory(read, size, path)
    content = read(start, stop)
    if len(content) != stop - start:
        raise ReadError(path, "the archive's directory cannot be read whole; is the file still being written?")
    starts = _record_starts(content, path)
    if len(starts) & 0xFFFF != count & 0xFFFF:
        raise ReadError(path, f"the archive's directory has {len(starts)} entries and states {count}: it is damaged")
    return _checked(content, starts, start, shift, path)


def _find_directory(read: Read, size: int, path: str) -> tuple[int, int, int, int]:
    """Where the directory begins and ends, what is to be added to its offsets, and how many entries it states."""
    tail_start = max(0, size - _LONGEST_TAIL)
    tail = read(tail_start, size)
    at = tail.rfind(b"PK\5\6")
    while at >= 0 and (at + _END.size > len(tail) or at + _END.size + _END.unpack_from(tail, at)[7] > len(tail)):
        at = tail.rfind(b"PK\5\6", 0, at)
    if at < 0:
        raise ReadError(
            path, "this is no whole zip archive: its directory, at the end, is not there (is it cut short?)"
        )
    _, disk, first_disk, _, count, length, offset, _ = _END.unpack_from(tail, at)
    stop = tail_start + at
    locator = tail[at - _LOCATOR.size : at] if at >= _LOCATOR.size else b""
    if locator.startswith(b"PK\6\7"):
        stated = _LOCATOR.unpack(locator)[2]
        for position in (stated, stop - _LOCATOR.size - _END64.size):  # the second if something precedes the archive
            record = read(position, position + _END64.size) if 0 <= position <= size - _END64.size else b""
            if len(record) == _END64.size and record.startswith(b"PK\6\6"):
                _, _, _, _, disk, first_disk, _, count, length, offset = _END64.unpack(record)
                stop = position
                break
        else:
            raise ReadError(path, "the archive's ZIP64 directory is not where it should be: the file is damaged")
    if disk or first_disk:
        raise ReadError(path, "this is one part of an archive in several; join them first")
    start = stop - length
    if start < 0 or offset > start:
        raise ReadError(path, "the archive's directory lies beyond its file: it is damaged or cut short")
    return start, stop, start - offset, count


def _record_starts(content: bytes, path: str) -> NDArray[np.int64]:
    lengths = struct.Struct("<3H").unpack_from
    starts = []
    at, end = 0, len(content)
    try:
        while at < end and content[at : at + 4] == b"PK\1\2":
            starts.append(at)
            name, extra, comment = lengths(content, at + 28)
            at += _RECORD.itemsize + name + extra + comment
    except struct.error:
        at = end + 1
    if at > end or (at < end and content[at : at + 4] != b"PK\5\5"):  # a digital signature may follow
        raise ReadError(path, f"the archive's directory is damaged at its entry {len(starts)}")
    return np.array(starts, np.int64)


def _checked(content: bytes, starts: NDArray[np.int64], stop: int, shift: int, path: str) -> ArchiveDirectory:
    """The directory's entries as columns, less those that may not be followed. ``stop``: where the files end."""
    import pyarrow as pa
    from pyarrow import compute as pc

    raw = np.frombuffer(content, np.uint8)
    blocks, names = [], []
    for first in range(0, len(starts), _BLOCK_RECORDS):
        at = starts[first : first + _BLOCK_RECORDS]
        block = np.ascontiguousarray(raw[at[:, None] + np.arange(_RECORD.itemsize)]).view(_RECORD).ravel()
        blocks.append(block)
        begins = at + _RECORD.itemsize
        names.append(_texts([content[a:b] for a, b in zip(begins, begins + block["name"], strict=True)]))
    fields = np.concatenate([np.zeros(0, _RECORD), *blocks])
    name = pa.concat_arrays([pa.array([], pa.large_string()), *names])
    stored, sizes, offsets = (fields[key].astype(np.int64) for key in ("stored", "bytes", "offset"))
    for row in np.flatnonzero((stored == 0xFFFFFFFF) | (sizes == 0xFFFFFFFF) | (offsets == 0xFFFFFFFF)):
        begin = int(starts[row]) + _RECORD.itemsize + int(fields["name"][row])
        extra = content[begin : begin + int(fields["extra"][row])]
        sizes[row], stored[row], offsets[row] = _zip64(extra, int(sizes[row]), int(stored[row]), int(offsets[row]))
    offsets += shift

    reasons = np.zeros(len(fields), np.int8)
    name, leading_out = _safe_names(name)
    is_folder = pc.ends_with(name, "/").fill_null(False).to_numpy(zero_copy_only=False)
    ends = offsets + LOCAL_HEADER.size + fields["name"] + stored
    ratio = sizes / np.maximum(stored, 1)
    rules: tuple[tuple[str, NDArray[np.bool_]], ...] = (
        ("its name leads out of the archive", leading_out),
        ("it is a link", (fields["external"] >> 16) & 0o170000 == _LINK),
        ("it is encrypted", fields["flags"] & _ENCRYPTED != 0),
        (
            "it is compressed in a way that is not read here (stored and deflated files are)",
            ~np.isin(fields["method"], (_STORED, _DEFLATED)),
        ),
        ("it lies in another part of the archive", (fields["disk"] != 0) & (fields["disk"] != 0xFFFF)),
        (
            "it lies beyond the end of the archive's files",
            (stored < 0) | (sizes < 0) | (offsets < shift) | (ends > stop),
        ),
        ("it states two sizes", (fields["method"] == _STORED) & (stored != sizes)),
        (
            "it states a size that its bytes cannot unpack to",
            (sizes > _LARGEST_BYTES)
            | ((sizes > _DEFLATE_LIMIT * stored + 64) & (fields["method"] == _DEFLATED))
            | ((ratio > _SUSPICIOUS_RATIO) & (sizes > _SUSPICIOUS_BYTES)),
        ),
        ("other files of the archive lie in the same bytes", _overlapping(offsets, ends, ~is_folder)),
        ("its name stands there twice", _repeated(name, ~is_folder)),
    )
    texts = [text for text, _ in rules]
    for number in range(len(rules), 0, -1):  # so that the first reason is the one that stays
        reasons[rules[number - 1][1]] = number
    reasons[is_folder & ~leading_out] = -1
    refused = np.flatnonzero(reasons > 0)
    shown = [content[int(starts[row]) + 46 :][: int(fields["name"][row])] for row in refused[:MOST_REPORTED]]
    problems = [
        (_printable(text), f"{texts[reasons[row] - 1]}; it is left out")
        for text, row in zip(shown, refused, strict=False)
    ]
    if len(refused) > MOST_REPORTED:
        problems.append((os.path.basename(path), f"{len(refused) - MOST_REPORTED} more of its files are left out"))  # noqa: PTH119

    by_offset = np.argsort(offsets, kind="stable")
    following = np.append(offsets[by_offset][1:], stop)
    spans = np.empty(len(offsets), np.int64)
    spans[by_offset] = following - offsets[by_offset]
    spans = np.minimum(spans, ends - offsets + 0xFFFF)  # the header's own extra field is 65,535 bytes at most
    good = np.flatnonzero(reasons == 0)
    order = good[pc.sort_indices(name.take(good).cast(pa.large_binary())).to_numpy()] if len(good) else good
    return ArchiveDirectory(
        name.take(order),
        offsets[order],
        spans[order],
        stored[order],
        sizes[order],
        fields["crc"][order].astype(np.uint32),
        fields["method"][order] == _DEFLATED,
        tuple(problems),
    )


def _texts(names: list[bytes]) -> pa.Array:
    """Names as text: UTF-8, else the code page 437 that the format means where it is no UTF-8."""
    import pyarrow as pa

    try:
        return pa.array(names, pa.large_binary()).cast(pa.large_string())
    except pa.ArrowInvalid:
        return pa.array([_text(name) for name in names], pa.large_string())


def _text(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError:
        return name.decode("cp437")


def _printable(name: bytes) -> str:
    text = _text(name)[:200]
    return text if text.isprintable() else text.encode("unicode_escape").decode()


def _zip64(extra: bytes, size: int, stored: int, offset: int) -> tuple[int, int, int]:
    """The sizes and the offset, those beyond 32 bits from the ZIP64 field; -1 where it lacks them."""
    at, values = 0, b""
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == 1:
            values = extra[at + 4 : at + 4 + length]
            break
        at += 4 + length
    found = []
    for value in (size, stored, offset):
        if value == 0xFFFFFFFF:
            number = int.from_bytes(values[:8], "little") if len(values) >= 8 else -1
            values = values[8:]
            value = number if number < 2**62 else -1
        found.append(value)
    return found[0], found[1], found[2]


def _safe_names(names: pa.Array) -> tuple[pa.Array, NDArray[np.bool_]]:
    """Names in normal form, null where they lead out of the archive or are no path."""
    import pyarrow as pa
    from pyarrow import compute as pc

    odd = pc.match_substring_regex(names, r"\.\.|[\\:\x00-\x1f]|^/|//|^\./|/\./|^$|/\.$|^\.$")
    suspects = np.flatnonzero(odd.to_numpy(zero_copy_only=False))
    refused = np.zeros(len(names), bool)
    if not len(suspects):
        return names, refused
    normal = [_safe_name(name) for name in names.take(suspects).to_pylist()]
    refused[suspects] = [name is None for name in normal]
    mask = np.zeros(len(names), bool)
    mask[suspects] = True
    return pc.replace_with_mask(names, pa.array(mask), pa.array(normal, pa.large_string())), refused


def _safe_name(name: str) -> str | None:
    text = name.replace("\\", "/")  # what some writers for Windows put there
    parts = text.split("/")
    if text.startswith("/") or ".." in parts or re.search(r"^[A-Za-z]:|::|://|[\x00-\x1f]", text):
        return None
    kept = [part for part in parts if part not in ("", ".")]
    return "/".join(kept) + ("/" if text.endswith(("/", "/.")) else "") if kept else None


def _overlapping(
    offsets: NDArray[np.int64], ends: NDArray[np.int64], considered: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    flags = np.zeros(len(offsets), bool)
    rows = np.flatnonzero(considered)
    rows = rows[np.argsort(offsets[rows], kind="stable")]
    if len(rows) > 1:
        clash = np.maximum.accumulate(ends[rows])[:-1] > offsets[rows][1:]
        flags[rows[1:][clash]] = True
        flags[rows[:-1][ends[rows][:-1] > offsets[rows][1:]]] = True
    return flags


def _repeated(names: pa.Array, considered: NDArray[np.bool_]) -> NDArray[np.bool_]:
    encoded = names.dictionary_encode().indices.fill_null(-1).to_numpy(zero_copy_only=False)
    counts = np.bincount(encoded[(encoded >= 0) & considered], minlength=int(encoded.max(initial=0)) + 1)
    return np.asarray((encoded >= 0) & considered & (counts[encoded] > 1))
