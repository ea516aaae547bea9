"""The training recipe: what a model is trained on, how, and where it goes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from chammi75.schemas.base import Model as AnyModel

Share = Annotated[float, Field(ge=0, le=1)]
Scale = Annotated[tuple[float, float], Field(description="Least and greatest share of the area.")]
Mixing = Literal["none", "log", "sqrt"]
Edge = Annotated[int, Field(ge=1)]

BACKBONES: dict[str, tuple[int, int, int]] = {
    "tiny": (64, 4, 2),
    "vit_tiny": (192, 12, 3),
    "vit_small": (384, 12, 6),
    "vit_base": (768, 12, 12),
    "vit_large": (1024, 24, 16),
}
"""Name -> width, depth and heads. ``tiny`` is for laptops and tests; the others are as published (ViT, DeiT)."""


class Model(AnyModel):
    """Base of a recipe's parts: numbers are finite."""

    model_config = ConfigDict(allow_inf_nan=False)


class DataSettings(Model):
    """Which samples are drawn, and what is cut out of them."""

    selection: dict[str, Any] = Field({}, description="Filters by the names that load_dataset has; subset: a recipe.")
    channels: list[str] | None = Field(
        None, description="Channel types that are trained on; one that no image has is an error. None: all."
    )
    split: str | None = Field("train", description="Split of the store; null: all.")
    crop: Literal["study", "cell", "whole plane"] | Edge | dict[str, list[Edge | Literal["whole plane"]]] = Field(
        "study", description="Size of the guided crop: of the study, of the cell, an edge in pixels, or a table."
    )
    crop_other: Edge | Literal["whole plane"] = Field(
        "whole plane", description="Size where the table of studies does not have the study."
    )
    crop_jitter: float = Field(0.1, ge=0, lt=1, description="Height and width vary by this share.")
    shuffle: str = Field("global", pattern=r"^(global|none|window:[1-9]\d*)$", description="As in TrainingStream.")
    weighting: Mixing | dict[str, float] = Field("none", description="How the groups' shares grow with their sizes.")
    weight_by: Literal["study", "channel_type"] = "study"
    samples_per_epoch: int | None = Field(None, ge=1, description="Null: all.")
    on_error: Literal["raise", "skip"] = Field("skip", description="skip: another sample stands in, and is counted.")
    workers: int = Field(8, ge=0, description="Worker processes of each rank.")
    cache_dir: str | None = Field(None, description="Where shards of a remote store are kept with shuffle: window:N.")
    cache_limit: str = Field("50GB", description="Greatest size of that.")

    @field_validator("channels")
    @classmethod
    def _are_each_once(cls, channels: list[str] | None) -> list[str] | None:
        twice = sorted({name for name in channels or () if (channels or []).count(name) > 1})
        if twice or channels == []:
            raise ValueError(f"{', '.join(twice)} stands there twice" if twice else "names none; null is all of them")
        return channels


class BackboneSettings(Model):
    """The vision transformer."""

    name: str = Field("vit_small", description=f"One of {', '.join(BACKBONES)}.")
    patch_size: int = Field(16, ge=1, description="Edge of a patch in pixels.")
    image_size: int = Field(224, ge=1, description="Edge that the table of positions is for; others are interpolated.")
    drop_path: float = Field(0.1, ge=0, lt=1, description="Stochastic depth; grows linearly to this with the depth.")
    activation_checkpointing: bool = Field(False, description="Compute activations twice to keep fewer.")

    @model_validator(mode="after")
    def _is_known(self) -> BackboneSettings:
        if self.name not in BACKBONES:
            raise ValueError(f"name: no backbone {self.name!r}; there are {', '.join(BACKBONES)}")
        if self.image_size % self.patch_size:
            raise ValueError(f"image_size: {self.image_size} is no multiple of the patch size, {self.patch_size}")
        return self


class ChannelSettings(Model):
    """How channels go into one sequence (strategy mca; ChannelViT, Bao et al. 2024)."""

    sampling: bool = Field(True, description="Hierarchical channel sampling: a random number of channels, then which.")
    masked: bool = Field(
        True, description="Channels that an image lacks do not take part; false: as in the reference, they do."
    )


