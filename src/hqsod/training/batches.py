"""What a training step is shown: images changed at random, and batches made ahead of time.

Every random choice follows from the seed and the position of an image in the run, so a run that
was killed goes on with the very batch it would have had.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache, partial
from typing import Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hqsod.images import Array
from hqsod.losses import UNLABELLED
from hqsod.masks import MASK_THRESHOLD
from hqsod.training.examples import Example
from hqsod.training.purnet_recipe import Augmentation
from hqsod.training.store import Store
from hqsod.training.superpixels import Labels

_AHEAD = 3  # batches made before they are asked for

Arrays = Mapping[str, NDArray[np.generic]]
Batch = dict[str, Tensor]


class Dataset(Protocol):
    """Anything that batches can be made of."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """What to call an image in a message."""

    def sample(self, index: int, random: np.random.Generator) -> Arrays:
        """Arrays by name, each of the same shape for every image; images as (H, W, C)."""


class StoredImages:
    """Images, masks and superpixels of a store, changed at random: a `Dataset`.

    Args:
        store: where they are kept; samples carry superpixels if it has them.
        augmentation: how they are changed; None to show them as they are.
    """

    def __init__(self, store: Store, augmentation: Augmentation | None) -> None:
        self.store, self.augmentation = store, augmentation

    def __len__(self) -> int:
        return len(self.store)

    def name(self, index: int) -> str:
        """The image's stem."""
        return self.store.stems[index]

    def sample(self, index: int, random: np.random.Generator) -> Arrays:
        """`image` (S, S, 3) and `mask` (S, S, 1) uint8, perhaps `superpixels` (S, S) int16."""
        example = self.store[index]
        if self.augmentation is not None:
            example = augment(example, self.augmentation, random)
            if random.random() < self.augmentation.paste:
                other = self._another(self.augmentation, random)
                if random.random() < self.augmentation.texture:
                    surface = self._another(self.augmentation, random)
                    other = surface._replace(mask=other.mask)
                example = paste(example, other)
        arrays: dict[str, NDArray[np.generic]] = {
            "image": example.image,
            "mask": example.mask[..., None],
        }
        if example.superpixels is not None:
            arrays["superpixels"] = example.superpixels
        return arrays

    def _another(self, settings: Augmentation, random: np.random.Generator) -> Example:
        return augment(self.store[int(random.integers(len(self)))], settings, random)


