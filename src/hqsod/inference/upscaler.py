"""Upscaling: an image in, a larger image out, whatever its size and the memory at hand.

An `Upscaler` takes images of one size and returns them enlarged. `load_upscaler` knows SwinIR and
the small network that comes with hqsod by name, bicubic resampling, and any checkpoint that one of
them or the library spandrel recognises.

Images are mirrored below and to the right, as the published SwinIR does it: up to the next
multiple of its window, and by a whole window where the side is one already. What is too much for
one pass goes through in tiles, which start at multiples of the window (so that their windows are
those of the whole image) and are blended in the middle of their overlap, away from their edges.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from hqsod import weights
from hqsod.errors import InputError
from hqsod.images import Array, resize
from hqsod.inference.memory import PixelBudget
from hqsod.inference.onnx_session import exported
from hqsod.inference.place import Pass, Place, find_file, require_torch

PIXELS_AT_ONCE = 512 * 512  # of the input, in one pass: 1.7 GB with SwinIR-L
OVERLAP = 64  # of neighbouring tiles, in pixels of the input
MARGIN = 24  # next to a tile's edge, not used: there SwinIR-L differs from the whole (measured)
SMALLEST_TILE = 2 * OVERLAP


class Upscaler(Protocol):
    """Enlarges images.

    Attributes:
        name: what users call it: a name, or the checkpoint's path.
        scale: how many times larger the result is.
        weights: SHA-256 of the weights file, empty without weights.
    """

    name: str
    scale: int
    weights: str

    def __call__(self, images: Sequence[Array]) -> list[Array]:
        """Enlarge (H, W, 3) uint8 RGB images, all of one size."""
        ...


def load_upscaler(name: str, place: Place) -> Upscaler:
    """Load an upscaler.

    Args:
        name: `bicubic`, a name in the registry of weights, or a checkpoint's path.
        place: where the network runs, and the precision of its products and convolutions.

    Raises:
        WeightsError: the weights cannot be had, or belong to no upscaler that is known here.
        SettingsError: PyTorch is needed and missing.
    """
    if name == "bicubic":
        return Bicubic()
    path = find_file(name, place)
    digest = weights.sha256(path)
    if place.may_be_onnx and (graph := exported(path, digest)):
        return NetworkUpscaler(name, digest, graph, graph.number("scale"), 1, place.device)
    require_torch(name, place)
    from hqsod.inference.torch_upscaler import load_in_torch

    return load_in_torch(name, path, digest, place)


class Bicubic:
    """Pillow's bicubic resampling, without weights."""

    name, scale, weights = "bicubic", 4, ""

    def __call__(self, images: Sequence[Array]) -> list[Array]:
        """Enlarge (H, W, 3) uint8 RGB images."""
        return [
            resize(
                image,
                (image.shape[0] * self.scale, image.shape[1] * self.scale),
                Image.Resampling.BICUBIC,
            )
            for image in images
        ]


class NetworkUpscaler:
    """A network that enlarges images, in as many passes as the memory asks for.

    Args:
        name: what users call it.
        digest: SHA-256 of its weights file.
        network: see `EnlargePass`; it is given sides that are multiples of `window`.
        scale: how many times larger the result is.
        window: see `network`.
        device: where the network is.

    Attributes:
        network: as given.
        budget: of pixels in a pass; a larger image goes through in tiles.
    """

    def __init__(
        self,
        name: str,
        digest: str,
        network: Pass,
        scale: int,
        window: int,
        device: str,
    ) -> None:
        self.name, self.weights, self.scale = name, digest, scale
        fix = "close other programs, or use --device cpu or another --upscaler"
        self.budget = PixelBudget(device, fix, PIXELS_AT_ONCE)
        self.network, self._window = network, window

    def __call__(self, images: Sequence[Array]) -> list[Array]:
        """Enlarge (H, W, 3) uint8 RGB images, all of one size.

        Raises:
            InputError: the images differ in size, or are no RGB images.
            SettingsError: even a small tile does not fit the memory.
        """
        _require_one_size(images)
        if not images:
            return []
        pixels = images[0].shape[0] * images[0].shape[1]
        return list(self.budget.run(self._enlarge, images, pixels, least=SMALLEST_TILE**2))

    def _enlarge(self, images: Sequence[Array]) -> list[Array]:
        """Images of one size enlarged in one pass, or one image in tiles."""
        height, width = images[0].shape[:2]
        padded = mirror_pad(np.stack(images), self._window)
        if height * width <= self.budget.pixels:
            enlarged = self.network(padded)
        else:
            side = int(self.budget.pixels**0.5) // self._window * self._window
            enlarged = in_tiles(self.network, padded, side, self.scale, self._window)
        return list(enlarged[:, : height * self.scale, : width * self.scale])


def mirror_pad(batch: Array, multiple: int) -> Array:
    """Mirror (B, H, W, 3) below and to the right, to the next larger multiple of each side."""
    rows, columns = (multiple - side % multiple for side in batch.shape[1:3])
    return np.pad(batch, ((0, 0), (0, rows), (0, columns), (0, 0)), mode="symmetric")


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


def _require_one_size(images: Sequence[Array]) -> None:
    shapes = {image.shape for image in images}
    if any(len(shape) != 3 or shape[2] != 3 for shape in shapes) or len(shapes) > 1:
        got = ", ".join(" x ".join(map(str, shape)) for shape in sorted(shapes))
        raise InputError(
            f"arrays of {got}", expected="RGB images of one size", fix="pass one size at a time"
        )
