"""A saliency map laid over its ground truth, and all that histograms can say of the two.

An 8-bit map has 256 levels, so one pass that counts levels inside and outside the ground truth
holds the mean error and every threshold at once. The counts are kept apart for the four quadrants
around the ground truth's centre, which is what the S-measure asks for; they add up to the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import product

import cv2
import numpy as np
from numpy.typing import NDArray

from hqsod.errors import InputError
from hqsod.masks import GROUND_TRUTH_THRESHOLD, MASK_THRESHOLD

EPS = float(np.spacing(1))
"""Keeps the published formulas' denominators from 0, as MATLAB's `eps` does."""

SALIENT_FROM = MASK_THRESHOLD + 1
"""The level from which a pixel of a binarised map is salient, as a pixel of a mask is object."""

# cv2.calcHist returns float32, which is exact up to here.
_EXACT_COUNT = 2**24


@dataclass(frozen=True)
class Comparison:
    """A saliency map and its ground truth, ready to be scored.

    Attributes:
        levels: (H, W) uint8, the map as it was given.
        truth: (H, W) uint8, 1 where the ground truth is foreground, else 0.
        scale: (256,) float64, the saliency in [0, 1] that each level stands for.
        split: (row, column) of the first pixel below and right of the foreground's centre.
        counts: (4, 2, 256) int64, pixels by quadrant (top left, top right, bottom left, bottom
            right), by background and foreground, by level.
    """

    levels: NDArray[np.uint8]
    truth: NDArray[np.uint8]
    scale: NDArray[np.float64]
    split: tuple[int, int]
    counts: NDArray[np.int64]

    @cached_property
    def background(self) -> NDArray[np.int64]:
        """(256,) background pixels by level."""
        return np.asarray(self.counts[:, 0].sum(axis=0))

    @cached_property
    def foreground(self) -> NDArray[np.int64]:
        """(256,) foreground pixels by level."""
        return np.asarray(self.counts[:, 1].sum(axis=0))

    @cached_property
    def area(self) -> int:
        """Number of foreground pixels in the ground truth."""
        return int(self.foreground.sum())

    @property
    def pixels(self) -> int:
        """Number of pixels."""
        return self.levels.size

    @cached_property
    def extremes(self) -> tuple[int, int]:
        """The lowest and the highest level of the map."""
        present = np.flatnonzero(self.background + self.foreground)
        return int(present[0]), int(present[-1])


def compare(
    prediction: NDArray[np.uint8],
    ground_truth: NDArray[np.uint8],
    gt_threshold: int = GROUND_TRUTH_THRESHOLD,
) -> Comparison:
    """Lay a map over its ground truth.

    The map is stretched to [0, 1] by its lowest and highest level, as the published scores do; a
    constant map keeps its level over 255.

    Args:
        prediction: (H, W) uint8 saliency map, 0 to 255.
        ground_truth: (H, W) uint8; pixels above `gt_threshold` are foreground.
        gt_threshold: 0 to 255.

    Raises:
        InputError: not two uint8 arrays of one size, or an empty one.
    """
    check(prediction, ground_truth)
    return lay_over(prediction, ground_truth, gt_threshold)


def lay_over(
    levels: NDArray[np.uint8], ground_truth: NDArray[np.uint8], gt_threshold: int
) -> Comparison:
    """Compare what `check` has passed."""
    _, binary = cv2.threshold(ground_truth, gt_threshold, 1, cv2.THRESH_BINARY)
    truth = np.asarray(binary, np.uint8)
    split = _split(truth)
    counts = _count(levels, truth, split)
    return Comparison(levels, truth, _scale(counts.sum(axis=(0, 1))), split, counts)


def check(prediction: NDArray[np.uint8], ground_truth: NDArray[np.uint8]) -> None:
    """Refuse what is not two uint8 arrays of one size.

    Raises:
        InputError: says which of the two is what.
    """
    for name, array in (("prediction", prediction), ("ground truth", ground_truth)):
        if not isinstance(array, np.ndarray) or array.dtype != np.uint8 or array.ndim != 2:
            shape = f"{array.dtype} array of shape {array.shape}" if hasattr(array, "dtype") else ""
            raise InputError(
                f"the {name} is {shape or type(array).__name__}",
                expected="a uint8 array of shape (height, width)",
                fix="scale saliency in [0, 1] by 255 and round it first",
            )
    if prediction.shape != ground_truth.shape or not prediction.size:
        raise InputError(
            f"a prediction of {prediction.shape} and a ground truth of {ground_truth.shape}",
            expected="two arrays of one size, not empty",
            fix="resize the prediction to the ground truth",
        )


def _split(truth: NDArray[np.uint8]) -> tuple[int, int]:
    """Row and column after the centre of the foreground; the image's middle without one."""
    height, width = truth.shape
    rows = cv2.reduce(truth, 1, cv2.REDUCE_SUM, dtype=cv2.CV_32S).ravel().astype(np.int64)
    columns = cv2.reduce(truth, 0, cv2.REDUCE_SUM, dtype=cv2.CV_32S).ravel().astype(np.int64)
    area = int(rows.sum())
    if not area:
        return height // 2, width // 2
    # Python rounds halves to even, as the reference does.
    centre = (round(int(n @ np.arange(n.size)) / area) for n in (rows, columns))
    row, column = centre
    return row + 1, column + 1


def _count(
    levels: NDArray[np.uint8], truth: NDArray[np.uint8], split: tuple[int, int]
) -> NDArray[np.int64]:
    row, column = split
    windows = product((slice(0, row), slice(row, None)), (slice(0, column), slice(column, None)))
    return np.stack([count(levels[window], truth[window]) for window in windows])


def count(levels: NDArray[np.uint8], mask: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(2, 256) number of pixels at each level, where `mask` is 0 and where it is 1."""
    total = np.zeros((2, 256), np.int64)
    if not levels.size:
        return total
    strip = max(1, _EXACT_COUNT // levels.shape[1])
    for top in range(0, levels.shape[0], strip):
        rows = slice(top, top + strip)
        both = [levels[rows], mask[rows]]
        total += cv2.calcHist(both, [0, 1], None, [256, 2], [0, 256, 0, 2]).T.astype(np.int64)
    return total


def _scale(histogram: NDArray[np.int64]) -> NDArray[np.float64]:
    """Saliency of each level: level / 255, stretched so that the map spans [0, 1]."""
    saliency = np.arange(256) / 255
    present = np.flatnonzero(histogram)
    low, high = saliency[present[0]], saliency[present[-1]]
    if high > low:
        saliency = np.clip((saliency - low) / (high - low), 0, 1)
    return saliency
