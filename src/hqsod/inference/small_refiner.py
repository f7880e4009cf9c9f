"""The small refiner: two small networks, one after the other, whatever the image's size.

The first mends what is damaged, the second draws the contour: the global and the local step of
CascadePSP (Cheng et al., CVPR 2020), each with a network of its own. Where a step holds back, the
mask passes on as it was given, soft edges and all.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from hqsod.images import Array
from hqsod.inference.contour_step import ContourStep
from hqsod.inference.mending_step import MendingStep
from hqsod.inference.onnx_session import exported
from hqsod.pairs import require_pair

MENDING, CONTOUR = "mending", "contour"  # the networks of a checkpoint


class Step(Protocol):
    """One step of refining."""

    def __call__(self, image: Array, mask: Array) -> Array:
        """An image, (H, W, 3) uint8, and its mask, (H, W) uint8, to a better mask."""
        ...


class SmallRefiner:
    """Steps as a `Refiner`.

    Args:
        name: what users call it.
        digest: SHA-256 of its weights file.
        steps: applied in this order.

    Attributes:
        steps: as given.
    """

    def __init__(self, name: str, digest: str, steps: Sequence[Step]) -> None:
        self.name, self.weights, self.steps = name, digest, tuple(steps)

    def __call__(self, image: Array, mask: Array) -> Array:
        """Refine a mask; see `Refiner`. Black rows and columns at the border stay background."""
        require_pair(image, mask)
        refined = np.zeros_like(mask)
        window = _content(image, mask)
        part = mask[window]
        if part.any():
            for step in self.steps:
                part = step(image[window], part)
            refined[window] = part
        return refined


def exported_steps(path: Path, digest: str) -> list[Step]:
    """The steps of a checkpoint whose networks lie exported beside it; none unless all do."""
    found = {part: exported(path, digest, part) for part in (MENDING, CONTOUR)}
    graphs = {part: graph for part, graph in found.items() if graph is not None}
    if any(graph.about.get("parts") != " ".join(graphs) for graph in graphs.values()):
        return []
    steps: list[Step] = []
    if mend := graphs.get(MENDING):
        steps.append(MendingStep(mend, mend.number("stride")))
    if draw := graphs.get(CONTOUR):
        steps.append(ContourStep(draw, draw.number("stride"), draw.number("margin")))
    return steps


def _content(image: Array, mask: Array) -> tuple[slice, slice]:
    """Rows and columns without the black border that is no part of the image.

    An image lies in the middle of its canvas: what is black at one side alone is a dark image.
    """
    red, green, blue = np.moveaxis(image, 2, 0)
    left, top, width, height = cv2.boundingRect(red | green | blue | mask)
    if not width:
        return slice(None), slice(None)
    border = min(top, mask.shape[0] - top - height), min(left, mask.shape[1] - left - width)
    rows, columns = (slice(b, length - b) for b, length in zip(border, mask.shape, strict=True))
    return rows, columns
