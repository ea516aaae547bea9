"""``embed_store``: the features of all images of a store, or of all their cells, in one Parquet file.

Images are cut into parts of equally many, in the store's order. A rank takes every so-manyth part, and parts that are
there already are not made again; so a command that was stopped goes on, and any number of processes writes the same
file.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch

from chammi75.errors import ChammiError
from chammi75.files import StorageOptions, is_local, local_path
from chammi75.loading.guided import GuidedCrop
from chammi75.loading.stores import Named, open_stores
from chammi75.loading.stream.chosen import choose, selection_hash, store_identity
from chammi75.loading.stream.ranks import rank_and_world_size
from chammi75.training.embedder import EmbeddingModel
from chammi75.training.feature_file import FeatureFile, FeatureRow
from chammi75.training.models import load_model
from chammi75.training.store_crops import CropPlan, Read, read_chunks

if TYPE_CHECKING:
    from chammi75.loading.stream.chosen import Chosen
    from chammi75.schemas.model_card import ModelConfig
    from chammi75.training.intake import Unknown
    from chammi75.training.store_crops import Crop

CropSize = Literal["study", "cell"] | int

_PART_IMAGES = {"whole": 512, "cells": 64}
_HUGE = 10**9
_BATCHES_READ = 4
"""Batches of the network that are read together."""


@dataclass(frozen=True)
class EmbedReport:
    """What `embed_store` did.

    Attributes
    ----------
    out : str
    finished : bool
        Whether the file is there: of several ranks, one puts it together, and the others end before.
    images : int
        That were chosen.
    rows : int or None
        Of the file; None while it is not there.
    embedded : int
        Images that this process has embedded now.
    failed : list of (str, str)
        Images that could not be read, and why.
    """

    out: str
    finished: bool
    images: int
    rows: int | None
    embedded: int
    failed: list[tuple[str, str]] = field(default_factory=list)


def embed_store(
    model: EmbeddingModel | str | os.PathLike[str],
    store: Named | Sequence[Named],
    out: str | os.PathLike[str],
    *,
    selection: Chosen = None,
    split: str | None = None,
    crop: Crop = "whole plane",
    crop_size: CropSize | None = None,
    batch_size: int = 64,
    workers: int = 0,
    device: str | None = None,
    resample: bool = False,
    unknown_channels: Unknown = "refuse",
    on_error: Literal["raise", "skip"] = "raise",
    part_images: int | None = None,
    rank: int | None = None,
    world_size: int | None = None,
    metadata: str | None = None,
    storage_options: StorageOptions | None = None,
    advance: Callable[[int], object] | None = None,
) -> EmbedReport:
    """Embed a store into a Parquet file.

    Stopped at any moment, the same call goes on where it was. Under torchrun, or srun, each process takes its share.

    Parameters
    ----------
    model : EmbeddingModel, str or path
        As for ``load_model``.
    store : str, path, Store or sequence of them
        As for ``load_dataset``.
    out : str or path
        The file, on this machine's disks (or those that all processes share).
    selection : mapping, Subset, str or path, optional
        Filters by the names that ``load_dataset`` has; a subset or recipe file.
    split : str, optional
        All by default.
    crop : {"whole plane", "cells"} or int
        ``"whole plane"``: a row for each image. ``"cells"``: a row for each cell, of the channel that has most; images
        without cells have none. A number: a row for each image, the window of this edge in its middle.
    crop_size : {"study", "cell"} or int, optional
        With ``"cells"``: how large the windows are, as of ``GuidedCrop``, without jitter, and of several sizes of a
        study the middle one. By default as the model was trained.
    batch_size : int
        Planes (boc) or images (mca) that go through the network together.
    workers : int
        Processes that read and decode; 0: this one does.
    device : str, optional
        By default where the model is; of a model that is loaded here, this process's GPU if there is one.
    resample, unknown_channels
        As for ``EmbeddingModel.embed``.
    on_error : {"raise", "skip"}
        What becomes of images that cannot be read: ``skip`` leaves them out; the report and the file name them.
    part_images : int, optional
        Images of a part: 512, and 64 of ``"cells"``.
    rank, world_size : int, optional
        Those of torch.distributed, torchrun or Slurm by default.
    metadata, storage_options
        As for ``load_dataset``.
    advance : callable, optional
        Called with the number of images that are done.

    Returns
    -------
    EmbedReport

    Raises
    ------
    StoreError
        If the file, or its parts, are of another model, store, selection or crop.
    ChammiError
        If an image does not fit the model, or cannot be read.

    Notes
    -----
    Columns are ``image_id``, ``study``, ``channel_types``, for cells ``cell``, ``x`` and ``y``, and ``features``: lists
    of float32, of fixed size where all rows have equally many. The schema's metadata has, under ``chammi75``, the
    hashes of model and stores, and the selection. On one kind of device, with as many threads and one batch size, the
    same numbers come out to the bit.
    """
    rank, world_size = rank_and_world_size(rank, world_size)
    if not is_local(out):
        raise ChammiError(f"{os.fspath(out)}: features are written to a file of this machine; give a path")
    target = local_path(out).expanduser().absolute()
    for name, number, least in (("batch_size", batch_size, 1), ("workers", workers, 0)):
        if isinstance(number, bool) or not isinstance(number, int) or number < least:
            raise ChammiError(f"{name} is a whole number from {least} on, not {number!r}")
    _check_crop(crop, crop_size)
    chosen = choose(open_stores(store, metadata=metadata, storage_options=storage_options), selection, split)
    network = model if isinstance(model, EmbeddingModel) else load_model(model, device=device or own_device())
    if device is not None and isinstance(model, EmbeddingModel):
        network.to(device)
    config = network.config
    cell_crop = _cell_crop(config, crop_size)
    many = part_images or _PART_IMAGES["cells" if crop == "cells" else "whole"]
    plan = CropPlan(chosen, crop, cell_crop, part_images=many, planes=_BATCHES_READ * batch_size, on_error=on_error)
    if crop == "cells":
        _check_cell_crop(cell_crop, plan)
    identity = {
        "model": {"sha256": network.sha256, "title": config.title, "architecture": config.architecture},
        "strategy": config.strategy,
        "width": config.width,
        "stores": [store_identity(one) for one in chosen],
        "selection": [selection_hash(one) for one in chosen],
        "crop": {"crop": crop, "windows": cell_crop.settings if crop == "cells" else None},
        "settings": {"resample": resample, "unknown_channels": unknown_channels, "on_error": on_error},
        "part_images": many,
    }
    file = FeatureFile(target, identity, plan.parts, _row_width(config, plan), crop == "cells")
    if not file.begin():
        rows, failed = file.summary()
        return EmbedReport(str(target), True, plan.images, rows, 0, failed)
    missing = set(file.missing())
    own = [part for part in range(rank, plan.parts, world_size) if part in missing]
    if advance is not None:
        advance(sum(plan.images_of(part) for part in range(rank, plan.parts, world_size) if part not in missing))
    try:
        embedded = _embed_parts(
            network, plan, file, own, batch_size, workers, resample, unknown_channels, on_error, advance
        )
    except ChammiError:
        if world_size == 1:
            file.leave_nothing()
        raise
    if not file.finish():
        return EmbedReport(str(target), False, plan.images, None, embedded)
    rows, failed = file.summary()
    return EmbedReport(str(target), True, plan.images, rows, embedded, failed)


def own_device() -> str:
    """The device of this process: its GPU, by ``LOCAL_RANK``, else Apple's, else the CPU."""
    if torch.cuda.is_available():
        local = int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0")))
        return f"cuda:{local % torch.cuda.device_count()}"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _embed_parts(
    model: EmbeddingModel,
    plan: CropPlan,
    file: FeatureFile,
    parts: Sequence[int],
    batch_size: int,
    workers: int,
    resample: bool,
    unknown: Unknown,
    on_error: Literal["raise", "skip"],
    advance: Callable[[int], object] | None,
) -> int:
    rows: list[FeatureRow] = []
    failed: list[tuple[str, str]] = []
    embedded = 0
    for read in read_chunks(plan, parts, workers, on_error):
        failed += read.failed
        rows += _rows(model, read, batch_size, resample, unknown)
        if not read.chunk.ends_part:
            continue
        broken = {name for name, _ in failed}  # an image that failed in one chunk may have rows of another
        file.write(read.chunk.part, [row for row in rows if row.image_id not in broken], list(dict.fromkeys(failed)))
        rows, failed = [], []
        embedded += read.chunk.images
        if advance is not None:
            advance(read.chunk.images)
    return embedded


