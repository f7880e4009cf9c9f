"""Pairs as the build has them: small, with a contour that is right to about a pixel, and enlarged.

A pair of today is the full-size truth; reduced by `SCALE` and worn as small data sets are, then
enlarged as `hqsod build` enlarges, it is what the contour refiner has to start from. Masks of data
sets are soft or binary, drawn with too few vertices, or off by a pixel; some are damaged.
"""

from __future__ import annotations

import cv2
import numpy as np
from PIL import Image

from hqsod.images import Array, resize
from hqsod.masks import binarise
from hqsod.training.mask_damage import Mask, roughen
from hqsod.training.photo_degradation import compress
from hqsod.training.settings import Section, Share

SCALE = 4  # what the build enlarges by
FILTERS = (Image.Resampling.BICUBIC, Image.Resampling.BOX, Image.Resampling.LANCZOS)
QUALITY = (60, 95)  # of JPEG

# Of contours, in full-size pixels: a fourth of them in pixels of the small mask.
LENGTHS = (8, 48)  # over which a displacement changes
OFF = (0.4, 4.0)  # standard deviations of a displacement
GROWTH = 5  # most that a mask grows or shrinks by
DABS, DAB = 3, (2, 12)  # how many at most, and their radii
BLUR = (1.0, 4.0)  # standard deviations, of few masks
VERTICES = (0.04, 0.4)  # shares of a rough contour's that stay


class Wear(Section):
    """How a pair is worn; shares are of all pairs, those of a contour's faults of faulty pairs.

    Attributes:
        intact: share of the masks whose contour stays where it is.
        displaced: share whose contour is displaced, smoothly and at random.
        grown: share that grow or shrink.
        rough: share that lose most of their vertices.
        dabbed: share that get dabs of object or background on the contour.
        binary: share of all masks that are binary once small; the others keep a soft edge.
        blurred: share of all masks that were blurred before.
        compressed: share of the images that are compressed once small.
    """

    intact: Share = 0.5
    displaced: Share = 0.65
    grown: Share = 0.3
    rough: Share = 0.15
    dabbed: Share = 0.12
    binary: Share = 0.4
    blurred: Share = 0.08
    compressed: Share = 0.4


def reduce_image(image: Array, wear: Wear, random: np.random.Generator) -> Array:
    """A photograph, (H, W, 3) uint8 with sides that are multiples of `SCALE`, made small."""
    method = FILTERS[random.integers(len(FILTERS))]
    small = resize(image, (image.shape[0] // SCALE, image.shape[1] // SCALE), method)
    if random.random() < wear.compressed:
        small = compress(small, int(random.integers(*QUALITY, endpoint=True)))
    return small


def reduce_mask(truth: Mask, wear: Wear, random: np.random.Generator) -> Mask:
    """A mask, (H, W) uint8 with sides that are multiples of `SCALE`, worn and made small."""
    mask = truth if random.random() < wear.intact else unsettle(truth, wear, random)
    if random.random() < wear.blurred:
        mask = np.asarray(cv2.GaussianBlur(mask, (0, 0), random.uniform(*BLUR)), np.uint8)
    size = (mask.shape[0] // SCALE, mask.shape[1] // SCALE)
    if random.random() >= wear.binary:
        method = Image.Resampling.BOX if random.random() < 0.8 else Image.Resampling.BICUBIC
        return resize(mask, size, method)
    if random.random() < 0.6:
        return binarise(resize(mask, size, Image.Resampling.BOX))
    first = int(random.integers(1, 3))  # the pixel in the middle, or its neighbour
    return binarise(np.ascontiguousarray(mask[first::SCALE, first::SCALE]))


def enlarge_mask(mask: Mask) -> Mask:
    """What the build makes of a small mask: `SCALE` times larger, by Pillow's bicubic."""
    size = (mask.shape[0] * SCALE, mask.shape[1] * SCALE)
    return resize(mask, size, Image.Resampling.BICUBIC)


def unsettle(mask: Mask, wear: Wear, random: np.random.Generator) -> Mask:
    """A full-size mask with the faults that a small one has: displaced, grown, rough, dabbed."""
    if random.random() < wear.displaced:
        mask = displace(mask, random)
    if random.random() < wear.grown:
        side = 2 * int(random.integers(1, GROWTH, endpoint=True)) + 1
        disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
        change = cv2.dilate if random.random() < 0.5 else cv2.erode
        mask = np.asarray(change(mask, disk), np.uint8)
    if random.random() < wear.rough:
        kept = float(np.exp(random.uniform(*np.log(VERTICES))))
        mask = roughen(binarise(mask), kept, random)
    if random.random() < wear.dabbed:
        mask = _dabbed(mask, random)
    return mask


def displace(mask: Mask, random: np.random.Generator) -> Mask:
    """Move every pixel a little, neighbours alike: normally distributed, over a drawn length."""
    height, width = mask.shape
    length = float(np.exp(random.uniform(*np.log(LENGTHS))))
    deviation = np.float32(np.exp(random.uniform(*np.log(OFF))))
    knots = (int(height / length) + 4, int(width / length) + 4)
    coarse = deviation * random.standard_normal((*knots, 2)).astype(np.float32)
    size = int((width / length + 4) * length), int((height / length + 4) * length)
    field = cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)
    top, left = random.integers(field.shape[0] - height + 1), random.integers(size[0] - width + 1)
    field = field[top : top + height, left : left + width]
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    moved = cv2.remap(
        mask,
        columns + field[..., 0],
        rows + field[..., 1],
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.asarray(moved, np.uint8)


def _dabbed(mask: Mask, random: np.random.Generator) -> Mask:
    mask = mask.copy()
    for _ in range(random.integers(1, DABS, endpoint=True)):
        edge = cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 127
        found = np.flatnonzero(edge)
        if not len(found):
            break
        row, column = divmod(int(found[random.integers(len(found))]), mask.shape[1])
        axes = random.integers(*DAB, 2).tolist()
        level = 255 if random.random() < 0.5 else 0
        cv2.ellipse(mask, (column, row), axes, random.uniform(0, 180), 0, 360, level, -1)
    return mask
