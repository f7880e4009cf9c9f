"""What can be exported: the networks of a checkpoint, what they take, what they are tried on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.export import Dim

from hqsod import weights
from hqsod.errors import WeightsError
from hqsod.inference.onnx_network import INPUT, OUTPUT
from hqsod.inference.small_refiner import CONTOUR, MENDING
from hqsod.inference.torch_devices import optimise
from hqsod.inference.torch_network import load_weights
from hqsod.inference.torch_refiner import part_of
from hqsod.models.blocks import fold
from hqsod.models.compact_refiner import build_compact_refiner, is_compact_refiner
from hqsod.models.contour_refiner import build_contour_refiner, is_contour_refiner
from hqsod.models.passes import ContourPass, EnlargePass, MendPass
from hqsod.models.small_upscaler import build_small_upscaler, is_small_upscaler

Arrays = tuple[npt.NDArray[Any], ...]

# (batch, height, width) of the noise it is shown: the paper's size, odd, small, wide, tall.
CHECKED = ((1, 320, 320), (2, 33, 47), (3, 64, 96), (1, 7, 200), (1, 75, 16))
CHECKED_PAIRS = ((2, 3), (1, 1), (5, 4))  # strides: what a refiner's passes are shown
TOLERANCE = 1e-4  # of a probability, between the graph and PyTorch with the same weights
LOGIT = 2e-3  # of the mending step's logits, which reach a few units
LEVEL = 1.001 / 255  # of a scale to 1: a grey level, which rounding may fall on either side of
_GIVES = {MENDING: "logits", CONTOUR: "probabilities"}
_HERE = torch.device("cpu"), torch.float32


@dataclass(frozen=True, slots=True)
class GraphSource:
    """A network that becomes a graph.

    Attributes:
        network: in eval mode, BatchNorm folded.
        inputs: names of what it takes.
        output: name of what it gives.
        example: what the exporter shows it.
        free: for each input its axes that may have any length, a multiple of something or not.
        checked: what the graph and PyTorch are both shown.
        tolerance: how far they may be apart, of a scale to 1 or, in logits, as they are.
        keeps_size: whether the output has the input's batch, height and width.
        about: what the file says of itself.
        part: of a checkpoint that holds several networks.
    """

    network: nn.Module
    inputs: Sequence[str]
    output: str
    example: Arrays
    free: tuple[Mapping[int, Any], ...]
    checked: Sequence[Arrays]
    tolerance: float
    about: Mapping[str, str]
    keeps_size: bool = True
    part: str = ""


def find_sources(path: Path) -> list[GraphSource]:
    """The networks of a checkpoint.

    Raises:
        WeightsError: damaged, or of a network that is not exported.
    """
    state = weights.load(path)
    if is_small_upscaler(state):
        upscaler = build_small_upscaler(state)
        return [_upscaler(EnlargePass(upscaler), upscaler.config.scale)]
    if sources := _steps(state):
        return sources
    try:
        network, size = load_weights(path)
    except WeightsError as error:
        raise WeightsError(
            f"{path}: {error.got}", expected="a PurNet, a small upscaler or a small refiner"
        ) from error
    return [_saliency(fold(network), size)]


def _steps(state: Mapping[str, Tensor]) -> list[GraphSource]:
    """The steps of a small refiner, as many as a checkpoint holds."""
    parts = {part: part_of(state, part) for part in (MENDING, CONTOUR)}
    held = {MENDING: is_compact_refiner, CONTOUR: is_contour_refiner}
    names = [part for part, is_held in held.items() if is_held(parts[part])]
    about, sources = {"parts": " ".join(names)}, []
    if MENDING in names:
        mender = optimise(build_compact_refiner(parts[MENDING]), *_HERE)
        sources.append(_step(MendPass(mender), mender.stride, MENDING, about, LOGIT))
    if CONTOUR in names:
        drawer = optimise(build_contour_refiner(parts[CONTOUR]), *_HERE)
        about |= {"margin": str(drawer.margin)}
        sources.append(_step(ContourPass(drawer), drawer.stride, CONTOUR, about, TOLERANCE))
    return sources


def _saliency(network: nn.Module, size: int) -> GraphSource:
    noise = np.random.default_rng(0)
    return GraphSource(
        network,
        inputs=(INPUT,),
        output=OUTPUT,
        example=(noise.random((2, 3, 96, 160), np.float32),),
        free=({0: Dim("batch"), 2: Dim("height"), 3: Dim("width")},),
        checked=[(noise.random((b, 3, h, w), np.float32),) for b, h, w in CHECKED],
        tolerance=TOLERANCE,
        about={
            "size": str(size),
            "input": f"{INPUT}: (batch, 3, height, width) float32 RGB from 0 to 1",
            "output": f"{OUTPUT}: (batch, 1, height, width) float32 probabilities",
        },
    )


def _upscaler(network: nn.Module, scale: int) -> GraphSource:
    return GraphSource(
        network,
        inputs=("images",),
        output="enlarged",
        example=(_noise(2, 48, 64, 3),),
        free=({0: Dim("batch"), 1: Dim("height"), 2: Dim("width")},),
        checked=[(_noise(*shape, 3),) for shape in CHECKED],
        tolerance=LEVEL,
        about={
            "scale": str(scale),
            "input": "images: (batch, height, width, 3) uint8 RGB",
            "output": "enlarged: the same, larger",
        },
        keeps_size=False,
    )


def _step(
    network: nn.Module, stride: int, part: str, about: Mapping[str, str], tolerance: float
) -> GraphSource:
    axes = {0: stride * Dim("rows"), 1: stride * Dim("columns")}

    def pair(rows: int, columns: int) -> Arrays:
        size = rows * stride, columns * stride
        return _noise(*size, 3), _noise(*size)

    return GraphSource(
        network,
        inputs=("image", "mask"),
        output="refined",
        example=pair(2, 3),
        free=(axes, axes),
        checked=[pair(*strides) for strides in CHECKED_PAIRS],
        tolerance=tolerance,
        about={
            "input": f"image, mask: (height, width, 3) and (height, width) uint8, sides multiples "
            f"of {stride}",
            "output": f"refined: (height, width) float32 {_GIVES[part]}",
            "stride": str(stride),
            **about,
        },
        part=part,
    )


def _noise(*shape: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)
