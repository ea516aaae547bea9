"""Subsets: choices of images that anybody can repeat.

A recipe finds images (``images``), draws of them (``draws``, ``quotas``, ``siphash``), and cuts them into parts
(``splits``); ``recipe_file`` reads and writes it. The images found are a ``pool``; ``citations`` says whose they are.
"""

from chammi75.loading.subsets.splits import Leak
from chammi75.loading.subsets.subset import Subset, run_recipe, subset_of

__all__ = ["Leak", "Subset", "run_recipe", "subset_of"]
