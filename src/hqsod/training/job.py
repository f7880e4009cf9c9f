"""The training job: a data set to a trained network; PurNet's stage by stage.

Each stage has a folder of its own in the run's folder. What is done is not done again, so the same
command with `--resume` goes on wherever the run was killed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from pydantic import BaseModel, ConfigDict, Field

from hqsod import weights
from hqsod.addresses import write_bytes
from hqsod.errors import SettingsError, TrainingError, WeightsError
from hqsod.inference.devices import choose_device, choose_precision
from hqsod.models.purnet import PurNet, build_purnet
from hqsod.training import loop
from hqsod.training.contour import ContourRecipe
from hqsod.training.data import Pictures
from hqsod.training.purnet import PurNetTask, fill
from hqsod.training.recipes import AnyRecipe
from hqsod.training.refiner import RefinerRecipe
from hqsod.training.stages import Recipe, Stage
from hqsod.training.store import Store, find_source, open_store
from hqsod.training.task import Sources
from hqsod.training.upscaler import UpscalerRecipe

PLAN = "plan.json"
STAGES = (1, 2, 3)
LEARNED = 0.05  # mean absolute error below which an overfitted handful counts as learned


class Plan(BaseModel):
    """All that decides what a run computes; saved beside it in full.

    Attributes:
        data: folder of the data set.
        images: folder of the photographs where it is not found by itself.
        masks: folder of the masks, likewise; `masks` or `hq-masks` for DUTS-HQ.
        validation: folder of a data set to validate on; None holds out a part of `data`.
        recipe: see `recipes`.
        stages: which to train, in this order.
        overfit: train on this many pictures alone, to see that they can be learned; 0 for all.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        precision: `auto`, `float32` or `bf16`.
        accumulate: in how many parts each process shows its share of a batch.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: Path
    images: str | None = None
    masks: str | None = None
    validation: Path | None = None
    recipe: AnyRecipe
    stages: tuple[int, ...] = STAGES
    overfit: int = 0
    device: str = "auto"
    precision: str = "auto"
    accumulate: int = Field(default=1, ge=1)


@dataclass(frozen=True)
class Outcome:
    """What a run came to.

    Attributes:
        weights: the network to predict with.
        rejected: why pictures were left out, by stem.
    """

    weights: Path
    rejected: Mapping[str, str]


def train(plan: Plan, out: Path, *, resume: bool = False) -> Outcome:
    """Train the stages of a plan, or go on with them.

    Args:
        plan: what to do.
        out: the run's folder.
        resume: go on in a folder that holds a run of the same plan.

    Raises:
        SettingsError: `out` holds a run and `resume` is false, or holds one of another plan; or
            the recipe has no use for an option.
        TrainingError: a loss that is not finite, or pictures that were not learned.
        InputError, OutputError, WeightsError: as the parts say.
    """
    if not isinstance(plan.recipe, Recipe) and (plan.overfit or plan.stages != STAGES):
        raise SettingsError(
            f"--stages or --overfit with a recipe for the {plan.recipe.task}",
            expected="a recipe for PurNet, which alone has them",
            fix="leave them out; --set loop.steps=200 makes a training short",
        )
    accelerator = _accelerator(plan)
    if accelerator.is_main_process:
        _require_own_folder(plan, out, resume)
    if isinstance(plan.recipe, Recipe):
        last, rejected = _train_stages(plan, plan.recipe, out, accelerator)
    else:
        last, rejected = _train_once(plan, plan.recipe, out, accelerator)
    best, final = last / "best.safetensors", out / f"{plan.recipe.task}.safetensors"
    if accelerator.is_main_process:
        chosen = best if best.is_file() else last / "weights.safetensors"
        write_bytes(final, chosen.read_bytes())
    return Outcome(final, rejected)


def _train_stages(
    plan: Plan, recipe: Recipe, out: Path, accelerator: Accelerator
) -> tuple[Path, Mapping[str, str]]:
    """Train PurNet; the last stage's folder, and why pictures were left out."""
    rejected: dict[str, str] = {}
    for number in plan.stages:
        name = f"stage{number}"
        stage, network = recipe.stage(name), _start(recipe, name, out)
        with accelerator.main_process_first():
            training, validation = _stores(plan, recipe, stage.size)
        rejected |= {**training.rejected, **validation.rejected}
        task = _task(network, plan, stage, training, validation)
        _save_plan(plan, out, accelerator)
        loop.run(task, recipe.loop(name), out / name, accelerator)
    last = out / f"stage{plan.stages[-1]}"
    if plan.overfit:
        _require_learned(last)
    return last, rejected


