"""To the Hugging Face Hub: a Parquet export with its card, in one commit. What has no licence is refused."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chammi75.errors import ChammiError
from chammi75.export.parquet import SHARD_BYTES
from chammi75.export.parquet import export as export_parquet
from chammi75.export.report import ExportReport
from chammi75.export.samples import Advance, as_selections, origins_of
from chammi75.loading.licenses import require_licenses

if TYPE_CHECKING:
    from chammi75.loading.selection import Selection
    from chammi75.loading.stores import Named


def push_to_hub(
    source: Named | Selection | Sequence[Selection],
    repo_id: str,
    *,
    license: str | None = None,
    private: bool | None = None,
    token: str | bool | None = None,
    endpoint: str | None = None,
    revision: str | None = None,
    commit_message: str | None = None,
    title: str | None = None,
    workers: int = 1,
    advance: Advance | None = None,
    shard_bytes: int = SHARD_BYTES,
    folder: str | os.PathLike[str] | None = None,
) -> ExportReport:
    """Publish images as a dataset repository of the Hugging Face Hub.

    The files are written to a folder first and appear in the repository in one commit: all of them or none. Parquet
    files that an earlier export has left there go in the same commit.

    Parameters
    ----------
    source : str, path, Store, Layout, Selection or sequence of Selection
        As for ``chammi75.export.export``.
    repo_id : str
        ``"user/name"``; made if it is not there.
    license : str, optional
        SPDX licence of the images whose records state none: yours to say.
    private : bool, optional
        Whether a new repository is private.
    token : str or bool, optional
        As for ``huggingface_hub``: by default the one that ``hf auth login`` has kept.
    endpoint : str, optional
        Another Hub, by its URL.
    revision : str, optional
        Branch to commit to.
    commit_message : str, optional
    title : str, optional
        Title of the dataset card.
    workers : int
        Threads that read and encode.
    advance : callable, optional
        Called with 1 for each image.
    shard_bytes : int
        Bytes of planes in a file, at most (one image at least).
    folder : str or path, optional
        Where to keep the files: a new or empty local folder. A temporary one by default.

    Returns
    -------
    ExportReport
        ``out`` is the URL of the repository.

    Raises
    ------
    ChammiError
        If images have no licence and ``license`` states none; then nothing is written or sent. If an image cannot be
        read, nothing is sent. If the Hub refuses.
    """
    from dataclasses import replace

    from chammi75.export.registry import selected

    selections = as_selections(selected(source))
    require_licenses(origins_of(selections), license)
    with tempfile.TemporaryDirectory(prefix="chammi75-hub-") as temporary:
        out = Path(temporary) / "export" if folder is None else Path(folder)
        report = export_parquet(
            selections,
            out,
            workers=workers,
            advance=advance,
            title=title or repo_id.rsplit("/", 1)[-1],
            license=license,
            shard_bytes=shard_bytes,
        )
        if report.failed:
            first = report.failed[0]
            raise ChammiError(
                f"{len(report.failed)} images cannot be read (first: {first.image_id}: {first.reason}); nothing was"
                " sent. Leave them out with where=, or build the store again"
            )
        url = _upload(
            out,
            repo_id,
            private=private,
            token=token,
            endpoint=endpoint,
            revision=revision,
            message=commit_message or f"{report.images} images, exported by chammi75",
        )
    return replace(report, out=url)


def _upload(
    folder: Path,
    repo_id: str,
    *,
    private: bool | None,
    token: str | bool | None,
    endpoint: str | None,
    revision: str | None,
    message: str,
) -> str:
    """Make the repository and commit everything in the folder to it; its URL."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    api: Any = HfApi(endpoint=endpoint, token=token)
    where = f"{repo_id} at {api.endpoint}"
    try:
        made = api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(repo_id, branch=revision, repo_type="dataset", exist_ok=True)
        files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
        there = api.list_repo_files(repo_id, repo_type="dataset", revision=revision)
        operations = [
            *(CommitOperationAdd(path_in_repo=name, path_or_fileobj=path) for name, path in files.items()),
            *(CommitOperationDelete(path_in_repo=name) for name in there if _is_data(name) and name not in files),
        ]  # one commit, where upload_folder may make several: nobody sees half of it
        api.create_commit(repo_id, operations, commit_message=message, repo_type="dataset", revision=revision)
    except (HfHubHTTPError, HFValidationError, OSError, *_network_errors()) as error:
        raise ChammiError(f"{where}: the Hub did not take it: {' '.join(str(error).split())}") from error
    return str(made)


def _is_data(name: str) -> bool:
    """Whether a file of the repository is of an export before this one, which would be read along with it."""
    return name.startswith("data/") and name.endswith(".parquet")


def _network_errors() -> tuple[type[Exception], ...]:
    """What the network library that huggingface_hub uses raises: requests up to its version 0, httpx since."""
    kinds = (("httpx", "HTTPError"), ("httpx2", "HTTPError"), ("requests", "RequestException"))
    return tuple(getattr(sys.modules[module], name) for module, name in kinds if module in sys.modules)
