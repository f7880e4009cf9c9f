"""The compact refiner as a task: its recipe, what the network is told, how good it is.

The idea is that of Cheng et al., "CascadePSP", CVPR 2020. Differs in the damage (see
`mask_damage`) and in the loss: cross-entropy, which weighs more near the contour (Wei et al.,
"F3Net", AAAI 2020), once more on the contour alone, and a soft IoU, which gives small objects the
weight of large ones; that paper's other terms did not help here (docs/experiments.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from hqsod import metrics, weights
from hqsod.dataset.holdout import split
from hqsod.errors import InputError
from hqsod.images import Array
from hqsod.inference.small_refiner import MENDING
from hqsod.inference.torch_refiner import mending_step, part_of
from hqsod.losses import iou_loss
from hqsod.masks import binarise
from hqsod.metrics.regions import mask_iou
from hqsod.models.compact_refiner import (
    GROUP,
    WIDTHS,
    CompactRefiner,
    is_compact_refiner,
)
from hqsod.models.loading import fitting
from hqsod.pairs import Pair, read_pair
from hqsod.training.batches import Batch
from hqsod.training.damaged_pairs import Damage, DamagedMasks, held_out_cases
from hqsod.training.examples import find_training_set
from hqsod.training.settings import LoopSettings, Section
from hqsod.training.sheets import is_shown, sheet
from hqsod.training.task import DataFolders, Objective, Prepared, Stage, Validation

NEAR = 9  # side of the window that says how near the contour a pixel is
NEAR_WEIGHT = 8.0  # a pixel on it counts half of this more than one far away
_SHOWN = 8  # images on a sheet
_TILE = 200  # pixels


class RefinerRecipe(Section):
    """A whole training of the compact refiner.

    Attributes:
        task: says that it is one.
        widths: see `CompactRefiner`.
        start: `random`, or the weights it begins with, by name or path: of a compact refiner, or of
            its extractor alone.
        holdout: share of the pairs kept for validation where no others are named.
        damage: see `Damage`.
        loop: see `LoopSettings`.
    """

    task: Literal["refiner"]
    widths: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=WIDTHS, min_length=1)
    start: str = "efficientnet-lite0"
    holdout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    damage: Damage = Damage()
    loop: LoopSettings

    @model_validator(mode="after")
    def _consistent(self) -> RefinerRecipe:
        stride = GROUP << (len(self.widths) - 1)
        if self.damage.crop % stride:
            raise ValueError(
                f"damage.crop to be a multiple of {stride}, the stride of {len(self.widths)} widths"
            )
        if self.start == "random" and "extractor" not in self.loop.rates:
            raise ValueError("a learning rate for the extractor, which would stay random")
        return self


def stages(recipe: RefinerRecipe, folders: DataFolders, _out: Path) -> list[Stage]:
    """The one stage."""
    return [Stage("run", recipe.loop, partial(_prepare, recipe, folders))]


def _prepare(recipe: RefinerRecipe, folders: DataFolders) -> Prepared:
    """Find the pairs, hold some of them out, and make the network to begin with.

    Raises:
        InputError: no pairs, or none of them can be used.
        WeightsError: no weights to begin with, or of another network.
    """
    network = _start(recipe)
    pairs = divide_pairs(folders, recipe.holdout)
    task = RefinerTask(network, DamagedMasks(pairs.usable, recipe.damage), pairs.held_out)
    return Prepared(task, len(pairs.held_out), pairs.rejected, pairs.unpaired)


class DividedPairs(NamedTuple):
    """The pairs of a data set that can be used.

    Attributes:
        usable: those to train on.
        held_out: those to validate on.
        rejected: why the others cannot be used, by stem.
        unpaired: photographs without a mask and masks without a photograph.
    """

    usable: Sequence[Pair]
    held_out: Sequence[Pair]
    rejected: Mapping[str, str]
    unpaired: Sequence[Path]


def divide_pairs(folders: DataFolders, holdout: float) -> DividedPairs:
    """Find the pairs to train and to validate on.

    Raises:
        InputError: no pairs, or none of them can be used.
    """
    found = find_training_set(folders.data, folders.images, folders.masks)
    usable, rejected = find_usable(folders.data, found.pairs)
    if folders.validation is None:
        usable, held_out = split(usable, holdout)
    else:
        others = find_training_set(folders.validation)
        held_out, unusable = find_usable(folders.validation, others.pairs)
        rejected |= unusable
    return DividedPairs(usable, held_out, rejected, found.unpaired)


def _start(recipe: RefinerRecipe) -> CompactRefiner:
    """The network before the first step: random, or with weights for it or its extractor."""
    torch.manual_seed(recipe.loop.seed)
    network = CompactRefiner(recipe.widths)
    if recipe.start == "random":
        return network
    state = part_of(weights.load(weights.resolve(recipe.start)), MENDING)
    part: nn.Module = network if is_compact_refiner(state) else network.extractor
    known = f"a compact refiner's of widths {recipe.widths}, or efficientnet-lite0"
    with fitting(known, f"start = {recipe.start}"):
        part.load_state_dict(state)
    return network


def find_usable(folder: Path, pairs: Sequence[Pair]) -> tuple[list[Pair], dict[str, str]]:
    """The pairs of a folder that can be read and fit, and by stem why the others cannot be used."""
    usable, rejected = [], {}
    for pair in pairs:
        try:
            read_pair(pair)
            usable.append(pair)
        except InputError as error:
            rejected[pair.stem] = str(error)
    if not usable:
        raise InputError(f"{folder}: no pair can be used; {next(iter(rejected.values()))}")
    return usable, rejected


def refinement_loss(logits: Tensor, truth: Tensor) -> dict[str, Tensor]:
    """What the refiner is told.

    Args:
        logits: (B, 1, H, W) float32.
        truth: (B, 1, H, W) float32, 0 or 1.

    Returns:
        `cross_entropy`, weighted; `contour`, that of the pixels on the contour alone, which
        boundary accuracy counts in images of this size; `iou`, see `iou_loss`.
    """
    around = F.avg_pool2d(truth, NEAR, 1, NEAR // 2, count_include_pad=False)
    weight = 1 + NEAR_WEIGHT * (around - truth).abs()
    entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    contour = _contour(truth)
    return {
        "cross_entropy": (entropy * weight).sum() / weight.sum(),
        "contour": (entropy * contour).sum() / contour.sum().clamp_min(1),
        "iou": iou_loss(logits, truth),
    }


def _contour(truth: Tensor) -> Tensor:
    """1 where a pixel beside, above or below is on the other side, else 0; the same shape."""
    differ = [
        F.max_pool2d(side, kernel, 1, [k // 2 for k in kernel]) != side
        for side in (truth, -truth)
        for kernel in ((3, 1), (1, 3))
    ]
    return torch.stack(differ).any(0).float()


def boundary_accuracy(mask: Array, truth: Array) -> float:
    """mBA of two (H, W) uint8 masks, in [0, 1]."""
    return metrics.mba(metrics.compare(mask, truth))


class RefinerTask:
    """Training of the compact refiner.

    Args:
        network: what is trained.
        data: what it is shown.
        held_out: images it is measured on.
    """

    def __init__(
        self,
        network: CompactRefiner,
        data: DamagedMasks,
        held_out: Sequence[Pair],
    ) -> None:
        self.network, self.data, self.held_out = network, data, held_out
        self.parts: Mapping[str, nn.Module] = {
            "extractor": network.extractor,
            "refiner": network.unet,
        }
        self.metadata: Mapping[str, str] = {"network": "compact refiner"}

    def objectives(self, batch: Batch) -> list[Objective]:
        """One loss for all of it."""
        image, mask, truth = (batch[name].float() / 255 for name in ("image", "mask", "truth"))
        logits = self.network(image, mask)
        return [Objective(refinement_loss(logits, truth), ("extractor", "refiner"))]

    def validate(self, network: nn.Module) -> Validation | None:
        """How much of the damage is gone, on average, and how often it grew."""
        assert isinstance(network, CompactRefiner)
        device = next(network.parameters()).device
        step = mending_step(deepcopy(network), device, torch.float32)
        before: list[tuple[float, float]] = []
        after: list[tuple[float, float]] = []
        rows: list[tuple[Array, ...]] = []
        for number, case in enumerate(held_out_cases(self.held_out)):
            refined = step(case.image, case.mask)
            for measured, mask in ((before, case.mask), (after, refined)):
                binary = binarise(mask)
                measured.append(
                    (mask_iou(binary, case.truth), boundary_accuracy(binary, case.truth))
                )
            if is_shown(number, len(self.held_out), _SHOWN):
                rows.append((case.image, case.mask, refined, case.truth))
        if not rows:
            return None
        (ious, edges), (new_ious, new_edges) = np.array(before).T, np.array(after).T
        damage = (1 - ious).sum()
        scores = {
            "iou": float(new_ious.mean()),
            "error_gone": float(1 - (1 - new_ious).sum() / damage) if damage else 0.0,
            "mba_gain": float((new_edges - edges).mean()),
            "worse": float((new_ious < ious).mean()),
        }
        headings = ("image", "damaged mask", "refined", "true mask")
        return Validation(scores, 1 - scores["error_gone"], sheet(headings, rows, _TILE))
