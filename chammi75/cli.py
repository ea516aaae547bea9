"""The command ``chammi75``: what the library does, for the terminal.

Exit status: 0 done, 1 the work failed (one line says why; ``--debug`` shows all), 2 wrong usage.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from chammi75.errors import ChammiError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chammi75.build.execute import BuildReport
    from chammi75.build.planned import BuildPlan
    from chammi75.loading.layouts import Layout
    from chammi75.schemas.manifest import StoreManifest

app = typer.Typer(
    name="chammi75",
    help="The world's public microscopy images, usable as one dataset.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: rich costs 0.4 s before the first line
    context_settings={"help_option_names": ["-h", "--help"]},
)

_Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
_Out = Annotated[str, typer.Option("--out", help="Folder of the new store: absent or empty. A path or any fsspec URL.")]
_Workers = Annotated[
    int,
    typer.Option(
        "--workers",
        min=1,
        help="Processes and threads; the result does not depend on it.",
        show_default="as many as cores, 8 at most",
    ),
]
_Metadata = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--metadata", help="Which metadata table of a published layout, if there are several."),
]
_DEFAULT_WORKERS = min(8, os.cpu_count() or 1)
_SHOWN_FINDINGS = 20
_INTERRUPTED = 130  # what shells expect of a program that Ctrl-C ended


@app.callback(invoke_without_command=True)
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error came from.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    del debug  # read by main(), which has the arguments before anything can fail
    if version:
        from chammi75.version import __version__

        print(f"chammi75 {__version__}")
        raise typer.Exit


@app.command()
def quickstart(
    out: Annotated[Path, typer.Option("--out", help="Folder to work in; new or empty.")] = Path("chammi75-quickstart"),
    size: Annotated[float, typer.Option("--size", min=0.01, help="Factor on the number of images.")] = 1.0,
    workers: _Workers = _DEFAULT_WORKERS,
) -> None:
    """Build, check, filter, stream and picture the embedded dataset, offline."""
    from time import perf_counter

    from chammi75.loading import load_dataset
    from chammi75.loading.gallery import shown_count, write_gallery
    from chammi75.loading.layouts import open_layout
    from chammi75.loading.summary import summarise
    from chammi75.mini.dataset import build_mini
    from chammi75.store.verify import verify as verify_store
    from chammi75.terminal import human_bytes, print_line, progress, table

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ChammiError(f"{out} is not empty: give another folder with --out, or remove this one")
    start = perf_counter()
    with progress("simulate and build mini") as advance:
        report = build_mini(out / "sources", out / "store", size=size, workers=workers, advance=advance)
    manifest = report.manifest
    print_line(
        f"Built {out / 'store'}: {_held(manifest)},"
        f" {human_bytes(manifest.pixel_bytes)} of pixels in {human_bytes(_stored_bytes(manifest))}"
        f" ({perf_counter() - start:.1f} s)."
    )
    checked = verify_store(str(out / "store"))
    if not checked.is_sound:
        raise ChammiError(
            f"{out / 'store'} was damaged while it was written: {checked.damages[0].reason}; is the disk sound?"
        )
    print_line(f"Verified {checked.files} files, {human_bytes(checked.bytes)}: every byte is as the manifest says.")
    layout = open_layout(str(out / "store"))
    table(_summary_rows(summarise(layout)), title="Images by study, organism and channels")
    filtered = load_dataset(str(out / "store"), streaming=True, organism="Homo sapiens", channel_type=["nucleus", "er"])
    sample = next(iter(filtered))
    crop = sample["image"].crop(0, 0, 256, 256)
    print_line(f"Streamed the human images with a nucleus and an er channel; the first is {sample['image_id']}:")
    print_line(f"  {sample['image']!r}")
    print_line(f"  a 256 x 256 crop of all its channels: {crop.shape}, {crop.dtype}, mean {crop.mean():.1f}")
    with progress("draw the gallery", shown_count(layout, 6)) as advance:
        lead = "Simulated microscopy: every image was computed, and its true cell positions are known."
        write_gallery(layout, out / "gallery.html", title="mini", lead=lead, per_study=6, advance=advance)
    print_line(f"Gallery: {out / 'gallery.html'} (open it in a browser).")
    print_line(f"The source files with their recipes are in {out / 'sources'}; mini is simulated, not measured.")
    print_line("Next, in Python:")
    print_line("  from chammi75 import load_dataset")
    print_line(f"  dataset = load_dataset({str(out / 'store')!r}, streaming=True, channel_type='nucleus')")
    print_line("Or your own images: chammi75 build FOLDER --plan shows what would be built of them.")


@app.command()
def build(
    sources: Annotated[list[str], typer.Argument(metavar="DIR|RECIPE…", help="Folders of images, or recipes (YAML).")],
    out: Annotated[Optional[str], typer.Option("--out", help="Folder of the new store: absent or empty.")] = None,  # noqa: UP045
    recipe: Annotated[Optional[Path], typer.Option("--recipe", help="Recipe for the one folder that is given.")] = None,  # noqa: UP045
    plan: Annotated[bool, typer.Option("--plan", help="Show what would be built, and write nothing.")] = False,
    workers: _Workers = _DEFAULT_WORKERS,
    as_json: _Json = False,
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
    from chammi75.terminal import progress

    if out is None and not plan:
        raise typer.BadParameter("name the new store, or ask for --plan", param_hint="--out")
    if recipe is not None and len(sources) != 1:
        raise typer.BadParameter("a recipe goes with one folder", param_hint="--recipe")
    plans = [_plan(source, recipe, workers) for source in sources]
    if plan or out is None:
        with_recipe = recipe is not None or all(_is_recipe(source) for source in sources)
        _show_plans(plans, as_json, with_recipe)
        return
    with progress("build", sum(len(one.images) for one in plans)) as advance:
        report = build_store(plans, out, workers=workers, advance=advance)
    _show_report(report, as_json)


@app.command()
def convert(
    published: Annotated[str, typer.Argument(metavar="PUBLISHED", help="A copy of the published CHAMMI-75 layout.")],
    out: _Out,
    metadata: _Metadata = None,
    codec: Annotated[str, typer.Option("--codec", help="zstd for training, deflate for exchange.")] = "zstd",
    workers: _Workers = _DEFAULT_WORKERS,
    as_json: _Json = False,
) -> None:
    """Turn a copy of the published CHAMMI-75 (metadata table and one PNG per channel) into a store."""
    from chammi75.build.execute import build_store
    from chammi75.build.published import plan_published
    from chammi75.terminal import progress

    if codec not in ("zstd", "deflate"):
        raise typer.BadParameter("zstd or deflate", param_hint="--codec")
    plan = plan_published(published, metadata=metadata, codec=codec)
    with progress("convert", len(plan.images)) as advance:
        report = build_store([plan], out, workers=workers, advance=advance)
    _show_report(report, as_json)


@app.command()
def info(
    store: Annotated[str, typer.Argument(metavar="STORE", help="A store, or a copy of the published layout.")],
    metadata: _Metadata = None,
    as_json: _Json = False,
) -> None:
    """Say what a store holds."""
    from chammi75.loading.layouts import StoreLayout, open_layout
    from chammi75.loading.summary import channel_counts, summarise
    from chammi75.terminal import human_bytes, print_json, print_line, table

    layout = open_layout(store, metadata=metadata)
    rows = summarise(layout)
    if as_json:
        print_json(rows)
        return
    print_line(layout.url)
    if isinstance(layout, StoreLayout):
        manifest = layout.store.manifest
        size = _stored_bytes(manifest)
        number = f"{_held(manifest)}, {_counted(len(manifest.shards), 'shard')}"
        print_line(f"{number}; written by {manifest.created_by}")
        stored = f"{human_bytes(manifest.pixel_bytes)} of pixels in {human_bytes(size)} ({manifest.codec})"
        print_line(f"{stored}; content {manifest.content_sha256[:16]}…")
    else:
        _show_published(layout)
    table(_summary_rows(rows), title="Images by study, organism and channels")
    counts = channel_counts(layout)
    table(
        [{"channel type": name, "planes": number} for name, number in counts.most_common()],
        title="Planes by channel",
    )


@app.command()
def verify(
    store: Annotated[str, typer.Argument(metavar="STORE", help="A store.")],
    as_json: _Json = False,
) -> None:
    """Check every byte of a store, and name the images that a damage hits."""
    from dataclasses import asdict

    from chammi75.store.reader import open_store
    from chammi75.store.verify import verify as verify_store
    from chammi75.terminal import human_bytes, print_json, print_line, progress, table

    manifest = open_store(store).manifest
    entries = (*manifest.shards, manifest.index.parquet, manifest.index.arrow)
    with progress("verify", sum(entry.bytes for entry in entries), "B") as advance:
        report = verify_store(store, advance=advance)
    if as_json:
        print_json([asdict(damage) for damage in report.damages])
    elif report.is_sound:
        print_line(
            f"{store}: sound. {_counted(report.images, 'image')}, {report.files} files, {human_bytes(report.bytes)}."
        )
    else:
        table([asdict(damage) for damage in report.damages], title=f"{store} is damaged")
    if not report.is_sound:
        images = {damage.image_id for damage in report.damages if damage.image_id}
        raise ChammiError(f"{store} is damaged: {len(report.damages)} findings, {len(images)} images are hit")


@app.command()
def gallery(
    store: Annotated[str, typer.Argument(metavar="STORE", help="A store, or a copy of the published layout.")],
    out: Annotated[Path, typer.Option("--out", help="The HTML file.")],
    metadata: _Metadata = None,
    per_study: Annotated[int, typer.Option("--per-study", min=1, help="Images shown of each study.")] = 6,
) -> None:
    """Write a self-contained page with pictures of every study."""
    from chammi75.loading.gallery import shown_count, write_gallery
    from chammi75.loading.layouts import open_layout
    from chammi75.terminal import print_line, progress

    layout = open_layout(store, metadata=metadata)
    with progress("draw the gallery", shown_count(layout, per_study)) as advance:
        shown = write_gallery(layout, out, title=Path(store).name or store, per_study=per_study, advance=advance)
    print_line(f"{out}: {shown} of {len(layout)} images.")


def _plan(source: str, recipe_path: Path | None, workers: int) -> BuildPlan:
    """The plan of a folder, with the recipe given or a plain one; or of a recipe, for the folder that it lies in."""
    from chammi75.build.plan import plan_folder
    from chammi75.build.recipes import load_recipe
    from chammi75.files import is_local, local_path
    from chammi75.schemas.recipe import BuildRecipe

    if recipe_path is None and _is_recipe(source):
        recipe, folder, digest = load_recipe(source)
        return plan_folder(str(folder), recipe, recipe_folder=str(folder), recipe_sha256=digest, workers=workers)
    if is_local(source) and not local_path(source).is_dir():
        raise ChammiError(
            f"{source}: there is no such folder (give a folder of images, or a recipe that ends with .yaml)"
        )
    if recipe_path is None:
        return plan_folder(source, BuildRecipe(), workers=workers)
    recipe, folder, digest = load_recipe(recipe_path)
    return plan_folder(source, recipe, recipe_folder=str(folder), recipe_sha256=digest, workers=workers)


def _is_recipe(source: str) -> bool:
    return source.lower().endswith((".yaml", ".yml"))


def _summary_rows(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**row, "channels": ", ".join(word or "unknown" for word in row["channels"])} for row in rows]


def _show_plans(plans: Sequence[BuildPlan], as_json: bool, with_recipe: bool) -> None:
    from chammi75.build.description import describe
    from chammi75.terminal import human_bytes, print_json, print_line, table

    if as_json:
        everything = [{"source": plan.source, **describe(plan, limit=sys.maxsize)} for plan in plans]
        print_json(everything)
        return
    titles = {
        "images": "Images",
        "groups": "Each image and its files",
        "kinds": "Findings",
        "findings": "The findings",
    }
    for plan in plans:
        description = describe(plan, limit=_SHOWN_FINDINGS)
        size = human_bytes(int(plan.pixel_bytes.sum()))
        print_line(f"{plan.source}: {_counted(len(plan.images), 'image')}, {size} of pixels.")
        for row in description["images"]:
            row["bytes"] = human_bytes(row["bytes"])
        for name, title in titles.items():
            if description[name]:
                table(description[name], title=title)
        _say_what_is_left_out("images", len(description["groups"]), len(plan.images))
        _say_what_is_left_out("findings", len(description["findings"]), len(plan.findings))
    if not with_recipe:
        print_line("Without a recipe each file is an image of its own. If channels lie in files of their own, write a")
        print_line("recipe whose pattern says how files are named (chammi75 build --help), and give it with --recipe.")
    print_line("Nothing was written. To build it: the same command with --out STORE in place of --plan.")


def _say_what_is_left_out(what: str, shown: int, there: int) -> None:
    from chammi75.terminal import print_line

    if shown < there:
        print_line(f"{there - shown} more {what} are not shown; --json lists all.")


def _show_report(report: BuildReport, as_json: bool) -> None:
    from dataclasses import asdict

    from chammi75.terminal import human_bytes, print_json, print_line

    manifest = report.manifest
    if as_json:
        print_json(
            {
                "store": report.store,
                "images": manifest.images,
                "planes": manifest.planes,
                "failed_images": report.failed_images,
                "content_sha256": manifest.content_sha256,
                "findings": [asdict(finding) for finding in report.findings],
            }
        )
        return
    print_line(
        f"{report.store}: {_held(manifest)}, {human_bytes(manifest.pixel_bytes)}"
        f" of pixels in {human_bytes(_stored_bytes(manifest))}, {_counted(len(manifest.shards), 'shard')}."
    )
    _show_findings(report)


def _show_findings(report: BuildReport) -> None:
    from collections import Counter

    from chammi75.build.execute import REPORT
    from chammi75.files import join_url
    from chammi75.terminal import print_line, table

    findings = report.findings
    if not findings:
        return
    counts = Counter(finding.kind for finding in findings)
    words = ", ".join(f"{number} {kind}" for kind, number in counts.items())
    print_line(f"{_counted(len(findings), 'finding')} ({words}), told in full in {join_url(report.store, REPORT)}")
    serious = [finding for finding in findings if finding.kind != "note"] or list(findings)
    rows = [{"kind": finding.kind, "file or image": finding.path, "reason": finding.reason} for finding in serious]
    table(
        rows[:_SHOWN_FINDINGS],
        title="Findings" if len(rows) <= _SHOWN_FINDINGS else f"The first {_SHOWN_FINDINGS} findings",
    )


def _stored_bytes(manifest: StoreManifest) -> int:
    return sum(shard.bytes for shard in manifest.shards)


def _held(manifest: StoreManifest) -> str:
    return f"{_counted(manifest.images, 'image')}, {_counted(manifest.planes, 'plane')}"


def _counted(number: int, word: str) -> str:
    return f"1 {word}" if number == 1 else f"{number} {word}s"


def _show_published(layout: Layout) -> None:
    from chammi75.terminal import print_line

    found = layout.table  # type: ignore[attr-defined]
    print_line(f"The published layout; {len(layout)} images by {found.metadata_url}")
    if found.counts["unresolved_rows"]:
        print_line(
            f"{found.counts['unresolved_rows']} rows of the table have no file that is stated anywhere;"
            " they are left out."
        )


def main() -> None:
    """Run the command; errors of ours are one line and exit status 1."""
    debug = "--debug" in sys.argv[1:]
    if debug:  # wherever it stands on the line
        sys.argv = [sys.argv[0], "--debug", *(word for word in sys.argv[1:] if word != "--debug")]
    from chammi75.terminal import spelled

    try:
        app()
    except SystemExit as end:
        if end.code == _INTERRUPTED:
            print("chammi75: stopped by Ctrl-C; what was written so far is no store, begin again", file=sys.stderr)
        raise
    except (ChammiError, OSError) as error:
        if debug:
            raise
        print(spelled(f"chammi75: {error}", sys.stderr), file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
