"""`hqsod export-dataset`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hqsod.cli.root import DataSet, app, counted, end


@app.command("export-dataset")
def export_dataset(
    dest: DataSet,
    out: Annotated[
        Path | None,
        typer.Argument(
            metavar="OUT", help="Folder of the export; DEST/exports/FORMAT where it is left out."
        ),
    ] = None,
    form: Annotated[
        str, typer.Option("--format", help="imagefolder, webdataset, parquet or coco.")
    ] = "imagefolder",
    pairs_in_shard: Annotated[
        int, typer.Option("--shard", min=1, help="Pairs in each shard; coco has no shards.")
    ] = 250,
    validation: Annotated[
        float,
        typer.Option(
            min=0, max=0.9, help="Share of the validation split; a pair's name decides its split."
        ),
    ] = 0.05,
) -> None:
    """Export a data set for training and annotation tools."""
    from hqsod.export_dataset import export_dataset as run

    done = run(dest, form, out, pairs_in_shard, validation)
    splits = ", ".join(f"{count} in {split}" for split, count in done.pairs.items())
    typer.echo(
        f"{counted(sum(done.pairs.values()), 'pair')} ({splits}) in "
        f"{counted(done.shards, 'shard')} ({done.written} written) in {done.folder}\n"
        f"masks: {done.masks}"
    )
    if done.stale:
        differ = "final mask differs" if done.stale == 1 else "final masks differ"
        typer.echo(f"{done.stale} {differ} from the decisions: run hqsod apply {dest}")
    end(done.failed)
