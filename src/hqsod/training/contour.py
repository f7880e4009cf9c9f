"""The contour refiner as a task: its recipe, what the network is told, how good it is.

The task is the build's own: pairs are reduced by four and worn (see `wear`), enlarged by the
build's upscaler, and the full-size mask with its soft edge is the truth. CascadePSP (Cheng et al.,
CVPR 2020) learns its local step likewise from losses of cross-entropy and absolute difference;
differs in that pixels count by how near the contour they lie (Wei et al., "F3Net", AAAI 2020).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from hqsod import metrics, weights
from hqsod.dataset.refining_changes import most_changed
from hqsod.images import Array
from hqsod.inference.runtime import Runtime
from hqsod.inference.small_refiner import MENDING
from hqsod.inference.torch_refiner import contour_step, part_of
from hqsod.inference.upscaler import load_upscaler
from hqsod.models.compact_refiner import build_compact_refiner
from hqsod.models.contour_numbers import GROUP
from hqsod.models.contour_refiner import WIDTHS, ContourRefiner, near_contour
from hqsod.pairs import Pair
from hqsod.training.batches import Batch
from hqsod.training.contour_pairs import Crops, ReducedPairs, reduced_cases
from hqsod.training.contour_wear import Wear
from hqsod.training.damaged_pairs import Case
from hqsod.training.refiner import divide_pairs
from hqsod.training.settings import LoopSettings, Section
from hqsod.training.sheets import is_shown, sheet
from hqsod.training.task import DataFolders, Objective, Prepared, Stage, Validation

NEAR = 9  # side of the window that says how near the contour a pixel is
FAR_WEIGHT, NEAR_WEIGHT = 0.5, 8.0  # of a pixel anywhere; and half of that more on the contour
DIFFERENCE_WEIGHT = 1.5  # of the absolute difference, beside cross-entropy
_MEASURED = 200  # held-out pairs at most
_SHOWN = 8  # images on a sheet
_TILE = 200  # pixels


class ContourRecipe(Section):
    """A whole training of the contour refiner.

    Attributes:
        task: says that it is one.
        widths: see `ContourRefiner`.
        upscaler: enlarges the images, by name or path.
        mending: the weights of the step before, by name or path, which are kept with the network's
            own so that one file is a whole refiner; `none` for none.
        holdout: share of the pairs kept for validation where no others are named.
        wear: see `Wear`.
        crops: see `Crops`.
        loop: see `LoopSettings`.
    """

    task: Literal["contour"]
    widths: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=WIDTHS, min_length=1)
    upscaler: str = "hqsod-x4-small"
    mending: str = "hqsod-refiner-small"
    holdout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    wear: Wear = Wear()
    crops: Crops = Crops()
    loop: LoopSettings

    @model_validator(mode="after")
    def _consistent(self) -> ContourRecipe:
        stride = GROUP << (len(self.widths) - 1)
        if self.crops.side % stride:
            raise ValueError(
                f"crops.side to be a multiple of {stride}, the stride of {len(self.widths)} widths"
            )
        return self


def stages(recipe: ContourRecipe, folders: DataFolders, _out: Path) -> list[Stage]:
    """The one stage."""
    return [Stage("run", recipe.loop, partial(_prepare, recipe, folders))]


def _prepare(recipe: ContourRecipe, folders: DataFolders) -> Prepared:
    """Find the pairs, hold some of them out, and initialise the weights.

    Raises:
        InputError: no pairs, or none of them can be used.
        WeightsError: the upscaler's or the mending step's weights cannot be had.
    """
    upscaler = load_upscaler(recipe.upscaler, Runtime())
    torch.manual_seed(recipe.loop.seed)
    network = nn.ModuleDict({"contour": ContourRefiner(recipe.widths)})
    if recipe.mending != "none":
        state = weights.load(weights.resolve(recipe.mending))
        network["mending"] = build_compact_refiner(part_of(state, MENDING))
    pairs = divide_pairs(folders, recipe.holdout)
    data = ReducedPairs(pairs.usable, upscaler, recipe.wear, recipe.crops)
    task = ContourTask(network, data, pairs.held_out)
    return Prepared(task, len(task.held_out), pairs.rejected, pairs.unpaired)


def contour_loss(logits: Tensor, masks: Tensor, truth: Tensor) -> dict[str, Tensor]:
    """What the network is told, of the pixels that it can change.

    Args:
        logits: (B, 1, H, W) float32.
        masks: (B, 1, H, W) float32 in [0, 1], what it was given.
        truth: (B, 1, H, W) float32 in [0, 1].

    Returns:
        `cross_entropy`, whose best answer is as soft as the contour is uncertain, and `difference`,
        whose best answer is decided: together, edges about as soft as the truth's.
    """
    around = F.avg_pool2d(truth, NEAR, 1, NEAR // 2, count_include_pad=False)
    weight = F.interpolate(near_contour(masks), scale_factor=float(GROUP))
    weight = weight * (FAR_WEIGHT + NEAR_WEIGHT * (around - truth).abs())
    total = weight.sum() + 1  # no contour, no loss
    entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    difference = DIFFERENCE_WEIGHT * (logits.sigmoid() - truth).abs()
    return {
        "cross_entropy": (entropy * weight).sum() / total,
        "difference": (difference * weight).sum() / total,
    }


class ContourTask:
    """Training of the contour refiner.

    Args:
        network: `contour`, which is trained, and the `mending` step's, which is only kept with it.
        data: what it is shown.
        held_out: pairs it is measured on.
    """

    def __init__(
        self, network: nn.ModuleDict, data: ReducedPairs, held_out: Sequence[Pair]
    ) -> None:
        self.network, self.data = network, data
        self.held_out = held_out[:: max(1, -(-len(held_out) // _MEASURED))]
        self.parts: Mapping[str, nn.Module] = {"contour": network["contour"]}
        self.metadata: Mapping[str, str] = {"network": "small refiner"}

    def objectives(self, batch: Batch) -> list[Objective]:
        """One loss for all of it."""
        image, mask, truth = (batch[name].float() / 255 for name in ("image", "mask", "truth"))
        logits = self.network["contour"](image, mask)
        return [Objective(contour_loss(logits, mask, truth), ("contour",))]

    def validate(self, network: nn.Module) -> Validation | None:
        """How much more accurate contours are, of masks that are soft and right, and of all."""
        assert isinstance(network, nn.ModuleDict)
        contour = network["contour"]
        assert isinstance(contour, ContourRefiner)
        device = next(contour.parameters()).device
        step = contour_step(deepcopy(contour), device, torch.float32)
        right = Wear(intact=1, binary=0, blurred=0, compressed=0)
        gains: dict[str, list[float]] = {}
        rows: list[list[Array]] = []
        for kind, wear in {"right_gain": right, "worn_gain": self.data.wear}.items():
            for number, case in enumerate(reduced_cases(self.held_out, self.data.upscaler, wear)):
                refined = step(case.image, case.mask)
                before, after = (
                    metrics.mba(metrics.compare(m, case.truth)) for m in (case.mask, refined)
                )
                gains.setdefault(kind, []).append(after - before)
                if is_shown(number, len(self.held_out), _SHOWN // 2):
                    rows.append(_closest(case, refined))
        if not rows:
            return None
        scores = {kind: float(np.mean(values)) for kind, values in gains.items()}
        headings = ("image", "mask", "refined", "true mask")
        return Validation(scores, -sum(scores.values()), sheet(headings, rows, _TILE))


def _closest(case: Case, refined: Array) -> list[Array]:
    """Image, mask, refined mask and truth where the mask changed most, black beyond the border."""
    window = most_changed(case.mask, refined, _TILE)
    tiles = []
    for layer in (case.image, case.mask, refined, case.truth):
        tile = layer[window]
        border = [(0, _TILE - side) for side in tile.shape[:2]] + [(0, 0)] * (tile.ndim - 2)
        tiles.append(np.pad(tile, border))
    return tiles
