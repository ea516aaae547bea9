"""The data of a training: the stream of guided crops that a recipe describes."""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from chammi75.errors import RecipeError
from chammi75.loading.guided import GuidedCrop
from chammi75.loading.stores import open_stores
from chammi75.loading.stream.chosen import choose
from chammi75.loading.stream.stream import TrainingStream

if TYPE_CHECKING:
    from chammi75.loading.selection import Selection
    from chammi75.schemas.training import DataSettings, TrainingRecipe


def guided_crop(data: DataSettings) -> GuidedCrop:
    """How the windows of a recipe are chosen.

    Examples
    --------
    >>> from chammi75.schemas.training import DataSettings
    >>> guided_crop(DataSettings(crop=64, crop_jitter=0)).size
    64
    """
    return GuidedCrop(data.crop, jitter=data.crop_jitter, other=data.crop_other)


def selection_of(data: DataSettings) -> dict[str, Any]:
    """The filters of a recipe, its channels among them.

    Raises
    ------
    RecipeError
        If channels are chosen in both places.
    """
    selection = dict(data.selection)
    if data.channels is None:
        return selection
    if "select_channels" in selection:
        raise RecipeError("data.channels and data.selection.select_channels say the same: give one of them")
    return {**selection, "select_channels": list(data.channels)}


def channel_table(recipe: TrainingRecipe) -> tuple[str, ...]:
    """The channel types that the recipe's images have: those that it names, or all, in alphabetical order.

    Raises
    ------
    RecipeError
        If the recipe names one that no chosen image has.
    """
    data = recipe.data
    opened = open_stores(recipe.store)
    selections = choose(opened, dict(data.selection), data.split)
    found = sorted({name for chosen in selections for name in _channel_types(chosen)})
    if data.channels is None:
        return tuple(found)
    for name in data.channels:
        if name not in found:
            near = get_close_matches(name, found, 3, 0.5)
            words = (
                f"nearest are {', '.join(near)}" if near else f"they have {', '.join(found) or 'none of known type'}"
            )
            raise RecipeError(
                f"data.channels: no chosen image of {_named(recipe.store)} has a channel {name!r}; {words}"
            )
    return tuple(data.channels)


def _channel_types(chosen: Selection) -> set[str]:
    facet = chosen.layout.facet("channel_types")
    codes = np.unique(facet.codes[np.asarray(chosen.rows, np.int64)])
    lists = [json.loads(facet.values[code]) for code in codes.tolist() if code >= 0]
    kept = chosen.channel_types
    return {name for names in lists for name in names if name is not None and (kept is None or name in kept)}


def channel_lookup(table: Sequence[str], device: torch.device | str = "cpu") -> torch.Tensor:
    """From numbers of channel types in the vocabulary to those in a table; int64, shape (terms + 1,).

    The last entry, which -1 looks up, and types that are not in the table are ``len(table)``: the table's ``other``.

    Examples
    --------
    >>> lookup = channel_lookup(["nucleus"])
    >>> sorted(set(lookup.tolist())), lookup[-1].item()
    ([0, 1], 1)
    """
    from chammi75.schemas.vocabulary import vocabulary

    places = {name: place for place, name in enumerate(table)}
    terms = [places.get(term.name, len(table)) for term in vocabulary("channel_types").terms]
    return torch.tensor([*terms, len(table)], device=device)


def make_stream(recipe: TrainingRecipe, rank: int = 0, ranks: int = 1) -> TrainingStream:
    """The crops of a recipe, for one rank: as stored, the samples that do not fill a step of all ranks left out.

    Raises
    ------
    RecipeError
        If an epoch does not fill one step, with the numbers; or the recipe names a channel that is nowhere.
    ChammiError
        If a store cannot be opened, or no image passes.
    """
    data = recipe.data
    stream = TrainingStream(
        recipe.store,
        selection_of(data),
        seed=recipe.seed,
        batch_size=recipe.batch_size,
        mode=recipe.strategy,
        crop=guided_crop(data),
        shuffle=data.shuffle,
        weighting=data.weighting,
        weight_by=data.weight_by,
        samples_per_epoch=data.samples_per_epoch,
        last="pad",  # checked below, where accumulation counts too
        rank=rank,
        world_size=ranks,
        on_error=data.on_error,
        split=data.split,
        cache_dir=data.cache_dir,
        cache_limit=data.cache_limit,
    )
    step = recipe.batch_size * ranks * recipe.accumulate
    if stream.samples < step:
        what = "planes" if recipe.strategy == "boc" else "images"
        raise RecipeError(
            f"batch_size: a step takes {step} samples ({recipe.batch_size} x {ranks} rank{'s' if ranks > 1 else ''} x"
            f" accumulate {recipe.accumulate}), and an epoch has {stream.samples} {what}: lower batch_size or"
            " accumulate, or set data.samples_per_epoch"
        )
    return stream


def steps_per_epoch(stream: TrainingStream, recipe: TrainingRecipe) -> int:
    """Steps of the optimiser in an epoch; samples that do not fill one are left out."""
    return stream.samples // (recipe.batch_size * stream.world_size * recipe.accumulate)


def make_loader(stream: TrainingStream, workers: int, device: torch.device) -> DataLoader[Mapping[str, Any]]:
    """A DataLoader of a stream's batches, whose workers live as long as it does."""
    return DataLoader(
        stream,
        batch_size=None,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device.type == "cuda",
        generator=torch.Generator(),  # each epoch draws a number: not from the generator of stochastic depth
        worker_init_fn=_leave_signals_to_the_trainer if workers else None,
    )


def _leave_signals_to_the_trainer(worker: int) -> None:
    """Ctrl-C and schedulers signal whole groups of processes: a step that is to be finished needs its workers."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _named(store: str | Sequence[str]) -> str:
    return store if isinstance(store, str) else ", ".join(store)
