"""The refiner network against the published code's numbers."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from hqsod.errors import WeightsError
from hqsod.models.cascadepsp import CascadePSP, build_cascadepsp, normalise
from hqsod.models.resnet import BasicBlock, ResNet
from tests.golden import deterministic, inputs

GOLDEN = Path(__file__).parent / "golden"


def published_state() -> dict[str, torch.Tensor]:
    shapes = json.loads((GOLDEN / "cascadepsp_checkpoint_shapes.json").read_text())
    arrays = deterministic.state_dict(shapes)
    return {f"module.{name}": torch.from_numpy(array) for name, array in arrays.items()}


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    return dict(np.load(GOLDEN / "cascadepsp_outputs.npz"))


@pytest.fixture(scope="module")
def network() -> CascadePSP:
    return build_cascadepsp(published_state())


@pytest.fixture(scope="module")
def crop() -> tuple[torch.Tensor, torch.Tensor]:
    """Photograph and mask as the golden numbers were made from."""
    photo = np.asarray(inputs.photo("chelsea"), np.float32) / 255
    image = torch.from_numpy(photo).permute(2, 0, 1)[None]
    mask = torch.from_numpy(np.asarray(inputs.mask("chelsea"), np.float32) / 127.5 - 1)
    return image[:, :, 50:250, 100:300], mask[None, None, 50:250, 100:300]


def small() -> CascadePSP:
    """A network of the same form, small enough to train in a test."""
    feats = ResNet(
        block=BasicBlock,
        depths=(1, 2, 1, 1),
        width=8,
        in_channels=6,
        strides=(1, 2, 1, 1),
        dilations=(1, 1, 2, 4),
        dilate_first=False,
    )
    return CascadePSP(feats, (32, 24, 16, 8), head=4)


def assert_golden(logits: torch.Tensor, expected: np.ndarray) -> None:
    step = logits.shape[-1] // expected.shape[-1]
    ours = torch.sigmoid(logits)[0, 0, ::step, ::step].numpy()
    np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-4)


@torch.inference_mode()
def test_all_six_predictions(
    network: CascadePSP,
    crop: tuple[torch.Tensor, torch.Tensor],
    golden: dict[str, np.ndarray],
) -> None:
    first, second, third = network(*crop)
    for logits, name in [
        (first[8], "pred_28"),
        (second[8], "pred_28_2"),
        (second[4], "pred_56"),
        (third[8], "pred_28_3"),
        (third[4], "pred_56_2"),
        (third[1], "pred_224"),
    ]:
        assert_golden(logits, golden[f"forward.{name}"])
    image, mask = crop
    masks = (mask, torch.tanh(third[8]), torch.tanh(third[4]))
    last = network.application(normalise(image), masks, (1,))
    assert_golden(last[1], golden["forward_given_s8_s4.pred_224"])


@torch.inference_mode()
def test_a_given_coarse_mask_replaces_the_first_application() -> None:
    net = small().eval()
    image, mask = torch.randn(2, 3, 32, 40), torch.ones(2, 1, 32, 40)
    whole = net(image, mask)
    rest = net(image, mask, coarse=torch.tanh(whole[0][8]), wanted=(1,))
    assert [set(logits) for logits in whole] == [{8}, {8, 4}, {8, 4, 1}]
    assert [set(logits) for logits in rest] == [{8, 4}, {1}]
    torch.testing.assert_close(rest[-1][1], whole[-1][1])


def test_every_parameter_gets_a_gradient() -> None:
    net = small()
    outputs = net(torch.randn(2, 3, 64, 64), torch.randn(2, 1, 64, 64).sign())
    sum(x.square().mean() for logits in outputs for x in logits.values()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


@torch.inference_mode()
def test_sizes_are_read_from_the_weights() -> None:
    net = small().eval()
    again = build_cascadepsp(net.state_dict())
    image, mask = torch.randn(1, 3, 32, 32), torch.ones(1, 1, 32, 32)
    torch.testing.assert_close(again(image, mask)[-1][1], net(image, mask)[-1][1])


def test_weights_of_another_network_are_refused() -> None:
    with pytest.raises(WeightsError, match="CascadePSP"):
        build_cascadepsp({"conv_first.weight": torch.zeros(1)})
    state = small().state_dict()
    del state["final_21.bias"]
    with pytest.raises(WeightsError, match=r"final_21\.bias"):
        build_cascadepsp(state)
