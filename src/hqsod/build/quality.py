"""How far a refined mask can be trusted, without ground truth.

DUTS-HQ's author warns that some refined masks are noisy. Four figures say where a person should
look: how much the refiner changed, how undecided it is, whether it broke the object into parts or
joined them, and whether its contour lies on the picture's edges.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import cv2
import numpy as np
import numpy.typing as npt

from hqsod.build.recipes import MASK_THRESHOLD
from hqsod.images import Array

FLAG_BELOW = 0.5  # scores under this are flagged
SOFT = (26, 229)  # grey levels from 10 % to 90 %: neither object nor background
SMALLEST_PART = 1e-4  # of the picture's pixels: smaller parts are specks, counted together
EDGE_RADIUS = 8  # pixels of the enlarged picture within which an edge should be found
BLUR = 1.5  # pixels; edges finer than this are noise at four times the size

# A figure's worth falls from 1 at the first value to 0 at the second; the score is their product.
IOU_RANGE = (0.95, 0.5)
SOFT_RANGE = (0.01, 0.10)
PARTS_RANGE = (0.0, 3.0)
EDGE_RANGE = (0.0, -0.35)


@dataclass(frozen=True, slots=True)
class Quality:
    """The figures of one refined mask.

    Attributes:
        iou: intersection over union of upscaled and refined mask, 0 to 1.
        soft_share: share of undecided pixels, 0 to 1.
        parts_change: binary logarithm of how many times more (or fewer) parts and holes there
            are, at least 0.
        edge_agreement: how near the refined contour lies to the picture's edges, 0 to 1.
        edge_gain: its edge agreement less the upscaled mask's, -1 to 1.
        score: trust, 0 to 1.
    """

    iou: float
    soft_share: float
    parts_change: float
    edge_agreement: float
    edge_gain: float
    score: float

    @property
    def flagged(self) -> bool:
        """Whether a person should look."""
        return self.score < FLAG_BELOW

    def as_dict(self) -> dict[str, float]:
        """Figure names and values, for the manifest."""
        return asdict(self)


def judge(image: Array, upscaled: Array, refined: Array) -> Quality:
    """Judge a refined mask against what it was made from.

    Args:
        image: (H, W, 3) uint8, the enlarged picture without its canvas.
        upscaled: (H, W) uint8, the enlarged mask.
        refined: (H, W) uint8.
    """
    before, after = upscaled > MASK_THRESHOLD, refined > MASK_THRESHOLD
    edges = _edge_strength(image)
    agreement_before, agreement = _edge_agreement(edges, before), _edge_agreement(edges, after)
    iou = _iou(before, after)
    soft_share = _soft_share(refined)
    parts_change = abs(float(np.log2(_parts(after) / _parts(before))))
    gain = agreement - agreement_before
    score = (
        _worth(iou, IOU_RANGE)
        * _worth(soft_share, SOFT_RANGE)
        * _worth(parts_change, PARTS_RANGE)
        * _worth(gain, EDGE_RANGE)
    )
    return Quality(iou, soft_share, parts_change, agreement, gain, score)


def _worth(value: float, ends: tuple[float, float]) -> float:
    good, bad = ends
    return float(np.clip((value - bad) / (good - bad), 0, 1))


def _iou(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> float:
    union = np.count_nonzero(first | second)
    return np.count_nonzero(first & second) / union if union else 1.0


def _soft_share(refined: Array) -> float:
    """Share of the picture that is neither object nor background."""
    low, high = SOFT
    return np.count_nonzero((refined >= low) & (refined <= high)) / refined.size


def _parts(mask: npt.NDArray[np.bool_]) -> int:
    """Parts of the object and holes in it that are larger than a speck, plus one."""
    count = 1
    for side in (mask, ~mask):
        areas = cv2.connectedComponentsWithStats(side.astype(np.uint8))[2][1:, cv2.CC_STAT_AREA]
        count += int(np.count_nonzero(areas >= SMALLEST_PART * mask.size))
    return count


def _edge_strength(image: Array) -> npt.NDArray[np.float32]:
    """Gradient magnitude relative to the strongest within `EDGE_RADIUS`, 0 to 1."""
    smooth = cv2.GaussianBlur(image, (0, 0), BLUR).astype(np.float32)
    across, down = cv2.Sobel(smooth, -1, 1, 0), cv2.Sobel(smooth, -1, 0, 1)
    gradient = np.hypot(across, down).max(axis=2)
    side = 2 * EDGE_RADIUS + 1
    strongest = cv2.dilate(gradient, np.ones((side, side), np.uint8))
    return np.asarray(gradient / np.maximum(strongest, 1), np.float32)


def _edge_agreement(edges: npt.NDArray[np.float32], mask: npt.NDArray[np.bool_]) -> float:
    """Mean edge strength along the contour of `mask`; 1 where there is no contour."""
    kernel = np.ones((3, 3), np.uint8)
    contour = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_GRADIENT, kernel) > 0
    contour[[0, -1]] = contour[:, [0, -1]] = False
    return float(edges[contour].mean()) if contour.any() else 1.0
