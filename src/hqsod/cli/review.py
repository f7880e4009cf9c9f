"""`hqsod review` and `apply`."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Annotated

import typer

from hqsod import extras
from hqsod.cli.root import DataSet, app, end
from hqsod.errors import SettingsError
from hqsod.progress import console


@app.command()
def review(
    dest: Annotated[
        Path | None,
        typer.Argument(
            metavar="DEST",
            help="A built data set; with --masks, the decisions' folder, by default MASKS-review.",
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
    extras.require("review", "hqsod review")
    from hqsod.review.app import LARGEST_BODY, create_app
    from hqsod.review.data_set import ReviewSet
    from hqsod.review.pictures import FOLDER, Cache
    from hqsod.web import connections
    from hqsod.web.guard import Guard
    from hqsod.weights import cache_folder

    folder = _linked(dest, images, masks, candidates or [])
    page = create_app(ReviewSet(folder), who or _user(), Cache(cache_folder() / FOLDER))
    listening, address = connections.listen(host, port)
    typer.echo(f"reviewing {folder}\nopen {address.url}\nstop with Ctrl+C; decisions are kept")
    connections.make(Guard(page, address, LARGEST_BODY)).run(sockets=[listening])


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user often has no name
        return "unknown"


def _linked(
    dest: Path | None, images: Path | None, masks: Path | None, candidates: list[str]
) -> Path:
    """The data set to review; folders of images become one."""
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
    """Write final-masks/ from the decisions; undecided pairs get refined masks unless flagged."""
    from hqsod.review.apply import apply as run

    done = run(dest)
    counts = ", ".join(f"{count} {version}" for version, count in sorted(done.counts.items()))
    typer.echo(
        f"{sum(done.counts.values())} final masks ({counts or 'none'}), "
        f"{len(done.left_out)} pairs left out; {done.written} written, {done.removed} removed"
    )
    end(done.failed)
