"""What a trained model is said to be: its config, out of recipe and data, and the model card (``README.md``)."""

from __future__ import annotations

import hashlib
import html
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from chammi75.errors import ChammiError
from chammi75.files import is_local
from chammi75.loading.guided import GuidedCrop
from chammi75.loading.licenses import hub_license, license_url
from chammi75.loading.stores import Named, open_stores
from chammi75.loading.stream.chosen import choose
from chammi75.loading.stream.layout_source import source_of
from chammi75.schemas.model_card import (
    InputSettings,
    LicenseCount,
    ModelConfig,
    PixelType,
    Result,
    StoreSeen,
    TrainingData,
)
from chammi75.version import __version__

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    from chammi75.loading.layouts import Layout
    from chammi75.loading.stream.chosen import Chosen
    from chammi75.schemas.training import TrainingRecipe
    from chammi75.training.backbones import Backbone

_ROWS = 1 << 16
_SHOWN_STUDIES = 100
_UNKNOWN = "unknown"


def model_config(
    recipe: TrainingRecipe,
    backbone: Backbone,
    seen: tuple[TrainingData, InputSettings] | None = None,
    *,
    steps: int | None = None,
    results: Sequence[Result] = (),
    license: str | None = None,
) -> ModelConfig:
    """The config of a model that a recipe trained, for ``save_model``.

    Parameters
    ----------
    recipe : TrainingRecipe
    backbone : Backbone
        The network, for its width and its channel table.
    seen : (TrainingData, InputSettings), optional
        From `data_of_recipe`, which opens the stores: once for a run is enough. None: it is called here.
    steps : int, optional
        Steps of the optimiser so far.
    results : sequence of Result
    license : str, optional
        SPDX expression of the weights; its owner's to say.
    """
    data, settings = data_of_recipe(recipe) if seen is None else seen
    plain = _without_places(recipe.model_dump(mode="json"))
    return ModelConfig(
        library_version=__version__,
        title=recipe.title,
        architecture=recipe.backbone.name,
        width=backbone.width,
        patch_size=recipe.backbone.patch_size,
        image_size=recipe.backbone.image_size,
        strategy=recipe.strategy,
        channels=list(backbone.channels),
        masked=recipe.channels.masked,
        reference_positions=backbone.reference_positions,
        input=settings,
        data=data,
        method=recipe.method,
        recipe=plain,
        recipe_sha256=hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest(),
        steps=steps,
        license=license,
        results=list(results),
    )


def _without_places(recipe: dict[str, Any]) -> dict[str, Any]:
    """A recipe that says nothing of the machine that it ran on: of local paths, the last part alone."""
    stores = recipe["store"] if isinstance(recipe["store"], list) else [recipe["store"]]
    named = [name if not is_local(name) else Path(name).name or name for name in stores]
    data = {**recipe["data"], "cache_dir": None}
    return {
        **recipe,
        "store": named if isinstance(recipe["store"], list) else named[0],
        "out": Path(recipe["out"]).name or recipe["out"],
        "data": data,
    }


def data_of_recipe(recipe: TrainingRecipe) -> tuple[TrainingData, InputSettings]:
    """What a recipe's training sees: counts, licences, pixel sizes, and which input fits; no pixel is read."""
    from chammi75.training.data import guided_crop, selection_of

    data, settings = training_data(recipe.store, selection_of(recipe.data), recipe.data.split)
    crops = _crop_sizes(guided_crop(recipe.data), list(data.studies))
    normalisation = recipe.views.normalise
    return data.model_copy(update={"crop_sizes": crops}), settings.model_copy(update={"normalisation": normalisation})


