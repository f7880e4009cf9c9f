"""An image too large for one pass: through a network in overlapping tiles, which are blended."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hqsod.images import Array
from hqsod.inference.runtime import Pass

OVERLAP = 64  # of neighbouring tiles, in pixels of the input
MARGIN = 24  # next to a tile's edge, not used: there SwinIR-L differs from the whole (measured)
SMALLEST_TILE = 2 * OVERLAP


def in_tiles(network: Pass, images: Array, side: int, scale: int, window: int) -> Array:
    """Pass images through a network in overlapping square tiles and blend the results.

    Tiles come rounded to whole levels, so what overlaps may be a level off.

    Args:
        network: see `NetworkUpscaler`.
        images: (B, H, W, 3) uint8, sides multiples of `window`.
        side: of a tile, a multiple of `window` above OVERLAP.
        scale: how many times larger the result is.
        window: tiles start at multiples of this.

    Returns:
        (B, scale * H, scale * W, 3) uint8.
    """
    batch, height, width, channels = images.shape
    blended = np.zeros((batch, height * scale, width * scale, channels), np.float32)
    vertical, horizontal = (_tiles(length, side, window) for length in (height, width))
    for top, row_shares in vertical:
        for left, column_shares in horizontal:
            tile = network(images[:, top : top + side, left : left + side].copy())
            rows, columns = (np.repeat(shares, scale) for shares in (row_shares, column_shares))
            y, x = top * scale, left * scale
            part = blended[:, y : y + tile.shape[1], x : x + tile.shape[2]]
            part += tile * (rows[:, None] * columns)[..., None]
    return np.rint(blended).astype(np.uint8)


def _tiles(length: int, side: int, window: int) -> list[tuple[int, npt.NDArray[np.float32]]]:
    """Where tiles start along an axis, and each tile's share of the blend at its positions."""
    if length <= side:
        return [(0, np.ones(length, np.float32))]
    step = (side - OVERLAP) // window * window
    starts = [*range(0, length - side, step), length - side]
    position = np.arange(side) + 0.5
    rise = np.clip((position - MARGIN) / (OVERLAP - 2 * MARGIN), 0, 1)
    shares = np.zeros((len(starts), length), np.float32)
    for share, start in zip(shares, starts, strict=True):
        first, last = start == 0, start == length - side
        share[start : start + side] = np.minimum(1 if first else rise, 1 if last else rise[::-1])
    shares /= shares.sum(0)
    return [(start, shares[tile, start : start + side]) for tile, start in enumerate(starts)]
