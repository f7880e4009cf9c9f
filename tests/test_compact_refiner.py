import cv2
import numpy as np
import pytest
import torch
from torch import nn

from hqsod.errors import WeightsError
from hqsod.inference.torch_pass import TorchPass
from hqsod.models.compact_refiner import (
    EVIDENCE,
    CompactRefiner,
    build_compact_refiner,
    colour_evidence,
    is_compact_refiner,
)
from hqsod.models.passes import MendPass

WIDTHS = (8, 12, 16)


def picture(height: int = 70, width: int = 90) -> tuple[np.ndarray, np.ndarray]:
    """A red disk on blue, noisy, and its mask."""
    truth = cv2.circle(np.zeros((height, width), np.uint8), (45, 35), 20, 255, -1)
    noise = np.random.default_rng(0).integers(0, 60, (height, width, 3))
    colours = np.where(truth[..., None] > 0, (190, 40, 40), (40, 40, 190))
    return (colours + noise).astype(np.uint8), truth


def tensors(image: np.ndarray, mask: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    return (
        torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255,
        torch.from_numpy(mask)[None, None].float() / 255,
    )


@pytest.mark.parametrize("level", [0, 255])
def test_evidence_is_finite_where_a_side_is_empty(level: int) -> None:
    image, truth = picture(64, 64)
    evidence = colour_evidence(*tensors(image, np.full_like(truth, level)))
    assert evidence.shape == (1, EVIDENCE, 64, 64)
    assert evidence.isfinite().all()
    assert evidence.abs().max() <= 1


def test_evidence_points_at_what_the_mask_has_wrong() -> None:
    """A bite and a bump: the colours say that one belongs to the object and the other does not."""
    image, truth = picture()
    mask = cv2.circle(truth.copy(), (65, 35), 8, 0, -1)
    mask = cv2.circle(mask, (20, 35), 8, 255, -1)
    evidence = colour_evidence(*tensors(image, mask))[0].numpy()
    for ratio in evidence[[0, 3, 5]]:  # of the histograms, and of the two larger windows
        assert ratio[(truth > mask)].mean() > 0.1
        assert ratio[(truth < mask)].mean() < -0.1


def test_untrained_it_returns_the_mask() -> None:
    image, truth = picture(64, 96)
    refined = TorchPass(MendPass(CompactRefiner(WIDTHS).eval()), torch.device("cpu"))(image, truth)
    assert refined.shape == truth.shape
    assert np.array_equal(refined > 0, truth > 127)


def test_every_parameter_is_trained() -> None:
    torch.manual_seed(0)
    network = CompactRefiner((8, 8, 12, 12, 16))  # as many levels as the extractor has
    nn.init.normal_(network.unet.head.weight)
    image, mask = tensors(*picture(64, 96))
    network(image, mask).square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_weights_come_back_with_their_sizes() -> None:
    torch.manual_seed(1)
    network = CompactRefiner(WIDTHS).eval()
    nn.init.normal_(network.unet.head.weight)
    state = network.state_dict()
    assert is_compact_refiner(state)
    again = build_compact_refiner(state)
    assert again.unet.widths == WIDTHS
    assert not again.training
    pair = tensors(*picture(64, 96))
    assert torch.equal(network(*pair), again(*pair))
    half = build_compact_refiner({name: tensor.half() for name, tensor in state.items()})
    assert torch.allclose(network(*pair), half(*pair), atol=0.05)


def test_weights_of_another_network_are_refused() -> None:
    other = nn.Conv2d(3, 3, 3).state_dict()
    assert not is_compact_refiner(other)
    damaged = CompactRefiner(WIDTHS).state_dict()
    del damaged["unet.head.bias"]
    for state in (other, damaged):
        with pytest.raises(WeightsError, match="compact refiner"):
            build_compact_refiner(state)
