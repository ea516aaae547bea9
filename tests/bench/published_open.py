"""Opening the published table in a bucket and filtering it, first and again, against pandas over s3fs.

pandas, which keeps nothing between two times, is what the published dataset's own tutorial reads the table with. The
bucket is a server on loopback with a generated table of the published shape; no plane is read by either.
"""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from paired import Row, faster, main, seconds, time_pairs
from synthetic_index import make


@contextmanager
def bucket(table: Path) -> Iterator[str]:
    """A public bucket that is laid out as the published one, and holds a table alone; gives its endpoint."""
    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        client = boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name="us-west-2",
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
        )
        client.create_bucket(Bucket="chammi-data", CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
        client.put_bucket_acl(Bucket="chammi-data", ACL="public-read")
        client.upload_file(str(table), "chammi-data", "CHAMMI-75/CHAMMI-75_train_metadata.csv", {"ACL": "public-read"})
        yield endpoint
    finally:
        server.stop()


def run(arguments: argparse.Namespace) -> list[Row]:
    """Open and filter: the first time, and when the index is kept."""
    with tempfile.TemporaryDirectory() as scratch:
        _, _, table = make(Path(scratch) / "table", arguments.images)
        with bucket(table) as endpoint:
            return _measure(endpoint, Path(scratch), arguments.repeats, table.stat().st_size)


def _measure(endpoint: str, scratch: Path, repeats: int, size: int) -> list[Row]:
    import pandas as pd

    from chammi75 import load_dataset

    options = {"client_kwargs": {"endpoint_url": endpoint}}
    organism = "Homo sapiens"

    def ours(cache: Path) -> int:
        selected = load_dataset(
            "s3://chammi-data", streaming=True, organism=organism, storage_options=options, cache_dir=str(cache)
        )
        return sum(len(part) for part in selected._ex_iterable.kwargs["selections"])

    def peer() -> int:
        frame = pd.read_csv(
            "s3://chammi-data/CHAMMI-75/CHAMMI-75_train_metadata.csv",
            dtype=str,
            storage_options={"anon": True, **options},
        )
        chosen = frame[frame["biology.organism"] == organism]
        return int(chosen["imaging.multi_channel_id"].nunique())

    kept = scratch / "cache"
    found, expected = ours(kept), peer()
    assert found == expected, f"we find {found} images, pandas {expected}"
    note = f"{found:,} images of {organism}; table of {size / 1e6:,.0f} MB"
    again = time_pairs(lambda: ours(kept), peer, repeats)
    rows = [faster("open the published table again, and filter : pandas", again, None, note)]
    pairs = []
    for number in range(min(3, repeats)):
        pairs.append((seconds(lambda n=number: ours(scratch / f"cache{n}")), seconds(peer)))
    times = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    rows.append(faster("open it for the first time, and keep the index : pandas", times, None, note))
    return rows


if __name__ == "__main__":
    os.environ["CHAMMI75_CACHE"] = tempfile.mkdtemp()
    main(
        __doc__ or "",
        run,
        {"--images": {"type": int, "default": 200_000, "help": "images of the generated table"}},
    )
