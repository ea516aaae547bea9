"""Loading: filters, lazy multi-channel images, real Hugging Face datasets, and streams for training."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from chammi75.loading.collate import collate
from chammi75.loading.dataset import load_dataset
from chammi75.loading.image import MultiChannelImage
from chammi75.loading.plain import to_plain
from chammi75.loading.subsets import Subset
from chammi75.store.reader import open_store

if TYPE_CHECKING:
    from chammi75.loading.crops import read_crops
    from chammi75.loading.guided import GuidedCrop
    from chammi75.loading.stream.stream import TrainingStream

__all__ = [
    "GuidedCrop",
    "MultiChannelImage",
    "Subset",
    "TrainingStream",
    "collate",
    "load_dataset",
    "open_store",
    "read_crops",
    "to_plain",
]

_HOMES = {
    "GuidedCrop": "chammi75.loading.guided",
    "TrainingStream": "chammi75.loading.stream.stream",  # imports torch
    "read_crops": "chammi75.loading.crops",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
