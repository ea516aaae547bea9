"""What the optimiser does with each parameter: AdamW (Loshchilov and Hutter 2019), its groups, and clipping."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal

import torch

from chammi75.errors import RecipeError

if TYPE_CHECKING:
    from torch import nn

    from chammi75.schemas.training import OptimizerSettings

_BLOCK = re.compile(r"^backbone\.blocks\.(\d+)\.")
_STEM = re.compile(r"^backbone\.(cls_token|pos_embed|patch_embed)\b")


def freeze_parameters(module: nn.Module, prefixes: Sequence[str]) -> None:
    """Keep parameters as they are: those whose dotted names are a prefix, or start with one.

    Call it before the network is wrapped for several processes, which wait for the gradients of all that learn.

    Parameters
    ----------
    module : nn.Module
        What is trained.
    prefixes : sequence of str
        Whole parts of names: ``backbone.blocks.1`` is block 1, not block 10.

    Raises
    ------
    RecipeError
        For a prefix that no parameter has, or where nothing is left that learns.

    Examples
    --------
    >>> network = torch.nn.ModuleDict({"backbone": torch.nn.Linear(2, 2), "head": torch.nn.Linear(2, 1)})
    >>> freeze_parameters(network, ["backbone"])
    >>> [name for name, parameter in network.named_parameters() if parameter.requires_grad]
    ['head.weight', 'head.bias']
    >>> freeze_parameters(network, ["bakbone"])
    Traceback (most recent call last):
    chammi75.errors.RecipeError: optimizer.freeze: no parameter starts with 'bakbone'; do you mean 'backbone'?
    """
    named = dict(module.named_parameters())
    for prefix in prefixes:
        part = prefix.rstrip(".")
        taken = [name for name in named if part and (name == part or name.startswith(part + "."))]
        if not taken:
            raise RecipeError(f"optimizer.freeze: no parameter starts with {prefix!r}; {_nearest(part, named)}")
        for name in taken:
            named[name].requires_grad_(False)
    if prefixes and not any(parameter.requires_grad for parameter in named.values()):
        raise RecipeError(f"optimizer.freeze: {', '.join(prefixes)} leave no parameter that learns; freeze fewer")


def _nearest(prefix: str, names: Iterable[str]) -> str:
    """What a prefix that matches nothing may have meant."""
    split = [name.split(".") for name in names]
    known = list(dict.fromkeys(".".join(parts[:end]) for parts in split for end in range(1, len(parts) + 1)))
    near = get_close_matches(prefix, known, 1)
    if near:
        return f"do you mean {near[0]!r}?"
    return f"names begin with {', '.join(name for name in known if '.' not in name)}"


def parameter_groups(module: nn.Module, settings: OptimizerSettings) -> list[dict[str, Any]]:
    """Parameters that learn, by what the schedules do with them.

    Biases and all that has one dimension (the norms) do not decay; everything else does, the CLS token, the positions
    and the directions of DINO's last layer among them, as in DINO. With ``layer_decay`` each layer learns by that
    factor more slowly than the one above it (Clark et al. 2020; Bao et al. 2022, BEiT): the head and the last norm at
    full rate, block i of n by the factor's power n - i, and patches, positions and CLS token by its power n + 1.

    Parameters
    ----------
    module : nn.Module
        What is trained; its backbone, if any, is named ``backbone``.
    settings : OptimizerSettings
        Weight decay, learning rate and layer decay.

    Returns
    -------
    list of dict
        Groups for an optimiser of PyTorch, the parameters that decay first: ``params``, ``lr``, ``weight_decay``, and
        for :func:`set_schedules` ``decays`` (bool) and ``scale`` (a factor on the learning rate).

    Examples
    --------
    >>> from chammi75.schemas.training import OptimizerSettings
    >>> groups = parameter_groups(torch.nn.Linear(3, 2), OptimizerSettings())
    >>> [(group["decays"], group["weight_decay"], len(group["params"])) for group in groups]
    [(True, 0.04, 1), (False, 0.0, 1)]
    """
    named = [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]
    blocks = [int(found[1]) for name, _ in module.named_parameters() if (found := _BLOCK.match(name))]
    depth = max(blocks, default=-1) + 1
    groups: dict[tuple[bool, int], dict[str, Any]] = {}
    for name, parameter in named:
        decays = parameter.ndim > 1 and not name.endswith(".bias")
        above = _layers_above(name, depth) if settings.layer_decay < 1 else 0
        group = groups.setdefault(
            (not decays, above),
            {
                "params": [],
                "lr": settings.learning_rate,
                "weight_decay": settings.weight_decay if decays else 0.0,
                "decays": decays,
                "scale": settings.layer_decay**above,
            },
        )
        group["params"].append(parameter)
    return [groups[key] for key in sorted(groups)]


def _layers_above(name: str, depth: int) -> int:
    """How many layers lie between a parameter and the head."""
    if found := _BLOCK.match(name):
        return depth - int(found[1])
    return depth + 1 if _STEM.match(name) else 0


def build_optimizer(module: nn.Module, settings: OptimizerSettings) -> torch.optim.AdamW:
    """AdamW over the :func:`parameter_groups` of a network, with PyTorch's (and DINO's) epsilon, 1e-8.

    Examples
    --------
    >>> from chammi75.schemas.training import OptimizerSettings
    >>> build_optimizer(torch.nn.Linear(3, 2), OptimizerSettings()).defaults["betas"]
    (0.9, 0.999)
    """
    groups = parameter_groups(module, settings)
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=settings.betas)


def set_schedules(optimizer: torch.optim.Optimizer, learning_rate: float, weight_decay: float) -> None:
    """Give the groups of an optimiser the numbers of a step; only those that decay get its weight decay.

    Examples
    --------
    >>> from chammi75.schemas.training import OptimizerSettings
    >>> optimizer = build_optimizer(torch.nn.Linear(3, 2), OptimizerSettings())
    >>> set_schedules(optimizer, learning_rate=0.001, weight_decay=0.1)
    >>> [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups]
    [(0.001, 0.1), (0.001, 0.0)]
    """
    for group in optimizer.param_groups:
        group["lr"] = float(learning_rate) * group["scale"]
        if group["decays"]:
            group["weight_decay"] = float(weight_decay)


def clip_gradients(
    parameters: Iterable[nn.Parameter], limit: float | None, by: Literal["parameter", "global"]
) -> torch.Tensor:
    """Shorten gradients that are too long, in place, without waiting for the device.

    A gradient is multiplied by ``limit / (norm + 1e-6)`` where that is less than 1.

    Parameters
    ----------
    parameters : iterable of nn.Parameter
        Those without a gradient are passed over.
    limit : float or None
        The greatest norm; None: nothing is shortened.
    by : {"parameter", "global"}
        parameter: each tensor by its own norm, as in DINO; global: all by the norm of all together.

    Returns
    -------
    Tensor, shape ()
        The norm of all gradients together, as they were before.

    Examples
    --------
    >>> weight = torch.nn.Parameter(torch.zeros(2))
    >>> weight.grad = torch.tensor([3.0, 4.0])
    >>> clip_gradients([weight], 1.0, "parameter").item(), round(weight.grad.norm().item(), 4)
    (5.0, 1.0)
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return torch.zeros(())
    norms = torch._foreach_norm(gradients)
    total = torch.linalg.vector_norm(torch.stack([norm.to(norms[0].device) for norm in norms]))
    if limit is not None:
        lengths = norms if by == "parameter" else [total.to(norm.device) for norm in norms]
        factors = torch._foreach_add(lengths, 1e-6)
        torch._foreach_reciprocal_(factors)
        torch._foreach_mul_(factors, limit)
        torch._foreach_clamp_max_(factors, 1.0)
        torch._foreach_mul_(gradients, factors)
    return total
