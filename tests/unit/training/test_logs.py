"""The log of a run, and what it keeps of one that was killed."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="training needs PyTorch")

from chammi75.errors import ChammiError, MissingDependencyError
from chammi75.schemas.training import TrainingRecipe
from chammi75.training.logs import CsvLog, Stopwatch, open_sinks, read_log
from chammi75.training.run_folder import RunFolder


def recipe_with(folder: Path, **log: object) -> TrainingRecipe:
    return TrainingRecipe.model_validate(
        {"title": "a", "store": "mini", "out": str(folder), "method": "dino", "log": log}
    )


def test_numbers_come_back_to_the_last_bit(tmp_path: Path) -> None:
    log = CsvLog(tmp_path / "log.csv", 0)
    log.write(1, {"loss": 0.1 + 0.2, "rate": 1 / 3})
    log.close()
    assert read_log(tmp_path / "log.csv") == [{"step": 1.0, "loss": 0.1 + 0.2, "rate": 1 / 3}]


def test_rows_behind_the_checkpoint_and_half_a_row_are_cut(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    log = CsvLog(path, 0)
    for step in range(1, 8):
        log.write(step, {"loss": float(step)})
    log.close()
    path.write_text(path.read_text() + "8,8.")
    log = CsvLog(path, 5)
    log.write(6, {"loss": 60.0})
    log.close()
    assert [(row["step"], row["loss"]) for row in read_log(path)] == [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, 60)]


def test_a_new_number_gets_a_column_and_costs_no_row(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    log = CsvLog(path, 0)
    log.write(1, {"loss": 1.0})
    log.write(2, {"loss": 2.0})
    log.write(2, {"probe_accuracy": 0.5})
    log.write(3, {"loss": 3.0})
    log.close()
    assert read_log(path) == [
        {"step": 1.0, "loss": 1.0},
        {"step": 2.0, "loss": 2.0},
        {"step": 2.0, "probe_accuracy": 0.5},
        {"step": 3.0, "loss": 3.0},
    ]


def test_a_file_that_is_no_log_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("name,age\na,1\n")
    with pytest.raises(ChammiError, match="is no log of a run"):
        CsvLog(path, 0)
    assert path.read_text() == "name,age\na,1\n"


def test_the_share_of_waiting_is_time_waited_over_time_passed() -> None:
    watch = Stopwatch()
    began = time.perf_counter()
    for _ in range(4):
        before = time.perf_counter()
        time.sleep(0.03)
        watch.add_wait(time.perf_counter() - before)
        time.sleep(0.01)
        watch.add_step(8)
    rate, wait, step_s = watch.lap()
    passed = time.perf_counter() - began
    assert rate == pytest.approx(32 / passed, rel=0.05)
    assert step_s == pytest.approx(passed / 4, rel=0.05)
    assert 0.5 < wait < 1


def test_time_that_is_left_out_slows_nothing() -> None:
    watch = Stopwatch()
    time.sleep(0.01)
    watch.add_step(1)
    before = time.perf_counter()
    time.sleep(0.2)
    watch.leave_out(time.perf_counter() - before)
    assert watch.lap()[2] < 0.1


def test_tensorboard_reads_back_what_was_logged(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="this reads back what TensorBoard was told")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for begin, steps in ((0, (1, 2, 3)), (2, (3, 4))):  # killed behind step 3, and gone on with from 2
        sinks = open_sinks(RunFolder(tmp_path), recipe_with(tmp_path, tensorboard=True, csv=False), begin)
        for step in steps:
            sinks[0].write(step, {"step": step, "loss": 10.0 * begin + step})
        sinks[0].close()
    read = EventAccumulator(str(tmp_path / "tensorboard"))
    read.Reload()
    assert [(event.step, event.value) for event in read.Scalars("loss")] == [(1, 1), (2, 2), (3, 23), (4, 24)]


@pytest.mark.parametrize(("package", "log"), [("tensorboard", {"tensorboard": True}), ("wandb", {"wandb": "mine"})])
def test_a_log_whose_package_is_missing_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, log: dict[str, object]
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    with pytest.raises(MissingDependencyError, match=f"pip install {package}"):
        open_sinks(RunFolder(tmp_path), recipe_with(tmp_path, **log), 0)
    assert not (tmp_path / "log.csv").exists()
