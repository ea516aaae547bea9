"""Does it learn? The recipe ``laptop`` on a larger screen, by each method and several seeds: what its features know.

A simulated study with plates (``--study`` at ``--size``) is built once: mini0008, six yeast strains whose tagged
protein is in another place of the cell each, or mini0004, DMSO and six compounds on replicate plates. The networks see
every other plate, without labels. Then linear probes and nearest neighbours of the frozen features learn the phenotypes
on the same plates and are asked on the other ones, which nothing has seen: once of single crops around cells, once of
whole images, whose features are the means over those of their crops. Beside them stand an untrained network, and
statistics of the same crops' intensities. Of doses, those with at least half of their effect are asked for, and images
with a defect and duplicates are not. Accuracy is balanced: the mean over the phenotypes of the share that is right.

In mini0004 many phenotypes are also brightness (a stain that is lost, rounded cells that are bright), which the
normalisation of each crop takes from the networks and leaves to the statistics; in mini0008 fewer are.

Nine runs of twelve minutes take two hours; ``--methods dino --seeds 0 --minutes 2`` is a look. What is done already in
``--folder`` is not done again.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

from chammi75 import load_dataset
from chammi75.build.execute import build_store
from chammi75.build.plan import plan_folder
from chammi75.build.recipes import load_recipe as load_build_recipe
from chammi75.mini.simulate import STUDIES
from chammi75.mini.truth import ImageTruth, read_truth
from chammi75.terminal import table
from chammi75.training.recipes import load_recipe

if TYPE_CHECKING:
    from chammi75.schemas.training import TrainingRecipe
    from chammi75.training.models import EmbeddingModel

Features = NDArray[np.float32]

SEED = 75
SIZES = {"mini0008": 24.0, "mini0004": 10.0}
"""Study -> how many times larger than in ``mini`` it is, unless told: some 580 and 550 images."""
CELLS = 8  # crops of an image, at most
LEAST_EFFECT = 0.5
NEIGHBOURS = 10
PERCENTILES = (1, 5, 25, 50, 75, 95, 99)
METHODS: dict[str, tuple[str, ...]] = {
    "dino": (),
    "mae": (
        "method=mae",
        "batch_size=64",
        "views.global_views.count=1",
        "views.intensity=0.0",
        "views.blur=0.0",
        "views.local_views.count=0",
        "mae.decoder_width=64",
        "mae.decoder_depth=2",
        "mae.decoder_heads=2",
        "optimizer.betas=[0.9, 0.95]",
        "optimizer.learning_rate=8.0e-3",
    ),
    "simclr": (
        "method=simclr",
        "batch_size=64",
        "views.local_views.count=0",
        "simclr.hidden_dim=256",
        "simclr.out_dim=64",
        "optimizer.learning_rate=4.0e-3",
    ),
}
"""What each method changes of the recipe ``laptop``."""
UNTRAINED, INTENSITY = "untrained network", "intensity statistics"

_TRAIN = "import sys; from chammi75.training import load_recipe, train; train(load_recipe('laptop', sys.argv[1:]))"
_COLOURS = ("#8a8f98", "#c23b3b", "#2f6f9f", "#3f8f4f", "#8a5fb0", "#b06a2c", "#1f9e9e", "#a0a020")


@dataclass(frozen=True)
class Screen:
    """The labelled images of the study, in one order: their crops, what they show, and on which plates.

    Attributes
    ----------
    crops : list of ndarray of uint8 or uint16, shape (K, C, E, E)
        Around K cells of each image.
    phenotypes, plates : ndarray of str
    is_train : ndarray of bool
        Whether the image is on a plate that is learnt from.
    """

    crops: list[NDArray[Any]]
    phenotypes: NDArray[np.str_]
    plates: NDArray[np.str_]
    is_train: NDArray[np.bool_]


@dataclass(frozen=True)
class Score:
    """What the features of one run know of crops or images: balanced accuracies on plates that nothing has seen."""

    features: str
    unit: str
    seed: int
    linear: float
    neighbours: float


def build_screen(folder: Path, study: str, size: float, workers: int) -> tuple[str, Path]:
    """The store and its source folder, built where they are not there; ``size`` is that of ``mini``."""
    home = folder / f"{study}-{size:g}"
    store, sources = home / "store", home / "sources"
    if not (store / "manifest.json").is_file():
        if home.exists():
            raise SystemExit(f"{home} holds half a study: remove it")
        home.mkdir(parents=True)
        recipe, place, digest = load_build_recipe(STUDIES[study].write(sources, size=size, seed=SEED))
        plan = plan_folder(str(place), recipe, recipe_folder=str(place), recipe_sha256=digest)
        build_store([plan], str(store), workers=workers)
    return str(store), sources / study


def is_first_replicate(plate: str) -> bool:
    """Plates are MCF7-7501 and MCF7-7502, YGC-7503 and YGC-7504, …"""
    return int(plate.rpartition("-")[2]) % 2 == 1


def read_screen(store: str, sources: Path, edge: int) -> Screen:
    """The images that are asked for, cut into crops of ``edge`` pixels."""
    truth = {image.path: image for image in read_truth(sources).images}
    crops, phenotypes, plates = [], [], []
    for sample in load_dataset(store, streaming=True):
        known = truth[sample["storage"]["path"][0]]
        is_asked = known.effect is None or known.effect >= LEAST_EFFECT
        if not is_asked or known.defects or known.duplicate or not known.cells:
            continue
        crops.append(np.stack(list(_cut(np.asarray(sample["image"]), known, edge))))
        phenotypes.append(known.phenotype)
        plates.append(sample["experiment"]["plate"])
    is_train = np.array([is_first_replicate(plate) for plate in plates])
    if len(set(plates)) < 2 or set(np.array(phenotypes)[is_train]) != set(np.array(phenotypes)[~is_train]):
        raise SystemExit(
            "the study is too small: every phenotype must be on both plates of a pair; take a greater --size"
        )
    return Screen(crops, np.array(phenotypes), np.array(plates), is_train)


def _cut(pixels: NDArray[Any], known: ImageTruth, edge: int) -> Iterator[NDArray[Any]]:
    """Crops around cells that lie evenly in the list of all, shifted to stay inside."""
    chosen = np.unique(np.linspace(0, len(known.cells) - 1, CELLS).round().astype(int))
    height, width = pixels.shape[-2:]
    for number in chosen:
        cell = known.cells[number]
        y = int(np.clip(round(cell.y) - edge // 2, 0, max(height - edge, 0)))
        x = int(np.clip(round(cell.x) - edge // 2, 0, max(width - edge, 0)))
        yield pixels[:, y : y + edge, x : x + edge]


def intensities(screen: Screen) -> Features:
    """Mean, deviation and percentiles of each channel of all crops, those of each image behind one another."""
    crops = np.concatenate(screen.crops)
    flat = crops.reshape(*crops.shape[:2], -1).astype(np.float32)
    parts = [flat.mean(-1), flat.std(-1), *np.percentile(flat, PERCENTILES, axis=-1)]
    return np.stack(parts, -1).reshape(len(crops), -1).astype(np.float32)


def embed(model: EmbeddingModel, screen: Screen) -> Features:
    """Features of each channel of all crops, side by side."""
    return model.embed(np.concatenate(screen.crops), batch_size=256)


def of_images(features: Features, screen: Screen) -> Features:
    """The mean over the crops of each image."""
    ends = np.cumsum([len(crops) for crops in screen.crops])[:-1]
    return np.array([part.mean(0) for part in np.split(features, ends)], np.float32)


def untrained(recipe: TrainingRecipe, seed: int) -> EmbeddingModel:
    """The recipe's network with the weights that it begins with."""
    import torch

    from chammi75.schemas.model_card import InputSettings, ModelConfig
    from chammi75.training.backbones import build_backbone
    from chammi75.training.models import EmbeddingModel
    from chammi75.version import __version__

    torch.manual_seed(seed)
    network = build_backbone(recipe.backbone, recipe.strategy)
    config = ModelConfig(
        library_version=__version__,
        title=UNTRAINED,
        architecture=recipe.backbone.name,
        width=network.width,
        patch_size=network.patch_size,
        image_size=recipe.backbone.image_size,
        input=InputSettings(dtypes=["uint8", "uint16"], normalisation=recipe.views.normalise),
    )
    return EmbeddingModel(network, config, "")


