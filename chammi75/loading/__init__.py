"""Loading: filters, lazy multi-channel images, and real Hugging Face datasets over stores and the published layout."""

from chammi75.loading.collate import collate
from chammi75.loading.dataset import load_dataset
from chammi75.loading.image import MultiChannelImage
from chammi75.loading.plain import to_plain
from chammi75.loading.subsets import Subset
from chammi75.store.reader import open_store

__all__ = ["MultiChannelImage", "Subset", "collate", "load_dataset", "open_store", "to_plain"]
