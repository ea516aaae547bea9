"""Weights from elsewhere: the reference's DINO checkpoints, and CaicedoLab/MorphEm as it lies on the Hugging Face hub.

A checkpoint holds ``student`` and ``teacher``, and their parameters the prefixes of what they were wrapped in; the hub
has the bare parameters, as safetensors, and a ``config.json`` beside them. What architecture it is follows from names
and shapes. Every name must be there and none too many: the reference loads what fits and says nothing of the rest.
Nothing of a file is ever executed: ``weights_only``, and of classes that are no tensors only `argparse.Namespace`, in
which the reference keeps its settings.
"""

from __future__ import annotations

import argparse
import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from typing import Any, Literal

import torch

from chammi75.errors import ChammiError, ReadError
from chammi75.schemas.training import BACKBONES, BackboneSettings
from chammi75.training.backbones import Backbone, build_backbone
from chammi75.training.checkpoints import is_checkpoint

Network = Literal["student", "teacher"]

_NETWORKS: tuple[Network, ...] = ("student", "teacher")
_CONTAINERS = ("state_dict", "model")
_WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
_PREFIXES = ("module.", "backbone.", "model.")
_HEADS = ("head.", "module.head.")
_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")
_SHOWN = 6


@dataclass(frozen=True)
class ForeignWeights:
    """Weights of a vision transformer, as `chammi75.training.backbones` names them.

    Attributes
    ----------
    kind : {"boc", "mca"}
        Channel strategy: each plane alone, or ChannelViT.
    settings : BackboneSettings
        Name, patch size and input size, inferred; the rest as by default.
    state : dict of str to Tensor
        Float32, on the CPU, in memory of their own.
    channels : tuple of str
        mca: names of the channel types in order, "0", "1" … where no file says them; boc: none.
    which : {"student", "teacher"} or None
        The network that they are of; None where the file has one only.
    """

    kind: Literal["boc", "mca"]
    settings: BackboneSettings
    state: dict[str, torch.Tensor]
    channels: tuple[str, ...]
    which: Network | None

    def backbone(self, *, masked: bool = True, reference_positions: bool = True) -> Backbone:
        """A backbone with these weights, in evaluation mode; the parameters are `build_backbone`'s."""
        backbone = build_backbone(
            self.settings,
            self.kind,
            channels=self.channels,
            masked=masked,
            reference_positions=reference_positions,
            other=False,
        )
        backbone.load_state_dict(self.state)
        backbone.eval()
        return backbone


def read_foreign(
    path: str | Path, *, which: Network | None = None, channels: Sequence[str] | None = None
) -> ForeignWeights:
    """Read the reference's weights from a file of PyTorch or safetensors, or from a folder with one.

    Parameters
    ----------
    path : str or Path
        A checkpoint (``student`` and ``teacher``), or the parameters of one network. A folder: its
        ``model.safetensors`` or else its only file of weights; ``config.json`` in it is held against the shapes.
    which : {"student", "teacher"}, optional
        None: the student where there are both, as in the reference's benchmarks.
    channels : sequence of str, optional
        mca: names of the channel types. None: of ``channel_map.json`` beside the file, which the reference writes
        (name to number), or else numbers.

    Returns
    -------
    ForeignWeights

    Raises
    ------
    ReadError
        If the file is missing or damaged, holds anything but tensors and plain values, has not the network that is
        asked for, or is of another architecture; it says what differs.
    """
    file = _file_in(Path(path))
    if is_checkpoint(file) and (file.parent.parent / "recipe.yaml").is_file():
        run = file.parent.parent
        raise ReadError(str(file), f"is a checkpoint, which a run goes on from; its model is in {run / 'model'}")
    content = _read_safetensors(file) if file.suffix == ".safetensors" else _read_torch(file)
    state, network = _chosen(file, content, which)
    state = _bare(file, state)
    kind, settings, count = _architecture(file, state)
    _check_config(file, settings)
    names: tuple[str, ...] = ()
    if kind == "mca":
        names = tuple(channels) if channels is not None else _mapped(file) or tuple(str(n) for n in range(count))
        if len(names) != count:
            raise ReadError(str(file), f"has tokens of {count} channel types, and {len(names)} names are given")
    _check_parameters(file, state, kind, settings, names)
    owned = {name: tensor.detach().to(torch.float32, copy=True).contiguous() for name, tensor in state.items()}
    broken = [name for name, tensor in owned.items() if not tensor.isfinite().all()]
    if broken:
        raise ReadError(str(file), f"holds values that are no finite numbers: {_listed(broken)}; fetch it anew")
    return ForeignWeights(kind, settings, owned, names, network)


