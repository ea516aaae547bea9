"""What a checkpoint keeps of a stream, and which rank and worker a process is."""

from __future__ import annotations

import json
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chammi75.errors import ChammiError
from chammi75.loading.stream.ranks import rank_and_world_size, worker_of
from chammi75.loading.stream.state import VERSION, StreamState, fingerprint, short_hashes

PARTS: dict[str, object] = {
    "store": ["ab12"],
    "selection": "cd34",
    "seed": 7,
    "order": {"shuffle": "global", "log": None},
}
STATE = StreamState.of(3, 640, PARTS)

# fingerprints


def test_a_fingerprint_does_not_depend_on_the_order_or_kind_of_its_parts() -> None:
    again = {"order": {"log": None, "shuffle": "global"}, "seed": np.int64(7), "selection": "cd34", "store": ("ab12",)}
    assert fingerprint(again) == fingerprint(PARTS)
    assert short_hashes(again) == short_hashes(PARTS)


@pytest.mark.parametrize(
    "change", [{"seed": 8}, {"seed": "7"}, {"seed": 7.5}, {"order": {}}, {"more": 1}, {"store": []}]
)
def test_any_other_part_is_another_fingerprint(change: dict[str, object]) -> None:
    assert fingerprint({**PARTS, **change}) != fingerprint(PARTS)


def test_fingerprints_stay_what_they_were() -> None:
    assert fingerprint({"seed": 1, "name": "é", "half": 0.5, "none": None, "list": [True, 2]}) == (
        "bb0224ca29930fe391e0e0f0df91aea0cea20d7ac21e7c2cc5ca9197fd727fb6"
    )
    assert short_hashes({"seed": 1, "store": "abc"}) == "seed:6b86b273 store:6cc43f85"


@pytest.mark.parametrize("part", [float("nan"), float("inf"), {1: 2}, {3}, b"x", np.zeros(2), object()])
def test_what_has_no_stable_text_is_refused(part: object) -> None:
    with pytest.raises(ChammiError, match=r"crop\.size=.* cannot be part"):
        fingerprint({"crop": {"size": part}})


def test_a_part_needs_a_plain_name() -> None:
    with pytest.raises(ChammiError, match="'the seed' cannot name a part"):
        short_hashes({"the seed": 1})


# states


@given(st.integers(0, 2**40), st.integers(0, 2**50), st.integers(0, 9))
def test_a_state_comes_back_from_json_as_it_was(epoch: int, position: int, seed: int) -> None:
    state = StreamState.of(epoch, position, {"seed": seed, "store": "x"})
    kept = state.to_dict()
    assert all(type(value) in (int, str) for value in kept.values())
    text = json.dumps(kept)
    assert len(text) < 300
    assert StreamState.from_dict(json.loads(text)) == state


def test_numbers_of_numpy_are_taken_and_become_plain() -> None:
    state = StreamState.from_dict({**STATE.to_dict(), "epoch": np.int64(3), "position": np.uint16(640)})
    assert state == STATE
    assert type(state.epoch) is int and type(state.position) is int


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"epoch": -1}, "epoch is -1"),
        ({"epoch": True}, "epoch is True"),
        ({"epoch": 1.0}, "epoch is 1.0"),
        ({"epoch": "1"}, "epoch is '1'"),
        ({"position": None}, "position is None"),
        ({"position": 2**62}, "position is"),
        ({"fingerprint": "abc"}, "fingerprint is 'abc'"),
        ({"fingerprint": "x" * 10**6}, "fingerprint is 'xxx.*\\.\\.\\.,"),
        ({"fingerprint": 5}, "fingerprint is 5"),
        ({"parts": "seed"}, "parts is 'seed'"),
        ({"parts": None}, "parts is None"),
        ({"version": True}, "version is True"),
        ({"samples": 5}, "unknown key 'samples'"),
        ({5: 5}, "unknown key '5'"),
    ],
)
def test_a_state_that_no_stream_wrote_is_refused_with_what_to_do(change: dict[Any, Any], said: str) -> None:
    with pytest.raises(ChammiError, match=f"{said}.*give what TrainingStream.state_dict returned"):
        StreamState.from_dict({**STATE.to_dict(), **change})


