"""What an image says of a mask: figures of its contour and colours, without ground truth.

A right contour lies on edges and parts two sides that look different, all the way round. A part
missing or added shows as a stretch where neither is so; the figures therefore speak of the weakest
stretches, not of the mean. They are taken on a copy of 320 pixels, where a contour that was drawn
well is right to the pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from hqsod.images import Array

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

SIDE = 320  # pixels of the working copy's long side
RIM = 2  # pixels along the image's border, where a contour says nothing
SHORTEST = 8  # pixels: a contour shorter than this cannot be judged
# Lengths as shares of the object's diameter, the root of its area.
STRETCH = 0.05  # half of a stretch of the contour
REACH = 0.06  # how far its two sides reach
BAND = 0.1  # of a band along the contour in which pixels are told apart
SURROUND = 0.6  # of the background that surrounds the object
BINS = (10, 12, 12)  # of a colour histogram: L, a, b
NOISE = np.array([8, 4, 4, 2], np.float32)  # variances of L, a, b and texture that mean nothing
KERNEL = np.ones((3, 3), np.uint8)


@dataclass(frozen=True, slots=True)
class Figures:
    """What the image says of one mask.

    Attributes:
        edge_weakest: of the contour's stretches, the third percentile of how strong the image's
            edges are there: 0 no edge, 1 the image's strongest.
        edge_excess: mean edge strength on the contour less that just inside, -1 to 1.
        side_contrast: of the contour's stretches, the tenth percentile of how different the two
            sides look: natural logarithm of their distance in deviations.
        surround_alike: how much the surround looks like the object by colour, 0 to 1.
        misfit: diameter of the largest patch near the contour that looks like the other side, as a
            share of the object's.
        area: share of the image that is object, 0 to 1.
    """

    edge_weakest: float
    edge_excess: float
    side_contrast: float
    surround_alike: float
    misfit: float
    area: float


def reduce(array: Array) -> Array:
    """An image or mask at working size; smaller ones stay as they are."""
    scale = SIDE / max(array.shape[:2])
    if scale >= 1:
        return array
    size = (max(1, round(array.shape[1] * scale)), max(1, round(array.shape[0] * scale)))
    return cv2.resize(array, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def examine(image: Array, mask: Mask) -> Figures | None:
    """Take the figures of a mask; None where it has no contour to judge.

    Args:
        image: (H, W, 3) uint8 RGB at working size.
        mask: (H, W) bool.
    """
    contour = _contour(mask)
    if np.count_nonzero(contour) < SHORTEST:
        return None
    diameter = float(np.sqrt(np.count_nonzero(mask)))
    lab = np.asarray(cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2Lab), np.float32)
    edges = _edges(lab)
    depth = _depth(mask)
    channels = np.dstack([lab, _texture(lab[..., 0])]).astype(np.float32)
    sides = [cv2.erode(side.astype(np.uint8), KERNEL).astype(np.float32) for side in (mask, ~mask)]
    near = np.asarray(cv2.dilate(edges, np.ones((5, 5), np.uint8)), np.float32)
    contrast = _contrast(*(_look(channels, side, REACH * diameter) for side in sides))
    surround = (depth < 0) & (depth > -SURROUND * diameter)
    inside = (depth > 4) & (depth < 9)
    return Figures(
        edge_weakest=_percentile(_along(near, contour, diameter), 3),
        edge_excess=float(edges[contour].mean() - (edges[inside].mean() if inside.any() else 0.5)),
        side_contrast=_percentile(_along(np.log(contrast + 0.1), contour, diameter), 10),
        surround_alike=_likeness(lab, mask, surround),
        misfit=_misfit(channels, sides, depth, diameter),
        area=float(mask.mean()),
    )


def _contour(mask: Mask) -> Mask:
    contour = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_GRADIENT, KERNEL) > 0
    contour[:RIM] = contour[-RIM:] = contour[:, :RIM] = contour[:, -RIM:] = False
    return contour


def _edges(lab: Floats) -> Floats:
    """Gradient of the colours at each pixel as its rank in the image, 0 to 1."""
    smooth = cv2.GaussianBlur(lab, (0, 0), 1.0)
    across, down = cv2.Sobel(smooth, -1, 1, 0), cv2.Sobel(smooth, -1, 0, 1)
    levels = np.minimum(np.sqrt((across**2 + down**2).sum(2)) * 4, 1023).astype(np.int32)
    ranks = np.cumsum(np.bincount(levels.ravel(), minlength=1024)) / levels.size
    return np.asarray(ranks[levels], np.float32)


def _texture(light: Floats) -> Floats:
    """Standard deviation of the lightness around each pixel."""
    mean, square = (cv2.GaussianBlur(x, (0, 0), 2.0) for x in (light, light * light))
    return np.asarray(np.sqrt(np.maximum(square - mean * mean, 0)), np.float32)


def _depth(mask: Mask) -> Floats:
    """Distance to the contour in pixels, negative outside of the object."""
    inside, outside = (
        cv2.distanceTransform(side.astype(np.uint8), cv2.DIST_L2, 3) for side in (mask, ~mask)
    )
    return np.asarray(inside - outside, np.float32)


def _mean(x: Floats, reach: float) -> Floats:
    """Weighted mean around each pixel: two box filters, nearly a Gaussian and much faster."""
    side = 2 * max(1, round(reach)) + 1
    return np.asarray(cv2.blur(cv2.blur(x, (side, side)), (side, side)), np.float32)


def _along(values: Floats, contour: Mask, diameter: float) -> Floats:
    """Values at the contour's pixels, each averaged over the stretch around it."""
    weights = contour.astype(np.float32)
    reach = max(2.0, STRETCH * diameter)
    means = _mean(values * weights, reach) / (_mean(weights, reach) + 1e-6)
    return np.asarray(means[contour], np.float32)


