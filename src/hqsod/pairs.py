"""An image and its mask: reading them, and checking that the two belong together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from hqsod.decoding import TURNS
from hqsod.errors import InputError
from hqsod.images import Array, Note, Read, load_image, load_mask


@dataclass(frozen=True, slots=True)
class Pair:
    """A photograph and its mask.

    Attributes:
        stem: the name both are known by, unique within a data set.
        image: path of the photograph.
        mask: path of the mask.
    """

    stem: str
    image: Path
    mask: Path


class ReadPair(NamedTuple):
    """An image, (H, W, 3) uint8, its mask, (H, W) uint8, and what was converted."""

    image: Array
    mask: Array
    notes: tuple[Note, ...]


def read_pair(pair: Pair) -> ReadPair:
    """Read an image and its mask.

    Raises:
        InputError: the name is not UTF-8, a file cannot be used, or the sizes differ.
    """
    require_utf8(pair)
    return match_pair(pair, load_image(pair.image), load_mask(pair.mask))


def require_utf8(pair: Pair) -> None:
    """Check that a pair can be recorded by its name.

    Raises:
        InputError: the name is not UTF-8.
    """
    try:
        pair.stem.encode()
    except UnicodeEncodeError:
        raise InputError(
            f"{pair.stem}: a file name that is not UTF-8", fix="rename the image and its mask"
        ) from None


def match_pair(pair: Pair, image: Read, mask: Read) -> ReadPair:
    """Check that an image and its mask have one size.

    A mask that was drawn on the image as stored is turned along with it where the sizes say so.

    Raises:
        InputError: the sizes differ.
    """
    size, pixels = image.pixels.shape[:2], mask.pixels
    notes = [Note(pair.image, note) for note in image.notes]
    notes += [Note(pair.mask, note) for note in mask.notes]
    if image.orientation != 1 and mask.orientation == 1:
        turned = np.asarray(Image.fromarray(pixels).transpose(TURNS[image.orientation]))
        if pixels.shape != size:
            pixels = turned
            notes.append(Note(pair.mask, "turned as its image was"))
        elif turned.shape == size:
            notes.append(Note(pair.mask, "not turned, though its image was; look at it"))
    if pixels.shape != size:
        raise InputError(
            f"{pair.mask}: {pixels.shape[1]} x {pixels.shape[0]} pixels",
            expected=f"the size of {pair.image.name}, {size[1]} x {size[0]}",
            fix="resize the mask or correct the pair",
        )
    return ReadPair(image.pixels, pixels, tuple(notes))


def require_pair(image: Array, mask: Array) -> None:
    """Check an image and its mask.

    Raises:
        InputError: shapes or types are wrong; the message says what came.
    """
    good = image.ndim == 3 and image.shape[2] == 3 and mask.shape == image.shape[:2]
    if not good or image.dtype != np.uint8 or mask.dtype != np.uint8 or not mask.size:
        raise InputError(
            f"an image {_describe(image)} and a mask {_describe(mask)}",
            expected="(H, W, 3) uint8 and (H, W) uint8 of the same H and W",
            fix="convert the image to RGB and the mask to one channel, and make their sizes equal",
        )


def _describe(array: Array) -> str:
    return f"({', '.join(map(str, array.shape))}) {array.dtype}"
