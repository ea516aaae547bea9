"""Steps per second of DINO, bag of channels: our loop against the original recipe's, with the same model and loss.

The original reads PNG files out of a zip archive, decodes each whole, cuts around a cell, and makes ten views of it in
the loader's worker processes, one image at a time (CaicedoLab/CHAMMI-75@b84a4ec, ``models/dinov1``). Ours sends crops
of eight bits out of a store, and makes the views of a batch at once where the model runs. Both have two worker
processes and one thread each, and train the same networks with the same optimiser and the same batches' size.

    python tests/bench/training.py [--json] [--repeats N] [--cases CASE …] [--device cuda]

``loader-1024`` and ``loader-2048`` have a small model, so that loading is the limit; ``model`` has a larger one, and
says how much of the time its step waits for data. ``--device cuda`` adds a ViT-S/16 in bfloat16, compiled.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import ours
from fields import read_fields, write_fields
from paired import Row, faster, print_rows, take_turns
from peers import reference_views

GOAL = 5
"""Times as many steps per second as the original, where loading is the limit."""


@dataclass(frozen=True)
class Case:
    """One comparison: fields of ``edge`` pixels, a backbone, views, and the samples of a step."""

    name: str
    words: str
    edge: int
    count: int
    backbone: str
    sizes: tuple[int, int]
    counts: tuple[int, int]
    batch_size: int
    steps: int
    head: tuple[int, int, int] = (256, 64, 1024)
    crop: int = 256
    goal: float | None = GOAL


CASES = (
    Case("loader-1024", "1024 px planes, tiny model, 2 x 64 + 4 x 32 px", 1024, 96, "tiny", (64, 32), (2, 4), 32, 12),
    Case("loader-2048", "2048 px planes, tiny model, 2 x 64 + 4 x 32 px", 2048, 48, "tiny", (64, 32), (2, 4), 32, 8),
    Case(
        "model", "1024 px planes, ViT-Ti/16, 2 x 96 + 4 x 48", 1024, 96, "vit_tiny", (96, 48), (2, 4), 16, 6, goal=None
    ),
)
GPU_CASE = Case(
    "gpu",
    "1024 px planes, ViT-S/16, 2 x 224 + 8 x 96 px",
    1024,
    512,
    "vit_small",
    (224, 96),
    (2, 8),
    256,
    30,
    (2048, 256, 65536),
    goal=2,
)


def recipe_of(case: Case, store: str) -> Any:
    """Our recipe of a case."""
    from chammi75.schemas.training import TrainingRecipe

    crops = [
        {"count": count, "size": size, "scale": scale}
        for count, size, scale in zip(case.counts, case.sizes, ((0.4, 1.0), (0.05, 0.4)), strict=True)
    ]
    return TrainingRecipe.model_validate(
        {
            "title": case.words,
            "store": store,
            "out": "unused",
            "method": "dino",
            "batch_size": case.batch_size,
            "data": {"crop": case.crop, "crop_jitter": 0, "workers": 2},
            "backbone": {"name": case.backbone, "image_size": case.sizes[0]},
            "views": {"global_views": crops[0], "local_views": crops[1]},
            "dino": dict(zip(("hidden_dim", "bottleneck_dim", "out_dim"), case.head, strict=True)),
        }
    )


class Loop:
    """The networks, their optimiser, and one step: the same for both."""

    def __init__(self, recipe: Any, device: str) -> None:
        import torch

        from chammi75.training.backbones import build_backbone
        from chammi75.training.methods import build_method
        from chammi75.training.optimizer import build_optimizer

        torch.manual_seed(0)
        self.recipe, self.device, self.steps = recipe, device, 0
        self.method = build_method(recipe, lambda: build_backbone(recipe.backbone, "boc"), 1000, 100_000).to(device)
        self.optimizer = build_optimizer(self.method.trained, recipe.optimizer)
        if device == "cuda":
            for backbone in self.method.backbones().values():
                backbone.compile()

    def step(self, views: Any) -> float:
        """Train on the views of a batch; the loss."""
        import torch

        from chammi75.training.optimizer import clip_gradients
        from chammi75.training.progress import Progress

        progress = Progress(self.steps, 1000, 100_000)
        with torch.autocast(self.device, torch.bfloat16, enabled=self.device == "cuda"):
            loss = self.method(views, progress)["loss"]
        loss.backward()
        clip_gradients(list(self.method.trained.parameters()), 3.0, "parameter")
        self.method.after_backward(progress)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.method.after_step(progress)
        self.steps += 1
        return float(loss.detach())


def our_batches(recipe: Any, seed: int, device: str) -> Iterator[Callable[[], Any]]:
    """Our batches without end, each as what makes its views: that is work of the step, not of the loader."""
    from torch.utils.data import DataLoader

    from chammi75.loading import GuidedCrop, TrainingStream
    from chammi75.training.crops import Crops
    from chammi75.training.views import make_views

    stream = TrainingStream(
        recipe.store,
        seed=seed,
        batch_size=recipe.batch_size,
        crop=GuidedCrop(recipe.data.crop, jitter=0),
        samples_per_epoch=10**7,
    )
    for batch in DataLoader(stream, batch_size=None, num_workers=2, pin_memory=device == "cuda"):
        yield lambda batch=batch: make_views(Crops.from_batch(batch).to(device), recipe.views, seed)  # type: ignore[misc]


def their_batches(place: Path, recipe: Any, seed: int, device: str) -> Iterator[Callable[[], Any]]:
    """The original's batches without end, whose views its workers have made."""
    for views in reference_views.batches(place, recipe, seed, device):
        yield lambda views=views: views  # type: ignore[misc]