def _look(channels: Floats, side: Floats, reach: float) -> tuple[Floats, Floats]:
    """Mean and variance of the channels over the pixels of one side around each pixel."""
    reach = max(3.0, reach)
    weights = _mean(side, reach)[..., None] + 1e-4
    mean = _mean(channels * side[..., None], reach) / weights
    square = _mean(channels**2 * side[..., None], reach) / weights
    return mean, np.maximum(square - mean**2, 0)


def _contrast(inside: tuple[Floats, Floats], outside: tuple[Floats, Floats]) -> Floats:
    """Distance between the means of two sides, in deviations."""
    spread = inside[1] + outside[1] + NOISE
    return np.asarray(np.sqrt(((inside[0] - outside[0]) ** 2 / spread).sum(2)), np.float32)


def _misfit(channels: Floats, sides: list[Floats], depth: Floats, diameter: float) -> float:
    """Diameter, over the object's, of the largest patch that looks like the other side."""
    likelihoods = []
    for side in sides:
        mean, variance = _look(channels, side, 2.4 * REACH * diameter)
        variance = variance + 2 * NOISE
        likelihoods.append(-((channels - mean) ** 2 / variance + np.log(variance)).sum(2) / 2)
    favour = np.clip(likelihoods[0] - likelihoods[1], -6, 6).astype(np.float32)
    favour = cv2.GaussianBlur(favour, (0, 0), 1.5)
    near = np.abs(depth) < max(6.0, 2 * BAND * diameter)
    odd = near & np.where(depth > 0, favour < -1, favour > 1)
    patches = _areas(cv2.morphologyEx(odd.astype(np.uint8), cv2.MORPH_OPEN, KERNEL) > 0)
    largest = int(patches.max(initial=0))
    return float(np.sqrt(largest)) / diameter


def _likeness(lab: Floats, mask: Mask, surround: Mask) -> float:
    """Mean probability, by colour alone, that a pixel of the surround belongs to the object."""
    lowest, highest = np.array([[0, -60, -60], [100, 60, 60]], np.float32)  # beyond is rare
    position = (lab - lowest) / (highest - lowest) * np.array(BINS, np.float32)
    bins = np.clip(position, 0, np.array(BINS) - 1).astype(np.int32)
    index = (bins[..., 0] * BINS[1] + bins[..., 1]) * BINS[2] + bins[..., 2]
    inside, outside = (_histogram(index[side]) for side in (mask, surround))
    likeness = (inside / (inside + outside))[index].astype(np.float32)
    likeness = cv2.GaussianBlur(likeness, (0, 0), 2.0)
    return float(likeness[surround].mean()) if surround.any() else 1.0


def _histogram(index: npt.NDArray[np.int32]) -> Floats:
    """Shares of the colours, smoothed over neighbouring bins; none is zero."""
    counts = np.bincount(index, minlength=int(np.prod(BINS))).reshape(BINS).astype(np.float32)
    for axis in range(3):
        padded = np.pad(counts, [(1, 1) if axis == other else (0, 0) for other in range(3)])
        before, after = (np.take(padded, range(n, n + BINS[axis]), axis) for n in (0, 2))
        counts = 0.5 * counts + 0.25 * (before + after)
    return np.asarray(counts / max(counts.sum(), 1) + 3e-5, np.float32).ravel()


def _areas(mask: Mask) -> npt.NDArray[np.int32]:
    """Areas in pixels of the connected parts."""
    statistics = cv2.connectedComponentsWithStats(mask.astype(np.uint8))[2]
    return np.asarray(statistics[1:, cv2.CC_STAT_AREA], np.int32)


def _percentile(values: Floats, share: float) -> float:
    return float(np.percentile(values, share))
