"""Damage to masks, for a refiner to learn from.

Cheng et al., "CascadePSP", CVPR 2020: contours lose a run and most of their vertices, then dabs
fall on the mask until its IoU with the truth reaches a target. Differs in that a dab falls on the
mask's contour mostly and in proportion to the object, and never takes the IoU far below the target.
How often and how strongly: `damaged_pairs.Damage`; `contour_wear` is for the contour step.
`enlarge` adds the damage of our own use: masks that were small and enlarged by bicubic resampling.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from hqsod.images import resize
from hqsod.masks import binarise
from hqsod.metrics.regions import mask_iou

Mask = npt.NDArray[np.uint8]  # (H, W), 0 or 255

DROPPED = 0.1  # share of a contour's vertices lost in one run
KEPT = (0.1, 0.2, 0.4)  # shares of its vertices that stay, the first that the target allows
SHORTEST = 8  # contours of fewer vertices are left alone
DABS = 200  # at most
ON_CONTOUR = 0.85  # share of the dabs whose centre lies on the contour
RADII = (0.03, 0.3)  # of a dab, over the square root of the object's area
OVERSHOOT = 0.01  # how far below the target a dab may take the IoU


def enlarge(mask: Mask, factor: int, method: Image.Resampling = Image.Resampling.BICUBIC) -> Mask:
    """The mask as it would be, had it been kept `factor` times smaller and enlarged by bicubic.

    Args:
        mask: (H, W) uint8, 0 or 255.
        factor: 1 or more.
        method: how it is made smaller.

    Returns:
        (H, W) uint8, 0 or 255.
    """
    height, width = mask.shape
    small = resize(mask, (max(1, height // factor), max(1, width // factor)), method)
    return binarise(resize(small, mask.shape, Image.Resampling.BICUBIC))


def perturb(mask: Mask, truth: Mask, target: float, rng: np.random.Generator) -> Mask:
    """Damage a mask until its IoU with the truth is `target`.

    Args:
        mask: (H, W) uint8, 0 or 255; returned as it is where its IoU is no higher already.
        truth: (H, W) uint8, 0 or 255.
        target: in [0, 1]; missed where no dab fits, seldom by more than 0.01.
        rng: draws everything.

    Returns:
        (H, W) uint8, 0 or 255.
    """
    for kept in KEPT:
        rough = roughen(mask, kept, rng)
        if mask_iou(rough, truth) >= target:
            mask = rough
            break
    return dab(mask, truth, target, rng)


def roughen(mask: Mask, kept: float, rng: np.random.Generator) -> Mask:
    """Draw the mask's contours again, a run of vertices dropped and a share `kept` of the rest."""
    contours, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    polygons = []
    for contour in contours:
        if len(contour) >= SHORTEST:
            contour = np.roll(contour, -int(rng.integers(len(contour))), axis=0)
            contour = contour[int(DROPPED * len(contour)) :]
            count = max(4, round(kept * len(contour)))
            contour = contour[np.sort(rng.permutation(len(contour))[:count])]
        polygons.append(contour)
    return np.asarray(cv2.fillPoly(np.zeros_like(mask), polygons, 255), np.uint8)


def dab(mask: Mask, truth: Mask, target: float, rng: np.random.Generator) -> Mask:
    """Let dabs fall on a copy of the mask until its IoU with the truth is at most `target`."""
    mask = mask.copy()
    shared, either = _areas(mask, truth)
    largest = RADII[1]
    scale = float(np.sqrt(cv2.countNonZero(truth)))
    for _ in range(DABS):
        if not either or shared <= target * either:
            break
        radius = max(1, round(scale * np.exp(rng.uniform(np.log(RADII[0]), np.log(largest)))))
        window = _window(_centre(mask, rng), 2 * radius, mask.shape)
        piece = _dabbed(mask[window], radius, rng)
        before, after = _areas(mask[window], truth[window]), _areas(piece, truth[window])
        new_shared, new_either = shared + after[0] - before[0], either + after[1] - before[1]
        if new_shared < (target - OVERSHOOT) * new_either:
            largest = max(RADII[0], largest * 0.8)
        elif new_shared / max(new_either, 1) < shared / either:
            mask[window], shared, either = piece, new_shared, new_either
    return mask


def _areas(mask: Mask, truth: Mask) -> tuple[int, int]:
    return cv2.countNonZero(mask & truth), cv2.countNonZero(mask | truth)


def _centre(mask: Mask, rng: np.random.Generator) -> tuple[int, int]:
    """(row, column) on the contour, or anywhere."""
    height, width = mask.shape
    if rng.random() < ON_CONTOUR:
        contours, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        if contours:
            column, row = (points := np.concatenate(contours))[rng.integers(len(points)), 0]
            return int(row), int(column)
    return int(rng.integers(height)), int(rng.integers(width))


def _window(centre: tuple[int, int], reach: int, shape: tuple[int, ...]) -> tuple[slice, slice]:
    rows, columns = (
        slice(max(0, middle - reach), min(side, middle + reach + 1))
        for middle, side in zip(centre, shape, strict=True)
    )
    return rows, columns


def _dabbed(piece: Mask, radius: int, rng: np.random.Generator) -> Mask:
    """Within an ellipse of about `radius`: paint, erase, thicken or thin."""
    height, width = piece.shape
    brush = np.zeros_like(piece)
    axes = [max(1, round(radius * rng.uniform(0.5, 1.5))) for _ in range(2)]
    cv2.ellipse(brush, (width // 2, height // 2), axes, rng.uniform(0, 180), 0, 360, 255, -1)
    kind = rng.integers(4)
    if kind == 0:
        return piece | brush
    if kind == 1:
        return piece & ~brush
    reach = 2 * int(rng.integers(1, max(2, radius // 2 + 1))) + 1
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))
    changed = cv2.dilate(piece, disk) if kind == 2 else cv2.erode(piece, disk)
    return np.where(brush > 0, changed, piece)
