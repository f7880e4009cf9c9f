"""The parts PurNet is built of: convolutions, the top-down decoder, the prediction head.

Li et al., "Salient Object Detection with Purificatory Mechanism and Structural Similarity Loss",
IEEE TIP 30, 2021, arXiv 1912.08393. The decoder is that of Lin et al., "Feature Pyramid Networks",
CVPR 2017, with learned upsampling. Differs from the published code: maps are cropped to the size of
the level they are added to, so that any input size goes through. The PReLU's gradient and the maps'
upsampling are computed in another way, several times as fast on a CPU, to the same result.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from hqsod.models.resnet import ResNet, fold_batchnorm


def conv_norm_act(inputs: int, outputs: int, kernel: int) -> list[nn.Module]:
    """Convolution that keeps the size, BatchNorm and a PReLU with one slope."""
    return [
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2),
        nn.BatchNorm2d(outputs),
        PReLU(),
    ]


def conv_stack(width: int, kernels: Sequence[int]) -> nn.Sequential:
    """One `conv_norm_act` for each kernel, all of `width` channels."""
    return nn.Sequential(*(part for k in kernels for part in conv_norm_act(width, width, k)))


class PReLU(nn.PReLU):
    """PyTorch's with a single slope, and a quicker gradient."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape to the same."""
        y: Tensor = _PReLU.apply(x, self.weight.to(x.dtype))  # type: ignore[no-untyped-call]  # torch's
        return y


class _PReLU(torch.autograd.Function):
    """PyTorch's own backward writes the slope's gradient at every pixel before it adds them up."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(x, slope)
        return F.prelu(x, slope)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        (gradient,) = gradients
        x, slope = ctx.saved_tensors
        above = torch.ops.aten.threshold_backward(gradient, x, 0)
        below = gradient - above
        return torch.addcmul(above, below, slope), (below * x).sum().view(1)


class MapUpsampling(nn.ConvTranspose2d):
    """Transposed convolution of one channel with a kernel twice its stride, cropped to fit.

    Each output pixel sees 2 x 2 input pixels, through weights that repeat with the stride: an
    ordinary 2 x 2 convolution with a channel for each place in that pattern computes the same.
    """

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """(B, 1, H, W) to (B, 1, stride * H, stride * W)."""
        stride = self.stride[0]
        kernel = self.weight.view(2, stride, 2, stride).flip(0, 2).permute(1, 3, 0, 2)
        blocks = F.conv2d(x, kernel.reshape(stride**2, 1, 2, 2), padding=1)
        (height, width), rim = x.shape[-2:], stride // 2
        y = F.pixel_shuffle(blocks, stride)
        return y[..., rim : rim + height * stride, rim : rim + width * stride]


def upsampling(channels: int, stride: int) -> nn.ConvTranspose2d:
    """Transposed convolution to exactly `stride` times the size, bilinear until it is trained."""
    kernel = 2 * stride
    build = MapUpsampling if channels == 1 else nn.ConvTranspose2d
    layer = build(channels, channels, kernel, stride=stride, padding=stride // 2, bias=False)
    tent = 1 - (torch.arange(kernel) - (kernel - 1) / 2).abs() / stride
    with torch.no_grad():
        layer.weight.zero_()
        for channel in range(channels):
            layer.weight[channel, channel] = torch.outer(tent, tent)
    return layer


class PredictionHead(nn.Sequential):
    """Features of one level to one map of logits at the size of the input.

    (B, width, H, W) to (B, 1, stride * H, stride * W).
    """

    def __init__(self, width: int, stride: int) -> None:
        super().__init__(
            *conv_norm_act(width, width, 3),
            *conv_norm_act(width, width, 1),
            nn.Conv2d(width, 1, 1),
            upsampling(1, stride),
        )


class Decoder(nn.Module):
    """Top-down pathway: every level brought to `width` channels and joined by the coarser ones.

    Args:
        channels: channels of the features, finest first.
        strides: their strides relative to the input, finest first; neighbours are equal or differ
            by a factor of two.
        width: channels of every output.
    """

    def __init__(self, channels: Sequence[int], strides: Sequence[int], width: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Sequential(*conv_norm_act(c, width, 1)) for c in channels)
        self.top_down = nn.ModuleList(
            nn.Sequential(
                *conv_norm_act(width, width, 3), *([upsampling(width, 2)] if coarse > fine else [])
            )
            for fine, coarse in pairwise(strides)
        )

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Features of each level, finest first, each (B, width, H, W) of its input's size."""
        levels = [self.lateral[-1](features[-1])]
        for i in reversed(range(len(self.top_down))):
            lateral = self.lateral[i](features[i])
            levels.insert(0, lateral + crop_to(self.top_down[i](levels[0]), lateral))
        return levels


def crop_to(x: Tensor, like: Tensor) -> Tensor:
    """The upper left part of `x` of the height and width of `like`."""
    return x[..., : like.shape[-2], : like.shape[-1]]


def promotion_attention(features: Tensor) -> Tensor:
    """Attention of the promotion subnetwork: channels that matter times places that matter.

    The softmax over the channels of their spatial mean, times each channel's softmax over the
    positions. All of it adds up to 1, so next to nothing is promoted until features grow peaked.

    Args:
        features: (B, C, H, W).

    Returns:
        (B, C, H, W) float32: the values lie around 1 / (C H W), below what fp16 can hold.
    """
    with torch.autocast(features.device.type, enabled=False):
        features = features.float()
        channels = features.mean((2, 3), keepdim=True).softmax(1)
        return channels * features.flatten(2).softmax(2).view_as(features)


class FoldedPReLU(nn.Module):
    """A PReLU whose slope has become a number; works in place."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        """Any shape to the same."""
        return F.leaky_relu_(x, self.slope)


def fold(model: nn.Module) -> nn.Module:
    """Fold each BatchNorm into the convolution before it, in place, and PReLUs into numbers.

    A folded model computes the same in fewer passes over memory and can no longer be trained.
    """
    fold_batchnorm(model)
    for module in list(model.modules()):
        if isinstance(module, ResNet):  # whose stem `fold_batchnorm` leaves alone
            module.conv1 = fuse_conv_bn_eval(module.conv1, module.bn1)
            module.register_module("bn1", nn.Identity())
        for name, child in module.named_children():
            if isinstance(child, PReLU):
                setattr(module, name, FoldedPReLU(child.weight.item()))
    return model.requires_grad_(False)
