"""How far a refined mask can be trusted, without ground truth.

DUTS-HQ's author warns that some refined masks are noisy. Two kinds of figures say where a person
should look: how well the image supports the refined mask (`quality/contour.py`), and how the mask
differs from the one it was made from. A linear discriminant weighs them. It was fitted on damaged
masks by `benchmarks/ranking.py`; docs/experiments.md has its accuracy, and what each figure adds.
Where a network sees another object than the mask shows, the trust is lower in proportion: that
finds what was wrong before the build.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import cv2
import numpy as np

from hqsod.dataset.refining_changes import redrawn
from hqsod.images import Array
from hqsod.masks import MASK_THRESHOLD
from hqsod.metrics.regions import mask_iou
from hqsod.quality import contour
from hqsod.quality.contour import Figures, Mask

FLAG_BELOW = 0.5  # scores under this are flagged
SOFT = (26, 229)  # grey levels from 10 % to 90 %: neither object nor background
LEAST = 0.002  # share of the mask: a smaller change counts as none
# Widest change, in pixels of the working copy, that is only a contour that was moved: two pixels of
# a small mask that was enlarged four times to about 1280.
MOVED = 2
HALO = 0.05  # of the object's diameter: soft pixels this near the contour are a soft edge, no fog

# Not fitted, because the simulated damage makes no fog. The score is multiplied by 1 at the first
# value, and by less up to 0 at the second.
FOG_RANGE = (0.15, 0.6)

# Of each figure: mean, deviation, weight in the doubt.
WEIGHTS: dict[str, tuple[float, float, float]] = {
    "edge_weakest": (0.581, 0.214, -0.424),
    "edge_excess": (0.162, 0.117, -0.230),
    "side_contrast": (0.095, 0.505, -0.940),
    "surround_alike": (0.280, 0.098, -0.296),
    "misfit": (0.158, 0.073, 0.232),
    "area": (-1.512, 0.665, -0.249),
    # Refitted alone, so that an unchanged mask is trusted as before: see the experiments.
    "mended": (-4.18, 1.68, 2.0),
}
DOUBTFUL = -1.5  # doubt at which the trust is a half; one right mask in ten has more
STEEPNESS = 1.5  # how fast it falls there
OUTLIER = 3.0  # deviations at which figures are clipped
# Overlap with a network's own prediction under which the trust falls, in proportion. Not fitted: it
# is what finds the real faults of DUTS, and simulated damage says little; see docs/duts-faults.md.
SEEN = 0.8


@dataclass(frozen=True, slots=True)
class Change:
    """How a refined mask differs from the one it was made from.

    Attributes:
        iou: intersection over union of the two, 0 to 1.
        mended: pixels that changed sides where more than a contour moved, as a share of the union.
        fog: undecided pixels away from the contour, as a share of the object's area.
        redrawn: pixels that changed sides, as a share of those near the contour.
    """

    iou: float
    mended: float
    fog: float
    redrawn: float


@dataclass(frozen=True, slots=True)
class Quality:
    """The figures of one refined mask.

    Attributes:
        change: how it differs from the mask it was made from.
        figures: how well the image supports it; None where it has no contour to judge.
        prediction_iou: its overlap with a network's own prediction; None without one.
        score: trust, 0 to 1.
    """

    change: Change
    figures: Figures | None
    prediction_iou: float | None
    score: float

    @property
    def flagged(self) -> bool:
        """Whether a person should look."""
        return self.score < FLAG_BELOW

    def as_dict(self) -> dict[str, float]:
        """Figure names and values, for the manifest."""
        values: dict[str, float] = asdict(self.change)
        if self.prediction_iou is not None:
            values["prediction_iou"] = self.prediction_iou
        return values | (asdict(self.figures) if self.figures else {}) | {"score": self.score}


def judge(
    image: Array, upscaled: Array, refined: Array, prediction: Array | None = None
) -> Quality:
    """Judge a refined mask against the image and against what it was made from.

    Args:
        image: (H, W, 3) uint8, the enlarged image without its canvas.
        upscaled: (H, W) uint8, the enlarged mask.
        refined: (H, W) uint8.
        prediction: (H, W) uint8, a network's own saliency map of the image, of any size.
    """
    small, before, after = (contour.reduce(array) for array in (image, upscaled, refined))
    mask = after > MASK_THRESHOLD
    figures = contour.examine(small, mask)
    given = before > MASK_THRESHOLD
    change = Change(
        iou=mask_iou(given, mask),
        mended=_mended(given, mask),
        fog=_fog(after, mask),
        redrawn=redrawn(upscaled, refined),
    )
    agreement = None
    if prediction is not None:
        size = (mask.shape[1], mask.shape[0])
        agreement = mask_iou(cv2.resize(prediction, size) > MASK_THRESHOLD, mask)
    quality = Quality(change, figures, agreement, 0.0)
    score = trust(explained(quality)) * _worth(change.fog, FOG_RANGE) if figures else 0.0
    return replace(quality, score=score)


def explained(quality: Quality) -> dict[str, float]:
    """The figures as the discriminant takes them; those that span magnitudes as logarithms.

    Empty without a contour; without a prediction, its figure is left out.
    """
    if quality.figures is None:
        return {}
    values: dict[str, float] = asdict(quality.figures)
    values["area"] = float(np.log(quality.figures.area))
    values["mended"] = float(np.log(quality.change.mended + LEAST))
    if quality.prediction_iou is not None:
        values["prediction_iou"] = quality.prediction_iou
    return values


def trust(values: dict[str, float]) -> float:
    """Trust in a mask with these figures, as `explained` gives them, 0 to 1."""
    doubt = 0.0
    for name, (mean, deviation, weight) in WEIGHTS.items():
        doubt += weight * float(np.clip((values[name] - mean) / deviation, -OUTLIER, OUTLIER))
    seen = values.get("prediction_iou", 1.0)
    return float(1 / (1 + np.exp(STEEPNESS * (doubt - DOUBTFUL)))) * min(1.0, seen / SEEN)


def _worth(value: float, ends: tuple[float, float]) -> float:
    good, bad = ends
    return float(np.clip((value - bad) / (good - bad), 0, 1))


def _mended(before: Mask, after: Mask) -> float:
    """Pixels that changed sides in patches wider than a moved contour leaves, over the union."""
    kernel = np.ones((MOVED + 1, MOVED + 1), np.uint8)
    patches = cv2.morphologyEx((before ^ after).astype(np.uint8), cv2.MORPH_OPEN, kernel)
    return cv2.countNonZero(patches) / max(int(np.count_nonzero(before | after)), 1)


def _fog(refined: Array, mask: Mask) -> float:
    """Undecided pixels that are no soft edge, over the object's area."""
    low, high = SOFT
    soft = (refined >= low) & (refined <= high)
    area = max(int(np.count_nonzero(mask)), 1)
    reach = max(2, round(HALO * float(np.sqrt(area))))
    kernel = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    edge = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_GRADIENT, kernel) > 0
    return int(np.count_nonzero(soft & ~edge)) / area
