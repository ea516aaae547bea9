"""The source of a layout's pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chammi75.errors import ChammiError
from chammi75.loading.layouts import Layout, PublishedLayout, StoreLayout
from chammi75.loading.stream.published_source import PublishedSource
from chammi75.loading.stream.sources import Source
from chammi75.loading.stream.store_source import StoreSource

if TYPE_CHECKING:
    from chammi75.ranges import Traffic
    from chammi75.store.node_cache import NodeCache


def source_of(
    layout: Layout, cache: NodeCache | None = None, *, keep_shards: bool = False, traffic: Traffic | None = None
) -> Source:
    """The source of a layout's pixels.

    Parameters
    ----------
    layout : Layout
    cache : NodeCache, optional
        Where the index of a remote store is kept, so that the workers share it.
    keep_shards : bool
        Whether its shards are kept there too; else only the bytes that are wanted are asked for.
    traffic : Traffic, optional
        Counts requests and bytes.
    """
    if isinstance(layout, StoreLayout):
        return StoreSource(layout, cache, keep_shards, traffic)
    if isinstance(layout, PublishedLayout):
        return PublishedSource(layout)
    raise ChammiError(f"{layout.url}: a stream reads stores and the published layout, not {type(layout).__name__}")
