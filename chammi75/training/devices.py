"""Where a training runs: devices, processes and precision, by Lightning Fabric.

torchrun and Slurm start the processes themselves; on one machine with several devices nothing else is needed, Fabric
starts the other processes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from inspect import signature
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from chammi75.errors import ChammiError, MissingDependencyError, RecipeError
from chammi75.loading.stream.ranks import rank_and_world_size

try:
    from lightning_fabric import Fabric
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "lightning_fabric":
        raise
    raise MissingDependencyError('training needs Lightning Fabric: pip install "chammi75[train]"') from error

if TYPE_CHECKING:
    from chammi75.schemas.training import DeviceSettings, OptimizerSettings, TrainingRecipe

TIMEOUT_S = 600.0
"""Seconds that a rank waits for the others. One that dies is noticed at once; this is for one that hangs."""

_LOST = (
    "connection closed",
    "connection reset",
    "connection refused",
    "timed out",
    "timeout",
    "broken pipe",
    "aborted",
)


class Launched(NamedTuple):
    """The processes that a launcher has started.

    Attributes
    ----------
    launcher : str
        ``torchrun`` or ``Slurm``.
    ranks : int
    nodes : int
    """

    launcher: str
    ranks: int
    nodes: int

    @property
    def per_node(self) -> int:
        """Processes of each node."""
        return self.ranks // self.nodes


def launched_processes() -> Launched | None:
    """What torchrun, or srun, says of the processes that it started; None where nothing has."""
    environment = os.environ
    if "RANK" in environment and "WORLD_SIZE" in environment:
        ranks = rank_and_world_size()[1]
        per_node = int(environment.get("LOCAL_WORLD_SIZE", ranks))
        return Launched("torchrun", ranks, max(ranks // max(per_node, 1), 1))
    if "LOCAL_RANK" in environment:  # one of those that Fabric has started
        return None
    ranks = rank_and_world_size()[1]
    if ranks == 1:
        return None
    nodes = int(environment.get("SLURM_STEP_NUM_NODES") or environment.get("SLURM_NNODES") or 1)
    return Launched("Slurm", ranks, nodes)


def choose_accelerator(settings: DeviceSettings) -> str:
    """``cuda``, ``mps`` or ``cpu``: what a recipe asks for, or the best there is.

    Raises
    ------
    RecipeError
        If it is not there.
    """
    has_mps = torch.backends.mps.is_available()
    if settings.accelerator == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if has_mps else "cpu"
    if settings.accelerator == "cuda" and not torch.cuda.is_available():
        built = torch.version.cuda
        why = f"PyTorch {torch.__version__} is built without CUDA" if built is None else "PyTorch finds no GPU"
        hint = (
            "install a build of PyTorch with CUDA"
            if built is None
            else "see whether nvidia-smi and CUDA_VISIBLE_DEVICES show one"
        )
        raise RecipeError(f"devices.accelerator: cuda is asked for, and {why}: {hint}, or set devices.accelerator=auto")
    if settings.accelerator == "mps" and not has_mps:
        raise RecipeError("devices.accelerator: mps is asked for, and there is none here: set devices.accelerator=auto")
    return settings.accelerator


def make_fabric(settings: DeviceSettings, optimizer: OptimizerSettings, timeout_s: float = TIMEOUT_S) -> Fabric:
    """What runs a training on the devices that a recipe asks for; not launched yet.

    Parameters
    ----------
    settings : DeviceSettings
    optimizer : OptimizerSettings
        Not every way to clip goes with every way to share the work.
    timeout_s : float
        How long a rank waits for others that hang.

    Raises
    ------
    RecipeError
        If the devices are not there, or the settings do not go together; the message says what to set.
    """
    accelerator = choose_accelerator(settings)
    launched = launched_processes()
    devices, nodes = _counts(settings, accelerator, launched)
    ranks = devices * nodes
    _check_together(settings, optimizer, accelerator, ranks)
    return Fabric(
        accelerator=accelerator,
        devices=devices,
        num_nodes=nodes,
        precision=settings.precision,
        strategy=_strategy(settings, ranks, timedelta(seconds=timeout_s)),
        plugins=_environment(launched),
    )


def _counts(settings: DeviceSettings, accelerator: str, launched: Launched | None) -> tuple[int, int]:
    """Devices of each node, and nodes."""
    here = torch.cuda.device_count() if accelerator == "cuda" else 1 if accelerator == "mps" else None
    if launched is not None:
        for key, asked, found in (
            ("devices", None if settings.devices == "auto" else settings.devices, launched.per_node),
            ("nodes", None if settings.nodes == 1 else settings.nodes, launched.nodes),
        ):
            if asked is not None and asked != found:
                raise RecipeError(
                    f"devices.{key}: the recipe says {asked}, and {launched.launcher} has started {launched.ranks}"
                    f" processes on {launched.nodes} node(s): set devices.{key}={found}, or start others"
                )
        devices, nodes = launched.per_node, launched.nodes
    elif settings.nodes > 1:
        raise RecipeError(
            f"devices.nodes: {settings.nodes} nodes need a launcher that starts a process for each device of each:"
            " torchrun, or srun within Slurm; or set devices.nodes=1"
        )
    else:
        devices, nodes = (here or 1) if settings.devices == "auto" else settings.devices, 1
    if devices < 1 or (here is not None and devices > here):
        raise RecipeError(
            f"devices.devices: {devices} are asked for, and there {'is' if here == 1 else 'are'} {here or 'any number'}"
            f" of {accelerator} here: set devices.devices=auto, or fewer"
        )
    return devices, nodes


def _check_together(settings: DeviceSettings, optimizer: OptimizerSettings, accelerator: str, ranks: int) -> None:
    if settings.precision == "16-mixed" and accelerator != "cuda":
        raise RecipeError(
            f"devices.precision: 16-mixed needs a CUDA device, and this is {accelerator}: set"
            " devices.precision=bf16-mixed or 32-true"
        )
    if settings.parallel != "fsdp":
        return
    if accelerator != "cuda":
        raise RecipeError(
            f"devices.parallel: fsdp needs CUDA devices, and this is {accelerator}: set devices.parallel=auto"
        )
    if optimizer.clip is not None and optimizer.clip_by == "parameter":
        raise RecipeError(
            "devices.parallel: with fsdp no rank has a whole gradient, so none can be clipped by its own norm: set"
            " optimizer.clip_by=global, or devices.parallel=ddp"
        )


def _strategy(settings: DeviceSettings, ranks: int, timeout: timedelta) -> Any:
    if settings.parallel == "fsdp":
        from lightning_fabric.strategies import FSDPStrategy
        from timm.models.vision_transformer import Block

        from chammi75.training.methods.multi_crop import MultiCropNetwork

        # student and teacher are cut alike when each is a unit of its own: one follows the other shard by shard
        return FSDPStrategy(timeout=timeout, auto_wrap_policy={Block, MultiCropNetwork}, state_dict_type="full")
    if ranks == 1:
        return "auto"
    from lightning_fabric.strategies import DDPStrategy
    from torch.nn.parallel import DistributedDataParallel

    # buffers are the same everywhere: what changes them is averaged over the ranks already
    known = signature(DistributedDataParallel).parameters
    buffers = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"  # its name before 2.14
    return DDPStrategy(timeout=timeout, gradient_as_bucket_view=True, **{buffers: False})


def _environment(launched: Launched | None) -> Any:
    """Who says what rank this process is: never guessed a second time, as in a batch script without srun."""
    from lightning_fabric.plugins.environments import LightningEnvironment, SLURMEnvironment, TorchElasticEnvironment

    if launched is None:
        return LightningEnvironment()
    return TorchElasticEnvironment() if launched.launcher == "torchrun" else SLURMEnvironment()


class Ranks:
    """What the processes of a training tell one another beside gradients, on the CPU, so that no device has to wait.

    A rank that has died breaks the connection, and all others hear of it with the next word.

    Parameters
    ----------
    timeout_s : float
        How long to wait for one that hangs.
    """

    def __init__(self, timeout_s: float = TIMEOUT_S) -> None:
        self.rank, self.count = 0, 1
        self._group: Any = None
        distributed = torch.distributed
        if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
            self.rank, self.count = distributed.get_rank(), distributed.get_world_size()
            self._group = distributed.new_group(backend="gloo", timeout=timedelta(seconds=timeout_s))

    @property
    def is_first(self) -> bool:
        """Whether this is the rank that writes."""
        return self.rank == 0

    def greatest(self, number: int) -> int:
        """The greatest of the ranks' numbers; all wait for one another."""
        if self._group is None:
            return number
        value = torch.tensor(number)
        torch.distributed.all_reduce(value, torch.distributed.ReduceOp.MAX, group=self._group)
        return int(value)

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """The mean over the ranks of a tensor on the CPU."""
        if self._group is None:
            return values
        total = values.clone()
        torch.distributed.all_reduce(total, group=self._group)
        return total / self.count

    def gather(self, values: torch.Tensor) -> torch.Tensor:
        """The tensors of all ranks, on the CPU and of one shape, as one of shape (ranks, …)."""
        if self._group is None:
            return values[None]
        found = [torch.empty_like(values) for _ in range(self.count)]
        torch.distributed.all_gather(found, values.contiguous(), group=self._group)
        return torch.stack(found)

    def close(self) -> None:
        """Tell no more: others that still wait for this rank hear at once that it is gone."""
        if self._group is not None and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group(self._group)
        self._group = None

    def share_failure(self, words: str | None) -> str | None:
        """What the first rank says went wrong, on all ranks; None where nothing did."""
        if self._group is None:
            return words
        said = [words]
        torch.distributed.broadcast_object_list(said, 0, group=self._group)
        return said[0]