def scores_of(name: str, seed: int, features: Features, screen: Screen) -> list[Score]:
    """Of the features of all crops: what they know of crops, and averaged of images."""
    image_of = np.repeat(np.arange(len(screen.crops)), [len(crops) for crops in screen.crops])
    units = (("crop", features, image_of), ("image", of_images(features, screen), np.arange(len(screen.crops))))
    return [Score(name, unit, seed, *_accuracies(rows, screen, numbers)) for unit, rows, numbers in units]


def _accuracies(features: Features, screen: Screen, image_of: NDArray[np.int64]) -> tuple[float, float]:
    """Learn on the first plates of the pairs, ask on the second.

    How strong the probe is held back is chosen on the plates that it learns from, left out pair by pair.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.model_selection import GridSearchCV, GroupKFold
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import Normalizer, StandardScaler

    train, phenotypes = screen.is_train[image_of], screen.phenotypes[image_of]
    known, asked = phenotypes[train], phenotypes[~train]
    linear: Any = make_pipeline(
        StandardScaler(), LogisticRegression(C=0.1, max_iter=5000, class_weight="balanced", random_state=0)
    )
    groups = screen.plates[image_of][train]
    if len(set(groups)) > 1:
        grid = {"logisticregression__C": [0.001, 0.01, 0.1, 1.0, 10.0]}
        folds = GroupKFold(min(5, len(set(groups))))
        linear = GridSearchCV(linear, grid, cv=folds, scoring="balanced_accuracy")
        linear.fit(features[train], known, groups=groups)
    else:
        linear.fit(features[train], known)
    nearest = make_pipeline(StandardScaler(), Normalizer(), KNeighborsClassifier(NEIGHBOURS, weights="distance"))
    nearest.fit(features[train], known)
    linear_right, nearest_right = (
        balanced_accuracy_score(asked, one.predict(features[~train])) for one in (linear, nearest)
    )
    return float(linear_right), float(nearest_right)


def train(run: Path, changes: Sequence[str]) -> None:
    """Train in a process of its own; a run that is done, or stopped, goes on."""
    done = subprocess.run([sys.executable, "-c", _TRAIN, *changes, f"out={run}"], stdout=sys.stderr, check=False)
    if done.returncode:
        raise SystemExit(f"the training of {run.name} ended with {done.returncode}")


def epochs_in(minutes: float, folder: Path, changes: Sequence[str], planes: int) -> int:
    """How many epochs fit into so many minutes on this machine, by forty steps of it."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        train(Path(scratch) / "rate", [*changes, "max_steps=40", "log.every_steps=20"])
        with open(Path(scratch) / "rate" / "log.csv", newline="") as file:
            rate = float(list(csv.DictReader(file))[-1]["samples_per_s"])
    return max(1, int(minutes * 60 * rate / planes))


