"""Models out: a folder that holds weights, what they are and a model card; and loading one in a line.

::

    model.safetensors      the network that features are taken from: DINO's teacher, the encoder of MAE and SimCLR
    student.safetensors    DINO's student, where it was saved too
    config.json            chammi75.schemas.model_card.ModelConfig
    README.md              the model card

Nothing of a file is ever executed: weights are safetensors, or PyTorch files that are read with ``weights_only``.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from pydantic import ValidationError

from chammi75.errors import ChammiError, ReadError, StoreError
from chammi75.schemas.model_card import MODEL_FORMAT_VERSION, InputSettings, ModelConfig, WeightsFile
from chammi75.schemas.training import BackboneSettings
from chammi75.training.backbones import Backbone, build_backbone
from chammi75.training.embedder import EmbeddingModel, state_sha256
from chammi75.training.golden import check_golden, make_golden
from chammi75.version import __version__

if TYPE_CHECKING:
    from chammi75.training.foreign import ForeignWeights

Which = Literal["teacher", "student"]

CONFIG, CARD = "config.json", "README.md"
_FILES: dict[str, str] = {"model": "model.safetensors", "student": "student.safetensors"}
_CHECKPOINTS = (".pth", ".pt", ".ckpt", ".bin", ".safetensors")
_SHOWN = 5


def save_model(
    folder: str | os.PathLike[str],
    backbone: Backbone,
    config: ModelConfig,
    *,
    student: Backbone | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a model's folder: weights, config with golden vectors, and model card, all of it or nothing.

    Parameters
    ----------
    folder : str or path
        New, or empty.
    backbone : Backbone
        The network that features are taken from; not wrapped.
    config : ModelConfig
        ``chammi75.training.model_card.model_config`` makes one from a recipe. ``weights`` is filled in here.
    student : Backbone, optional
        DINO's student, kept beside it.
    overwrite : bool
        Replace a model that lies there.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    StoreError
        If there is something in the folder already, or the weights cannot be written.
    ChammiError
        If config and backbone are not of one another, or weights are no finite numbers.
    """
    from chammi75.training.model_card import model_card

    target = Path(folder)
    _check_target(target, overwrite)
    target.parent.mkdir(parents=True, exist_ok=True)
    work = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
    work.mkdir()
    try:
        weights = {
            key: _write_weights(work / _FILES[key], network, config)
            for key, network in (("model", backbone), ("student", student))
            if network is not None
        }
        whole = config.model_copy(update={"weights": weights})
        _write(work / CONFIG, whole.model_dump_json(indent=2, exclude_none=True) + "\n")
        _write(work / CARD, model_card(whole))
        _put_in_place(work, target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target


def _check_target(target: Path, overwrite: bool) -> None:
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not overwrite:
        raise StoreError(f"{target}: there is something already; name a new folder, or say overwrite=True")
    if not (target / CONFIG).is_file():
        raise StoreError(f"{target}: is no model's folder, so it is not replaced; name a new one")


def _write_weights(file: Path, network: Backbone, config: ModelConfig) -> WeightsFile:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    state = {name: value.detach().cpu().contiguous().clone() for name, value in network.state_dict().items()}
    broken = [name for name, value in state.items() if not bool(value.isfinite().all())]
    if broken:
        raise ChammiError(f"{file.name}: weights are no finite numbers ({_listed(broken)}); this model is not saved")
    model = EmbeddingModel(_built(config, state, str(file.name)), config, "")
    try:
        save_file(state, file, metadata={"format": "pt"})
    except (SafetensorError, OSError) as error:
        raise StoreError(f"{file.name} cannot be written to {file.parent.parent} ({error}): make room there") from error
    with open(file, "rb+") as written:
        os.fsync(written.fileno())
    return WeightsFile(file=file.name, bytes=file.stat().st_size, sha256=_sha256(file), golden=make_golden(model))


def _built(config: ModelConfig, state: Mapping[str, torch.Tensor], name: str) -> Backbone:
    """The backbone that a config describes, with these weights; no random number is drawn."""
    try:
        settings = BackboneSettings(
            name=config.architecture, patch_size=config.patch_size, image_size=config.image_size, drop_path=0.0
        )
    except ValidationError as error:
        raise ReadError(name, f"config.json describes no backbone of this library: {_first(error)}") from error
    with torch.device("meta"):
        backbone = build_backbone(
            settings,
            config.strategy,
            channels=config.channels,
            masked=config.masked,
            reference_positions=config.reference_positions,
            other=False,
        )
    expected = {key: tuple(value.shape) for key, value in backbone.state_dict().items()}
    complaints = []
    if missing := [key for key in expected if key not in state]:
        complaints.append(f"{len(missing)} parameters are missing ({_listed(missing)})")
    if surplus := [key for key in state if key not in expected]:
        complaints.append(f"{len(surplus)} are too many ({_listed(surplus)})")
    if shapes := [
        f"{key} {tuple(state[key].shape)} instead of {shape}"
        for key, shape in expected.items()
        if key in state and tuple(state[key].shape) != shape
    ]:
        complaints.append(f"{len(shapes)} have another shape ({_listed(shapes)})")
    if backbone.width != config.width:
        complaints.append(f"width is {config.width}, and {config.architecture} has {backbone.width}")
    if complaints:
        raise ReadError(
            name,
            f"is not of the architecture that config.json states, {config.architecture} with patches of"
            f" {config.patch_size} at {config.image_size} ({config.strategy}): {'; '.join(complaints)}",
        )
    backbone.load_state_dict({key: value.float() for key, value in state.items()}, assign=True)
    backbone.requires_grad_(True)
    return backbone


def load_model(
    reference: str | os.PathLike[str],
    *,
    which: Which | None = None,
    device: str | torch.device | None = None,
    channels: Sequence[str] | None = None,
    revision: str | None = None,
    check: bool = True,
) -> EmbeddingModel:
    """Load a model, ready to embed.

    Parameters
    ----------
    reference : str or path
        A folder that `save_model` wrote; a checkpoint of the reference repository, or weights of that kind (``.pth``,
        ``.safetensors``); ``owner/name`` on the Hugging Face hub, with a folder of ours or the reference's weights
        (``CaicedoLab/MorphEm``); or a model of timm, as ``timm:vit_small_patch16_224.dino`` or by its bare name.
    which : {"teacher", "student"}, optional
        Of DINO's two networks. By default what features are meant to be taken from: the teacher of a model of ours, the
        student of a reference checkpoint, as its benchmarks do.
    device : str or torch.device, optional
        The CPU by default.
    channels : sequence of str, optional
        Names of the channel types of a reference ChannelViT, which its file does not have.
    revision : str, optional
        Of a repository on the hub.
    check : bool
        Whether a model of ours must give its golden vectors again, within 1e-3 of their size.

    Returns
    -------
    EmbeddingModel
        In evaluation mode.

    Raises
    ------
    ReadError
        If files are missing, damaged, of a newer format or of another architecture; it says what differs.
    FetchError
        If the hub does not give it; it says what else can be used.
    ChammiError
        If it is none of these.

    Examples
    --------
    >>> model = load_model("CaicedoLab/MorphEm", device="cuda")  # doctest: +SKIP
    """
    if which not in (None, "teacher", "student"):
        raise ChammiError(f"which is 'teacher' or 'student', not {which!r}")
    model = _loaded(reference, which, channels, revision, check)
    model.to(_device(device))
    return model


def _loaded(
    reference: str | os.PathLike[str],
    which: Which | None,
    channels: Sequence[str] | None,
    revision: str | None,
    check: bool,
) -> EmbeddingModel:
    from chammi75.training.hub import fetch_model, is_hub_id
    from chammi75.training.timm_models import is_timm_name, timm_model

    text = os.fspath(reference)
    path = Path(text).expanduser()
    if not text:
        raise ChammiError("no model is named: give a folder, a checkpoint, owner/name on the hub, or timm:NAME")
    if path.exists():
        return _of_path(path, which, channels, check)
    if text.startswith("timm:"):
        return timm_model(text.removeprefix("timm:"))
    if path.suffix not in _CHECKPOINTS:
        if is_hub_id(text):
            return _of_path(fetch_model(text, revision), which, channels, check, named=text)
        if "/" not in text and is_timm_name(text):
            return timm_model(text)
    raise ChammiError(
        f"{text}: there is no such file or folder, and it is no id of the hub (owner/name) and no model of timm; give a"
        " model's folder, a checkpoint, CaicedoLab/MorphEm, or timm:vit_small_patch16_224.dino"
    )


def _of_path(
    path: Path, which: Which | None, channels: Sequence[str] | None, check: bool, named: str | None = None
) -> EmbeddingModel:
    if (path / "model" / CONFIG).is_file() and (path / "recipe.yaml").is_file():
        path /= "model"  # the folder of a run was given, and its model is meant
    if path.is_dir() and _is_ours(path):
        return _of_folder(path, which, check)
    from chammi75.training.foreign import read_foreign

    weights = read_foreign(path, which=which, channels=channels)
    return _of_foreign(weights, named or path.name)


def _is_ours(folder: Path) -> bool:
    file = folder / CONFIG
    if not file.is_file():
        return (folder / _FILES["model"]).is_file() and (folder / CARD).is_file() and _lacks_config(folder)
    return not {"format_version", "golden", "weights"}.isdisjoint(_read_config(file))


def _lacks_config(folder: Path) -> bool:
    if "chammi75" in (folder / CARD).read_text("utf-8", errors="replace"):
        raise ReadError(str(folder), f"{CONFIG} is missing, without which the weights mean nothing; copy it again")
    return False


def _read_config(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ReadError(str(file), f"is no JSON ({error}); copy the folder again") from error
    if not isinstance(content, dict):
        raise ReadError(str(file), "is no config of a model: an object is meant")
    return content


def _of_folder(folder: Path, which: Which | None, check: bool) -> EmbeddingModel:
    content = _read_config(folder / CONFIG)
    version = content.get("format_version")
    if str(version).isdecimal() and int(str(version)) > MODEL_FORMAT_VERSION:  # whatever the newer one writes it as
        raise ReadError(
            str(folder),
            f"is of format {version}, and chammi75 {__version__} reads up to {MODEL_FORMAT_VERSION}: pip install -U"
            " chammi75",
        )
    try:
        config = ModelConfig.model_validate(content)
    except ValidationError as error:
        raise ReadError(str(folder / CONFIG), f"is no config of a model: {_first(error)}") from error
    key: Literal["model", "student"] = "student" if which == "student" else "model"
    entry = config.weights.get(key)
    if entry is None:
        have = "a student" if "student" in config.weights else "one network"
        raise ReadError(str(folder), f"holds no {which or 'weights'}, only {have}; leave which out")
    file = folder / entry.file
    state = _read_weights(file, entry)
    model = EmbeddingModel(_built(config, state, str(file)), config, entry.sha256)
    model.eval()
    if check:
        check_golden(model, entry.golden, str(file))
    return model


def _read_weights(file: Path, entry: WeightsFile) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not file.is_file():
        raise ReadError(str(file), "is missing; copy the model's folder again")
    size = file.stat().st_size
    if size != entry.bytes:
        cut = "is cut off" if size < entry.bytes else "is another file"
        raise ReadError(str(file), f"{cut}: it has {size} bytes, and config.json states {entry.bytes}; copy it again")
    if _sha256(file) != entry.sha256:
        raise ReadError(str(file), "is damaged or another file: its SHA-256 is not that of config.json; copy it again")
    try:
        return dict(load_file(file))
    except (SafetensorError, OSError, ValueError) as error:
        raise ReadError(str(file), f"is no whole safetensors file ({error}); copy it again") from error


def _of_foreign(weights: ForeignWeights, name: str) -> EmbeddingModel:
    settings = weights.settings
    backbone = weights.backbone(masked=False)
    config = ModelConfig(
        library_version=__version__,
        title=name,
        origin="reference",
        architecture=settings.name,
        width=backbone.width,
        patch_size=settings.patch_size,
        image_size=settings.image_size,
        strategy=weights.kind,
        channels=list(weights.channels),
        masked=False,
        # trained on uint8, and benchmarked by its authors on floats of several ranges: each plane is normalised
        input=InputSettings(dtypes=["uint8", "uint16", "float32"]),
        method="dino",
    )
    model = EmbeddingModel(backbone, config, state_sha256(weights.state))
    model.eval()
    return model


def _device(device: str | torch.device | None) -> torch.device:
    try:
        chosen = torch.device("cpu" if device is None else device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        first = str(error).splitlines()[0]
        raise ChammiError(f"device {device}: it is not there ({first}); device='cpu' is") from error
    return chosen


def _put_in_place(work: Path, target: Path) -> None:
    old = None
    if target.exists():
        if any(target.iterdir()):
            old = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.old")
            os.replace(target, old)
        else:
            target.rmdir()
    os.replace(work, target)
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)


def _write(file: Path, text: str) -> None:
    with open(file, "w", encoding="utf-8", newline="\n") as opened:
        opened.write(text)
        opened.flush()
        os.fsync(opened.fileno())


def _sha256(file: Path) -> str:
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _first(error: ValidationError) -> str:
    found = error.errors()[0]
    return f"{'.'.join(map(str, found['loc']))}: {found['msg']}"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
