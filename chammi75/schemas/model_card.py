"""``config.json`` of a model's folder: what the network is, what it was trained on, and what input fits it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from chammi75.schemas.base import Int32, Model
from chammi75.schemas.manifest import Sha256

MODEL_FORMAT_VERSION = 1
"""Version of a model's folder: raised when an older library would misread it."""

PixelType = Literal["uint8", "uint16", "float32"]
Range = Annotated[tuple[float, float], Field(description="Least and greatest value.")]


class GoldenVector(Model):
    """What the model made of one fixed input on the machine that saved it.

    The input is uint8 pixels made from the seed by a counter-based hash (splitmix64), so that it need not be stored;
    it is normalised, resized to ``size`` and embedded.
    """

    seed: int = Field(0, ge=0, description="Seed of the pixels.")
    channels: Int32 = Field(ge=1, description="Planes of the input; in mca the first so many of the channel table.")
    pixels: tuple[Int32, Int32] = Field(description="Height and width of the input.")
    size: tuple[Int32, Int32] = Field(description="Height and width that the network sees.")
    features: list[float] = Field(min_length=1, description="What it gave, as float32.")


class WeightsFile(Model):
    """One file of weights, and how to tell that it is whole and read aright."""

    file: str = Field(pattern=r"^[A-Za-z0-9_.-]+\.safetensors$", description="Name in the folder.")
    bytes: int = Field(ge=1)
    sha256: Sha256
    golden: list[GoldenVector] = Field([], description="Checked whenever the model is loaded.")


class LicenseCount(Model):
    """Images of one licence."""

    license: str | None = Field(None, description="SPDX expression; null where the records state none.")
    images: int = Field(ge=1)


class StoreSeen(Model):
    """One store that the model was trained on."""

    name: str = Field(description="Last part of its path or URL.")
    content_sha256: str = Field(description="Hash of its content.")
    images: int = Field(ge=0, description="Images of it that were trained on.")


class TrainingData(Model):
    """What the model saw."""

    stores: list[StoreSeen] = Field([], description="Where it came from.")
    images: int = Field(0, ge=0)
    planes: int = Field(0, ge=0)
    channel_types: dict[str, int] = Field({}, description="Planes of each channel type; unknown ones are 'unknown'.")
    studies: dict[str, int] = Field({}, description="Images of each study.")
    licenses: list[LicenseCount] = Field([], description="Licences of the images, with how many there are.")
    pixel_size_um: Range | None = Field(None, description="Of the images that state it, in micrometres; null: none.")
    crop_sizes: list[int | Literal["whole plane"]] = Field([], description="Edges of the crops, in pixels.")


class InputSettings(Model):
    """What the model takes, and what is done to it first."""

    dtypes: list[PixelType] = Field(min_length=1, description="Pixel types that it was trained on.")
    value_range: Range | None = Field(
        None, description="Of the trained pixels: 0 and the greatest value of the camera; null: not known (floats)."
    )
    normalisation: Literal["plane", "none"] = Field(
        "plane", description="plane: each plane less its mean, over its deviation (variance + 1e-7), before resizing."
    )
    interpolation: Literal["bilinear"] = Field("bilinear", description="Of the resizing; antialiased.")


class Result(Model):
    """One measured result, for the model card."""

    task: str = Field(description="What was measured, on what (kNN of cell types, mini).")
    metric: str = Field(description="The measure (accuracy).")
    value: float


class ModelConfig(Model):
    """All that is needed to use a model, and to know where it comes from."""

    format_version: int = Field(MODEL_FORMAT_VERSION, ge=1)
    library_version: str = Field(description="Version of chammi75 that saved it.")
    title: str
    origin: Literal["chammi75", "reference", "timm"] = Field(
        "chammi75", description="Who trained it: this library, the reference repository, or what timm offers."
    )
    architecture: str = Field(description="Name of the backbone (vit_small), or timm's name of the model.")
    width: Int32 = Field(ge=1, description="Features of a plane (boc), or of an image (mca).")
    patch_size: Int32 = Field(ge=1)
    image_size: Int32 = Field(ge=1, description="Edge that every plane is resized to.")
    strategy: Literal["boc", "mca"] = "boc"
    channels: list[str] = Field([], description="mca: the channel table, in order; 'other' is any other type.")
    masked: bool = Field(True, description="mca: channels that an image lacks do not take part.")
    reference_positions: bool = Field(True, description="Positions are interpolated as the DINO authors do (+ 0.1).")
    input: InputSettings
    data: TrainingData = TrainingData()
    method: Literal["dino", "mae", "simclr"] | None = None
    recipe: dict[str, Any] | None = Field(None, description="The training recipe; of local paths the last part alone.")
    recipe_sha256: Sha256 | None = Field(None, description="Of the recipe as JSON, keys sorted.")
    steps: int | None = Field(None, ge=0, description="Steps that it was trained for.")
    license: str | None = Field(None, description="SPDX expression of the weights; null: its owner has not said.")
    results: list[Result] = Field([], description="What was measured of it.")
    weights: dict[Literal["model", "student"], WeightsFile] = Field(
        {}, description="Files of the folder; save_model fills this in."
    )

    @model_validator(mode="after")
    def _fits_together(self) -> ModelConfig:
        if self.strategy == "mca" and not self.channels:
            raise ValueError("channels: a multi-channel model has a table of channel types")
        if len(set(self.channels)) != len(self.channels):
            raise ValueError("channels: a type stands twice in the table")
        return self
