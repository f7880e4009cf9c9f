"""PurNet against the published network's outputs, and its own properties."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from hqsod.errors import SettingsError, WeightsError
from hqsod.models.blocks import fold, promotion_attention, upsampling
from hqsod.models.purnet import ATTENTIONS, PurNet, build_purnet, from_published, load_purnet
from tests.golden import deterministic, inputs

GOLDEN = Path(__file__).parent / "golden"
SHAPES = json.loads((GOLDEN / "purnet_checkpoint_shapes.json").read_text())
OUTPUTS = np.load(GOLDEN / "purnet_outputs.npz")


def checkpoint(stage: str) -> dict[str, Tensor]:
    state = deterministic.state_dict(SHAPES[stage])
    return {name: torch.from_numpy(np.asarray(array)) for name, array in state.items()}


def picture(size: tuple[int, int] = (320, 320)) -> Tensor:
    photo = inputs.photo("chelsea").resize(size[::-1], Image.Resampling.BILINEAR)
    return torch.from_numpy(np.asarray(photo, np.float32) / 255).permute(2, 0, 1)[None]


def close(ours: Tensor, name: str) -> None:
    np.testing.assert_allclose(ours.numpy(), OUTPUTS[name], rtol=1e-3, atol=1e-4)


@pytest.fixture(scope="module")
def network() -> PurNet:
    return load_purnet(checkpoint("stage2_and_3"))


def test_forward_equals_the_published_network(network: PurNet) -> None:
    with torch.inference_mode():
        close(network(picture())[0, 0], "saliency1")


def test_side_outputs_equal_the_published_network(network: PurNet) -> None:
    with torch.inference_mode():
        side = network.side_outputs(picture())
    assert side.promotion is not None
    assert side.rectification is not None
    assert side.error is not None
    close(side.saliency[0, 0].sigmoid(), "saliency1")
    for level in range(5):
        if level:
            close(side.saliency[0, level, ::4, ::4].sigmoid(), f"saliency{level + 1}")
        for ours, name in (
            (side.saliency.sigmoid(), "purificatory"),
            (side.promotion.sigmoid(), "promotion"),
            (side.rectification.sigmoid(), "rectification_saliency"),
            (side.error.tanh(), "rectification_error"),
        ):
            close(ours[0, level, ::8, ::8], f"training.{name}{level + 1}")


def test_stage_1_equals_the_published_network() -> None:
    with torch.inference_mode():
        saliency = load_purnet(checkpoint("stage1"))(picture())
    close(saliency[0, 0, ::2, ::2], "stage1.saliency1")


def test_promotion_attention_equals_the_published_network() -> None:
    features = torch.from_numpy(deterministic.tensor("attention.input", (2, 128, 20, 20)))
    close(promotion_attention(features)[:, ::16], "promotion_attention")


def test_conversion_keeps_every_tensor() -> None:
    published = checkpoint("stage2_and_3")
    ours = from_published(published)
    assert len(ours) == len(published) == 1200
    assert set(ours) == set(build_purnet().state_dict())


@pytest.mark.parametrize("size", [(33, 47), (64, 64), (75, 130)])
@pytest.mark.parametrize("backbone", ["efficientnet-lite0", "efficientnet-lite2", "light"])
def test_any_size_goes_through(backbone: str, size: tuple[int, int]) -> None:
    network = build_purnet(backbone, width=16).eval()
    image = torch.rand(1, 3, *size)
    with torch.inference_mode():
        saliency, side = network(image), network.side_outputs(image)
    assert saliency.shape == (1, 1, *size)
    assert side.saliency.shape == (1, 5, *size)
    torch.testing.assert_close(saliency[:, 0], side.saliency[:, 0].sigmoid())


@pytest.mark.parametrize("backbone", ["vgg16", "efficientnet-lite0", "efficientnet-lite2", "light"])
@pytest.mark.parametrize("attention", [(), ("promotion",), ("rectification",), ATTENTIONS])
def test_folding_changes_nothing_and_the_build_follows_from_the_shapes(
    backbone: str, attention: tuple[str, ...]
) -> None:
    network = build_purnet(backbone, width=16, attention=attention)
    image = torch.rand(2, 3, 32, 48)
    with torch.no_grad():
        side = network.train().side_outputs(image)  # moves the running statistics away from 0 and 1
        wanted = network.eval()(image)
        again = load_purnet(network.state_dict())
        torch.testing.assert_close(again(image), wanted)
        torch.testing.assert_close(fold(again)(image), wanted, rtol=1e-3, atol=1e-4)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in again.modules())
    assert (
        (side.promotion is not None) == (again.promotion is not None) == ("promotion" in attention)
    )
    assert (side.error is not None) == (again.rectification is not None)
    assert (again.rectification is not None) == ("rectification" in attention)


@pytest.mark.parametrize(
    ("backbone", "mean", "std"),
    [
        ("efficientnet-lite0", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        ("light", (0.4923, 0.4634, 0.3974), (0.2737, 0.2659, 0.2836)),
    ],
)
def test_pictures_reach_an_extractor_as_it_was_trained(
    backbone: str, mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    network = load_purnet(build_purnet(backbone, width=8).state_dict())
    seen: list[Tensor] = []
    network.extractor.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    image = torch.rand(1, 3, 32, 32)
    with torch.inference_mode():
        network(image)
        network.side_outputs(image)
    for given in seen:
        for channel in range(3):
            wanted = (image[:, channel] - mean[channel]) / std[channel]
            torch.testing.assert_close(given[:, channel], wanted)
    assert len(seen) == 2


def test_every_parameter_gets_a_gradient() -> None:
    network = build_purnet("light", width=16)
    side = network.side_outputs(torch.rand(2, 3, 32, 32))
    maps = [m for m in side[:4] if isinstance(m, Tensor)]
    sum(m.square().mean() for m in maps).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("stride", [2, 4, 8, 16])
def test_upsampling_starts_bilinear(stride: int) -> None:
    x = torch.rand(1, 3, 6, 7)
    wanted = torch.nn.functional.interpolate(x, scale_factor=stride, mode="bilinear")
    inner = (..., slice(stride, -stride), slice(stride, -stride))
    torch.testing.assert_close(upsampling(3, stride)(x)[inner], wanted[inner])


def test_the_attention_of_a_picture_adds_up_to_one() -> None:
    attention = promotion_attention(torch.randn(2, 16, 9, 11, dtype=torch.bfloat16))
    assert attention.dtype == torch.float32
    torch.testing.assert_close(attention.sum((1, 2, 3)), torch.ones(2))


def test_weights_that_are_not_purnet_are_refused() -> None:
    with pytest.raises(WeightsError, match="PurNet"):
        load_purnet({"conv.weight": torch.zeros(1)})
    with pytest.raises(WeightsError, match="extra"):
        from_published({"layer0.0.weight": torch.zeros(1), "extra.weight": torch.zeros(1)})
    state = build_purnet("light", width=16).state_dict()
    del state["extractor.bn1.bias"]
    with pytest.raises(WeightsError, match=r"extractor\.bn1\.bias"):
        load_purnet(state)
    with pytest.raises(SettingsError, match="resnet51"):
        build_purnet("resnet51")
