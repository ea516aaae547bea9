"""The command ``chammi75``: what the library does, for the terminal.

Exit status: 0 done, 1 the work failed (one line says why; ``--debug`` shows all), 2 wrong usage.
"""

from __future__ import annotations

import sys
import warnings
from typing import Annotated, Any

import typer

from chammi75.commands import bench, build, catalog, embed, export, moving, quickstart, store, subset, train
from chammi75.errors import ChammiError, ChammiWarning

app = typer.Typer(
    name="chammi75",
    help="The world's public microscopy images, usable as one dataset.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: rich costs 0.4 s before the first line
    context_settings={"help_option_names": ["-h", "--help"]},
)

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


for group in (quickstart, catalog, build, store, subset, moving, export, bench, train, embed):
    group.register(app)


def main() -> None:
    """Run the command; errors of ours are one line and exit status 1."""
    debug = "--debug" in sys.argv[1:]
    if debug:  # wherever it stands on the line
        sys.argv = [sys.argv[0], "--debug", *(word for word in sys.argv[1:] if word != "--debug")]
    from chammi75.terminal import spelled

    warnings.showwarning = _show_warning
    try:
        app()
    except SystemExit as end:
        if end.code == _INTERRUPTED:
            print(
                "chammi75: stopped by Ctrl-C; what was written so far is not whole: run the same command again",
                file=sys.stderr,
            )
        raise
    except (ChammiError, OSError) as error:
        if debug:
            raise
        print(spelled(f"chammi75: {error}", sys.stderr), file=sys.stderr)
        raise SystemExit(1) from None


def _show_warning(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
    """Warnings of ours are one line, without the line of code that gave them; others stay as they are."""
    if issubclass(category, ChammiWarning):
        from chammi75.terminal import spelled

        print(spelled(f"chammi75: warning: {message}", sys.stderr), file=sys.stderr)
    else:
        _DEFAULT_SHOW(message, category, *where, **more)


_DEFAULT_SHOW = warnings.showwarning

if __name__ == "__main__":
    main()
