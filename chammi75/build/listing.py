"""Finds the files of a folder that may hold images, on any filesystem, in one order."""

from __future__ import annotations

import os
import posixpath
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from chammi75.build.planned import Finding
from chammi75.errors import ChammiError, RecipeError
from chammi75.files import (
    StorageOptions,
    explain,
    filesystem_of,
    is_local,
    join_url,
    local_path,
    reading_errors,
    safe_relative_path,
)
from chammi75.readers.grouping import natural_key

COMPANION_SUFFIXES: frozenset[str] = frozenset(
    {".txt", ".md", ".rst", ".pdf", ".html", ".htm", ".bib", ".doc", ".docx", ".ppt", ".pptx", ".log"}
    | {".csv", ".tsv", ".xls", ".xlsx", ".xlsm", ".parquet", ".sqlite", ".h5ad", ".npy", ".npz", ".safetensors"}
    | {".xml", ".json", ".yaml", ".yml", ".toml", ".ini", ".cfg", ".conf", ".py", ".r", ".ipynb", ".cppipe"}
    | {".ome", ".htd", ".mes", ".mlf", ".mrf", ".wpi", ".wpp", ".md5", ".sha1", ".sha256"}
)
"""Suffixes of files that lie beside images and are none: texts, tables, what instruments note down."""

_COMPANION_NAME = re.compile(r"(?i)[^.]*(readme|licen[cs]e|copying|notice|changelog|citation|(md5|sha\d+)sums?)[^.]*")
_BUNDLE = re.compile(r"(?i)(?:.*?/)?[^/]+\.(zarr|n5)/")  # a folder that is one image, of many files that are none
_JUNK = frozenset({"thumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin", "system volume information"})


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file of the folder: its path below it (forward slashes), and its URL."""

    path: str
    url: str


def list_files(
    folder: str,
    include: Sequence[str] = ("**/*",),
    exclude: Sequence[str] = (),
    leave_out: Collection[str] = (),
    storage_options: StorageOptions | None = None,
) -> tuple[list[FoundFile], list[Finding]]:
    """List the files of a folder that may be images, in natural order.

    Hidden files and what operating systems leave behind are passed over. Companions (`COMPANION_SUFFIXES`) and what
    the globs leave out are counted in one ``note`` each. Links that lead out of the folder, links to folders, and names
    that are no Unicode text are ``unreadable``, and so is each OME-Zarr or N5, which is a folder of chunks.

    Parameters
    ----------
    folder : str
        Path or URL.
    include, exclude : sequence of str
        Globs on paths below the folder: ``*`` and ``?`` stay in one folder, ``**`` crosses folders.
    leave_out : collection of str
        URLs of files to pass over: the tables.
    storage_options : mapping, optional
        For the fsspec filesystem.

    Raises
    ------
    ChammiError
        If there is no such folder, or it cannot be listed.
    """
    paths, findings = _walk_local(folder) if is_local(folder) else _walk_remote(folder, storage_options)
    taken: list[FoundFile] = []
    companions: Counter[str] = Counter()
    bundles: Counter[str] = Counter()
    globs = {glob: compile_glob(glob) for glob in (*include, *exclude)}
    hits: Counter[str] = Counter()
    left_out = 0
    for path in sorted(paths, key=natural_key):
        url = file_url(folder, path)
        if url in leave_out:
            continue
        for glob, expression in globs.items():
            hits[glob] += expression.fullmatch(path) is not None
        if not _fits(path, include, globs) or _fits(path, exclude, globs):
            left_out += 1
        elif bundle := _BUNDLE.match(path):
            bundles[bundle[0].rstrip("/")] += 1
        elif is_companion(path):
            companions[posixpath.splitext(path)[1].lower() or posixpath.basename(path)] += 1
        else:
            taken.append(FoundFile(path, url))
    for path, count in bundles.items():
        reason = f"a chunked image ({_files(count)}), which a build does not read; convert it to OME-TIFF"
        findings.append(Finding("unreadable", path, reason))
    for glob in globs:
        if not hits[glob] and glob != "**/*":
            key = "include" if glob in include else "exclude"
            hint = "" if "**" in glob else f" (files in any folder: **/{glob})"
            findings.append(Finding("note", glob, f"this glob of {key} fits no file{hint}"))
    if left_out:
        findings.append(Finding("note", folder_name(folder), f"{_files(left_out)} left out by include and exclude"))
    if companions:
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in sorted(companions.items()))
        words = f"{_files(sum(companions.values()))} beside the images left out: {kinds}"
        findings.append(Finding("note", folder_name(folder), words))
    return taken, findings


def is_companion(path: str) -> bool:
    """Whether a file is clearly no image, by its name.

    Examples
    --------
    >>> is_companion("plate/notes.TXT"), is_companion("UPSTREAM_LICENSE"), is_companion("a.tif"), is_companion("a.xyz")
    (True, True, False, False)
    """
    name = posixpath.basename(path)
    suffix = posixpath.splitext(name)[1].lower()
    return suffix in COMPANION_SUFFIXES or _COMPANION_NAME.fullmatch(name) is not None


def translate_glob(glob: str) -> str:
    r"""The regular expression of a glob: ``*`` and ``?`` stop at slashes, ``**`` does not, ``[abc]`` is one of these.

    Examples
    --------
    >>> translate_glob("**/*.tif")
    '(?:.*/)?[^/]*\\.tif'
    """
    out, at = [], 0
    while at < len(glob):
        if glob.startswith("**/", at) and (at == 0 or glob[at - 1] == "/"):
            out.append("(?:.*/)?")
            at += 3
        elif glob.startswith("**", at):
            out.append(".*")
            at += 2
        elif glob[at] in "*?":
            out.append("[^/]*" if glob[at] == "*" else "[^/]")
            at += 1
        elif glob[at] == "[" and (end := glob.find("]", at + 2)) > 0:
            inner = glob[at + 1 : end]
            negated = inner[0] in "!^"
            chosen = re.sub(r"([\\\[\]^&~|])", r"\\\1", inner[1:] if negated else inner)
            out.append(f"(?!/)[{'^' if negated else ''}{chosen}]")
            at = end + 1
        else:
            out.append(re.escape(glob[at]))
            at += 1
    return "".join(out)


def compile_glob(glob: str) -> re.Pattern[str]:
    """The compiled expression of a glob.

    Raises
    ------
    RecipeError
        If its brackets make no sense.
    """
    try:
        return re.compile(translate_glob(glob))
    except re.error as error:
        raise RecipeError(f"the glob {glob!r} cannot be read ({error})") from error


def file_url(folder: str, path: str) -> str:
    """The URL of a file below ``folder``; in ``zip://::s3://bucket/a.zip`` the first part has the path."""
    head, mark, tail = folder.partition("::")
    if not mark or is_local(folder):
        return join_url(folder, path)
    root = head if head.endswith("://") else head.rstrip("/") + "/"
    return f"{root}{path}{mark}{tail}"


