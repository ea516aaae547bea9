"""``chammi75 sources``, ``platforms``, ``cite`` and ``catalog check``: what is known of the world's images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from chammi75.commands.options import Json, Metadata
from chammi75.commands.printing import counted
from chammi75.errors import ChammiError

if TYPE_CHECKING:
    from chammi75.catalog import Catalog
    from chammi75.catalog.citation import Cited
    from chammi75.schemas.cards import CardModel

Words = Optional[list[str]]  # noqa: UP045  # several options of one name: any of these

_SHOWN_TITLE = 60

catalog_app = typer.Typer(name="catalog", help="The catalog itself.", no_args_is_help=True, rich_markup_mode=None)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(sources)
    app.command()(platforms)
    app.command("cite")(cite_command)
    app.add_typer(catalog_app)


def sources(
    source: Annotated[Optional[str], typer.Argument(metavar="[ID]", help="Show all of one source.")] = None,  # noqa: UP045
    license: Annotated[Words, typer.Option("--license", help="SPDX id, or commercial, derivatives, open …")] = None,
    organism: Annotated[Words, typer.Option("--organism", help="Species, or a common name.")] = None,
    channel_type: Annotated[
        Words, typer.Option("--channel-type", help="What a channel shows, or a stain; several: all of these.")
    ] = None,
    microscopy_type: Annotated[Words, typer.Option("--microscopy-type", help="Kind of microscopy.")] = None,
    platform: Annotated[Words, typer.Option("--platform", help="Hosting platform.")] = None,
    cell_line: Annotated[Words, typer.Option("--cell-line", help="Cell line.")] = None,
    as_json: Json = False,
) -> None:
    """List the sources of the catalog: studies, with platform and licence.

    An option that is given several times means any of these; but all of
    these channel types.
    """
    import sys
    from textwrap import shorten

    from chammi75.catalog import Catalog
    from chammi75.catalog.catalog import source_row
    from chammi75.terminal import print_json, table

    wanted = {
        "license": license,
        "organism": organism,
        "channel_type": channel_type,
        "microscopy_type": microscopy_type,
        "platform": platform,
        "cell_line": cell_line,
    }
    given = {name: words for name, words in wanted.items() if words}
    catalog = Catalog()
    if source is not None:
        if given:
            raise typer.BadParameter("a source is shown whole: leave the filters out, or the id", param_hint="ID")
        card = catalog.source(source)
        if as_json:
            print_json([{**source_row(card), **card.model_dump(mode="json")}])
        else:
            _show_card(card)
        return
    rows = catalog.filter(**given).rows() if given else catalog.rows()
    if as_json:
        print_json(rows)
        return
    names = ("id", "title", "license", "platform", "organisms", "images")
    title = f"{counted(len(rows), 'source')} of {len(catalog)}; chammi75 sources ID shows all of one"
    if sys.stdout.isatty():  # a row should take few lines there; what is piped has the whole titles
        rows = [
            {**row, "title": row["title"] and shorten(row["title"], _SHOWN_TITLE, placeholder=" …")} for row in rows
        ]
    table([{name: row[name] for name in names} for row in rows], columns=names, title=title)


def platforms(
    platform: Annotated[Optional[str], typer.Argument(metavar="[ID]", help="Show all of one platform.")] = None,  # noqa: UP045
    as_json: Json = False,
) -> None:
    """List the platforms that host sources, and the protocol that reads each."""
    from chammi75.catalog import Catalog
    from chammi75.terminal import print_json, table

    catalog = Catalog()
    if platform is not None:
        card = catalog.platform(platform)
        if as_json:
            print_json([card.model_dump(mode="json")])
        else:
            _show_card(card)
        return
    rows = [{"id": card.id, "name": card.name, "protocol": card.protocol} for card in catalog.platforms]
    if as_json:
        print_json(rows)
    else:
        table(rows, title=f"{counted(len(rows), 'platform')}; chammi75 platforms ID shows all of one")


def cite_command(
    names: Annotated[list[str], typer.Argument(metavar="ID|STORE…", help="Sources; or stores: the sources in them.")],
    style: Annotated[str, typer.Option("--style", help="bibtex, csl (CSL-JSON) or text.")] = "bibtex",
    metadata: Metadata = None,
) -> None:
    """Print citations, with DOIs and licences, of sources or of what a store holds."""
    from chammi75.catalog import Catalog
    from chammi75.catalog.citation import STYLES, cite

    chosen = next((one for one in STYLES if one == style), None)
    if chosen is None:
        raise typer.BadParameter(f"{' or '.join(STYLES)}, not {style}", param_hint="--style")
    catalog = Catalog()
    entries: list[Cited] = []
    for name in names:
        entries += [catalog.cited(name)] if name in catalog else _cited_at(name, catalog, metadata)
    typer.echo(cite(_merged(entries), chosen), nl=False)


@catalog_app.callback()
def _catalog() -> None:
    """The catalog itself."""


@catalog_app.command("check")
def check(
    folder: Annotated[Optional[Path], typer.Argument(help="A catalog; the one that is shipped if left out.")] = None,  # noqa: UP045
    as_json: Json = False,
) -> None:
    """Check every card and vocabulary, and print each problem as FILE:LINE: what is allowed."""
    from dataclasses import asdict

    from chammi75.catalog.check import check_catalog
    from chammi75.terminal import print_json, print_line

    found = check_catalog(folder)
    if as_json:
        print_json([asdict(problem) for problem in found.problems])
    else:
        for problem in found.problems:
            print_line(str(problem))
    if found.problems:
        raise ChammiError(f"{counted(len(found.problems), 'problem')} in {counted(found.files, 'file')}")
    if not as_json:
        print_line(f"{counted(found.files, 'file')}: every card and vocabulary is sound.")


def _cited_at(name: str, catalog: Catalog, metadata: str | None) -> list[Cited]:
    """What to cite for the images of a store or of the published layout: each source, with its number of images."""
    from chammi75.files import is_local, local_path
    from chammi75.loading.subsets import Subset
    from chammi75.loading.subsets.citations import cited

    if name not in ("mini", "chammi75") and is_local(name) and not local_path(name).exists():
        if any(mark in name for mark in "/\\."):
            raise ChammiError(f"{name}: there is no such file or folder, and no source of that name in the catalog")
        catalog.source(name)  # raises, and names the nearest
    return cited(Subset.build(name, split=None, metadata=metadata).pool)


def _merged(entries: list[Cited]) -> list[Cited]:
    """Each source once, with the images of all stores that hold it."""
    from dataclasses import replace

    merged: dict[Cited, int | None] = {}
    for entry in entries:
        alike = replace(entry, images=None)
        known = merged.get(alike)
        merged[alike] = entry.images if known is None else known + (entry.images or 0)
    return [replace(entry, images=images) for entry, images in merged.items()]


def _show_card(card: CardModel) -> None:
    from chammi75.terminal import table

    values = card.model_dump(mode="json")
    evidence = values.pop("evidence")
    rows = []
    for name, value in values.items():
        entries = value if isinstance(value, list) and value and isinstance(value[0], dict) else [value]
        rows += [{"field": name, "value": _shown(entry)} for entry in entries]
    table(rows)
    stated = [
        {"fields": entry["fields"], "stated in": entry["stated_in"], "note": entry["note"] or ""} for entry in evidence
    ]
    table(stated, ["fields", "stated in", "note"], title="Where it is stated")


def _shown(value: Any) -> str | None:
    """A value as one line; None reads unknown."""
    if value is None or value in ([], {}):
        return None
    if isinstance(value, list):
        return ", ".join(_shown(one) or "unknown" for one in value)
    if not isinstance(value, dict):
        return str(value)
    if "channel_type" in value:
        return f"{value['channel_type'] or 'unknown'}{' (' + value['panel'] + ')' if value['panel'] else ''}"
    known = {name.replace("_", " "): _shown(one) for name, one in value.items()}
    return "; ".join(f"{name}: {one}" for name, one in known.items() if one is not None)
