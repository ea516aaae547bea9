"""Whole planes: decoding ours against OpenCV's PNG, one thread."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from statistics import median
from typing import Any

import numpy as np
from inputs import planes_8_bit, planes_16_bit, published_pngs
from paired import Row, faster, main, seconds, time_pairs

from chammi75.store.plane import Codec, decode_plane, encode_plane, parse_head


def run(arguments: argparse.Namespace) -> list[Row]:
    """Both codecs, 8 and 16 bits; each pass decodes all planes once."""
    import cv2

    cv2.setNumThreads(1)
    rows = []
    for bits, (planes, origin) in (("8-bit", planes_8_bit()), ("16-bit", planes_16_bit())):
        pngs = [cv2.imencode(".png", plane)[1] for plane in planes]
        note = f"{origin}, {sum(plane.nbytes for plane in planes) / 1e6:.0f} MB"
        published = [np.frombuffer(content, np.uint8) for content in published_pngs()] if bits == "8-bit" else []
        for codec in ("zstd", "deflate"):
            goal = 4.0 if (bits, codec) == ("8-bit", "zstd") else None
            against = f"{codec} {bits} : OpenCV's own PNG"
            rows.append(_compared(against, planes, pngs, codec, goal, note, arguments.repeats))
            if goal:
                rows.append(_entropy_decoder_alone(planes, note, arguments.repeats))
            if published:
                against = f"{codec} {bits} : OpenCV on published PNG"
                rows.append(_compared(against, planes, published, codec, goal, note, arguments.repeats))
    return rows


def _compared(
    case: str, planes: Sequence[Any], pngs: Sequence[Any], codec: Codec, goal: float | None, note: str, repeats: int
) -> Row:
    import cv2

    encoded = [encode_plane(plane, codec) for plane in planes]
    for plane, ours, png in zip(planes, encoded, pngs, strict=True):
        assert np.array_equal(decode_plane(ours), plane), "our plane has other pixels"
        assert np.array_equal(cv2.imdecode(png, cv2.IMREAD_UNCHANGED), plane), "the PNG has other pixels"

    def decode_ours() -> None:
        for content in encoded:
            decode_plane(content)

    def decode_pngs() -> None:
        for content in pngs:
            cv2.imdecode(content, cv2.IMREAD_UNCHANGED)

    return faster(case, time_pairs(decode_ours, decode_pngs, repeats), goal, note)


def _entropy_decoder_alone(planes: Sequence[Any], note: str, repeats: int) -> Row:
    """What of our time is Zstandard's own: all tiles, decompressed and dropped."""
    import zstandard

    tiles = []
    for plane in planes:
        content = encode_plane(plane)
        head = parse_head(content)
        for start, count in zip(head.offsets.tolist(), head.counts.tolist(), strict=True):
            tiles.append(content[start : start + count])
    decompress = zstandard.ZstdDecompressor().decompress

    def decode_tiles() -> None:
        for tile in tiles:
            decompress(tile)

    decode_tiles()
    times = [seconds(decode_tiles) for _ in range(repeats)]
    return Row("  of which Zstandard alone", 1000 * median(times), None, "ms", note=f"{len(tiles)} tiles, {note}")


if __name__ == "__main__":
    main(__doc__, run)
