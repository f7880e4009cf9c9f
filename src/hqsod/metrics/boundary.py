"""Scores of the boundary alone: mean boundary accuracy, boundary IoU, multi-scale IoU.

Each cuts the map at `threshold` of 255, without stretching. With an empty ground truth a pair
scores 1 where the map is empty too, else 0; `mba`, to which the image's edge is no boundary, does
likewise with a full one. `msiou` is 1 for every map of an empty ground truth, as published.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from hqsod.metrics.comparison import SALIENT_FROM, Comparison

_Mask = NDArray[np.uint8]


def mba(pair: Comparison, threshold: int = SALIENT_FROM) -> float:
    """Mean boundary accuracy (Cheng et al., CascadePSP, CVPR 2020), in [0, 1].

    Pixel accuracy inside bands around the ground truth's boundary, the mean over five radii that
    grow from 1 towards (height + width) / 300.
    """
    right = (_binary(pair, threshold) == pair.truth).astype(np.uint8)
    if pair.area in (0, pair.pixels):
        return float(right.all())
    largest = sum(right.shape) / 300
    accuracies = {}
    radii = [1 + int((largest - 1) / 5 * step) for step in range(5)]
    for radius in set(radii):
        disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
        band = cv2.morphologyEx(pair.truth, cv2.MORPH_GRADIENT, disk)
        accuracies[radius] = cv2.countNonZero(band & right) / cv2.countNonZero(band)
    return float(np.mean([accuracies[radius] for radius in radii]))


def biou(pair: Comparison, threshold: int = SALIENT_FROM) -> float:
    """Boundary IoU (Cheng et al., CVPR 2021), in [0, 1].

    Intersection over union of the pixels that lie inside each mask within 2 % of the image's
    diagonal from its contour; the image's edge counts as contour.
    """
    width = max(1, round(0.02 * float(np.hypot(*pair.levels.shape))))
    ours, theirs = (_rim(mask, width) for mask in (_binary(pair, threshold), pair.truth))
    union = cv2.countNonZero(ours | theirs)
    return cv2.countNonZero(ours & theirs) / union if union else 1.0


def msiou(pair: Comparison, threshold: int = SALIENT_FROM) -> float:
    """Multi-scale IoU (Ahmadzadeh et al., ICIP 2021), in (0, 1].

    Both edge maps are covered with boxes of 1, 2, 4, ... 512 pixels; the score is the area under
    the share of the ground truth's boxes that the map's edge meets too. It rewards thin parts.
    PySODMetrics takes gradients of booleans, which moves scores by up to 3e-5 and past 1.
    """
    ours, theirs = _edges(_binary(pair, threshold)), _edges(pair.truth)
    shares = []
    for _ in range(10):
        shares.append((np.count_nonzero(ours & theirs) + 1) / (np.count_nonzero(theirs) + 1))
        ours, theirs = _halve(ours), _halve(theirs)
    return float((sum(shares) - (shares[0] + shares[-1]) / 2) / (len(shares) - 1))


def _binary(pair: Comparison, threshold: int) -> _Mask:
    return (pair.levels >= threshold).astype(np.uint8)


def _rim(mask: _Mask, width: int) -> _Mask:
    """Pixels of the mask at most `width` rows or columns from outside it."""
    framed = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    depth = cv2.distanceTransform(framed, cv2.DIST_C, cv2.DIST_MASK_3)[1:-1, 1:-1]
    return mask & (depth <= width).astype(np.uint8)


def _edges(mask: _Mask) -> NDArray[np.bool_]:
    """Where the Sobel gradient is not zero; outside the image is background."""
    values = mask.astype(np.float32)
    across, down = (
        cv2.Sobel(values, cv2.CV_32F, dx, 1 - dx, borderType=cv2.BORDER_CONSTANT) for dx in (1, 0)
    )
    return np.asarray((across != 0) | (down != 0))


def _halve(held: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Join boxes by fours; what is odd is filled up at the top and left."""
    held = np.pad(held, [(side % 2, 0) for side in held.shape])
    return held[::2, ::2] | held[1::2, ::2] | held[::2, 1::2] | held[1::2, 1::2]
