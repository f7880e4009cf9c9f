"""The training job: a data set to a trained network, stage by stage.

Each stage has a folder of its own in the run's folder. What is done is not done again, so
`--resume` goes on wherever the run was killed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from hqsod.addresses import write_bytes
from hqsod.dataset.lock import sole_run
from hqsod.errors import SettingsError, TrainingError
from hqsod.inference.torch_devices import choose_device, choose_precision
from hqsod.progress import console
from hqsod.training import contour, loop, purnet, refiner, upscaler
from hqsod.training.checkpoints import read_log
from hqsod.training.plan import TrainingPlan, read_plan, require_same
from hqsod.training.task import DataFolders, Prepared, Stage

# What each task of a recipe trains; the first argument is that recipe.
STAGES: Mapping[str, Callable[[Any, DataFolders, Path], list[Stage]]] = {
    "purnet": purnet.stages,
    "upscaler": upscaler.stages,
    "refiner": refiner.stages,
    "contour": contour.stages,
}
CAN_OVERFIT = ("purnet",)
_NAMED = 3  # files without a partner in a message
LEARNED = 0.05  # mean absolute error below which an overfitted handful counts as learned


@dataclass(frozen=True)
class TrainingResult:
    """What a run came to.

    Attributes:
        weights: the network to predict with.
        rejected: why images were left out, by stem.
    """

    weights: Path
    rejected: Mapping[str, str]


def train(plan: TrainingPlan, out: Path, *, resume: bool = False) -> TrainingResult:
    """Train the stages of a plan, or go on with them.

    Args:
        plan: what to do.
        out: the run's folder.
        resume: go on in a folder that holds a run of the same plan.

    Raises:
        SettingsError: `out` holds a run and `resume` is false, or holds one of another plan; the
            processes cannot share a stage's batch; or the recipe has no use for an option.
        TrainingError: a loss that is not finite, or images that were not learned.
        OutputError: another run is at work in `out`.
        InputError, OutputError, WeightsError: as the parts say.
    """
    stages = _stages(plan, out)
    accelerator = _accelerator(plan)
    for stage in stages:
        loop.share(stage.settings, accelerator)  # refused now, and not when its turn comes
    with sole_run(out) if accelerator.is_main_process else nullcontext():
        return _train(plan, stages, out, accelerator, resume)


def _train(
    plan: TrainingPlan, stages: list[Stage], out: Path, accelerator: Accelerator, resume: bool
) -> TrainingResult:
    if accelerator.is_main_process and (before := read_plan(out)) is not None:
        if not resume:
            raise SettingsError(
                f"{out} holds a run",
                expected="a new folder",
                fix="add --resume to go on with that run",
            )
        require_same(before, plan)
    if accelerator.is_main_process:
        _announce(stages, accelerator)
    rejected: dict[str, str] = {}
    for stage in stages:
        with accelerator.main_process_first():
            prepared = stage.prepare()
        rejected |= prepared.rejected
        if accelerator.is_main_process:
            plan.write(out)  # once its data has been found
            _tell(stage.name, prepared, first=stage is stages[0])
        loop.run(prepared.task, stage.settings, out / stage.name, accelerator)
    if plan.overfit:
        _require_learned(out / stages[-1].name)
    final = out / f"{plan.recipe.task}.safetensors"
    if accelerator.is_main_process:
        every = [out / stage.name for stage in _every_stage(plan, out)]
        last = [folder for folder in every if (folder / "weights.safetensors").is_file()][-1]
        best = last / "best.safetensors"
        chosen = best if best.is_file() else last / "weights.safetensors"
        write_bytes(final, chosen.read_bytes())
    return TrainingResult(final, rejected)


def _stages(plan: TrainingPlan, out: Path) -> list[Stage]:
    """The stages that are to be trained, as overfitting wants them where it is asked for."""
    task = plan.recipe.task
    if plan.overfit and task not in CAN_OVERFIT:
        raise SettingsError(
            f"--overfit with a recipe for the {task}",
            expected=f"a recipe for {', '.join(CAN_OVERFIT)}",
            fix="leave it out; --set loop.steps=200 makes a training short",
        )
    every = _every_stage(plan, out)
    numbers = range(1, len(every) + 1)
    wanted = tuple(numbers) if plan.stages is None else plan.stages
    if not wanted or list(wanted) != sorted(set(wanted)) or not set(wanted) <= set(numbers):
        raise SettingsError(
            f"--stages {','.join(map(str, wanted))}",
            expected=f"some of {','.join(map(str, numbers))}, in this order",
        )
    chosen = [every[number - 1] for number in wanted]
    if not plan.overfit:
        return chosen
    return [s._replace(settings=s.settings.for_overfitting(plan.overfit)) for s in chosen]


def _every_stage(plan: TrainingPlan, out: Path) -> list[Stage]:
    return STAGES[plan.recipe.task](plan.recipe, plan.folders, out)


def _accelerator(plan: TrainingPlan) -> Accelerator:
    device = choose_device(plan.device)
    precision = choose_precision(plan.precision, device)
    if device.index is not None:
        torch.cuda.set_device(device)
    return Accelerator(
        cpu=device.type == "cpu",
        mixed_precision="bf16" if precision is torch.bfloat16 else "no",
        gradient_accumulation_steps=plan.accumulate,
    )


def _announce(stages: list[Stage], accelerator: Accelerator) -> None:
    """Say what is about to be done, before images are brought to size."""
    steps = ", ".join(f"{stage.name} of {stage.settings.steps:,} steps" for stage in stages)
    precision = "bf16" if accelerator.mixed_precision == "bf16" else "float32"
    console.print(f"training: {steps}; {accelerator.device}, {precision}", highlight=False)


def _tell(name: str, prepared: Prepared, first: bool) -> None:
    """Say what a stage is trained and validated on; before the first, what has no partner."""
    if first and prepared.unpaired:
        names = ", ".join(path.name for path in prepared.unpaired[:_NAMED])
        console.print(
            f"{len(prepared.unpaired)} photographs or masks have no partner of the same name and "
            f"are left out, such as {names}",
            markup=False,
            highlight=False,
        )
    held_out = f"{prepared.held_out:,} to validate on"
    if not prepared.held_out:
        held_out = "none to validate on, so there are no scores, samples or best weights"
    console.print(f"{name}: {len(prepared.task.data):,} images to train on, {held_out}")


def _require_learned(folder: Path) -> None:
    """Check that an overfitted handful was learned.

    Raises:
        TrainingError: it was not.
    """
    lines = reversed(read_log(folder / "log.jsonl"))
    error = next(line["validation/mae"] for line in lines if "validation/mae" in line)
    if error > LEARNED:
        raise TrainingError(
            f"the images were not learned: mean absolute error {error:.3f}",
            expected=f"at most {LEARNED}",
            fix="look at their masks, or raise the learning rates with --set",
        )