def training_data(
    stores: Named | Sequence[Named], selection: Chosen = None, split: str | None = "train"
) -> tuple[TrainingData, InputSettings]:
    """What is known of the images that a selection takes.

    Parameters
    ----------
    stores : str, path, Store or sequence of them
    selection : mapping, Subset, str or path, optional
        As for ``TrainingStream``.
    split : str, optional
        None for all.

    Returns
    -------
    TrainingData
    InputSettings
        The pixel types that there are, and the greatest value that a camera could give.

    Raises
    ------
    ChammiError
        If a store cannot be opened, or no image passes.
    """
    seen: list[StoreSeen] = []
    channel_types: Counter[str] = Counter()
    studies: Counter[str | None] = Counter()
    licenses: Counter[str | None] = Counter()
    kinds: set[str] = set()
    sizes: list[float] = []
    greatest = 0.0
    for chosen in choose(open_stores(stores), selection, split):
        source, wanted = source_of(chosen.layout), chosen.channel_types
        for start in range(0, len(chosen), _ROWS):
            rows = np.asarray(chosen.rows[start : start + _ROWS], np.int64)
            codes, counts = np.unique(source.channel_type_codes(rows), return_counts=True)
            for code, count in zip(codes.tolist(), counts.tolist(), strict=True):
                for name in source.channel_type_lists[code]:
                    if wanted is None or name in wanted:
                        channel_types[name or _UNKNOWN] += count
            kinds.update(kind.name for kind in source.dtypes(rows))
            saturations = source.describe(rows).saturations
            greatest = max(greatest, float(np.max(saturations[np.isfinite(saturations)], initial=0)))
        known = _records(chosen.layout, chosen.rows)
        for counter, column in ((studies, "study"), (licenses, "license")):
            for entry in known.column(column).value_counts().to_pylist():
                counter[entry["values"]] += entry["counts"]
        stated = np.asarray(known.column("pixel_size_um").drop_null().to_numpy(), np.float64)
        sizes += [float(stated.min()), float(stated.max())] if len(stated) else []
        seen.append(
            StoreSeen(
                name=chosen.layout.url.rstrip("/").rpartition("/")[2] or "store",
                content_sha256=chosen.layout.identity,
                images=len(chosen),
            )
        )
    data = TrainingData(
        stores=seen,
        images=sum(store.images for store in seen),
        planes=sum(channel_types.values()),
        channel_types=dict(sorted(channel_types.items())),
        studies={name or _UNKNOWN: count for name, count in sorted(studies.items(), key=lambda entry: str(entry[0]))},
        licenses=[
            LicenseCount(license=name, images=count)
            for name, count in sorted(licenses.items(), key=lambda entry: (-entry[1], str(entry[0])))
        ],
        pixel_size_um=(min(sizes), max(sizes)) if sizes else None,
    )
    ordered: list[PixelType] = [kind for kind in get_args(PixelType) if kind in kinds]
    floats_only = ordered == ["float32"]
    mixed = "float32" in kinds
    return data, InputSettings(dtypes=ordered, value_range=None if mixed or floats_only else (0.0, greatest))


