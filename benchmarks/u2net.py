"""A network of U²-Net's form, with random weights, as the ONNX file that rembg takes by default.

Qin et al., "U²-Net: Going Deeper with Nested U-Structure for Salient Object Detection", Pattern
Recognition 106, 2020, arXiv 2005.09007. Time does not depend on the weights.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, max_pool2d

SIZE = 320
# Depth, and channels in, within and out, of each block; None for one that dilates in place of
# pooling.
ENCODER = [
    (7, 3, 32, 64),
    (6, 64, 32, 128),
    (5, 128, 64, 256),
    (4, 256, 128, 512),
    (None, 512, 256, 512),
    (None, 512, 256, 512),
]
DECODER = [
    (None, 1024, 256, 512),
    (4, 1024, 128, 256),
    (5, 512, 64, 128),
    (6, 256, 32, 64),
    (7, 128, 16, 64),
]


def _convolution(channels: int, out: int, dilation: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(channels, out, 3, padding=dilation, dilation=dilation)
    return nn.Sequential(convolution, nn.BatchNorm2d(out), nn.ReLU())


def _shrink(features: Tensor) -> Tensor:
    return max_pool2d(features, 2, stride=2, ceil_mode=True)


def _like(features: Tensor, other: Tensor) -> Tensor:
    return interpolate(features, other.shape[2:], mode="bilinear")


class Block(nn.Module):
    """A U of its own, and what went into it added (RSU, figure 2 of the paper)."""

    def __init__(self, depth: int | None, channels: int, within: int, out: int) -> None:
        super().__init__()
        self.pools = depth is not None
        levels = (depth or 4) - 1
        dilations = [1 if self.pools else 2**level for level in range(levels)]
        self.first = _convolution(channels, out)
        self.down = nn.ModuleList(
            _convolution(within if level else out, within, dilation)
            for level, dilation in enumerate(dilations)
        )
        self.bottom = _convolution(within, within, 2 if self.pools else 2**levels)
        self.up = nn.ModuleList(
            _convolution(2 * within, within if level else out, dilations[level])
            for level in reversed(range(levels))
        )

    def forward(self, image: Tensor) -> Tensor:
        features = start = self.first(image)
        passed: list[Tensor] = []
        for convolution in self.down:
            features = convolution(_shrink(features) if passed and self.pools else features)
            passed.append(features)
        features = self.bottom(features)
        for convolution, level in zip(self.up, reversed(passed), strict=True):
            features = convolution(torch.cat((_like(features, level), level), 1))
        return features + start


class U2Net(nn.Module):
    """(1, 3, 320, 320) to seven maps of (1, 1, 320, 320), the fused one first."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.ModuleList(Block(*sizes) for sizes in ENCODER)
        self.decoder = nn.ModuleList(Block(*sizes) for sizes in DECODER)
        outs = [ENCODER[-1][-1], *(sizes[-1] for sizes in DECODER)]
        self.sides = nn.ModuleList(nn.Conv2d(out, 1, 3, padding=1) for out in outs)
        self.fuse = nn.Conv2d(len(outs), 1, 1)

    def forward(self, image: Tensor) -> list[Tensor]:
        features, passed = image, []
        for block in self.encoder:
            features = block(_shrink(features) if passed else features)
            passed.append(features)
        decoded = [passed.pop()]
        for block in self.decoder:
            level = passed.pop()
            decoded.append(block(torch.cat((_like(decoded[-1], level), level), 1)))
        maps = [_like(s(f), image) for s, f in zip(self.sides, decoded, strict=True)][::-1]
        return [torch.sigmoid(m) for m in (self.fuse(torch.cat(maps, 1)), *maps)]


def write_u2net(file: Path) -> None:
    """Write it as ONNX, drawn from a fixed seed."""
    torch.manual_seed(0)
    image = torch.rand(1, 3, SIZE, SIZE)
    torch.onnx.export(U2Net().eval(), (image,), file, dynamo=False, opset_version=17)
