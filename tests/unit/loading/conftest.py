"""Datasets that the tests of loading read: a local store, one in memory://, and a published layout."""

from __future__ import annotations

from pathlib import Path

import pytest
from loading_stores import Known, write_published, write_store


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Known:
    return write_store(tmp_path_factory.mktemp("stores") / "it's a «store» 1")


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Known:
    return write_published(tmp_path_factory.mktemp("published copy"))


@pytest.fixture(scope="session")
def memory_store() -> Known:
    return write_store("memory://stores/one")


@pytest.fixture(params=["store", "memory_store", "published"])
def known(request: pytest.FixtureRequest) -> Known:
    """Each of the three."""
    found: Known = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="session")
def real_published(shared_data: Path) -> Path:
    folder = shared_data / "published"
    if not folder.is_dir():
        pytest.skip("the real copy of the published layout is not here")
    return folder
