"""`hqsod train`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hqsod import extras
from hqsod.cli.root import app
from hqsod.errors import SettingsError

if TYPE_CHECKING:
    from hqsod.training.job import TrainingResult
    from hqsod.training.plan import TrainingPlan

TRY = {
    "purnet": "hqsod predict IMAGES --weights {weights} --out DIR",
    "upscaler": "hqsod upscale IMAGES --upscaler {weights} --out DIR",
    "refiner": "hqsod refine IMAGES MASKS --refiner {weights} --out DIR",
    "contour": "hqsod refine IMAGES MASKS --refiner {weights} --out DIR",
}


Out = Annotated[Path, typer.Option(help="The run's folder.")]
Data = Annotated[
    Path | None, typer.Argument(metavar="DATA", help="The data set's folder; its layout is found.")
]
RecipeName = Annotated[
    str | None,
    typer.Option(
        help="purnet (the default), quick, purnet-light, upscaler, refiner, contour, or a file.",
    ),
]
Stages = Annotated[str | None, typer.Option(help="Stages to train, such as 1,2; all by default.")]
Changes = Annotated[
    list[str] | None, typer.Option("--set", help="A setting, such as stage1.steps=100; repeatable.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue the run in --out, unchanged.")]
Overfit = Annotated[
    int | None, typer.Option(help="Overfit this many images, to see that training works.", min=1)
]
Validation = Annotated[
    Path | None, typer.Option(help="Data set to validate on; by default part of DATA is held out.")
]
Images = Annotated[str | None, typer.Option(help="Folder of the photographs.")]
Masks = Annotated[
    str | None, typer.Option(help="Folder of the masks; masks or hq-masks for DUTS-HQ.")
]
Device = Annotated[str | None, typer.Option(help="auto (the default), cpu, cuda or cuda:N.")]
Precision = Annotated[str | None, typer.Option(help="auto (the default), float32 or bf16.")]
Accumulate = Annotated[
    int | None,
    typer.Option(
        help="Split each batch into this many parts and accumulate gradients, to save memory.",
        min=1,
    ),
]


@app.command(epilog="On N GPUs: torchrun --nproc-per-node N -m hqsod train DATA --out RUN")
def train(
    out: Out,
    data: Data = None,
    recipe: RecipeName = None,
    stages: Stages = None,
    settings: Changes = None,
    resume: Resume = False,
    overfit: Overfit = None,
    validation: Validation = None,
    images: Images = None,
    masks: Masks = None,
    device: Device = None,
    precision: Precision = None,
    accumulate: Accumulate = None,
) -> None:
    """Train a network; the run's folder then holds its weights, a log and sample predictions."""
    extras.require("train", "hqsod train")
    from hqsod.training.job import train as run

    options = {
        "data": data,
        "images": images,
        "masks": masks,
        "validation": validation,
        "stages": None if stages is None else _numbers(stages),
        "overfit": overfit,
        "device": device,
        "precision": precision,
        "accumulate": accumulate,
    }
    given = {name: value for name, value in options.items() if value is not None}
    plan = _plan(out if resume else None, given, recipe, settings or [])
    _report(run(plan, out, resume=resume), plan.recipe.task, out)


def _report(result: TrainingResult, task: str, out: Path) -> None:
    """Say what a training came to; exit status 1 when images were left out."""
    if int(os.environ.get("RANK", "0")):
        return  # the first of several processes speaks for all
    typer.echo(f"trained: {result.weights}; log and samples: {out}")
    typer.echo(f"try it: {TRY[task].format(weights=result.weights)}")
    if result.rejected:
        typer.echo(f"{len(result.rejected)} images were left out:", err=True)
        for reason in result.rejected.values():
            typer.echo(f"  {reason}", err=True)
        raise typer.Exit(1)


def _plan(
    run: Path | None, given: Mapping[str, object], recipe: str | None, changes: list[str]
) -> TrainingPlan:
    """The plan of the run in a folder with what was given on top, or a new one."""
    from hqsod.training.plan import TrainingPlan, read_plan
    from hqsod.training.recipes import change_recipe, read_recipe

    before = None if run is None else read_plan(run)
    if before is None and "data" not in given:
        raise SettingsError(
            "no data set" if run is None else f"no data set, and {run} holds no run to go on with",
            expected="the folder of one",
            fix="hqsod train DATA --out RUN",
        )
    if before is None or recipe is not None:
        chosen = read_recipe(recipe or "purnet", changes)
    else:
        chosen = change_recipe(before.recipe, changes)
    kept = {} if before is None else before.model_dump()
    return TrainingPlan.model_validate({**kept, **given, "recipe": chosen})


def _numbers(stages: str) -> tuple[int, ...]:
    try:
        return tuple(int(number) for number in stages.split(","))
    except ValueError:
        raise SettingsError(f"--stages {stages}", expected="numbers such as 1,2") from None
