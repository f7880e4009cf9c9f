"""`hqsod upscale` and `refine`: single steps of a build."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hqsod.cli.root import (
    Device,
    Overwrite,
    Precision,
    RefinerName,
    UpscalerName,
    app,
    choose_runtime,
    finish,
    say_weights,
)
from hqsod.errors import SettingsError
from hqsod.pairs import read_pair


@app.command()
def upscale(
    paths: Annotated[
        list[str], typer.Argument(metavar="PATHS", help="Images, folders or patterns.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the upscaled images.")],
    upscaler: UpscalerName = None,
    overwrite: Overwrite = False,
    device: Device = "auto",
    precision: Precision = "auto",
) -> None:
    """Upscale images four times, without building a data set."""
    from hqsod.building.recipes import choose_recipe
    from hqsod.image_jobs import Work, find_inputs, make_each
    from hqsod.images import read_image
    from hqsod.inference.upscaler import load_upscaler

    found = find_inputs(paths, apart=out)
    engine = load_upscaler(
        upscaler or choose_recipe(None).upscaler, choose_runtime(device, precision)
    )
    say_weights("upscaler", engine.name, engine.weights)

    work = Work("upscaling", read_image, engine, {out: lambda _, upscaled: upscaled})
    finish(make_each(found, work, overwrite=overwrite))


@app.command()
def refine(
    images: Annotated[
        Path, typer.Argument(metavar="IMAGES", help="An image, or a folder of images.")
    ],
    masks: Annotated[
        Path,
        typer.Argument(metavar="MASKS", help="Its mask, or a folder of masks of the same names."),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the refined masks.")],
    refiner: RefinerName = None,
    overwrite: Overwrite = False,
    device: Device = "auto",
    precision: Precision = "auto",
) -> None:
    """Refine masks at their own size, without building a data set."""
    from hqsod.building.recipes import choose_recipe
    from hqsod.dataset.layouts import find_pairs
    from hqsod.image_jobs import Work, make_each
    from hqsod.inference.refiner import load_refiner
    from hqsod.pairs import Pair

    if images.is_dir():
        pairs = find_pairs(images, str(images.resolve()), str(masks.resolve()))
    else:
        pairs = (Pair(masks.stem, images, masks),)
    engine = load_refiner(refiner or choose_recipe(None).refiner, choose_runtime(device, precision))
    if engine is None:
        raise SettingsError("--refiner none", expected="a refiner", fix="name one, such as guided")
    say_weights("refiner", engine.name, engine.weights)
    pair_of = {pair.mask: pair for pair in pairs}

    work = Work(
        "refining",
        lambda path: read_pair(pair_of[path]),
        lambda pairs: [engine(pair.image, pair.mask) for pair in pairs],
        {out: lambda _, refined: refined},
        beside=[pair.image for pair in pairs],
    )
    finish(make_each({mask: mask.stem for mask in pair_of}, work, overwrite=overwrite))
