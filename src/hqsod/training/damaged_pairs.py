"""Damaged masks beside their photographs: crops to learn from, and cases to be measured on.

The damage itself is in `mask_damage`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Annotated, NamedTuple

import cv2
import numpy as np
from PIL import Image
from pydantic import Field

from hqsod import canvas
from hqsod.canvas import Placement
from hqsod.images import Array
from hqsod.masks import binarise
from hqsod.pairs import Pair, read_pair
from hqsod.training.batches import Arrays, recolour
from hqsod.training.mask_damage import enlarge, perturb
from hqsod.training.photo_degradation import compress
from hqsod.training.settings import Range, Rate, Section, Share

REDUCTIONS = (Image.Resampling.BICUBIC, Image.Resampling.BOX, Image.Resampling.NEAREST)
FACTOR = 4  # how many times smaller the masks of the held-out images were
TARGET = (0.85, 0.95)  # their IoU after the damage


class Damage(Section):
    """How masks are damaged, and images changed, each time they are shown.

    Attributes:
        crop: side of the square crops in pixels.
        factors: how many times smaller a mask was, each as likely; 1 leaves it as it is.
        intact: share of the masks that are enlarged only.
        iou: lowest and highest target of the others.
        zoom: smallest and largest factor by which image and mask are resized before the crop.
        colour: largest change of brightness, contrast and saturation, as a share.
        degraded: share of the images that are blurred, and share that are compressed again.
    """

    crop: int = Field(default=160, ge=32)
    factors: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(1, 2, 4, 4, 4, 4), min_length=1
    )
    intact: Share = 0.25
    iou: Range[Share] = (0.8, 1.0)
    zoom: Range[Rate] = (1.0, 1.0)
    colour: float = Field(default=0.25, ge=0, lt=1)
    degraded: Share = 0.25


class DamagedMasks:
    """Crops of images with a damaged mask and the true one: a `Dataset`.

    Args:
        pairs: photographs and masks.
        damage: see there.
    """

    def __init__(self, pairs: Sequence[Pair], damage: Damage) -> None:
        self.pairs, self.damage = pairs, damage

    def __len__(self) -> int:
        return len(self.pairs)

    def name(self, index: int) -> str:
        """The image's stem."""
        return self.pairs[index].stem

    def sample(self, index: int, random: np.random.Generator) -> Arrays:
        """`image` (crop, crop, 3), `mask` and `truth` (crop, crop, 1), uint8."""
        image, mask, _ = read_pair(self.pairs[index])
        truth = binarise(mask)
        mask = self._damaged(truth, random)
        image, mask, truth = _crop([image, mask, truth], self.damage, random)
        if random.random() < 0.5:
            image, mask, truth = image[:, ::-1], mask[:, ::-1], truth[:, ::-1]
        image = self._worn(recolour(image, self.damage.colour, random), random)
        mask, truth = binarise(mask), binarise(truth)  # the zoom left grey edges
        return {"image": image, "mask": mask[..., None], "truth": truth[..., None]}

    def _damaged(self, truth: Array, random: np.random.Generator) -> Array:
        method = REDUCTIONS[random.integers(len(REDUCTIONS))]
        mask = enlarge(truth, int(random.choice(self.damage.factors)), method)
        if random.random() < self.damage.intact:
            return mask
        return perturb(mask, truth, random.uniform(*self.damage.iou), random)

    def _worn(self, image: Array, random: np.random.Generator) -> Array:
        if random.random() < self.damage.degraded:
            image = np.asarray(cv2.GaussianBlur(image, (0, 0), random.uniform(0.4, 1.6)), np.uint8)
        if random.random() < self.damage.degraded:
            image = compress(image, int(random.integers(40, 96)))
        return image


def _crop(layers: Sequence[Array], damage: Damage, random: np.random.Generator) -> list[Array]:
    """One square of image, mask and truth, resized; black beyond the border."""
    zoom = float(np.exp(random.uniform(*np.log(damage.zoom))))
    reach = int(np.ceil(damage.crop / zoom))
    middle = _middle(layers[1], random)
    window = tuple(
        slice(
            start := int(np.clip(at - random.integers(reach), 0, max(0, side - reach))),
            start + reach,
        )
        for at, side in zip(middle, layers[-1].shape, strict=True)
    )
    method = cv2.INTER_AREA if zoom < 1 else cv2.INTER_CUBIC
    pieces = []
    for layer in layers:
        height, width = (max(1, min(damage.crop, round(s * zoom))) for s in layer[window].shape[:2])
        piece = cv2.resize(layer[window], (width, height), interpolation=method)
        place = Placement.centred((height, width), (damage.crop, damage.crop))
        pieces.append(canvas.pad(np.asarray(piece, np.uint8), place))
    return pieces


def _middle(mask: Array, random: np.random.Generator) -> tuple[int, int]:
    """(row, column) of a pixel on the contour, or any where there is none."""
    found = np.flatnonzero(cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)))
    place = found[random.integers(len(found))] if len(found) else random.integers(mask.size)
    row, column = divmod(int(place), mask.shape[1])
    return row, column


class Case(NamedTuple):
    """A held-out image with a mask that is not what it should be.

    Attributes:
        stem: the image's name.
        image: (H, W, 3) uint8.
        mask: (H, W) uint8.
        truth: (H, W) uint8.
    """

    stem: str
    image: Array
    mask: Array
    truth: Array


def held_out_cases(pairs: Sequence[Pair], *, intact: bool = False) -> Iterator[Case]:
    """Images with masks that were `FACTOR` times smaller, and damaged to an IoU in `TARGET`.

    The damage follows from the image's name alone.

    Args:
        pairs: photographs and masks.
        intact: leave out the damage; the masks are only enlarged.
    """
    for pair in pairs:
        image, mask, _ = read_pair(pair)
        truth = binarise(mask)
        mask = enlarge(truth, FACTOR)
        if not intact:
            digest = hashlib.sha256(pair.stem.encode()).digest()
            random = np.random.default_rng(list(digest))
            mask = perturb(mask, truth, random.uniform(*TARGET), random)
        yield Case(pair.stem, image, mask, truth)
