"""The losses of PurNet (Li et al., IEEE TIP 30, 2021, arXiv 1912.08393).

`hqsod.training.purnet` and the recipes say which stage is trained with which loss.

They start from logits where the formula allows, so that they stay exact where a sigmoid has
saturated, and compute in float32 inside any autocast. Maps of the five side outputs travel as
channels, finest first; every function returns one value per channel, and the loss is their sum.

Differs from the published code: superpixel means are scatter sums over the whole batch, not one
dense regions x pixels matrix per image; a map passes one sigmoid, not two, before the structural
similarity loss (`double_sigmoid=True` brings the second one back); a pixel may belong to no
superpixel.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from hqsod.errors import SettingsError

LOGIT_LIMIT = 9.21024  # log((1 - 1e-4) / 1e-4): the published clamp, before the sigmoid
PAIR_FLOOR = 1e-30  # of a pair's share: keeps the logarithm finite where that is exactly 0
SSIM_CONSTANTS = (1e-4, 9e-4)  # of means and of variances: Wang et al., "SSIM", for maps in [0, 1]
VARIANCE_FLOOR = 1e-6  # where a map is even, its deviation has no gradient
UNLABELLED = -1  # the superpixel of pixels that no superpixel owns


class Targets(NamedTuple):
    """What a batch is trained towards.

    Attributes:
        mask: (B, 1, H, W) float in [0, 1].
        superpixels: (B, H, W) integer labels from 0, `UNLABELLED` where there is none; None where
            no loss asks for them.
    """

    mask: Tensor
    superpixels: Tensor | None = None


def bce(logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Binary cross-entropy of each channel, averaged over batch and pixels.

    Args:
        logits: (B, C, H, W).
        target: (B, C, H, W) or (B, 1, H, W), in [0, 1].
        weight: (B, C, H, W) factor of each pixel; gradients flow into it.

    Returns:
        (C,) float32.
    """
    with torch.autocast(logits.device.type, enabled=False):
        logits, target = logits.float(), target.float().expand_as(logits)
        loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        # Multiplied here: PyTorch's own `weight` lets no gradient through.
        return (loss if weight is None else loss * weight).mean((0, 2, 3))


def error_weighted_bce(logits: Tensor, target: Tensor, error: Tensor) -> Tensor:
    """BCE with weight 1 + |error| at each pixel, probabilities clamped to [1e-4, 1 - 1e-4].

    Args:
        logits: (B, C, H, W).
        target: (B, 1, H, W) in [0, 1].
        error: (B, C, H, W) error maps in [-1, 1]; gradients flow into them.

    Returns:
        (C,) float32.
    """
    return bce(logits.clamp(-LOGIT_LIMIT, LOGIT_LIMIT), target, 1 + error.float().abs())