class CropViews(Model):
    """Some resized crops of each sample."""

    count: int = Field(ge=0)
    size: int = Field(ge=1, description="Edge in pixels.")
    scale: Scale
    ratio: tuple[float, float] = Field((3 / 4, 4 / 3), description="Least and greatest width over height.")

    @model_validator(mode="after")
    def _are_in_order(self) -> CropViews:
        for name in ("scale", "ratio"):
            least, greatest = getattr(self, name)
            if not 0 < least <= greatest or (name == "scale" and greatest > 1):
                raise ValueError(f"{name}: two numbers above 0, the smaller first (scale: 1 at most)")
        return self


class ViewSettings(Model):
    """Augmentation, on the device, of whole batches."""

    saturation_noise: tuple[float, float] | None = Field(
        (200 / 255, 1.0),
        description="Saturated pixels become uniform noise in these shares of saturation; null: they stay.",
    )
    normalise: Literal["plane", "none"] = Field("plane", description="plane: by each plane's own mean and deviation.")
    global_views: CropViews = CropViews(count=2, size=224, scale=(0.4, 1.0))
    local_views: CropViews = CropViews(count=8, size=96, scale=(0.05, 0.4))
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    horizontal_flip: Share = 0.5
    vertical_flip: Share = 0.5
    right_angle_turns: bool = Field(False, description="By 0, 90, 180 or 270 degrees: microscopy has no up.")
    blur: Share = Field(0.0, description="Chance of a Gaussian blur.")
    blur_sigma: tuple[float, float] = Field((0.1, 2.0), description="Least and greatest sigma in pixels of the view.")
    intensity: float = Field(
        0.0, ge=0, lt=1, description="Contrast and brightness of each plane vary by this share of its deviation."
    )

    @model_validator(mode="after")
    def _are_in_order(self) -> ViewSettings:
        if self.saturation_noise is not None and not 0 <= self.saturation_noise[0] <= self.saturation_noise[1] <= 1:
            raise ValueError("saturation_noise: two shares from 0 to 1, the smaller first")
        if not 0 < self.blur_sigma[0] <= self.blur_sigma[1]:
            raise ValueError("blur_sigma: two numbers above 0, the smaller first")
        return self


class DinoSettings(Model):
    """DINO, version 1 (Caron et al. 2021)."""

    out_dim: int = Field(65536, ge=2)
    hidden_dim: int = Field(2048, ge=1)
    bottleneck_dim: int = Field(256, ge=1)
    norm_last_layer: bool = Field(True, description="Keep the last layer's weights at length 1.")
    freeze_last_layer_epochs: int = Field(1, ge=0)
    student_temperature: float = Field(0.1, gt=0)
    teacher_temperature: float = Field(0.04, gt=0)
    warmup_teacher_temperature: float = Field(0.04, gt=0)
    warmup_teacher_temperature_epochs: int = Field(0, ge=0)
    centre_momentum: float = Field(0.9, ge=0, lt=1)
    teacher_momentum: float = Field(0.996, ge=0, le=1, description="Grows to 1 by a cosine.")


class MaeSettings(Model):
    """Masked autoencoders (He et al. 2022)."""

    mask_ratio: float = Field(0.75, gt=0, lt=1)
    decoder_width: int = Field(512, ge=1)
    decoder_depth: int = Field(8, ge=1)
    decoder_heads: int = Field(16, ge=1)
    norm_pixels: bool = Field(True, description="Targets are patches less their mean, over their deviation.")


class SimclrSettings(Model):
    """SimCLR (Chen et al. 2020)."""

    hidden_dim: int = Field(2048, ge=1)
    out_dim: int = Field(128, ge=1)
    temperature: float = Field(0.1, gt=0)


class OptimizerSettings(Model):
    """AdamW, with cosine schedules per step."""

    learning_rate: float = Field(5e-4, gt=0, description="For 256 samples a step; scaled by the batch over all ranks.")
    min_learning_rate: float = Field(1e-6, ge=0)
    warmup_epochs: float = Field(10, ge=0)
    weight_decay: float = Field(0.04, ge=0)
    weight_decay_end: float | None = Field(0.4, ge=0, description="Grows to this by a cosine; null: stays.")
    betas: tuple[float, float] = (0.9, 0.999)
    clip: float | None = Field(3.0, gt=0, description="Greatest norm of a gradient; null: none.")
    clip_by: Literal["parameter", "global"] = Field(
        "parameter", description="parameter: each tensor's own norm, as the DINO authors do; global: of all together."
    )
    layer_decay: float = Field(1.0, gt=0, le=1, description="Each layer below learns by this factor more slowly.")
    freeze: list[str] = Field([], description="Prefixes of parameters that do not learn (backbone.patch_embed).")


