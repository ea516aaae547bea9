"""The training stream: what it yields, in which order, on any ranks and workers, and where it goes on."""

from __future__ import annotations

import copy
import datetime
import pickle
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loading_stores import Known, write_published, write_store

pytest.importorskip("torch", reason="the training stream needs PyTorch")

import torch
from torch.utils.data import DataLoader

from chammi75.errors import ChammiError, FilterError, StoreError
from chammi75.loading import GuidedCrop, TrainingStream
from chammi75.loading.selection import WithdrawnWarning
from chammi75.loading.stream.stream import RepeatedEpochWarning, ReplacedSamplesWarning
from chammi75.schemas.withdrawal import Withdrawal
from chammi75.store import open_store
from chammi75.store.parts import combine
from chammi75.store.withdrawals import add_withdrawals


def same(first: dict[str, Any], second: dict[str, Any]) -> bool:
    """Whether two samples, or batches, are equal in all but where to resume."""
    assert first.keys() == second.keys()
    return all(
        np.array_equal(value, second[key], equal_nan=value.is_floating_point())
        if isinstance(value, torch.Tensor)
        else repr(value) == repr(second[key])
        for key, value in first.items()
        if key != "resume_at"
    )


def dealt(known: Known, ranks: int, workers: int, **options: Any) -> list[list[dict[str, Any]]]:
    """The batches of each rank."""
    found = []
    for rank in range(ranks):
        stream = TrainingStream(known.url, rank=rank, world_size=ranks, **options)
        found.append(list(DataLoader(stream, batch_size=None, num_workers=workers)))
    return found


def in_turn(ranks: list[list[Any]]) -> Iterator[Any]:
    for step in zip(*ranks, strict=True):
        yield from step


def test_every_plane_comes_once_with_the_pixels_that_are_stored(known: Known) -> None:
    samples = list(TrainingStream(known.url, crop=None))
    assert sorted((sample["image_id"], sample["channel"]) for sample in samples) == sorted(
        (image_id, channel) for image_id, pixels in known.pixels.items() for channel in range(len(pixels))
    )
    for sample in samples:
        plane = known.pixels[sample["image_id"]][sample["channel"]]
        assert np.array_equal(sample["pixels"].numpy()[0].astype(plane.dtype), plane)
        assert sample["dtype"] == plane.dtype.name and tuple(sample["size"].tolist()) == plane.shape
    assert [sample["position"] for sample in samples] == list(range(len(samples)))


def test_every_image_comes_once_with_all_its_channels(known: Known) -> None:
    samples = list(TrainingStream(known.url, crop=None, mode="mca"))
    assert sorted(sample["image_id"] for sample in samples) == sorted(known.ids)
    for sample in samples:
        pixels = known.pixels[sample["image_id"]]
        assert np.array_equal(sample["pixels"].numpy().astype(pixels.dtype), pixels)
        assert sample["channel"] == list(range(len(pixels))) and len(sample["channel_type"]) == len(pixels)


def test_a_window_has_the_pixels_that_lie_there_and_holds_a_cell_where_there_is_one(known: Known) -> None:
    for sample in TrainingStream(known.url, crop=GuidedCrop(20, jitter=0)):
        y, x, height, width = sample["window"].tolist()
        pixels = known.pixels[sample["image_id"]][sample["channel"]]
        assert (height, width) == (20, 20)
        assert np.array_equal(sample["pixels"][0].numpy().astype(pixels.dtype), pixels[y : y + height, x : x + width])
        cells = known.cells[sample["image_id"]] or []
        own = cells[sample["channel"]] if sample["channel"] < len(cells) else None
        xy = own.centroids if own is not None and len(own.centroids) else None
        if xy is None:
            others = [cell.centroids for cell in cells if cell is not None and len(cell.centroids)]
            xy = np.concatenate(others) if others else None
        if xy is not None:
            inside = (
                (xy[:, 0] >= x - 1) & (xy[:, 0] <= x + width + 1) & (xy[:, 1] >= y - 1) & (xy[:, 1] <= y + height + 1)
            )
            assert inside.any(), sample["image_id"]


