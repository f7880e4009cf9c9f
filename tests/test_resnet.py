"""The extractor by itself. Its numbers are held to references through the networks around it."""

import json
from pathlib import Path

import pytest
import torch

from hqsod.models.resnet import BasicBlock, ResNet

GOLDEN = Path(__file__).parent / "golden"


def test_names_and_shapes_are_torchvisions() -> None:
    """The extractor of CascadePSP's checkpoint carries torchvision's names for a ResNet-50."""
    published = json.loads((GOLDEN / "cascadepsp_checkpoint_shapes.json").read_text())
    expected = {
        name.removeprefix("feats."): shape
        for name, shape in published.items()
        if name.startswith("feats.")
    }
    ours = {name: list(value.shape) for name, value in ResNet(in_channels=6).state_dict().items()}
    assert ours == expected


@pytest.mark.parametrize(
    ("strides", "dilations", "sides"),
    [
        ((1, 2, 2, 2), (1, 1, 1, 1), (16, 16, 8, 4, 2)),
        ((1, 2, 1, 1), (1, 1, 2, 4), (16, 16, 8, 8, 8)),  # CascadePSP
        ((1, 2, 2, 1), (1, 1, 2, 4), (16, 16, 8, 4, 4)),  # PurNet
    ],
)
def test_five_maps(strides: tuple[int, ...], dilations: tuple[int, ...], sides: object) -> None:
    net = ResNet(
        block=BasicBlock, depths=(1, 1, 1, 1), width=8, strides=strides, dilations=dilations
    )
    maps = net(torch.zeros(2, 3, 64, 64))
    assert tuple(m.shape[2] for m in maps) == sides
    assert tuple(m.shape[1] for m in maps) == net.channels == (8, 8, 16, 32, 64)


def test_dilate_first_changes_the_first_block_alone() -> None:
    settings = {"strides": (1, 2, 1, 1), "dilations": (1, 1, 2, 4)}
    with_first, without = (ResNet(dilate_first=first, **settings) for first in (True, False))
    differ = [
        name
        for (name, ours), theirs in zip(with_first.named_modules(), without.modules(), strict=True)
        if isinstance(ours, torch.nn.Conv2d) and ours.dilation != theirs.dilation
    ]
    assert differ == ["layer3.0.conv2", "layer4.0.conv2"]


def test_features_leave_the_stem_as_it_was() -> None:
    net = ResNet(block=BasicBlock, depths=(1, 1, 1, 1), width=8).eval()
    half = net.conv1(torch.randn(1, 3, 32, 32))
    before = half.clone()
    net.features(half)
    assert torch.equal(half, before)


@pytest.mark.parametrize("block", [BasicBlock, None])
def test_every_parameter_gets_a_gradient(block: type[BasicBlock] | None) -> None:
    net = ResNet(width=8, **({"block": block} if block else {}))
    sum(m.square().mean() for m in net(torch.randn(2, 3, 64, 64))).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())
