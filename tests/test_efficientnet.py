"""EfficientNet-Lite0 against the published network on deterministic weights.

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
from hqsod.models.efficientnet import EfficientNetLite, from_published
from tests.golden import deterministic, inputs

GOLDEN = Path(__file__).parent / "golden"
SHAPES = json.loads((GOLDEN / "efficientnet_checkpoint_shapes.json").read_text())
OUTPUTS = np.load(GOLDEN / "efficientnet_outputs.npz")
BLOCKS = (1, 2, 4, 10, 15)  # whose outputs the golden numbers are, every fourth channel


def checkpoint() -> dict[str, torch.Tensor]:
    state = deterministic.state_dict(SHAPES)
    return {name: torch.from_numpy(np.asarray(array)) for name, array in state.items()}


def test_maps_equal_the_published_networks() -> None:
    network = EfficientNetLite().eval()
    network.load_state_dict(from_published(checkpoint()))
    photo = inputs.photo("chelsea").resize((96, 64), Image.Resampling.BILINEAR)
    image = torch.from_numpy(np.asarray(photo, np.float32) / 255).permute(2, 0, 1)[None]
    with torch.inference_mode():
        maps = network(2 * image - 1)
    for block, ours in zip(BLOCKS, maps, strict=True):
        published = OUTPUTS[f"block{block}"]
        np.testing.assert_allclose(ours[0, ::4].numpy(), published, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("side", [33, 50, 64, 77])
def test_maps_have_the_sides_and_channels_they_say(side: int) -> None:
    network = EfficientNetLite().eval()
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
