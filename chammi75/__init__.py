"""chammi75: the world's public microscopy images, usable as one dataset.

    from chammi75 import load_dataset

    dataset = load_dataset("mini", streaming=True, organism="Homo sapiens", channel_type=["nucleus", "er"])
    sample = next(iter(dataset))
    sample["image"]["nucleus", 0:256, 0:256]

Heavy libraries (datasets, pyarrow, numba, torch …) are imported by the first call that needs them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from chammi75.version import __version__

if TYPE_CHECKING:
    from chammi75.catalog import Catalog
    from chammi75.errors import ChammiError
    from chammi75.loading import MultiChannelImage, Subset, collate, load_dataset, open_store, to_plain

__all__ = [
    "Catalog",
    "ChammiError",
    "MultiChannelImage",
    "Subset",
    "__version__",
    "collate",
    "load_dataset",
    "open_store",
    "to_plain",
]

_HOMES = {
    "Catalog": "chammi75.catalog",
    "ChammiError": "chammi75.errors",
    "MultiChannelImage": "chammi75.loading",
    "Subset": "chammi75.loading",
    "collate": "chammi75.loading",
    "load_dataset": "chammi75.loading",
    "open_store": "chammi75.loading",
    "to_plain": "chammi75.loading",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'chammi75' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
