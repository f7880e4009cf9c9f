"""How the small upscaler is trained: photographs, what is left of them, how well they come back.

Trained for PSNR alone: a loss that rewards invented detail would draw texture that was not there,
and cut-outs would follow it. The image is scored as the field scores it: PSNR on the Y of BT.601,
a border of `scale` pixels left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from hqsod import canvas, images
from hqsod.canvas import Placement
from hqsod.dataset.holdout import split
from hqsod.errors import InputError, SettingsError
from hqsod.images import Array
from hqsod.inference.torch_upscaler import torch_upscaler
from hqsod.models.small_upscaler import SmallUpscaler, UpscalerSizes
from hqsod.training.batches import Arrays, Batch
from hqsod.training.photo_degradation import REDUCE, Degradation, compress, degrade
from hqsod.training.settings import LoopSettings, Section
from hqsod.training.sheets import is_shown, sheet
from hqsod.training.task import DataFolders, Objective, Prepared, Stage, Validation

LUMA = (65.481, 128.553, 24.966)  # of BT.601 in video range, for R, G, B in [0, 1]
QUALITY = 60  # of the JPEG images the network is validated on
EPSILON = 1e-3  # where the loss turns from absolute to squared error, in parts of white
_SHOWN = 4  # images on a sheet
_TILE = 240  # pixels


class Patches(Section):
    """What is cut out of a degraded photograph.

    Attributes:
        side: of a square patch, in pixels of the small image.
        each: patches cut out of one photograph; a batch has this many times its photographs.
    """

    side: Annotated[int, Field(ge=8)] = 32
    each: Annotated[int, Field(ge=1)] = 4


class UpscalerRecipe(Section):
    """A whole training of the small upscaler.

    Attributes:
        task: says that it is one.
        network: see `UpscalerSizes`.
        holdout: share of the photographs kept for validation where no others are named.
        patches: see `Patches`.
        degradation: see `Degradation`.
        loop: see `LoopSettings`; its `batch` counts photographs.
    """

    task: Literal["upscaler"]
    network: UpscalerSizes
    holdout: Annotated[float, Field(ge=0, lt=1)] = 0.05
    patches: Patches = Patches()
    degradation: Degradation = Degradation()
    loop: LoopSettings


def stages(recipe: UpscalerRecipe, folders: DataFolders, _out: Path) -> list[Stage]:
    """The one stage.

    Raises:
        SettingsError: masks are named, which the upscaler does not learn from.
    """
    if folders.masks is not None:
        raise SettingsError("--masks with a recipe for the upscaler", expected="photographs alone")
    return [Stage("run", recipe.loop, partial(_prepare, recipe, folders))]


def _prepare(recipe: UpscalerRecipe, folders: DataFolders) -> Prepared:
    """Find the photographs, hold some of them out, and initialise the weights.

    Raises:
        InputError: no photographs, or none of them can be used.
    """
    scale = recipe.network.scale
    usable, rejected = find_photographs(folders.data, folders.images, recipe.patches.side * scale)
    if folders.validation is None:
        usable, held_out = split(usable, recipe.holdout)
    else:
        held_out, others = find_photographs(folders.validation, None, 4 * scale)
        rejected |= others
    torch.manual_seed(recipe.loop.seed)
    data = DegradedPhotographs(usable, scale, recipe.patches, recipe.degradation)
    task = UpscalerTask(SmallUpscaler(recipe.network), data, held_out)
    return Prepared(task, len(held_out), rejected)


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
        reason = next(iter(rejected.values()), "no images in it")
        raise InputError(
            f"{folder}: no photograph can be used ({reason})", expected="sharp photographs"
        )
    return usable, rejected


def reduce(image: Array, scale: int) -> Array:
    """A `scale` times smaller image, by Pillow's bicubic reduction."""
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
    """Training of the small upscaler.

    Args:
        network: what is trained.
        data: what it is shown.
        held_out: photographs it is measured on.
    """

    def __init__(
        self, network: SmallUpscaler, data: DegradedPhotographs, held_out: Sequence[Path]
    ) -> None:
        self.network, self.data, self.held_out = network, data, held_out
        self.parts: Mapping[str, nn.Module] = {"upscaler": network}
        self.metadata: Mapping[str, str] = {"network": "small upscaler"}

    def objectives(self, batch: Batch) -> list[Objective]:
        """The Charbonnier distance (Charbonnier et al., ICIP 1994) of all pixels."""
        small, large = (_as_images(batch[name]) for name in ("small", "large"))
        difference = self.network(small) - large
        distance = (difference.square() + EPSILON**2).sqrt().mean()
        return [Objective({"distance": distance}, ("upscaler",))]

    def validate(self, network: nn.Module) -> Validation | None:
        """How many dB the network's PSNR is above bicubic's, of clean and compressed images."""
        if not self.held_out:
            return None
        scale, device = self.data.scale, next(network.parameters()).device
        upscaler = torch_upscaler(network, scale, 1, device)
        gains: list[float] = []  # of the clean and of the compressed image in turn
        rows: list[list[Array]] = []
        for number, path in enumerate(self.held_out):
            truth = read_photograph(path, scale)
            small = reduce(truth, scale)
            for worn in (small, compress(small, QUALITY)):
                bicubic = images.resize(worn, truth.shape[:2], REDUCE)
                upscaled = upscaler([worn])[0]
                gains.append(luma_psnr(upscaled, truth, scale) - luma_psnr(bicubic, truth, scale))
                if is_shown(number, len(self.held_out), _SHOWN):
                    rows.append([_middle(image) for image in (bicubic, upscaled, truth)])
        clean, compressed = np.reshape(gains, (-1, 2)).mean(0)
        scores = {"clean_gain": float(clean), "compressed_gain": float(compressed)}
        headings = ("bicubic", "upscaler", "original")
        return Validation(scores, -float(clean + compressed), sheet(headings, rows, _TILE))


def _as_images(patches: Tensor) -> Tensor:
    """(B, each, H, W, 3) uint8 to (B * each, 3, H, W) float32 in [0, 1], channels last."""
    return patches.flatten(0, 1).permute(0, 3, 1, 2).float() / 255


def _middle(image: Array) -> Array:
    """The middle of an image, on black where the image is smaller than a tile."""
    height, width = (min(side, _TILE) for side in image.shape[:2])
    top, left = ((side - _TILE) // 2 if side > _TILE else 0 for side in image.shape[:2])
    tile = image[top : top + height, left : left + width]
    return canvas.pad(tile, Placement.centred((height, width), (_TILE, _TILE)))
