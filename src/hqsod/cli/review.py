"""`hqsod review`, `apply` and `export-dataset`."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Annotated

import typer

from hqsod.cli.root import app
from hqsod.errors import SettingsError
from hqsod.progress import console

DataSet = Annotated[Path, typer.Argument(help="A data set made by hqsod build or hqsod review.")]


@app.command()
def review(
    dest: Annotated[
        Path | None,
        typer.Argument(
            help="A built data set; with --masks, where decisions go: MASKS-review if not told."
        ),
    ] = None,
    images: Annotated[Path | None, typer.Option(help="Any folder of photographs.")] = None,
    masks: Annotated[Path | None, typer.Option(help="The folder of their masks.")] = None,
    candidates: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=DIR", help="Another version of the masks; may be repeated."),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 for any.")] = 8765,
    who: Annotated[
        str | None, typer.Option(help="The reviewer's name, kept with each decision.")
    ] = None,
) -> None:
    """Open a page on which a person judges the doubtful masks."""
    try:
        from hqsod import server
        from hqsod.review.app import LARGEST_BODY, create_app
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"hqsod review without {error.name}", fix="pip install 'hqsod[review]'"
        ) from error
    folder = _linked(dest, images, masks, candidates or [])
    page = create_app(folder, who or _user())
    listening, address = server.listen(host, port)
    typer.echo(f"reviewing {folder}\nopen {address.url}\nstop with Ctrl+C; decisions are kept")
    server.run(server.Guard(page, address, LARGEST_BODY), listening)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user often has no name
        return "unknown"


def _linked(
    dest: Path | None, images: Path | None, masks: Path | None, candidates: list[str]
) -> Path:
    """The data set to review; folders of pictures become one."""
    from hqsod.dataset.manifest import Manifest

    if images is None and masks is None and not candidates:
        if dest is None:
            raise SettingsError("no data set", expected="a built data set, or --images and --masks")
        with Manifest.open(dest):
            return dest
    if images is None or masks is None:
        raise SettingsError(
            "not both of --images and --masks", expected="both", fix="name the other folder"
        )
    from hqsod.review.linked import link

    named = [text.partition("=") for text in candidates]
    if wrong := [text for text, (_, sign, _) in zip(candidates, named, strict=True) if not sign]:
        raise SettingsError(f"--candidates {wrong[0]}", expected="NAME=DIR, such as sam=out/sam")
    folder = dest or masks.absolute().with_name(f"{masks.absolute().name}-review")
    for line in link(folder, images, masks, {name: Path(path) for name, _, path in named}):
        console.print(f"left out: {line}", markup=False, highlight=False, soft_wrap=True)
    return folder


@app.command()
def apply(dest: DataSet) -> None:
    """Write final-masks/ from the decisions; undecided pairs: refined unless flagged."""
    from hqsod.review.apply import apply as run

    done = run(dest)
    counts = ", ".join(f"{count} {version}" for version, count in sorted(done.counts.items()))
    typer.echo(
        f"{sum(done.counts.values())} final masks ({counts or 'none'}), "
        f"{len(done.left_out)} pairs left out; {done.written} written, {done.removed} removed"
    )
    _end(done.failed)


@app.command("export-dataset")
def export_dataset(
    dest: DataSet,
    out: Annotated[
        Path | None, typer.Argument(help="Where the export goes; DEST/exports/FORMAT if not told.")
    ] = None,
    form: Annotated[
        str, typer.Option("--format", help="imagefolder, webdataset or parquet.")
    ] = "imagefolder",
    pairs_in_shard: Annotated[
        int, typer.Option("--shard", min=1, help="Pairs in each shard.")
    ] = 250,
) -> None:
    """Export a data set for training: Hugging Face ImageFolder, WebDataset or Parquet."""
    from hqsod.export_dataset import export_dataset as run

    done = run(dest, form, out, pairs_in_shard)
    typer.echo(
        f"{done.pairs} pairs in {done.shards} shards ({done.written} written) in {done.folder}\n"
        f"masks: {done.masks}"
    )
    if done.stale:
        typer.echo(f"{done.stale} final masks differ from the decisions: run hqsod apply {dest}")
    _end(done.failed)


def _end(failed: tuple[str, ...]) -> None:
    """Name what failed; exit status 1 if anything did."""
    for line in failed:
        console.print(f"failed: {line}", markup=False, highlight=False, soft_wrap=True)
    if failed:
        raise typer.Exit(1)
