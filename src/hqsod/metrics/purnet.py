"""PurNet's own evaluation (Li et al., TIP 2021), as its published MATLAB code computes it.

It differs from the standard protocol in three ways. Ground truth is stretched to [0, 1] and only
its brightest pixels are foreground. A constant map becomes 0 or 1, not its level. F comes from the
data set's mean precision and mean recall of maps cut at twice their mean, and there a constant map
finds nothing and grey pixels of the ground truth are not counted as false.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hqsod.metrics.comparison import Comparison, check, count, lay_over

_Array = NDArray[np.uint8]


def compare_purnet(prediction: _Array, ground_truth: _Array) -> Comparison:
    """Lay a map over its ground truth as the published code does.

    Args:
        prediction: (H, W) uint8 saliency map.
        ground_truth: (H, W) uint8; its highest level alone is foreground, unless all is 0.

    Raises:
        InputError: not two uint8 arrays of one size, or an empty one.
    """
    check(prediction, ground_truth)
    highest = max(int(ground_truth.max()), 1)
    if ground_truth.min() == highest:
        highest = 1
    pair = lay_over(prediction, ground_truth, highest - 1)
    low, high = pair.extremes
    if low < high:
        return pair
    clamped = np.clip(np.arange(256, dtype=np.float64), 0, 1)
    return Comparison(pair.levels, pair.truth, clamped, pair.split, pair.counts)


def precision_recall(pair: Comparison, ground_truth: _Array) -> tuple[float, float]:
    """Precision and recall, in [0, 1], of the map cut at twice its mean, at most its highest.

    Args:
        pair: what `compare_purnet` made of the map and of this ground truth.
        ground_truth: (H, W) uint8; pixels between its extremes are not counted as false.
    """
    low, high = pair.extremes
    if low == high:
        return 0.0, 0.0
    steps = np.clip(np.arange(256), low, high) - low
    total = int((pair.background + pair.foreground) @ steps)
    threshold = min(255, 2 * 255 * total // (pair.pixels * (high - low)))
    salient = pair.scale * 255 >= threshold
    hits = int(pair.foreground[salient].sum())
    alarms = int((pair.background - _grey(pair, ground_truth))[salient].sum())
    return hits / max(hits + alarms, 1), hits / max(pair.area, 1)


def _grey(pair: Comparison, ground_truth: _Array) -> NDArray[np.int64]:
    """(256,) pixels by level where the ground truth is neither at its lowest nor its highest."""
    low, high = int(ground_truth.min()), int(ground_truth.max())
    if high - low < 2:
        return np.zeros(256, np.int64)
    between = ((ground_truth > low) & (ground_truth < high)).view(np.uint8)
    return np.asarray(count(pair.levels, between)[1])
