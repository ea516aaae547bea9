"""Schemas: the models of everything that is written down, and their one mapping to Arrow and to JSON Schemas."""

from chammi75.schemas.base import RECORD_SCHEMA_VERSION, STORE_FORMAT_VERSION
from chammi75.schemas.cards import PlatformCard, SourceCard
from chammi75.schemas.manifest import FileEntry, IndexEntry, ShardEntry, StoreManifest
from chammi75.schemas.recipe import BuildRecipe, ChannelRule, TableJoin
from chammi75.schemas.record import (
    PER_CHANNEL_FIELDS,
    RECORD_GROUPS,
    Annotation,
    Biology,
    Channel,
    Curation,
    Experiment,
    Geometry,
    ImageRecord,
    Imaging,
    Microscopy,
    Provenance,
    Quality,
    Storage,
)
from chammi75.schemas.subset import SubsetRecipe
from chammi75.schemas.vocabulary import Term, Vocabulary, vocabulary

__all__ = [
    "PER_CHANNEL_FIELDS",
    "RECORD_GROUPS",
    "RECORD_SCHEMA_VERSION",
    "STORE_FORMAT_VERSION",
    "Annotation",
    "Biology",
    "BuildRecipe",
    "Channel",
    "ChannelRule",
    "Curation",
    "Experiment",
    "FileEntry",
    "Geometry",
    "ImageRecord",
    "Imaging",
    "IndexEntry",
    "Microscopy",
    "PlatformCard",
    "Provenance",
    "Quality",
    "ShardEntry",
    "SourceCard",
    "Storage",
    "StoreManifest",
    "SubsetRecipe",
    "TableJoin",
    "Term",
    "Vocabulary",
    "vocabulary",
]
