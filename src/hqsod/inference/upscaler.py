"""Upscaling: a picture in, a larger picture out, whatever its size and the memory at hand.

An `Upscaler` takes pictures of one size and returns them enlarged. `load_upscaler` knows SwinIR and
the small network that comes with hqsod by name, bicubic resampling, and any checkpoint that one of
them or the library spandrel recognises.

Pictures are mirrored below and to the right, as the published SwinIR does it: up to the next
multiple of its window, and by a whole window where the side is one already. What is too much for
one pass goes through in tiles, which start at multiples of the window (so that their windows are
those of the whole picture) and are blended in the middle of their overlap, away from their edges.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from hqsod import images as pictures
from hqsod import weights
from hqsod.errors import InputError, WeightsError
from hqsod.images import Array
from hqsod.inference.memory import PixelBudget
from hqsod.models.small_upscaler import build_small_upscaler, is_small_upscaler
from hqsod.models.swinir import build_swinir, is_swinir

PIXELS_AT_ONCE = 512 * 512  # of the input, in one pass: 1.7 GB with SwinIR-L
OVERLAP = 64  # of neighbouring tiles, in pixels of the input
MARGIN = 24  # next to a tile's edge, not used: there SwinIR-L differs from the whole (measured)
SMALLEST_TILE = 2 * OVERLAP
WINDOW = 8  # other libraries' networks are given multiples of this

Network = Callable[[Tensor], Tensor]


class Upscaler(Protocol):
    """Enlarges pictures.

    Attributes:
        name: what users call it: a name, or the checkpoint's path.
        scale: how many times larger the result is.
        weights: SHA-256 of the weights file, empty without weights.
    """

    name: str
    scale: int
    weights: str

    def __call__(self, images: Sequence[Array]) -> list[Array]:
        """Enlarge (H, W, 3) uint8 RGB pictures, all of one size."""
        ...


def load_upscaler(name: str, device: torch.device, precision: torch.dtype) -> Upscaler:
    """Load an upscaler.

    Args:
        name: `bicubic`, a name in the registry of weights, or a checkpoint's path.
        device: where the network runs.
        precision: of its matrix products and convolutions.

    Raises:
        WeightsError: the weights cannot be had, or belong to no upscaler that is known here.
    """
    if name == "bicubic":
        return Bicubic()
    path = weights.resolve(name)
    state, digest = weights.load(path), weights.sha256(path)
    if is_swinir(state) or is_small_upscaler(state):
        network = build_swinir(state) if is_swinir(state) else build_small_upscaler(state)
        network.set_precision(precision)
        network.to(device)
        size = network.config
        return NetworkUpscaler(name, digest, network, size.scale, size.window, device)
    other, scale = _load_with_spandrel(name, state, device, precision)
    return NetworkUpscaler(name, digest, other, scale, WINDOW, device)


class Bicubic:
    """Pillow's bicubic resampling, without weights."""

    name, scale, weights = "bicubic", 4, ""

    def __call__(self, images: Sequence[Array]) -> list[Array]:
        """Enlarge (H, W, 3) uint8 RGB pictures."""
        return [
            pictures.resize(
                image,
                (image.shape[0] * self.scale, image.shape[1] * self.scale),
                Image.Resampling.BICUBIC,
            )
            for image in images
        ]


