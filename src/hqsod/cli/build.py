"""`hqsod check` and `build`."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import isqrt
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hqsod import extras
from hqsod.addresses import folder
from hqsod.cli.root import (
    Device,
    Precision,
    RefinerName,
    UpscalerName,
    app,
    choose_runtime,
    say_weights,
)
from hqsod.errors import SettingsError, printable

if TYPE_CHECKING:
    from hqsod.building.engines import Engine
    from hqsod.building.pipeline import Summary
    from hqsod.building.recipes import BuildRecipe, BuildSettings
    from hqsod.pairs import Pair

LISTED = 10  # names in a line

Source = Annotated[
    Path, typer.Argument(metavar="SOURCE", help="The data set's folder; its layout is recognised.")
]
Images = Annotated[
    str | None, typer.Option(help="Folder of the photographs, where the layout is not recognised.")
]
Masks = Annotated[
    str | None, typer.Option(help="Folder of the masks, where the layout is not recognised.")
]

# Of `build`.
BuildSource = Annotated[
    Path,
    typer.Argument(
        parser=folder,
        metavar="SOURCE",
        help="The data set's folder or address; its layout is recognised.",
    ),
]
Dest = Annotated[
    Path,
    typer.Argument(
        parser=folder, metavar="DEST", help="Folder of the result, or an address such as s3://..."
    ),
]
RecipeName = Annotated[
    str | None,
    typer.Option(
        help="duts-hq or preview. By default the one DEST was made with; for a new DEST, duts-hq, "
        "or preview while the weights of duts-hq are not on this machine."
    ),
]
PredictorName = Annotated[
    str | None,
    typer.Option(
        help="Network whose own prediction each mask is compared with: none, or whatever "
        "hqsod predict takes as --weights."
    ),
]
Canvas = Annotated[str | None, typer.Option(help="Side of the black square canvas, or none.")]
Fallback = Annotated[
    bool | None,
    typer.Option(
        "--fallback/--no-fallback",
        help="Write the upscaled mask in place of a refined mask that is flagged.",
    ),
]
Replace = Annotated[
    bool,
    typer.Option(
        "--replace", help="Rebuild pairs in DEST built with other settings or from other files."
    ),
]
Add = Annotated[
    bool, typer.Option("--add", help="Add the pairs to those that DEST has from another source.")
]
EngineName = Annotated[
    str, typer.Option("--engine", help="local, or ray for a pool of Ray workers.")
]
Address = Annotated[
    str | None,
    typer.Option(
        help="Ray cluster's address, such as auto; by default RAY_ADDRESS, or else one starts here."
    ),
]
Cores = Annotated[
    int | None,
    typer.Option(
        min=1, help="Cores of each Ray worker; by default all of a machine's, divided by its GPUs."
    ),
]


@app.command()
def check(
    source: BuildSource,
    images: Images = None,
    masks: Masks = None,
    against: Annotated[
        Path | None,
        typer.Option(
            parser=folder, help="Another data set, such as a test set, that must share no image."
        ),
    ] = None,
    known_faults: Annotated[
        Path | None,
        typer.Option(
            parser=folder,
            metavar="CSV",
            help="Faults others found in SOURCE: a file with columns stem, fault and found.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Look a data set over; exit status 1 when something is wrong with it."""
    from hqsod.check import check as look_over
    from hqsod.dataset.known_faults import read_known_faults
    from hqsod.dataset.layouts import inspect

    other = None if against is None else inspect(against)
    known = () if known_faults is None else read_known_faults(known_faults)
    report = look_over(inspect(source, images, masks), other, known)
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(report), indent=1, ensure_ascii=False))
    else:
        for problem in (*report.problems, *report.notes):
            typer.echo(printable(f"{problem.kind}: {problem.file}: {problem.detail}"))
        counts = Counter(problem.kind for problem in report.problems)
        found = ", ".join(f"{count} {kind}" for kind, count in counts.items()) or "nothing wrong"
        typer.echo(f"{report.pairs} pairs ({report.layout}): {found}")
    if report.problems:
        raise typer.Exit(1)


