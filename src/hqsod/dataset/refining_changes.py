"""What refining changed, over a data set and within a mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from hqsod.dataset.folders import IMAGES
from hqsod.dataset.manifest import Record
from hqsod.images import Array
from hqsod.masks import binarise

NEAR = 4  # pixels: what counts as near a contour; one pixel of the mask before upscaling


@dataclass(frozen=True, slots=True)
class Refining:
    """What refining did to the masks of a data set.

    Attributes:
        masks: how many were refined.
        changed: how many came out with another contour.
        redrawn: mean of `redrawn` over all of them.
        iou: mean overlap with the masks they were made from.
    """

    masks: int
    changed: int
    redrawn: float
    iou: float

    def __str__(self) -> str:
        if not self.changed:
            return f"refining changed none of {self.masks} masks"
        return (
            f"refining changed {self.changed} of {self.masks} masks: on average "
            f"{self.redrawn:.1%} of the pixels within {NEAR} pixels of the contour changed sides "
            f"(overlap before and after {self.iou:.1%})"
        )


def summarise(records: Sequence[Record]) -> Refining | None:
    """What refining did to these pairs; None where there is no refined mask."""
    refined = [record for record in records if "redrawn" in record.quality]
    if not refined:
        return None
    figures = [
        (0.0, 1.0) if _is_unchanged(record) else (record.quality["redrawn"], record.quality["iou"])
        for record in refined
    ]
    shares, overlaps = zip(*figures, strict=True)
    return Refining(
        masks=len(figures),
        changed=sum(share > 0 for share in shares),
        redrawn=float(np.mean(shares)),
        iou=float(np.mean(overlaps)),
    )


def _is_unchanged(record: Record) -> bool:
    """Whether the refined mask is the upscaled one, as where a flagged one gave way to it."""
    masks = {file.sha256 for layer, file in record.outputs.items() if layer != IMAGES}
    return len(masks) == 1


def redrawn(before: Array, after: Array) -> float:
    """Share of the pixels near a mask's contour that changed sides.

    Args:
        before: (H, W) uint8, the mask that was refined.
        after: (H, W) uint8, the refined one.

    Returns:
        Changed pixels, wherever they are, over pixels within `NEAR` of the contour of `before`; at
        most 1, as where all of the mask has changed.
    """
    first, second = binarise(before), binarise(after)
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * NEAR + 1, 2 * NEAR + 1))
    near = cv2.countNonZero(cv2.morphologyEx(first, cv2.MORPH_GRADIENT, disk))
    return min(1.0, cv2.countNonZero(cv2.absdiff(first, second)) / max(near, 1))


def most_changed(before: Array, after: Array, side: int) -> tuple[slice, slice]:
    """A square window around where most pixels changed sides; in the middle where none did.

    Args:
        before: (H, W) uint8.
        after: (H, W) uint8.
        side: of the window in pixels; it is smaller where the mask is.
    """
    changed = (cv2.absdiff(binarise(before), binarise(after)) > 0).astype(np.float32)
    # Twice, so that what changed lies in the middle of the window, not at its edge.
    size = (side // 2 + 1, side // 2 + 1)
    density = cv2.blur(cv2.blur(changed, size), size)
    middle = divmod(int(density.argmax()), density.shape[1])
    if not density.any():
        middle = before.shape[0] // 2, before.shape[1] // 2
    top, left = (
        max(0, min(at - side // 2, length - side))
        for at, length in zip(middle, before.shape, strict=True)
    )
    return slice(top, top + side), slice(left, left + side)
