"""``chammi75 subset``: choose images of a store, and write down which."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from chammi75.commands.options import Json, Metadata
from chammi75.commands.printing import counted
from chammi75.errors import ChammiError

if TYPE_CHECKING:
    from chammi75.loading.subsets import Subset

_Words = Optional[list[str]]  # noqa: UP045
_Text = Optional[str]  # noqa: UP045
_Count = Optional[int]  # noqa: UP045
_SHOWN_GROUPS = 40


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(subset)


def subset(
    store: Annotated[
        list[str], typer.Argument(metavar="STORE…", help="Stores, copies of the published layout, or mini.")
    ],
    out: Annotated[str, typer.Option("--out", metavar="FILE.yaml", help="The recipe file to write.")],
    recipe: Annotated[
        _Text, typer.Option("--recipe", help="Run this recipe (a file, or a shipped one by name), not the options.")
    ] = None,
    where: Annotated[_Text, typer.Option("--where", help="SQL condition over the record.")] = None,
    organism: Annotated[_Words, typer.Option("--organism", help="Any of these. [repeatable]")] = None,
    channel_type: Annotated[_Words, typer.Option("--channel-type", help="Has all of these. [repeatable]")] = None,
    study: Annotated[_Words, typer.Option("--study", help="Any of these. [repeatable]")] = None,
    platform: Annotated[_Words, typer.Option("--platform", help="Any of these. [repeatable]")] = None,
    cell_line: Annotated[_Words, typer.Option("--cell-line", help="Any of these. [repeatable]")] = None,
    microscopy_type: Annotated[_Words, typer.Option("--microscopy-type", help="Any of these. [repeatable]")] = None,
    magnification: Annotated[_Text, typer.Option("--magnification", help="A number (20) or a range (20:63).")] = None,
    num_channels: Annotated[_Text, typer.Option("--num-channels", help="A number (5) or a range (1:5).")] = None,
    license: Annotated[
        _Words, typer.Option("--license", help="Any of these licences, or sets: commercial … [repeatable]")
    ] = None,
    select_channels: Annotated[
        _Words, typer.Option("--select-channels", help="Keep only these planes. [repeatable]")
    ] = None,
    from_split: Annotated[
        str, typer.Option("--from-split", help="Split of the store to take from; all for all of them.")
    ] = "train",
    group_by: Annotated[
        _Words, typer.Option("--group-by", help="Field that makes groups (experiment.study). [repeatable]")
    ] = None,
    largest_groups: Annotated[
        _Count, typer.Option("--largest-groups", min=1, help="Only so many groups, the largest.")
    ] = None,
    per_group: Annotated[_Count, typer.Option("--per-group", min=1, help="Images per group, at most.")] = None,
    total: Annotated[_Count, typer.Option("--total", min=1, help="Images in all, at most.")] = None,
    balance: Annotated[
        str, typer.Option("--balance", help="How group sizes are evened out: none, log, sqrt or equal.")
    ] = "none",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of draw and split.")] = 0,
    split: Annotated[
        _Text, typer.Option("--split", help="Cut it in parts, a file each: train=0.8,test=0.2. Needs --by.")
    ] = None,
    by: Annotated[_Words, typer.Option("--by", help="What no two parts share (experiment.plate). [repeatable]")] = None,
    stratify: Annotated[_Text, typer.Option("--stratify", help="Field that the parts have in like shares.")] = None,
    name: Annotated[_Text, typer.Option("--name", help="Name of the subset; that of the file if left out.")] = None,
    description: Annotated[_Text, typer.Option("--description", help="What it is for.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that say something else.")] = False,
    metadata: Metadata = None,
    as_json: Json = False,
) -> None:
    """Choose images by filters and draws, and write a recipe that finds the same ones everywhere."""
    from chammi75.loading.subsets import Subset
    from chammi75.terminal import print_json

    filters = {
        "organism": organism,
        "channel_type": channel_type,
        "study": study,
        "platform": platform,
        "cell_line": cell_line,
        "microscopy_type": microscopy_type,
        "magnification": _numbers("magnification", magnification),
        "num_channels": _numbers("num-channels", num_channels),
        "license": license,
        "select_channels": select_channels,
    }
    chosen: dict[str, Any] = {key: wanted for key, wanted in filters.items() if wanted}
    draws = {"group_by": group_by, "largest_groups": largest_groups, "per_group": per_group, "total": total}
    chosen |= {key: wanted for key, wanted in {**draws, "where": where}.items() if wanted}
    if len(chosen.get("group_by", ())) == 1:
        (chosen["group_by"],) = chosen["group_by"]
    if split is not None and not by:
        raise typer.BadParameter("say what no two parts may share: --by experiment.plate", param_hint="--split")
    if by and split is None:
        raise typer.BadParameter("say which parts: --split train=0.8,test=0.2", param_hint="--by")
    if stratify and split is None:
        raise typer.BadParameter("parts are stratified: say which, --split train=0.8,test=0.2", param_hint="--stratify")
    if recipe is not None:
        if chosen or balance != "none" or from_split != "train":
            raise typer.BadParameter("a recipe says what to choose: leave the other options out", param_hint="--recipe")
        found = Subset.load(recipe, store, metadata=metadata)
        renamed = {key: word for key, word in {"name": name, "description": description}.items() if word}
        found = Subset(found.recipe.model_copy(update=renamed), found.pool)
    else:
        found = Subset.build(
            store,
            split=None if from_split == "all" else from_split,
            balance=balance,  # type: ignore[arg-type]  # the recipe's schema checks it
            seed=seed,
            name=name or Path(out).stem,
            description=description,
            metadata=metadata,
            **chosen,
        )
    parts = {"": found}
    if split is not None and by:
        parts = found.split(_fractions(split), by=by if len(by) > 1 else by[0], seed=seed, stratify=stratify)
    written = [(part.save(_part_file(out, key), overwrite=overwrite), part) for key, part in parts.items()]
    if as_json:
        print_json([_row(file, part) for file, part in written])
        return
    for file, part in written:
        _show(file, part)


def _row(file: str, found: Subset) -> dict[str, Any]:
    return {
        "file": file,
        "images": len(found),
        "images_sha256": found.images_sha256,
        "store_sha256": found.store_sha256,
        "licenses": found.licenses,
        "groups": found.count_by(found.recipe.group_by or "experiment.study"),
    }


def _show(file: str, found: Subset) -> None:
    from chammi75.terminal import print_line, table

    print_line(f"{file}: {counted(len(found), 'image')}, ids {found.images_sha256[:16]}…")
    groups = found.count_by(found.recipe.group_by or "experiment.study")
    shown = groups[:_SHOWN_GROUPS]
    more = f" ({len(groups)}, of which the first {len(shown)} are shown)" if len(shown) < len(groups) else ""
    table(shown, title=f"Images by group{more}")
    table(found.licenses, title="Licences")


def _part_file(out: str, part: str) -> str:
    """``mine.yaml`` and ``train`` make ``mine-train.yaml``."""
    if not part:
        return out
    stem, dot, ending = out.rpartition(".")
    return f"{stem}-{part}{dot}{ending}" if stem else f"{out}-{part}"


def _fractions(text: str) -> dict[str, float]:
    """``train=0.8,test=0.2``."""
    fractions: dict[str, float] = {}
    for word in text.split(","):
        key, equals, number = (part.strip() for part in word.partition("="))
        if not equals or not key or key in fractions or re.fullmatch(r"\d*\.?\d+", number) is None:
            raise typer.BadParameter(f"{text!r} is not written like train=0.8,test=0.2", param_hint="--split")
        fractions[key] = float(number)
    return fractions


def _numbers(option: str, text: str | None) -> Any:
    """``20`` or ``20:63``, open where an end is left out."""
    if text is None:
        return None
    low, colon, high = text.partition(":")
    try:
        if not colon:
            return float(text)
        ends = {"min": float(low) if low else None, "max": float(high) if high else None}
    except ValueError as error:
        raise typer.BadParameter(
            f"{text!r} is neither a number nor a range (20:63)", param_hint=f"--{option}"
        ) from error
    if low or high:
        return {end: number for end, number in ends.items() if number is not None}
    raise ChammiError(f"--{option} {text!r}: a range has one end at least (20:, :63 or 20:63)")
