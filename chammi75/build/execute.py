"""From plans to a store: shards are cut by header sizes, and come out the same for any number of workers."""

from __future__ import annotations

import json
import multiprocessing
import posixpath
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from threading import local
from typing import Literal, cast

from chammi75.build.encode import SourceFiles, encode_image
from chammi75.build.planned import BuildPlan, Finding, PlannedImage, check_limits
from chammi75.errors import ChammiError, ReadError, RecipeError, StoreError
from chammi75.files import StorageOptions, create_file, filesystem_of, join_url, write_atomically
from chammi75.schemas.manifest import StoreManifest
from chammi75.store.shard import EncodedImage, ShardWriter, WrittenShard
from chammi75.store.writer import new_store, shard_path

Advance = Callable[[int], None]
_Encoded = tuple[EncodedImage | None, list[Finding]]
REPORT = "report.json"


@dataclass(frozen=True)
class BuildReport:
    """What a build did.

    Attributes
    ----------
    store : str
        URL of the store.
    manifest : StoreManifest
    findings : tuple of Finding
        All that was not as it should be: of the plan and of the reading.
    planned_images : int
        Images that the plan had; the difference to ``manifest.images`` could not be read.
    """

    store: str
    manifest: StoreManifest
    findings: tuple[Finding, ...]
    planned_images: int

    @property
    def failed_images(self) -> int:
        """Images that were planned and could not be built."""
        return self.planned_images - self.manifest.images


@dataclass(frozen=True)
class _Cut:
    """Which images make a shard: (number of the plan, first image, end)."""

    path: str
    split: str
    ranges: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class _Task:
    """One shard's work: everything that a worker needs."""

    path: str
    images: tuple[PlannedImage, ...]
    codec: Literal["zstd", "deflate"]
    target: str
    target_options: StorageOptions | None
    source_options: StorageOptions | None
    threads: int


@dataclass(frozen=True)
class _ShardResult:
    written: WrittenShard | None
    pixel_bytes: int
    findings: tuple[Finding, ...]


