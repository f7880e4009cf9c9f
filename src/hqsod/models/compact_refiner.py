"""The compact refiner: a small U-Net that mends a mask by looking at its image.

It takes CascadePSP's place (Cheng et al., CVPR 2020) where no large weights are at hand. It differs
in all but the purpose: one pass instead of three, 4.4 M parameters instead of 67.7 M. An extractor
that knows ImageNet sees the image; the U-Net, that of Ronneberger et al. (MICCAI 2015) with
residual blocks, sees image and mask in 2 x 2 groups of pixels (Shi et al., CVPR 2016), so that
nothing runs at the full resolution, and is told at each level what the extractor finds there. Its
answer is added to the logits of the mask it was given: an untrained network returns the mask.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hqsod.models.efficientnet import MEAN, STD, EfficientNetLite
from hqsod.models.loading import fitting
from hqsod.models.unet import UNet, convolution, unet_widths

WIDTHS = (32, 48, 64, 96, 128)  # channels at strides 2, 4, 8, 16, 32
GROUP = 2  # side of the groups of pixels
FIRST_SEEN = 1  # the extractor's maps from here on have the strides of the levels: 4, 8, 16, 32
TRUST = 2.0  # logit of a mask that is certain
CELL = 4  # groups of pixels: local colours are gathered in cells of this side
REACHES = (3, 7, 15)  # sides in cells of the windows they are gathered from, each passed twice
NOISE = 0.002  # least variance of a colour
EMPTY = 0.001  # keeps shares of nothing finite
BINS = 16  # of a histogram, for each channel
RARE = 1e-5  # what a colour that was not seen counts for
MOST = 8.0  # evidence is clipped here
EVIDENCE = 1 + 2 * len(REACHES)  # maps of it


class CompactRefiner(nn.Module):
    """The network; sides of its inputs are multiples of `stride`.

    Args:
        widths: channels of the U-Net's levels, finest first; each level halves the sides.
    """

    def __init__(self, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        self.extractor = EfficientNetLite()
        stem = convolution(4 * GROUP**2 + EVIDENCE, widths[0])
        self.unet = UNet(stem, widths, GROUP**2, self.extractor.channels[FIRST_SEEN:])
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a stub's gap

    @property
    def stride(self) -> int:
        """What the sides of an image must be multiples of."""
        return GROUP << (len(self.unet.widths) - 1)

    def forward(self, images: Tensor, masks: Tensor) -> Tensor:
        """Refine masks.

        Args:
            images: (B, 3, H, W) float32 RGB in [0, 1].
            masks: (B, 1, H, W) float32 in [0, 1].

        Returns:
            (B, 1, H, W) float32 logits.
        """
        normalised, signed = (images - MEAN) / STD, 2 * masks - 1
        evidence = colour_evidence(*(F.avg_pool2d(layer, GROUP) for layer in (images, masks)))
        groups = F.pixel_unshuffle(torch.cat([normalised, signed], 1), GROUP)
        dtype = self.unet.head.weight.dtype
        seen = self.extractor(normalised.to(dtype, memory_format=torch.channels_last))
        changes = self.unet(torch.cat([groups, evidence], 1), seen[FIRST_SEEN:])
        return TRUST * signed + F.pixel_shuffle(changes.float(), GROUP)


@torch.no_grad()
def colour_evidence(images: Tensor, masks: Tensor) -> Tensor:
    """How much likelier a colour is inside the mask than outside, in the image and near a pixel.

    Convolutions cannot take this step of a GrabCut (Rother et al., SIGGRAPH 2004): it multiplies
    image by mask.

    Args:
        images: (B, 3, H, W) float32 in [0, 1].
        masks: (B, 1, H, W) float32 in [0, 1].

    Returns:
        (B, EVIDENCE, H, W) float32 in [-1, 1]: clipped logarithms of ratios of likelihoods, of the
        image's histograms and of the windows around each pixel; the mask's share in each window.
    """
    powers = torch.cat([images.square(), images, torch.ones_like(masks)], 1)
    cells = F.avg_pool2d(torch.cat([powers * masks, powers * (1 - masks)]), CELL)
    evidence = [_histogram_ratio(images, masks)]
    for reach in REACHES:
        around = cells
        for _ in range(2):
            around = F.avg_pool2d(around, reach, stride=1, padding=reach // 2)
        inside, outside = _log_likelihood(around).chunk(2)
        shares = 2 * around[: len(images), -1:] - 1
        local = torch.cat([inside - outside, shares], 1)
        local = F.interpolate(local, images.shape[2:], mode="bilinear")
        ratio = (local[:, :-1] * powers).sum(1, keepdim=True)
        evidence += [ratio.clamp(-MOST, MOST) / MOST, local[:, -1:]]
    return torch.cat(evidence, 1)


def _log_likelihood(sums: Tensor) -> Tensor:
    """Colours as normally distributed, each channel on its own, within each window.

    Sums of squares, colours and pixels (B, 7, h, w) to factors of square, colour and 1.
    """
    squares, firsts, share = sums[:, :3], sums[:, 3:6], sums[:, 6:]
    mean = firsts / (share + EMPTY)
    precision = 1 / ((squares / (share + EMPTY) - mean.square()).clamp_min(0) + NOISE)
    constant = precision.log() - mean.square() * precision
    return 0.5 * torch.cat([-precision, 2 * mean * precision, constant.sum(1, keepdim=True)], 1)


def _histogram_ratio(images: Tensor, masks: Tensor) -> Tensor:
    """(B, 1, H, W): logarithm of the ratio of two smoothed histograms of all colours."""
    levels = (images * BINS).long().clamp(0, BINS - 1)
    bins = ((levels[:, 0] * BINS + levels[:, 1]) * BINS + levels[:, 2]).flatten(1)
    logarithms = []
    for weights in (masks, 1 - masks):
        counts = images.new_zeros(len(images), BINS**3).scatter_add_(1, bins, weights.flatten(1))
        shares = counts / (counts.sum(1, keepdim=True) + 1)
        smooth = F.avg_pool3d(shares.view(-1, 1, BINS, BINS, BINS), 3, stride=1, padding=1)
        logarithms.append((smooth.flatten(1) + RARE).log())
    ratio = (logarithms[0] - logarithms[1]).gather(1, bins).view_as(masks)
    return ratio.clamp(-MOST, MOST) / MOST


def is_compact_refiner(state: Mapping[str, Tensor]) -> bool:
    """Whether a checkpoint holds a `CompactRefiner`."""
    return {"unet.stem.0.weight", "unet.head.weight", "extractor.stem.0.weight"} <= state.keys()


def build_compact_refiner(state: Mapping[str, Tensor]) -> CompactRefiner:
    """The network of a checkpoint, its sizes read from the shapes, the weights loaded.

    Args:
        state: tensors of any floating type.

    Raises:
        WeightsError: no `CompactRefiner`.
    """
    with fitting("those of a compact refiner"):
        network = CompactRefiner(unet_widths(state))
        network.load_state_dict(state)
    return network.eval()
