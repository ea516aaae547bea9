"""Training: views on the device, three methods, two ways with channels, a trainer, and models that load in one line."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from chammi75.errors import MissingDependencyError

if TYPE_CHECKING:
    from chammi75.training.embedder import EmbeddingModel
    from chammi75.training.embedding import embed_store
    from chammi75.training.models import load_model, save_model
    from chammi75.training.recipes import load_recipe
    from chammi75.training.trainer import train

__all__ = ["EmbeddingModel", "embed_store", "load_model", "load_recipe", "save_model", "train"]

_HOMES = {
    "EmbeddingModel": "chammi75.training.embedder",
    "embed_store": "chammi75.training.embedding",
    "load_model": "chammi75.training.models",
    "load_recipe": "chammi75.training.recipes",
    "save_model": "chammi75.training.models",
    "train": "chammi75.training.trainer",
}
_NEEDED = ("torch", "torchvision", "timm", "lightning_fabric")


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        if error.name not in _NEEDED:
            raise
        raise MissingDependencyError(f'training needs {error.name}: pip install "chammi75[train]"') from error