def _file_in(path: Path) -> Path:
    """The file of weights that ``path`` is or holds."""
    if path.is_file():
        return path
    if not path.is_dir():
        raise ReadError(str(path), "there is no such file or folder")
    if (path / "model.safetensors").is_file():
        return path / "model.safetensors"
    found = sorted(file for file in path.iterdir() if file.suffix in _SUFFIXES and file.is_file())
    if len(found) != 1:
        many = f"there are {len(found)} ({_listed([file.name for file in found])})" if found else "there is none"
        raise ReadError(
            str(path), f"a folder with one file of weights ({', '.join(_SUFFIXES)}) is meant, and {many}; name the file"
        )
    return found[0]


def _read_safetensors(file: Path) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(file))
    except (SafetensorError, OSError, ValueError) as error:
        raise ReadError(str(file), f"is no whole safetensors file ({error}); fetch it anew") from error


def _read_torch(file: Path) -> Mapping[str, Any]:
    mapped = zipfile.is_zipfile(
        file
    )  # a checkpoint is mostly heads and optimiser states: pages never read cost nothing
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # a damaged pickle fails in any way there is, and all mean the same
        raise ReadError(str(file), _refusal(error)) from error
    if not isinstance(content, Mapping):
        raise ReadError(
            str(file), f"holds a {type(content).__name__}; a checkpoint or a network's state_dict is meant, a dict"
        )
    return content


def _refusal(error: Exception) -> str:
    """Why PyTorch refused a file, in one clause."""
    unsafe = re.search(r"Unsupported global: GLOBAL (\S+)", str(error)) or re.search(
        r"Unsupported class (\S+)", str(error)
    )
    if unsafe:
        return (
            f"holds an object of {unsafe[1]}, which to read would mean to run its code, so it is refused; if you trust "
            "it, load it where it was made and save its 'student' and 'teacher' alone with torch.save or safetensors"
        )
    first = (str(error).strip() or type(error).__name__).splitlines()[0].partition(". ")[0]  # then comes its advice
    return f"is no whole file of PyTorch, or holds more than tensors and plain values ({first})"


def _chosen(file: Path, content: Mapping[str, Any], which: Network | None) -> tuple[dict[str, Any], Network | None]:
    """Parameters of the network that is asked for, and which it is."""
    if which is not None and which not in _NETWORKS:
        raise ChammiError(f"which: there is no {which!r}; there are {' and '.join(_NETWORKS)}")
    networks: dict[Network, dict[str, Any]] = {}
    for name in _NETWORKS:
        if isinstance(content.get(name), Mapping):
            networks[name] = dict(content[name])
        else:  # both in one table, by prefix
            inner = {key[len(name) + 1 :]: value for key, value in content.items() if str(key).startswith(f"{name}.")}
            if inner:
                networks[name] = inner
    if networks:
        network: Network = which or ("student" if "student" in networks else "teacher")
        if network not in networks:
            raise ReadError(str(file), f"has no {network}, only a {next(iter(networks))}; ask for that")
        return networks[network], network
    if which is not None:
        raise ReadError(str(file), f"holds one network and does not say which; leave out which={which!r} to take it")
    for container in _CONTAINERS:
        if isinstance(content.get(container), Mapping):
            return dict(content[container]), None
    return dict(content), None


