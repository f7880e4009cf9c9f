"""The small upscaler: bicubic before it learns, sizes from shapes, borders, what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from hqsod import images, weights
from hqsod.errors import WeightsError
from hqsod.inference.runtime import Runtime
from hqsod.inference.upscaler import load_upscaler
from hqsod.models.small_upscaler import (
    SmallUpscaler,
    UpscalerSizes,
    build_small_upscaler,
    is_small_upscaler,
)
from hqsod.training.photo_degradation import compress
from hqsod.training.upscaler import luma_psnr, reduce

from .golden import inputs

SMALL = UpscalerSizes(features=8, blocks=2)


def small(config: UpscalerSizes = SMALL) -> SmallUpscaler:
    """A network that draws something."""
    torch.manual_seed(0)
    network = SmallUpscaler(config).eval()
    torch.nn.init.normal_(network.last.weight, std=0.1)
    return network


@torch.inference_mode()
def test_untrained_it_enlarges_as_pillow_does() -> None:
    photo = inputs.photo("chelsea").crop((100, 50, 159, 91))
    pixels = torch.from_numpy(np.array(photo)).permute(2, 0, 1)[None] / 255
    result = SmallUpscaler(SMALL)(pixels)[0].permute(1, 2, 0).clamp(0, 1) * 255
    expected = np.asarray(photo.resize((59 * 4, 41 * 4), Image.Resampling.BICUBIC))
    # Pillow rounds to eight bits between the columns and the rows.
    assert np.abs(result.numpy() - expected).max() <= 1.5


def test_sizes_are_read_from_the_shapes() -> None:
    for config in (SMALL, UpscalerSizes(features=6, blocks=3, scale=2)):
        network = small(config)
        again = build_small_upscaler(network.state_dict())
        assert again.config == config
        image = torch.rand(2, 3, 5, 7)
        torch.testing.assert_close(again(image), network(image))
        assert again(image).shape == (2, 3, 5 * config.scale, 7 * config.scale)


def test_every_parameter_learns() -> None:
    network = small()
    network(torch.rand(1, 3, 9, 9)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


@torch.inference_mode()
def test_bf16_is_close_and_the_picture_stays_float32() -> None:
    network, image = small(UpscalerSizes(features=32, blocks=3)), torch.rand(1, 3, 24, 24)
    expected = network(image)
    network.set_precision(torch.bfloat16)
    result = network(image)
    assert result.dtype is torch.float32
    assert (result - expected).abs().max() < 0.02 * expected.std() + 2 / 255


@pytest.mark.parametrize("change", ["missing", "extra", "other"])
def test_other_weights_are_refused(change: str) -> None:
    state = small().state_dict()
    assert is_small_upscaler(state)
    if change == "missing":
        del state["blocks.1.conv1.bias"]
    elif change == "extra":
        state["norm.weight"] = torch.zeros(8)
    else:
        state["last.weight"] = torch.zeros(47, 8, 3, 3)
    with pytest.raises(WeightsError, match="small upscaler"):
        build_small_upscaler(state)


def test_it_is_told_from_other_networks() -> None:
    assert not is_small_upscaler({"conv_first.weight": torch.zeros(1)})
    assert not is_small_upscaler({})


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize(
    ("name", "clean", "compressed"), [("chelsea", 0.45, 0.05), ("coffee", 1.4, 0.7)]
)
def test_what_ships_beats_bicubic(
    name: str, clean: float, compressed: float, precision: str
) -> None:
    """By so many dB at least, on photographs it was not trained on; fur gains the least."""
    upscaler = load_upscaler("hqsod-x4-small", Runtime("cpu", precision))
    truth = np.asarray(inputs.photo(name))[:296, :448]
    small = reduce(truth, 4)
    for given, least in ((small, clean), (compress(small, 75), compressed)):
        bicubic = images.resize(given, truth.shape[:2], Image.Resampling.BICUBIC)
        enlarged = upscaler([given])[0]
        assert enlarged.shape == truth.shape
        assert luma_psnr(enlarged, truth, 4) - luma_psnr(bicubic, truth, 4) > least


def test_what_ships_has_a_card_and_is_small() -> None:
    file = weights.registry()["hqsod-x4-small"]
    assert weights.is_intact(file.path, file.digest)
    assert file.path.stat().st_size == file.size < 2e6
    card = file.path.with_suffix(".md").read_text("utf-8")
    assert "research and demonstration" in card
    assert "research and demonstration" in file.licence
