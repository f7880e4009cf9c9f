"""The small refiner: two small networks, one after the other, whatever the picture's size.

The first mends what is damaged, the second draws the contour: the global and the local step of
CascadePSP (Cheng et al., CVPR 2020), each with a network of its own. Where a step holds back, the
mask passes on as it was given, soft edges and all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from hqsod import images
from hqsod.images import Array
from hqsod.models.compact_refiner import (
    CompactRefiner,
    build_compact_refiner,
    is_compact_refiner,
    refine,
)
from hqsod.models.contour_refiner import (
    GROUP,
    REACH,
    ContourRefiner,
    build_contour_refiner,
    is_contour_refiner,
)
from hqsod.models.resnet import fold_batchnorm

SIDE = 400  # of the picture the first network sees, in pixels: its training pictures' and DUTS's

# Of the object's area. On held-out pictures nine of ten masks with an IoU of 0.85 to 0.95 are
# changed by more than 4.6 %, nineteen of twenty right ones by less than 3.3 %.
LEAST_CHANGE = 0.05

TILE = 1024  # side of what the second network draws in one pass, in pixels; it sees some more

# Where the second network cannot decide it paints smoke: it holds back, gradually, where so much of
# what lies around a pixel is undecided. Chosen on held-out pairs (docs/experiments.md).
UNDECIDED = (0.25, 0.45)
AROUND = 4.0  # standard deviation of what lies around, in pixels


class Step(Protocol):
    """One step of refining."""

    def __call__(self, image: Array, mask: Array) -> Array:
        """A picture, (H, W, 3) uint8, and its mask, (H, W) uint8, to a better mask."""
        ...


class SmallRefiner:
    """Steps as a `Refiner`.

    Args:
        name: what users call it.
        digest: SHA-256 of its weights file.
        steps: applied in this order.
    """

    def __init__(self, name: str, digest: str, steps: Sequence[Step]) -> None:
        self.name, self.weights, self._steps = name, digest, tuple(steps)

    def __call__(self, image: Array, mask: Array) -> Array:
        """Refine a mask; see `Refiner`. Black rows and columns at the border stay background."""
        images.require_pair(image, mask)
        refined = np.zeros_like(mask)
        window = _content(image, mask)
        part = mask[window]
        if part.any():
            for step in self._steps:
                part = step(image[window], part)
            refined[window] = part
        return refined


def build_steps(
    state: Mapping[str, Tensor], device: torch.device, precision: torch.dtype
) -> list[Step]:
    """The steps whose networks a checkpoint holds: both, or one of them alone, or none.

    Raises:
        WeightsError: tensors that do not fit the networks they are named after.
    """
    steps: list[Step] = []
    mending, contour = _part(state, "mending"), _part(state, "contour")
    if is_compact_refiner(mending):
        steps.append(MendingStep(build_compact_refiner(mending), device, precision))
    if is_contour_refiner(contour):
        steps.append(ContourStep(build_contour_refiner(contour), device, precision))
    return steps


def build_mending(state: Mapping[str, Tensor]) -> CompactRefiner:
    """The network of the first step, of a checkpoint that holds it.

    Raises:
        WeightsError: it does not.
    """
    return build_compact_refiner(_part(state, "mending"))


def _part(state: Mapping[str, Tensor], name: str) -> Mapping[str, Tensor]:
    """The tensors of one network; all of them where a checkpoint holds but one."""
    prefix = f"{name}."
    part = {key.removeprefix(prefix): state[key] for key in state if key.startswith(prefix)}
    return part or state


class MendingStep:
    """What is far from right, by the compact network at the size it was trained for.

    A picture enlarged four times shows no more than it did before, so the network sees it reduced.
    What it leaves on the mask's side keeps the mask; only what it changes is drawn anew. A mask
    that it would hardly change is left alone: right masks are better than what it makes of them.

    Args:
        network: becomes this object's own: its BatchNorm is folded.
        device: where it runs.
        precision: of its convolutions.
        side: longest side of the picture the network sees; larger pictures are reduced.
    """

    def __init__(
        self,
        network: CompactRefiner,
        device: torch.device,
        precision: torch.dtype,
        side: int = SIDE,
    ) -> None:
        fold_batchnorm(network)
        self._network, self._device, self._precision = network.to(device), device, precision
        self._side = side

    def __call__(self, image: Array, mask: Array) -> Array:
        """The mask mended, or as it is; see `Step`."""
        factor = min(1.0, self._side / max(mask.shape))
        size = max(1, round(mask.shape[0] * factor)), max(1, round(mask.shape[1] * factor))
        small, binary = (
            images.resize(layer, size, Image.Resampling.BOX)
            for layer in (image, images.binarise(mask))
        )
        binary = images.binarise(binary)
        with _autocast(self._device, self._precision):
            refined = refine(self._network, small, binary)
        changed = images.binarise(refined) != binary
        if np.count_nonzero(changed) < LEAST_CHANGE * np.count_nonzero(binary):
            return mask
        return _redraw(mask, refined, changed)


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
        with torch.inference_mode(), _autocast(self._device, self._precision):
            saliency = self._network(*layers)[0, 0, :height, :width].sigmoid().cpu().numpy()
        return _where_decided(saliency, mask)


def _where_decided(saliency: npt.NDArray[np.float32], mask: Array) -> Array:
    """Probabilities where they are decided, (H, W), and the mask where they are not."""
    undecided = cv2.GaussianBlur(4 * saliency * (1 - saliency), (0, 0), AROUND)
    low, high = UNDECIDED
    share = np.clip((high - undecided) / (high - low), 0, 1)
    return np.asarray(np.rint(share * 255 * saliency + (1 - share) * mask), np.uint8)


def _autocast(device: torch.device, precision: torch.dtype) -> torch.autocast:
    return torch.autocast(device.type, precision, enabled=precision != torch.float32)


def _content(image: Array, mask: Array) -> tuple[slice, slice]:
    """Rows and columns without the black border that is no part of the picture.

    A picture lies in the middle of its canvas: what is black at one side alone is a dark picture.
    """
    content = image.any(2) | (mask > 0)
    spans = []
    for axis, length in ((1, mask.shape[0]), (0, mask.shape[1])):
        found = np.flatnonzero(content.any(axis))
        border = min(found[0], length - 1 - found[-1]) if len(found) else 0
        spans.append(slice(border, length - border))
    rows, columns = spans
    return rows, columns


def _widen(part: slice, margin: int, length: int) -> tuple[slice, slice]:
    """A stretch with a margin on both sides, as far as there is one, and its place therein."""
    start, stop = max(0, part.start - margin), min(part.stop + margin, length)
    return slice(start, stop), slice(part.start - start, part.stop - start)


def _redraw(mask: Array, refined: Array, changed: npt.NDArray[np.bool_]) -> Array:
    """Bring a refined mask to the size of the mask it came from, and keep what did not change.

    Args:
        mask: (H, W) uint8.
        refined: (h, w) uint8, of the mask's size or smaller.
        changed: (h, w), where it is not on the side of the mask.

    Returns:
        (H, W) uint8.
    """
    near = cv2.dilate(changed.astype(np.uint8), np.ones((3, 3), np.uint8))
    size = mask.shape[::-1]
    large = cv2.resize(refined, size, interpolation=cv2.INTER_CUBIC)
    redrawn = cv2.resize(near, size, interpolation=cv2.INTER_NEAREST) > 0
    return np.asarray(np.where(redrawn, large, mask), np.uint8)
