"""Publishing, against a Hub on loopback. It runs in processes of its own: huggingface_hub reads its settings once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hub_server import Hub, running_hub
from loading_stores import Known

from chammi75.errors import ChammiError
from chammi75.export import push_to_hub

PUSH_EXPORT = """
from chammi75.export import push_to_hub, selections_for
report = push_to_hub(selections_for({store!r}), "me/plates", private=True, shard_bytes=300_000)
print(report.out)
push_to_hub(selections_for({store!r}, study="plate2"), "me/plates")
"""
PUSH_PLAIN = """
from chammi75 import load_dataset
from chammi75.loading import to_plain
to_plain(load_dataset({store!r})).push_to_hub("me/table")
to_plain(load_dataset({store!r}, streaming=True, study="plate2")).push_to_hub("me/stream", num_shards=1)
"""


def run(code: str, hub: Hub, folder: Path) -> str:
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.url,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HOME": str(folder / "home"),
        "HF_TOKEN": "hf_nobody",
        "HF_HUB_OFFLINE": "0",  # the hub is on loopback
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def received(hub: Hub, name: str, folder: Path) -> Path:
    for path, content in hub.repositories[name].items():
        (folder / name / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / name / path).write_bytes(content)
    return folder / name


def check_pixels(folder: Path, known: Known, cache: Path) -> int:
    import datasets

    loaded = datasets.load_dataset(str(folder), split="train", cache_dir=str(cache))
    for row in loaded:
        assert np.array_equal(np.stack([np.asarray(plane) for plane in row["planes"]]), known.pixels[row["image_id"]])
    return len(loaded)


def test_an_export_arrives_in_one_commit_and_replaces_the_one_before(store: Known, tmp_path: Path) -> None:
    with running_hub() as hub:
        printed = run(PUSH_EXPORT.format(store=store.url), hub, tmp_path)
        assert printed.strip() == f"{hub.url}/datasets/me/plates"
        assert hub.private["me/plates"]
        first, second = hub.commits
        assert first == ["README.md", "data/train-00000.parquet", "data/train-00001.parquet", "export.json"]
        assert "data/train-00001.parquet" in second  # it went
        assert sorted(hub.repositories["me/plates"]) == ["README.md", "data/train-00000.parquet", "export.json"]
        assert b"license: cc0-1.0" in hub.repositories["me/plates"]["README.md"]
        folder = received(hub, "me/plates", tmp_path / "received")
    assert check_pixels(folder, store, tmp_path / "cache") == 10


def test_plain_datasets_are_pushed_with_their_licence(store: Known, tmp_path: Path) -> None:
    with running_hub() as hub:
        run(PUSH_PLAIN.format(store=store.url), hub, tmp_path)
        card = hub.repositories["me/table"]["README.md"].decode()
        assert "license: other" in card
        assert "license_name: cc-by-4.0-and-cc0-1.0" in card
        assert "license: cc0-1.0" in hub.repositories["me/stream"]["README.md"].decode()
        table = received(hub, "me/table", tmp_path / "received")
        stream = received(hub, "me/stream", tmp_path / "received")
    assert check_pixels(table, store, tmp_path / "cache") == 30
    assert check_pixels(stream, store, tmp_path / "cache") == 10


def test_images_without_a_licence_are_refused_with_their_number_and_sources(published: Known) -> None:
    with running_hub() as hub:
        with pytest.raises(ChammiError, match=r"12 of 12 images have no licence: study0000 \(4\), study0001 \(4\)"):
            push_to_hub(published.url, "me/plates", endpoint=hub.url, token="hf_nobody")
        with pytest.raises(ChammiError, match="SPDX"):
            push_to_hub(published.url, "me/plates", endpoint=hub.url, token="hf_nobody", license=" ")
        assert not hub.repositories


@pytest.mark.parametrize("streaming", [False, True])
def test_a_plain_dataset_without_a_licence_is_refused(published: Known, streaming: bool) -> None:
    from chammi75 import load_dataset
    from chammi75.loading import to_plain

    plain = to_plain(load_dataset(published.url, streaming=streaming))
    with pytest.raises(ChammiError, match="12 of 12 images have no licence"):
        plain.push_to_hub("me/plates")


def test_a_plain_dataset_says_its_licences(store: Known, published: Known) -> None:
    import datasets

    from chammi75 import load_dataset
    from chammi75.loading import to_plain

    plain = to_plain(load_dataset(store.url))
    assert isinstance(plain, datasets.Dataset)
    assert plain.info.license == "CC-BY-4.0, CC0-1.0"
    assert "30 multi-channel microscopy images" in plain.info.description
    assert to_plain(load_dataset(published.url)).info.license == "unknown"


def test_images_that_cannot_be_read_stop_the_push(damaged: tuple[str, str]) -> None:
    url, image_id = damaged
    with running_hub() as hub:
        with pytest.raises(ChammiError, match=r"1 images cannot be read") as caught:
            push_to_hub(url, "me/plates", endpoint=hub.url, token="hf_nobody")
        assert image_id in str(caught.value)
        assert not hub.repositories


def test_a_hub_that_does_not_answer_is_one_sentence(store: Known) -> None:
    with pytest.raises(ChammiError, match=r"me/plates at http://127\.0\.0\.1:9: the Hub did not take it"):
        push_to_hub(store.url, "me/plates", endpoint="http://127.0.0.1:9", token="hf_nobody")