def _bare(file: Path, state: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """``state`` without prefixes of wrappers, and without heads."""
    origins: dict[str, str] = {}
    bare: dict[str, torch.Tensor] = {}
    for key, value in state.items():
        name = str(key)
        for wrapper in _WRAPPERS:
            name = name.replace(wrapper, "")
        while not name.startswith(_HEADS) and (prefix := next((p for p in _PREFIXES if name.startswith(p)), None)):
            name = name[len(prefix) :]
        if name.startswith(_HEADS):
            continue
        if not isinstance(value, torch.Tensor):
            raise ReadError(
                str(file),
                f"{key!r} is a {type(value).__name__}, and a network's parameters are tensors; a checkpoint with "
                "'student' and 'teacher', or a state_dict, is meant",
            )
        if name in bare:
            raise ReadError(str(file), f"{origins[name]!r} and {key!r} are both {name!r}: two networks in one table")
        origins[name], bare[name] = str(key), value
    return bare


def _architecture(file: Path, state: Mapping[str, torch.Tensor]) -> tuple[Literal["boc", "mca"], BackboneSettings, int]:
    """Strategy, settings and number of channel types, from names and shapes."""
    needed = {"cls_token": 3, "pos_embed": 3, "patch_embed.proj.weight": None}
    lacking = [name for name in needed if name not in state]
    if lacking:
        raise ReadError(
            str(file),
            f"is no vision transformer of the reference's: it lacks {_listed(lacking)}, and has {_listed(list(state))}",
        )
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    for name, axes in needed.items():
        if axes is not None and len(shapes[name]) != axes:
            raise ReadError(str(file), f"{name} is of shape {shapes[name]}; one with {axes} axes is meant")
    kernel = shapes["patch_embed.proj.weight"]
    if len(kernel) not in {4, 5} or kernel[-1] != kernel[-2] or kernel[-1] < 1:
        raise ReadError(
            str(file),
            f"patch_embed.proj.weight is of shape {kernel}; (width, 1, p, p) for boc or (width, 1, 1, p, p) for mca "
            "is meant",
        )
    if kernel[1] != 1 or (len(kernel) == 5 and kernel[2] != 1):
        raise ReadError(
            str(file),
            f"its patches take {kernel[1]} channels at once (patch_embed.proj.weight of shape {kernel}); here each "
            "channel makes its own patches",
        )
    kind: Literal["boc", "mca"] = "boc" if len(kernel) == 4 else "mca"
    width, patch = shapes["cls_token"][-1], kernel[-1]
    depth = 1 + max((int(found[1]) for name in state if (found := re.match(r"blocks\.(\d+)\.", name))), default=-1)
    known = {(table[0], table[1]): name for name, table in BACKBONES.items()}
    if (width, depth) not in known:
        sizes = ", ".join(f"{name} ({wide} and {deep})" for (wide, deep), name in known.items())
        raise ReadError(str(file), f"is {width} wide and {depth} blocks deep, and no backbone here is: {sizes}")
    patches = shapes["pos_embed"][1] - 1
    edge = isqrt(max(patches, 0))
    if edge < 1 or edge * edge != patches:
        raise ReadError(str(file), f"pos_embed is of shape {shapes['pos_embed']}: no CLS token and a square of patches")
    count = 0
    if kind == "mca":
        tokens = shapes.get("patch_embed.channel_tokens", ())
        if len(tokens) != 5:
            raise ReadError(
                str(file),
                f"patch_embed.channel_tokens is {f'of shape {tokens}' if tokens else 'missing'}; "
                f"(1, {width}, channel types, 1, 1) is meant",
            )
        count = tokens[2]
    settings = BackboneSettings(name=known[width, depth], patch_size=patch, image_size=edge * patch)
    return kind, settings, count


def _check_config(file: Path, settings: BackboneSettings) -> None:
    """Hold a ``config.json`` beside the file, as on the hub, against what its shapes say."""
    config = _read_json(file.with_name("config.json"))
    width, depth, heads = BACKBONES[settings.name]
    expected = {
        "img_size": settings.image_size,
        "patch_size": settings.patch_size,
        "embed_dim": width,
        "depth": depth,
        "num_heads": heads,
        "mlp_ratio": 4,
        "qkv_bias": True,
    }
    wrong = [
        f"{key} {config[key]} instead of {value}" for key, value in expected.items() if config.get(key, value) != value
    ]
    if wrong:
        raise ReadError(str(file), f"config.json beside it is of another architecture: {', '.join(wrong)}")


def _mapped(file: Path) -> tuple[str, ...]:
    """Names of the channel types in ``channel_map.json`` beside the file, by number; none where there is no such."""
    place = file.with_name("channel_map.json")
    numbers = _read_json(place)
    if sorted(map(str, numbers.values())) != sorted(map(str, range(len(numbers)))):
        raise ReadError(str(place), f"its numbers are not 0 to {len(numbers) - 1}, each once")
    return tuple(sorted(numbers, key=lambda name: int(numbers[name])))


def _read_json(place: Path) -> dict[str, Any]:
    """The object in a file; empty where there is no file."""
    if not place.is_file():
        return {}
    try:
        content = json.loads(place.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ReadError(str(place), f"is no JSON ({error})") from error
    if not isinstance(content, dict):
        raise ReadError(str(place), f"holds a {type(content).__name__}; an object is meant")
    return content


def _check_parameters(
    file: Path,
    state: Mapping[str, torch.Tensor],
    kind: Literal["boc", "mca"],
    settings: BackboneSettings,
    names: tuple[str, ...],
) -> None:
    """Names and shapes must be those of the backbone, no more and no fewer."""
    with torch.device("meta"):
        backbone = build_backbone(settings, kind, channels=names, other=False)
    expected = {name: tuple(tensor.shape) for name, tensor in backbone.state_dict().items()}
    complaints = []
    if missing := [name for name in expected if name not in state]:
        complaints.append(f"{len(missing)} missing: {_listed(missing)}")
    if surplus := [name for name in state if name not in expected]:
        complaints.append(f"{len(surplus)} too many: {_listed(surplus)}")
    shapes = [
        f"{name} {tuple(state[name].shape)} instead of {shape}"
        for name, shape in expected.items()
        if name in state and tuple(state[name].shape) != shape
    ]
    if shapes:
        complaints.append(f"{len(shapes)} of another shape: {_listed(shapes)}")
    types = [
        f"{name} {state[name].dtype}" for name in expected if name in state and not state[name].is_floating_point()
    ]
    if types:
        complaints.append(f"{len(types)} not of floats: {_listed(types)}")
    if complaints:
        raise ReadError(
            str(file),
            f"its parameters are not those of {settings.name} with patches of {settings.patch_size} ({kind}): "
            + "; ".join(complaints),
        )


def _listed(names: Sequence[str]) -> str:
    """The first few of the names."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