@pytest.mark.parametrize("key", ["version", "epoch", "position", "fingerprint", "parts"])
def test_a_state_that_lacks_something_is_refused(key: str) -> None:
    kept = STATE.to_dict()
    del kept[key]
    with pytest.raises(ChammiError, match=f"lacks {key}"):
        StreamState.from_dict(kept)


def test_what_is_no_mapping_is_no_state() -> None:
    with pytest.raises(ChammiError, match="a dictionary, not list"):
        StreamState.from_dict([1])  # type: ignore[arg-type]


def test_a_state_of_another_version_is_told_before_its_keys() -> None:
    for values in ({"version": VERSION + 1, "where": 5}, {**STATE.to_dict(), "version": 0}):
        with pytest.raises(ChammiError, match=f"of version {values['version']}.*reads version {VERSION}.*release"):
            StreamState.from_dict(values)


@pytest.mark.parametrize(("position", "expected"), [(0, (3, 0)), (99, (3, 99)), (100, (4, 0)), (107, (4, 0))])
def test_behind_the_last_position_the_next_epoch_begins(position: int, expected: tuple[int, int]) -> None:
    state = StreamState.of(3, position, PARTS).normalised(100)
    assert (state.epoch, state.position) == expected
    state.check(PARTS)


def test_another_stream_is_refused_by_the_parts_that_differ() -> None:
    STATE.check(dict(reversed(PARTS.items())))
    with pytest.raises(ChammiError, match=r"differs in: seed, store\)"):
        STATE.check({**PARTS, "seed": 8, "store": ["zz"]})
    with pytest.raises(ChammiError, match=r"differs in: mode\)"):
        STATE.check({**PARTS, "mode": "mca"})
    bare = StreamState(3, 640, fingerprint(PARTS))
    bare.check(PARTS)
    with pytest.raises(ChammiError, match="another store, selection or recipe"):
        bare.check({**PARTS, "seed": 8})


# ranks


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "RANK",
        "WORLD_SIZE",
        "SLURM_PROCID",
        "SLURM_NTASKS",
        "SLURM_STEP_NUM_TASKS",
        "SLURM_STEP_ID",
        "SLURM_JOB_ID",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delitem(sys.modules, "torch.distributed", raising=False)
    monkeypatch.delitem(sys.modules, "torch.utils.data", raising=False)


def launched(monkeypatch: pytest.MonkeyPatch, **variables: str) -> tuple[int, int]:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return rank_and_world_size()


def distributed(initialised: bool) -> types.SimpleNamespace:
    return types.SimpleNamespace(
        is_available=lambda: True,
        is_initialized=lambda: initialised,
        get_rank=lambda: 2,
        get_world_size=lambda: 3,
    )


def test_a_process_by_itself_is_rank_0_of_1() -> None:
    assert rank_and_world_size() == (0, 1)
    assert worker_of() == (0, 1)


def test_what_is_said_counts_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "5")
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert rank_and_world_size(np.int64(1), 2) == (1, 2)  # type: ignore[arg-type]


def test_torchrun_and_slurm_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert launched(monkeypatch, SLURM_PROCID="6", SLURM_NTASKS="16") == (6, 16)
    assert launched(monkeypatch, SLURM_JOB_ID="77", SLURM_STEP_ID="0", SLURM_PROCID="0") == (0, 16)
    assert launched(monkeypatch, SLURM_STEP_NUM_TASKS="4", SLURM_PROCID="3") == (3, 4)  # srun -n 4 in a job of 16
    assert launched(monkeypatch, RANK="5", WORLD_SIZE="8") == (5, 8)  # torchrun in each task


