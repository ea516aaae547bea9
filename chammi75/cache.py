"""Where chammi75 keeps what it can make again."""

from __future__ import annotations

import os
from pathlib import Path


def default_cache_dir() -> Path:
    """The cache folder: ``$CHAMMI75_CACHE``, else ``chammi75`` in the user's cache folder."""
    stated = os.environ.get("CHAMMI75_CACHE")
    if stated:
        return Path(stated).expanduser()
    if os.name == "nt":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "chammi75"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "chammi75"


def cache_folder(cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """``cache_dir``, or the default one if it is None."""
    return Path(cache_dir).expanduser() if cache_dir is not None else default_cache_dir()
