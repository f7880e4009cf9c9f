"""`hqsod train`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from hqsod.cli.root import app
from hqsod.errors import SettingsError

OVERFIT_STEPS = 200
TRY = {
    "purnet": "hqsod predict PICTURES --weights {weights} --out DIR",
    "upscaler": "hqsod upscale PICTURES --upscaler {weights} --out DIR",
    "refiner": "hqsod refine PICTURES MASKS --refiner {weights} --out DIR",
}


@app.command(epilog="On N GPUs: torchrun --nproc-per-node N -m hqsod train DATA --out RUN")
def train(
    data: Annotated[Path, typer.Argument(help="The data set's folder; its layout is found.")],
    out: Annotated[Path, typer.Option(help="The run's folder.")],
    more_stages: Annotated[list[str] | None, typer.Argument(hidden=True)] = None,
    recipe: Annotated[
        str, typer.Option(help="purnet (the paper's), quick, upscaler, refiner, or a file.")
    ] = "purnet",
    stages: Annotated[
        int | None,
        typer.Option(metavar="N ...", help="Stages of PurNet to train.", show_default="1 2 3"),
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Such as stage1.steps=100; can be repeated.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on after a kill.")] = False,
    overfit: Annotated[
        int, typer.Option(help="Learn this many pictures by heart, to see that training works.")
    ] = 0,
    validation: Annotated[
        Path | None, typer.Option(help="Data set to validate on; else a part is held out.")
    ] = None,
    images: Annotated[str | None, typer.Option(help="Folder of the photographs.")] = None,
    masks: Annotated[
        str | None, typer.Option(help="Folder of the masks; masks or hq-masks for DUTS-HQ.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, float32 or bf16.")] = "auto",
    accumulate: Annotated[
        int, typer.Option(help="Show batches in this many parts, for a small memory.", min=1)
    ] = 1,
) -> None:
    """Train a network; the run's folder then holds its weights, a log and sample pictures."""
    from hqsod.training.job import Plan
    from hqsod.training.job import train as run
    from hqsod.training.recipes import read_recipe

    chosen = _stages(stages, more_stages or [])
    changes = list(settings or [])
    if overfit and read_recipe(recipe).task == "purnet":
        changes = [*_overfit_changes(overfit), *changes]
    plan = Plan(
        data=data,
        images=images,
        masks=masks,
        validation=validation,
        recipe=read_recipe(recipe, changes),
        stages=chosen,
        overfit=overfit,
        device=device,
        precision=precision,
        accumulate=accumulate,
    )
    outcome = run(plan, out, resume=resume)
    if int(os.environ.get("RANK", "0")):
        return  # the first of several processes speaks for all
    typer.echo(f"trained: {outcome.weights}; log and samples: {out}")
    typer.echo(f"try it: {TRY[plan.recipe.task].format(weights=outcome.weights)}")
    if outcome.rejected:
        typer.echo(f"{len(outcome.rejected)} pictures were left out:", err=True)
        for reason in outcome.rejected.values():
            typer.echo(f"  {reason}", err=True)
        raise typer.Exit(1)


def _stages(first: int | None, more: list[str]) -> tuple[int, ...]:
    """`--stages 1 2 3`: the option takes the first number, the rest arrive as arguments."""
    if first is None:
        if more:
            raise SettingsError(f"{more[0]} after the data set", expected="one data set")
        return (1, 2, 3)
    if not all(number.isdigit() for number in more):
        raise SettingsError(
            f"--stages {first} and then {' '.join(more)}",
            expected="numbers",
            fix="name the data set first",
        )
    stages = (first, *map(int, more))
    if list(stages) != sorted(set(stages)) or not set(stages) <= {1, 2, 3}:
        given = " ".join(map(str, stages))
        raise SettingsError(f"--stages {given}", expected="some of 1 2 3, in this order")
    return stages


def _overfit_changes(count: int) -> list[str]:
    """A recipe's settings that make sense for a handful of pictures and no others."""
    changes = ["optimizer.warmup=10", "optimizer.average=0.0", "pace.log=10"]
    changes += [f"pace.checkpoint={OVERFIT_STEPS}", f"pace.validation={OVERFIT_STEPS // 2}"]
    for stage in ("stage1", "stage2", "stage3"):
        changes += [f"{stage}.steps={OVERFIT_STEPS}", f"{stage}.batch={count}"]
    return changes
