"""Which images of what is loaded are withdrawn; ``select`` leaves them out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from chammi75.loading.columns import field_facet, image_ids
from chammi75.loading.layouts import Layout, StoreLayout
from chammi75.store.facets import Facet
from chammi75.store.withdrawals import shipped_withdrawals, withdrawals_of, withdrawn_mask, withdrawn_rows


def withdrawn(layout: Layout) -> NDArray[np.bool_] | None:
    """Which images of a layout are withdrawn, shape (images,); None where there are no withdrawals at all.

    For a store its list and those of the stores that it is a part of count, for all the list that ships with this
    library.

    Raises
    ------
    StoreError
        If a list cannot be read.
    """
    if isinstance(layout, StoreLayout):
        return withdrawn_rows(layout.store)
    return withdrawn_mask(shipped_withdrawals(), lambda path: field_facet(layout, path), lambda: image_ids(layout))


def reasons_of_withdrawal(layout: Layout) -> Facet:
    """Why images of a layout are withdrawn: the reason that was stated first; unknown for those that are not.

    Raises
    ------
    StoreError
        If a list cannot be read.
    """
    entries = withdrawals_of(layout.store) if isinstance(layout, StoreLayout) else shipped_withdrawals()
    reasons = list(dict.fromkeys(entry.reason for entry in entries))
    codes = np.full(len(layout), -1, np.int32)
    for code, reason in enumerate(reasons):
        alike = [entry for entry in entries if entry.reason == reason]
        mask = withdrawn_mask(alike, lambda path: field_facet(layout, path), lambda: image_ids(layout))
        assert mask is not None  # there is an entry
        codes[mask & (codes < 0)] = code
    return Facet(reasons, codes)