def build_store(
    plans: Sequence[BuildPlan],
    out: str,
    *,
    workers: int = 1,
    storage_options: StorageOptions | None = None,
    source_options: StorageOptions | None = None,
    advance: Advance | None = None,
) -> BuildReport:
    """Build one store from plans.

    Parameters
    ----------
    plans : sequence of BuildPlan
        One per source. Their codec must be one; the smallest ``shard_bytes`` counts.
    out : str
        Folder of the new store: absent, empty, or left by an interrupted build. Local or any fsspec URL.
    workers : int
        Processes and threads to use. The store does not depend on it.
    storage_options, source_options : mapping, optional
        For the fsspec filesystems of the store and of the sources.
    advance : callable, optional
        Called with a number of images when they are done.

    Returns
    -------
    BuildReport
        Also written to ``report.json`` in the store. Files that cannot be read are in it; they do not stop the build.

    Raises
    ------
    RecipeError
        If two plans have one source, or different codecs, or a table and the images disagree beyond its limits.
    StoreError
        If the target is taken, or not one image could be built.
    ChammiError
        If the target cannot be written or is full.
    """
    codec = _checked_codec(plans)
    check_limits(plans)
    with new_store(out, storage_options) as writer:
        cuts = _cut(plans)
        threads = max(1, workers // max(len(cuts), 1))
        tasks = (_task(cut, plans, codec, writer.url, storage_options, source_options, threads) for cut in cuts)
        findings = [finding for plan in plans for finding in plan.findings]
        pixel_bytes, images = 0, 0
        for cut, result in zip(cuts, _run(tasks, min(workers, len(cuts)), advance), strict=True):
            findings.extend(result.findings)
            pixel_bytes += result.pixel_bytes
            if result.written is not None:
                writer.add_shard(cut.path, cut.split, result.written)
                images += result.written.rows
        planned = sum(len(plan.images) for plan in plans)
        report = {
            "planned_images": planned,
            "findings": [asdict(finding) for finding in findings],
            "reconciliations": [asdict(met) for plan in plans for met in plan.reconciliations],
        }
        content = json.dumps(report, indent=1, ensure_ascii=False).encode() + b"\n"
        write_atomically(join_url(writer.url, REPORT), content, storage_options)
        if not images:
            raise StoreError(_nothing_built(writer.url, planned, findings))
        manifest = writer.commit(
            codec=codec,
            pixel_bytes=pixel_bytes,
            recipes={plan.source: plan.recipe_sha256 for plan in plans if plan.recipe_sha256},
            cards={source: digest for plan in plans for source, digest in plan.cards.items()},
        )
        return BuildReport(writer.url, manifest, tuple(findings), planned)


def _nothing_built(url: str, planned: int, findings: Sequence[Finding]) -> str:
    serious = [finding for finding in findings if finding.kind != "note"] or findings
    first = f"; the first finding: {serious[0].path}: {serious[0].reason}" if serious else ""
    what = f"{planned} images were planned and not one could be built" if planned else "there is no image to build"
    return f"{url}: {what}{first} ({REPORT} there has all findings)"


def _checked_codec(plans: Sequence[BuildPlan]) -> Literal["zstd", "deflate"]:
    if not plans:
        raise RecipeError("there is nothing to build: give at least one folder or recipe")
    sources = [plan.source for plan in plans]
    repeated = {source for source in sources if sources.count(source) > 1}
    if repeated:
        raise RecipeError(f"two recipes have the source {sorted(repeated)[0]!r}: image ids would be the same")
    codecs = {plan.codec for plan in plans}
    if len(codecs) > 1:
        raise RecipeError(f"a store has one codec, the recipes ask for {' and '.join(sorted(codecs))}")
    return cast(Literal["zstd", "deflate"], codecs.pop())


def _cut(plans: Sequence[BuildPlan]) -> list[_Cut]:
    """Cut the images into shards by their decoded sizes, split by split, in the plans' order."""
    limit = min(plan.shard_bytes for plan in plans)
    cuts: list[_Cut] = []
    for split in sorted({plan.split for plan in plans}):
        shards: list[list[tuple[int, int, int]]] = []
        size = limit
        for number, plan in enumerate(plans):
            if plan.split != split:
                continue
            first = 0
            for image, image_bytes in enumerate(plan.pixel_bytes.tolist()):
                if size + image_bytes > limit:
                    if shards and first < image:
                        shards[-1].append((number, first, image))
                    shards.append([])
                    first, size = image, 0
                size += image_bytes
            if first < len(plan.images):
                shards[-1].append((number, first, len(plan.images)))
        cuts.extend(_Cut(shard_path(split, k), split, tuple(ranges)) for k, ranges in enumerate(shards))
    return cuts


def _task(
    cut: _Cut,
    plans: Sequence[BuildPlan],
    codec: Literal["zstd", "deflate"],
    target: str,
    target_options: StorageOptions | None,
    source_options: StorageOptions | None,
    threads: int,
) -> _Task:
    images = tuple(plans[number].images[k] for number, first, end in cut.ranges for k in range(first, end))
    return _Task(cut.path, images, codec, target, target_options, source_options, threads)


def _run(tasks: Iterator[_Task], processes: int, advance: Advance | None) -> Iterator[_ShardResult]:
    """The results of the tasks, in their order; in processes of their own where there is more than one to use."""
    if processes <= 1:
        for task in tasks:
            yield _write_shard(task, advance)
        return
    spawn = multiprocessing.get_context("spawn")  # a fork would copy whatever threads the caller has
    with ProcessPoolExecutor(processes, mp_context=spawn) as pool:
        waiting: deque[tuple[int, Future[_ShardResult]]] = deque()
        try:
            for task in tasks:
                waiting.append((len(task.images), pool.submit(_write_shard, task, None)))
                if len(waiting) > processes:
                    yield _finished(waiting.popleft(), advance)
            while waiting:
                yield _finished(waiting.popleft(), advance)
        finally:
            for _, future in waiting:
                future.cancel()


def _finished(waited: tuple[int, Future[_ShardResult]], advance: Advance | None) -> _ShardResult:
    images, future = waited
    try:
        result = future.result()
    except BrokenProcessPool as error:
        raise ChammiError(
            "a worker process of the build ended before its shard was done: it was killed (out of memory? give fewer"
            ' workers), or the calling script lacks `if __name__ == "__main__":`'
        ) from error
    if advance is not None:
        advance(images)
    return result


def _write_shard(task: _Task, advance: Advance | None) -> _ShardResult:
    """Encode a shard's images and write them. Runs in a worker."""
    findings: list[Finding] = []
    pixel_bytes = 0
    url = join_url(task.target, task.path)
    with create_file(url, task.target_options) as file:
        writer = ShardWriter(file)
        for encoded, found in _encoded(task):
            findings.extend(found)
            if encoded is not None:
                try:
                    writer.write(encoded)
                except ChammiError as error:  # too large for one value of Arrow; nothing of it was written
                    findings.append(Finding("unreadable", encoded.record.image_id, str(error)))
                else:
                    geometry = encoded.record.geometry
                    itemsize = {"uint8": 1, "uint16": 2, "float32": 4}[geometry.dtype]
                    pixel_bytes += geometry.height * geometry.width * geometry.channels * itemsize
            if advance is not None:
                advance(1)
        written = writer.close()
    if written.rows:
        return _ShardResult(written, pixel_bytes, tuple(findings))
    filesystem, path = filesystem_of(url, task.target_options, writing=True)
    filesystem.rm_file(path)
    return _ShardResult(None, 0, tuple(findings))


def _encoded(task: _Task) -> Iterator[_Encoded]:
    """The shard's images, encoded by its threads, in their order."""
    if task.threads == 1:
        with SourceFiles(task.source_options) as files:
            for image in task.images:
                yield _try_encode(image, files, task.codec)
        return
    own = local()
    opened: list[SourceFiles] = []

    def work(image: PlannedImage) -> _Encoded:
        if not hasattr(own, "files"):
            own.files = SourceFiles(task.source_options)
            opened.append(own.files)
        return _try_encode(image, own.files, task.codec)

    try:
        with ThreadPoolExecutor(task.threads) as pool:
            waiting: deque[Future[_Encoded]] = deque()
            for image in task.images:
                waiting.append(pool.submit(work, image))
                if len(waiting) > 2 * task.threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
    finally:
        for files in opened:
            files.__exit__(None, None, None)


def _try_encode(image: PlannedImage, files: SourceFiles, codec: Literal["zstd", "deflate"]) -> _Encoded:
    """Encode an image; what goes wrong with its files is a finding, and the build goes on."""
    try:
        return encode_image(image, files, codec)
    except ReadError as error:  # the file by its path in the source: a report must not tell where it lay here
        paths = zip(image.planes, image.record.storage.path, strict=True)
        names = [path for plane, path in paths if plane.url == error.path and path]
        name = names[0] if names else posixpath.basename(error.path)
        return None, [Finding("unreadable", image.record.image_id, f"{name}: {error.reason}")]
    except ChammiError as error:
        return None, [Finding("unreadable", image.record.image_id, str(error))]
