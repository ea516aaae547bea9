"""Withdrawn images: they stay in a store, which never changes, and loaders leave them out; copies do not carry them.

A store's list is ``withdrawals.json`` beside its manifest. Another ships with this library
(``catalog/withdrawals.yaml``) and counts for every store. A list that cannot be read is an error: a withdrawn image
must not come back because of a damaged file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from chammi75.declarations import declarations_folder
from chammi75.errors import ChammiWarning, StoreError, warn
from chammi75.files import (
    StorageOptions,
    absolute_url,
    is_local,
    join_url,
    local_path,
    read_bytes,
    reading_errors,
    write_atomically,
)
from chammi75.schemas.withdrawal import Withdrawal, WithdrawalList
from chammi75.store.facets import FACETS, Facet
from chammi75.store.lock import locked_folder
from chammi75.store.parts import expand
from chammi75.store.reader import Store, is_unsaid, open_store
from chammi75.store.writer import plain_errors

WITHDRAWALS = "withdrawals.json"


def read_withdrawals(url: str, storage_options: StorageOptions | None = None) -> tuple[Withdrawal, ...]:
    """The list beside a store's manifest; one request, and nothing where there is none.

    A server may refuse to say whether there is one (S3 does where listing is not allowed): that is taken for none, with
    a warning.

    Raises
    ------
    StoreError
        If there is a list that cannot be read.
    """
    place = join_url(absolute_url(url), WITHDRAWALS)
    try:
        content = read_bytes(place, storage_options)
    except (FileNotFoundError, NotADirectoryError):
        return ()
    except reading_errors() as error:
        if not is_unsaid(error, place):
            raise StoreError(
                f"{place}: it cannot be read ({error}), so it is not known which images are withdrawn: try again"
            ) from error
        warn(f"{place}: the server does not say whether this file exists; taken for absent", ChammiWarning)
        return ()
    return tuple(_parsed(content, place).withdrawals)


@cache
def shipped_withdrawals() -> tuple[Withdrawal, ...]:
    """The list that ships with this library."""
    import yaml

    path = declarations_folder("catalog") / "withdrawals.yaml"
    return tuple(WithdrawalList.model_validate(yaml.safe_load(path.read_text(encoding="utf-8"))).withdrawals)


def withdrawals_of(store: Store) -> tuple[Withdrawal, ...]:
    """All that counts for a store: the shipped list, its own, and those of stores that it was opened as a part of."""
    return (*shipped_withdrawals(), *stated_withdrawals(store))


def stated_withdrawals(store: Store) -> tuple[Withdrawal, ...]:
    """The same without the shipped list."""
    places = (*store.collections, (store.url, store.storage_options))
    return tuple(withdrawal for url, options in places for withdrawal in read_withdrawals(url, options))


def withdrawn_rows(store: Store) -> NDArray[np.bool_] | None:
    """Which of a store's own images are withdrawn, shape (images,); None where there are no withdrawals at all."""
    return _mask_of(store, withdrawals_of(store))


def withdrawn_mask(
    withdrawals: Sequence[Withdrawal], facet: Callable[[str], Facet], image_ids: Callable[[], Any]
) -> NDArray[np.bool_] | None:
    """Which images are withdrawn.

    Parameters
    ----------
    withdrawals : sequence of Withdrawal
    facet : callable
        Gives a field of all images by its dotted name: ``experiment.study``, ``provenance.source`` or
        ``experiment.plate``; asked only for what withdrawals name.
    image_ids : callable
        Gives the ids of all images as an Arrow array, chunked or not; asked only where single images are withdrawn.

    Returns
    -------
    ndarray of bool, shape (images,), or None if there are no withdrawals

    Examples
    --------
    >>> import pyarrow as pa
    >>> gone = Withdrawal(image_id="b", reason="consent withdrawn", date="2026-01-31")
    >>> withdrawn_mask([gone], {}.get, lambda: pa.array(["a", "b"])).tolist()
    [False, True]
    """
    masks = []
    images = {withdrawal.image_id for withdrawal in withdrawals if withdrawal.image_id is not None}
    if images:
        masks.append(_is_in(image_ids(), images))
    for plate in {withdrawal.plate for withdrawal in withdrawals if withdrawal.image_id is None}:
        of_plate = [withdrawal for withdrawal in withdrawals if withdrawal.plate == plate]
        studies = {withdrawal.study for withdrawal in of_plate if withdrawal.study is not None}
        sources = {withdrawal.source for withdrawal in of_plate if withdrawal.source is not None}
        named = ((studies, "experiment.study"), (sources, "provenance.source"))
        mask = np.logical_or.reduce([_has(facet(path), words) for words, path in named if words])
        masks.append(mask if plate is None else mask & _has(facet("experiment.plate"), {plate}))
    return np.logical_or.reduce(masks) if masks else None