def compare(arguments: argparse.Namespace, folder: Path) -> tuple[list[Score], list[str], str | None]:
    """Scores of all that was asked for, notes, and the picture."""
    from chammi75.training import load_model

    store, sources = build_screen(folder, arguments.study, arguments.size, arguments.workers)
    base = load_recipe("laptop", arguments.set)
    if not isinstance(base.data.crop, int):
        raise SystemExit("data.crop must be a number of pixels here")
    screen = read_screen(store, sources, base.data.crop)
    seen = sorted({sample["experiment"]["plate"] for sample in load_dataset(store, streaming=True)})
    seen = [plate for plate in seen if is_first_replicate(plate)]
    where = f"experiment.plate IN ({', '.join(repr(plate) for plate in seen)})"
    planes = screen.crops[0].shape[1] * sum(1 for _ in load_dataset(store, streaming=True, where=where))
    scores = scores_of(INTENSITY, 0, intensities(screen), screen)
    for seed in arguments.seeds:
        scores += scores_of(UNTRAINED, seed, embed(untrained(base, seed), screen), screen)
    notes, drawn = [], None
    for method in arguments.methods:
        common = [f"store={json.dumps(store)}", f"data.selection.where={json.dumps(where)}", *METHODS[method]]
        common += ["probe.every_epochs=null", *arguments.set]
        plan = folder / f"{Path(store).parent.name}-{method}-{arguments.minutes:g}-minutes.json"
        if arguments.epochs:
            epochs = arguments.epochs
        elif plan.is_file():
            epochs = json.loads(plan.read_text())["epochs"]
        else:
            epochs = epochs_in(arguments.minutes, folder, common, planes)
            plan.write_text(json.dumps({"epochs": epochs}))
        recipe = load_recipe("laptop", common)
        steps = epochs * (planes // (recipe.batch_size * recipe.accumulate))
        notes.append(f"{method}: {epochs} epochs, {steps} steps")
        for seed in arguments.seeds:
            run = folder / f"{Path(store).parent.name}-{method}-{epochs}-epochs-seed-{seed}"
            train(run, [*common, f"epochs={epochs}", f"seed={seed}"])
            features = embed(load_model(run / "model"), screen)
            scores += scores_of(method, seed, features, screen)
            print(f"{method}, seed {seed}: {scores[-2:]}", file=sys.stderr)
            if arguments.picture and drawn is None:
                drawn = scatter(of_images(features, screen), screen, f"{method}, seed {seed}")
    counts = f"{int(screen.is_train.sum())} images to learn from, {int((~screen.is_train).sum())} to be asked for"
    notes.insert(0, f"{counts}, {len(set(screen.phenotypes))} phenotypes; trained on {planes} planes without labels")
    return scores, notes, drawn


def rows_of(scores: Sequence[Score]) -> list[dict[str, object]]:
    """A row for each kind of features: mean and deviation over the seeds."""
    rows: list[dict[str, object]] = []
    for name in dict.fromkeys(one.features for one in scores):
        own = [one for one in scores if one.features == name]
        row: dict[str, object] = {"features": name, "seeds": len({one.seed for one in own})}
        for unit in ("crop", "image"):
            row[f"linear probe, {unit}"] = _spread([one.linear for one in own if one.unit == unit])
            row[f"{NEIGHBOURS} neighbours, {unit}"] = _spread([one.neighbours for one in own if one.unit == unit])
        rows.append(row)
    return rows


def _spread(values: Sequence[float]) -> str:
    return f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


def scatter(features: Features, screen: Screen, title: str) -> str:
    """All images in two dimensions, by UMAP where umap-learn is installed, else by t-SNE; an SVG document."""
    from sklearn.preprocessing import StandardScaler

    scaled = StandardScaler().fit_transform(features)
    try:
        from umap import UMAP
    except ModuleNotFoundError:
        from sklearn.manifold import TSNE

        way, places = "t-SNE", TSNE(perplexity=min(30, len(features) // 4), random_state=0).fit_transform(scaled)
    else:
        way, places = "UMAP", UMAP(random_state=0).fit_transform(scaled)
    low, high = places.min(0), places.max(0)
    places = 20 + 480 * (places - low) / (high - low)
    names = sorted(set(screen.phenotypes))
    colours = {name: _COLOURS[number % len(_COLOURS)] for number, name in enumerate(names)}
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 560" width="720" height="560"'
        ' font-family="system-ui, sans-serif" font-size="13" fill="#1f2328">',
        '<rect width="720" height="560" fill="#ffffff"/>',
        f'<text x="20" y="24" font-weight="600">{escape(f"{way} of the features of {title}")}</text>',
    ]
    for (x, y), name, is_train in zip(places, screen.phenotypes, screen.is_train, strict=True):
        fill = f'fill="{colours[name]}"' if not is_train else f'fill="none" stroke="{colours[name]}" stroke-width="1.5"'
        parts.append(f'<circle cx="{x:.1f}" cy="{y + 30:.1f}" r="4" {fill}/>')
    for number, name in enumerate(names):
        y = 60 + 22 * number
        parts.append(f'<circle cx="535" cy="{y - 4}" r="5" fill="{colours[name]}"/>')
        parts.append(f'<text x="548" y="{y}">{escape(name)}</text>')
    parts.append('<text x="20" y="550">Each point is an image; filled ones are of plates that nothing has seen.</text>')
    return "\n".join([*parts, "</svg>\n"])


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS), metavar="METHOD")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="SEED")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, default=12.0, help="of each run (default 12)")
    length.add_argument("--epochs", type=int, help="of each run, instead of minutes")
    parser.add_argument("--study", default="mini0008", choices=list(SIZES), help="default mini0008")
    parser.add_argument("--size", type=float, help="of the study; by default one of some 550 images")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="changes of the recipe, for trials")
    parser.add_argument("--workers", type=int, default=2, help="processes that build the store")
    parser.add_argument("--folder", help="keep the screen and the runs there, and use those that are there")
    parser.add_argument("--json", action="store_true", help="print a list of objects")
    parser.add_argument("--picture", metavar="FILE.svg", help="draw the features of the first run")
    arguments = parser.parse_args()
    if arguments.picture and not arguments.picture.endswith(".svg"):
        parser.error(f"a picture is an SVG file, not {arguments.picture}")
    arguments.size = arguments.size or SIZES[arguments.study]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(arguments.folder or scratch).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        scores, notes, drawn = compare(arguments, folder)
    if drawn is not None:
        Path(arguments.picture).write_text(drawn, encoding="utf-8")
    if arguments.json:
        print(json.dumps([asdict(one) for one in scores], indent=1))
        return
    table(rows_of(scores), title="Balanced accuracy of phenotypes on plates that nothing has seen")
    print("\n".join(notes))


if __name__ == "__main__":
    _main()
