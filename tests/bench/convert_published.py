"""`convert` of the published layout against decoding its PNGs alone with OpenCV, at equal threads."""

from __future__ import annotations

import argparse
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from inputs import published_copies
from paired import Row, main, slower, time_pairs

from chammi75.build.execute import build_store
from chammi75.build.published import plan_published


def run(arguments: argparse.Namespace) -> list[Row]:
    """The whole of `convert`: plan, read, hash, decode, encode, write, index, manifest."""
    import cv2

    from chammi75.store.reader import open_store

    cv2.setNumThreads(1)
    rows = []
    with published_copies(arguments.copies) as root:
        paths = sorted(root.glob("CHAMMI-75_train/*/*.png"))
        store = root.parent / "store"
        for threads in (1, 2):

            def convert(threads: int = threads) -> None:
                shutil.rmtree(store, ignore_errors=True)
                build_store([plan_published(root)], str(store), workers=threads)

            def decode(threads: int = threads) -> None:
                if threads == 1:
                    for path in paths:
                        _decoded(path)
                else:
                    with ThreadPoolExecutor(threads) as pool:
                        for _ in pool.map(_decode_and_drop, paths):
                            pass

            times = time_pairs(convert, decode, arguments.repeats)
            rows.append(slower(f"convert, {threads} thread(s)", times, 1.7, f"{len(paths)} planes"))
        opened = open_store(store)
        for row, record in enumerate(opened.records(["storage"]).column("storage").to_pylist()):
            for channel, path in enumerate(record["path"]):
                assert np.array_equal(opened.read_plane(row, channel), _decoded(root / path)), path
                if row > 20:
                    break
    return rows


def _decoded(path: Path) -> np.ndarray:
    import cv2

    return cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)


def _decode_and_drop(path: Path) -> None:
    _decoded(path)


if __name__ == "__main__":
    main(__doc__, run, {"--copies": {"type": int, "default": 10, "help": "how often each published study is there"}})
