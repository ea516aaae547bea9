"""The published layout becomes a build plan whose images are made when asked for."""

from __future__ import annotations

import csv
import hashlib
import io
import pickle
import struct
import uuid
from collections.abc import Iterable
from pathlib import Path

import fsspec
import numpy as np
import pytest

from chammi75.build.planned import PlaneSource
from chammi75.build.published import PublishedPlan, plan_published
from chammi75.errors import ChammiError
from chammi75.files import read_bytes
from chammi75.readers.published.csv_rows import PUBLISHED_COLUMNS

TABLE = "CHAMMI-75_train_metadata.csv"
PNG_HEADER = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", 8, 6)


def layout(url: str, images: Iterable[tuple[str, int]], absent: Iterable[str] = (), **changes: str) -> str:
    """Writes a layout of images (study/name, channels) without the files that are ``absent``."""
    filesystem, path = fsspec.url_to_fs(url)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, PUBLISHED_COLUMNS, restval="unknown")
    writer.writeheader()
    for image, channels in images:
        for channel in range(1, channels + 1):
            file = f"CHAMMI-75_train/{image}-ch{channel - 1}.png"
            writer.writerow(
                {
                    "experiment.study": image.partition("/")[0],
                    "imaging.multi_channel_id": image,
                    "imaging.channel": str(channel),
                    "geometry.width": "8",
                    "geometry.height": "6",
                    "geometry.channels": str(channels),
                    "storage.path": file,
                    **changes,
                }
            )
            if file not in absent:
                filesystem.makedirs(f"{path}/{file}".rsplit("/", 1)[0], exist_ok=True)
                filesystem.pipe_file(f"{path}/{file}", PNG_HEADER)
    filesystem.makedirs(path, exist_ok=True)
    filesystem.pipe_file(f"{path}/{TABLE}", text.getvalue().encode())
    return url


def test_the_published_sample_is_planned_with_its_files(shared_data: Path) -> None:
    folder = shared_data / "published"
    plan = plan_published(folder, codec="deflate", shard_bytes=2**20)
    assert (len(plan.images), plan.codec, plan.shard_bytes, plan.split) == (15, "deflate", 2**20, "train")
    assert plan.recipe_sha256 == hashlib.sha256((folder / TABLE).read_bytes()).hexdigest()
    for planned, size in zip(plan.images, plan.pixel_bytes, strict=True):
        geometry = planned.record.geometry
        assert size == geometry.width * geometry.height * geometry.channels
        assert len(planned.planes) == geometry.channels and len(planned.guidance) in (0, geometry.channels)
        for plane in planned.planes:
            assert struct.unpack(">II", read_bytes(plane.url)[16:24]) == (geometry.width, geometry.height)
        assert all(Path(url).is_file() for url in planned.guidance if url)
    assert [(finding.kind, finding.path) for finding in plan.findings] == [("unresolved", "00016-dna0001")]
    assert "fly0001: 3 images, 9 planes" in plan.groups


def test_images_are_the_same_however_they_are_asked_for(tmp_path: Path) -> None:
    plan = plan_published(layout(str(tmp_path), [(f"s1/i{k:03d}", 1 + k % 3) for k in range(150)]))
    images = plan.images
    in_order = list(images)
    assert len(images) == len(in_order) == 150 and isinstance(images, PublishedPlan)
    assert [images[k] for k in range(150)] == in_order
    order = np.random.default_rng(0).permutation(150).tolist()
    assert [images[k] for k in order] == [in_order[k] for k in order]
    assert images[-1] == in_order[-1] and list(images[140:]) == in_order[140:] and list(images[::-7]) == in_order[::-7]
    assert list(pickle.loads(pickle.dumps(images[3:5]))) == in_order[3:5]  # noqa: S301 - what this line made itself
    with pytest.raises(IndexError):
        images[150]


def test_urls_of_any_filesystem_are_joined_to_the_root() -> None:
    root = layout(f"memory://{uuid.uuid4().hex}", [("s1/a", 2)])
    (planned,) = plan_published(root).images
    assert planned.planes == (
        PlaneSource(f"{root}/CHAMMI-75_train/s1/a-ch0.png"),
        PlaneSource(f"{root}/CHAMMI-75_train/s1/a-ch1.png"),
    )
    assert planned.guidance == () and read_bytes(planned.planes[1].url) == PNG_HEADER


def test_files_that_are_not_there_are_findings_one_by_one_or_by_folder(tmp_path: Path) -> None:
    absent = ["CHAMMI-75_train/s1/a-ch0.png", *(f"CHAMMI-75_train/s2/{name}-ch0.png" for name in "bcd")]
    plan = plan_published(layout(str(tmp_path), [("s1/a", 2), ("s2/b", 1), ("s2/c", 1), ("s2/d", 1)], absent))
    assert [(finding.kind, finding.path, finding.reason) for finding in plan.findings] == [
        ("missing_channel", "s1/a-ch*.png", "of its 2 channels these have no file: 1"),
        ("unreadable", "CHAMMI-75_train/s2", "the folder is not there; the table states 3 files in it"),
        ("unreadable", absent[0], f"the file is not there (row 2 of {TABLE})"),
    ]
    assert [planned.record.imaging.channel for planned in plan.images] == [[2]] and plan.pixel_bytes.tolist() == [48]


def test_a_table_without_one_usable_image_is_an_error_that_says_why(tmp_path: Path) -> None:
    with pytest.raises(ChammiError, match=r"not one image .* no table states the file of its channels 1, 2"):
        plan_published(layout(str(tmp_path), [("s1/a", 2)], **{"storage.path": "unknown"}))
