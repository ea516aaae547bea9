"""The k-nearest-neighbour probe, against plain loops."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("torch", reason="training needs PyTorch")

import torch
from loading_stores import write_store
from training_runs import small_recipe

from chammi75.errors import RecipeError
from chammi75.training.devices import Ranks
from chammi75.training.probe import check_probe, knn_accuracy, probe


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_store(tmp_path_factory.mktemp("probe") / "store").url


def accuracy_by_loops(features: list[list[float]], labels: list[int], neighbours: int) -> float:
    """Wu et al. 2018: votes of exp(cosine / 0.07), each sample left out in its turn."""
    right = 0
    for one, label in enumerate(labels):
        similar = []
        for other in range(len(labels)):
            if other != one:
                dot = sum(a * b for a, b in zip(features[one], features[other], strict=True))
                lengths = (
                    math.dist(features[one], [0] * len(features[one])),
                    math.dist(features[other], [0] * len(features[other])),
                )
                similar.append((dot / lengths[0] / lengths[1], labels[other]))
        votes: dict[int, float] = {}
        for cosine, word in sorted(similar, reverse=True)[:neighbours]:
            votes[word] = votes.get(word, 0.0) + math.exp(cosine / 0.07)
        right += max(votes, key=lambda word: votes[word]) == label
    return right / len(labels)


@pytest.mark.parametrize("neighbours", [1, 5, 20, 500])
def test_the_vote_is_that_of_the_paper(neighbours: int) -> None:
    generator = torch.Generator().manual_seed(neighbours)
    labels = torch.randint(0, 4, (60,), generator=generator)
    centres = torch.randn(4, 8, generator=generator)
    features = centres[labels] + 0.9 * torch.randn(60, 8, generator=generator)
    expected = accuracy_by_loops(features.tolist(), labels.tolist(), neighbours)
    assert 0.3 < expected < 1
    assert knn_accuracy(features, labels, neighbours) == pytest.approx(expected)


class Means(torch.nn.Module):  # type: ignore[misc,unused-ignore]
    """A backbone that sees how bright the corners of planes are."""

    width = 4

    def forward(self, pixels: torch.Tensor, channel_ids: torch.Tensor | None = None) -> torch.Tensor:
        return pixels.flatten(1)[:, :4]


@pytest.mark.parametrize("strategy", ["boc", "mca"])
def test_ranks_share_the_work_and_find_the_same(store: str, tmp_path: Path, strategy: str) -> None:
    recipe = small_recipe(
        store,
        tmp_path,
        strategy=strategy,
        probe={"every_epochs": 1, "label": "experiment.study", "neighbours": 3},
    )
    device, channels = torch.device("cpu"), ("bright-field", "er", "nucleus", "protein")
    backbone = Means().train()
    whole = probe(backbone, recipe, Ranks(), channels, device)
    assert backbone.training
    assert (whole.images, whole.classes) == (30, 3) and whole.chance == pytest.approx(10 / 30)
    parts: dict[int, torch.Tensor] = {}

    def gather_as(rank: int) -> SimpleNamespace:
        def gather(values: torch.Tensor) -> torch.Tensor:
            parts[rank] = values
            return torch.stack([parts.get(other, torch.zeros_like(values)) for other in range(4)])

        return SimpleNamespace(rank=rank, count=4, gather=gather)

    for rank in range(4):
        result = probe(backbone, recipe, gather_as(rank), channels, device)  # type: ignore[arg-type]
    assert result == whole


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("biology.celltype", "biology has .*cell_type"),
        ("tissue.kind", "no group 'tissue'"),
        ("biology.cell_type", "fewer than two values .*0 of 30 images state it"),
    ],
)
def test_a_label_that_tells_nothing_apart_is_refused_before_the_training(
    store: str, tmp_path: Path, label: str, words: str
) -> None:
    with pytest.raises(RecipeError, match=words):
        check_probe(small_recipe(store, tmp_path, probe={"every_epochs": 1, "label": label}))
