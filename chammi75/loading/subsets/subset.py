"""Subsets: which images, by a recipe that finds the same ones on every machine, and a hash that proves it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal, Unpack

import numpy as np
from numpy.typing import NDArray

from chammi75.errors import FilterError, RecipeError, StoreError
from chammi75.files import StorageOptions
from chammi75.loading.filters import FilterOptions, Filters
from chammi75.loading.layouts import Layout
from chammi75.loading.selection import Selection
from chammi75.loading.stores import Named, open_stores
from chammi75.loading.subsets.citations import cited, licenses_of
from chammi75.loading.subsets.images import content_hash, filters_of, find_images, plain_filters
from chammi75.loading.subsets.pool import Pool
from chammi75.loading.subsets.recipe_file import checked_recipe, read_recipe, write_recipe
from chammi75.loading.subsets.splits import Leak, leaks, partition, parts_of
from chammi75.schemas.subset import Balance, SubsetRecipe


class Subset:
    """Some images of a store, or of several. Make one with `Subset.build`, read one with `Subset.load`.

    Attributes
    ----------
    recipe : SubsetRecipe
        What it was made by. Two subsets of one recipe and one store have the same images.
    pool : Pool
        Its images: rows of the layouts that it was made from.

    Examples
    --------
    ::

        subset = Subset.build("mini", group_by="experiment.study", per_group=3)
        subset.save("three-each.yaml")
        dataset = load_dataset("mini", subset="three-each.yaml")
    """

    def __init__(self, recipe: SubsetRecipe, pool: Pool) -> None:
        self.recipe = recipe
        self.pool = pool

    @classmethod
    def build(
        cls,
        store: Named | Sequence[Named],
        *,
        split: str | None = "train",
        where: str | None = None,
        group_by: str | Sequence[str] | None = None,
        largest_groups: int | None = None,
        per_group: int | None = None,
        total: int | None = None,
        matched_with: str | None = None,
        balance: Balance = "none",
        seed: int = 0,
        name: str | None = None,
        description: str | None = None,
        metadata: str | None = None,
        storage_options: StorageOptions | None = None,
        cache_dir: str | None = None,
        **filters: Unpack[FilterOptions],
    ) -> Subset:
        """Filter a store, and draw from what passes.

        Images are ranked by a keyed hash of their ``image_id`` (SipHash-2-4 under ``seed``), and the first of each
        group are taken: the same on every machine, in any order of stores and rows, for any number of workers.

        Parameters
        ----------
        store : str, path, Store or Layout, or sequence of them
            As for ``load_dataset``, or what is open already.
        split : str, optional
            Split of the store to take from; None for all.
        where : str, optional
            SQL condition over the record.
        group_by : str or sequence of str, optional
            Field of the record whose values make groups (``"experiment.study"``), or several whose combinations do.
            Images of which it is unknown are a group too.
        largest_groups : int, optional
            Take only so many groups, those of most images; the unknown is no group then.
        per_group, total : int, optional
            Images of each group, and in all, at most.
        matched_with : str, optional
            Another recipe, shipped or a file: take no more images than it can give here (whatever its balance), so
            that two recipes that name each other have equal numbers.
        balance : {"none", "log", "sqrt", "equal"}
            How group sizes are evened out: a group of n images gives min(n, per_group, c f(n)), where f(n) is n,
            ln(1 + n), the square root of n, or 1. With ``total`` c makes the total; with ``per_group`` alone c makes
            the largest group give ``per_group`` (for "none": each group gives up to that); with neither, the smallest
            group is kept whole (for "none": all are).
        seed : int
            Seed of the draw, below 2**64.
        name, description : str, optional
            For the recipe.
        metadata, storage_options, cache_dir
            As for ``load_dataset``.
        **filters
            The keyword filters of ``load_dataset`` (organism, channel_type, license …).

        Raises
        ------
        FilterError
            If a filter or field names what is not there, or no image passes.
        RecipeError
            If the numbers make no sense.
        StoreError, ChammiError
            If there is nothing to take from, or two of several stores share an image.
        """
        layouts = open_stores(store, metadata=metadata, storage_options=storage_options, cache_dir=cache_dir)
        recipe = checked_recipe(
            {
                "name": name,
                "description": description,
                "split": split,
                "filters": plain_filters(Filters(**filters)),
                "where": where,
                "group_by": group_by if group_by is None or isinstance(group_by, str) else list(group_by),
                "largest_groups": largest_groups,
                "per_group": per_group,
                "total": total,
                "matched_with": matched_with,
                "balance": balance,
                "seed": seed,
            }
        )
        return run_recipe(recipe, layouts)

    @classmethod
    def load(
        cls,
        named: str | os.PathLike[str],
        store: Named | Sequence[Named],
        *,
        metadata: str | None = None,
        storage_options: StorageOptions | None = None,
        cache_dir: str | None = None,
    ) -> Subset:
        """A subset from a recipe file, or a shipped one by its name; its recipe is run on ``store``.

        A recipe that was saved says which images it stands for. Another copy of its store, in another codec or other
        shards, has the same ones; a store in which the recipe finds others is refused. A recipe without such hashes
        (a shipped one) takes any store.

        Parameters
        ----------
        named : str or path
            A file (its name ends with .yaml), or the name of a shipped recipe (``"fluorescence-only"``).
        store, metadata, storage_options, cache_dir
            As for `Subset.build`.

        Raises
        ------
        StoreError
            If it is a subset of another store; the message says what differs.
        RecipeError
            If there is no such recipe, or it does not say what it must.
        FilterError
            If no image passes.
        """
        layouts = open_stores(store, metadata=metadata, storage_options=storage_options, cache_dir=cache_dir)
        recipe, folder = read_recipe(named, storage_options=storage_options if _is_remote(named) else None)
        return _verified(recipe, layouts, os.fspath(named), folder)

    def __len__(self) -> int:
        return len(self.pool)

    def __repr__(self) -> str:
        name = f"{self.name!r}, " if self.name else ""
        return f"Subset({name}images={len(self)}, of={[layout.url for layout in self.pool.layouts]})"

    @property
    def name(self) -> str | None:
        """Its name."""
        return self.recipe.name

    @cached_property
    def filters(self) -> Filters:
        """The keyword filters of its recipe."""
        return filters_of(self.recipe)

    @cached_property
    def images(self) -> tuple[str, ...]:
        """Ids of its images, sorted."""
        return tuple(self.pool.sorted_ids().to_pylist())

    @cached_property
    def images_sha256(self) -> str:
        """SHA-256 of the ids, sorted and joined by line feeds, as UTF-8: of subsets with the same images the same."""
        digest = hashlib.sha256()
        ids = self.pool.sorted_ids()
        for start in range(0, len(ids), 100_000):  # not all of millions as Python's texts at once
            digest.update(
                ("\n" if start else "").encode() + "\n".join(ids[start : start + 100_000].to_pylist()).encode()
            )
        return digest.hexdigest()

    @property
    def store_sha256(self) -> str:
        """Hash of the content of the store, or stores, that it was made from."""
        return content_hash(self.pool.layouts)

    @property
    def masks(self) -> list[NDArray[np.bool_]]:
        """For each layout which of its images belong to the subset."""
        masks = []
        for layout, rows in zip(self.pool.layouts, self.pool.rows, strict=True):
            mask = np.zeros(len(layout), bool)
            mask[rows] = True
            masks.append(mask)
        return masks

    @property
    def selections(self) -> list[Selection]:
        """Its images as rows of each layout that has some, for what reads or copies them."""
        kept = self.filters.kept_channel_types()
        return [
            Selection(layout, rows, kept)
            for layout, rows in zip(self.pool.layouts, self.pool.rows, strict=True)
            if len(rows)
        ]

    def on(self, store: Named | Sequence[Named], **options: Any) -> Subset:
        """The same images in another copy of the store.

        Parameters
        ----------
        store
            As for `Subset.build`.
        **options
            ``metadata``, ``storage_options`` and ``cache_dir``.

        Raises
        ------
        StoreError
            If the recipe finds other images there.
        """
        return subset_of(self, open_stores(store, **options))

    def split(
        self,
        fractions: Mapping[str, float],
        *,
        by: str | Sequence[str],
        seed: int = 0,
        stratify: str | None = None,
    ) -> dict[str, Subset]:
        """Parts that share no study, plate or well: whole units go to one part, and near-duplicates stay together.

        Parameters
        ----------
        fractions : mapping of str to float
            Share of each part's images; together 1. They are met as nearly as whole units allow.
        by : str or sequence of str
            What stays whole: ``"experiment.study"``, ``"experiment.plate"`` (of its study), ``"experiment.well"`` (of
            its plate), ``"microscopy.fov"`` (of its well) or any other field. Images of unknown plate (well) are one
            unit within their study (plate).
        seed : int
            Seed of the split; it is no matter of the draw's.
        stratify : str, optional
            Field whose values each part shall have in the same shares (``"biology.organism"``).

        Returns
        -------
        dict of Subset
            In the order of ``fractions``.

        Raises
        ------
        FilterError
            If there are fewer units than parts, or a field is unknown for every image.
        RecipeError
            If the fractions do not add up to 1.

        Examples
        --------
        ::

            parts = subset.split({"train": 0.8, "test": 0.2}, by="experiment.plate")
            parts["train"].leaks(parts["test"], by="experiment.plate")  # []
        """
        parts = parts_of(fractions, by, seed, stratify)
        place = partition(self.pool, parts[0])
        return {
            part.name: Subset(
                self.recipe.model_copy(
                    update={
                        "name": f"{self.name}-{part.name}" if self.name else part.name,
                        "parts": [*self.recipe.parts, part],
                    }
                ),
                self.pool.kept(place == k),
            )
            for k, part in enumerate(parts)
        }

    def leaks(self, other: Subset, by: str | Sequence[str]) -> list[Leak]:
        """What two subsets share that a split by ``by`` must keep apart; an empty list proves that there is nothing.

        Parameters
        ----------
        other : Subset
            However it was made.
        by : str or sequence of str
            As for ``split``.

        Returns
        -------
        list of Leak
            Units that both have images of, and images that both are near-duplicates of.
        """
        return leaks(self.pool, other.pool, by)

    def save(
        self, path: str | os.PathLike[str], *, overwrite: bool = False, storage_options: StorageOptions | None = None
    ) -> str:
        """Write the recipe and the hashes of its store and images, and return the file's URL.

        Raises
        ------
        StoreError
            If there is a file that says something else, and ``overwrite`` is False.
        RecipeError
            If the name does not end with .yaml.
        """
        hashed = self.recipe.model_copy(
            update={"images": len(self), "store_sha256": self.store_sha256, "images_sha256": self.images_sha256}
        )
        licenses = ", ".join(f"{row['license'] or 'unknown'} ({row['images']})" for row in self.licenses)
        comments = (f"A subset of {len(self)} images. Licences: {licenses}.", "Read it with chammi75.Subset.load.")
        return write_recipe(path, hashed, comments=comments, overwrite=overwrite, storage_options=storage_options)

    def count_by(self, by: str | Sequence[str]) -> list[dict[str, Any]]:
        """Images for each value of a field, or combination of values of several; None where unknown.

        Returns
        -------
        list of dict
            The fields, and ``images``; in the order of the values.
        """
        return self.pool.count_by([by] if isinstance(by, str) else list(by))

    @property
    def licenses(self) -> list[dict[str, Any]]:
        """Under which licences its images are: ``license`` (None where unknown), ``images`` and ``sources`` of each."""
        return licenses_of(self.pool)

    def cite(self, style: Literal["bibtex", "csl", "text"] = "bibtex") -> str:
        """Citations of the sources of exactly these images, with DOIs, licences and numbers of images.

        Parameters
        ----------
        style : {"bibtex", "csl", "text"}
            CSL is CSL-JSON.
        """
        from chammi75.catalog import cite

        return cite(cited(self.pool), style)


def subset_of(subset: Subset | str | os.PathLike[str], layouts: Sequence[Layout]) -> Subset:
    """A subset, a recipe file or a shipped recipe, as a subset of these layouts.

    Raises
    ------
    StoreError
        If it is a subset of another store.
    RecipeError
        If there is no such recipe.
    """
    if not isinstance(subset, Subset):
        if not isinstance(subset, str | os.PathLike):
            raise RecipeError(f"subset takes a Subset, a recipe file or the name of a shipped recipe, not {subset!r}")
        recipe, folder = read_recipe(subset)
        return _verified(recipe, layouts, os.fspath(subset), folder)
    theirs = subset.pool.layouts
    if [(layout.url, layout.identity) for layout in theirs] == [(layout.url, layout.identity) for layout in layouts]:
        return Subset(subset.recipe, Pool(tuple(layouts), subset.pool.rows))
    hashes = {"images": len(subset), "store_sha256": subset.store_sha256, "images_sha256": subset.images_sha256}
    return _verified(subset.recipe.model_copy(update=hashes), layouts, subset.name or "the subset")


def run_recipe(recipe: SubsetRecipe, layouts: Sequence[Layout], beside: str | None = None) -> Subset:
    """The subset that a recipe finds, whatever hashes it states; see `chammi75.loading.subsets.images.find_images`."""
    return Subset(*find_images(recipe, layouts, beside))


def _verified(recipe: SubsetRecipe, layouts: Sequence[Layout], named: str, beside: str | None = None) -> Subset:
    """The images that a recipe finds, if they are those that it states."""
    try:
        subset = run_recipe(recipe, layouts, beside)
    except (FilterError, RecipeError) as error:
        other = _other_store(recipe, layouts) if isinstance(error, FilterError) and recipe.images_sha256 else None
        if other is not None:
            raise StoreError(f"{named}: {other}, in which its recipe finds nothing: {error}") from error
        raise type(error)(f"{named}: {error}") from error
    if recipe.images_sha256 is None or recipe.images_sha256 == subset.images_sha256:
        return subset
    found = f"its recipe finds {len(subset)} images here"
    if recipe.images is not None:
        same = "others than" if recipe.images == len(subset) else "not"
        found += f", {same} the {recipe.images} that it stands for"
    other = _other_store(recipe, layouts)
    if other is not None:
        raise StoreError(
            f"{named}: {other}: {found}. Load it with that store or a copy of it, or build the subset anew"
        )
    raise StoreError(
        f"{named}: {found}: the file was changed by hand, or by another version. Take images_sha256 out of it to accept"
        " these images, or build the subset anew"
    )


def _other_store(recipe: SubsetRecipe, layouts: Sequence[Layout]) -> str | None:
    """That a recipe was made from a store of other content than these layouts; None if it was not."""
    here = content_hash(layouts)
    if recipe.store_sha256 is None or recipe.store_sha256 == here:
        return None
    urls = ", ".join(layout.url for layout in layouts)
    return f"this subset was made from another store (content {recipe.store_sha256[:12]}…, {urls} has {here[:12]}…)"


def _is_remote(named: str | os.PathLike[str]) -> bool:
    from chammi75.files import is_local

    return not is_local(named)
