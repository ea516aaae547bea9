"""Which rank this process is, of how many, and which worker of it.

What is said explicitly counts first, then ``torch.distributed`` where it is initialised, then what torchrun sets (RANK
and WORLD_SIZE; also inside of a Slurm job, where each task may start a torchrun), then what ``srun`` sets for each task
of a job step: SLURM_PROCID, and SLURM_STEP_NUM_TASKS (SLURM_NTASKS where that is missing).

A batch script and the shell of ``salloc`` have SLURM_PROCID=0 and the job's SLURM_NTASKS as well, and run only once:
a process there is rank 0 of 1. They are told by SLURM_STEP_ID: it is missing, or one of the numbers from 0xfffffff0 on
that ``slurm.h`` keeps for steps of its own (the batch script, the interactive step, the external one).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

import numpy as np

from chammi75.errors import ChammiError

_SLURMS_OWN_STEPS = 0xFFFFFFF0


def rank_and_world_size(rank: int | None = None, world_size: int | None = None) -> tuple[int, int]:
    """The rank of this process and the number of ranks.

    Parameters
    ----------
    rank, world_size : int, optional
        Both, to say so; neither, to find out.

    Returns
    -------
    rank, world_size : int
        0 and 1 where nothing says otherwise.

    Raises
    ------
    ChammiError
        If one is given without the other, or given or found values are no such pair.

    Examples
    --------
    >>> rank_and_world_size(3, 8)
    (3, 8)
    """
    if rank is not None or world_size is not None:
        return _given(rank, world_size)
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return int(distributed.get_rank()), int(distributed.get_world_size())
    found = _pair("RANK", "WORLD_SIZE") or _from_slurm(os.environ)
    return found or (0, 1)


def worker_of() -> tuple[int, int]:
    """The number of this DataLoader worker and how many there are; 0 and 1 outside of a worker.

    Examples
    --------
    >>> worker_of()
    (0, 1)
    """
    data = sys.modules.get("torch.utils.data")
    found = None if data is None else data.get_worker_info()
    return (0, 1) if found is None else (int(found.id), int(found.num_workers))


def _given(rank: int | None, world_size: int | None) -> tuple[int, int]:
    if rank is None or world_size is None:
        raise ChammiError(f"rank={rank!r} and world_size={world_size!r}: give both, or neither to find them out")
    for name, value in (("rank", rank), ("world_size", world_size)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise ChammiError(f"{name}={value!r} must be a whole number")
    if not 0 <= rank < world_size:
        raise ChammiError(f"rank={rank} must be at least 0 and below world_size={world_size}")
    return int(rank), int(world_size)


def _from_slurm(environment: Mapping[str, str]) -> tuple[int, int] | None:
    if "SLURM_PROCID" not in environment:
        return None
    if "SLURM_STEP_ID" in environment:
        if _number("SLURM_STEP_ID") >= _SLURMS_OWN_STEPS:
            return None
    elif "SLURM_JOB_ID" in environment and _number("SLURM_PROCID") == 0:
        return None  # the batch script, once for the job; a launcher that passes on a rank alone names no job
    total = "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in environment else "SLURM_NTASKS"
    return _pair("SLURM_PROCID", total)


def _pair(rank_name: str, total_name: str) -> tuple[int, int] | None:
    """A rank and a number of ranks from two environment variables; None where neither is set."""
    present = [name for name in (rank_name, total_name) if os.environ.get(name)]
    if not present:
        return None
    if len(present) == 1:
        missing = total_name if present == [rank_name] else rank_name
        raise ChammiError(
            f"the environment variable {present[0]} is set to {os.environ[present[0]]!r} and {missing} is not: set "
            f"both, or give rank and world_size"
        )
    rank, total = _number(rank_name), _number(total_name)
    if rank >= total:
        raise ChammiError(
            f"the environment variable {rank_name} is {rank} and {total_name} is {total}: ranks are counted from 0 and "
            f"stay below the number of ranks. Set them right, or give rank and world_size"
        )
    return rank, total


def _number(name: str) -> int:
    text = os.environ[name].strip()
    if not (text.isascii() and text.isdigit()):
        raise ChammiError(
            f"the environment variable {name} is {os.environ[name]!r}, not a whole number: set it right, or give rank "
            f"and world_size"
        )
    return int(text)
