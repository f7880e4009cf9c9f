"""Residual network that keeps resolution by dilation: the extractor of PurNet and of CascadePSP.

He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, in the form of torchvision
(the stride of a bottleneck lies in its 3 x 3 convolution) and with its parameter names. There is no
classifier. Each level may trade its stride for dilation (Yu et al., "Dilated Residual Networks",
CVPR 2017).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from operator import mul

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

STEM_STRIDE = 4


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut; the smaller networks are built of it."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int, dilation: int) -> None:
        super().__init__()
        self.conv1 = _conv3x3(inputs, width, stride, dilation)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv3x3(width, width, 1, dilation)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _projection(inputs, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, width, H / stride, W / stride)."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        shortcut = x if self.downsample is None else self.downsample(x)
        y += shortcut
        return F.relu(y, inplace=True)


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 and 1 x 1 convolutions and a shortcut."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int, dilation: int) -> None:
        super().__init__()
        outputs = width * self.expansion
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv3x3(width, width, stride, dilation)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = _projection(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, 4 width, H / stride, W / stride)."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        shortcut = x if self.downsample is None else self.downsample(x)
        y += shortcut
        return F.relu(y, inplace=True)


class ResNet(nn.Module):
    """Stem and four residual layers.

    Args:
        block: what the layers are built of.
        depths: blocks in each of the four layers.
        width: channels of the stem; layer i works at `width * 2 ** (i - 1)`.
        in_channels: channels of the input.
        strides: of the four layers. The stem has `STEM_STRIDE`.
        dilations: of the 3 x 3 convolutions of the four layers.
        dilate_first: whether a layer's first block is dilated too. The CascadePSP weights were
            trained without, the PurNet weights with.

    Attributes:
        channels: channels of the five feature maps.
        strides: their strides.
    """

    def __init__(
        self,
        *,
        block: type[BasicBlock] | type[Bottleneck] = Bottleneck,
        depths: Sequence[int] = (3, 4, 6, 3),
        width: int = 64,
        in_channels: int = 3,
        strides: Sequence[int] = (1, 2, 2, 2),
        dilations: Sequence[int] = (1, 1, 1, 1),
        dilate_first: bool = True,
    ) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(4)]
        self.channels = (width, *(w * block.expansion for w in widths))
        self.strides = tuple(accumulate((STEM_STRIDE, *strides), mul))
        self.conv1 = nn.Conv2d(in_channels, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            _layer(block, *settings, dilate_first)
            for settings in zip(self.channels, widths, depths, strides, dilations, strict=False)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Feature maps of an image.

        Args:
            x: (B, in_channels, H, W).

        Returns:
            Five maps, finest first, with `channels` channels: the stem after max pooling at stride
            4, then the four layers.
        """
        return self.features(self.conv1(x))

    @property
    def blocks(self) -> list[nn.Module]:
        """The four layers, which follow the stem."""
        return [self.layer1, self.layer2, self.layer3, self.layer4]

    def features(self, half: Tensor) -> tuple[Tensor, ...]:
        """The five feature maps from the output of `conv1`, (B, width, H / 2, W / 2).

        For a caller that reads the output of `conv1` as well, which is left unchanged.
        """
        x = self.maxpool(F.relu(self.bn1(half), inplace=True))
        maps = [x]
        for layer in self.blocks:
            maps.append(layer(maps[-1]))
        return tuple(maps)


def fold_batchnorm(network: nn.Module) -> None:
    """Put each BatchNorm that directly follows a convolution into it, in place.

    The result is the same to rounding, for inference alone. It looks into residual blocks and
    `nn.Sequential`, whose parts run in the order they are listed. The stem's BatchNorm stays,
    because `ResNet.features` takes the output of `conv1` as it is.
    """
    for module in network.modules():
        if not isinstance(module, nn.Sequential | BasicBlock | Bottleneck):
            continue
        for (conv_name, conv), (norm_name, norm) in pairwise(module.named_children()):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, conv_name, fuse_conv_bn_eval(conv, norm))
                setattr(module, norm_name, nn.Identity())


def _layer(
    block: type[BasicBlock] | type[Bottleneck],
    inputs: int,
    width: int,
    depth: int,
    stride: int,
    dilation: int,
    dilate_first: bool,
) -> nn.Sequential:
    first = block(inputs, width, stride, dilation if dilate_first else 1)
    outputs = width * block.expansion
    return nn.Sequential(first, *(block(outputs, width, 1, dilation) for _ in range(depth - 1)))


def _conv3x3(inputs: int, outputs: int, stride: int, dilation: int) -> nn.Conv2d:
    return nn.Conv2d(
        inputs, outputs, 3, stride=stride, padding=dilation, dilation=dilation, bias=False
    )


def _projection(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    """The shortcut where shapes differ; None where it is the identity."""
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
    )
