"""The small refiner's first step: mends what is far from right, at a reduced size."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from hqsod import images
from hqsod.images import Array
from hqsod.inference.devices import optimise
from hqsod.models.compact_refiner import CompactRefiner, refine

SIDE = 400  # of the picture the network sees, in pixels: its training pictures' and DUTS's

# Of the object's area. On held-out pictures nine of ten masks with an IoU of 0.85 to 0.95 are
# changed by more than 4.6 %, nineteen of twenty right ones by less than 3.3 %.
LEAST_CHANGE = 0.05


class MendingStep:
    """What is far from right, by the compact network at the size it was trained for.

    A picture enlarged four times shows no more than it did before, so the network sees it reduced.
    What it leaves on the mask's side keeps the mask; only what it changes is drawn anew. A mask
    that it would hardly change is left alone: right masks are better than what it makes of them.

    Args:
        network: becomes this object's own: its BatchNorm is folded.
        device: where it runs.
        precision: of its convolutions.
        side: longest side of the picture the network sees; larger pictures are reduced.
    """

    def __init__(
        self,
        network: CompactRefiner,
        device: torch.device,
        precision: torch.dtype,
        side: int = SIDE,
    ) -> None:
        self._network, self._side = optimise(network, device, precision), side

    def __call__(self, image: Array, mask: Array) -> Array:
        """The mask mended, or as it is; see `Step`."""
        factor = min(1.0, self._side / max(mask.shape))
        size = max(1, round(mask.shape[0] * factor)), max(1, round(mask.shape[1] * factor))
        small, binary = (
            images.resize(layer, size, Image.Resampling.BOX)
            for layer in (image, images.binarise(mask))
        )
        binary = images.binarise(binary)
        refined = refine(self._network, small, binary)
        changed = images.binarise(refined) != binary
        if np.count_nonzero(changed) < LEAST_CHANGE * np.count_nonzero(binary):
            return mask
        return _redraw(mask, refined, changed)


def _redraw(mask: Array, refined: Array, changed: npt.NDArray[np.bool_]) -> Array:
    """Bring a refined mask to the size of the mask it came from, and keep what did not change.

    Args:
        mask: (H, W) uint8.
        refined: (h, w) uint8, of the mask's size or smaller.
        changed: (h, w), where it is not on the side of the mask.

    Returns:
        (H, W) uint8.
    """
    near = cv2.dilate(changed.astype(np.uint8), np.ones((3, 3), np.uint8))
    size = mask.shape[::-1]
    large = cv2.resize(refined, size, interpolation=cv2.INTER_CUBIC)
    redrawn = cv2.resize(near, size, interpolation=cv2.INTER_NEAREST) > 0
    return np.asarray(np.where(redrawn, large, mask), np.uint8)
