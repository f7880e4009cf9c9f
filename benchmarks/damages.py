"""Ways in which masks go wrong, to test whether the ranking of doubtful masks finds them.

Each kind is a function `(image, mask, other, rng) -> mask` of bool masks, `other` being the mask of
another picture at this picture's size.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt
from skimage.morphology import convex_hull_image
from skimage.segmentation import slic

Mask = npt.NDArray[np.bool_]
Picture = npt.NDArray[np.uint8]
Damage = Callable[[Picture, Mask, Mask, np.random.Generator], Mask]

IOU_RANGE = (0.3, 0.9)  # what counts as damaged: overlap with the right mask
TRIES = 60


def damage(kind: str, image: Picture, mask: Mask, other: Mask, seed: int) -> Mask | None:
    """Damage a mask; None where the kind cannot bring this mask into `IOU_RANGE`."""
    rng = np.random.default_rng(seed)
    low, high = (0.0, 0.5) if kind == "wrong object" else IOU_RANGE
    for _ in range(TRIES):
        damaged = KINDS[kind](image, mask, other, rng)
        union = np.count_nonzero(damaged | mask)
        if damaged.any() and low <= np.count_nonzero(damaged & mask) / max(union, 1) <= high:
            return damaged
    return None


def _diameter(mask: Mask) -> float:
    return float(np.sqrt(np.count_nonzero(mask)))


def _point(where: Mask, rng: np.random.Generator) -> tuple[int, int]:
    rows, columns = np.nonzero(where)
    index = rng.integers(len(rows))
    return int(rows[index]), int(columns[index])


def _contour(mask: Mask) -> Mask:
    kernel = np.ones((3, 3), np.uint8)
    return cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_GRADIENT, kernel) > 0


def _field(shape: tuple[int, int], grain: float, rng: np.random.Generator) -> np.ndarray:
    """Smooth noise of unit deviation; `grain` is its scale in pixels."""
    field = cv2.GaussianBlur(rng.standard_normal(shape), (0, 0), max(grain, 0.8))
    return field / max(field.std(), 1e-9)


def _blob(mask: Mask, centre: tuple[int, int], share: float, rng: np.random.Generator) -> Mask:
    """An uneven round blob of about `share` of the mask's area."""
    radius = _diameter(mask) * np.sqrt(share / np.pi)
    rows, columns = np.indices(mask.shape)
    angle, stretch = rng.uniform(0, np.pi), rng.uniform(1, 1.8)
    down, across = rows - centre[0], columns - centre[1]
    along = (across * np.cos(angle) + down * np.sin(angle)) / stretch
    beside = (down * np.cos(angle) - across * np.sin(angle)) * stretch
    uneven = 0.25 * radius * _field(mask.shape, radius / 2, rng)
    return np.hypot(along, beside) + uneven < radius


def part_missing(image: Picture, mask: Mask, other: Mask, rng: np.random.Generator) -> Mask:
    return mask & ~_blob(mask, _point(_contour(mask), rng), rng.uniform(0.3, 1.0), rng)


def blob_added(image: Picture, mask: Mask, other: Mask, rng: np.random.Generator) -> Mask:
    near = cv2.dilate(mask.astype(np.uint8), np.ones((15, 15), np.uint8)) > 0
    where = near if rng.random() < 0.7 or mask.all() else ~mask
    return mask | _blob(mask, _point(where, rng), rng.uniform(0.2, 0.8), rng)


def hole(image: Picture, mask: Mask, other: Mask, rng: np.random.Generator) -> Mask:
    damaged = mask
    for _ in range(rng.integers(1, 4)):
        damaged = damaged & ~_blob(mask, _point(mask, rng), rng.uniform(0.08, 0.3), rng)
    return damaged


def shifted(image: Picture, mask: Mask, other: Mask, rng: np.random.Generator) -> Mask:
    angle, length = rng.uniform(0, 2 * np.pi), _diameter(mask) * rng.uniform(0.04, 0.25)
    move = np.float32([[1, 0, length * np.cos(angle)], [0, 1, length * np.sin(angle)]])
    size = (mask.shape[1], mask.shape[0])
    return cv2.warpAffine(mask.astype(np.uint8), move, size, borderMode=cv2.BORDER_REPLICATE) > 0


def contour_noise(image: Picture, mask: Mask, other: Mask, rng: np.random.Generator) -> Mask:
    mask8 = mask.astype(np.uint8)
    inside = cv2.distanceTransform(mask8, cv2.DIST_L2, 5)
    distance = inside - cv2.distanceTransform(1 - mask8, cv2.DIST_L2, 5)
    amplitude = _diameter(mask) * rng.uniform(0.03, 0.12)
    return distance + amplitude * _field(mask.shape, _diameter(mask) * 0.03, rng) > 0