def add_withdrawals(url: str, withdrawals: Sequence[Withdrawal], storage_options: StorageOptions | None = None) -> int:
    """Add to the list beside a store's manifest. What is on it stays; what is there already is not added twice.

    On a local disk several processes may do so at once; elsewhere the last one wins.

    Parameters
    ----------
    url : str
        The store.
    withdrawals : sequence of Withdrawal
    storage_options : mapping, optional

    Returns
    -------
    int
        How many images of the store these withdrawals take out.

    Raises
    ------
    StoreError
        If there is no store, or a withdrawal fits no image of it.
    """
    store = open_store(url, storage_options)
    hit = 0
    reached = np.zeros(len(withdrawals), bool)
    for leaf in expand(store):
        leaf_mask = np.zeros(len(leaf), bool)
        for number, withdrawal in enumerate(withdrawals):
            mask = _mask_of(leaf, [withdrawal])
            assert mask is not None  # there is one withdrawal
            reached[number] |= mask.any()
            leaf_mask |= mask
        hit += int(leaf_mask.sum())
    for withdrawal, found in zip(withdrawals, reached, strict=True):
        if not found:
            names = ("image_id", "study", "source", "plate")
            stated = zip(names, withdrawal.target, strict=True)
            words = ", ".join(f"{name} {value!r}" for name, value in stated if value is not None)
            raise StoreError(f"{store.url}: no image here has {words}; chammi75 info shows what there is")
    place = join_url(store.url, WITHDRAWALS)
    held = locked_folder(local_path(store.url)) if is_local(store.url) else nullcontext()
    with plain_errors(place, "make room and withdraw again"), held:
        present = read_withdrawals(store.url, storage_options)
        listed = {withdrawal.target for withdrawal in present}
        added = {withdrawal.target: withdrawal for withdrawal in withdrawals if withdrawal.target not in listed}
        if added:
            write_atomically(place, as_file([*present, *added.values()]), storage_options)
    return hit


def as_file(withdrawals: Sequence[Withdrawal]) -> bytes:
    """The content of ``withdrawals.json``."""
    values = WithdrawalList(withdrawals=list(withdrawals)).model_dump(mode="json", exclude_none=True)
    return (json.dumps(values, indent=1, ensure_ascii=False) + "\n").encode()


def _parsed(content: bytes, place: str) -> WithdrawalList:
    try:
        return WithdrawalList.model_validate_json(content)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise StoreError(
            f"{place}: the list of withdrawn images is damaged ({where + ': ' if where else ''}{problem['msg']});"
            " mend it, for until then nothing is loaded from here that might be withdrawn"
        ) from error


def _mask_of(store: Store, withdrawals: Sequence[Withdrawal]) -> NDArray[np.bool_] | None:
    import pyarrow as pa
    import pyarrow.compute as pc

    def facet(path: str) -> Facet:
        if path == FACETS["study"]:
            return store.index.facet("study")
        group, field = path.split(".")
        column = pc.struct_field(store.records([path]).column(group), field)
        return Facet.from_column(pa.concat_arrays(column.chunks).dictionary_encode())

    return withdrawn_mask(withdrawals, facet, lambda: store.index.table.column("image_id"))


def _has(facet: Facet, words: Collection[str | None]) -> NDArray[np.bool_]:
    return facet.matching([value in words for value in facet.values])


def _is_in(values: Any, words: set[str]) -> NDArray[np.bool_]:
    import pyarrow as pa
    import pyarrow.compute as pc

    mask = np.zeros(len(values), bool)
    found = pc.indices_nonzero(pc.is_in(values, value_set=pa.array(sorted(words), pa.string())))
    mask[np.from_dlpack(found)] = True
    return mask
