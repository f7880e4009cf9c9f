"""Weighted F-measure (Margolin et al., How to Evaluate Foreground Maps?, CVPR 2014).

Errors inside the ground truth are forgiven where their neighbourhood is right; errors outside
weigh up to twice as much the farther they lie from it. The published code builds both over the
whole image in double precision. Here the distance ends where its weight does, the nearest
foreground pixel is looked up only where the 7 x 7 window can reach it, and pixels are float32,
summed in double: the result is the same to about 1e-7.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hqsod.metrics.comparison import EPS, Comparison

_REACH = 3  # half of the 7 x 7 window
_RIM = _REACH + 1  # as far as the nearest foreground pixel of one within reach can be
_WINDOW = cv2.getGaussianKernel(2 * _REACH + 1, 5).astype(np.float32)
# The weight of distance d is 2 - 2^(-d / 5): beyond 120 pixels it is 2 to within 6e-8.
_HALVING = 5
_FAR = 120

_Array = NDArray[Any]


def _offsets(order: Callable[[int, int], Any]) -> NDArray[np.intp]:
    """(19, 8, 2) by squared distance: the (dy, dx) of the pixels there, by `order`.

    Within `_REACH` rows and columns of the foreground its nearest pixel is at most
    reach * sqrt(2) away. At most 8 pixels are equally near; fewer are filled up with (0, 0).
    """
    limit = int(np.hypot(_REACH, _REACH))
    table = np.zeros((2 * _REACH**2 + 1, 8, 2), np.intp)
    filled = np.zeros(len(table), int)
    for dy, dx in sorted(product(range(-limit, limit + 1), repeat=2), key=lambda at: order(*at)):
        squared = dy**2 + dx**2
        if 0 < squared < len(table):
            table[squared, filled[squared]] = dy, dx
            filled[squared] += 1
    return table


# Which of equally near pixels counts is not defined by the paper; it can move a score by 2.5e-4.
NEAREST_LEFT = _offsets(lambda dy, dx: (dx, dy))
"""The leftmost, then the topmost: SciPy's distance transform, so PySODMetrics' choice."""
NEAREST_TURNING = _offsets(lambda dy, dx: -np.arctan2(dx, -dy) % (2 * np.pi))
"""The first one counterclockwise from above: GNU Octave's distance transform."""


def weighted_f(pair: Comparison, nearest: NDArray[np.intp] = NEAREST_LEFT) -> float:
    """Weighted F-measure with beta 1, in [0, 1]; 0 where the ground truth is empty.

    Args:
        pair: the map and its ground truth.
        nearest: `NEAREST_LEFT` or `NEAREST_TURNING`.
    """
    if pair.area == 0:
        return 0.0
    near = _window(pair)
    truth = pair.truth[near]
    saliency = cv2.LUT(pair.levels[near], pair.scale.astype(np.float32))
    squared = _squared_distance(truth)
    missed = _inside_error(truth, saliency, squared, nearest)
    false_positive = _outside_error(pair, saliency, squared)
    recall = 1 - missed / pair.area
    true_positive = pair.area - missed
    precision = true_positive / (true_positive + false_positive + EPS)
    return 2 * recall * precision / (recall + precision + EPS)


def _window(pair: Comparison) -> tuple[slice, slice]:
    """Rows and columns that can matter: the foreground's surroundings, wider where salient."""
    inner, outer = _bounds(pair.truth, _REACH), _bounds(pair.truth, _FAR)
    darkest = np.count_nonzero(pair.scale == 0) - 1
    lit = _bounds((pair.levels > darkest).view(np.uint8), 0)
    # The median of the three: as far as the map is salient, but within the two margins.
    top, left, bottom, right = (sorted(sides)[1] for sides in zip(inner, outer, lit, strict=True))
    return slice(top, bottom), slice(left, right)


def _bounds(mask: _Array, margin: int) -> tuple[int, int, int, int]:
    """Top, left, bottom, right of what is not 0 and `margin` pixels more, within the image."""
    left, top, width, height = cv2.boundingRect(mask)
    return (
        max(top - margin, 0),
        max(left - margin, 0),
        min(top + height + margin, mask.shape[0]),
        min(left + width + margin, mask.shape[1]),
    )


def _squared_distance(truth: _Array) -> _Array:
    """(H, W) float32, to the nearest foreground pixel: whole numbers.

    OpenCV's roots are off in their last digit, and not the same from call to call.
    """
    distance = cv2.distanceTransform(truth ^ 1, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.rint(cv2.multiply(distance, distance, dst=distance), out=distance)


def _inside_error(
    truth: _Array, saliency: _Array, squared: _Array, nearest: NDArray[np.intp]
) -> float:
    """Sum over the foreground of the lesser of a pixel's error and its neighbourhood's."""
    top, left, bottom, right = _bounds(truth, _REACH)
    box = (slice(top, bottom), slice(left, right))
    rim = (_RIM, _RIM, _RIM, _RIM, cv2.BORDER_CONSTANT)
    inside, saliency, squared = (
        cv2.copyMakeBorder(part[box], *rim, value=value)
        for part, value in ((truth, 0), (saliency, 1), (squared, 0))
    )
    error = np.subtract(np.float32(1), saliency, out=saliency)  # inside; 0 beyond the image
    _spread(error, inside, squared, nearest)
    around = cv2.sepFilter2D(error, -1, _WINDOW, _WINDOW, borderType=cv2.BORDER_CONSTANT)
    cv2.min(error, around, dst=around)
    return _sum(cv2.multiply(around, inside, dst=around, dtype=cv2.CV_32F))


def _outside_error(pair: Comparison, saliency: _Array, squared: _Array) -> float:
    """Sum of saliency outside the ground truth, times 2 - 2^(-distance / 5).

    Overwrites `squared`: a large array costs more to ask for than to fill.
    """
    distance = np.sqrt(squared, out=squared)
    np.multiply(distance, np.float32(-np.log(2) / _HALVING), out=distance)
    closeness = np.exp(distance, out=distance)
    # Distance is 0 inside, so the foreground enters with weight 1 and is taken off again.
    inside = pair.foreground @ pair.scale
    close = _sum(cv2.multiply(saliency, closeness, dst=closeness)) - inside
    return max(0.0, float(2 * (pair.background @ pair.scale) - close))


def _sum(values: _Array) -> float:
    """Sum of an image, its rows in double. OpenCV's sum varies with where the array lies."""
    return float(values.sum(axis=1).sum(dtype=np.float64))


def _spread(error: _Array, inside: _Array, squared: _Array, nearest: NDArray[np.intp]) -> None:
    """Give background pixels within reach of the foreground the error of its nearest pixel."""
    window = np.ones((2 * _REACH + 1, 2 * _REACH + 1), np.uint8)
    reached = cv2.subtract(cv2.dilate(inside, window), inside)
    band = np.flatnonzero(reached.view(bool))
    steps = nearest[..., 0] * inside.shape[1] + nearest[..., 1]
    sources = steps[squared.ravel()[band].astype(np.intp)]
    sources += band[:, None]
    first = inside.ravel().take(sources).argmax(axis=1)
    error.ravel()[band] = error.ravel().take(sources[np.arange(len(band)), first])