@app.command()
def build(
    source: BuildSource,
    dest: Dest,
    images: Images = None,
    masks: Masks = None,
    recipe: RecipeName = None,
    upscaler: UpscalerName = None,
    refiner: RefinerName = None,
    predictor: PredictorName = None,
    canvas: Canvas = None,
    fallback: Fallback = None,
    replace: Replace = False,
    add: Add = False,
    device: Device = "auto",
    precision: Precision = "auto",
    engine: EngineName = "local",
    address: Address = None,
    cores: Cores = None,
) -> None:
    """Build the high-quality version of a data set; to continue after a break, run it again."""
    from hqsod.building.home import made_with
    from hqsod.building.pipeline import build as run

    if engine == "ray":  # whose workers may stand elsewhere
        source, dest = source.absolute(), dest.absolute()
    pairs = _find_pairs(source, images, masks)
    made = made_with(dest)
    chosen = _choose(recipe, made).changed(upscaler, refiner, predictor, _canvas(canvas), fallback)
    if made and not replace:  # go on as it was made, on whatever machine
        chosen = dataclasses.replace(chosen, batch=made.batch)
        if precision == "auto" and made.precision_name == "bf16":
            extras.require("torch", f"{dest}, which was built in bf16,")
        precision = made.precision_name if precision == "auto" else precision
    typer.echo(f"recipe {chosen.name}: {chosen.meaning}")
    with _engine(engine, chosen, device, precision, address, cores) as loaded:
        say_weights("upscaler", loaded.settings.upscaler, loaded.settings.upscaler_weights)
        say_weights("refiner", loaded.settings.refiner, loaded.settings.refiner_weights)
        say_weights("predictor", loaded.settings.predictor, loaded.settings.predictor_weights)
        summary = run(pairs, dest, loaded, replace=replace, add=add)
    _say(summary, source, dest)
    if summary.rejected:
        raise typer.Exit(1)


def _find_pairs(source: Path, images: str | None, masks: str | None) -> tuple[Pair, ...]:
    """The pairs of a data set; a line says how many files are none."""
    from hqsod.dataset.layouts import find

    found = find(source, images, masks)
    if found.unpaired:
        have = "file has" if len(found.unpaired) == 1 else "files have"
        typer.echo(
            f"{len(found.unpaired)} {have} no partner of the same name and will not be built, such "
            f"as {found.unpaired[0]}; hqsod check {source} names them all"
        )
    return found.pairs


def _choose(name: str | None, made: BuildSettings | None) -> BuildRecipe:
    """The recipe of that name; without a name, the one that the data set there was made with."""
    from hqsod.building.recipes import RECIPES, choose_recipe

    if name is None and made:
        return made.build_recipe
    chosen = choose_recipe(name)
    if name is None and chosen is RECIPES["preview"]:
        typer.echo(
            "for the published DUTS-HQ: hqsod weights fetch swinir-l cascadepsp, then run this "
            "again with another DEST"
        )
    return chosen


def _say(summary: Summary, source: Path, dest: Path) -> None:
    again = f" ({summary.replaced} of them again)" if summary.replaced else ""
    typer.echo(
        f"{summary.built} built{again}, {summary.kept} up to date, "
        f"{len(summary.rejected)} rejected, {len(summary.flagged)} flagged"
    )
    if summary.refining is not None:
        warning = "" if summary.refining.changed else "warning: "
        typer.echo(f"{warning}{summary.refining}", err=bool(warning))
    if summary.left:
        typer.echo(f"in {dest} but not in {source}, kept as they are: {_listed(summary.left)}")
    typer.echo(f"card: {summary.card}\ncontact sheet: {summary.sheet}")


def _listed(names: Sequence[str]) -> str:
    """The first names, and dots for the rest."""
    return printable(", ".join(names[:LISTED])) + (", ..." if len(names) > LISTED else "")


@contextmanager
def _engine(
    name: str,
    recipe: BuildRecipe,
    device: str,
    precision: str,
    address: str | None,
    cores: int | None,
) -> Iterator[Engine]:
    """The engine asked for; a line says what it runs on."""
    if name == "local" and not (address or cores):
        from hqsod.building.engines import load_engine

        yield load_engine(recipe, choose_runtime(device, precision))
    elif name == "ray":
        from hqsod.building.ray_engine import ray_engine

        with ray_engine(recipe, device, precision, address, cores) as engine:
            typer.echo(f"device: {engine.pool.workers} workers, each {engine.runs_on}")
            yield engine
    else:
        raise SettingsError(
            f"--engine {name}", expected="local or ray; --address and --cores need --engine ray"
        )


def _canvas(text: str | None) -> int | Literal["none"] | None:
    if text is None:
        return None
    if text == "none":
        return "none"
    from hqsod.decoding import MAX_PIXELS

    most = isqrt(MAX_PIXELS)  # what is larger would not be read again
    if not text.isdecimal() or not 64 <= int(text) <= most:
        raise SettingsError(
            f"--canvas {text}", expected=f"a side from 64 to {most} pixels, or none"
        )
    return int(text)
