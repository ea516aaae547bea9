"""A store's shards against the published PNGs that they were made of, in bytes."""

from __future__ import annotations

import argparse

from inputs import published_copies
from paired import Row, main

from chammi75.build.execute import build_store
from chammi75.build.published import plan_published


def run(arguments: argparse.Namespace) -> list[Row]:
    """Both codecs; the shards hold records, cell positions and Arrow's own bytes too."""
    rows = []
    with published_copies(1) as root:
        pngs = sum(path.stat().st_size for path in root.glob("CHAMMI-75_train/*/*.png"))
        for codec in ("zstd", "deflate"):
            report = build_store([plan_published(root, codec=codec)], str(root.parent / codec))
            shards = sum(shard.bytes for shard in report.manifest.shards)
            ratio = shards / pngs
            note = f"{report.manifest.planes} planes"
            rows.append(
                Row(f"store, {codec}", shards / 1e6, pngs / 1e6, "MB", ratio, "at most 1.08x", ratio <= 1.08, note)
            )
    return rows


if __name__ == "__main__":
    main(__doc__, run)