class NetworkUpscaler:
    """A network that enlarges pictures, in as many passes as the memory asks for.

    Args:
        name: what users call it.
        digest: SHA-256 of its weights file.
        network: takes (B, 3, H, W) float32 in [0, 1], sides multiples of `window`, and returns it
            `scale` times larger.
        scale: how many times larger the result is.
        window: see `network`.
        device: where the network is.

    Attributes:
        budget: of pixels in a pass; a larger picture goes through in tiles.
    """

    def __init__(
        self,
        name: str,
        digest: str,
        network: Network,
        scale: int,
        window: int,
        device: torch.device,
    ) -> None:
        self.name, self.weights, self.scale = name, digest, scale
        fix = "close other programs, or use --device cpu or another --upscaler"
        self.budget = PixelBudget(device, fix, PIXELS_AT_ONCE)
        self._network, self._window, self._device = network, window, device

    def __call__(self, images: Sequence[Array]) -> list[Array]:
        """Enlarge (H, W, 3) uint8 RGB pictures, all of one size.

        Raises:
            InputError: the pictures differ in size, or are no RGB pictures.
            SettingsError: even a small tile does not fit the memory.
        """
        _require_one_size(images)
        if not images:
            return []
        pixels = images[0].shape[0] * images[0].shape[1]
        return list(self.budget.run(self._enlarge, images, pixels, least=SMALLEST_TILE**2))

    @torch.inference_mode()
    def _enlarge(self, pictures: Sequence[Array]) -> list[Array]:
        """Pictures of one size enlarged in one pass, or one picture in tiles."""
        height, width = pictures[0].shape[:2]
        padded = mirror_pad(np.stack(pictures), self._window)
        images = torch.from_numpy(padded).to(self._device).permute(0, 3, 1, 2) / 255
        if height * width <= self.budget.pixels:
            result = self._network(images)
        else:
            side = int(self.budget.pixels**0.5) // self._window * self._window
            result = in_tiles(self._network, images, side, self.scale, self._window)
        result = result[:, :, : height * self.scale, : width * self.scale].permute(0, 2, 3, 1)
        levels = (result * 255).round_().clamp_(0, 255).to(torch.uint8)
        return list(levels.contiguous().cpu().numpy())


def mirror_pad(batch: Array, multiple: int) -> Array:
    """Mirror (B, H, W, 3) below and to the right, to the next larger multiple of each side."""
    rows, columns = (multiple - side % multiple for side in batch.shape[1:3])
    return np.pad(batch, ((0, 0), (0, rows), (0, columns), (0, 0)), mode="symmetric")


def in_tiles(network: Network, images: Tensor, side: int, scale: int, window: int) -> Tensor:
    """Pass pictures through a network in overlapping square tiles and blend the results.

    Args:
        network: see `NetworkUpscaler`.
        images: (B, 3, H, W), sides multiples of `window`.
        side: of a tile, a multiple of `window` above OVERLAP.
        scale: how many times larger the result is.
        window: tiles start at multiples of this.

    Returns:
        (B, 3, scale * H, scale * W) float32.
    """
    batch, channels, height, width = images.shape
    result = images.new_zeros((batch, channels, height * scale, width * scale))
    vertical, horizontal = (_tiles(length, side, window) for length in (height, width))
    for top, row_shares in vertical:
        for left, column_shares in horizontal:
            tile = network(images[:, :, top : top + side, left : left + side])
            rows, columns = (
                torch.from_numpy(np.repeat(shares, scale)).to(tile)
                for shares in (row_shares, column_shares)
            )
            y, x = top * scale, left * scale
            part = result[:, :, y : y + tile.shape[2], x : x + tile.shape[3]]
            part += tile * rows[:, None] * columns
    return result


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
            f"arrays of {got}", expected="RGB pictures of one size", fix="pass one size at a time"
        )


def _load_with_spandrel(
    name: str, state: dict[str, Tensor], device: torch.device, precision: torch.dtype
) -> tuple[Network, int]:
    """A network that the library spandrel recognises, and its scale."""
    try:
        import spandrel
    except (
        ImportError,
        RuntimeError,
    ) as error:  # RuntimeError: its torchvision is of another build
        raise WeightsError(
            f"{name}: no upscaler that hqsod knows, and spandrel, which knows more, does not load "
            f"({str(error).splitlines()[0]})",
            fix="pip install 'hqsod[spandrel]', with a torchvision of the same build as torch",
        ) from error
    try:
        loaded = spandrel.ModelLoader(device).load_from_state_dict(state)
    except (spandrel.UnsupportedModelError, RuntimeError, KeyError, ValueError) as error:
        raise WeightsError(
            f"{name}: no upscaler that hqsod or spandrel knows",
            expected="SwinIR or another upscaler",
        ) from error
    if not isinstance(loaded, spandrel.ImageModelDescriptor) or loaded.input_channels != 3:
        raise WeightsError(
            f"{name}: a network of another purpose", expected="an upscaler of RGB pictures"
        )
    if precision is torch.bfloat16 and loaded.supports_bfloat16:
        loaded.bfloat16()
    return lambda images: loaded(images.to(loaded.dtype)).float(), loaded.scale
