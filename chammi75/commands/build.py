"""``chammi75 build`` and ``convert``: from files to a store."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from chammi75.commands.options import DEFAULT_WORKERS, Json, Metadata, Out, Workers
from chammi75.commands.printing import SHOWN_FINDINGS, counted, show_report
from chammi75.errors import ChammiError

if TYPE_CHECKING:
    from chammi75.build.planned import BuildPlan


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(build)
    app.command()(convert)


def build(
    sources: Annotated[list[str], typer.Argument(metavar="DIR|RECIPE…", help="Folders of images, or recipes (YAML).")],
    out: Annotated[Optional[str], typer.Option("--out", help="Folder of the new store: absent or empty.")] = None,  # noqa: UP045
    recipe: Annotated[Optional[Path], typer.Option("--recipe", help="Recipe for the one folder that is given.")] = None,  # noqa: UP045
    naming: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--naming", help="How the microscope names files (imagexpress …), if the recipe does not say it."),
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Show what would be built, and write nothing.")] = False,
    workers: Workers = DEFAULT_WORKERS,
    as_json: Json = False,
) -> None:
    """Build a store of folders of images.

    A recipe (YAML) says what file names mean, what the channels show, and
    what is known of the images. Try --plan first: it shows which files
    become which image and what fits no group, and writes nothing.

    \b
    source: fly0001
    pattern: "{plate}_{well}_s{fov}_w{channel}"
    channels:
      - {name: "1", panel: DAPI}
      - {name: "2", panel: FITC, channel_type: protein}
    record: {biology.organism: Drosophila melanogaster, microscopy.magnification: 20}
    """
    from chammi75.build.execute import build_store
    from chammi75.build.planned import check_limits
    from chammi75.terminal import progress

    if out is None and not plan:
        raise typer.BadParameter("name the new store, or ask for --plan", param_hint="--out")
    if recipe is not None and len(sources) != 1:
        raise typer.BadParameter("a recipe goes with one folder", param_hint="--recipe")
    plans = [_plan(source, recipe, naming, workers) for source in sources]
    if plan or out is None:
        is_grouped = bool(recipe or naming) or all(_is_recipe(source) for source in sources)
        _show_plans(plans, as_json, is_grouped)
        check_limits(plans)
        return
    with progress("build", sum(len(one.images) for one in plans)) as advance:
        report = build_store(plans, out, workers=workers, advance=advance)
    show_report(report, as_json)


def convert(
    published: Annotated[str, typer.Argument(metavar="PUBLISHED", help="A copy of the published CHAMMI-75 layout.")],
    out: Out,
    metadata: Metadata = None,
    codec: Annotated[str, typer.Option("--codec", help="zstd for training, deflate for exchange.")] = "zstd",
    workers: Workers = DEFAULT_WORKERS,
    as_json: Json = False,
) -> None:
    """Turn a copy of the published CHAMMI-75 (metadata table and one PNG per channel) into a store."""
    from chammi75.build.execute import build_store
    from chammi75.build.published import plan_published
    from chammi75.loading.names import resolve_name
    from chammi75.terminal import progress

    if codec not in ("zstd", "deflate"):
        raise typer.BadParameter("zstd or deflate", param_hint="--codec")
    plan = plan_published(resolve_name(published), metadata=metadata, codec=codec)
    with progress("convert", len(plan.images)) as advance:
        report = build_store([plan], out, workers=workers, advance=advance)
    show_report(report, as_json)


def _plan(source: str, recipe_path: Path | None, naming: str | None, workers: int) -> BuildPlan:
    """The plan of a folder, with the recipe given or a plain one; or of a recipe, for the folder that it lies in."""
    from chammi75.build.plan import plan_folder
    from chammi75.build.recipes import load_recipe, with_naming
    from chammi75.files import is_local, local_path
    from chammi75.schemas.recipe import BuildRecipe

    stated = source if recipe_path is None and _is_recipe(source) else recipe_path
    recipe, folder, digest = (BuildRecipe(), None, "") if stated is None else load_recipe(stated)
    if naming is not None:
        recipe, digest = with_naming(recipe, naming), ""  # another recipe than that of the file
    if stated is source:
        source = str(folder)
    elif is_local(source) and not local_path(source).is_dir():
        what = "this is a file, no folder" if local_path(source).exists() else "there is no such folder"
        raise ChammiError(f"{source}: {what} (give a folder of images, or a recipe that ends with .yaml)")
    if folder is None:
        return plan_folder(source, recipe, workers=workers)
    return plan_folder(source, recipe, recipe_folder=str(folder), recipe_sha256=digest, workers=workers)


def _is_recipe(source: str) -> bool:
    return source.lower().endswith((".yaml", ".yml"))


def _show_plans(plans: Sequence[BuildPlan], as_json: bool, is_grouped: bool) -> None:
    from chammi75.build.description import describe
    from chammi75.terminal import human_bytes, print_json, print_line, table

    if as_json:
        everything = [{"source": plan.source, **describe(plan, limit=sys.maxsize)} for plan in plans]
        print_json(everything)
        return
    titles = {
        "images": "Images",
        "groups": "Each image and its files",
        "reconciliations": "Tables and images",
        "kinds": "Findings",
        "findings": "The findings",
    }
    for plan in plans:
        description = describe(plan, limit=SHOWN_FINDINGS)
        size = human_bytes(int(plan.pixel_bytes.sum()))
        print_line(f"{plan.source}: {counted(len(plan.images), 'image')}, {size} of pixels.")
        for row in description["images"]:
            row["bytes"] = human_bytes(row["bytes"])
        for name, title in titles.items():
            if description[name]:
                table(description[name], title=title)
        _say_what_is_left_out("images", len(description["groups"]), len(plan.images))
        _say_what_is_left_out("findings", len(description["findings"]), len(plan.findings))
    if not is_grouped:
        print_line("Without a recipe each file is an image of its own. If channels lie in files of their own, give the")
        print_line(
            "microscope's --naming, or a --recipe whose pattern says how files are named (chammi75 build --help)."
        )
    if any(len(plan.images) for plan in plans):
        print_line("Nothing was written. To build it: the same command with --out STORE in place of --plan.")
    else:
        print_line("Nothing was written, and nothing here makes an image.")


def _say_what_is_left_out(what: str, shown: int, there: int) -> None:
    from chammi75.terminal import print_line

    if shown < there:
        print_line(f"{there - shown} more {what} are not shown; --json lists all.")
