from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="training needs PyTorch")

from loading_stores import write_store  # noqa: E402

from chammi75.errors import ChammiError  # noqa: E402
from chammi75.loading import GuidedCrop, TrainingStream  # noqa: E402
from chammi75.training.crops import Crops  # noqa: E402


def batch_of(count: int = 2, channels: int = 1, **changes: Any) -> dict[str, Any]:
    return {
        "pixels": torch.ones(count, channels, 4, 5, dtype=torch.uint8),
        "size": torch.tensor([[4, 5]] * count),
        "saturation": torch.full((count,), 255.0),
        "channel_id": torch.arange(count) if channels == 1 else torch.zeros(count, channels, dtype=torch.int64),
        "position": torch.arange(count),
        "epoch": 3,
    } | changes


def test_a_plane_is_a_sample_of_one_channel() -> None:
    crops = Crops.from_batch(batch_of())
    assert crops.channel_ids.tolist() == [[0], [1]]
    assert crops.present.all() and crops.epoch == 3 and len(crops) == 2


def test_channels_that_an_image_lacks_are_not_present() -> None:
    crops = Crops.from_batch(batch_of(channels=3, num_channels=torch.tensor([3, 1])))
    assert crops.present.tolist() == [[True, True, True], [True, False, False]]


@pytest.mark.parametrize(("dtype", "kept"), [("uint8", "uint8"), ("uint16", "uint16"), ("int16", "float32")])
def test_pixels_keep_the_types_of_cameras(dtype: str, kept: str) -> None:
    pixels = torch.ones(2, 1, 4, 5).to(getattr(torch, dtype))
    assert Crops.from_batch(batch_of(pixels=pixels)).pixels.dtype == getattr(torch, kept)


def test_a_batch_without_what_is_needed_says_what() -> None:
    batch = batch_of()
    del batch["saturation"], batch["position"]
    with pytest.raises(ChammiError, match="no saturation, position"):
        Crops.from_batch(batch)


def test_a_single_sample_is_refused() -> None:
    with pytest.raises(ChammiError, match="batch_size"):
        Crops.from_batch(batch_of(pixels=torch.ones(1, 4, 5)))


def test_padding_is_not_inside() -> None:
    crops = Crops.from_batch(batch_of(size=torch.tensor([[2, 5], [4, 1]])))
    assert crops.inside().sum((1, 2, 3)).tolist() == [10, 4]
    assert crops.inside()[1, 0, :, 0].all()


def test_some_of_the_crops_share_their_memory_and_another_device_gets_all() -> None:
    crops = Crops.from_batch(batch_of(3))
    part = crops[1:3]
    assert part.positions.tolist() == [1, 2] and part.epoch == 3
    assert part.pixels.data_ptr() == crops.pixels[1:].data_ptr()
    moved = crops.to("meta", non_blocking=True)
    assert moved.pixels.device.type == moved.present.device.type == "meta" and moved.epoch == 3


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_store(str(tmp_path_factory.mktemp("crops") / "store")).url


@pytest.mark.parametrize("mode", ["boc", "mca"])
@pytest.mark.parametrize("resize", [None, 24])
def test_batches_of_the_stream_become_crops(store: str, mode: Any, resize: int | None) -> None:
    stream = TrainingStream(store, batch_size=6, mode=mode, crop=GuidedCrop(32), resize=resize, split=None)
    batch = next(iter(stream))
    crops = Crops.from_batch(batch)
    assert crops.pixels.shape[:2] == crops.present.shape == crops.channel_ids.shape
    assert crops.positions.tolist() == batch["position"].tolist()
    assert crops.sizes.amax(0).tolist() == list(crops.pixels.shape[-2:])
    assert not crops.pixels.to(torch.float32)[~(crops.inside() & crops.present[..., None, None])].any()
