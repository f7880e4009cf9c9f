"""The small refiner: two small networks, one after the other, whatever the picture's size.

The first mends what is damaged, the second draws the contour: the global and the local step of
CascadePSP (Cheng et al., CVPR 2020), each with a network of its own. Where a step holds back, the
mask passes on as it was given, soft edges and all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import cv2
import numpy as np
import torch
from torch import Tensor

from hqsod import images
from hqsod.images import Array
from hqsod.inference.contour_step import ContourStep
from hqsod.inference.mending_step import MendingStep
from hqsod.models.compact_refiner import (
    CompactRefiner,
    build_compact_refiner,
    is_compact_refiner,
)
from hqsod.models.contour_refiner import build_contour_refiner, is_contour_refiner


class Step(Protocol):
    """One step of refining."""

    def __call__(self, image: Array, mask: Array) -> Array:
        """A picture, (H, W, 3) uint8, and its mask, (H, W) uint8, to a better mask."""
        ...


class SmallRefiner:
    """Steps as a `Refiner`.

    Args:
        name: what users call it.
        digest: SHA-256 of its weights file.
        steps: applied in this order.
    """

    def __init__(self, name: str, digest: str, steps: Sequence[Step]) -> None:
        self.name, self.weights, self._steps = name, digest, tuple(steps)

    def __call__(self, image: Array, mask: Array) -> Array:
        """Refine a mask; see `Refiner`. Black rows and columns at the border stay background."""
        images.require_pair(image, mask)
        refined = np.zeros_like(mask)
        window = _content(image, mask)
        part = mask[window]
        if part.any():
            for step in self._steps:
                part = step(image[window], part)
            refined[window] = part
        return refined


def build_steps(
    state: Mapping[str, Tensor], device: torch.device, precision: torch.dtype
) -> list[Step]:
    """The steps whose networks a checkpoint holds: both, or one of them alone, or none.

    Raises:
        WeightsError: tensors that do not fit the networks they are named after.
    """
    steps: list[Step] = []
    mending, contour = _part(state, "mending"), _part(state, "contour")
    if is_compact_refiner(mending):
        steps.append(MendingStep(build_compact_refiner(mending), device, precision))
    if is_contour_refiner(contour):
        steps.append(ContourStep(build_contour_refiner(contour), device, precision))
    return steps


def build_mending(state: Mapping[str, Tensor]) -> CompactRefiner:
    """The network of the first step, of a checkpoint that holds it.

    Raises:
        WeightsError: it does not.
    """
    return build_compact_refiner(_part(state, "mending"))


def _part(state: Mapping[str, Tensor], name: str) -> Mapping[str, Tensor]:
    """The tensors of one network; all of them where a checkpoint holds but one."""
    prefix = f"{name}."
    part = {key.removeprefix(prefix): state[key] for key in state if key.startswith(prefix)}
    return part or state


def _content(image: Array, mask: Array) -> tuple[slice, slice]:
    """Rows and columns without the black border that is no part of the picture.

    A picture lies in the middle of its canvas: what is black at one side alone is a dark picture.
    """
    red, green, blue = np.moveaxis(image, 2, 0)
    left, top, width, height = cv2.boundingRect(red | green | blue | mask)
    if not width:
        return slice(None), slice(None)
    border = min(top, mask.shape[0] - top - height), min(left, mask.shape[1] - left - width)
    rows, columns = (slice(b, length - b) for b, length in zip(border, mask.shape, strict=True))
    return rows, columns