def over_smooth(image: Picture, mask: Mask, other: Mask, rng: np.random.Generator) -> Mask:
    sigma = _diameter(mask) * rng.uniform(0.06, 0.25)
    return cv2.GaussianBlur(mask.astype(np.float32), (0, 0), sigma) > 0.5


def wrong_object(image: Picture, mask: Mask, other: Mask, rng: np.random.Generator) -> Mask:
    return other[:, ::-1] if rng.random() < 0.5 else other


def coarse(image: Picture, mask: Mask, other: Mask, rng: np.random.Generator) -> Mask:
    """Somebody drew a hull or an ellipse instead of the outline."""
    if rng.random() < 0.5:
        return np.asarray(convex_hull_image(mask), bool)
    points = np.argwhere(mask)[:, ::-1].astype(np.float32)
    drawn = np.zeros(mask.shape, np.uint8)
    mean, spread = points.mean(0), np.cov(points.T)
    values, vectors = np.linalg.eigh(spread)
    angle = float(np.degrees(np.arctan2(vectors[1, 1], vectors[0, 1])))
    axes = (2 * np.sqrt(values[1]), 2 * np.sqrt(values[0]))
    centre = (round(float(mean[0])), round(float(mean[1])))
    cv2.ellipse(drawn, centre, (round(axes[0]), round(axes[1])), angle, 0, 360, 1, -1)
    return drawn > 0


def _superpixels(image: Picture, mask: Mask, rng: np.random.Generator) -> np.ndarray:
    return slic(image, n_segments=int(rng.integers(80, 300)), compactness=10, start_label=0)


def leaked(image: Picture, mask: Mask, other: Mask, rng: np.random.Generator) -> Mask:
    """Whole background regions, with edges of their own, joined to the object."""
    labels = _superpixels(image, mask, rng)
    covered = np.bincount(labels.ravel(), mask.ravel()) / np.bincount(labels.ravel())
    damaged, goal = mask.copy(), np.count_nonzero(mask) * rng.uniform(1.12, 1.6)
    for _ in range(40):
        rim = cv2.dilate(damaged.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        near = [label for label in np.unique(labels[rim & ~damaged]) if covered[label] < 0.5]
        if not near or np.count_nonzero(damaged) > goal:
            break
        damaged |= labels == rng.choice(near)
    return damaged


def region_lost(image: Picture, mask: Mask, other: Mask, rng: np.random.Generator) -> Mask:
    """Whole regions of the object, cut along their own edges, lost."""
    labels = _superpixels(image, mask, rng)
    covered = np.bincount(labels.ravel(), mask.ravel()) / np.bincount(labels.ravel())
    damaged, goal = mask.copy(), np.count_nonzero(mask) * rng.uniform(0.4, 0.88)
    for _ in range(40):
        rim = cv2.dilate((~damaged).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        near = [label for label in np.unique(labels[rim & damaged]) if covered[label] > 0.5]
        if not near or np.count_nonzero(damaged) < goal:
            break
        damaged &= labels != rng.choice(near)
    return damaged


def half_gone(image: Picture, mask: Mask, other: Mask, rng: np.random.Generator) -> Mask:
    """Everything on one side of a line lost, as where a tile or a crop failed."""
    angle = rng.uniform(0, 2 * np.pi)
    rows, columns = np.indices(mask.shape)
    along = rows * np.sin(angle) + columns * np.cos(angle)
    return mask & (along < np.quantile(along[mask], rng.uniform(0.4, 0.88)))


def speckled(image: Picture, mask: Mask, other: Mask, rng: np.random.Generator) -> Mask:
    """Foliage-like clutter: specks of object and of background around the contour."""
    reach = int(_diameter(mask) * rng.uniform(0.15, 0.4)) | 1
    band = cv2.dilate(_contour(mask).astype(np.uint8), np.ones((reach, reach), np.uint8)) > 0
    specks = _field(mask.shape, rng.uniform(1, 3), rng) > rng.uniform(0.5, 1.2)
    return mask ^ (specks & band)


KINDS: dict[str, Damage] = {
    "part missing": part_missing,
    "blob added": blob_added,
    "hole": hole,
    "shifted": shifted,
    "contour noise": contour_noise,
    "over-smooth": over_smooth,
    "wrong object": wrong_object,
    "coarse outline": coarse,
    "leaked": leaked,
    "region lost": region_lost,
    "half gone": half_gone,
    "speckled": speckled,
}