def _rows(model: EmbeddingModel, read: Read, batch_size: int, resample: bool, unknown: Unknown) -> list[FeatureRow]:
    """The rows of a chunk, in its order."""
    inputs = list(read.inputs())
    try:
        found = model.embed_inputs(
            [given for _, given in inputs], batch_size=batch_size, resample=resample, unknown_channels=unknown
        )
    except torch.OutOfMemoryError as error:
        raise ChammiError(
            f"{model.device} is out of memory: lower batch_size (now {batch_size}); parts that are written stay, and"
            " the same command goes on"
        ) from error
    rows = []
    for (number, given), features in zip(inputs, found, strict=True):
        x, y = read.chunk.centroids[number]
        study = read.names[read.chunk.places[number]][1]
        types = given.channels or ()
        rows.append(FeatureRow(given.name, study, types, read.chunk.cells[number], x, y, features))
    return rows


def _check_crop(crop: Any, crop_size: Any) -> None:
    is_edge = isinstance(crop, int) and not isinstance(crop, bool) and crop > 0
    if not is_edge and crop not in ("whole plane", "cells"):
        raise ChammiError(f'crop is "whole plane", "cells" or an edge in pixels, not {crop!r}')
    if crop_size is not None and crop != "cells":
        raise ChammiError('crop_size goes with crop="cells"')


def _cell_crop(config: ModelConfig, crop_size: CropSize | None) -> GuidedCrop:
    """The windows around cells: as they are asked for, else as in the training, else as the studies have them."""
    if crop_size is not None:
        return GuidedCrop(crop_size, jitter=0)
    data: dict[str, Any] = (config.recipe or {}).get("data") or {}
    return GuidedCrop(data.get("crop", "study"), jitter=0, other=data.get("crop_other", "whole plane"))


def _check_cell_crop(crop: GuidedCrop, plan: CropPlan) -> None:
    """A window around a cell must not be the whole plane: all cells of an image would be alike."""
    if crop.size == "cell":
        return
    whole = [study for study in plan.studies() if crop.largest_window(_HUGE, _HUGE, [study])[0] == _HUGE]
    if whole:
        shown = ", ".join(study or "images of no study" for study in whole[:5])
        more = f" and {len(whole) - 5} more" if len(whole) > 5 else ""
        raise ChammiError(
            f"cells of {shown}{more} have no window of their own: planes are taken whole there; say how large windows"
            " are: crop_size=128 (--crop-size), or cell"
        )


def _row_width(config: ModelConfig, plan: CropPlan) -> int | None:
    if config.strategy == "mca":
        return config.width
    counts = plan.channel_counts()
    return config.width * counts.pop() if len(counts) == 1 else None
