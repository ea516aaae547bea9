"""Options that several commands have, with one wording."""

from __future__ import annotations

import os
from typing import Annotated, Optional

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Out = Annotated[str, typer.Option("--out", help="Folder of the new store: absent or empty. A path or any fsspec URL.")]
Workers = Annotated[
    int,
    typer.Option(
        "--workers",
        min=1,
        help="Processes and threads; the result does not depend on it.",
        show_default="as many as cores, 8 at most",
    ),
]
Metadata = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--metadata", help="Which metadata table of a published layout, if there are several."),
]
DEFAULT_WORKERS = min(8, os.cpu_count() or 1)
