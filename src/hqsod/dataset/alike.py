"""Images that are the same or look the same, whatever their size and encoding."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from hqsod.images import Array
from hqsod.pairs import Pair

THUMBNAIL = 16  # pixels a side
# Correlation of two thumbnails. Between DUTS-TR and DUTS-TE the one image that stands in both has
# 0.9999996, and the most alike of different ones 0.970. All 20 pairs that it names within DUTS-TR
# are one photograph twice; it misses one that was cut and coloured anew, 0.976.
ALIKE = 0.99
COMPARED = 1024  # thumbnails compared with all others at once


@dataclass(frozen=True, slots=True)
class Print:
    """What a pair's image is recognised by: a digest of its pixels, and a thumbnail.

    The thumbnail is (256,) float32 of mean 0 and length 1: the product of two is their correlation.
    """

    pair: Pair
    digest: bytes
    thumbnail: npt.NDArray[np.float32]


def take_print(pair: Pair, image: Array) -> Print:
    """The print of a pair's image, (H, W, 3) uint8 RGB."""
    digest = hashlib.sha256(f"{image.shape}".encode() + image.tobytes()).digest()
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    thumbnail = small.astype(np.float32).ravel()
    if small.min() == small.max():  # nothing to compare but the digest, which has as many bits
        thumbnail = np.unpackbits(np.frombuffer(digest, np.uint8)).astype(np.float32)
    thumbnail -= thumbnail.mean()
    return Print(pair, digest, thumbnail / np.linalg.norm(thumbnail))


def alike(first: Sequence[Print], second: Sequence[Print]) -> Iterator[tuple[int, int]]:
    """Positions of images that look alike, in order; memory stays bounded."""
    if not first or not second:
        return
    rows, columns = (np.stack([each.thumbnail for each in prints]) for prints in (first, second))
    for start in range(0, len(rows), COMPARED):
        found = rows[start : start + COMPARED] @ columns.T > ALIKE
        for row, column in np.argwhere(found):
            yield start + int(row), int(column)
