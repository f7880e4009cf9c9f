"""SwinIR: equal to the published network, sizes read from shapes, trainable, precise in bf16."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from hqsod.errors import WeightsError
from hqsod.models.swinir import COMPUTED, ROWS_AT_ONCE, SwinIR, SwinIRConfig, build_swinir

from .golden import deterministic, inputs

GOLDEN = Path(__file__).parent / "golden"
TABLE = "residual_group.blocks.0.attn.relative_position_bias_table"
SMALL = SwinIRConfig(embed=16, depths=(2, 3), heads=(2, 4), window=4, mlp_hidden=24, features=8)


@cache
def official_state(size: str) -> dict[str, Tensor]:
    shapes = json.loads((GOLDEN / "swinir_checkpoint_shapes.json").read_text())[f"real_sr_{size}"]
    drawn = deterministic.state_dict(
        {name: shape for name, shape in shapes.items() if not name.endswith(COMPUTED)}
    )
    stored = {name: torch.zeros(shapes[name]) for name in shapes if name not in drawn}
    return {name: torch.from_numpy(value) for name, value in drawn.items()} | stored


@cache
def official(size: str) -> SwinIR:
    return build_swinir(official_state(size))


@cache
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN / "swinir_outputs.npz") as file:
        return dict(file)


def chelsea(rows: slice, columns: slice) -> Tensor:
    pixels = np.asarray(inputs.photo("chelsea"), np.float32)[rows, columns] / 255
    return torch.from_numpy(pixels).permute(2, 0, 1)[None]


def small(config: SwinIRConfig = SMALL) -> SwinIR:
    torch.manual_seed(0)
    network = SwinIR(config).eval()
    for group in network.layers:
        for block in group.residual_group["blocks"]:
            torch.nn.init.normal_(block.attn.relative_position_bias_table)
    return network


@pytest.mark.parametrize("size", ["L", pytest.param("M", marks=pytest.mark.slow)])
@torch.inference_mode()
def test_equals_the_published_network(size: str) -> None:
    result = official(size)(chelsea(slice(100, 148), slice(160, 232)))
    expected = golden()[f"real_sr_{size}.window_aligned"]
    np.testing.assert_allclose(result[0, :, ::2, ::2], expected, rtol=1e-3, atol=1e-4)


def test_sizes_are_read_from_the_shapes() -> None:
    configs = [SMALL, SwinIRConfig(12, (1, 2, 1), (2, 3, 1), 8, 30, 3, 6, 3)]
    for config in configs:
        network = small(config)
        again = build_swinir(network.state_dict())
        assert again.config == config
        image = torch.rand(1, 3, 16, 24)
        torch.testing.assert_close(again(image), network(image))
        assert again(image).shape == (1, 3, 16 * config.scale, 24 * config.scale)


def test_official_names_and_sizes() -> None:
    stored = {name for name in official_state("L") if not name.endswith(COMPUTED)}
    network = official("L")
    assert set(network.state_dict()) == stored
    assert network.config == SwinIRConfig(240, (6,) * 9, (8,) * 9, 8, 480, 3, 64, 2)


@pytest.mark.parametrize("change", ["missing", "extra", "other", "empty", "gap", "heads", "flat"])
def test_other_weights_are_refused(change: str) -> None:
    state = small().state_dict()
    if change == "missing":
        del state["layers.1.residual_group.blocks.2.attn.qkv.bias"]
    elif change == "extra":
        state["absolute_pos_embed"] = torch.zeros(1, 4, 16)
    elif change == "other":
        state["upsample.0.weight"] = state.pop("conv_hr.weight")
    elif change == "gap":
        state = {
            name.replace("layers.1", "layers.9999999999"): value for name, value in state.items()
        }
    elif change == "heads":
        state[f"layers.0.{TABLE}"] = torch.zeros(49, 3)
    elif change == "flat":
        state["conv_first.weight"] = torch.tensor(0.0)
    else:
        state = {}
    with pytest.raises(WeightsError, match="nearest\\+conv"):
        build_swinir(state)


def test_unaligned_sides_are_refused() -> None:
    with pytest.raises(ValueError, match="17 x 16 pixels, expected multiples of 4"):
        small()(torch.zeros(1, 3, 17, 16))


@torch.inference_mode()
def test_pictures_of_a_batch_do_not_mix() -> None:
    network, images = small(), torch.rand(3, 3, 12, 20)
    together = network(images)
    for index in range(3):
        torch.testing.assert_close(together[index : index + 1], network(images[index : index + 1]))


@torch.inference_mode()
def test_rows_at_once_leave_no_trace() -> None:
    network = small()
    body = torch.rand(1, SMALL.embed, ROWS_AT_ONCE * 2 + 4, 6)
    torch.testing.assert_close(network._upsample(body), network._upsample_rows(body))


def test_every_parameter_learns_and_new_weights_are_used() -> None:
    network, image = small().train(), torch.rand(2, 3, 12, 8)
    with torch.inference_mode():
        before = network(image)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    network(image).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
    torch.testing.assert_close(network(image), before)
    for name, parameter in network.named_parameters():
        if not name.endswith("bias_table"):
            parameter.grad = None
    optimizer.step()
    with torch.inference_mode():
        assert not torch.equal(network(image), before)


@torch.inference_mode()
def test_position_biases_follow_the_weights() -> None:
    network, image = small(), torch.rand(1, 3, 8, 8)
    results = [network(image)]
    for scale in (2, 3):  # assigned tensors may lie where the last ones lay
        state = {name: value.clone() for name, value in network.state_dict().items()}
        state[f"layers.0.{TABLE}"] *= scale
        network.load_state_dict(state, assign=True)
        results.append(network(image))
        torch.testing.assert_close(results[-1], build_swinir(state)(image))
    assert not torch.equal(results[0], results[1])


@torch.inference_mode()
def test_bfloat16_is_within_two_levels_of_float32() -> None:
    network, image = small(), chelsea(slice(40, 120), slice(100, 180))
    exact = network(image)
    network.set_precision(torch.bfloat16)
    rounded = network(image)
    assert network.conv_last.weight.dtype == rounded.dtype == torch.float32
    assert network.conv_hr.weight.dtype == torch.bfloat16
    # Random weights give another contrast than a photograph's, which is about a quarter.
    levels = (rounded - exact).abs() * 0.25 / exact.std() * 255
    assert (levels <= 2).float().mean() >= 0.99
    assert levels.max() > 0


def test_gradient_equals_finite_differences() -> None:
    group = small(SwinIRConfig(4, (2,), (2,), 2, 6, 3, 2, 1)).double().layers[0]
    features = torch.rand(1, 4, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(group, (features,))
