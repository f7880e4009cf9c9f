"""Pairs reduced, worn and enlarged: crops to learn from, and cases to be measured on.

The wear itself is in `wear`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from PIL import Image
from pydantic import Field

from hqsod import images
from hqsod.images import Array
from hqsod.inference.upscaler import Upscaler
from hqsod.masks import binarise
from hqsod.pairs import Pair, read_pair
from hqsod.training.batches import Arrays, recolour
from hqsod.training.contour_wear import (
    SCALE,
    Wear,
    enlarge_mask,
    reduce_image,
    reduce_mask,
)
from hqsod.training.damaged_pairs import Case
from hqsod.training.settings import Section, Share

MARGIN = 32  # pixels around a crop that are enlarged with it and cut away, a multiple of SCALE
RIM = 8  # a crop's contour pixel lies at least this far inside it
BLUR = (0.8, 3.5)  # standard deviations, of few enlarged images
BICUBIC = Image.Resampling.BICUBIC


class Crops(Section):
    """What is cut out of a pair, and how its image is changed.

    Attributes:
        side: of the square crops in full-size pixels.
        bicubic: share of the images that bicubic enlarges instead of the upscaler.
        blurred: share of the enlarged images that are blurred.
        colour: largest change of brightness, contrast and saturation, as a share.
    """

    side: int = Field(default=160, ge=32)
    bicubic: Share = 0.25
    blurred: Share = 0.25
    colour: float = Field(default=0.2, ge=0, lt=1)


class ReducedPairs:
    """Crops of pairs as the build has them, and of the truth: a `Dataset`.

    Args:
        pairs: photographs and full-size masks.
        upscaler: enlarges the images.
        wear: how small pairs are worn.
        crops: see there.
    """

    def __init__(self, pairs: Sequence[Pair], upscaler: Upscaler, wear: Wear, crops: Crops) -> None:
        self.pairs, self.upscaler, self.wear, self.crops = pairs, upscaler, wear, crops

    def __len__(self) -> int:
        return len(self.pairs)

    def name(self, index: int) -> str:
        """The image's stem."""
        return self.pairs[index].stem

    def sample(self, index: int, random: np.random.Generator) -> Arrays:
        """`image` (side, side, 3), `mask` and `truth` (side, side, 1), uint8."""
        image, truth = read_whole(self.pairs[index], self.crops.side)
        outer, inner = _window(truth, self.crops.side, random)
        truth = np.ascontiguousarray(truth[outer])
        mask = enlarge_mask(reduce_mask(truth, self.wear, random))
        image = self._worn(np.ascontiguousarray(image[outer]), random)
        layers = [layer[inner] for layer in (image, mask[..., None], truth[..., None])]
        turns, flip = int(random.integers(4)), 1 if random.random() < 0.5 else -1
        layers = [np.ascontiguousarray(np.rot90(x, turns)[:, ::flip]) for x in layers]
        return dict(zip(("image", "mask", "truth"), layers, strict=True))

    def _worn(self, image: Array, random: np.random.Generator) -> Array:
        small = reduce_image(image, self.wear, random)
        if random.random() < self.crops.bicubic:
            image = images.resize(small, image.shape[:2], BICUBIC)
        else:
            (image,) = self.upscaler([small])
        if random.random() < self.crops.blurred:
            image = np.asarray(cv2.GaussianBlur(image, (0, 0), random.uniform(*BLUR)), np.uint8)
        return recolour(image, self.crops.colour, random)


def read_whole(pair: Pair, least: int = SCALE) -> tuple[Array, Array]:
    """A photograph and its mask, as large as whole small pixels; black beyond, up to `least`."""
    image, mask, _ = read_pair(pair)
    height, width = (side // SCALE * SCALE for side in mask.shape)
    border = ((0, max(0, least - height)), (0, max(0, least - width)))
    return (
        np.pad(image[:height, :width], (*border, (0, 0))),
        np.pad(mask[:height, :width], border),
    )


def _window(
    truth: Array, side: int, random: np.random.Generator
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """A crop with contour in it and a margin around, on whole small pixels; its place therein."""
    edge = cv2.morphologyEx(binarise(truth), cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    found = np.flatnonzero(edge)
    at = found[random.integers(len(found))] if len(found) else random.integers(truth.size)
    outer, inner = [], []
    for middle, length in zip(divmod(int(at), truth.shape[1]), truth.shape, strict=True):
        start = middle - int(random.integers(RIM, side - RIM))
        start = min(max(0, start), length - side) // SCALE * SCALE
        first = max(0, start - MARGIN)
        outer.append(slice(first, min(length, start + side + MARGIN)))
        inner.append(slice(start - first, start - first + side))
    return tuple(outer), tuple(inner)


def reduced_cases(pairs: Sequence[Pair], upscaler: Upscaler, wear: Wear) -> Iterator[Case]:
    """Held-out pairs, reduced and enlarged; the wear follows from the image's name alone."""
    for pair in pairs:
        image, truth = read_whole(pair)
        random = np.random.default_rng(list(hashlib.sha256(pair.stem.encode()).digest()))
        mask = enlarge_mask(reduce_mask(truth, wear, random))
        size = (truth.shape[0] // SCALE, truth.shape[1] // SCALE)
        (enlarged,) = upscaler([images.resize(image, size, BICUBIC)])
        yield Case(pair.stem, enlarged, mask, truth)