def superpixel_means(maps: Tensor, superpixels: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Mean of each map over each superpixel.

    Args:
        maps: (B, C, H, W) float32.
        superpixels: (B, H, W) integer labels below `count`, negative where there is none.
        count: the number R of superpixels to return.

    Returns:
        means (B, C, R), 0 where a superpixel has no pixel, and sizes (B, R) in pixels.
    """
    batch, channels = maps.shape[:2]
    # One bin more than there are superpixels collects the pixels that belong to none.
    labels = superpixels.reshape(batch, 1, -1).long()
    bins = torch.where(labels < 0, count, labels)
    sums = maps.new_zeros(batch, channels, count + 1)
    sums = sums.scatter_add(2, bins.expand(-1, channels, -1), maps.flatten(2))
    sizes = maps.new_zeros(batch, 1, count + 1)
    sizes = sizes.scatter_add(2, bins, sizes.new_ones(1).expand(bins.shape))[..., :count]
    return sums[..., :count] / sizes.clamp_min(1), sizes.squeeze(1)


def structural_similarity_loss(
    logits: Tensor, target: Tensor, superpixels: Tensor, *, double_sigmoid: bool = False
) -> Tensor:
    """How far the differences between superpixels are from those of the mask.

    With m the mean saliency of each of K superpixels, the matrix (m_i - m_j + 1) / 2 divided by its
    sum is a distribution over pairs; the loss is the Kullback-Leibler divergence of the
    prediction's from the mask's, averaged over the batch. The differences cancel in the sum, which
    is therefore K^2 / 2 whatever the map is.

    Args:
        logits: (B, C, H, W).
        target: (B, 1, H, W) in [0, 1].
        superpixels: (B, H, W) integer labels from 0, `UNLABELLED` where there is none.
        double_sigmoid: pass the saliency map through a further sigmoid, as the published code does.

    Returns:
        (C,) float32; 0 for images with one superpixel or none.
    """
    with torch.autocast(logits.device.type, enabled=False):
        saliency, target = logits.float().sigmoid(), target.float()
        if double_sigmoid:
            saliency = saliency.sigmoid()
        count = int(superpixels.max().clamp_min(0)) + 1
        means, sizes = superpixel_means(saliency, superpixels, count)
        present = (sizes > 0).float()
        pairs = present[:, :, None] * present[:, None, :]
        number = pairs.sum((1, 2), keepdim=True).clamp_min(1)
        wanted = _ratios(superpixel_means(target, superpixels, count)[0], number)[:, 0]
        share = (wanted * pairs / number).flatten(1)
        # One product of matrices for the sum over pairs of share * log(ratio).
        given = _ratios(means, number[:, None]).log().flatten(2) @ share[..., None]
        divergence = (share * wanted.log().flatten(1)).sum(1, keepdim=True) - given[..., 0]
        return divergence.mean(0)


def _ratios(means: Tensor, number: Tensor) -> Tensor:
    """1 + m_i - m_j for all pairs, (..., R) to (..., R, R); as a share it is over `number`."""
    return ((1 + means)[..., :, None] - means[..., None, :]).clamp_min(PAIR_FLOOR * number)


def iou_loss(logits: Tensor, target: Tensor) -> Tensor:
    """One less the soft IoU of each image, averaged over the batch.

    It gives small objects the weight of large ones and leaves no gain in undecided maps; not in
    PurNet's paper (Qin et al., "BASNet", CVPR 2019, equation 6).

    Args:
        logits: (B, C, H, W).
        target: (B, 1, H, W) in [0, 1].

    Returns:
        (C,) float32.
    """
    saliency, target = logits.float().sigmoid(), target.float()
    shared = (saliency * target).sum((2, 3))
    either = (saliency + target).sum((2, 3)) - shared
    return (1 - (shared + 1) / (either + 1)).mean(0)


def s_measure_loss(logits: Tensor, target: Tensor) -> Tensor:
    """1 - S-measure with alpha 0.5 of each map, averaged over the batch.

    It asks for maps that are even inside and outside the object and have its structure in the
    quadrants around its centre of mass; not in PurNet's paper (Fan et al., "Structure-measure",
    ICCV 2017, equations 2 to 6). An empty mask asks for 1 - mean saliency, a full one for the mean,
    as the measure does. The similarity in the quadrants has the constants of SSIM, which bound its
    gradient where a quadrant has no object; around small objects it differs from the measure's.

    Args:
        logits: (B, C, H, W).
        target: (B, 1, H, W) in [0, 1].

    Returns:
        (C,) float32.
    """
    with torch.autocast(logits.device.type, enabled=False):
        saliency, target = logits.float().sigmoid().flatten(2), target.float()
        quadrants = _quadrants(target)
        parts = torch.stack([quadrants * (1 - target), quadrants * target], 1)
        size = parts.sum((3, 4))[:, None]  # (B, 1, outside or inside, quadrant)
        pixels, sums = parts.flatten(3).flatten(1, 2).mT, (*saliency.shape[:2], 2, 4)
        total, squares = ((x @ pixels).view(sums) for x in (saliency, saliency.square()))
        objects = _evenness(size.sum(3), total.sum(3), squares.sum(3))
        measure = (objects + _similarity(size, total, squares)) / 2
        share, mean = target.mean((2, 3)), saliency.mean(2)
        measure = torch.where(share == 0, 1 - mean, torch.where(share == 1, mean, measure))
        return 1 - measure.mean(0)


def _quadrants(mask: Tensor) -> Tensor:
    """(B, 1, H, W) to 0 or 1, (B, 4, H, W): the parts around the centre of mass."""
    rows, columns = (torch.arange(n, device=mask.device) for n in mask.shape[2:])
    area = mask.sum((2, 3), keepdim=True)[..., 0].clamp_min(VARIANCE_FLOOR)
    above = rows <= ((mask.sum(3) * rows).sum(2, keepdim=True) / area).round()
    left = columns <= ((mask.sum(2) * columns).sum(2, keepdim=True) / area).round()
    halves = [torch.cat([half, ~half], 1).float() for half in (above, left)]
    return torch.einsum("byh,bxw->byxhw", *halves).flatten(1, 2)


def _evenness(size: Tensor, total: Tensor, squares: Tensor) -> Tensor:
    """How high and alike the map is inside, and 1 - map outside: (B, C, 2) to (B, C)."""
    pixels = size.clamp_min(1)
    mean = total / pixels
    deviation = (squares / pixels - mean.square()).clamp_min(VARIANCE_FLOOR).sqrt()
    outside, inside = mean.unbind(2)
    mean = torch.stack([1 - outside, inside], 2)
    even = 2 * mean / (mean.square() + 1 + deviation)
    return (even * size).sum(2) / size.sum(2)


def _similarity(size: Tensor, total: Tensor, squares: Tensor) -> Tensor:
    """SSIM of map and mask in each quadrant, by their sizes: (B, C, 2, 4) to (B, C)."""
    number = size.sum(2)
    pixels = number.clamp_min(1)
    truth, mean = size[:, :, 1] / pixels, total.sum(2) / pixels
    variance = (squares.sum(2) / pixels - mean.square()).clamp_min(0)
    covariance = total[:, :, 1] / pixels - truth * mean
    of_means, of_variances = SSIM_CONSTANTS
    alike = (2 * truth * mean + of_means) / (truth.square() + mean.square() + of_means)
    alike = alike * (2 * covariance + of_variances)
    alike = alike / (truth * (1 - truth) + variance + of_variances)
    return (alike * number).sum(2) / number.sum(2)


def purificatory_loss(
    logits: Tensor,
    targets: Targets,
    *,
    error: Tensor | None = None,
    structural_similarity: bool = True,
    iou: bool = False,
    s_measure: bool = False,
    double_sigmoid: bool = False,
) -> dict[str, Tensor]:
    """Terms of the loss of extractor and purificatory subnetwork.

    Args:
        logits: (B, C, H, W) of the side outputs.
        targets: mask and, for the structural similarity term, superpixels.
        error: (B, C, H, W) error maps in [-1, 1] that weight the BCE; None for plain BCE (stage 1).
        structural_similarity: whether that term takes part (stages 1 and 3).
        iou: whether `iou_loss` takes part, which the paper does not have.
        s_measure: whether `s_measure_loss` takes part, likewise.
        double_sigmoid: see `structural_similarity_loss`.

    Returns:
        (C,) float32 terms by name; the loss is their sum.

    Raises:
        SettingsError: the structural similarity term is asked for without superpixels.
    """
    terms = {
        "bce": bce(logits, targets.mask)
        if error is None
        else error_weighted_bce(logits, targets.mask, error)
    }
    if iou:
        terms["iou"] = iou_loss(logits, targets.mask)
    if s_measure:
        terms["s_measure"] = s_measure_loss(logits, targets.mask)
    if structural_similarity:
        if targets.superpixels is None:
            raise SettingsError(
                "a batch without superpixels",
                expected="superpixels for the structural similarity loss",
            )
        terms["structural_similarity"] = structural_similarity_loss(
            logits, targets.mask, targets.superpixels, double_sigmoid=double_sigmoid
        )
    return terms


def promotion_loss(logits: Tensor, targets: Targets) -> dict[str, Tensor]:
    """BCE of the promotion subnetwork's saliency maps, (B, C, H, W) logits: (C,) by name."""
    return {"promotion": bce(logits, targets.mask)}


