"""The JSON Schemas in ``schemas/``, made from the models; editors check ``catalog/`` and recipes with them.

``python -m chammi75.schemas.json_schema`` writes them; with ``--check`` it says which are not current, and exits with
1.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from chammi75.schemas.base import Model
from chammi75.schemas.cards import PlatformCard, SourceCard
from chammi75.schemas.crop_sizes import CropSizes
from chammi75.schemas.manifest import StoreManifest
from chammi75.schemas.model_card import ModelConfig
from chammi75.schemas.naming import Naming
from chammi75.schemas.recipe import BuildRecipe
from chammi75.schemas.record import Annotation, Channel, ImageRecord
from chammi75.schemas.subset import SubsetRecipe
from chammi75.schemas.training import TrainingRecipe
from chammi75.schemas.vocabulary import Vocabulary
from chammi75.schemas.withdrawal import WithdrawalList

PUBLISHED: dict[str, type[Model]] = {
    "image-record": ImageRecord,
    "channel": Channel,
    "annotation": Annotation,
    "store-manifest": StoreManifest,
    "build-recipe": BuildRecipe,
    "subset-recipe": SubsetRecipe,
    "source-card": SourceCard,
    "platform-card": PlatformCard,
    "naming": Naming,
    "vocabulary": Vocabulary,
    "crop-sizes": CropSizes,
    "withdrawal-list": WithdrawalList,
    "training-recipe": TrainingRecipe,
    "model-config": ModelConfig,
}


def json_schemas() -> dict[str, str]:
    """File name -> content of every published JSON Schema."""
    schemas = {}
    for name, model in PUBLISHED.items():
        schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **model.model_json_schema()}
        schemas[f"{name}.schema.json"] = json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
    return schemas


def stale_schemas(folder: Path) -> list[str]:
    """Names of the files in ``folder`` that are not what the models give: missing, old, or of no model."""
    current = json_schemas()
    there = {file.name for file in folder.glob("*.schema.json")}
    old = [
        name
        for name, content in current.items()
        if name in there and (folder / name).read_text(encoding="utf-8") != content
    ]
    return sorted({*old, *(current.keys() ^ there)})


def main(arguments: list[str]) -> int:
    """Write the schemas to ``schemas/`` of the checkout, or check them."""
    folder = Path(__file__).resolve().parents[2] / "schemas"
    if "--check" in arguments:
        stale = stale_schemas(folder)
        for name in stale:
            print(f"schemas/{name} is not current: run python -m chammi75.schemas.json_schema", file=sys.stderr)
        return 1 if stale else 0
    folder.mkdir(exist_ok=True)
    for name in stale_schemas(folder):
        (folder / name).unlink(missing_ok=True)
    for name, content in json_schemas().items():
        (folder / name).write_text(content, encoding="utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
