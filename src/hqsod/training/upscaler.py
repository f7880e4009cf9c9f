"""The compact upscaler as a task: photographs, what is left of them, how well they come back.

Trained for PSNR alone: a loss that rewards invented detail would draw texture that was not there,
and what is cut out along it. The picture is scored as the field scores it: PSNR on the Y of BT.601,
a border of `scale` pixels left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from hqsod import images
from hqsod.errors import InputError, SettingsError
from hqsod.images import Array
from hqsod.inference.upscaler import NetworkUpscaler, Upscaler
from hqsod.models.compact import Compact, CompactConfig
from hqsod.training.data import Arrays, Batch
from hqsod.training.degradation import REDUCE, Degradation, compress, degrade
from hqsod.training.stages import LoopSettings
from hqsod.training.store import draw
from hqsod.training.task import Objective, Prepared, Sources, Validation, is_shown
from hqsod.types import Placement

LUMA = (65.481, 128.553, 24.966)  # of BT.601 in video range, for R, G, B in [0, 1]
QUALITY = 60  # of the JPEG pictures the network is validated on
EPSILON = 1e-3  # where the loss turns from absolute to squared error, in parts of white
_SHOWN = 4  # pictures on a sheet
_TILE = 240  # pixels


class Patches(BaseModel):
    """What is cut out of a degraded photograph.

    Attributes:
        side: of a square patch, in pixels of the small picture.
        each: patches cut out of one photograph; a batch has this many times its photographs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    side: Annotated[int, Field(ge=8)] = 32
    each: Annotated[int, Field(ge=1)] = 4


class UpscalerRecipe(BaseModel):
    """A whole training of the compact upscaler.

    Attributes:
        task: says that it is one.
        network: see `CompactConfig`.
        holdout: share of the photographs kept for validation where no others are named.
        patches: see `Patches`.
        degradation: see `Degradation`.
        loop: see `LoopSettings`; its `batch` counts photographs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: Literal["upscaler"]
    network: CompactConfig
    holdout: Annotated[float, Field(ge=0, lt=1)] = 0.05
    patches: Patches = Patches()
    degradation: Degradation = Degradation()
    loop: LoopSettings

    def prepare(self, sources: Sources) -> Prepared:
        """Find the photographs, hold some of them out, and draw the first weights.

        Raises:
            InputError: no photographs, or none of them can be used.
            SettingsError: masks are named, which the upscaler does not learn from.
        """
        if sources.masks is not None:
            raise SettingsError(
                "--masks with a recipe for the upscaler", expected="photographs alone"
            )
        scale = self.network.scale
        usable, rejected = find_photographs(sources.data, sources.images, self.patches.side * scale)
        if sources.validation is None:
            held_out = [path for path in usable if draw(path.stem) < self.holdout]
            usable = [path for path in usable if path not in held_out]
        else:
            held_out, others = find_photographs(sources.validation, None, 4 * scale)
            rejected |= others
        torch.manual_seed(self.loop.seed)
        data = DegradedPhotographs(usable, scale, self.patches, self.degradation)
        return Prepared(UpscalerTask(Compact(self.network), data, held_out), rejected)


class DegradedPhotographs:
    """Patches of photographs, small and worn, and as they were: a `Dataset`.

    Args:
        paths: the photographs.
        scale: how many times smaller the small patches are.
        patches: see there.
        degradation: see there.
    """

    def __init__(
        self, paths: Sequence[Path], scale: int, patches: Patches, degradation: Degradation
    ) -> None:
        self.paths, self.scale = paths, scale
        self.patches, self.degradation = patches, degradation

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, index: int) -> str:
        """The photograph's file name."""
        return self.paths[index].name

    def sample(self, index: int, random: np.random.Generator) -> Arrays:
        """`small` (each, side, side, 3) and `large`, `scale` times its size; uint8."""
        large = read_photograph(self.paths[index], self.scale)
        small = degrade(large, self.scale, self.degradation, random)
        pairs = [self._patch(small, large, random) for _ in range(self.patches.each)]
        return {
            "small": np.stack([small for small, _ in pairs]),
            "large": np.stack([large for _, large in pairs]),
        }

    def _patch(
        self, small: Array, large: Array, random: np.random.Generator
    ) -> tuple[Array, Array]:
        """The same random square of both, flipped and turned alike."""
        side, scale = self.patches.side, self.scale
        top, left = (int(random.integers(length - side + 1)) for length in small.shape[:2])
        turns, flip = int(random.integers(4)), 1 if random.random() < 0.5 else -1
        pair = (
            small[top : top + side, left : left + side],
            large[top * scale : (top + side) * scale, left * scale : (left + side) * scale],
        )
        first, second = (np.rot90(patch, turns)[:, ::flip] for patch in pair)
        return first, second


