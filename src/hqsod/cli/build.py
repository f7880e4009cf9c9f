"""`hqsod check`, `build`, `upscale` and `refine`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hqsod.addresses import folder
from hqsod.cli.root import Device, Overwrite, Precision, app, finish
from hqsod.errors import SettingsError

if TYPE_CHECKING:
    import torch

    from hqsod.building.engines import Engine
    from hqsod.building.recipes import BuildRecipe

LISTED = 10  # names in a line

Source = Annotated[Path, typer.Argument(help="The data set's folder; its layout is found.")]
BuildSource = Annotated[
    Path,
    typer.Argument(
        parser=folder,
        metavar="SOURCE",
        help="The data set's folder or address; its layout is found.",
    ),
]
Dest = Annotated[
    Path,
    typer.Argument(
        parser=folder, metavar="DEST", help="Folder or address, such as s3://..., of the built one."
    ),
]
EngineName = Annotated[str, typer.Option("--engine", help="local, or ray: a pool of workers.")]
Address = Annotated[
    str | None, typer.Option(help="Of Ray's cluster, such as auto; without, Ray is started here.")
]
Cores = Annotated[int | None, typer.Option(min=1, help="Of each Ray worker; without, a machine's.")]
Images = Annotated[str | None, typer.Option(help="Folder of the photographs, if not found.")]
Masks = Annotated[str | None, typer.Option(help="Folder of the masks, if not found.")]
UpscalerName = Annotated[
    str | None, typer.Option(help="swinir-l, swinir-m, hqsod-x4-small, bicubic, or a path.")
]
RefinerName = Annotated[
    str | None, typer.Option(help="cascadepsp, hqsod-refiner-small, guided, none, or a path.")
]


@app.command()
def check(
    source: Source,
    images: Images = None,
    masks: Masks = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Look a data set over; exit status 1 when something is wrong with it."""
    from hqsod.check import check as look_over
    from hqsod.dataset.layouts import inspect

    report = look_over(inspect(source, images, masks))
    if as_json:
        typer.echo(json.dumps(asdict(report), indent=1, ensure_ascii=False))
    else:
        for problem in (*report.problems, *report.notes):
            typer.echo(f"{problem.kind}: {problem.file}: {problem.detail}")
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
    recipe: Annotated[
        str | None, typer.Option(help="duts-hq or preview; duts-hq if its weights are at hand.")
    ] = None,
    upscaler: UpscalerName = None,
    refiner: RefinerName = None,
    predictor: Annotated[
        str | None,
        typer.Option(help="Judges masks by its own prediction: none, or --weights of predict."),
    ] = None,
    canvas: Annotated[
        str | None, typer.Option(help="Side of the black square canvas, or none.")
    ] = None,
    fallback: Annotated[
        bool, typer.Option("--fallback", help="Write the upscaled mask for flagged ones.")
    ] = False,
    device: Device = "auto",
    precision: Precision = "auto",
    engine: EngineName = "local",
    address: Address = None,
    cores: Cores = None,
) -> None:
    """Build the high-quality version of a data set; run again to go on after a break."""
    from hqsod.building.pipeline import build as run
    from hqsod.building.recipes import choose_recipe
    from hqsod.dataset.layouts import find_pairs

    if engine == "ray":  # whose workers may stand elsewhere
        source, dest = source.absolute(), dest.absolute()
    pairs = find_pairs(source, images, masks)
    chosen = choose_recipe(recipe).changed(upscaler, refiner, predictor, canvas=_canvas(canvas))
    typer.echo(f"recipe {chosen.name}: {chosen.meaning}")
    if recipe is None and chosen.name != "duts-hq":
        typer.echo(
            "for the published DUTS-HQ: hqsod weights fetch swinir-l cascadepsp, "
            "then run this again"
        )
    with _engine(engine, chosen, device, precision, fallback, address, cores) as loaded:
        _say("upscaler", loaded.settings.upscaler, loaded.settings.upscaler_weights)
        _say("refiner", loaded.settings.refiner, loaded.settings.refiner_weights)
        _say("predictor", loaded.settings.predictor, loaded.settings.predictor_weights)
        summary = run(pairs, dest, loaded)
    typer.echo(
        f"{summary.built} built, {summary.kept} up to date, {len(summary.rejected)} rejected, "
        f"{len(summary.flagged)} flagged"
    )
    if summary.refining is not None:
        warning = "" if summary.refining.changed else "warning: "
        typer.echo(f"{warning}{summary.refining}", err=bool(warning))
    if summary.left:
        typer.echo(
            f"in {dest} but no longer in {source}, kept as they are: "
            + ", ".join(summary.left[:LISTED])
            + (", ..." if len(summary.left) > LISTED else "")
        )
    typer.echo(f"card: {summary.card}\ncontact sheet: {summary.sheet}")
    if summary.rejected:
        raise typer.Exit(1)


