"""Build: a folder and a recipe become a plan, and plans become a store.

``recipes`` reads what people declare, ``plan`` looks at names and headers and says which files make which image,
``published`` plans from the published layout, ``execute`` reads the pixels and writes the shards.
"""

from chammi75.build.execute import BuildReport, build_store
from chammi75.build.plan import plan_folder
from chammi75.build.planned import BuildPlan, Finding, PlaneSource, PlannedImage, Reconciliation, check_limits
from chammi75.build.published import plan_published
from chammi75.build.recipes import load_recipe

__all__ = [
    "BuildPlan",
    "BuildReport",
    "Finding",
    "PlaneSource",
    "PlannedImage",
    "Reconciliation",
    "build_store",
    "check_limits",
    "load_recipe",
    "plan_folder",
    "plan_published",
]
