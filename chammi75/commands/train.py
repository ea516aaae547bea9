"""``chammi75 train``: a model from a recipe."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from chammi75.commands.options import Json


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(train)


def train(
    recipe: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(metavar="RECIPE", help="A file (YAML), or the name of a recipe that --list shows."),
    ] = None,
    changes: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Argument(metavar="KEY=VALUE…", help="Changes: backbone.name=tiny max_steps=100 store=mini."),
    ] = None,
    print_only: Annotated[
        bool,
        typer.Option("--dry-run", "--print", help="Check and print the whole recipe, with changes, and train nothing."),
    ] = False,
    list_only: Annotated[bool, typer.Option("--list", help="List the recipes that come with chammi75.")] = False,
    as_json: Json = False,
) -> None:
    """Train a model by a recipe, or go on with a run where it stopped.

    A recipe (YAML) says what a model is trained on, how, and where it
    goes; KEY=VALUE changes single values of it. The same command again
    goes on where the run in the recipe's folder (out) stopped. Under
    torchrun or Slurm, all processes train one model.

    \b
    chammi75 train laptop
    chammi75 train training/pretrain/morphem.yaml store=/data/chammi75 out=runs/one
    """
    from chammi75.terminal import print_json, print_line
    from chammi75.training.recipes import load_recipe, recipe_sha256, recipe_text

    if list_only:
        _show_list(as_json)
        return
    if recipe is None:
        raise typer.BadParameter("name one, or ask for --list", param_hint="RECIPE")
    if as_json and not print_only:
        raise typer.BadParameter("goes with --list and --print", param_hint="--json")
    chosen = load_recipe(recipe, changes or ())
    if print_only and as_json:
        print_json(chosen.model_dump(mode="json"))
    elif print_only:
        print_line(f"# sha256 of what it says: {recipe_sha256(chosen)}")
        for line in recipe_text(chosen).splitlines():
            print_line(line)
    else:
        from chammi75.training import train as train_model

        train_model(chosen, on_line=print_line)


def _show_list(as_json: bool) -> None:
    from chammi75.terminal import print_json, table
    from chammi75.training.recipes import load_recipe, recipe_names

    rows = []
    for name in recipe_names():
        recipe = load_recipe(name)
        kind = {"method": recipe.method, "strategy": recipe.strategy, "backbone": recipe.backbone.name}
        rows.append({"recipe": name, **kind, "store": recipe.store, "description": recipe.description})
    if as_json:
        print_json(rows)
    else:
        table(rows)