def augment(example: Example, settings: Augmentation, random: np.random.Generator) -> Example:
    """Flip, rotate, zoom, crop and recolour an image; mask and superpixels follow.

    Pixels that come from outside the image are mirrored into image and mask, and belong to no
    superpixel.
    """
    side = example.mask.shape[0]
    warp = partial(cv2.warpAffine, M=_random_warp(side, settings, random), dsize=(side, side))
    smooth = partial(warp, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    image = np.asarray(smooth(example.image), np.uint8)
    if settings.colour:
        image = recolour(image, settings.colour, random)
    superpixels = example.superpixels
    if superpixels is not None:
        exact = partial(warp, flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT)
        superpixels = np.asarray(exact(superpixels, borderValue=UNLABELLED), np.int16)
    return Example(image, np.asarray(smooth(example.mask), np.uint8), superpixels)


def paste(example: Example, other: Example) -> Example:
    """Put the salient object of another image into an image; it is salient there too.

    So an object is learned apart from the surroundings it is usually seen in (Ghiasi et al.,
    "Simple Copy-Paste is a Strong Data Augmentation Method", CVPR 2021). The object brings its
    superpixels along; labels are numbered anew, without gaps.
    """
    alpha = other.mask[..., None] / np.float32(255)
    image = example.image + (other.image - example.image.astype(np.float32)) * alpha
    superpixels = None
    if example.superpixels is not None and other.superpixels is not None:
        pasted = other.mask > MASK_THRESHOLD
        superpixels = _joined(example.superpixels, other.superpixels, pasted)
    return Example(
        image.round().astype(np.uint8), np.maximum(example.mask, other.mask), superpixels
    )


def _joined(below: Labels, above: Labels, pasted: NDArray[np.bool_]) -> Labels:
    """Superpixels of two images, those of `above` where it was pasted; numbered from 0."""
    theirs = np.where(above == UNLABELLED, UNLABELLED, above + below.max() + 1)
    labels = np.where(pasted, theirs, below)
    _, numbers = np.unique(np.append(labels, UNLABELLED), return_inverse=True)
    return (numbers[:-1] - 1).reshape(labels.shape).astype(np.int16)


def _random_warp(
    side: int, settings: Augmentation, random: np.random.Generator
) -> NDArray[np.float64]:
    """One affine map (2, 3) for all of it, so that pixels are interpolated once."""
    zoom = np.exp(random.uniform(*np.log(settings.scale)))
    angle = random.uniform(-settings.rotation, settings.rotation)
    mirror = -1.0 if settings.flip and random.random() < 0.5 else 1.0
    centre = (side - 1) / 2
    matrix = cv2.getRotationMatrix2D((centre, centre), angle, zoom)
    matrix[0] *= mirror
    if mirror < 0:
        matrix[0, 2] += side - 1
    matrix[:, 2] += random.uniform(-1, 1, 2) * abs(zoom - 1) * side / 2
    return np.asarray(matrix)


def recolour(image: Array, amount: float, random: np.random.Generator) -> Array:
    """Change brightness, contrast and saturation by factors from 1 - amount to 1 + amount."""
    brightness, contrast, saturation = random.uniform(1 - amount, 1 + amount, 3)
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    mixed = cv2.addWeighted(image, saturation, grey, 1 - saturation, 0)
    levels = (np.arange(256) * brightness - 128) * contrast + 128
    return np.asarray(cv2.LUT(mixed, levels.clip(0, 255).astype(np.uint8)), np.uint8)


class Batches:
    """Endless batches in an order that follows from the seed; a thread makes them ahead of time.

    Args:
        data: what they are made of; every image is shown once before any is shown again.
        size: images in a batch, of this process.
        seed: of order and changes.
        rank: which process this is.
        processes: how many there are; together they show what one process would.
        device: where batches are copied to.
    """

    def __init__(
        self, data: Dataset, size: int, seed: int, rank: int, processes: int, device: torch.device
    ) -> None:
        self.data, self.size, self.seed = data, size, seed
        self.rank, self.processes, self.device = rank, processes, device
        self._order = lru_cache(2)(self._shuffled)

    def _shuffled(self, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng((self.seed, epoch)).permutation(len(self.data))

    def positions(self, step: int) -> range:
        """Which images of the run this process shows at a step, both counted from 0."""
        first = (step * self.processes + self.rank) * self.size
        return range(first, first + self.size)

    def index(self, position: int) -> int:
        """Which image of the data set is shown at a position."""
        epoch, place = divmod(position, len(self.data))
        return int(self._order(epoch)[place])

    def names(self, step: int) -> list[str]:
        """The images this process shows at a step."""
        return [self.data.name(self.index(position)) for position in self.positions(step)]

    def make(self, step: int) -> Batch:
        """The batch of a step, on the CPU; images become (B, C, H, W), channels last."""
        samples = [
            self.data.sample(self.index(p), np.random.default_rng((self.seed, 1, p)))
            for p in self.positions(step)
        ]
        batch = {
            name: torch.from_numpy(np.stack([sample[name] for sample in samples]))
            for name in samples[0]
        }
        return {n: t.permute(0, 3, 1, 2) if t.ndim == 4 else t for n, t in batch.items()}

    def ahead(self, step: int, stop: int) -> Iterator[Batch]:
        """The batches of the steps from `step` up to `stop`, on the device."""
        with ThreadPoolExecutor(1) as pool:
            waiting: deque[Future[Batch]] = deque()
            for upcoming in range(step, stop + _AHEAD):
                if upcoming < stop:
                    waiting.append(pool.submit(self.make, upcoming))
                if upcoming >= step + _AHEAD:
                    made = waiting.popleft().result()
                    yield {n: t.to(self.device, non_blocking=True) for n, t in made.items()}