def _records(layout: Layout, rows: range | NDArray[np.int64]) -> pa.Table:
    """Study, licence and pixel size of some rows, as a table of these three columns."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    fields = {"study": "experiment", "license": "provenance", "pixel_size_um": "geometry"}
    found = layout.searchable()
    if isinstance(found, str):
        with pq.ParquetFile(found) as file:
            found = file.read(columns=[f"{group}.{name}" for name, group in fields.items()])
    known = pa.table({name: pc.struct_field(found.column(group), name) for name, group in fields.items()})
    return known.take(pa.array(np.asarray(rows, np.int64)))


def _crop_sizes(crop: GuidedCrop, studies: Sequence[str]) -> list[Any]:
    """Edges that are cut out, in pixels; ``"whole plane"`` among them where planes are taken whole."""
    settings = crop.settings
    table: dict[str, list[Any]] = settings["studies"]
    if not table:
        found = settings["size"]
        return list(found) if isinstance(found, list) else [found]
    other = settings["other"] if isinstance(settings["other"], list) else [settings["other"]]
    sizes = {size for study in studies for size in table.get(study, other)}
    return sorted(size for size in sizes if isinstance(size, int)) + sorted(
        size for size in sizes if not isinstance(size, int)
    )


def model_card(config: ModelConfig) -> str:
    """``README.md`` of a model's folder: front matter for the Hugging Face hub, then what the model is.

    Parameters
    ----------
    config : ModelConfig

    Raises
    ------
    ChammiError
        If the title is empty.
    """
    if not config.title.strip():
        raise ChammiError("title: a model needs one, for its card")
    data = config.data
    lines = [f"# {_plain(config.title)}", "", *_summary(config), "", "## Load", "", "```python"]
    lines += [
        "from chammi75.training import load_model",
        "",
        'model = load_model("this folder, or its id on the hub")',
        _embed_line(config),
        "```",
        "",
    ]
    lines += ["## Input", "", *_input_lines(config), ""]
    if data.images:
        lines += ["## Training data", "", f"{data.images} images, {data.planes} planes.", "", *_data_tables(data), ""]
    if config.results:
        lines += ["## Results", "", "| task | measure | value |", "| --- | --- | ---: |"]
        lines += [f"| {_plain(row.task)} | {_plain(row.metric)} | {row.value:.4g} |" for row in config.results]
        lines += [""]
    if config.recipe is not None:
        import yaml

        recipe = yaml.safe_dump(config.recipe, sort_keys=False, allow_unicode=True, width=100)
        lines += ["## Recipe", "", f"SHA-256 {config.recipe_sha256}.", "", "~~~~yaml", recipe.rstrip(), "~~~~", ""]
    return front_matter(config) + "\n".join(lines).rstrip() + "\n"


def front_matter(config: ModelConfig) -> str:
    """The YAML between two lines of ``---``, as the hub reads it; under ``chammi75`` what it has no words for."""
    import yaml

    values: dict[str, Any] = {
        **hub_license([config.license] if config.license else []),
        "library_name": "chammi75",
        "pipeline_tag": "image-feature-extraction",
        "tags": ["microscopy", "biology", "chammi75", *([config.method] if config.method else []), config.strategy],
        "chammi75": {
            "recipe_sha256": config.recipe_sha256,
            "data": [store.model_dump() for store in config.data.stores],
            "data_licenses": {entry.license or _UNKNOWN: entry.images for entry in config.data.licenses},
        },
    }
    return f"---\n{yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=1000)}---\n"


def _summary(config: ModelConfig) -> list[str]:
    trained = f" trained with {config.method.upper()}" if config.method else ""
    steps = f", {config.steps} steps" if config.steps is not None else ""
    how = (
        f"each plane alone (bag of channels): {config.width} features for each, side by side in channel order"
        if config.strategy == "boc"
        else f"all channels of an image together (ChannelViT): {config.width} features for an image"
    )
    return [
        f"{_plain(config.architecture)}, patches of {config.patch_size} at {config.image_size} pixels,{trained or ' '}"
        f"{steps}; {how}. Written by chammi75 {config.library_version}."
    ]


def _embed_line(config: ModelConfig) -> str:
    if config.strategy == "boc":
        return f"model.embed(images)  # (N, C, H, W) -> (N, C * {config.width})"
    return f"model.embed(images, channels={config.channels[:2]!r})  # (N, 2, H, W) -> (N, {config.width})"


def _input_lines(config: ModelConfig) -> list[str]:
    settings, data = config.input, config.data
    rows = [f"- pixel types: {', '.join(settings.dtypes)}"]
    if settings.value_range is not None:
        rows.append(f"- values: {settings.value_range[0]:g} to {settings.value_range[1]:g}")
    if data.pixel_size_um is not None:
        rows.append(f"- pixel size: {data.pixel_size_um[0]:g} to {data.pixel_size_um[1]:g} µm")
    if data.crop_sizes:
        rows.append(f"- crops of the training, in pixels: {', '.join(map(str, data.crop_sizes))}")
    if config.channels:
        rows.append(f"- channels: {', '.join(map(_plain, config.channels))}")
    if settings.normalisation == "plane":
        rows.append("- each plane is normalised by its own mean and deviation, then resized")
    return rows


def _data_tables(data: TrainingData) -> list[str]:
    lines = ["| store | images | content SHA-256 |", "| --- | ---: | --- |"]
    lines += [f"| {_plain(store.name)} | {store.images} | `{store.content_sha256}` |" for store in data.stores]
    lines += ["", "| licence of the images | images |", "| --- | ---: |"]
    lines += [f"| {_license_words(entry.license)} | {entry.images} |" for entry in data.licenses]
    lines += ["", "| channel type | planes |", "| --- | ---: |"]
    lines += [f"| {_plain(name)} | {count} |" for name, count in data.channel_types.items()]
    lines += ["", "| study | images |", "| --- | ---: |"]
    studies = list(data.studies.items())
    lines += [f"| {_plain(name)} | {count} |" for name, count in studies[:_SHOWN_STUDIES]]
    if len(studies) > _SHOWN_STUDIES:
        lines.append(f"| {len(studies) - _SHOWN_STUDIES} more, in `config.json` | |")
    return lines


def _license_words(license: str | None) -> str:
    if license is None:
        return _UNKNOWN
    url = license_url(license)
    return f"[{_plain(license)}]({url})" if url else _plain(license)


def _plain(text: str) -> str:
    """Text of strangers as Markdown shows it: no markup, no cell of its own, on one line."""
    escaped = html.escape(" ".join(text.split()), quote=False)
    return "".join(f"\\{letter}" if letter in "|\\`[]*_" else letter for letter in escaped)
