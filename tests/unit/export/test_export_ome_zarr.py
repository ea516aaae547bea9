from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loading_stores import Known

from chammi75 import load_dataset
from chammi75.errors import ChammiError
from chammi75.export import export
from chammi75.export.ome_zarr import VERSIONS, pyramid

zarr = pytest.importorskip("zarr")
pytestmark = pytest.mark.filterwarnings("ignore")  # of zarr, dask and ome_zarr


@pytest.fixture(scope="module", params=VERSIONS)
def exported(request: pytest.FixtureRequest, store: Known, tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp("ome-zarr") / request.param
    export(store.url, "ome-zarr", out, workers=2, version=request.param)
    return request.param, out


def listed(out: Path) -> dict[str, str]:
    with open(out / "images.csv", newline="", encoding="utf-8") as file:
        return {row["image_id"]: row["path"] for row in csv.DictReader(file)}


def models_of(version: str) -> Any:
    models = pytest.importorskip("ome_zarr_models")
    assert models
    from ome_zarr_models import v04, v05

    return {"0.4": v04, "0.5": v05}[version]


def test_zarr_reads_every_pixel_as_it_was(exported: Any, store: Known) -> None:
    _, out = exported
    paths = listed(out)
    assert list(paths) == store.ids
    for image_id, path in paths.items():
        level = zarr.open_group(out / path, mode="r")["0"]
        assert level.dtype == store.pixels[image_id].dtype
        assert np.array_equal(level[:], store.pixels[image_id])


def test_images_and_plates_are_valid(exported: Any) -> None:
    version, out = exported
    models = models_of(version)
    for path in listed(out).values():
        models.Image.from_zarr(zarr.open_group(out / path, mode="r"))
    plates = sorted(out.glob("*/*.ome.zarr"))
    assert len(plates) == 6
    for plate in plates:
        found = models.HCS.from_zarr(zarr.open_group(plate, mode="r"))
        stated = (found.ome_attributes if version == "0.5" else found.attributes).plate
        assert stated.version == version
        assert "version" in stated.model_fields_set
        assert stated.name in ("plate '0'", "plate '1'")
        assert len(stated.wells) == len(list(plate.glob("*/*/0")))


def test_ome_zarr_reads_axes_scale_and_channels(exported: Any, store: Known) -> None:
    pytest.importorskip("ome_zarr")
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Reader

    _, out = exported
    image_id = store.ids[1]  # with a pixel size
    (node, *_) = Reader(parse_url(str(out / listed(out)[image_id])))()
    assert np.array_equal(np.asarray(node.data[0]), store.pixels[image_id])
    assert [axis["name"] for axis in node.metadata["axes"]] == ["c", "y", "x"]
    assert node.metadata["axes"][1]["unit"] == "micrometer"
    assert node.metadata["coordinateTransformations"][0][0]["scale"] == [1.0, 0.5, 0.5]
    assert node.metadata["channel_names"][0] == "<nucleus> & dye"


def test_the_record_and_the_cells_are_in_the_attributes(exported: Any, store: Known) -> None:
    _, out = exported
    paths = listed(out)
    for row in load_dataset(store.url):
        own = zarr.open_group(out / paths[row["image_id"]], mode="r").attrs["chammi75"]
        assert own["record"]["image_id"] == row["image_id"]
        assert own["record"]["imaging"]["channel_type"] == row["imaging"]["channel_type"]
        assert own["record"]["provenance"]["license"] == row["provenance"]["license"]
        known = store.cells[row["image_id"]]
        assert ("annotation" in own) == (known is not None)
        for entry, sizes in zip(known or (), own.get("annotation", {"sizes": ()})["sizes"], strict=True):
            assert entry is None or np.array_equal(np.float32(sizes), entry.sizes)


def test_images_without_a_well_stand_alone(published: Known, tmp_path: Path) -> None:
    from chammi75.export.choice import selections_for
    from chammi75.export.ome_zarr import _Plates
    from chammi75.export.samples import samples_of

    (first, *_) = samples_of(selections_for(published.url))
    places = _Plates()
    assert places.place(first) == "study0000/01.ome.zarr/B/0/0"
    assert places.place(first) == "study0000/01.ome.zarr/B/0/1"  # another field of the same well
    first.record["experiment"]["well"] = None
    assert places.place(first) == "study0000/img000.ome.zarr"


def test_larger_images_have_levels_of_local_means() -> None:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 4096, (2, 1301, 1030)).astype(np.uint16)
    levels = pyramid(pixels)
    assert [level.shape for level in levels] == [(2, 1301, 1030), (2, 651, 515)]
    assert levels[1].dtype == np.uint16
    block = pixels[1, 10:12, 20:22].astype(int).sum()
    assert levels[1][1, 5, 10] == (block + 2) // 4
    last = pixels[0, 1300, 0:2].astype(int).sum()  # the odd row: the mean of two
    assert levels[1][0, 650, 0] == (2 * last + 2) // 4
    assert pyramid(np.ones((1, 1100, 8), np.float32))[1].dtype == np.float32


def test_levels_are_placed_by_the_middle_of_their_pixels(tmp_path: Path) -> None:
    from chammi75.export.ome_zarr import image_files
    from chammi75.export.samples import Sample
    from chammi75.loading.image import MultiChannelImage
    from chammi75.schemas.record import ImageRecord

    pixels = np.arange(1100 * 16, dtype=np.uint16).reshape(1, 1100, 16)
    image = MultiChannelImage.from_array(pixels, ["nucleus"], pixel_size_um=0.5, image_id="a/b.tif")
    record = ImageRecord.model_validate(
        {
            "image_id": "a/b.tif",
            "imaging": {"channel": [1], "channel_type": ["nucleus"], "panel": [None]},
            "geometry": {"width": 16, "height": 1100, "channels": 1, "dtype": "uint16"},
            "storage": {"filename": [None], "path": [None]},
        }
    )
    files = image_files(Sample(0, "train", record.model_dump(), image, None, {}), "0.5")
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    group = zarr.open_group(tmp_path, mode="r")
    (multiscale,) = group.attrs["ome"]["multiscales"]
    steps = multiscale["datasets"][1]["coordinateTransformations"]
    assert [step["type"] for step in steps] == ["scale", "translation"]
    assert steps[0]["scale"] == [1.0, 1.0, 1.0]
    assert steps[1]["translation"] == [0.0, 0.25, 0.25]
    assert group["1"].shape == (1, 550, 8)
    models_of("0.5").Image.from_zarr(group)


def test_another_version_is_refused(store: Known, tmp_path: Path) -> None:
    with pytest.raises(ChammiError, match=r"known versions are 0\.4, 0\.5"):
        export(store.url, "ome-zarr", tmp_path / "out", version="0.6")


def test_a_study_may_be_called_as_zarr_groups_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import loading_stores

    studies = [{**study, "study": f"{study['study']}.ome.zarr"} for study in loading_stores.STUDIES]
    monkeypatch.setattr(loading_stores, "STUDIES", studies)
    named = loading_stores.write_store(tmp_path / "store", images=6)
    report = export(named.url, "ome-zarr", tmp_path / "out")
    assert (report.images, report.failed) == (6, ())
    assert list(listed(tmp_path / "out")) == named.ids
