"""The store: planes as tiled TIFFs in Arrow shards, an index, and a manifest that is written last."""

from chammi75.store.damage import Damage
from chammi75.store.plane import STORED_DTYPES, decode_plane, encode_plane, parse_head, transcode_plane
from chammi75.store.reader import Store, open_store
from chammi75.store.shard import Cells, EncodedImage, ShardWriter, content_digest
from chammi75.store.verify import VerifyReport, verify
from chammi75.store.writer import StoreWriter, new_store, shard_path

__all__ = [
    "STORED_DTYPES",
    "Cells",
    "Damage",
    "EncodedImage",
    "ShardWriter",
    "Store",
    "StoreWriter",
    "VerifyReport",
    "content_digest",
    "decode_plane",
    "encode_plane",
    "new_store",
    "open_store",
    "parse_head",
    "shard_path",
    "transcode_plane",
    "verify",
]