class DeviceSettings(Model):
    """Where it runs."""

    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    devices: int | Literal["auto"] = Field("auto", description="Of each node.")
    nodes: int = Field(1, ge=1)
    parallel: Literal["auto", "ddp", "fsdp"] = Field("auto", description="auto: ddp with more than one device.")
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    compile: bool = Field(False, description="torch.compile the networks.")
    threads: int | None = Field(None, ge=1, description="Threads of a process on a CPU; null: PyTorch's choice.")


class CheckpointSettings(Model):
    """What is kept of a run, and how often."""

    every_steps: int = Field(1000, ge=1)
    keep: int = Field(2, ge=1, description="The last so many.")
    models_every_epochs: int | None = Field(None, ge=1, description="A model for inference after so many epochs.")


class ProbeSettings(Model):
    """A k-nearest-neighbour probe of the features while the model trains."""

    every_epochs: int | None = Field(None, ge=1, description="Null: no probe.")
    label: str = Field("biology.cell_type", description="A field of the record.")
    selection: dict[str, Any] = Field({}, description="Filters: which images are probed.")
    images: int = Field(2000, ge=10, description="The most images that are embedded.")
    neighbours: int = Field(20, ge=1)


class LogSettings(Model):
    """What a run says of itself."""

    every_steps: int = Field(10, ge=1)
    csv: bool = True
    tensorboard: bool = False
    wandb: str | None = Field(None, description="Project of Weights & Biases; null: none.")
    stop_on_collapse: bool = True


class TrainingRecipe(Model):
    """How a model is trained: ``chammi75 train RECIPE.yaml [KEY=VALUE …]``."""

    title: str
    description: str | None = None
    store: str | list[str] = Field(description="Stores: names, paths or URLs, as for load_dataset.")
    out: str = Field(description="Folder of the run: checkpoints, logs and the model.")
    method: Literal["dino", "mae", "simclr"]
    strategy: Literal["boc", "mca"] = Field(
        "boc", description="boc: bag of channels, each plane alone; mca: multi-channel attention."
    )
    seed: int = Field(0, ge=0, lt=2**63)
    epochs: int = Field(100, ge=1)
    max_steps: int | None = Field(None, ge=1, description="Stop after so many steps; null: after the epochs.")
    batch_size: int = Field(256, ge=1, description="Samples of each rank and step.")
    accumulate: int = Field(1, ge=1, description="Batches whose gradients are added up for one step.")
    data: DataSettings = DataSettings()
    backbone: BackboneSettings = BackboneSettings()
    channels: ChannelSettings = ChannelSettings()
    views: ViewSettings = ViewSettings()
    dino: DinoSettings = DinoSettings()
    mae: MaeSettings = MaeSettings()
    simclr: SimclrSettings = SimclrSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    devices: DeviceSettings = DeviceSettings()
    checkpoints: CheckpointSettings = CheckpointSettings()
    probe: ProbeSettings = ProbeSettings()
    log: LogSettings = LogSettings()

    @model_validator(mode="after")
    def _fits_together(self) -> TrainingRecipe:
        views, patch = self.views, self.backbone.patch_size
        least = {"dino": 2, "simclr": 2, "mae": 1}[self.method]
        if views.global_views.count < least:
            raise ValueError(f"views.global_views.count: {self.method} needs {least} of them")
        if self.method == "simclr" and views.global_views.count != least:
            raise ValueError("views.global_views.count: simclr takes 2")
        if self.method != "dino" and views.local_views.count:
            raise ValueError(f"views.local_views.count: {self.method} takes none, 0")
        if self.method == "mae" and views.global_views.count != 1:
            raise ValueError("views.global_views.count: mae takes 1")
        for name in ("global_views", "local_views"):
            crops = getattr(views, name)
            if crops.count and crops.size % patch:
                raise ValueError(f"views.{name}.size: {crops.size} is no multiple of the patch size, {patch}")
        if self.method == "simclr" and self.batch_size < 2:
            raise ValueError("batch_size: simclr compares samples, 2 at least")
        return self
