"""The small refiner's second step: draws the contour of what is nearly right, at full size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from hqsod.images import Array
from hqsod.inference.memory import PixelBudget
from hqsod.inference.runtime import Pass
from hqsod.masks import binarise
from hqsod.models.contour_numbers import GROUP, LEAST, REACH

Floats = npt.NDArray[np.float32]
Window = tuple[slice, slice]

# Side of what is drawn in one pass, in pixels: a canvas's. The network sees some more.
TILE = 1600

# Where the network cannot decide, its contour is no line: the step holds back, gradually, where so
# much of what lies around a pixel is undecided. Chosen on held-out pairs (docs/experiments.md).
UNDECIDED = (0.1, 0.35)
AROUND = 4.0  # standard deviation of what lies around, in pixels
SOFT_BELOW = 0.25  # share of the network's contour in a line that still has the mask's soft edge
EDGE = 1.75  # pixels across an edge that is drawn: as soft, on held-out pairs, as DUTS's own masks
FLATTEST = 0.05  # change of saliency over a pixel, where a contour lies
FARTHEST = float(REACH * GROUP)  # pixels: no contour moves farther
PART = GROUP**2  # pixels: what shares fewer with the mask's object or background is no part of it
HINT = 0.25  # share of object or background that counts for this: a soft mask's thin parts are grey
AFFECTED = 64  # pixels: how far around it a change is felt, by the blurs and distances below
STAIRS = GROUP / 2  # standard deviation, in pixels, that takes the steps out of the mask's contour

# How much better the right rows must fit than the next, and every how many columns are looked at:
# on 88 masks of DUTS-TR, enlarged and cropped anywhere, they missed at most 0.51 times as much as
# the next; on these masks as they are, the best missed at least 0.88 times as much.
CLEARLY, ASKED = 0.7, 4


class ContourStep:
    """What is nearly right, by the contour network at full size, in tiles where there is contour.

    Args:
        draw: see `ContourPass`.
        stride: sides of what it is shown are multiples of this.
        margin: how many pixels around a pixel decide what becomes of it.
        device: where it runs.
        tile: side of what is drawn in one pass, a multiple of the stride.
    """

    def __init__(
        self, draw: Pass, stride: int, margin: int, device: str = "cpu", tile: int = TILE
    ) -> None:
        self._draw, self._stride, self._margin = draw, stride, margin
        self._tile = tile
        fix = "close other programs, or use --device cpu or another --refiner"
        self._budget = PixelBudget(device, fix, tile**2)

    def __call__(self, image: Array, mask: Array) -> Array:
        """The mask with its contour drawn anew; see `Step`."""
        phase = find_phase(mask), find_phase(mask.T)
        inside = slice(phase[0], None), slice(phase[1], None)
        saliency = mask.astype(np.float32) / np.float32(255)
        tiles = list(self._tiles(mask[inside]))
        if not tiles:
            return mask

        def draw(some: Sequence[Window]) -> list[Floats]:
            return [self._predict(image[inside], mask[inside], tile) for tile in some]

        for tile, drawn in zip(tiles, self._budget.run(draw, tiles, self._tile**2), strict=True):
            saliency[inside][tile] = drawn
        window, moved = _around(tiles, phase, mask.shape), mask.copy()
        moved[window] = move_contour(mask[window], saliency[window])
        return moved

    def _predict(self, image: Array, mask: Array, tile: Window) -> Floats:
        """Probabilities within a tile of a mask that begins with a whole group of pixels."""
        rows, columns = (
            _widen(part, self._margin, side) for part, side in zip(tile, mask.shape, strict=True)
        )
        window = rows[0], columns[0]
        return self._pass(image[window], mask[window])[rows[1], columns[1]]

    def _tiles(self, mask: Array) -> Iterator[Window]:
        """Where a contour can move: tiles of the box around it, those without any left out."""
        stride, reach = self._stride, (REACH + 2) * GROUP
        binary = binarise(mask)
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

    def _pass(self, image: Array, mask: Array) -> Floats:
        """One pass over a window that starts at multiples of the stride."""
        height, width = mask.shape
        border = ((0, -height % self._stride), (0, -width % self._stride))
        layers = np.pad(image, (*border, (0, 0)), mode="edge"), np.pad(mask, border, mode="edge")
        return np.asarray(self._draw(*layers)[:height, :width], np.float32)


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
    # Columns of one group are alike, and what does not change down a column is the same again.
    columns = mask[:, GROUP // 2 :: GROUP]
    changing = columns[:, columns.min(0, initial=255) < columns.max(0, initial=0)][:, ::ASKED]
    misses = []
    for first in range(GROUP):
        rows = changing[first : first + (len(mask) - first) // GROUP * GROUP].astype(np.float32)
        if not rows.size:
            return 0
        small = (rows[GROUP // 2 - 1 :: GROUP] + rows[GROUP // 2 :: GROUP]) / 2
        again = Image.fromarray(small).resize(rows.shape[::-1], Image.Resampling.BICUBIC)
        misses.append(float(np.abs(np.asarray(again) - rows)[2 * GROUP : -2 * GROUP].sum()))
    best, second = sorted(misses)[:2]
    return misses.index(best) if best < CLEARLY * second else 0


def move_contour(mask: Array, saliency: Floats) -> Array:
    """A mask with its contour moved to the network's, as far as the network is decided.

    At each pixel the distances to the two contours are averaged: where the network is decided the
    line is its own, where it is not the mask's, and between the two it runs from one to the other.
    Of what the network says away from the lines nothing stays, no grey patches and no specks.

    Args:
        mask: (H, W) uint8.
        saliency: (H, W) float32, what the network makes of it, 0 to 1.

    Returns:
        (H, W) uint8: an edge `EDGE` wide; the mask's own where its contour hardly moves.
    """
    given = mask.astype(np.float32) / np.float32(255)
    undecided = cv2.GaussianBlur(4 * saliency * (1 - saliency), (0, 0), AROUND)
    low, high = UNDECIDED
    changed = (cv2.absdiff(saliency, given) > LEAST).astype(np.uint8)
    reach = 2 * round(3 * AROUND) + 1
    near = cv2.dilate(changed, np.ones((reach, reach), np.uint8))
    decided = near * np.clip((high - undecided) / (high - low), 0, 1)
    share = cv2.GaussianBlur(decided, (0, 0), AROUND)
    network = _depth(_without_strange_parts(saliency, given))
    kept = cv2.GaussianBlur(_depth(given), (0, 0), STAIRS)
    drawn = np.clip(0.5 + (share * network + (1 - share) * kept) / EDGE, 0, 1)
    sharp = np.minimum(share / SOFT_BELOW, 1)
    return np.asarray(np.rint(255 * (sharp * drawn + (1 - sharp) * given)), np.uint8)


def _without_strange_parts(saliency: Floats, given: Floats) -> Floats:
    """Without parts of object or background that are no part of the mask's: these change sides."""
    saliency = saliency.copy()
    for is_object in (True, False):
        side = (saliency > 0.5) == is_object
        own = given > HINT if is_object else given < 1 - HINT
        connectivity = 8 if is_object else 4
        count, labels = cv2.connectedComponents(side.astype(np.uint8), connectivity=connectivity)
        strange = np.bincount(labels[own], minlength=count) < PART
        if strange[1:].any():
            saliency[side & strange[labels]] = 1 - is_object
    return saliency