def _train_once(
    plan: Plan,
    recipe: UpscalerRecipe | RefinerRecipe | ContourRecipe,
    out: Path,
    accelerator: Accelerator,
) -> tuple[Path, Mapping[str, str]]:
    """Train a network that has no stages; its folder, and why pictures were left out."""
    sources = Sources(plan.data, plan.images, plan.masks, plan.validation)
    task, rejected = recipe.prepare(sources)
    _save_plan(plan, out, accelerator)
    loop.run(task, recipe.loop, out / "run", accelerator)
    return out / "run", rejected


def _accelerator(plan: Plan) -> Accelerator:
    device = choose_device(plan.device)
    precision = choose_precision(plan.precision, device)
    if device.index is not None:
        torch.cuda.set_device(device)
    return Accelerator(
        cpu=device.type == "cpu",
        mixed_precision="bf16" if precision is torch.bfloat16 else "no",
        gradient_accumulation_steps=plan.accumulate,
    )


def _require_own_folder(plan: Plan, out: Path, resume: bool) -> None:
    """Refuse a folder with a run that this one does not go on with.

    Where it runs may change between two calls, and how many stages; what it computes may not. A
    plan that was refused before its first step, which no folder follows, claims nothing.
    """
    path = out / PLAN
    if not path.is_file() or not any(inner.is_dir() for inner in out.iterdir()):
        return
    if not resume:
        raise SettingsError(
            f"{out} holds a run", expected="a new folder", fix="add --resume to go on with that run"
        )
    before = Plan.model_validate_json(path.read_text("utf-8"))
    where = {"device", "precision", "stages", "accumulate"}
    old, new = before.model_dump(exclude=where), plan.model_dump(exclude=where)
    changed = [name for name in old if old[name] != new[name]]
    if changed:
        raise SettingsError(
            f"--resume with another {changed[0]} than {path} has",
            expected="the options of the first call",
            fix="use another --out for another run",
        )


def _save_plan(plan: Plan, out: Path, accelerator: Accelerator) -> None:
    """Keep the plan beside the run, once its data has been found."""
    if accelerator.is_main_process:
        write_bytes(out / PLAN, plan.model_dump_json(indent=2).encode())


def _stores(plan: Plan, recipe: Recipe, size: int | None) -> tuple[Store, Store]:
    """The pictures to train on and to validate with, at a size or at the recipe's."""
    data = recipe.data
    size = size or data.size
    whole = open_store(find_source(plan.data, plan.images, plan.masks), size, data.superpixels)
    if plan.overfit:
        few = whole.part(range(min(plan.overfit, len(whole))))
        return few, few
    if plan.validation is None:
        return whole.split(data.holdout)
    other = open_store(find_source(plan.validation, None, None), size, data.superpixels)
    return whole, other


def _task(
    network: PurNet, plan: Plan, stage: Stage, training: Store, validation: Store
) -> PurNetTask:
    assert isinstance(plan.recipe, Recipe)
    augmentation = None if plan.overfit else plan.recipe.data.augmentation
    return PurNetTask(
        network,
        stage,
        Pictures(training, augmentation, superpixels=stage.structural_similarity),
        validation,
        plan.recipe.double_sigmoid,
    )


def _start(recipe: Recipe, name: str, out: Path) -> PurNet:
    """The network a stage begins with."""
    stage = recipe.stage(name)
    torch.manual_seed(recipe.seed)
    network = build_purnet(recipe.network.backbone, recipe.network.width, stage.attention)
    if stage.start == "random":
        return network
    if stage.start in ("stage1", "stage2"):
        source = out / stage.start / "weights.safetensors"
        if not source.is_file():
            raise SettingsError(
                f"{name} starts from {stage.start}, which {out} does not hold",
                expected=f"{source}",
                fix=f"train {stage.start} first, or set {name}.start to the path of its weights",
            )
    else:
        source = weights.resolve(stage.start)
    try:
        fill(network, weights.load(source))
    except WeightsError as error:
        raise WeightsError(
            f"{name}.start = {stage.start}: {error.got}",
            expected=f"weights of {recipe.network.backbone} or of PurNet with it",
            fix=f"set {name}.start to such weights or to random, or network.backbone to theirs",
        ) from None
    return network


def _require_learned(folder: Path) -> None:
    """Check that an overfitted handful was learned.

    Raises:
        TrainingError: it was not.
    """
    scores = [json.loads(line) for line in (folder / "log.jsonl").read_text("utf-8").splitlines()]
    error = next(s["validation/mae"] for s in reversed(scores) if "validation/mae" in s)
    if error > LEARNED:
        raise TrainingError(
            f"the pictures were not learned: mean absolute error {error:.3f}",
            expected=f"at most {LEARNED}",
            fix="take more steps with --set, or look at the masks",
        )
