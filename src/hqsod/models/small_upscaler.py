"""A small upscaler: residual blocks of 3 x 3 convolutions on the small image, one pixel shuffle.

The plan of EDSR (Lim et al., "Enhanced Deep Residual Networks for Single Image Super-Resolution",
CVPR Workshops 2017) with few channels, and two differences: one convolution draws all pixels that
a pixel becomes (the sub-pixel convolution of Shi et al., CVPR 2016), and what is learnt is the
difference from bicubic enlargement, so that an untrained network enlarges bicubically.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hqsod.models.loading import fitting

COLOURS = 3


@dataclass(frozen=True, slots=True)
class UpscalerSizes:
    """The sizes of a small upscaler.

    Attributes:
        features: channels of the body.
        blocks: number of residual blocks, of two convolutions each.
        scale: how many times larger the result is.
        window: sides of images are multiples of this; any will do.
    """

    window: ClassVar[int] = 1
    features: int
    blocks: int
    scale: int = 4

    def __post_init__(self) -> None:
        if min(self.features, self.blocks, self.scale) < 1:
            raise ValueError(f"sizes of at least 1, not {self}")


class SmallUpscaler(nn.Module):
    """The network; `config` holds its sizes."""

    def __init__(self, config: UpscalerSizes) -> None:
        super().__init__()
        self.config = config
        self.first = _conv(COLOURS, config.features)
        self.blocks = nn.ModuleList(Block(config.features) for _ in range(config.blocks))
        self.last = _conv(config.features, COLOURS * config.scale**2)
        for parameter in self.last.parameters():
            nn.init.zeros_(parameter)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a stub's gap

    def set_precision(self, dtype: torch.dtype) -> None:
        """Let the convolutions compute in `dtype`; bicubic enlargement stays float32."""
        self.to(dtype)

    def forward(self, images: Tensor) -> Tensor:
        """Upscale images of any size.

        Args:
            images: (B, 3, H, W) float32 RGB in [0, 1].

        Returns:
            (B, 3, scale * H, scale * W) float32, not clamped.
        """
        scale = self.config.scale
        stem = body = self.first(images.to(self.first.weight.dtype))
        for block in self.blocks:
            body = block(body)
        details = F.pixel_shuffle(self.last(stem + body).float(), scale)
        # antialias changes nothing when enlarging but the kernel: this one is Pillow's. It is twice
        # as fast on separate colour planes; adding is fast where both have the same layout.
        enlarged = F.interpolate(
            images.contiguous(), scale_factor=scale, mode="bicubic", antialias=True
        )
        return details + enlarged.contiguous(memory_format=torch.channels_last)


class Block(nn.Module):
    """Two convolutions around which the input is carried over."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv1 = _conv(features, features)
        self.conv2 = _conv(features, features)
        with torch.no_grad():
            self.conv2.weight.mul_(0.1)  # a deep stack of blocks starts near the identity

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        changed: Tensor = x + self.conv2(F.relu(self.conv1(x), inplace=True))
        return changed


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def is_small_upscaler(state: Mapping[str, Tensor]) -> bool:
    """Whether these are weights of a small upscaler."""
    return "first.weight" in state and "blocks.0.conv2.weight" in state and "last.weight" in state


def build_small_upscaler(state: Mapping[str, Tensor]) -> SmallUpscaler:
    """The network of a checkpoint, its sizes read from the shapes, the weights loaded.

    Raises:
        WeightsError: these are not all the weights of one small upscaler.
    """
    with fitting("those of a small upscaler, as `hqsod train --recipe upscaler` writes it"):
        features, drawn = state["first.weight"].shape[0], state["last.weight"].shape[0]
        blocks = sum(name.endswith("conv2.weight") for name in state)
        network = SmallUpscaler(UpscalerSizes(features, blocks, round((drawn / COLOURS) ** 0.5)))
        network.load_state_dict(state)
    return network.eval()
