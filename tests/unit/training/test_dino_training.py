"""Six steps of training with DINO, against the whole step written out in float64: network, loss, AdamW and averages.

Nothing of the library takes part in the expected numbers but the weights that both start from.
"""

from __future__ import annotations

import math

import pytest

pytest.importorskip("torch", reason="training needs PyTorch")
pytest.importorskip("timm", reason="backbones are made of timm's blocks")

import torch
from method_batches import LOCAL_SIZE, PATCH, random_views, small_method, small_recipe

from chammi75.training.optimizer import build_optimizer, clip_gradients, set_schedules
from chammi75.training.progress import Progress
from chammi75.training.schedules import learning_rates, weight_decays

STEPS, EPOCH = 6, 3
HEADS, CLIP = 2, 0.3
BASE, LEAST, WARMUP = 2e-3, 1e-5, 2
Weights = dict[str, torch.Tensor]


def _norm(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    mean = x.mean(-1, keepdim=True)
    variance = ((x - mean) ** 2).mean(-1, keepdim=True)
    return (x - mean) / torch.sqrt(variance + 1e-6) * weight + bias


def _gelu(x: torch.Tensor) -> torch.Tensor:
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def _vit(p: Weights, planes: torch.Tensor) -> torch.Tensor:
    """The normed CLS token of a vision transformer."""
    samples, edge = len(planes), planes.shape[-1] // PATCH
    patches = [
        planes[:, 0, PATCH * row : PATCH * (row + 1), PATCH * column : PATCH * (column + 1)].reshape(samples, -1)
        for row in range(edge)
        for column in range(edge)
    ]
    weight = p["backbone.patch_embed.proj.weight"]
    x = torch.stack(patches, 1) @ weight.reshape(len(weight), -1).T + p["backbone.patch_embed.proj.bias"]
    table = p["backbone.pos_embed"][0, 1:]
    if len(table) != edge**2:
        side = math.isqrt(len(table))
        grid = table.float().reshape(1, side, side, -1).permute(0, 3, 1, 2)  # the published sampling is in float32
        factor = (edge + 0.1) / side
        grid = torch.nn.functional.interpolate(grid, scale_factor=(factor, factor), mode="bicubic")
        table = grid.permute(0, 2, 3, 1).reshape(edge**2, -1).double()
    cls = (p["backbone.cls_token"] + p["backbone.pos_embed"][:, :1]).expand(samples, -1, -1)
    x = torch.cat((cls, x + table), 1)
    for block in range(2):
        q = {name: value for name, value in p.items() if name.startswith(f"backbone.blocks.{block}.")}
        get = lambda name, q=q, block=block: q[f"backbone.blocks.{block}.{name}"]  # noqa: E731
        y = _norm(x, get("norm1.weight"), get("norm1.bias"))
        qkv = y @ get("attn.qkv.weight").T + get("attn.qkv.bias")
        width = y.shape[-1]
        depth = width // HEADS
        outs = []
        for head in range(HEADS):
            query, key, value = (
                qkv[..., part * width + head * depth : part * width + (head + 1) * depth] for part in range(3)
            )
            scores = query @ key.transpose(1, 2) / math.sqrt(depth)
            scores = torch.exp(scores - scores.amax(-1, keepdim=True))
            outs.append(scores / scores.sum(-1, keepdim=True) @ value)
        x = x + torch.cat(outs, -1) @ get("attn.proj.weight").T + get("attn.proj.bias")
        y = _norm(x, get("norm2.weight"), get("norm2.bias"))
        y = _gelu(y @ get("mlp.fc1.weight").T + get("mlp.fc1.bias"))
        x = x + y @ get("mlp.fc2.weight").T + get("mlp.fc2.bias")
    return _norm(x, p["backbone.norm.weight"], p["backbone.norm.bias"])[:, 0]


def _scores(p: Weights, planes: torch.Tensor) -> torch.Tensor:
    x = _vit(p, planes.double())
    for layer in (0, 2):
        x = _gelu(x @ p[f"head.mlp.{layer}.weight"].T + p[f"head.mlp.{layer}.bias"])
    x = x @ p["head.mlp.4.weight"].T + p["head.mlp.4.bias"]
    x = x / x.norm(dim=1, keepdim=True)
    v = p["head.last_layer.weight_v"]
    return x @ (p["head.last_layer.weight_g"] * v / v.norm(dim=1, keepdim=True)).T


def _cosine(base: float, final: float, step: int, steps: int) -> float:
    return final + 0.5 * (base - final) * (1 + math.cos(math.pi * step / steps))


def test_six_steps_are_those_of_the_published_method() -> None:
    torch.set_num_threads(1)
    recipe = small_recipe(
        "dino",
        dino={
            "freeze_last_layer_epochs": 1,
            "teacher_temperature": 0.07,
            "warmup_teacher_temperature_epochs": 2,
            "teacher_momentum": 0.9,
        },
        optimizer={
            "learning_rate": BASE * 256 / 6,
            "min_learning_rate": LEAST,
            "warmup_epochs": WARMUP / EPOCH,
            "clip": CLIP,
        },
    )
    assert recipe.views.local_views.size == LOCAL_SIZE
    method = small_method(recipe, steps_per_epoch=EPOCH, total_steps=STEPS)
    optimizer = build_optimizer(method.trained, recipe.optimizer)
    rates = learning_rates(recipe.optimizer, samples_per_step=6, steps_per_epoch=EPOCH, total_steps=STEPS)
    decays = weight_decays(recipe.optimizer, STEPS)

    student = {name: value.detach().double() for name, value in method.student.named_parameters()}
    start = dict(student)
    teacher = dict(student)
    moments: dict[str, tuple[int, torch.Tensor, torch.Tensor]] = {}
    centre = torch.zeros(48, dtype=torch.float64)
    clipped = 0

    for step in range(STEPS):
        views, progress = random_views(recipe, step=step), Progress(step, EPOCH, STEPS)

        # the library
        optimizer.zero_grad()
        set_schedules(optimizer, rates[step], decays[step])
        loss = method(views, progress)["loss"]
        loss.backward()
        clip_gradients(method.trained.parameters(), recipe.optimizer.clip, recipe.optimizer.clip_by)
        method.after_backward(progress)
        optimizer.step()
        method.after_step(progress)

        # the same, written out
        rate = BASE * step / (WARMUP - 1) if step < WARMUP else _cosine(BASE, LEAST, step - WARMUP, STEPS - WARMUP)
        decay, momentum = _cosine(0.04, 0.4, step, STEPS), _cosine(0.9, 1.0, step, STEPS)
        temperature = (0.04, 0.07)[step // EPOCH]
        leaves = {name: value.clone().requires_grad_("weight_g" not in name) for name, value in student.items()}
        raw = [_scores(teacher, planes) for planes in views.pixels[:2]]
        expected, pairs = torch.zeros((), dtype=torch.float64), 0
        for one in range(2):
            q = torch.softmax((raw[one] - centre) / temperature, -1)
            for other, planes in enumerate(views.pixels):
                if one != other:
                    p = torch.softmax(_scores(leaves, planes) / 0.1, -1)
                    expected = expected - (q * p.log()).sum(-1).mean()
                    pairs += 1
        expected = expected / pairs
        centre = 0.9 * centre + 0.1 * torch.cat(raw).mean(0)
        learning = [name for name, value in leaves.items() if value.requires_grad]
        gradients = torch.autograd.grad(expected, [leaves[name] for name in learning])
        for name, gradient in zip(learning, gradients, strict=True):
            factor = CLIP / (gradient.norm() + 1e-6)
            clipped += bool(factor < 1)
            gradient = gradient * min(factor, 1)
            if "last_layer" in name and step < EPOCH:
                continue
            count, first, second = moments.get(name, (0, torch.zeros_like(gradient), torch.zeros_like(gradient)))
            first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
            count += 1
            moments[name] = (count, first, second)
            value = student[name] * (1 - rate * (decay if gradient.ndim > 1 else 0))
            upward = first / (1 - 0.9**count)
            student[name] = value - rate * upward / (torch.sqrt(second / (1 - 0.999**count)) + 1e-8)
        teacher = {name: momentum * value + (1 - momentum) * student[name] for name, value in teacher.items()}

        assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
        torch.testing.assert_close(method.centre.double(), centre, rtol=1e-5, atol=1e-7)

    for network, wanted in ((method.student, student), (method.teacher, teacher)):
        for name, value in network.named_parameters():
            torch.testing.assert_close(value.detach().double(), wanted[name], rtol=0, atol=2e-5, msg=name)
    moved = {name: (value - start[name]).abs().max().item() for name, value in student.items()}
    assert min(moved.values()) == moved["head.last_layer.weight_g"] == 0
    assert sum(change > 1e-3 for change in moved.values()) > 20  # much more than the tolerance
    assert clipped > 0
