"""Checkpoints: whole or not at all, and never believed when damaged."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="training needs PyTorch")

import torch

from chammi75.errors import ChammiError
from chammi75.training.checkpoints import (
    DamagedCheckpointError,
    list_checkpoints,
    random_states,
    read_checkpoint,
    read_last,
    restore_random_states,
    write_checkpoint,
)


def refuse(line: str) -> None:
    raise AssertionError(f"nothing was to be said, and this was: {line}")


def test_what_is_written_comes_back_and_the_last_are_kept(tmp_path: Path) -> None:
    for step in (5, 10, 15):
        write_checkpoint(tmp_path, step, {"weights": torch.full((3,), float(step)), "place": {"epoch": 2}}, keep=2)
    assert [checkpoint.step for checkpoint in list_checkpoints(tmp_path)] == [10, 15]
    content = read_last(tmp_path, refuse)
    assert content is not None and content["step"] == 15
    assert content["weights"].tolist() == [15.0] * 3 and content["place"] == {"epoch": 2}


@pytest.mark.parametrize("damage", ["cut short", "one bit", "empty"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path: Path, damage: str) -> None:
    for step in (5, 10):
        write_checkpoint(tmp_path, step, {"weights": torch.zeros(1000)}, keep=2)
    last = list_checkpoints(tmp_path)[-1]
    content = bytearray(last.path.read_bytes())
    content[1500] ^= 1
    last.path.write_bytes({"cut short": content[:-100], "one bit": content, "empty": b""}[damage])
    with pytest.raises(DamagedCheckpointError, match="is damaged"):
        read_checkpoint(last)
    said: list[str] = []
    found = read_last(tmp_path, said.append)
    assert found is not None and found["step"] == 5
    assert len(said) == 1 and last.path.name in said[0] and "going on from the one before, of step 5" in said[0]
    assert read_last(tmp_path, refuse) is not None  # it was put aside, and is spoken of once
    write_checkpoint(tmp_path, 7, {"weights": torch.zeros(1)}, keep=2)
    assert [checkpoint.step for checkpoint in list_checkpoints(tmp_path)] == [5, 7]


def test_where_all_are_damaged_nothing_begins_anew_in_silence(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 5, {"weights": torch.zeros(10)}, keep=2)
    list_checkpoints(tmp_path)[0].path.write_bytes(b"no")
    with pytest.raises(ChammiError, match="No checkpoint is left"):
        read_last(tmp_path, refuse)


def test_what_a_killed_process_left_half_written_is_removed(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 5, {"weights": torch.zeros(10)}, keep=2)
    half = tmp_path / ".step_00000010.0a1b2c3d.part"
    half.write_bytes(b"half")
    found = read_last(tmp_path, refuse)
    assert found is not None and found["step"] == 5
    assert not half.exists()


def test_a_checkpoint_that_cannot_be_written_leaves_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_checkpoint(tmp_path, 5, {"weights": torch.zeros(10)}, keep=1)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ChammiError, match=r"step 10 cannot be written .*No space left"):
        write_checkpoint(tmp_path, 10, {"weights": torch.zeros(10)}, keep=1)
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == [list_checkpoints(tmp_path)[0].path.name]
    found = read_last(tmp_path, refuse)
    assert found is not None and found["step"] == 5


def test_no_code_of_a_checkpoint_is_ever_run(tmp_path: Path) -> None:
    import hashlib

    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (str(tmp_path / "sprung"),))

    plain = tmp_path / "plain"
    torch.save({"format": 1, "step": 5, "trap": Trap()}, plain)
    digest = hashlib.sha256(plain.read_bytes()).hexdigest()[:8]
    plain.rename(tmp_path / f"step_00000005-{digest}.pt")
    with pytest.raises(Exception, match=r"weights_only|Weights only|Unsupported"):
        read_last(tmp_path, refuse)
    assert not (tmp_path / "sprung").exists()


def test_generators_go_on_where_they_were() -> None:
    device = torch.device("cpu")
    states = random_states(device)
    drawn = torch.rand(5)
    restore_random_states(states, device)
    assert torch.equal(torch.rand(5), drawn)


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of a file's size")
def test_a_disk_without_room_is_told_and_what_was_written_before_stays(tmp_path: Path) -> None:
    script = """
import resource, signal, sys
from pathlib import Path
import torch
from chammi75.errors import ChammiError
from chammi75.training.checkpoints import write_checkpoint

folder = Path(sys.argv[1])
write_checkpoint(folder, 5, {"weights": torch.zeros(10)}, keep=1)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the write fails instead, as on a full disk
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    write_checkpoint(folder, 10, {"weights": torch.zeros(100_000)}, keep=1)
except ChammiError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    assert "the checkpoint of step 10 cannot be written" in done.stdout and "too large" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == [list_checkpoints(tmp_path)[0].path.name]
    assert list_checkpoints(tmp_path)[0].step == 5
