"""The command line: one verb per job.

Each module here holds the verbs of one job and imports that job only when a verb is called, so
that `hqsod --help` is quick and needs no torch.
"""

from __future__ import annotations

import io
import sys
import warnings

from rich.markup import escape

from hqsod import machine
from hqsod.cli import (
    build,
    evaluate,
    export_dataset,
    predict,
    review,
    serve,
    train,
    upscale,
    weights,
)
from hqsod.cli.root import app
from hqsod.errors import HqsodError
from hqsod.progress import console

# Importing a module registers its verbs on `app`.
VERBS = (build, evaluate, export_dataset, predict, review, serve, train, upscale, weights)


def main() -> None:
    """Run the command line; an error is one line on standard error and exit status 1."""
    warnings.filterwarnings("ignore", module="PIL")  # what matters of it is an error of ours
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # else someone reads it in this process
            stream.reconfigure(errors="backslashreplace")  # no message can end a job
    machine.set_environment()
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
        console.print("interrupted; to continue, run the same command again (train with --resume)")
        sys.exit(130)


def _plain(error: HqsodError) -> str:
    """The message on one line, safe to print where rich reads `[...]` as markup."""
    return escape(" ".join(str(error).split()))
