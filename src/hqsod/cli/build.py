"""`hqsod check`, `build`, `upscale` and `refine`."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from hqsod.cli.root import app
from hqsod.errors import SettingsError

Source = Annotated[Path, typer.Argument(help="The data set's folder; its layout is found.")]
Images = Annotated[str | None, typer.Option(help="Folder of the photographs, if not found.")]
Masks = Annotated[str | None, typer.Option(help="Folder of the masks, if not found.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Precision = Annotated[str, typer.Option(help="auto, float32 or bf16.")]
UpscalerName = Annotated[
    str | None, typer.Option(help="swinir-l, swinir-m, bicubic, or a checkpoint's path.")
]
RefinerName = Annotated[
    str | None, typer.Option(help="cascadepsp, guided, none, or a checkpoint's path.")
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
    from hqsod.datasets import inspect

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
    source: Source,
    dest: Annotated[Path, typer.Argument(help="Where the built data set goes.")],
    images: Images = None,
    masks: Masks = None,
    recipe: Annotated[
        str | None, typer.Option(help="duts-hq or preview; duts-hq if its weights are at hand.")
    ] = None,
    upscaler: UpscalerName = None,
    refiner: RefinerName = None,
    canvas: Annotated[
        str | None, typer.Option(help="Side of the black square canvas, or none.")
    ] = None,
    fallback: Annotated[
        bool, typer.Option("--fallback", help="Write the upscaled mask for flagged ones.")
    ] = False,
    device: Device = "auto",
    precision: Precision = "auto",
) -> None:
    """Build the high-quality version of a data set; run again to go on after a break."""
    from hqsod.build.pipeline import build as run
    from hqsod.build.pipeline import load_engines
    from hqsod.build.recipes import choose_recipe
    from hqsod.datasets import find_pairs

    pairs = find_pairs(source, images, masks)
    chosen = choose_recipe(recipe).changed(upscaler, refiner)
    if canvas is not None:
        chosen = replace(chosen, canvas=_canvas(canvas))
    where, number = _place(device, precision)
    typer.echo(f"recipe {chosen.name}: {chosen.meaning}")
    if recipe is None and chosen.name != "duts-hq":
        typer.echo(
            "for the published DUTS-HQ: hqsod weights fetch swinir-l cascadepsp, "
            "then run this again"
        )
    engines = load_engines(chosen, where, number, fallback=fallback)
    _say_engines(engines.settings.as_dict())
    summary = run(pairs, dest, engines)
    typer.echo(
        f"{summary.built} built, {summary.kept} up to date, {len(summary.rejected)} rejected, "
        f"{len(summary.flagged)} flagged"
    )
    typer.echo(f"card: {summary.card}\ncontact sheet: {summary.sheet}")
    if summary.rejected:
        raise typer.Exit(1)


def _canvas(text: str) -> int | None:
    if text == "none":
        return None
    if not text.isdigit() or not 64 <= int(text) <= 16384:
        raise SettingsError(f"--canvas {text}", "a side from 64 to 16384 pixels, or none")
    return int(text)


def _place(device: str, precision: str) -> tuple[Any, Any]:
    """The device and dtype asked for, told to the user."""
    from hqsod import devices

    where = devices.choose_device(device)
    number = devices.choose_precision(precision, where)
    typer.echo(f"device: {devices.describe(where, number)}")
    return where, number


def _say_engines(settings: dict[str, Any]) -> None:
    for role in ("upscaler", "refiner"):
        digest = settings[f"{role}_weights"]
        weights = f"weights sha256 {digest[:16]}..." if digest else "no weights"
        typer.echo(f"{role}: {settings[role]} ({weights})")
