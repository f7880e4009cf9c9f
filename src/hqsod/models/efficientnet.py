"""EfficientNet-Lite0 as an extractor: small, and at hand with what it learned from ImageNet.

Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019,
in the Lite form of its authors: no squeeze and excitation, ReLU6. The classifier is left out.
Differs for odd sides: TensorFlow moves its windows by a pixel there, here they stay.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from hqsod.errors import WeightsError

MEAN = STD = 0.5  # of each channel of a picture in [0, 1], for the published weights


class _Stage(NamedTuple):
    depth: int  # blocks
    kernel: int
    stride: int  # of the first block
    channels: int


STEM = 32  # channels
EXPANSION = 6  # the first stage has none
STAGES = (
    _Stage(1, 3, 1, 16),
    _Stage(2, 3, 2, 24),
    _Stage(2, 5, 2, 40),
    _Stage(3, 3, 2, 80),
    _Stage(3, 5, 1, 112),
    _Stage(4, 5, 2, 192),
    _Stage(1, 3, 1, 320),
)
_TAPS = (1, 2, 4, 10, 15)  # blocks after which a map is read
_EPSILON = 1e-3  # of BatchNorm, as published


class EfficientNetLite(nn.Module):
    """Stem and sixteen inverted residual blocks.

    Attributes:
        channels: channels of the five feature maps.
        strides: their strides.
    """

    channels = (24, 24, 40, 112, 320)
    strides = (4, 4, 8, 16, 32)

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_convolution(3, STEM, 3, stride=2), nn.ReLU6(inplace=True))
        blocks, inputs, expansion = [], STEM, 1
        for depth, kernel, stride, channels in STAGES:
            for number in range(depth):
                blocks.append(Block(inputs, channels, kernel, 1 if number else stride, expansion))
                inputs = channels
            expansion = EXPANSION
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) to five maps at `strides`, finest first."""
        x = self.stem(x)
        maps = []
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in _TAPS:
                maps.append(x)
        return tuple(maps)


class Block(nn.Sequential):
    """Expand, look around in each channel, project; a shortcut where the shape stays."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        width = inputs * expansion
        layers: list[nn.Module] = []
        if expansion > 1:
            layers += [*_convolution(inputs, width, 1), nn.ReLU6(inplace=True)]
        layers += [
            *_convolution(width, width, kernel, stride, groups=width),
            nn.ReLU6(inplace=True),
            *_convolution(width, outputs, 1),
        ]
        super().__init__(*layers)
        self.has_shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, ceil(H / stride), ceil(W / stride))."""
        y: Tensor = super().forward(x)  # type: ignore[no-untyped-call]  # torch's
        return y + x if self.has_shortcut else y


class StridedConv2d(nn.Conv2d):
    """A convolution of stride 2 whose windows start as TensorFlow's over even sides do."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C', ceil(H / 2), ceil(W / 2))."""
        before, after = self.kernel_size[0] // 2 - 1, self.kernel_size[0] // 2 + 1
        return super().forward(F.pad(x, (before, after, before, after)))


def _convolution(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    build, padding = (nn.Conv2d, kernel // 2) if stride == 1 else (StridedConv2d, 0)
    return [
        build(inputs, outputs, kernel, stride, padding, groups=groups, bias=False),
        nn.BatchNorm2d(outputs, eps=_EPSILON),
    ]


def from_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of the published EfficientNet-Lite0 under our names, without its classifier.

    Raises:
        WeightsError: a name the published network does not have.
    """
    left_out = ("_conv_head.", "_bn1.", "_fc.")
    return {_our_name(n): t for n, t in state.items() if not n.startswith(left_out)}


def _our_name(name: str) -> str:
    stem = {"_conv_stem": "stem.0", "_bn0": "stem.1"}
    parts = ("_expand_conv", "_bn0", "", "_depthwise_conv", "_bn1", "", "_project_conv", "_bn2")
    module, _, tensor = name.rpartition(".")
    if module in stem:
        return f"{stem[module]}.{tensor}"
    found = re.fullmatch(r"_blocks\.(\d+)\.(\w+)", module)
    if found is None or found[2] not in parts:
        raise WeightsError(
            f"tensor {name!r}", expected="a name of the published EfficientNet-Lite0"
        )
    unexpanded = 3 if found[1] == "0" else 0
    return f"blocks.{found[1]}.{parts.index(found[2]) - unexpanded}.{tensor}"
