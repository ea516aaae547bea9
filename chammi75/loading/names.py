"""The names that stand for a dataset: ``mini``, which is simulated, and ``chammi75``, the public bucket."""

from __future__ import annotations

import os

from chammi75.errors import ChammiError

PUBLIC_DATASET = "chammi75"
"""Name of the public dataset, and of the card that says where it lies."""


def published_bucket() -> str:
    """URL of the bucket with the published CHAMMI-75, as its platform's card states it.

    Raises
    ------
    ChammiError
        If the card names no bucket.

    Examples
    --------
    >>> published_bucket()
    's3://chammi-data'
    """
    from chammi75.catalog import Catalog

    buckets = Catalog().platform(PUBLIC_DATASET).buckets
    if not buckets:
        raise ChammiError(f"the card of the platform {PUBLIC_DATASET} names no bucket: give a URL, or the name mini")
    return f"{buckets[0].protocol}://{buckets[0].name}"


def resolve_name(name: str | os.PathLike[str], cache_dir: str | os.PathLike[str] | None = None) -> str:
    """A name, path or URL, with names turned into a path or URL.

    Parameters
    ----------
    name : str or path
        ``"mini"`` is built into ``cache_dir`` if it is not there; ``"chammi75"`` is the public bucket; everything else
        stays as it is.
    cache_dir : str or path, optional
        The cache folder.

    Raises
    ------
    ChammiError
        If ``mini`` cannot be built.

    Examples
    --------
    >>> resolve_name("chammi75"), resolve_name("stores/mine")
    ('s3://chammi-data', 'stores/mine')
    """
    text = os.fspath(name)
    if text == "mini":
        from chammi75.mini.dataset import mini_store

        return str(mini_store(cache_dir))
    return published_bucket() if text == PUBLIC_DATASET else text
