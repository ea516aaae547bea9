"""What several test rooms share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session", autouse=True)
def _a_cache_for_this_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests leave nothing in the user's cache; what a run was told to use it does use."""
    with pytest.MonkeyPatch.context() as patch:
        if "CHAMMI75_CACHE" not in os.environ:
            patch.setenv("CHAMMI75_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real microscopy files that lies beside a developer's checkout; it is no part of the project."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the real microscopy files (shared/data beside the checkout) are not here")
    return folder
