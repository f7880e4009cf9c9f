"""`hqsod weights`: list, fetch and verify weight files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Column, Table

from hqsod import extras
from hqsod.cli.root import app
from hqsod.errors import SettingsError, WeightsError

group = typer.Typer(help="List, fetch, verify and convert weight files.", no_args_is_help=True)
app.add_typer(group, name="weights")


@group.command("list")
def list_files() -> None:
    """Show every weight file hqsod knows by name: what is at hand, licences, published scores."""
    from hqsod import weights
    from hqsod.evaluate.report.published import scores_of

    about = Column("network; licence; published scores", overflow="fold")
    table = Table(Column("name", no_wrap=True), "size", "at hand", about, box=SIMPLE)
    for file in weights.registry().values():
        size = f"{file.size / 1e6:.0f} MB" if file.size else "?"
        there = "yes" if file.path.is_file() else "no"
        scores = scores_of(file.row) if file.row else ""
        table.add_row(
            file.name, size, there, "; ".join(filter(None, (file.network, file.licence, scores)))
        )
    Console().print(table)
    typer.echo(f"Downloaded files are in {weights.cache_folder()}.")


@group.command()
def fetch(
    names: Annotated[
        list[str], typer.Argument(metavar="NAMES", help="Names from `hqsod weights list`.")
    ],
    offline: Annotated[bool, typer.Option(help="Only look in the cache.")] = False,
) -> None:
    """Download weight files into the cache and check their hashes."""
    from hqsod import weights

    if unknown := [name for name in names if name not in weights.registry()]:
        raise WeightsError(
            f"weights {unknown[0]!r}", expected=f"one of {', '.join(weights.registry())}"
        )
    for name in names:
        path = weights.resolve(name, offline=offline)
        typer.echo(f"{name}: {path}; sha256 {weights.sha256(path)}")


@group.command()
def verify() -> None:
    """Check the hash of every file at hand; exit status 1 when one is damaged."""
    from hqsod import weights

    damaged = False
    for file in weights.registry().values():
        if not file.path.is_file():
            typer.echo(f"{file.name}: not at hand")
        elif weights.is_intact(file.path, file.digest):
            typer.echo(f"{file.name}: intact")
        else:
            damaged = True
            typer.echo(f"{file.name}: DAMAGED; delete {file.path} and fetch it again")
    if damaged:
        raise typer.Exit(1)


@group.command()
def describe(
    network: Annotated[
        Path, typer.Argument(metavar="NETWORK", help="An ONNX file that hqsod did not export.")
    ],
    mean: Annotated[
        str, typer.Option(help="Subtracted from red, green and blue: three numbers, or one.")
    ] = "0",
    std: Annotated[str, typer.Option(help="Then divided by: three numbers, or one.")] = "1",
    size: Annotated[
        int | None, typer.Option(help="Side of the square it takes, if the graph does not fix it.")
    ] = None,
    divisor: Annotated[
        str,
        typer.Option(
            help="What levels from 0 to 255 are divided by first: a number, or maximum for each "
            "image's highest."
        ),
    ] = "255",
    output: Annotated[
        str | None, typer.Option(help="The output that is the map; by default the first.")
    ] = None,
) -> None:
    """Describe how an ONNX file's images are prepared, in a JSON file beside it."""
    from hqsod.addresses import write_bytes
    from hqsod.inference import onnx_network, onnx_preparation

    try:
        given = onnx_preparation.Preparation(
            size,
            "maximum" if divisor == "maximum" else float(divisor),
            _channels(mean),
            _channels(std),
            output=output,
        )
    except ValueError as error:
        raise SettingsError(
            str(error), expected="numbers such as --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225"
        ) from error
    found, lowest, highest = onnx_network.describe(network, given)
    beside = onnx_preparation.file_beside(network)
    write_bytes(beside, onnx_preparation.to_json(found))
    typer.echo(
        f"{beside}: images of {found.size} x {found.size}; on noise, values run from {lowest:.3g} "
        f"to {highest:.3g}, so they are {found.values}"
    )


def _channels(text: str) -> tuple[float, float, float]:
    """Three numbers, or one for all three channels; ValueError for anything else."""
    numbers = [float(part) for part in text.split(",")]
    red, green, blue = numbers * 3 if len(numbers) == 1 else numbers
    return red, green, blue


@group.command()
def convert(
    published: Annotated[
        Path, typer.Argument(metavar="PUBLISHED", help="A PurNet checkpoint of stage 1, 2 or 3.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The .safetensors file to write.")],
) -> None:
    """Convert a published PurNet checkpoint to hqsod's format, and check it."""
    extras.require("torch", "hqsod weights convert")
    from hqsod import weights
    from hqsod.models.purnet import is_published, load_purnet

    state = weights.load(published)
    if not is_published(state):
        raise WeightsError(
            f"{published}: not the published tensor names", expected="a published PurNet file"
        )
    network = load_purnet(state)
    source = f"{published.name} sha256 {weights.sha256(published)}"
    weights.save(out, network.state_dict(), {"network": "PurNet", "source": source})
    count = sum(parameter.numel() for parameter in network.parameters())
    stage = "2 or 3" if network.promotion else "1"
    typer.echo(f"{out}: PurNet of stage {stage}, {count / 1e6:.1f} M parameters")
