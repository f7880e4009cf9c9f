"""S-measure (Fan et al., Structure-measure, ICCV 2017), from the histograms of four quadrants."""

from __future__ import annotations

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
    """Structural similarity of map and ground truth in the quadrants, by their sizes (eq. 2)."""
    quadrants = pair.counts[pair.counts.any(axis=(1, 2))]
    foreground, counts = quadrants[:, 1], quadrants.sum(axis=1)
    pixels, area = counts.sum(axis=1), foreground.sum(axis=1)
    map_mean, truth_mean = counts @ pair.scale / pixels, area / pixels
    constant = np.count_nonzero(counts, axis=1) == 1  # what deviates there is rounding
    map_mean[constant] = pair.scale[counts[constant].argmax(axis=1)]
    bias = pair.scale - map_mean[:, None]
    freedom = np.maximum(pixels - 1, 1)
    map_variance = (counts * bias**2).sum(axis=1) / freedom
    truth_variance = area * (1 - truth_mean) / freedom
    covariance = ((foreground - truth_mean[:, None] * counts) * bias).sum(axis=1) / freedom
    top = 4 * map_mean * truth_mean * covariance
    bottom = (map_mean**2 + truth_mean**2) * (map_variance + truth_variance)
    similarity = np.where(bottom == 0, 1.0, top / (bottom + EPS))
    return float(similarity @ pixels / pair.pixels)
