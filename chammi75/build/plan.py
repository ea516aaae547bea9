"""Plans a build: from a folder and its recipe to the images that it will hold, before a pixel is read.

    files --pattern--> groups --headers--> drafts --tables--> records

Everything that does not fit is a finding, never an exception; and the plan is the same on every machine, for any number
of workers and any order in which a filesystem lists its files.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from chammi75.build.cards import card_hashes, with_card
from chammi75.build.channels import lay_out_channels
from chammi75.build.drafts import Draft, draft_images
from chammi75.build.guidance import GuidanceFinder
from chammi75.build.joins import join_tables
from chammi75.build.listing import FoundFile, file_url, list_files
from chammi75.build.namings import FileNaming, leave_out, names_of, report_known_names
from chammi75.build.planned import BuildPlan, Finding, PlaneSource, PlannedImage
from chammi75.build.platemaps import read_map
from chammi75.build.recipes import source_id
from chammi75.build.records import image_id, image_keys, report_calibration, report_wells, report_words, write_record
from chammi75.build.tables import Table
from chammi75.build.times import number_times
from chammi75.errors import ChammiError, ReadError, RecipeError
from chammi75.files import StorageOptions, absolute_url, is_local, read_bytes, safe_relative_path
from chammi75.readers.grouping import FileGroup, FilePattern, group_files
from chammi75.readers.image_file import ImageFile
from chammi75.readers.registry import probe
from chammi75.schemas.recipe import BuildRecipe, TableJoin


def plan_folder(
    folder: str,
    recipe: BuildRecipe,
    *,
    recipe_folder: str | None = None,
    recipe_sha256: str | None = None,
    storage_options: StorageOptions | None = None,
    workers: int = 1,
) -> BuildPlan:
    """Plan the images of a folder; only names and headers are read.

    Parameters
    ----------
    folder : str
        Path or URL of the folder.
    recipe : BuildRecipe
        How its files become images.
    recipe_folder : str, optional
        What the recipe's tables and guidance files are relative to; ``folder`` if left out.
    recipe_sha256 : str, optional
        Hash of the recipe's file; that of its content if left out.
    storage_options : mapping, optional
        For the fsspec filesystem.
    workers : int
        How many files are opened at a time.

    Returns
    -------
    BuildPlan
        Images in natural order of their identity, then time, z and page.

    Raises
    ------
    RecipeError
        If the pattern, a table or the guidance template cannot be used.
    ChammiError
        If the folder cannot be listed.
    """
    root = absolute_url(folder)
    source = recipe.source or source_id(root)
    content = recipe.model_copy(update={"source": source}).model_dump_json().encode()
    recipe, of_card = with_card(recipe.model_copy(update={"source": source}))
    beside = absolute_url(recipe_folder) if recipe_folder is not None else root
    names = names_of(recipe)
    options_beside = None if is_local(beside) and not is_local(root) else storage_options
    finder = GuidanceFinder(recipe.guidance, beside, options_beside) if recipe.guidance is not None else None
    tables, findings = _read_tables(recipe.tables, beside, options_beside)

    found, listed = list_files(
        root, recipe.include, recipe.exclude, {_table_url(rule, beside) for rule in recipe.tables}, storage_options
    )
    findings += [*of_card, *listed]
    if isinstance(names, FileNaming):
        found, others = leave_out(found, names)
        findings += others
    groups, grouped = _group(found, names)
    findings += grouped
    wanted = {path for group in groups for paths in group.files.values() for path in paths}
    files, unreadable = _probe_all(
        [file for file in found if file.path in wanted], recipe.axes, storage_options, workers
    )
    findings += unreadable
    files, merged = _merge_companions(files)
    findings += merged
    findings += _report_notes(files)

    drafts, lines, reports = _draft_all(groups, files, recipe)
    findings += reports
    drafts, repeated = _drop_repeated(drafts, recipe)
    findings += repeated
    joined = join_tables(tables, [image_keys(draft, recipe) for draft in drafts])
    findings += joined.findings
    findings += report_wells(drafts)

    urls = {file.path: file.url for file in found}
    uris: Mapping[str, str] = {} if is_local(root) else urls
    images = []
    sought, absent = 0, 0
    for draft, stated in zip(drafts, joined.stated, strict=True):
        guidance = _find_guidance(draft, finder)
        sought, absent = sought + len(guidance), absent + guidance.count(None)
        record = write_record(draft, recipe, stated, uris)
        images.append(PlannedImage(record, _planes(draft, urls, recipe.axes), guidance))
    if absent:
        findings.append(Finding("note", recipe.guidance or "", f"{absent} of {sought} planes have no guidance file"))
    findings += report_words((image.record for image in images), recipe)
    if not images:
        findings.append(Finding("note", source, "nothing in this folder makes an image"))
    return BuildPlan(
        source=source,
        split=recipe.split,
        images=tuple(images),
        pixel_bytes=np.array([draft.pixel_bytes for draft in drafts], dtype=np.int64),
        findings=tuple(findings),
        recipe_sha256=recipe_sha256 or hashlib.sha256(content).hexdigest(),
        codec=recipe.codec,
        shard_bytes=recipe.shard_bytes,
        groups=tuple(lines),
        reconciliations=joined.reconciliations,
        cards=card_hashes([source, recipe.study]),
    )


def _read_tables(
    rules: Sequence[TableJoin], folder: str, storage_options: StorageOptions | None
) -> tuple[list[tuple[TableJoin, Table]], list[Finding]]:
    tables, findings = [], []
    for rule in rules:
        try:
            content = read_bytes(_table_url(rule, folder), storage_options)
        except OSError as error:
            missing = isinstance(error, FileNotFoundError)
            reason = "there is no such file: put it there, or mend the key path" if missing else str(error)
            raise RecipeError(f"tables: {rule.path} cannot be read beside the recipe: {reason}") from error
        rule, table, notes = read_map(content, rule)
        tables.append((rule, table))
        findings += notes
    return tables, findings


def _table_url(rule: TableJoin, folder: str) -> str:
    try:
        return file_url(folder, safe_relative_path(rule.path))
    except ChammiError as error:
        raise RecipeError(f"tables: {error}") from error


def _group(found: Sequence[FoundFile], names: FilePattern | FileNaming | None) -> tuple[list[FileGroup], list[Finding]]:
    paths = [file.path for file in found]
    if names is None:
        return [FileGroup(path, {}, {"": (path,)}) for path in paths], report_known_names(paths)
    grouping = group_files(paths, names)
    what = "naming" if isinstance(names, FileNaming) else "pattern"
    findings = [
        Finding("unmatched", path, f"its name does not fit the {what} {names.text}") for path in grouping.unmatched
    ]
    groups, numbered = number_times(grouping.groups)
    known = [] if groups else report_known_names(paths)
    return groups, findings + numbered + known


def _probe_all(
    found: Sequence[FoundFile], axes: str | None, storage_options: StorageOptions | None, workers: int
) -> tuple[dict[str, ImageFile], list[Finding]]:
    """What each file says of itself; files that cannot be read are findings."""

    def look(file: FoundFile) -> ImageFile | ReadError:
        try:
            return probe(file.url, axes=_page_axes(axes), storage_options=storage_options)
        except ReadError as error:
            return error

    executor = ThreadPoolExecutor(max(1, workers))
    try:
        answers = list(executor.map(look, found))
    finally:
        executor.shutdown(wait=True, cancel_futures=True)
    files, findings = {}, []
    for file, answer in zip(found, answers, strict=True):
        if isinstance(answer, ImageFile):
            files[file.path] = answer
        else:
            findings.append(Finding("unreadable", file.path, answer.reason))
    return files, findings


def _merge_companions(files: Mapping[str, ImageFile]) -> tuple[dict[str, ImageFile], list[Finding]]:
    """Leave out files whose planes are read through another one: an OME-TIFF of several files is one."""
    claimed: dict[str, str] = {}
    findings = []
    for path, file in files.items():
        if path in claimed:
            continue
        folder = posixpath.dirname(path)
        others = [posixpath.join(folder, name) for name in file.companions]
        here = [other for other in others if other in files and other != path and other not in claimed]
        claimed |= dict.fromkeys(here, path)
        if here:
            findings.append(Finding("note", path, f"holds {len(here) + 1} files that are one image: {', '.join(here)}"))
    return {path: file for path, file in files.items() if path not in claimed}, findings


def _draft_all(
    groups: Sequence[FileGroup], files: Mapping[str, ImageFile], recipe: BuildRecipe
) -> tuple[list[Draft], list[str], list[Finding]]:
    tokens: dict[str, int] = defaultdict(int)
    for group in groups:
        for token, paths in group.files.items():
            for file in (files[path] for path in paths if token and path in files):
                if not file.companions:  # its planes lie in files of several names
                    tokens[token] = max(tokens[token], *(len(series.channel_names) for series in file.series))
    layout = lay_out_channels(recipe.channels, tokens)
    depths = _sibling_depths(groups)
    drafts: list[Draft] = []
    lines: list[str] = []
    findings: list[Finding] = []
    for group in groups:
        made = draft_images(
            group,
            files,
            layout,
            keep_incomplete=recipe.missing_channel == "keep",
            depth=depths.get(group.identity),
        )
        drafts += made.images
        findings += made.findings
        if made.line:
            lines.append(f"{recipe.source}/{made.line}")
        if made.images and (reason := report_calibration(made.images[0])):
            findings.append(Finding("note", group.identity, reason))
    return drafts, lines, findings


_UNNAMED_PAGES = (
    "its pages are not named (time, z or channel?): each is an image; the recipe's key axes can say what they are (TYX)"
)


def _report_notes(files: Mapping[str, ImageFile]) -> list[Finding]:
    """What the readers remark, each remark once."""
    paths: dict[str, dict[str, None]] = defaultdict(dict)
    for path, file in files.items():
        for series in file.series:
            for note in series.notes:
                paths[note][path] = None
            if series.pages_unnamed:
                paths[_UNNAMED_PAGES][path] = None
    findings = []
    for note, where in paths.items():
        more = f" (and {len(where) - 1} more files)" if len(where) > 1 else ""
        findings.append(Finding("note", next(iter(where)), f"{note}{more}"))
    return findings


def _sibling_depths(groups: Sequence[FileGroup]) -> dict[str, int]:
    """Of how many z-slices each group is one, where its name has z and there are several."""
    stacks: dict[tuple[str, ...], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for group in groups:
        if "z" in group.fields:
            others = (f"{name}={text}" for name, text in sorted(group.fields.items()) if name != "z")
            stacks[group.folder, *others][group.fields["z"]].append(group.identity)
    return {
        identity: len(slices)
        for slices in stacks.values()
        if len(slices) > 1
        for identities in slices.values()
        for identity in identities
    }


def _drop_repeated(drafts: Sequence[Draft], recipe: BuildRecipe) -> tuple[list[Draft], list[Finding]]:
    seen: set[str] = set()
    kept, findings = [], []
    for draft in drafts:
        if draft.identity in seen:
            name = image_id(draft, recipe)
            paths = ", ".join(entry.candidate.path for entry in draft.placed)
            findings.append(Finding("conflict", name, f"a second image of this id is skipped ({paths})"))
            continue
        seen.add(draft.identity)
        kept.append(draft)
    return kept, findings


def _planes(draft: Draft, urls: Mapping[str, str], axes: str | None) -> tuple[PlaneSource, ...]:
    place = draft.place
    return tuple(
        PlaneSource(
            url=urls[entry.candidate.path],
            series=place.series,
            z=place.z,
            t=place.t,
            c=entry.candidate.c,
            page=place.page,
            axes=_page_axes(axes),
        )
        for entry in draft.placed
    )


def _page_axes(axes: str | None) -> str | None:
    """The axes as readers take them: the samples of a pixel (S) are channels to them already."""
    return axes.removesuffix("S") if axes else None


def _find_guidance(draft: Draft, finder: GuidanceFinder | None) -> tuple[str | None, ...]:
    if finder is None:
        return ()
    shared = {**draft.fields}
    shared |= {name: str(n) for name, n in (("z", draft.z_slice), ("t", draft.timepoint)) if n is not None}
    return tuple(
        finder.find(
            {
                **shared,
                "channel": entry.candidate.token or "",
                "stem": _stem(entry.candidate.path),
                "index": str(entry.number - 1),
            }
        )
        for entry in draft.placed
    )


def _stem(path: str) -> str:
    """A file's name without its suffix."""
    return re.sub(r"(\.ome)?\.[^.]+$", "", posixpath.basename(path), flags=re.IGNORECASE)
