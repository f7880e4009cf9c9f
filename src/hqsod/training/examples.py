"""What is trained on: the pairs of a data set, and how one is brought to training size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from hqsod import canvas, images
from hqsod.canvas import Placement
from hqsod.dataset.layouts import find_pairs, inspect
from hqsod.dataset.manifest import NAME as MANIFEST
from hqsod.dataset.manifest import Manifest
from hqsod.errors import InputError
from hqsod.images import Array
from hqsod.pairs import Pair, read_pair
from hqsod.training.superpixels import Labels, read_superpixels, slic_superpixels


class Example(NamedTuple):
    """An image at training size.

    Attributes:
        image: (S, S, 3) uint8 RGB.
        mask: (S, S) uint8.
        superpixels: (S, S) int16 labels from 0; None where no loss asks for them.
    """

    image: Array
    mask: Array
    superpixels: Labels | None = None


class TrainingSet(NamedTuple):
    """A data set that is trained on or validated with.

    Attributes:
        pairs: its images and masks, sorted by stem.
        placements: where images lie on a black canvas, by stem; the rest is cropped away.
        unpaired: photographs without a mask and masks without a photograph.
    """

    pairs: Sequence[Pair]
    placements: Mapping[str, Placement]
    unpaired: Sequence[Path] = ()


def find_training_set(
    folder: Path, image_folder: str | None = None, mask_folder: str | None = None
) -> TrainingSet:
    """The pairs of a data set, and where their images lie if hqsod has built it.

    Args:
        folder: the data set.
        image_folder: see `find_pairs`; `images` where only masks are named, as in DUTS-HQ.
        mask_folder: see `find_pairs`; `masks` or `hq-masks` for DUTS-HQ.

    Raises:
        InputError: see `find_pairs`.
    """
    if mask_folder is not None and image_folder is None and (folder / "images").is_dir():
        image_folder = "images"
    pairs = find_pairs(folder, image_folder, mask_folder)
    unpaired = inspect(folder, image_folder, mask_folder).unpaired
    inner = pairs[0].image.parent.parent  # where `folder` holds nothing but a data set
    built = next((f for f in (folder, inner) if (f / MANIFEST).is_file()), None)
    if built is None:
        return TrainingSet(pairs, {}, unpaired)
    with Manifest.open(built) as manifest:
        latest = manifest.latest()
    placements = {stem: r.placement for stem, r in latest.items() if r.placement is not None}
    return TrainingSet(pairs, placements, unpaired)


def read_example(
    pair: Pair, placement: Placement | None, size: int, superpixels: int | None
) -> Example:
    """Read a pair and bring it to size x size, whatever its proportions, as PurNet does.

    Args:
        pair: what to read.
        placement: where the image lies on its canvas, if it has one.
        size: height and width wanted.
        superpixels: how many SLIC is asked for, where none lie beside the data set; None for none.

    Raises:
        InputError: a file that cannot be read, or sizes that differ.
    """
    image, mask, _ = read_pair(pair)
    labels = None if superpixels is None else _published_superpixels(pair, mask.shape)
    image, mask = (
        images.resize(canvas.unpad(array, placement), (size, size), Image.Resampling.BILINEAR)
        for array in (image, mask)
    )
    if superpixels is None:
        return Example(image, mask)
    if labels is None:
        return Example(image, mask, slic_superpixels(image, superpixels))
    placed = canvas.unpad(labels, placement)
    resized = cv2.resize(placed, (size, size), interpolation=cv2.INTER_NEAREST)
    return Example(image, mask, np.asarray(resized, np.int16))


def superpixels_path(pair: Pair) -> Path:
    """Where the superpixels of a pair lie, if a data set brings its own."""
    return pair.image.parent.parent / "image_sp" / f"{pair.stem}.mat"


def _published_superpixels(pair: Pair, shape: tuple[int, ...]) -> Labels | None:
    """The superpixels of `image_sp` beside the images' folder, as PurNet's data has them.

    Raises:
        InputError: they cannot be read, or are of another shape than the image.
    """
    path = superpixels_path(pair)
    if not path.is_file():
        return None
    labels = read_superpixels(path)
    if labels.shape != shape:
        raise InputError(
            f"{path}: superpixels of {labels.shape}", expected=f"{shape} as {pair.image.name}"
        )
    return labels
