"""EfficientNet-Lite as an extractor: small, and taught by ImageNet.

Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019,
in the Lite form of its authors: no squeeze and excitation, ReLU6. The classifier is left out.
Differs for odd sides: TensorFlow moves its windows by a pixel there, here they stay.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hqsod.errors import WeightsError

MEAN = STD = 0.5  # of each channel of an image in [0, 1], for the published weights


class _Stage(NamedTuple):
    depth: int  # blocks
    kernel: int
    stride: int  # of the first block
    channels: int

    def scaled(self, width: float, depth: float) -> _Stage:
        """The stage of a larger network; the paper keeps channels a multiple of 8."""
        channels = int(self.channels * width + _MULTIPLE / 2) // _MULTIPLE * _MULTIPLE
        return self._replace(depth=math.ceil(self.depth * depth), channels=channels)


STEM = 32  # channels
EXPANSION = 6  # the first stage has none
STAGES = (  # of Lite0
    _Stage(1, 3, 1, 16),
    _Stage(2, 3, 2, 24),
    _Stage(2, 5, 2, 40),
    _Stage(3, 3, 2, 80),
    _Stage(3, 5, 1, 112),
    _Stage(4, 5, 2, 192),
    _Stage(1, 3, 1, 320),
)
_MULTIPLE = 8
_EPSILON = 1e-3  # of BatchNorm, as published


class EfficientNetLite(nn.Module):
    """Stem and inverted residual blocks: sixteen in Lite0, twenty-one in Lite2.

    Args:
        width: factor on Lite0's channels; 1.1 for Lite2.
        depth: factor on the blocks of its stages; 1.2 for Lite2. The first and the last stage keep
            their single block.

    Attributes:
        channels: channels of the five feature maps.
        strides: their strides.
        blocks: what follows the stem, in order.
    """

    strides = (4, 4, 8, 16, 32)

    def __init__(self, width: float = 1.0, depth: float = 1.0) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_convolution(3, STEM, 3, stride=2), nn.ReLU6(inplace=True))
        inner = [stage.scaled(width, depth) for stage in STAGES[1:-1]]
        stages = [STAGES[0].scaled(width, 1), *inner, STAGES[-1].scaled(width, 1)]
        blocks, inputs, expansion = [], STEM, 1
        for stage in stages:
            for number in range(stage.depth):
                stride = 1 if number else stage.stride
                blocks.append(Block(inputs, stage.channels, stage.kernel, stride, expansion))
                inputs = stage.channels
            expansion = EXPANSION
        self.blocks = nn.Sequential(*blocks)
        ends = list(itertools.accumulate(stage.depth for stage in stages))
        self.taps = (ends[0], *(ends[i] - 1 for i in (1, 2, 4, 6)))  # blocks that give the maps
        self.channels = tuple(stages[i].channels for i in (1, 1, 2, 4, 6))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) to five maps at `strides`, finest first."""
        x = self.stem(x)
        maps = []
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in self.taps:
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


class Conv2d(nn.Conv2d):
    """A convolution whose windows start as TensorFlow's over even sides do."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C', ceil(H / stride), ceil(W / stride))."""
        if self.stride[0] == 2:
            before, after = self.kernel_size[0] // 2 - 1, self.kernel_size[0] // 2 + 1
            x = F.pad(x, (before, after, before, after))
        if not self._is_slow_to_learn(x):
            return super().forward(x)
        x = x.to(torch.get_autocast_dtype("cpu"))
        y: Tensor = _DepthwiseConv2d.apply(x, self.weight, self.stride, self.padding)  # type: ignore[no-untyped-call]  # torch's
        return y

    def _is_slow_to_learn(self, x: Tensor) -> bool:
        """Whether PyTorch's own gradient would be that of `_DepthwiseConv2d`, and slow."""
        learns = torch.is_grad_enabled() and (x.requires_grad or self.weight.requires_grad)
        on_cpu = x.device.type == "cpu" and torch.is_autocast_enabled("cpu")
        return learns and on_cpu and self.groups > 1 and self.bias is None


class _DepthwiseConv2d(torch.autograd.Function):
    """A depthwise convolution in bf16 with a gradient in float32.

    On a CPU, oneDNN computes the gradient of depthwise convolutions in bf16 many times as slowly as
    in float32: a step of stage 1 at 224 x 224 took 2.9 s that way and takes 1.1 s this way.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int]
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(x, weight.to(x.dtype), None, stride, padding, groups=x.shape[1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        of_input, of_weight, _ = torch.ops.aten.convolution_backward(
            gradients[0].float(),
            x.float(),
            weight.float(),
            bias_sizes=None,
            stride=ctx.stride,
            padding=ctx.padding,
            dilation=(1, 1),
            transposed=False,
            output_padding=(0, 0),
            groups=x.shape[1],
            output_mask=(*ctx.needs_input_grad[:2], False),
        )
        return None if of_input is None else of_input.to(x.dtype), of_weight, None, None


def _convolution(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    padding = kernel // 2 if stride == 1 else 0
    return [
        Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False),
        nn.BatchNorm2d(outputs, eps=_EPSILON),
    ]


def from_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of the published EfficientNet-Lite under our names, without its classifier.

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
        raise WeightsError(f"tensor {name!r}", expected="a name of the published EfficientNet-Lite")
    unexpanded = 3 if found[1] == "0" else 0
    return f"blocks.{found[1]}.{parts.index(found[2]) - unexpanded}.{tensor}"