def test_a_batch_is_its_samples_padded_to_the_largest(store: Known) -> None:
    samples = list(TrainingStream(store.url, seed=3, crop=GuidedCrop(30)))
    batches = list(TrainingStream(store.url, seed=3, crop=GuidedCrop(30), batch_size=7))
    assert len(batches) == -(-len(samples) // 7)
    for batch in batches:
        assert batch["pixels"].shape[0] == 7
        for number, position in enumerate(batch["position"].tolist()):
            sample = samples[position % len(samples)]
            if position >= len(samples):
                continue
            height, width = batch["size"][number].tolist()
            assert [height, width] == sample["size"].tolist()
            assert torch.equal(batch["pixels"][number, :, :height, :width], sample["pixels"])
            assert not batch["pixels"][number, :, height:].any() and not batch["pixels"][number, :, :, width:].any()
            for key in ("image_id", "channel_type", "study", "dtype"):
                assert batch[key][number] == sample[key]


@pytest.mark.parametrize("mode", ["boc", "mca"])
@pytest.mark.parametrize("resize", [None, 24])
@pytest.mark.parametrize("shuffle", ["global", "window:2", "none"])
def test_the_order_is_one_for_all_ranks_and_batches_are_alike(
    store: Known, mode: Any, resize: int | None, shuffle: str
) -> None:
    options: dict[str, Any] = {
        "seed": 5,
        "batch_size": 4,
        "mode": mode,
        "crop": GuidedCrop(24),
        "resize": resize,
        "shuffle": shuffle,
    }
    (alone,) = dealt(store, 1, 0, **options)
    for ranks in (2, 3):
        together = dealt(store, ranks, 0, **options)
        assert len({len(batches) for batches in together}) == 1
        joined = list(in_turn(together))
        assert len(joined) >= len(alone) > len(joined) - ranks
        for first, second in zip(alone, joined, strict=False):
            assert same(first, second)


def test_an_image_of_a_batch_of_many_channels_has_them_all(store: Known) -> None:
    (batches,) = dealt(store, 1, 0, mode="mca", batch_size=8, crop=GuidedCrop(16, jitter=0))
    for batch in batches:
        for number, (image_id, channels) in enumerate(zip(batch["image_id"], batch["channel"], strict=True)):
            y, x, height, width = batch["window"][number].tolist()
            stored = store.pixels[image_id][:, y : y + height, x : x + width]
            found = batch["pixels"][number, : len(channels)].numpy().astype(stored.dtype)
            assert np.array_equal(found[:, :height, :width], stored)
            assert int(batch["num_channels"][number]) == len(channels)
            assert not batch["pixels"][number, len(channels) :].any()
            assert (batch["channel_id"][number, len(channels) :] == -1).all()


@pytest.mark.parametrize(("context", "workers"), [("fork", 2), ("forkserver", 1)])  # spawn: see set_epoch below
def test_workers_change_nothing(store: Known, context: str, workers: int) -> None:
    options: dict[str, Any] = {"seed": 1, "batch_size": 3, "crop": GuidedCrop(20), "resize": 16}
    (alone,) = dealt(store, 1, 0, **options)
    stream = TrainingStream(store.url, **options)
    list(stream)  # files are open in the parent
    stream.set_epoch(0)
    loader = DataLoader(stream, batch_size=None, num_workers=workers, multiprocessing_context=context)
    shared = list(loader)
    assert len(shared) == len(alone) == len(stream)
    assert all(same(first, second) for first, second in zip(alone, shared, strict=True))


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_set_epoch_reaches_workers_that_live_on(store: Known, context: str) -> None:
    options: dict[str, Any] = {"seed": 1, "batch_size": 5, "crop": GuidedCrop(20)}
    stream = TrainingStream(store.url, **options)
    loader = DataLoader(
        stream, batch_size=None, num_workers=2, persistent_workers=True, multiprocessing_context=context
    )
    for epoch in (0, 1, 4):
        stream.set_epoch(epoch)
        found = list(loader)
        other = TrainingStream(store.url, **options)
        other.set_epoch(epoch)
        assert all(same(first, second) for first, second in zip(found, other, strict=True))
        assert {batch["epoch"] for batch in found} == {epoch}


def test_epochs_differ_in_order_cells_and_sizes(store: Known) -> None:
    stream = TrainingStream(store.url, crop=GuidedCrop(24, jitter=0.2))
    seen = []
    for epoch in range(3):
        stream.set_epoch(epoch)
        seen.append({(s["image_id"], s["channel"]): (s["position"], s["window"].tolist()) for s in stream})
    assert seen[0].keys() == seen[1].keys() == seen[2].keys()
    for first, second in ((0, 1), (1, 2)):
        changed = [seen[first][unit][k] != seen[second][unit][k] for unit in seen[0] for k in (0, 1)]
        assert np.mean(changed) > 0.8


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_goes_on_behind_any_batch_and_again_behind_any_later_one(store: Known, workers: int) -> None:
    options: dict[str, Any] = {"seed": 9, "batch_size": 4, "crop": GuidedCrop(20)}
    (whole,) = dealt(store, 1, 0, **options)
    first = TrainingStream(store.url, **options)
    used = []
    for batch in DataLoader(first, batch_size=None, num_workers=workers):
        used.append(batch)
        if len(used) == 3:
            break
    state = first.state_dict(after=used[-1])
    assert all(isinstance(value, int | str | dict) for value in state.values())
    second = TrainingStream(store.url, **options)
    second.load_state_dict(pickle.loads(pickle.dumps(state)))  # noqa: S301 - our own
    assert second.left == len(whole) - 3 and len(second) == len(whole)
    for batch in DataLoader(second, batch_size=None, num_workers=workers):
        used.append(batch)
        if len(used) == 6:
            break
    third = TrainingStream(store.url, **options)
    third.load_state_dict(second.state_dict(after=used[-1]))
    third.set_epoch(third.epoch)
    used += list(DataLoader(third, batch_size=None, num_workers=workers))
    assert all(same(one, other) for one, other in zip(used, whole, strict=True))


def test_a_stream_that_was_stopped_on_two_ranks_goes_on_on_three(store: Known) -> None:
    options: dict[str, Any] = {"seed": 2, "batch_size": 2, "crop": GuidedCrop(20)}
    (whole,) = dealt(store, 1, 0, **options)
    streams = [TrainingStream(store.url, rank=rank, world_size=2, **options) for rank in range(2)]
    readers = [iter(stream) for stream in streams]
    used = [next(reader) for _ in range(3) for reader in readers]
    states = [stream.state_dict(after=batch) for stream, batch in zip(streams, used[-2:], strict=True)]
    assert states[0] == states[1]
    rest = []
    for rank in range(3):
        stream = TrainingStream(store.url, rank=rank, world_size=3, **options)
        stream.load_state_dict(states[0])
        rest.append(list(stream))
    joined = used + list(in_turn(rest))
    assert all(same(one, other) for one, other in zip(whole, joined, strict=False))
    assert len(joined) >= len(whole)


def test_behind_the_last_batch_comes_the_next_epoch(store: Known) -> None:
    stream = TrainingStream(store.url, batch_size=8, crop=GuidedCrop(20))
    *_, last = stream
    state = stream.state_dict(after=last)
    stream.load_state_dict(state)
    assert stream.epoch == 1
    other = TrainingStream(store.url, batch_size=8, crop=GuidedCrop(20))
    other.set_epoch(1)
    assert all(same(one, another) for one, another in zip(stream, other, strict=True))


def test_the_state_of_another_stream_is_refused_and_says_what_differs(store: Known) -> None:
    state = TrainingStream(store.url, seed=1).state_dict()
    with pytest.raises(ChammiError, match="seed"):
        TrainingStream(store.url, seed=2).load_state_dict(state)
    with pytest.raises(ChammiError, match="selection"):
        TrainingStream(store.url, {"organism": "Mus musculus"}, seed=1).load_state_dict(state)
    with pytest.raises(ChammiError, match="order"):
        TrainingStream(store.url, seed=1, shuffle="none").load_state_dict(state)
    lenient = TrainingStream(store.url, seed=2)
    lenient.load_state_dict(state, strict=False)
    with pytest.raises(ChammiError):
        lenient.load_state_dict({"epoch": 1})
    short = TrainingStream(store.url, seed=1, samples_per_epoch=10)
    short.load_state_dict({**state, "position": 20}, strict=False)
    assert (short.epoch, len(short)) == (1, 10)


def test_after_takes_what_the_stream_yielded(store: Known) -> None:
    stream = TrainingStream(store.url)
    with pytest.raises(ChammiError, match="after"):
        stream.state_dict(after={"pixels": None})
    collated = next(iter(DataLoader(TrainingStream(store.url, crop=GuidedCrop(8, jitter=0)), batch_size=3)))
    with pytest.raises(ChammiError, match="batch_size=None"):
        stream.state_dict(after=collated)


def test_a_copy_shares_nothing_and_stands_where_the_original_stood(store: Known) -> None:
    stream = TrainingStream(store.url, batch_size=4)
    stream.set_epoch(3)
    other = copy.deepcopy(stream)
    stream.set_epoch(5)
    assert (other.epoch, stream.epoch) == (3, 5)
    assert same(next(iter(pickle.loads(pickle.dumps(stream)))), next(iter(stream)))  # noqa: S301 - our own


def test_a_shuffled_epoch_that_begins_again_is_told(store: Known) -> None:
    stream = TrainingStream(store.url, batch_size=8)
    list(stream)
    with pytest.warns(RepeatedEpochWarning, match="set_epoch"):
        list(stream)
    in_order = TrainingStream(store.url, batch_size=8, shuffle="none")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(in_order), list(in_order)
        moved = TrainingStream(store.url, batch_size=8)
        begun = iter(moved)
        next(begun)
        moved.set_epoch(1)
        list(begun)  # the end of an iteration that began before is no end of epoch 1
        list(moved)


def test_one_worker_tells_for_all_that_an_epoch_begins_again(
    store: Known, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = tmp_path / "said"

    def note(message: str, category: type[Warning]) -> None:
        with said.open("a") as file:
            file.write(f"{category.__name__}\n")

    monkeypatch.setattr("chammi75.loading.stream.stream.warn", note)
    stream = TrainingStream(store.url, batch_size=8, crop=GuidedCrop(20))
    loader = DataLoader(stream, batch_size=None, num_workers=2)
    list(loader), list(loader)
    assert said.read_text() == "RepeatedEpochWarning\n"


def test_an_iteration_stands_where_the_stream_stood_when_it_began(store: Known) -> None:
    stream = TrainingStream(store.url, batch_size=8)
    batches = iter(stream)
    stream.set_epoch(5)
    assert (next(batches)["epoch"], next(iter(stream))["epoch"]) == (0, 5)


def test_selections_are_those_of_load_dataset(store: Known) -> None:
    human = TrainingStream(store.url, {"organism": "Homo sapiens", "select_channels": ["er"]}, crop=None)
    samples = list(human)
    assert {sample["channel_type"] for sample in samples} == {"er"}
    for sample in samples:
        assert sample["channel"] == 1
        stored = store.pixels[sample["image_id"]][1]
        assert np.array_equal(sample["pixels"][0].numpy(), stored)
    with pytest.raises(FilterError, match="organism"):
        TrainingStream(store.url, {"organsim": "Homo sapiens"})
    with pytest.raises(FilterError):
        TrainingStream(store.url, {"organism": "Danio rerio"})


def test_weights_even_out_studies_and_channel_types(store: Known) -> None:
    stream = TrainingStream(store.url, weighting={"plate1": 1, "plate2": 1, "plate3": 2}, samples_per_epoch=400)
    studies = [sample["study"] for sample in stream]
    assert {study: studies.count(study) for study in set(studies)} == {"plate1": 100, "plate2": 100, "plate3": 200}
    by_type = TrainingStream(store.url, weighting={"nucleus": 3, "*": 0}, weight_by="channel_type", crop=GuidedCrop(9))
    assert {sample["channel_type"] for sample in by_type} == {"nucleus"}
    images = TrainingStream(store.url, mode="mca", weighting="sqrt", weight_by="channel_type")
    assert len(list(images)) == images.samples == len(store.ids)


def test_resized_pixels_are_those_of_torch_antialiased(store: Known) -> None:
    plain = TrainingStream(store.url, seed=4, crop=GuidedCrop(31))
    for sample, resized in zip(
        plain, TrainingStream(store.url, seed=4, crop=GuidedCrop(31), resize=(20, 40)), strict=True
    ):
        wanted = torch.nn.functional.interpolate(
            sample["pixels"][None].float(), (20, 40), mode="bilinear", antialias=True
        )[0]
        assert resized["pixels"].dtype == torch.float32
        assert torch.allclose(resized["pixels"], wanted, atol=0.05)


def test_drop_leaves_out_what_fills_no_batch(store: Known) -> None:
    stream = TrainingStream(store.url, batch_size=16, last="drop", rank=0, world_size=2)
    batches = list(stream)
    assert len(batches) == len(stream) == stream.samples // 32
    assert all(int(batch["position"].max()) < stream.samples for batch in batches)
    assert stream.state_dict(after=batches[-1])["epoch"] == 1


def test_prefetching_in_threads_changes_nothing(store: Known) -> None:
    plain = TrainingStream(store.url, batch_size=4, crop=GuidedCrop(20))
    ahead = TrainingStream(store.url, batch_size=4, crop=GuidedCrop(20), prefetch=3, threads=2)
    assert all(same(one, other) for one, other in zip(plain, ahead, strict=True))


def damaged(tmp_path: Any) -> tuple[Known, set[str]]:
    """A store of whose planes one is damaged."""
    known = write_store(tmp_path / "damaged")
    shard = sorted((tmp_path / "damaged" / "shards").iterdir())[1]
    content = bytearray(shard.read_bytes())
    at = content.index(b"II*\0", len(content) // 2)
    content[at + 200 : at + 260] = bytes(60)
    shard.write_bytes(content)
    return known, set()


def test_damage_stops_a_stream_and_says_where(tmp_path: Any) -> None:
    known, _ = damaged(tmp_path)
    with pytest.raises(StoreError, match=r"train-00001.*damaged.*plate"):
        list(TrainingStream(known.url, batch_size=4))
    with pytest.raises(StoreError, match="train-00001"):
        list(DataLoader(TrainingStream(known.url, batch_size=4), batch_size=None, num_workers=2))


@pytest.mark.parametrize("batch_size", [None, 4])
def test_damage_is_skipped_counted_and_reported_where_that_is_asked_for(tmp_path: Any, batch_size: int | None) -> None:
    known, _ = damaged(tmp_path)
    whole = write_store(tmp_path / "whole")
    stream = TrainingStream(known.url, batch_size=batch_size, on_error="skip", crop=GuidedCrop(20))
    with pytest.warns(ReplacedSamplesWarning, match="could not be read"):
        found = list(stream)
    intact = list(TrainingStream(whole.url, batch_size=batch_size, crop=GuidedCrop(20)))
    assert len(found) == len(intact)
    assert stream.replaced >= 1
    differing = sum(not same(one, other) for one, other in zip(found, intact, strict=True))
    assert 1 <= differing <= stream.replaced
    two = TrainingStream(known.url, batch_size=batch_size, on_error="skip", crop=GuidedCrop(20))
    again = list(DataLoader(two, batch_size=None, num_workers=2))
    assert all(same(one, other) for one, other in zip(found, again, strict=True))
    assert two.replaced == stream.replaced


def test_what_stands_in_for_an_image_has_its_own_number_of_channels(tmp_path: Any) -> None:
    known, _ = damaged(tmp_path)
    stream = TrainingStream(known.url, mode="mca", on_error="skip", crop=None)
    with pytest.warns(ReplacedSamplesWarning):
        found = list(stream)
    for sample in found:
        stored = known.pixels[sample["image_id"]]
        assert np.array_equal(sample["pixels"].numpy().astype(stored.dtype), stored)
        assert len(sample["channel"]) == len(sample["channel_type"]) == len(sample["channel_id"]) == len(stored)


def test_a_shard_that_vanished_is_named_or_skipped(tmp_path: Any) -> None:
    known = write_store(tmp_path / "store")
    stream = TrainingStream(known.url, on_error="skip")
    (tmp_path / "store" / "shards" / "train-00002.arrow").unlink()
    with pytest.raises(StoreError, match="train-00002"):
        list(TrainingStream(known.url))
    with pytest.warns(ReplacedSamplesWarning, match="train-00002"):
        assert len(list(stream)) == stream.samples


def test_several_stores_are_one_stream(store: Known, tmp_path: Any) -> None:
    published = write_published(tmp_path)
    stream = TrainingStream([store.url, published.url], batch_size=8, crop=GuidedCrop(20), resize=16)
    ids = {image_id for batch in stream for image_id in batch["image_id"]}
    assert ids == {*store.ids, *published.ids}


def test_of_local_and_remote_stores_only_the_remote_ones_are_kept(store: Known, tmp_path: Path) -> None:
    published = write_published(tmp_path)
    remote = write_store("memory://mixed/store", images=14)
    stream = TrainingStream(
        [store.url, remote.url, published.url],
        batch_size=8,
        shuffle="window:2",
        cache_dir=tmp_path / "cache",
        crop=GuidedCrop(16),
    )
    assert {image_id for batch in stream for image_id in batch["image_id"]} == {*store.ids, *published.ids}
    kept = sorted(path.stat().st_size for path in (tmp_path / "cache").rglob("*.arrow"))
    shards = open_store(remote.url).manifest.shards
    local = {shard.bytes for shard in open_store(store.url).manifest.shards} - {shard.bytes for shard in shards}
    assert {shard.bytes for shard in shards} <= {*kept} and not local & {*kept}


def test_withdrawn_images_of_a_store_of_parts_are_not_drawn(tmp_path: Path) -> None:
    part = write_store(tmp_path / "part", images=20)
    combine([part.url], str(tmp_path / "whole"))
    gone = part.ids[3:5]
    day = datetime.date(2026, 1, 31)
    add_withdrawals(
        str(tmp_path / "whole"),
        [Withdrawal(image_id=image_id, reason="consent withdrawn", date=day) for image_id in gone],
    )
    with pytest.warns(WithdrawnWarning):
        stream = TrainingStream(str(tmp_path / "whole"), batch_size=8, crop=GuidedCrop(16), shuffle="window:2")
    left = {image_id: len(pixels) for image_id, pixels in part.pixels.items() if image_id not in gone}
    assert stream.samples == sum(left.values())
    found = [
        image_id
        for batch in stream
        for image_id, position in zip(batch["image_id"], batch["position"].tolist(), strict=True)
        if position < stream.samples
    ]
    assert {image_id: found.count(image_id) for image_id in found} == left


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mode": "rgb"}, "mode"),
        ({"batch_size": 0}, "batch_size"),
        ({"seed": -1}, "seed"),
        ({"resize": (10,)}, "resize"),
        ({"shuffle": "window:0"}, "window"),
        ({"weighting": "square"}, "weighting"),
        ({"weighting": {"plate9": 1}}, "plate"),
        ({"samples_per_epoch": 0}, "samples"),
        ({"rank": 2, "world_size": 2}, "rank"),
        ({"on_error": "ignore"}, "on_error"),
        ({"last": "keep"}, "last"),
        ({"last": "drop", "batch_size": 100}, "does not fill"),
        ({"crop": 64}, "GuidedCrop"),
        ({"resize": 2.5}, "resize"),
        ({"cache_limit": "some"}, "cache_limit"),
    ],
)
def test_wrong_parameters_are_refused_in_words(store: Known, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ChammiError, match=words):
        TrainingStream(store.url, **options)


@pytest.mark.parametrize("epoch", [-1, 2**64, True, "1", 1.0])
def test_what_is_no_epoch_is_refused(store: Known, epoch: Any) -> None:
    with pytest.raises(ChammiError, match="epoch"):
        TrainingStream(store.url).set_epoch(epoch)


def test_few_samples_make_whole_batches_for_many_ranks(tmp_path: Any) -> None:
    one = write_store(tmp_path / "one", images=1)
    for rank in range(8):
        (batch,) = TrainingStream(one.url, batch_size=16, rank=rank, world_size=8, crop=GuidedCrop(16, jitter=0))
        assert batch["pixels"].shape == (16, 1, 16, 16)
        assert batch["position"].tolist() == list(range(16 * rank, 16 * rank + 16))
    (batch,) = TrainingStream(one.url, batch_size=16, samples_per_epoch=3, weighting="log", shuffle="window:9")
    assert sum(position < 3 for position in batch["position"].tolist()) == 3


def test_a_group_whose_share_is_less_than_a_sample_is_left_out(store: Known) -> None:
    stream = TrainingStream(store.url, weighting={"plate1": 1e-9, "*": 1}, samples_per_epoch=20, crop=GuidedCrop(16))
    assert {sample["study"] for sample in stream} == {"plate2", "plate3"}


def test_batches_pass_through_what_a_data_loader_does_to_them(store: Known) -> None:
    from torch.utils.data._utils.collate import default_convert

    batch = next(iter(TrainingStream(store.url, batch_size=4, mode="mca", crop=GuidedCrop(20))))
    passed = default_convert(batch)
    assert same(batch, passed) and type(passed) is dict


def test_a_state_is_known_where_a_data_loader_put_one_batch_into_another(store: Known) -> None:
    stream = TrainingStream(store.url, batch_size=4, crop=GuidedCrop(20), resize=8)
    forgotten = DataLoader(stream)  # without batch_size=None
    batches = iter(forgotten)
    next(batches)
    assert stream.state_dict(after=next(batches))["position"] == 8


def mixing(batches: Any, key: str) -> float:
    """How evenly batches draw from groups: 1 as even as chance has it, 0 if each batch is of one group."""
    words = [list(batch[key]) for batch in batches]
    everything = [word for batch in words for word in batch]
    shares = np.array([everything.count(word) for word in set(everything)]) / len(everything)
    size = len(words[0])
    together = np.mean(
        [(sum(batch.count(word) ** 2 for word in set(batch)) - size) / (size * (size - 1)) for batch in words]
    )  # the chance that two samples of a batch are of one group
    by_chance = float((shares**2).sum())
    return float((1 - together) / (1 - by_chance))


def test_a_global_shuffle_mixes_studies_as_chance_does_and_windows_the_more_the_larger_they_are(tmp_path: Any) -> None:
    known = write_store(tmp_path / "store", images=300)
    found = {}
    for shuffle in ("global", "window:20", "window:4", "none"):
        stream = TrainingStream(known.url, batch_size=16, shuffle=shuffle, crop=GuidedCrop(8), seed=3)
        found[shuffle] = mixing(list(stream)[:-1], "study")
    assert abs(found["global"] - 1) < 0.05
    assert found["none"] < found["window:4"] < found["window:20"] < 1.05
    assert found["none"] < 0.5 and found["window:20"] > 0.9