@pytest.mark.parametrize("step", [None, "4294967291", "4294967290"])
def test_the_script_and_the_shell_of_a_slurm_job_run_once(monkeypatch: pytest.MonkeyPatch, step: str | None) -> None:
    extra = {} if step is None else {"SLURM_STEP_ID": step}
    assert launched(monkeypatch, SLURM_JOB_ID="77", SLURM_PROCID="0", SLURM_NTASKS="16", **extra) == (0, 1)


def test_torch_distributed_counts_where_it_is_initialised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.distributed", distributed(False))
    assert launched(monkeypatch, RANK="5", WORLD_SIZE="8") == (5, 8)
    monkeypatch.setitem(sys.modules, "torch.distributed", distributed(True))
    assert rank_and_world_size() == (2, 3)


def test_a_worker_of_a_dataloader_knows_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    info = types.SimpleNamespace(id=3, num_workers=4)
    monkeypatch.setitem(sys.modules, "torch.utils.data", types.SimpleNamespace(get_worker_info=lambda: info))
    assert worker_of() == (3, 4)
    monkeypatch.setitem(sys.modules, "torch.utils.data", types.SimpleNamespace(get_worker_info=lambda: None))
    assert worker_of() == (0, 1)


def test_the_real_torch_is_understood(tmp_path: Path) -> None:
    code = """
import sys
from chammi75.loading.stream.ranks import rank_and_world_size, worker_of
assert "torch" not in sys.modules, "finding out must not import torch"
import torch.distributed, torch.utils.data
assert rank_and_world_size() == (0, 1) and worker_of() == (0, 1)
torch.distributed.init_process_group("gloo", init_method=f"file://{sys.argv[1]}", rank=0, world_size=1)
import os
os.environ.update(RANK="1", WORLD_SIZE="2")
assert rank_and_world_size() == (0, 1)
torch.distributed.destroy_process_group()
assert rank_and_world_size() == (1, 2)
class Workers(torch.utils.data.IterableDataset):
    def __iter__(self):
        yield worker_of()
loader = torch.utils.data.DataLoader(Workers(), batch_size=None, num_workers=2)
assert [tuple(worker) for worker in loader] == [(0, 2), (1, 2)]
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "meeting")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("rank", "world_size", "said"),
    [
        (0, None, "give both"),
        (None, 2, "give both"),
        (2, 2, "rank=2 must be at least 0 and below world_size=2"),
        (-1, 2, "rank=-1"),
        (0, 0, "world_size=0"),
        (True, 2, "rank=True must be a whole number"),
        (0, 2.0, "world_size=2.0 must be a whole number"),
    ],
)
def test_a_rank_that_cannot_be_is_refused(rank: Any, world_size: Any, said: str) -> None:
    with pytest.raises(ChammiError, match=said):
        rank_and_world_size(rank, world_size)


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"RANK": "one", "WORLD_SIZE": "2"}, "variable RANK is 'one'"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, "variable RANK is '-1'"),
        ({"RANK": "0", "WORLD_SIZE": "2.0"}, "variable WORLD_SIZE is '2.0'"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK is 2 and WORLD_SIZE is 2"),
        ({"RANK": "0"}, "RANK is set to '0' and WORLD_SIZE is not"),
        ({"WORLD_SIZE": "4"}, "WORLD_SIZE is set to '4' and RANK is not"),
        ({"SLURM_PROCID": "1"}, "SLURM_PROCID is set to '1' and SLURM_NTASKS is not"),
        ({"SLURM_PROCID": "x", "SLURM_NTASKS": "4", "SLURM_STEP_ID": "0"}, "variable SLURM_PROCID is 'x'"),
        ({"SLURM_PROCID": "4", "SLURM_NTASKS": "4", "SLURM_STEP_ID": "0"}, "SLURM_PROCID is 4 and SLURM_NTASKS is 4"),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_STEP_ID": "batch"}, "variable SLURM_STEP_ID is 'batch'"),
    ],
)
def test_an_environment_that_cannot_be_is_told_by_its_variable(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], said: str
) -> None:
    with pytest.raises(ChammiError, match=said):
        launched(monkeypatch, **variables)