def rectification_loss(logits: Tensor, error: Tensor, targets: Targets) -> dict[str, Tensor]:
    """Terms of the rectification subnetwork's loss.

    The error map is trained towards mask minus saliency map, that map held constant, after both are
    brought from [-1, 1] to [0, 1]. This one starts from probabilities, as published: where a tanh
    has saturated, the logarithm is held at -100 and the gradient is 0; just before that, for errors
    of 8.4 to 9.05 where -1 is wanted, it is thousands of times too large.

    Args:
        logits: (B, C, H, W) of the saliency maps.
        error: (B, C, H, W), the error maps before their tanh.
        targets: the mask.

    Returns:
        (C,) float32 terms by name; the loss is their sum.
    """
    with torch.autocast(logits.device.type, enabled=False):
        mistake = targets.mask.float() - logits.detach().float().sigmoid()
        given, wanted = (error.float().tanh() + 1) / 2, (mistake + 1) / 2
        # PyTorch refuses NaN here, on a GPU beyond recovery; the NaN must show in the loss.
        broken = given.isnan() | wanted.isnan()
        given, wanted = given.masked_fill(broken, 0.5), wanted.masked_fill(broken, 0.5)
        term = F.binary_cross_entropy(given, wanted, reduction="none")
        error_term = term.masked_fill(broken, math.nan).mean((0, 2, 3))
    return {"rectification": bce(logits, targets.mask), "error": error_term}
