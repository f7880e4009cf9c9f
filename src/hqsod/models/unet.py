"""The U-Net of the small refiners, with residual blocks.

Ronneberger et al., "U-Net", MICCAI 2015; He et al., "Deep Residual Learning", CVPR 2016. Differs in
that levels are added up and not stacked, and that an extractor's maps can be added to them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise, zip_longest

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class UNet(nn.Module):
    """Maps in, maps of the same size out: zeros, until it is trained.

    Args:
        stem: makes the finest level of what comes in; `widths[0]` channels.
        widths: channels of the levels, finest first; each has half the sides of the one before.
        outputs: channels of the result.
        context: channels of an extractor's maps for the levels after the first.
    """

    def __init__(
        self, stem: nn.Module, widths: Sequence[int], outputs: int, context: Sequence[int] = ()
    ) -> None:
        super().__init__()
        self.widths = tuple(widths)
        self.stem = stem
        self.down = nn.ModuleList(
            nn.Sequential(convolution(above, below, stride=2), Block(below))
            for above, below in pairwise(widths)
        )
        self.context = nn.ModuleList(
            convolution(channels, width, kernel=1)
            for channels, width in zip(context, widths[1:], strict=False)  # deeper levels have none
        )
        self.bottom = Block(widths[-1], dilation=2)
        self.lateral = nn.ModuleList(
            nn.Conv2d(below, above, 1, bias=False) for above, below in pairwise(widths)
        )
        self.up = nn.ModuleList(Block(width) for width in widths[:-1])
        self.head = nn.Conv2d(widths[0], outputs, 3, padding=1)
        for parameter in self.head.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, seen: Sequence[Tensor] = ()) -> Tensor:
        """(B, C, h, w), and an extractor's maps at h / 2, h / 4, ..., to (B, outputs, h, w)."""
        x = self.stem(x.to(self.head.weight.dtype, memory_format=torch.channels_last))
        levels = []
        for down, context, found in zip_longest(self.down, self.context, seen[: len(self.down)]):
            levels.append(x)
            x = down(x) if context is None else down(x) + context(found)
        x = self.bottom(x)
        for level, lateral, up in reversed(list(zip(levels, self.lateral, self.up, strict=True))):
            x = up(level + F.interpolate(lateral(x), scale_factor=2.0, mode="nearest"))
        return self.head(x)  # type: ignore[no-any-return]  # a stub's gap


class Block(nn.Module):
    """Two convolutions around a skip connection."""

    def __init__(self, width: int, dilation: int = 1) -> None:
        super().__init__()
        self.first = convolution(width, width, dilation=dilation)
        self.second = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, H, W) -> the same shape."""
        return F.relu(x + self.second(self.first(x)))


def convolution(
    inputs: int, outputs: int, stride: int = 1, dilation: int = 1, kernel: int = 3
) -> nn.Sequential:
    """Convolution that keeps the size at stride 1, BatchNorm, ReLU."""
    padding = dilation * (kernel // 2)
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def unet_widths(state: Mapping[str, Tensor]) -> list[int]:
    """Channels of the levels of a checkpoint's U-Net, finest first, read from the shapes.

    Raises:
        KeyError: there is none.
    """
    down = (n for n in state if re.fullmatch(r"unet\.down\.\d+\.0\.0\.weight", n))
    return [len(state[name]) for name in ("unet.stem.0.weight", *down)]