@contextmanager
def _engine(
    name: str,
    recipe: BuildRecipe,
    device: str,
    precision: str,
    fallback: bool,
    address: str | None,
    cores: int | None,
) -> Iterator[Engine]:
    """The engine asked for, its device told to the user."""
    if name == "local" and not (address or cores):
        from hqsod.building.engines import load_engine

        yield load_engine(recipe, *_place(device, precision), fallback=fallback)
    elif name == "ray":
        from hqsod.building.ray_engine import ray_engine

        with ray_engine(recipe, device, precision, fallback, address, cores) as engine:
            typer.echo(f"device: {engine.pool.workers} workers, each {engine.place}")
            yield engine
    else:
        raise SettingsError(
            f"--engine {name}", expected="local, or ray, which --address and --cores go with"
        )


def _canvas(text: str | None) -> int | Literal["none"] | None:
    if text is None:
        return None
    if text == "none":
        return "none"
    if not text.isdigit() or not 64 <= int(text) <= 16384:
        raise SettingsError(f"--canvas {text}", expected="a side from 64 to 16384 pixels, or none")
    return int(text)


def _place(device: str, precision: str) -> tuple[torch.device, torch.dtype]:
    """The device and dtype asked for, told to the user."""
    from hqsod.inference import devices

    where = devices.choose_device(device)
    number = devices.choose_precision(precision, where)
    typer.echo(f"device: {devices.describe(where, number)}")
    return where, number


def _say(role: str, name: str, digest: str) -> None:
    from hqsod.weights import describe

    weights = f"sha256 {digest[:16]}" if digest else "no weights"
    typer.echo(f"{role}: {describe(name)}; {weights}")


@app.command()
def upscale(
    paths: Annotated[list[str], typer.Argument(help="Pictures, folders or patterns.")],
    out: Annotated[Path, typer.Option(help="Where the enlarged pictures go.")],
    upscaler: UpscalerName = None,
    overwrite: Overwrite = False,
    device: Device = "auto",
    precision: Precision = "auto",
) -> None:
    """Enlarge pictures four times, without building a data set."""
    from hqsod.building.recipes import choose_recipe
    from hqsod.files import Work, find_pictures, make_each
    from hqsod.images import read_image
    from hqsod.inference.upscaler import load_upscaler

    pictures = find_pictures(paths)
    engine = load_upscaler(upscaler or choose_recipe(None).upscaler, *_place(device, precision))
    _say("upscaler", engine.name, engine.weights)

    work = Work("upscaling", read_image, engine, {out: lambda _, enlarged: enlarged})
    finish(make_each(pictures, work, overwrite=overwrite))


@app.command()
def refine(
    images: Annotated[Path, typer.Argument(help="A picture, or a folder of pictures.")],
    masks: Annotated[Path, typer.Argument(help="Its mask, or a folder of masks named alike.")],
    out: Annotated[Path, typer.Option(help="Where the refined masks go.")],
    refiner: RefinerName = None,
    overwrite: Overwrite = False,
    device: Device = "auto",
    precision: Precision = "auto",
) -> None:
    """Refine masks at their own size, without building a data set."""
    from hqsod.building.recipes import choose_recipe
    from hqsod.dataset.layouts import find_pairs
    from hqsod.files import Work, make_each
    from hqsod.images import read_pair
    from hqsod.inference.refiner import load_refiner
    from hqsod.types import Pair

    if images.is_dir():
        pairs = find_pairs(images, str(images.resolve()), str(masks.resolve()))
    else:
        pairs = (Pair(masks.stem, images, masks),)
    engine = load_refiner(refiner or choose_recipe(None).refiner, *_place(device, precision))
    if engine is None:
        raise SettingsError("--refiner none", expected="a refiner", fix="name one, such as guided")
    _say("refiner", engine.name, engine.weights)
    pair_of = {pair.mask: pair for pair in pairs}

    work = Work(
        "refining",
        lambda path: read_pair(pair_of[path]),
        lambda pairs: [engine(pair.image, pair.mask) for pair in pairs],
        {out: lambda _, refined: refined},
        beside=[pair.image for pair in pairs],
    )
    finish(make_each(list(pair_of), work, overwrite=overwrite))
