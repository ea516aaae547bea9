"""Makes images of grouped files: every series, timepoint, z-slice (and page, where a file names no axes) is one."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from chammi75.build.channels import Candidate, ChannelLayout, Placed, Placement
from chammi75.build.planned import Finding
from chammi75.readers.grouping import FileGroup
from chammi75.readers.image_file import ImageFile, Series


@dataclass(frozen=True, slots=True)
class Place:
    """One image in a file of many: all counted from 0."""

    series: int = 0
    t: int = 0
    z: int = 0
    page: int = 0


@dataclass(frozen=True, slots=True)
class Draft:
    """An image before its record is written.

    ``identity`` is the group's path and, in a file of many images, the place in it; ``z_slice``, ``timepoint`` and
    ``depth`` are None where neither the file's name nor the file speaks of them. ``dtype`` holds all channels without
    loss.
    """

    identity: str
    fields: Mapping[str, str]
    place: Place
    placed: tuple[Placed, ...]
    missing: tuple[int, ...]
    height: int
    width: int
    dtype: str
    z_slice: int | None
    timepoint: int | None
    depth: int | None

    @property
    def pixel_bytes(self) -> int:
        """Size of the decoded planes."""
        return self.height * self.width * len(self.placed) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True, slots=True)
class Drafts:
    """The images of a group of files, what is amiss, and the channels as a person would list them."""

    images: tuple[Draft, ...]
    findings: tuple[Finding, ...] = ()
    line: str = ""


def draft_images(
    group: FileGroup,
    files: Mapping[str, ImageFile],
    layout: ChannelLayout,
    *,
    keep_incomplete: bool = True,
    depth: int | None = None,
) -> Drafts:
    """The images of a group.

    Parameters
    ----------
    group : FileGroup
        Paths by channel token; a group without tokens has the token ``""``.
    files : mapping
        Path to what the file says of itself; files that cannot be read are absent.
    layout : ChannelLayout
    keep_incomplete : bool
        Whether images that lack a channel are kept.
    depth : int, optional
        How many z-slices the sibling groups make, where the pattern reads z.
    """
    conflicts = [(token, paths) for token, paths in group.files.items() if len(paths) > 1]
    if conflicts:
        reasons = "; ".join(
            f"{f'channel {token}' if token else 'one image'}: {' and '.join(paths)}" for token, paths in conflicts
        )
        return Drafts((), (Finding("conflict", group.identity, f"several files for {reasons}; the image is skipped"),))
    tokens = {paths[0]: token or None for token, paths in group.files.items() if paths[0] in files}
    if not tokens:
        return Drafts(())
    unlike = _unlike({path: files[path] for path in tokens})
    if unlike:
        return Drafts((), (Finding("mismatch", group.identity, f"{unlike}; the image is skipped"),))
    images: list[Draft] = []
    findings: list[Finding] = []
    line = ""
    count = len(next(iter(files[path].series for path in tokens)))
    for index in range(count):
        candidates = [
            Candidate(path, token if not files[path].companions else None, files[path], files[path].series[index], c)
            for path, token in tokens.items()
            for c in range(len(files[path].series[index].channel_names))
        ]
        name = f"{group.identity}#series={index}" if count > 1 else group.identity
        placement = layout.place(candidates)
        findings += _report_placement(name, placement, layout, keep_incomplete, group, files)
        if placement.disputed or not placement.placed or (placement.missing and not keep_incomplete):
            continue
        dtype, reason = _common_pixels(placement.placed)
        if reason:
            findings.append(Finding("mismatch", name, f"{reason}; the image is skipped"))
            continue
        series = placement.placed[0].candidate.series
        for field, axis, words in (("z", "Z", "z-slices"), ("t", "T", "timepoints")):
            if field in group.fields and series.sizes[axis] > 1:
                reason = f"its name says {field}={group.fields[field]}, and it holds {series.sizes[axis]} {words}"
                findings.append(Finding("note", name, f"{reason}: these are counted from 0"))
        made = list(_spread(group, placement, count, index, dtype, depth))
        images += made
        line = line or _line(group.identity, placement, layout)
    return Drafts(tuple(images), tuple(findings), f"{line}{_count(len(images))}" if images else "")


def _spread(
    group: FileGroup, placement: Placement, series_count: int, index: int, dtype: str, depth: int | None
) -> Iterator[Draft]:
    """The images of one series, in the order of time, z and page."""
    series = placement.placed[0].candidate.series
    times, slices, pages = series.sizes["T"], series.sizes["Z"], series.pages
    named_z, named_t = _number(group.fields.get("z")), _number(group.fields.get("t"))
    for t in range(times):
        for z in range(slices):
            for page in range(pages):
                words = [
                    *([f"series={index}"] if series_count > 1 else []),
                    *([f"t={t}"] if times > 1 else []),
                    *([f"z={z}"] if slices > 1 else []),
                    *([f"page={page}"] if pages > 1 else []),
                ]
                yield Draft(
                    identity="#".join([group.identity, "&".join(words)] if words else [group.identity]),
                    fields=group.fields,
                    place=Place(index, t, z, page),
                    placed=placement.placed,
                    missing=placement.missing,
                    height=series.height,
                    width=series.width,
                    dtype=dtype,
                    z_slice=z if slices > 1 else named_z,
                    timepoint=t if times > 1 else named_t,
                    depth=slices if slices > 1 else depth,
                )


def _unlike(files: Mapping[str, ImageFile]) -> str:
    """In what the files of a group differ that must be equal; empty if in nothing."""
    (first, reference), *others = files.items()
    for path, file in others:
        if len(file.series) != len(reference.series):
            return f"{first} holds {len(reference.series)} images, {path} {len(file.series)}"
        for one, other in zip(reference.series, file.series, strict=True):
            if _extent(one) != _extent(other):
                return f"{first} has {_extent_words(one)}, {path} {_extent_words(other)}"
    return ""


def _extent(series: Series) -> tuple[int, int, int]:
    return series.sizes["T"], series.sizes["Z"], series.pages


def _extent_words(series: Series) -> str:
    times, slices, pages = _extent(series)
    return f"{times} timepoints, {slices} z-slices, {pages} pages"


def _common_pixels(placed: Sequence[Placed]) -> tuple[str, str]:
    """The type that holds all channels without loss, or in what they differ that has to be equal."""
    first = placed[0].candidate
    dtypes = []
    for entry in placed:
        candidate = entry.candidate
        ours, theirs = (f"{c.series.width} x {c.series.height}" for c in (first, candidate))
        if ours != theirs:
            return "", f"{first.path} is {ours} pixels, {candidate.path} {theirs}"
        name = candidate.series.dtype
        dtypes.append(np.dtype("uint8" if name == "bool" else name))  # bits are read as 0 and 1 in bytes
        if (dtypes[0].kind == "f") != (dtypes[-1].kind == "f"):
            return "", f"{first.path} is {dtypes[0].name}, {candidate.path} {dtypes[-1].name}: integers and floats"
    common = np.result_type(*dtypes)
    if common.kind == "f" and dtypes[0].kind != "f":  # numpy has no integer for both int64 and uint64
        return "", f"no integer type holds both {dtypes[0].name} and {common.name}"
    return common.name, ""


def _report_placement(
    name: str,
    placement: Placement,
    layout: ChannelLayout,
    keep_incomplete: bool,
    group: FileGroup,
    files: Mapping[str, ImageFile],
) -> Iterator[Finding]:
    rules = ", ".join(rule.name or f"(position {at})" for at, rule in enumerate(layout.rules or (), 1))
    by_path: dict[str, list[Candidate]] = {}
    for candidate in placement.unnamed:
        by_path.setdefault(candidate.path, []).append(candidate)
    for path, candidates in by_path.items():
        words = ", ".join(next(word for word in candidate.words if word) for candidate in candidates)
        one = len(candidates) == 1
        reason = f"{'channel' if one else 'channels'} {words} {'is' if one else 'are'} named by no rule of the recipe"
        yield Finding("unmatched", path, f"{reason} (it names {rules}): left out")
    for word, hits in placement.disputed:
        where = " and ".join(f"{hit.path} channel {hit.c + 1}" for hit in hits)
        yield Finding("conflict", name, f"several channels are called {word!r}: {where}; the image is skipped")
    if placement.missing and placement.placed:
        unreadable = {token for token, paths in group.files.items() if paths[0] not in files}
        lacking = [layout.name_of(number) for number in placement.missing]
        words = ", ".join(f"{word} (its file is unreadable)" if word in unreadable else word for word in lacking)
        what = "the image is kept without" if keep_incomplete else "the image is skipped"
        yield Finding("missing_channel", name, f"lacks channel {words}: {what}")


def _line(identity: str, placement: Placement, layout: ChannelLayout) -> str:
    parts = []
    for entry in placement.placed:
        candidate = entry.candidate
        several = len(candidate.series.channel_names) > 1
        where = posixpath.basename(candidate.path) + (f"[{candidate.c}]" if several else "")
        label = candidate.token or candidate.name or layout.name_of(entry.number)
        parts.append(f"{label}: {where}")
    return f"{identity}  <-  {', '.join(parts)}"


def _count(images: int) -> str:
    return f"  ({images} images)" if images > 1 else ""


def _number(text: str | None) -> int | None:
    """A number of the file name; None if it is none, or larger than any count of slices."""
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 10 else None
