"""How far a refined mask can be trusted, without ground truth.

DUTS-HQ's author warns that some refined masks are noisy. Two kinds of figures say where a person
should look: what the picture says of the refined mask (`build/contour.py`), which also finds faults
that the mask came with, and how the refined mask differs from the one it was made from. The first
are weighed by a linear discriminant fitted on damaged masks (`benchmarks/ranking.py fit`; its worth
is in docs/experiments.md), the second by ranges taken from DUTS-HQ's published samples.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import cv2
import numpy as np

from hqsod.build import contour
from hqsod.build.contour import Figures, Mask
from hqsod.build.recipes import MASK_THRESHOLD
from hqsod.images import Array

FLAG_BELOW = 0.5  # scores under this are flagged
SOFT = (26, 229)  # grey levels from 10 % to 90 %: neither object nor background
HALO = 0.05  # of the object's diameter: soft pixels this near the contour are a soft edge, no fog

# A figure's worth falls from 1 at the first value to 0 at the second and multiplies the score.
IOU_RANGE = (0.93, 0.6)
FOG_RANGE = (0.02, 0.3)
PARTS_RANGE = (0.6, 3.0)
PREDICTION_RANGE = (0.5, 0.0)

# Of each figure: mean, deviation, weight in the doubt.
WEIGHTS: dict[str, tuple[float, float, float]] = {
    "edge_weakest": (0.547, 0.230, -0.38),
    "edge_excess": (0.119, 0.129, -0.31),
    "side_contrast": (0.045, 0.522, -0.89),
    "surround_alike": (0.293, 0.100, -0.41),
    "colour_iou": (0.596, 0.157, -0.35),
    "misfit": (0.165, 0.069, 0.39),
    "specks": (0.497, 1.097, 0.35),
    "area": (-1.466, 0.655, -0.47),
    "border": (0.045, 0.093, 0.30),
}
DOUBTFUL = -0.6  # doubt at which the trust is a half: one right mask in ten or so lies above
STEEPNESS = 1.0  # how fast it falls there
OUTLIER = 3.0  # deviations beyond which a figure says no more


@dataclass(frozen=True, slots=True)
class Quality:
    """The figures of one refined mask.

    Attributes:
        picture: what the picture says of it; None where it has no contour to judge.
        iou: intersection over union of upscaled and refined mask, 0 to 1.
        fog: undecided pixels away from the contour, as a share of the object's area.
        parts_change: binary logarithm of how many times more (or fewer) parts and holes there
            are, at least 0.
        prediction_iou: the same overlap with a network's own prediction; None without one.
        score: trust, 0 to 1.
    """

    picture: Figures | None
    iou: float
    fog: float
    parts_change: float
    prediction_iou: float | None
    score: float

    @property
    def flagged(self) -> bool:
        """Whether a person should look."""
        return self.score < FLAG_BELOW

    def as_dict(self) -> dict[str, float]:
        """Figure names and values, for the manifest."""
        values = {"iou": self.iou, "fog": self.fog, "parts_change": self.parts_change}
        if self.prediction_iou is not None:
            values["prediction_iou"] = self.prediction_iou
        return values | (asdict(self.picture) if self.picture else {}) | {"score": self.score}


def judge(
    image: Array, upscaled: Array, refined: Array, prediction: Array | None = None
) -> Quality:
    """Judge a refined mask against the picture and against what it was made from.

    Args:
        image: (H, W, 3) uint8, the enlarged picture without its canvas.
        upscaled: (H, W) uint8, the enlarged mask.
        refined: (H, W) uint8.
        prediction: (H, W) uint8, a network's own saliency map of the picture, of any size.
    """
    small, before, after = (contour.reduce(array) for array in (image, upscaled, refined))
    mask = after > MASK_THRESHOLD
    picture = contour.examine(small, mask)
    iou = overlap(before > MASK_THRESHOLD, mask)
    fog = _fog(after, mask)
    parts_change = abs(float(np.log2(_parts(mask) / _parts(before > MASK_THRESHOLD))))
    score = (
        (trust(picture) if picture else 0.0)
        * _worth(iou, IOU_RANGE)
        * _worth(fog, FOG_RANGE)
        * _worth(parts_change, PARTS_RANGE)
    )
    agreement = None
    if prediction is not None:
        size = (mask.shape[1], mask.shape[0])
        agreement = overlap(cv2.resize(prediction, size) > MASK_THRESHOLD, mask)
        score *= _worth(agreement, PREDICTION_RANGE)
    return Quality(picture, iou, fog, parts_change, agreement, score)


def trust(figures: Figures) -> float:
    """Trust in a mask by what the picture says of it, 0 to 1."""
    return float(1 / (1 + np.exp(STEEPNESS * (doubt(figures) - DOUBTFUL))))


def doubt(figures: Figures) -> float:
    """The discriminant: 0 for a mask of ordinary figures, larger for one that may be damaged."""
    total = 0.0
    for name, value in explained(figures).items():
        mean, deviation, weight = WEIGHTS[name]
        total += weight * float(np.clip((value - mean) / deviation, -OUTLIER, OUTLIER))
    return total


def explained(figures: Figures) -> dict[str, float]:
    """The figures as the discriminant takes them: counts and shares by their logarithm."""
    values: dict[str, float] = asdict(figures)
    values["specks"] = float(np.log1p(figures.specks))
    values["area"] = float(np.log(figures.area))
    return values


def overlap(first: Mask, second: Mask) -> float:
    """Intersection over union; 1 where both are empty."""
    union = int(np.count_nonzero(first | second))
    return int(np.count_nonzero(first & second)) / union if union else 1.0


def _worth(value: float, ends: tuple[float, float]) -> float:
    good, bad = ends
    return float(np.clip((value - bad) / (good - bad), 0, 1))


def _fog(refined: Array, mask: Mask) -> float:
    """Undecided pixels that are no soft edge, over the object's area."""
    low, high = SOFT
    soft = (refined >= low) & (refined <= high)
    area = max(int(np.count_nonzero(mask)), 1)
    reach = max(2, round(HALO * float(np.sqrt(area))))
    kernel = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    edge = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_GRADIENT, kernel) > 0
    return int(np.count_nonzero(soft & ~edge)) / area


def _parts(mask: Mask) -> int:
    """Parts of the object and holes in it that are larger than a speck, plus one."""
    sides = (contour.areas(side) for side in (mask, ~mask))
    return 1 + sum(int(np.count_nonzero(a >= contour.SPECK * mask.size)) for a in sides)
