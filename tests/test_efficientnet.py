"""EfficientNet-Lite0 and Lite2 against the published networks on deterministic weights.

The golden numbers are those of the package `efficientnet-lite-pytorch` 0.1.0, whose `image_size`
was None: its padding then follows the picture.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hqsod.errors import WeightsError
from hqsod.models.efficientnet import Block, Conv2d, EfficientNetLite, from_published
from hqsod.models.resnet import fold_batchnorm
from tests.golden import deterministic, inputs

GOLDEN = Path(__file__).parent / "golden"
LITE2 = {"width": 1.1, "depth": 1.2}


def checkpoint(kind: str = "efficientnet") -> dict[str, torch.Tensor]:
    shapes = json.loads((GOLDEN / f"{kind}_checkpoint_shapes.json").read_text())
    state = deterministic.state_dict(shapes)
    return {name: torch.from_numpy(np.asarray(array)) for name, array in state.items()}


@pytest.mark.parametrize(
    ("kind", "factors", "blocks"),  # the golden numbers are every fourth channel of these blocks
    [
        ("efficientnet", {}, (1, 2, 4, 10, 15)),
        ("efficientnet_lite2", LITE2, (1, 3, 6, 14, 20)),
    ],
)
def test_maps_equal_the_published_networks(
    kind: str, factors: dict[str, float], blocks: tuple[int, ...]
) -> None:
    network = EfficientNetLite(**factors).eval()
    network.load_state_dict(from_published(checkpoint(kind)))
    outputs = np.load(GOLDEN / f"{kind}_outputs.npz")
    photo = inputs.photo("chelsea").resize((96, 64), Image.Resampling.BILINEAR)
    image = torch.from_numpy(np.asarray(photo, np.float32) / 255).permute(2, 0, 1)[None]
    with torch.inference_mode():
        maps = network(2 * image - 1)
    for block, ours in zip(blocks, maps, strict=True):
        published = outputs[f"block{block}"]
        np.testing.assert_allclose(ours[0, ::4].numpy(), published, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("factors", [{}, LITE2])
@pytest.mark.parametrize("side", [33, 50, 64, 77])
def test_maps_have_the_sides_and_channels_they_say(side: int, factors: dict[str, float]) -> None:
    network = EfficientNetLite(**factors).eval()
    with torch.inference_mode():
        maps = network(torch.zeros(1, 3, side, 64))
    about = zip(network.channels, network.strides, strict=True)
    expected = [(channels, -(-side // stride), 64 // stride) for channels, stride in about]
    assert [m.shape[1:] for m in maps] == expected


def test_what_is_no_part_of_the_extractor_is_left_out_and_strangers_are_refused() -> None:
    state = checkpoint()
    classifier = {"_conv_head.weight": torch.zeros(1), "_bn1.bias": torch.zeros(1)}
    assert from_published({**state, **classifier, "_fc.bias": torch.zeros(1)}).keys() == set(
        EfficientNetLite().state_dict()
    )
    for stranger in ("_blocks.0._se_reduce.weight", "layer1.weight"):
        with pytest.raises(WeightsError, match=stranger):
            from_published({stranger: torch.zeros(1)})


def test_every_parameter_gets_a_gradient() -> None:
    network = EfficientNetLite()
    sum(m.square().mean() for m in network(torch.randn(2, 3, 64, 64))).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


@pytest.mark.parametrize(
    ("kernel", "stride", "sides"), [(3, 1, (9, 14)), (5, 2, (16, 12)), (3, 2, (7, 9))]
)
def test_depthwise_gradients_in_bf16_are_those_of_float32(
    kernel: int, stride: int, sides: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    padding = kernel // 2 if stride == 1 else 0
    layer = Conv2d(8, 8, kernel, stride, padding, groups=8, bias=False)
    image = torch.randn(3, 8, *sides).bfloat16().float()
    gradients = []
    for enabled in (False, True):
        x = image.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            y = layer(x)
        assert y.dtype == (torch.bfloat16 if enabled else torch.float32)
        assert ("Depthwise" in type(y.grad_fn).__name__) == enabled
        gradients.append([y, *torch.autograd.grad(y.float().square().sum(), [x, layer.weight])])
    for plain, ours in zip(*gradients, strict=True):
        torch.testing.assert_close(
            ours.float(), plain, rtol=0.02, atol=0.02 * plain.abs().max().item()
        )


def test_a_depthwise_convolution_that_was_folded_keeps_its_bias() -> None:
    block = Block(8, 8, 3, 1, 6).eval()
    torch.nn.init.normal_(block[4].bias)
    x = torch.randn(1, 8, 10, 10, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        wanted = block(x)
        fold_batchnorm(block)
        torch.testing.assert_close(block(x), wanted, rtol=0.05, atol=0.05)
