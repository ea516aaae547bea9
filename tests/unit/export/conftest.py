"""A store and a copy of the published layout whose pixels are known, for the tests of exports."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from loading_stores import Known, write_published, write_store


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Known:
    return write_store(tmp_path_factory.mktemp("export") / "store")


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Known:
    return write_published(tmp_path_factory.mktemp("export") / "published")


@pytest.fixture
def damaged(store: Known, tmp_path: Path) -> tuple[str, str]:
    """A copy of the store in which one image is damaged; its URL and that image's id."""
    from chammi75 import open_store

    shutil.copytree(store.url, tmp_path / "damaged")
    opened = open_store(str(tmp_path / "damaged"))
    place = opened.index.places(3)
    path = tmp_path / "damaged" / opened.shards[place.shard].path
    content = bytearray(path.read_bytes())
    middle = place.plane_offsets[0] + place.plane_lengths[0] // 2
    content[middle : middle + 40] = bytes(40)
    path.write_bytes(content)
    return str(tmp_path / "damaged"), place.image_id
