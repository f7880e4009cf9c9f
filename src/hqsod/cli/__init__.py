"""The command line: one verb per job.

Each module here holds the verbs of one job and imports that job only when a verb is called, so
that `hqsod --help` is quick and needs no torch.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from hqsod import __version__
from hqsod.errors import HqsodError
from hqsod.progress import console

app = typer.Typer(
    name="hqsod",
    help="High-quality salient object detection: build data sets, train, predict, score, review.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"hqsod {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show it.")
    ] = False,
) -> None:
    """High-quality salient object detection: build data sets, train, predict, score, review."""


def main() -> None:
    """Run the command line; an error is one line on standard error and exit status 1."""
    from hqsod.cli import build, weights  # noqa: F401 (each registers its verbs on `app`)

    debug = "--debug" in sys.argv
    if debug:  # accepted before or after the verb
        sys.argv.remove("--debug")
    try:
        app()
    except HqsodError as error:
        if debug:
            raise
        console.print(f"[bold red]error:[/] {_plain(error)}", soft_wrap=True, highlight=False)
        sys.exit(1)
    except KeyboardInterrupt:
        console.print("interrupted; run the same command again to go on")
        sys.exit(130)


def _plain(error: HqsodError) -> str:
    """The message on one line, safe to print where rich reads `[...]` as markup."""
    from rich.markup import escape

    return escape(" ".join(str(error).split()))