@contextmanager
def device_errors(recipe: TrainingRecipe) -> Iterator[None]:
    """Turn what devices and other ranks fail with into words that say what to change."""
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        raise ChammiError(out_of_memory_words(recipe, error)) from error
    except RuntimeError as error:
        if "out of memory" in str(error).lower():
            raise ChammiError(out_of_memory_words(recipe, error)) from error
        if recipe.devices.compile and isinstance(error, torch._dynamo.exc.TorchDynamoException):
            raise ChammiError(
                "devices.compile: the networks cannot be compiled here (CPUs need a C++ compiler, GPUs need Triton):"
                f" install what is missing, or set devices.compile=false ({str(error).splitlines()[0][:160]})"
            ) from error
        if _is_lost_rank(error):
            raise ChammiError(
                "another rank of this run has ended, or hangs, so this one ends too: the first error among the ranks'"
                " outputs says why; start the same command again to go on from the last checkpoint"
                f" ({str(error).splitlines()[0][:160]})"
            ) from error
        raise


def out_of_memory_words(recipe: TrainingRecipe, error: Exception) -> str:
    """What to lower where a device's memory does not suffice."""
    steps = [f"batch_size (now {recipe.batch_size}) and raise accumulate (now {recipe.accumulate}) in proportion"]
    settings = recipe.devices
    others = []
    if settings.precision == "32-true":
        others.append("devices.precision=bf16-mixed")
    if not recipe.backbone.activation_checkpointing:
        others.append("backbone.activation_checkpointing=true")
    if recipe.method == "dino" and recipe.views.local_views.count:
        others.append(f"fewer views.local_views.count (now {recipe.views.local_views.count})")
    if settings.parallel != "fsdp":
        others.append("devices.parallel=fsdp on several devices")
    return (
        f"the device is out of memory: lower {steps[0]}, or take {', '.join(others)}"
        f" ({str(error).splitlines()[0][:160]})"
    )


def _is_lost_rank(error: RuntimeError) -> bool:
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1):
        return False
    words = str(error).lower()
    return isinstance(error, distributed.DistError) or any(word in words for word in _LOST)
