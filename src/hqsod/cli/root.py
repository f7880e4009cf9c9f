"""The command itself: its name, its options, and where verbs register."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hqsod import __version__
from hqsod.progress import console

if TYPE_CHECKING:
    from hqsod.image_jobs import Outcome
    from hqsod.inference.runtime import Runtime

# Arguments and options that several verbs take.
DataSet = Annotated[
    Path, typer.Argument(metavar="DEST", help="A data set made by hqsod build or hqsod review.")
]
Weights = Annotated[
    str | None,
    typer.Option(
        help="A name from `hqsod weights list`, the folder of a training run, a .safetensors or "
        ".onnx file, or a published PurNet checkpoint."
    ),
]
Size = Annotated[
    int | None,
    typer.Option(
        help="Side of the square that images are resized to; by default the size the weights "
        "were trained at, or 320."
    ),
]
Batch = Annotated[
    int | None,
    typer.Option(
        help="Images that go through the network together; by default 1 on a CPU, 16 on a GPU."
    ),
]
UpscalerName = Annotated[
    str | None, typer.Option(help="swinir-l, swinir-m, hqsod-x4-small, bicubic, or a path.")
]
RefinerName = Annotated[
    str | None, typer.Option(help="cascadepsp, hqsod-refiner-small, guided, none, or a path.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Precision = Annotated[str, typer.Option(help="auto, float32 or bf16.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Overwrite existing results.")]

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
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """High-quality salient object detection: build data sets, train, predict, score, review."""


def choose_runtime(device: str, precision: str) -> Runtime:
    """The device and precision asked for; a line says which they are."""
    from hqsod.inference import runtime

    chosen = runtime.choose_runtime(device, precision)
    typer.echo(f"device: {chosen}")
    return chosen


def say_weights(role: str, name: str, digest: str) -> None:
    """Say which network has a role, and which weights."""
    from hqsod.weights import describe

    weights = f"sha256 {digest[:16]}" if digest else "no weights"
    typer.echo(f"{role}: {describe(name)}; {weights}")


def finish(outcome: Outcome) -> None:
    """Say how a job over a list of images went; exit status 1 when one failed."""
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
