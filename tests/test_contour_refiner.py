"""The contour refiner's network: what it may change, and its weights."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hqsod.errors import WeightsError
from hqsod.models.contour_refiner import (
    GROUP,
    ContourRefiner,
    build_contour_refiner,
    is_contour_refiner,
    mask_logits,
    near_contour,
)

WIDTHS = (8, 12, 16)


def soft_masks(count: int = 2, side: int = 96) -> Tensor:
    torch.manual_seed(0)
    noise = F.avg_pool2d(torch.rand(count, 1, side, side), 33, 1, 16)
    return (20 * (noise - noise.mean()) + 0.5).clamp(0, 1)


def trained(widths: tuple[int, ...] = WIDTHS) -> ContourRefiner:
    network = ContourRefiner(widths)
    nn.init.normal_(network.unet.head.weight)
    nn.init.normal_(network.filter.weight)
    return network


def test_untrained_it_returns_every_grey_level() -> None:
    levels = torch.arange(256).repeat(96 * 96 // 256).view(1, 1, 96, 96) / 255
    refined = ContourRefiner(WIDTHS).eval()(torch.rand(1, 3, 96, 96), levels).sigmoid()
    assert torch.equal((255 * refined).round(), 255 * levels)
    assert torch.equal((255 * mask_logits(levels).sigmoid()).round(), 255 * levels)


def test_only_what_is_near_the_contour_can_change() -> None:
    masks = soft_masks()
    near = F.interpolate(near_contour(masks), scale_factor=float(GROUP)) > 0
    crossing = (masks[..., 1:] > 0.5) != (masks[..., :-1] > 0.5)
    assert near[..., 1:][crossing].all()
    assert 0 < near.float().mean() < 1
    changed = trained().eval()(torch.rand(2, 3, 96, 96), masks) != mask_logits(masks)
    assert changed.any()
    assert not changed[~near].any()


def test_the_margin_holds_all_that_a_pixel_depends_on() -> None:
    for widths in ((8,), (8, 12), WIDTHS):
        network = trained(widths).eval()
        side = 2 * network.margin + 2 * network.stride
        images = torch.rand(1, 3, side, side, requires_grad=True)
        masks = torch.rand(1, 1, side, side).round()
        middle = network(images, masks)[..., side // 2 - GROUP : side // 2, side // 2]
        (gradient,) = torch.autograd.grad(middle.sum(), images)
        rows = gradient.abs().sum((0, 1, 3)).nonzero()
        assert rows.min() > side // 2 - GROUP - network.margin
        assert rows.max() < side // 2 + network.margin


def test_every_parameter_is_trained() -> None:
    network = trained()
    network(torch.rand(2, 3, 96, 96), soft_masks()).square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_weights_come_back_with_their_sizes() -> None:
    network = trained().eval()
    state = network.state_dict()
    assert is_contour_refiner(state)
    again = build_contour_refiner(state)
    assert again.unet.widths == WIDTHS
    assert not again.training
    pair = torch.rand(1, 3, 96, 96), soft_masks(1)
    assert torch.equal(network(*pair), again(*pair))


def test_weights_of_another_network_are_refused() -> None:
    other = nn.Conv2d(3, 3, 3).state_dict()
    assert not is_contour_refiner(other)
    damaged = ContourRefiner(WIDTHS).state_dict()
    del damaged["unet.head.bias"]
    for state in (other, damaged):
        with pytest.raises(WeightsError, match="contour refiner"):
            build_contour_refiner(state)
