"""From a subset recipe to the images that it finds: filter, draw, split."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from difflib import get_close_matches
from typing import Any

import numpy as np

from chammi75.errors import FilterError, RecipeError, StoreError
from chammi75.loading.filters import Filters
from chammi75.loading.layouts import Layout, StoreLayout
from chammi75.loading.selection import matching_all, nothing_passes
from chammi75.loading.subsets.draws import draw
from chammi75.loading.subsets.pool import Pool
from chammi75.loading.subsets.recipe_file import read_recipe
from chammi75.loading.subsets.splits import partition
from chammi75.schemas.subset import SubsetRecipe
from chammi75.store.writer import content_hash as hash_of_images


def find_images(
    recipe: SubsetRecipe, layouts: Sequence[Layout], beside: str | None = None
) -> tuple[SubsetRecipe, Pool]:
    """The images that a recipe finds.

    Parameters
    ----------
    recipe : SubsetRecipe
        Its hashes are not looked at.
    layouts : sequence of Layout
    beside : str, optional
        URL of the recipe's folder, for ``matched_with``.

    Returns
    -------
    recipe : SubsetRecipe
        Without hashes, and with a total in the place of ``matched_with``: it finds the same images alone.
    pool : Pool

    Raises
    ------
    FilterError
        If a filter or field names what is not there, or no image passes.
    RecipeError
        If ``matched_with`` names no recipe, or ``filters`` no keyword filter.
    StoreError
        If two of the layouts share an image.
    """
    total = recipe.total
    if recipe.matched_with is not None:
        other, _ = read_recipe(recipe.matched_with, beside=beside)
        try:
            found = len(_drawn(other.model_copy(update={"balance": "none"}), layouts, other.total))
        except FilterError as error:
            raise FilterError(f"this subset is matched with {recipe.matched_with}: {error}") from error
        total = found if total is None else min(found, total)
    pool = _drawn(recipe, layouts, total)
    for part in recipe.parts:
        pool = pool.kept(partition(pool, part) == list(part.fractions).index(part.name))
    resolved = recipe.model_copy(
        update={"total": total, "matched_with": None, "images": None, "store_sha256": None, "images_sha256": None}
    )
    return resolved, pool


def content_hash(layouts: Sequence[Layout]) -> str:
    """Hash of the content of layouts, in whatever order.

    Of one store and of several it is ``content_sha256`` of all their images in one store, so that a store of parts and
    a copy of it in one piece have the same.
    """
    stores = [layout.store for layout in layouts if isinstance(layout, StoreLayout)]
    if len(stores) == len(layouts) > 1:
        tables = [store.index.table for store in stores]
        ids, digests = (
            [value for table in tables for value in table.column(name).to_pylist()]
            for name in ("image_id", "content_sha256")
        )
        return hash_of_images(ids, digests)
    identities = sorted(
        identity if re.fullmatch("[0-9a-f]{64}", identity) else hashlib.sha256(identity.encode()).hexdigest()
        for identity in (layout.identity for layout in layouts)
    )
    return identities[0] if len(identities) == 1 else hashlib.sha256("\n".join(identities).encode()).hexdigest()


def _drawn(recipe: SubsetRecipe, layouts: Sequence[Layout], total: int | None) -> Pool:
    """What passes the filters of a recipe and is drawn; before it is split."""
    filters = filters_of(recipe)
    masks = matching_all(layouts, filters, recipe.where, recipe.split)
    pool = Pool(tuple(layouts), tuple(np.flatnonzero(mask) for mask in masks))
    if not len(pool):
        raise FilterError(nothing_passes(filters, recipe.where))
    repeated = pool.first_repeated_id()
    if repeated is not None:
        urls = ", ".join(layout.url for layout in layouts)
        raise StoreError(f"the image {repeated} is in two of these stores ({urls}): a subset takes each image once")
    if recipe.group_by is None and total is None:
        return pool
    paths = [recipe.group_by] if isinstance(recipe.group_by, str) else recipe.group_by
    drawn = draw(
        pool.ids(),
        pool.groups(paths) if paths is not None else None,
        seed=recipe.seed,
        balance=recipe.balance,
        per_group=recipe.per_group,
        total=total,
        largest_groups=recipe.largest_groups,
    )
    if not drawn.any():
        raise FilterError(
            f"{' + '.join(paths or [])} is unknown for every image that passes: there is no group to take"
        )
    return pool.kept(drawn)


def filters_of(recipe: SubsetRecipe) -> Filters:
    """The keyword filters of a recipe.

    Raises
    ------
    RecipeError
        If there is none of a name.
    """
    known = [field.name for field in fields(Filters)]
    for name in recipe.filters:
        if name not in known:
            near = get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"they are {', '.join(known)}"
            raise RecipeError(f"filters: there is no keyword filter {name!r}; {hint}")
    return Filters(**recipe.filters)


def plain_filters(filters: Filters) -> dict[str, Any]:
    """Filters as a recipe writes them: a range of two numbers as ``{min:, max:}``, other collections as lists."""
    plain: dict[str, Any] = {}
    for name, wanted in filters.stated().items():
        if isinstance(wanted, tuple) and name in ("magnification", "num_channels") and len(wanted) == 2:
            ends = zip(("min", "max"), wanted, strict=True)
            plain[name] = {end: number for end, number in ends if number is not None} or {"min": None}
        elif isinstance(wanted, Mapping):
            plain[name] = dict(wanted)
        elif isinstance(wanted, set | frozenset):
            plain[name] = sorted(wanted)
        else:
            plain[name] = list(wanted) if isinstance(wanted, Sequence) and not isinstance(wanted, str) else wanted
    return plain