def turn(loop: Loop, batches: Iterator[Callable[[], Any]], steps: int) -> tuple[float, float]:
    """Seconds of a step, and the share of them that it waited for its batch."""
    loop.step(next(batches)())  # starts the workers
    loop.step(next(batches)())
    waited, begun = 0.0, time.perf_counter()
    for _ in range(steps):
        asked = time.perf_counter()
        views_of_next = next(batches)
        waited += time.perf_counter() - asked
        loop.step(views_of_next())
    took = time.perf_counter() - begun
    return took / steps, waited / took


def compare(case: Case, folder: Path, repeats: int, device: str) -> Row:
    """One row."""
    place = folder / f"{case.edge}-{case.count}"
    if not place.exists():
        print(write_fields(place / "fields", case.edge, case.count), file=sys.stderr)
        fields = read_fields(place / "fields")
        ours.build(place / "ours", fields)
        (place / "zip").mkdir()
        reference_views.build(place / "zip", fields)
    recipe = recipe_of(case, os.fspath(place / "ours" / "store"))
    loops = Loop(recipe, device), Loop(recipe, device)
    turns = iter(range(10**6))
    waits: list[float] = []

    def work(loop: Loop, batches: Callable[[int], Iterator[Any]], waits: list[float]) -> float:
        iterator = batches(next(turns))
        seconds, share = turn(loop, iterator, case.steps)
        iterator.close()  # type: ignore[attr-defined]  # a generator: its workers end
        waits.append(share)
        return seconds

    times = take_turns(
        {
            "ours": lambda: work(loops[0], lambda seed: our_batches(recipe, seed, device), waits),
            "reference": lambda: work(loops[1], lambda seed: their_batches(place / "zip", recipe, seed, device), []),
        },
        repeats,
    )
    note = f"{case.batch_size / median(times['ours']):.0f} samples/s; waits for data {median(waits):.1%} of the time"
    return faster(f"{case.words} : the original loop", (times["ours"], times["reference"]), case.goal, note)


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print a list of objects")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cases", nargs="+", choices=[case.name for case in CASES], default=[], metavar="CASE")
    parser.add_argument("--folder", help="keep the images there, and use those that are there")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    arguments = parser.parse_args()
    import torch

    torch.set_num_threads(1 if arguments.device == "cpu" else os.cpu_count() or 1)
    cases = (GPU_CASE,) if arguments.device == "cuda" else CASES
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(arguments.folder or scratch)
        chosen = [case for case in cases if not arguments.cases or case.name in arguments.cases]
        rows = [compare(case, folder, arguments.repeats, arguments.device) for case in chosen]
    if arguments.json:
        print(json.dumps([asdict(row) for row in rows], indent=1))
    else:
        print_rows(rows)


if __name__ == "__main__":
    _main()
