"""S-measure (Fan et al., Structure-measure, ICCV 2017), from the histograms of four quadrants."""

from __future__ import annotations

from typing import cast

import numpy as np
from numpy.typing import NDArray

from hqsod.metrics.comparison import EPS, Comparison

_Array = NDArray[np.float64]


def s_measure(pair: Comparison) -> float:
    """S-measure with alpha 0.5, in [0, 1].

    An empty ground truth scores 1 - mean saliency, a full one the mean saliency. A quadrant
    without pixels (the foreground touches the last row or column alone) has no weight; the
    reference returns NaN there.
    """
    mean = float((pair.background + pair.foreground) @ pair.scale / pair.pixels)
    if pair.area == 0:
        return 1 - mean
    if pair.area == pair.pixels:
        return mean
    return max(0.0, (_object_score(pair) + _region_score(pair)) / 2)


def _object_score(pair: Comparison) -> float:
    share = pair.area / pair.pixels
    inside = _evenness(pair.foreground, pair.scale)
    outside = _evenness(pair.background, 1 - pair.scale)
    return share * inside + (1 - share) * outside


def _evenness(counts: NDArray[np.int64], values: _Array) -> float:
    """High where `values` are high and alike (eq. 5)."""
    number = int(counts.sum())
    mean = counts @ values / number
    variance = counts @ (values - mean) ** 2 / max(number - 1, 1)
    return float(2 * mean / (mean**2 + 1 + np.sqrt(variance) + EPS))


def _region_score(pair: Comparison) -> float:
    weights = pair.counts.sum(axis=(1, 2)) / pair.pixels
    scores = [
        weight * _similarity(background, foreground, pair.scale)
        for weight, (background, foreground) in zip(weights, pair.counts, strict=True)
        if weight
    ]
    return float(sum(scores))


def _similarity(
    background: NDArray[np.int64], foreground: NDArray[np.int64], scale: _Array
) -> float:
    """Structural similarity of map and ground truth over one quadrant (eq. 2)."""
    counts = background + foreground
    pixels, area = int(counts.sum()), int(foreground.sum())
    map_mean, truth_mean = counts @ scale / pixels, area / pixels
    if np.count_nonzero(counts) == 1:
        map_mean = scale[np.argmax(counts)]  # exactly: what deviates is rounding
    bias = scale - map_mean
    freedom = max(pixels - 1, 1)
    map_variance = counts @ bias**2 / freedom
    truth_variance = area * (1 - truth_mean) / freedom
    covariance = (foreground @ bias - truth_mean * (counts @ bias)) / freedom
    top = 4 * map_mean * truth_mean * covariance
    bottom = (map_mean**2 + truth_mean**2) * (map_variance + truth_variance)
    if top != 0:
        return cast(float, top / (bottom + EPS))
    return 1.0 if bottom == 0 else 0.0
