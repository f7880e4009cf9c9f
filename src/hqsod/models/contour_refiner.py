"""The contour refiner: draws an enlarged mask's contour where the enlarged image has it.

It takes the place of the local step of CascadePSP (Cheng et al., CVPR 2020): the mask is right to
about a pixel of the small image it came from, which is four pixels of the enlarged one. Image
and mask are seen in 4 x 4 groups of pixels (Shi et al., CVPR 2016), one for each of those small
pixels, so an image of 1600 x 1600 costs what one of 400 x 400 does. What a small U-Net makes of
them multiplies the logits of the mask, which makes an edge steeper and leaves it where it is, and
is added to them, near the contour alone: far from it the mask stays, and an untrained network
returns what it was given, soft edges and all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hqsod.models.contour_numbers import GROUP, LEAST, REACH
from hqsod.models.loading import fitting
from hqsod.models.unet import Block, UNet, convolution, unet_widths

WIDTHS = (48, 64, 64)  # channels at strides 4, 8, 16
MEAN = STD = 0.5  # of each channel of an image in [0, 1], and of the mask


class ContourRefiner(nn.Module):
    """The network; sides of its inputs are multiples of `stride`.

    Args:
        widths: channels of the U-Net's levels, finest first; each level halves the sides.
    """

    def __init__(self, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        stem = nn.Sequential(*convolution(4 * GROUP**2, widths[0]), Block(widths[0]))
        self.unet = UNet(stem, widths, 2 * GROUP**2)
        # What filtering the mask does needs no way through the U-Net.
        self.filter = nn.Conv2d(GROUP**2, 2 * GROUP**2, 3, padding=1, bias=False)
        nn.init.zeros_(self.filter.weight)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a stub's gap

    @property
    def stride(self) -> int:
        """What the sides of an image must be multiples of."""
        return GROUP << (len(self.unet.widths) - 1)

    @property
    def margin(self) -> int:
        """How many pixels around a pixel decide what becomes of it; a multiple of `stride`.

        Two convolutions to a block, a strided one before it; the blocks of the way down and up,
        and the dilated one at the bottom, which counts twice.
        """
        levels = len(self.unet.widths)
        groups = 2 + sum(7 << level for level in range(levels - 1)) + (7 << (levels - 1))
        return -(-groups * GROUP // self.stride) * self.stride

    def forward(self, images: Tensor, masks: Tensor) -> Tensor:
        """Refine masks.

        Args:
            images: (B, 3, H, W) float32 RGB in [0, 1].
            masks: (B, 1, H, W) float32 in [0, 1].

        Returns:
            (B, 1, H, W) float32 logits.
        """
        groups = torch.cat([_group(layer) for layer in (images, masks)], 1)
        layers = ((groups - MEAN) / STD).to(self.filter.weight.dtype)
        changes = self.unet(layers) + self.filter(layers[:, -(GROUP**2) :])
        steeper, added = (changes.float() * near_contour(masks)).chunk(2, 1)
        logits = mask_logits(groups[:, -(GROUP**2) :]) * (1 + steeper) + added
        return F.pixel_shuffle(logits, GROUP)


def _group(x: Tensor) -> Tensor:
    """`F.pixel_unshuffle` by `GROUP`, at once in the layout that convolutions are fastest in."""
    batch, channels, height, width = x.shape
    groups = x.reshape(batch, channels, height // GROUP, GROUP, width // GROUP, GROUP)
    return groups.permute(0, 2, 4, 1, 3, 5).flatten(3).permute(0, 3, 1, 2)


def mask_logits(masks: Tensor) -> Tensor:
    """Logits of masks in [0, 1], finite: the sigmoid is the mask again, to half a grey level."""
    return masks.clamp(LEAST, 1 - LEAST).logit()


def near_contour(masks: Tensor) -> Tensor:
    """Where a mask may change.

    Args:
        masks: (B, 1, H, W) in [0, 1].

    Returns:
        (B, 1, H / GROUP, W / GROUP) in [0, 1]: 1 near where the masks cross a half, 0 farther than
        about `REACH` groups, thirds in between.
    """
    groups = _group(masks)
    highest, lowest = groups.amax(1, keepdim=True), groups.amin(1, keepdim=True)
    around = F.max_pool2d(highest, 3, 1, 1), -F.max_pool2d(-lowest, 3, 1, 1)
    contour = ((around[0] > 0.5) & (around[1] < 0.5)).float()
    near = F.max_pool2d(contour, 2 * REACH - 1, 1, REACH - 1)
    return F.avg_pool2d(near, 3, 1, 1, count_include_pad=False)


def is_contour_refiner(state: Mapping[str, Tensor]) -> bool:
    """Whether a checkpoint holds a `ContourRefiner`."""
    names = {"unet.stem.0.weight", "unet.stem.3.first.0.weight", "unet.head.weight"}
    return names <= state.keys()


def build_contour_refiner(state: Mapping[str, Tensor]) -> ContourRefiner:
    """The network of a checkpoint, its sizes read from the shapes, the weights loaded.

    Args:
        state: tensors of any floating type.

    Raises:
        WeightsError: no `ContourRefiner`.
    """
    with fitting("those of a contour refiner"):
        network = ContourRefiner(unet_widths(state))
        network.load_state_dict(state)
    return network.eval()
