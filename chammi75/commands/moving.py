"""``chammi75 copy``, ``combine``, ``withdraw`` and ``audit``: stores on the move, and what becomes of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from chammi75.commands.options import DEFAULT_WORKERS, Json, Metadata, Out, Workers
from chammi75.commands.printing import counted, held
from chammi75.errors import ChammiError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Store = Annotated[str, typer.Argument(metavar="STORE", help="A store: a path or any fsspec URL.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(copy)
    app.command()(combine)
    app.command()(withdraw)
    app.command()(audit)


def copy(
    store: Store,
    to: Annotated[str, typer.Option("--to", help="Folder of the copy: absent, empty, or an interrupted copy.")],
    subset: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--subset", metavar="FILE|NAME", help="Copy the images of this subset alone."),
    ] = None,
    workers: Workers = DEFAULT_WORKERS,
    as_json: Json = False,
) -> None:
    """Copy a store, or a subset of it, to a node's disk, a laptop or a bucket.

    Only what is wanted is read, by ranges, and every byte is checked. An
    interrupted copy goes on where it stopped: run the same command again.
    """
    from chammi75.loading.names import resolve_name
    from chammi75.store.copy import plan_copy, run_copy
    from chammi75.terminal import human_bytes, print_json, print_line, progress

    store = resolve_name(store)
    plan = plan_copy(store, rows=None if subset is None else rows_of_subset(subset, store))
    with progress("copy", plan.bytes, "B") as advance:
        report = run_copy(plan, to, workers=workers, advance=advance)
    manifest = report.manifest
    if as_json:
        print_json(
            {
                "store": report.store,
                "images": manifest.images,
                "planes": manifest.planes,
                "withdrawn": report.withdrawn,
                "bytes_read": report.bytes_read,
                "content_sha256": manifest.content_sha256,
            }
        )
        return
    print_line(f"{report.store}: {held(manifest)}; {human_bytes(report.bytes_read)} were read.")
    if report.withdrawn:
        print_line(f"{counted(report.withdrawn, 'image')} left out: withdrawn.")


def combine(
    stores: Annotated[list[str], typer.Argument(metavar="STORE…", help="Finished stores; they stay where they are.")],
    out: Out,
) -> None:
    """Make one store of several, without copying: a manifest that names them.

    A dataset grows this way: build what is new, and combine it with the old.
    """
    from chammi75.store.parts import combine as combine_stores
    from chammi75.terminal import print_line

    made = combine_stores(stores, out)
    print_line(f"{made.url}: {held(made.manifest)} in {counted(len(made.manifest.parts), 'part')}.")


def withdraw(
    store: Store,
    reason: Annotated[str, typer.Option("--reason", help="Why.")],
    image: Annotated[Optional[list[str]], typer.Option("--image", help="An image_id; may be repeated.")] = None,  # noqa: UP045
    study: Annotated[Optional[list[str]], typer.Option("--study", help="A study; may be repeated.")] = None,  # noqa: UP045
    source: Annotated[Optional[list[str]], typer.Option("--source", help="A source; may be repeated.")] = None,  # noqa: UP045
    plate: Annotated[Optional[str], typer.Option("--plate", help="Only this plate of the study or source.")] = None,  # noqa: UP045
    stated_by: Annotated[Optional[str], typer.Option("--stated-by", help="Who says so.")] = None,  # noqa: UP045
    url: Annotated[Optional[str], typer.Option("--url", help="Where it is stated.")] = None,  # noqa: UP045
) -> None:
    """Withdraw images of a store: nobody loads or copies them any more.

    The store itself stays as it is; withdrawals.json beside its manifest
    says what is withdrawn. Take an entry out of that file to undo it.
    """
    from datetime import UTC, datetime

    from chammi75.schemas.withdrawal import Withdrawal
    from chammi75.store.withdrawals import add_withdrawals
    from chammi75.terminal import print_line

    named = [("image_id", word) for word in image or ()]
    named += [("study", word) for word in study or ()] + [("source", word) for word in source or ()]
    if not named:
        raise typer.BadParameter("name at least one --image, --study or --source")
    if plate is not None and image:
        raise typer.BadParameter("a plate goes with --study or --source", param_hint="--plate")
    if not all(word.strip() for word in (reason, *(word for _, word in named))):
        raise typer.BadParameter("words must not be empty")
    common: dict[str, Any] = {"reason": reason, "date": datetime.now(UTC).date(), "stated_by": stated_by, "url": url}
    hit = add_withdrawals(store, [Withdrawal(**{name: word}, plate=plate, **common) for name, word in named])
    print_line(f"{store}: {counted(hit, 'image')} withdrawn; loaders and copies leave them out from now on.")


def audit(
    store: Annotated[str, typer.Argument(metavar="STORE", help="A store, or a copy of the published layout.")],
    metadata: Metadata = None,
    as_json: Json = False,
) -> None:
    """Compare a store with today's cards: licences, DOIs, bad plates, withdrawn images.

    Exit status 1 if a licence is another one today, or withdrawn images are
    in the store.
    """
    from dataclasses import asdict

    from chammi75.catalog import Catalog
    from chammi75.loading.audit import audit as audit_layouts
    from chammi75.loading.stores import open_stores
    from chammi75.terminal import print_json, print_line, table

    layouts = open_stores(store, metadata=metadata)
    findings = audit_layouts(layouts, Catalog())
    if as_json:
        print_json([asdict(finding) for finding in findings])
    elif findings:
        table([asdict(finding) for finding in findings], title=f"{store}: what today's cards say otherwise")
    else:
        print_line(f"{store}: {counted(sum(map(len, layouts)), 'image')}; the store agrees with today's cards.")
    serious = [finding for finding in findings if finding.is_serious]
    if serious:
        licenses = {finding.source for finding in serious if finding.kind == "license"}
        gone = sum(finding.images for finding in serious if finding.kind == "withdrawn")
        reasons = [f"{counted(len(licenses), 'source')} with another licence today"] if licenses else []
        reasons += [f"{counted(gone, 'withdrawn image')} (chammi75 copy leaves them out)"] if gone else []
        raise ChammiError(f"{store}: {' and '.join(reasons)}")


def rows_of_subset(named: str, store: str) -> NDArray[np.int64]:
    """Rows of a store that a subset keeps, ascending: those of its own first, then those of its parts."""
    import numpy as np

    from chammi75.loading.subsets import Subset

    pool = Subset.load(named, store).pool
    starts = np.cumsum([0, *(len(layout) for layout in pool.layouts)])
    return np.concatenate([rows + start for rows, start in zip(pool.rows, starts, strict=False)])
