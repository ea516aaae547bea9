"""Small training runs for the tests of training: a recipe that takes seconds, and runs in processes of their own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from chammi75.schemas.training import TrainingRecipe
from chammi75.training.logs import read_log

SMALL: dict[str, Any] = {
    "title": "small",
    "method": "dino",
    "epochs": 3,
    "batch_size": 8,
    "data": {"crop": 24, "workers": 0},
    "backbone": {"name": "tiny", "patch_size": 8, "image_size": 16, "drop_path": 0.1},
    "views": {
        "global_views": {"count": 2, "size": 16, "scale": (0.4, 1.0)},
        "local_views": {"count": 1, "size": 8, "scale": (0.1, 0.4)},
    },
    "dino": {"out_dim": 64, "hidden_dim": 32, "bottleneck_dim": 16},
    "optimizer": {"warmup_epochs": 1},
    "devices": {"accelerator": "cpu", "threads": 1},
    "checkpoints": {"every_steps": 4},
    "log": {"every_steps": 1},
}

SCRIPT = """
import sys
from chammi75.errors import ChammiError
from chammi75.training.recipes import load_recipe
from chammi75.training.trainer import train

if __name__ == "__main__":
    try:
        train(load_recipe(sys.argv[1]), on_line=lambda line: print(line, flush=True))
    except ChammiError as error:
        sys.exit(f"error: {error}")
"""


def small_recipe(store: str, out: Path, **changes: Any) -> TrainingRecipe:
    """A recipe of 8 steps an epoch on ``write_store``'s 30 images; parts of ``changes`` are put into its parts."""
    values = {**SMALL, "store": store, "out": str(out)}
    for name, change in changes.items():
        values[name] = {**values.get(name, {}), **change} if isinstance(change, dict) else change
    return TrainingRecipe.model_validate(values)


def losses(out: Path) -> list[tuple[int, float]]:
    """Step and loss of each step that a run logged."""
    return [(int(row["step"]), row["loss"]) for row in read_log(out / "log.csv") if "loss" in row]


def start(recipe: TrainingRecipe, folder: Path, rank: int = 0, ranks: int = 1, port: int = 0) -> subprocess.Popen[str]:
    """Train in a process of its own; with more than one rank as torchrun would start it."""
    from chammi75.training.recipes import save_recipe

    path = save_recipe(recipe, folder / "recipe.yaml", overwrite=True)
    script = folder / "script.py"
    script.write_text(SCRIPT)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    if ranks > 1:
        environment |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks), "GROUP_RANK": "0"}
        environment |= {"LOCAL_WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        environment |= {"TORCHELASTIC_RUN_ID": "test"}
    return subprocess.Popen(
        [sys.executable, str(script), str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )


def wait_for(process: subprocess.Popen[str], words: str) -> list[str]:
    """Read a process's output up to the line with these words.

    Raises
    ------
    AssertionError
        If it ends before.
    """
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if words in line:
            return lines
    raise AssertionError(f"{words!r} never came:\n{''.join(lines)}")


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])
