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
from hqsod.errors import WeightsError

group = typer.Typer(help="List, fetch, verify and convert weight files.", no_args_is_help=True)
app.add_typer(group, name="weights")


@group.command("list")
def list_files() -> None:
    """Show every weight file hqsod knows by name, and whether it is at hand."""
    from hqsod import weights

    table = Table(Column("name", no_wrap=True), "size", "at hand", "network", "licence", box=SIMPLE)
    for file in weights.registry().values():
        size = f"{file.size / 1e6:.0f} MB" if file.size else "?"
        there = "yes" if file.path.is_file() else "no"
        table.add_row(file.name, size, there, file.network, file.licence)
    Console().print(table)
    typer.echo(f"Downloaded files lie in {weights.cache_folder()}.")


@group.command()
def fetch(
    names: Annotated[list[str], typer.Argument(help="Names from `hqsod weights list`.")],
    offline: Annotated[bool, typer.Option(help="Only look in the cache.")] = False,
) -> None:
    """Download weight files into the cache and check their hashes."""
    from hqsod import weights

    if unknown := [name for name in names if name not in weights.registry()]:
        raise WeightsError(
            f"weights {unknown[0]!r}", expected=f"one of {', '.join(weights.registry())}"
        )
    for name in names:
        typer.echo(f"{name}: {weights.resolve(name, offline=offline)}")


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
def convert(
    published: Annotated[Path, typer.Argument(help="A PurNet checkpoint of stage 1, 2 or 3.")],
    out: Annotated[Path, typer.Argument(help="The .safetensors file to write.")],
) -> None:
    """Turn a published PurNet checkpoint into a file of ours, checked on the way."""
    extras.require("torch", "hqsod weights convert")
    from hqsod import weights
    from hqsod.models.purnet import is_published, load_purnet

    state = weights.load(published)
    if not is_published(state):
        raise WeightsError(
            f"{published}: not in the published naming", expected="a published PurNet file"
        )
    network = load_purnet(state)
    source = f"{published.name} sha256 {weights.sha256(published)}"
    weights.save(out, network.state_dict(), {"network": "PurNet", "source": source})
    count = sum(parameter.numel() for parameter in network.parameters())
    stage = "2 or 3" if network.promotion else "1"
    typer.echo(f"{out}: PurNet of stage {stage}, {count / 1e6:.1f} M parameters")