def read_photograph(path: Path, scale: int) -> Array:
    """Read a photograph, cut below and on the right to sides that are multiples of `scale`."""
    image = images.read_image(path)
    return image[: image.shape[0] // scale * scale, : image.shape[1] // scale * scale]


def find_photographs(
    folder: Path, name: str | None, least: int
) -> tuple[list[Path], dict[str, str]]:
    """The photographs in a folder, or in the one called `name` in it, that can be used.

    Returns:
        Paths of those that can be read and have sides of `least` pixels; why others are left out.

    Raises:
        InputError: there are none.
    """
    folder = folder / name if name else folder
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder", expected="a folder of photographs")
    usable, rejected = [], {}
    for path in images.find_images(folder):
        try:
            height, width = images.read_image(path).shape[:2]
            if min(height, width) < least:
                raise InputError(
                    f"{path}: {width} x {height} pixels", expected=f"sides of at least {least}"
                )
            usable.append(path)
        except InputError as error:
            rejected[path.stem] = str(error)
    if not usable:
        reason = next(iter(rejected.values()), "no pictures in it")
        raise InputError(
            f"{folder}: no photograph can be used ({reason})", expected="sharp photographs"
        )
    return usable, rejected


def reduce(image: Array, scale: int) -> Array:
    """A `scale` times smaller picture, by Pillow's bicubic reduction."""
    return images.resize(image, (image.shape[0] // scale, image.shape[1] // scale), REDUCE)


def luma_psnr(image: Array, truth: Array, border: int) -> float:
    """Peak signal-to-noise ratio in dB, on the Y of BT.601; `border` pixels are left out.

    Args:
        image: (H, W, 3) uint8 RGB.
        truth: likewise.
        border: at least 1.
    """
    difference = (image.astype(np.float64) - truth) @ np.array(LUMA) / 255
    error = np.square(difference[border:-border, border:-border]).mean()
    return float(10 * np.log10(255**2 / max(error, 1e-10)))


class UpscalerTask:
    """Training of the compact upscaler.

    Args:
        network: what is trained.
        data: what it is shown.
        held_out: photographs it is measured on.
    """

    def __init__(
        self, network: Compact, data: DegradedPhotographs, held_out: Sequence[Path]
    ) -> None:
        self.network, self.data, self.held_out = network, data, held_out
        self.parts: Mapping[str, nn.Module] = {"upscaler": network}
        self.metadata: Mapping[str, str] = {"network": "compact upscaler"}

    def objectives(self, batch: Batch) -> list[Objective]:
        """The Charbonnier distance (Charbonnier et al., ICIP 1994) of all pixels."""
        small, large = (_as_pictures(batch[name]) for name in ("small", "large"))
        difference = self.network(small) - large
        distance = (difference.square() + EPSILON**2).sqrt().mean()
        return [Objective({"distance": distance}, ("upscaler",))]

    def validate(self, network: nn.Module) -> Validation | None:
        """How many dB the network's PSNR is above bicubic's, of clean and compressed pictures."""
        if not self.held_out:
            return None
        scale, device = self.data.scale, next(network.parameters()).device
        upscaler = NetworkUpscaler("upscaler", "", network, scale, 1, device)
        gains: list[list[float]] = []
        rows: list[Array] = []
        for number, path in enumerate(self.held_out):
            truth = read_photograph(path, scale)
            small = reduce(truth, scale)
            results = [
                _beside_bicubic(upscaler, x, truth) for x in (small, compress(small, QUALITY))
            ]
            gains.append([gain for gain, _ in results])
            if is_shown(number, len(self.held_out), _SHOWN):
                rows += [row for _, row in results]
        clean, compressed = np.mean(gains, 0)
        scores = {"clean_gain": float(clean), "compressed_gain": float(compressed)}
        return Validation(scores, -float(clean + compressed), np.vstack(rows))


def _beside_bicubic(upscaler: Upscaler, small: Array, truth: Array) -> tuple[float, Array]:
    """What the upscaler has over bicubic in dB; bicubic, the upscaler and the truth to look at."""
    pictures = (images.resize(small, truth.shape[:2], REDUCE), upscaler([small])[0])
    before, after = (luma_psnr(picture, truth, upscaler.scale) for picture in pictures)
    return after - before, np.hstack([_middle(picture) for picture in (*pictures, truth)])


def _as_pictures(patches: Tensor) -> Tensor:
    """(B, each, H, W, 3) uint8 to (B * each, 3, H, W) float32 in [0, 1], channels last."""
    return patches.flatten(0, 1).permute(0, 3, 1, 2).float() / 255


def _middle(image: Array) -> Array:
    """The middle of a picture, on black where the picture is smaller than a tile."""
    height, width = (min(side, _TILE) for side in image.shape[:2])
    top, left = ((side - _TILE) // 2 if side > _TILE else 0 for side in image.shape[:2])
    tile = image[top : top + height, left : left + width]
    return images.pad(tile, Placement.centred((height, width), (_TILE, _TILE)))