def folder_name(folder: str) -> str:
    """The last part of a folder's path: a report names it without saying where this machine keeps it."""
    return folder.rstrip("/").rpartition("/")[2] or folder


def _fits(path: str, globs: Sequence[str], expressions: dict[str, re.Pattern[str]]) -> bool:
    return any(expressions[glob].fullmatch(path) for glob in globs)


def _files(count: int) -> str:
    return f"{count} file{'' if count == 1 else 's'}"


def _is_junk(name: str) -> bool:
    return name.startswith(".") or name.lower() in _JUNK


def _walk_local(folder: str) -> tuple[list[str], list[Finding]]:
    root = local_path(folder)
    if not root.is_dir():
        what = "this is a file, a folder is needed" if root.exists() else "there is no such folder"
        raise ChammiError(f"{folder}: {what}")
    findings: list[Finding] = []
    return list(_scan(root, "", root.resolve(), findings)), findings


def _scan(root: Path, below: str, real_root: Path, findings: list[Finding]) -> Iterator[str]:
    try:
        with os.scandir(root / below) as scan:
            entries = sorted(scan, key=lambda entry: entry.name)
    except OSError as error:
        findings.append(Finding("unreadable", below or root.name, f"the folder cannot be listed ({error.strerror})"))
        return
    for entry in entries:
        path = f"{below}/{entry.name}" if below else entry.name
        if _is_junk(entry.name):
            continue
        if not _is_text(entry.name):
            name = path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
            findings.append(Finding("unreadable", name, "its name is no Unicode text: rename it"))
        elif entry.is_symlink() and (reason := _refuse_link(Path(entry.path), real_root)):
            findings.append(Finding("unreadable", path, reason))
        elif entry.is_dir():
            yield from _scan(root, path, real_root, findings)
        elif entry.is_file():
            yield path


def _refuse_link(link: Path, real_root: Path) -> str | None:
    """Why a link is not followed; None if it leads to a file inside the folder."""
    try:
        target = link.resolve(strict=True)
    except (OSError, RuntimeError):
        return "a link that leads nowhere"
    if not target.is_relative_to(real_root):
        return "a link that leads out of the folder is not followed: put the files themselves here"
    return "a link to a folder is not followed: its files are taken where they lie" if target.is_dir() else None


def _is_text(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _walk_remote(folder: str, storage_options: StorageOptions | None) -> tuple[list[str], list[Finding]]:
    from chammi75.archive import ArchiveFileSystem

    filesystem, root = filesystem_of(folder, storage_options)
    try:
        found = filesystem.find(root)
    except reading_errors() as error:
        raise ChammiError(
            f"{folder}: the folder cannot be listed: {explain(error, folder, storage_options)}"
        ) from error
    if not found:
        raise ChammiError(f"{folder}: there is no such folder, or it is empty")
    prefix = root.rstrip("/") + "/" if root.strip("/") else ""
    paths: list[str] = []
    refused = filesystem.directory.problems if isinstance(filesystem, ArchiveFileSystem) else ()
    findings = [Finding("unreadable", name, reason) for name, reason in refused]
    for name in found:
        path = name.removeprefix(prefix).lstrip("/")
        if any(_is_junk(part) and part not in ("", ".", "..") for part in path.split("/")):
            continue
        if _is_plain(path):
            paths.append(path)
        else:  # a key that no folder could hold, or that climbs out of it
            findings.append(Finding("unreadable", path, "its name is no path below the folder: rename it"))
    return paths, findings


def _is_plain(path: str) -> bool:
    try:
        return safe_relative_path(path) == path
    except ChammiError:
        return False
