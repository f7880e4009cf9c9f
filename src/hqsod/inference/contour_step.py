"""The small refiner's second step: draws the contour of what is nearly right, at full size."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from hqsod import images
from hqsod.images import Array
from hqsod.inference.devices import autocast
from hqsod.models.contour_refiner import GROUP, REACH, ContourRefiner
from hqsod.models.resnet import fold_batchnorm

TILE = 1024  # side of what is drawn in one pass, in pixels; the network sees some more

# Where the network cannot decide it paints smoke: the step holds back, gradually, where so much of
# what lies around a pixel is undecided. Chosen on held-out pairs (docs/experiments.md).
UNDECIDED = (0.25, 0.45)
AROUND = 4.0  # standard deviation of what lies around, in pixels

# By so much the right rows must fit better than the next: of 252 enlarged masks they had at most
# 0.49 of its misses, of 63 others at least 0.93.
CLEARLY = 0.7


class ContourStep:
    """What is nearly right, by the contour network at full size, in tiles where there is contour.

    Args:
        network: becomes this object's own: its BatchNorm is folded.
        device: where it runs.
        precision: of its convolutions.
        tile: side of what is drawn in one pass, a multiple of the network's stride.
    """

    def __init__(
        self,
        network: ContourRefiner,
        device: torch.device,
        precision: torch.dtype,
        tile: int = TILE,
    ) -> None:
        fold_batchnorm(network)
        self._network, self._device, self._precision = network.to(device), device, precision
        self._tile = tile

    def __call__(self, image: Array, mask: Array) -> Array:
        """The mask with its contour drawn anew; see `Step`."""
        refined = mask.copy()
        inside = slice(find_phase(mask), None), slice(find_phase(mask.T), None)
        refined[inside] = self._draw(image[inside], mask[inside])
        return refined

    def _draw(self, image: Array, mask: Array) -> Array:
        """The same, of a mask that begins with a whole group of pixels."""
        refined = mask.copy()
        for tile in self._tiles(mask):
            rows, columns = (
                _widen(part, self._network.margin, side)
                for part, side in zip(tile, mask.shape, strict=True)
            )
            window, kept = (rows[0], columns[0]), (rows[1], columns[1])
            refined[tile] = self._refine(image[window], mask[window])[kept]
        return refined

    def _tiles(self, mask: Array) -> Iterator[tuple[slice, slice]]:
        """Where a contour can move: tiles of the box around it, those without any left out."""
        stride, reach = self._network.stride, (REACH + 2) * GROUP
        binary = images.binarise(mask)
        contour = cv2.morphologyEx(binary, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
        spans = []
        for axis in (1, 0):
            found = np.flatnonzero(contour.any(axis))
            if not len(found):
                return
            start = max(0, found[0] - reach) // stride * stride
            spans.append(range(start, min(found[-1] + 1 + reach, mask.shape[1 - axis]), self._tile))
        for top in spans[0]:
            for left in spans[1]:
                tile = (
                    slice(top, min(top + self._tile, spans[0].stop)),
                    slice(left, min(left + self._tile, spans[1].stop)),
                )
                near = tuple(slice(max(0, s.start - reach), s.stop + reach) for s in tile)
                if contour[near].any():
                    yield tile

    def _refine(self, image: Array, mask: Array) -> Array:
        """One pass over a window that starts at multiples of the stride."""
        height, width = mask.shape
        stride = self._network.stride
        border = ((0, -height % stride), (0, -width % stride))
        picture = np.pad(image, (*border, (0, 0)), mode="edge")
        layers = (
            torch.from_numpy(layer).to(self._device).permute(2, 0, 1)[None] / 255
            for layer in (picture, np.pad(mask, border, mode="edge")[..., None])
        )
        with torch.inference_mode(), autocast(self._device, self._precision):
            saliency = self._network(*layers)[0, 0, :height, :width].sigmoid().cpu().numpy()
        return _where_decided(saliency, mask)


def find_phase(mask: Array) -> int:
    """The first row, 0 to `GROUP` - 1, at which a group of an enlarged mask's pixels begins.

    Each group is one pixel of the small mask, and where groups are cut elsewhere the network is
    lost: masks come with a canvas around them, or cropped. With the right rows the small mask,
    enlarged again, is nearly the mask; with others it is not.

    Args:
        mask: (H, W) uint8.

    Returns:
        0 for a mask that was not enlarged, or shows nothing of it.
    """
    misses = []
    for first in range(GROUP):
        rows = mask[first : first + (len(mask) - first) // GROUP * GROUP].astype(np.float32)
        if not rows.size:
            return 0
        small = (rows[GROUP // 2 - 1 :: GROUP] + rows[GROUP // 2 :: GROUP]) / 2
        again = Image.fromarray(small).resize(rows.shape[::-1], Image.Resampling.BICUBIC)
        misses.append(float(np.abs(np.asarray(again) - rows)[2 * GROUP : -2 * GROUP].sum()))
    best, second = sorted(misses)[:2]
    return misses.index(best) if best < CLEARLY * second else 0


def _where_decided(saliency: npt.NDArray[np.float32], mask: Array) -> Array:
    """Probabilities where they are decided, (H, W), and the mask where they are not."""
    undecided = cv2.GaussianBlur(4 * saliency * (1 - saliency), (0, 0), AROUND)
    low, high = UNDECIDED
    share = np.clip((high - undecided) / (high - low), 0, 1)
    return np.asarray(np.rint(share * 255 * saliency + (1 - share) * mask), np.uint8)


def _widen(part: slice, margin: int, length: int) -> tuple[slice, slice]:
    """A stretch with a margin on both sides, as far as there is one, and its place therein."""
    start, stop = max(0, part.start - margin), min(part.stop + margin, length)
    return slice(start, stop), slice(part.start - start, part.stop - start)
