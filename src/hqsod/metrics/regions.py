"""Scores that count pixels: MAE, precision, recall, F-measure, E-measure, BER, IoU, Dice.

Each is a function of a `Comparison`, by its histograms alone; nothing here touches a pixel.

Edge cases, one rule for all: 0 / 0 is 0, so that a map finds nothing in an empty ground truth;
where a score has a published rule for such cases, that rule holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hqsod.metrics.comparison import EPS, SALIENT_FROM, Comparison

F_BETA2 = 0.3

Curve = NDArray[np.float64]
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Tally:
    """Salient pixels at each threshold 0 to 255; a pixel is salient at or above the threshold.

    Attributes:
        hits, alarms: (256,) int64, salient pixels inside and outside the ground truth.
        area: foreground pixels of the ground truth.
        pixels: pixels of the image.
    """

    hits: NDArray[np.int64]
    alarms: NDArray[np.int64]
    area: int
    pixels: int


@dataclass(frozen=True)
class Curves:
    """One value for each threshold 0 to 255.

    Attributes:
        precision, recall, f_measure, e_measure: (256,) float64 in [0, 1]; the E-measure can pass 1
            by 1 / (pixels - 1), as published.
    """

    precision: Curve
    recall: Curve
    f_measure: Curve
    e_measure: Curve


def mae(pair: Comparison) -> float:
    """Mean absolute error (Perazzi et al., Saliency Filters, CVPR 2012), in [0, 1], 0 is best."""
    error = pair.background @ pair.scale + pair.foreground @ (1 - pair.scale)
    return float(error / pair.pixels)


def tally(pair: Comparison) -> Tally:
    """Count salient pixels at every threshold."""
    # Truncated, not rounded: the reference casts to uint8.
    steps = (pair.scale * 255).astype(np.uint8)
    at_least = [
        np.bincount(steps, counts, minlength=256)[::-1].cumsum()[::-1].astype(np.int64)
        for counts in (pair.foreground, pair.background)
    ]
    return Tally(at_least[0], at_least[1], pair.area, pair.pixels)


def curves(counted: Tally) -> Curves:
    """Precision, recall, F-measure and E-measure at the thresholds 0 to 255."""
    precision = _ratio(counted.hits, counted.hits + counted.alarms)
    recall = counted.hits / max(counted.area, 1)
    e_curve = e_measure(counted.hits, counted.alarms, counted.area, counted.pixels)
    return Curves(precision, recall, f_measure(precision, recall), e_curve)


def f_measure(precision: Curve, recall: Curve, beta2: float = F_BETA2) -> Curve:
    """F-measure (Achanta et al., CVPR 2009) of precision and recall, in [0, 1].

    Args:
        precision, recall: arrays of one shape, in [0, 1].
        beta2: the weight of recall against precision, squared.
    """
    return _ratio((1 + beta2) * precision * recall, beta2 * precision + recall)


def e_measure(hits: Counts, alarms: Counts, area: int, pixels: int) -> Curve:
    """Enhanced-alignment measure (Fan et al., IJCAI 2018, eq. 4 and 5) of binary maps.

    An empty ground truth scores the share of pixels left out, a full one the share taken. The sum
    is divided by pixels - 1, as published, so a perfect map scores 1 + 1 / (pixels - 1).

    Args:
        hits, alarms: salient pixels inside and outside the ground truth.
        area, pixels: foreground pixels of the ground truth, and all pixels.
    """
    salient = hits + alarms
    scale = max(pixels - 1, 1)
    if area == 0:
        return (pixels - salient) / scale
    if area == pixels:
        return salient / scale
    map_mean, truth_mean = salient / pixels, area / pixels
    cells = (
        (hits, 1 - map_mean, 1 - truth_mean),
        (alarms, 1 - map_mean, -truth_mean),
        (area - hits, -map_mean, 1 - truth_mean),
        (pixels - area - alarms, -map_mean, -truth_mean),
    )
    enhanced = np.zeros(np.shape(salient))
    for count, map_bias, truth_bias in cells:
        alignment = 2 * map_bias * truth_bias / (map_bias**2 + truth_bias**2 + EPS)
        enhanced = enhanced + count * (alignment + 1) ** 2 / 4
    return enhanced / scale


def adaptive(pair: Comparison) -> tuple[float, float]:
    """F-measure and E-measure of the map cut at twice its mean saliency, at most 1."""
    salient = _adaptive_levels(pair)
    hits, alarms = pair.foreground[salient].sum(), pair.background[salient].sum()
    f = f_measure(_ratio(hits, hits + alarms), hits / max(pair.area, 1))
    return float(f), float(e_measure(hits, alarms, pair.area, pair.pixels))


def ber(pair: Comparison, threshold: int = SALIENT_FROM) -> float:
    """Balanced error rate (Vicente et al., ECCV 2016), in [0, 1], 0 is best.

    The mean of the error rates inside and outside the ground truth. One of them alone where the
    ground truth is empty or full. The map is cut at `threshold` of 255, without stretching.
    """
    hits, alarms = _binary_counts(pair, threshold)
    outside = pair.pixels - pair.area
    rates = [1 - hits / pair.area] if pair.area else []
    rates += [alarms / outside] if outside else []
    return float(np.mean(rates))


def iou(pair: Comparison, threshold: int = SALIENT_FROM) -> float:
    """Intersection over union, in [0, 1]; 1 where map and ground truth are both empty.

    The map is cut at `threshold` of 255, without stretching.
    """
    hits, alarms = _binary_counts(pair, threshold)
    return _share(hits, pair.area + alarms)


def mask_iou(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Intersection over union of two masks, in [0, 1]; 1 where both are empty.

    Args:
        first: (H, W) bool, or uint8 of 0 and 255.
        second: likewise.
    """
    shared, either = (
        cv2.countNonZero(mask.view(np.uint8)) for mask in (first & second, first | second)
    )
    return _share(shared, either)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 1.0


def dice(pair: Comparison, threshold: int = SALIENT_FROM) -> float:
    """Dice coefficient (1945), in [0, 1]; 1 where map and ground truth are both empty.

    The map is cut at `threshold` of 255, without stretching.
    """
    hits, alarms = _binary_counts(pair, threshold)
    return _share(2 * hits, pair.area + hits + alarms)


def _ratio(part: NDArray[Any], whole: NDArray[Any]) -> Curve:
    """part / whole, and 0 where both are 0."""
    return np.asarray(part / (whole + (whole == 0)))


def _adaptive_levels(pair: Comparison) -> NDArray[np.bool_]:
    """(256,) which levels reach twice the mean saliency, in whole numbers, so ties are exact."""
    low, high = pair.extremes
    if low == high:
        low, high = 0, 255
    steps = np.clip(np.arange(256), low, high) - low
    total = int((pair.background + pair.foreground) @ steps)
    reached: NDArray[np.bool_] = steps * pair.pixels >= min(2 * total, (high - low) * pair.pixels)
    return reached


def _binary_counts(pair: Comparison, threshold: int) -> tuple[int, int]:
    """Pixels at or above `threshold` inside and outside the ground truth."""
    return int(pair.foreground[threshold:].sum()), int(pair.background[threshold:].sum())
