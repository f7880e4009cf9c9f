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
from PIL import Image

from hqsod import weights
from hqsod.errors import InputError
from hqsod.images import Array, resize
from hqsod.inference.memory import PixelBudget
from hqsod.inference.onnx_session import exported
from hqsod.inference.runtime import Pass, Runtime, find_file, require_torch
from hqsod.inference.tiles import SMALLEST_TILE, in_tiles

PIXELS_AT_ONCE = 512 * 512  # of the input, in one pass: 1.7 GB with SwinIR-L


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


def load_upscaler(name: str, runtime: Runtime) -> Upscaler:
    """Load an upscaler.

    Args:
        name: `bicubic`, a name in the registry of weights, or a checkpoint's path.
        runtime: where the network runs, and the precision of its products and convolutions.

    Raises:
        WeightsError: the weights cannot be had, or belong to no upscaler that is known here.
        SettingsError: PyTorch is needed and missing.
    """
    if name == "bicubic":
        return Bicubic()
    path = find_file(name, runtime)
    digest = weights.sha256(path)
    if runtime.may_be_onnx and (graph := exported(path, digest)):
        return NetworkUpscaler(name, digest, graph, graph.number("scale"), 1, runtime.device)
    require_torch(name, runtime)
    from hqsod.inference.torch_upscaler import load_in_torch

    return load_in_torch(name, path, digest, runtime)


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


def _require_one_size(images: Sequence[Array]) -> None:
    shapes = {image.shape for image in images}
    if any(len(shape) != 3 or shape[2] != 3 for shape in shapes) or len(shapes) > 1:
        got = ", ".join(" x ".join(map(str, shape)) for shape in sorted(shapes))
        raise InputError(
            f"arrays of {got}", expected="RGB images of one size", fix="pass one size at a time"
        )
