"""A k-nearest-neighbour probe: do images of one label have features that are near each other?

The weighted vote of Wu et al. 2018 (arXiv:1805.01978), as DINO's authors use it: an image's label is guessed from the
images most similar to it, by cosine, each of which counts exp(similarity / 0.07). Every image is left out in its turn,
so nothing has to be held back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from chammi75.errors import FilterError, RecipeError
from chammi75.training.views.normalisation import EPSILON

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from chammi75.loading.image import MultiChannelImage
    from chammi75.schemas.training import TrainingRecipe
    from chammi75.training.backbones import Backbone
    from chammi75.training.devices import Ranks

_TEMPERATURE = 0.07
_ROWS_AT_ONCE = 1024


@dataclass(frozen=True)
class ProbeResult:
    """How well labels follow from features.

    Attributes
    ----------
    label : str
        The field of the record.
    accuracy : float
        Share of images whose label was guessed.
    chance : float
        That of always guessing the most frequent label.
    images, classes : int
    """

    label: str
    accuracy: float
    chance: float
    images: int
    classes: int

    def line(self, step: int) -> str:
        """For people.

        Examples
        --------
        >>> ProbeResult("biology.cell_type", 0.75, 0.2, 500, 5).line(100)
        'step 100: kNN probe of biology.cell_type: 75.0 % of 500 images right (5 labels; chance 20.0 %)'
        """
        return (
            f"step {step}: kNN probe of {self.label}: {100 * self.accuracy:.1f} % of {self.images} images right"
            f" ({self.classes} labels; chance {100 * self.chance:.1f} %)"
        )


def knn_accuracy(features: Tensor, labels: Tensor, neighbours: int, temperature: float = _TEMPERATURE) -> float:
    """Share of samples whose label the weighted vote of the nearest others guesses.

    Parameters
    ----------
    features : Tensor of float, shape (N, D)
        Of any length; directions are compared.
    labels : Tensor of int64, shape (N,)
        From 0.
    neighbours : int
        How many vote; all others where there are fewer.
    temperature : float

    Examples
    --------
    >>> features = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
    >>> knn_accuracy(features, torch.tensor([0, 0, 1, 1]), neighbours=1)
    1.0
    """
    features = functional.normalize(features.float(), dim=1)
    classes = int(labels.max()) + 1
    neighbours = min(neighbours, len(features) - 1)
    right = torch.zeros((), dtype=torch.int64, device=features.device)
    for start in range(0, len(features), _ROWS_AT_ONCE):
        rows = features[start : start + _ROWS_AT_ONCE]
        similarities = rows @ features.T
        own = torch.arange(len(rows), device=features.device)
        similarities[own, start + own] = -torch.inf
        nearest, places = similarities.topk(neighbours, dim=1)
        votes = torch.zeros(len(rows), classes, device=features.device)
        votes.scatter_add_(1, labels[places], (nearest / temperature).exp())
        right += (votes.argmax(dim=1) == labels[start : start + len(rows)]).sum()
    return float(right) / len(features)


def check_probe(recipe: TrainingRecipe) -> None:
    """Refuse a probe that cannot be made, before the training begins.

    Raises
    ------
    RecipeError
        If the record has no such field, fewer than two labels have two images each, or no image is chosen.
    """
    if recipe.probe.every_epochs is None:
        return
    try:
        _chosen(recipe)
    except FilterError as error:
        raise RecipeError(
            f"probe.selection: {error}; choose images of this store (probe.selection={{}}: all), or set"
            " probe.every_epochs=null"
        ) from error


def probe(
    backbone: Backbone, recipe: TrainingRecipe, ranks: Ranks, channels: Sequence[str], device: torch.device
) -> ProbeResult:
    """Embed the images of a recipe's probe, each rank some of them, and see whether neighbours share their labels.

    Whole planes are normalised, resized to the size that the model is saved for, and embedded; with the strategy boc,
    the features of an image's channels are averaged, so that images of different channels can be compared. Nothing
    random is drawn, and the backbone is left as it was.

    Parameters
    ----------
    backbone : Backbone
        On the device.
    recipe : TrainingRecipe
    ranks : Ranks
    channels : sequence of str
        The channel table of mca.
    device : torch.device
    """
    dataset, rows, names = _chosen(recipe)
    own = rows[ranks.rank :: ranks.count]
    size = recipe.backbone.image_size
    lookup = {name: place for place, name in enumerate(channels)}
    features = torch.zeros(-(-len(rows) // ranks.count), backbone.width)
    was_training = backbone.training
    backbone.eval()
    with torch.inference_mode():
        for place, row in enumerate(own.tolist()):
            image: MultiChannelImage = dataset[row]["image"]
            planes = _planes(np.asarray(image), size, recipe.views.normalise == "plane", device)
            if recipe.strategy == "boc":
                found = backbone(planes[:, None]).mean(dim=0)
            else:
                ids = torch.tensor([[lookup.get(name or "", len(channels)) for name in image.channels]], device=device)
                found = backbone(planes[None], ids)[0]
            features[place] = found.float().cpu()
    backbone.train(was_training)
    gathered = ranks.gather(features)  # rank r has the rows r, r + ranks, …
    everything = gathered.transpose(0, 1).flatten(0, 1)[: len(rows)]
    words, numbers = np.unique(names, return_inverse=True)
    labels = torch.from_numpy(numbers.astype(np.int64))
    return ProbeResult(
        label=recipe.probe.label,
        accuracy=knn_accuracy(everything, labels, recipe.probe.neighbours),
        chance=int(np.bincount(numbers).max()) / len(rows),
        images=len(rows),
        classes=len(words),
    )


def _planes(pixels: NDArray[Any], size: int, normalised: bool, device: torch.device) -> Tensor:
    """Planes as the network takes them: float32, shape (C, size, size)."""
    planes = torch.from_numpy(pixels.astype(np.float32)).to(device)
    if normalised:
        mean, variance = planes.mean(dim=(1, 2), keepdim=True), planes.var(dim=(1, 2), keepdim=True, correction=0)
        planes = (planes - mean) / (variance + EPSILON).sqrt()
    resized: Tensor = functional.interpolate(
        planes[None], (size, size), mode="bilinear", align_corners=False, antialias=True
    )[0]
    return resized


def _chosen(recipe: TrainingRecipe) -> tuple[Any, NDArray[np.int64], list[str]]:
    """The dataset, the rows of it that are probed, and their labels."""
    import pyarrow.compute as pc

    from chammi75.loading.dataset import load_dataset

    settings = recipe.probe
    selection = dict(settings.selection)
    if recipe.data.channels is not None:
        selection.setdefault("select_channels", list(recipe.data.channels))
    dataset: Any = load_dataset(recipe.store, split=recipe.data.split, **selection)
    group, _, field = settings.label.partition(".")
    table = dataset.data.table
    if group not in table.column_names:
        raise RecipeError(
            f"probe.label: the record has no group {group!r}: name a field as biology.cell_type; groups are"
            f" {', '.join(name for name in table.column_names if name not in ('image_id', 'image', 'annotation'))}"
        )
    fields = [known.name for known in table.schema.field(group).type] if field else []
    if field not in fields:
        raise RecipeError(f"probe.label: {settings.label!r} is no field of the record; {group} has {', '.join(fields)}")
    values = pc.struct_field(table.column(group), field).to_pylist()
    known = [row for row, value in enumerate(values) if value is not None]
    names = np.array([str(values[row]) for row in known], dtype=object)
    _, numbers, counts = np.unique(names.astype(str), return_inverse=True, return_counts=True)
    enough = counts[numbers] > 1 if len(known) else np.zeros(0, bool)
    rows = np.array(known, np.int64)[enough]
    if len(set(numbers[enough].tolist())) < 2:
        raise RecipeError(
            f"probe.label: fewer than two values of {settings.label} have two images each here ({len(known)} of"
            f" {len(values)} images state it): name another field or selection, or set probe.every_epochs=null"
        )
    if len(rows) > settings.images:
        rows = np.sort(np.random.default_rng(recipe.seed).permutation(rows)[: settings.images])
    return dataset, rows, [str(values[row]) for row in rows.tolist()]