def _depth(saliency: Floats) -> Floats:
    """Distance in pixels to where a map crosses a half, negative outside of the object."""
    inside = (saliency > 0.5).astype(np.uint8)
    within, beyond = (cv2.distanceTransform(x, cv2.DIST_L2, 5) for x in (inside, 1 - inside))
    # Between the middles of pixels: on both sides of the contour the nearest is half a pixel off.
    depth = within - beyond + (np.float32(0.5) - inside)
    # Near it the levels say where it lies to a fraction of a pixel.
    across, down = (cv2.Sobel(saliency, -1, *axis, scale=1 / 8) for axis in ((1, 0), (0, 1)))
    near = np.abs(depth) < 1
    slope = np.maximum(np.hypot(across[near], down[near]), FLATTEST)
    depth[near] = np.clip((saliency[near] - 0.5) / slope, -1, 1)
    return np.asarray(np.clip(depth, -FARTHEST, FARTHEST), np.float32)


def _around(tiles: Sequence[Window], phase: tuple[int, int], shape: Sequence[int]) -> Window:
    """The part of a mask that what is drawn in its tiles, from `phase` on, can change."""
    spans = []
    for axis, (first, side) in enumerate(zip(phase, shape, strict=True)):
        start, stop = min(t[axis].start for t in tiles), max(t[axis].stop for t in tiles)
        spans.append(_widen(slice(first + start, first + stop), AFFECTED, side)[0])
    return spans[0], spans[1]


def _widen(part: slice, margin: int, length: int) -> Window:
    """A stretch with a margin on both sides, as far as there is one, and its place therein."""
    start, stop = max(0, part.start - margin), min(part.stop + margin, length)
    return slice(start, stop), slice(part.start - start, part.stop - start)
