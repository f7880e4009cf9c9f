"""The command itself: its name, its options, and where verbs register."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hqsod import __version__
from hqsod.progress import console

if TYPE_CHECKING:
    from hqsod.files import Outcome

# Arguments and options that several verbs take.
DataSet = Annotated[Path, typer.Argument(help="A data set made by hqsod build or hqsod review.")]
Weights = Annotated[
    str | None,
    typer.Option(
        help="A name, a run's folder, .safetensors, .onnx, or a published PurNet checkpoint."
    ),
]
Size = Annotated[
    int | None, typer.Option(help="Side pictures are brought to; 320 if weights do not say.")
]
Batch = Annotated[int | None, typer.Option(help="Pictures at once; 1 on a CPU, 16 on a GPU.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Precision = Annotated[str, typer.Option(help="auto, float32 or bf16.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Make again what is there.")]

# Said before the first cut-out.
CUT_OUTS = "cut-outs: pymatting, which compiles for a minute on its first use"

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


def finish(outcome: Outcome) -> None:
    """Say how a job over pictures went; exit status 1 when one failed."""
    typer.echo(str(outcome))
    if outcome.failed:
        raise typer.Exit(1)


def end(failed: Sequence[str]) -> None:
    """Name what failed, a line each; exit status 1 if anything did."""
    for line in failed:
        console.print(f"failed: {line}", markup=False, highlight=False, soft_wrap=True)
    if failed:
        raise typer.Exit(1)


def counted(number: int, noun: str) -> str:
    """A number with its noun, in the plural where it should be."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
