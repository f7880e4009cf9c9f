"""The losses against the published ones, and where those would break."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

from hqsod import metrics
from hqsod.losses import (
    UNLABELLED,
    Targets,
    error_weighted_bce,
    iou_loss,
    promotion_loss,
    purificatory_loss,
    rectification_loss,
    s_measure_loss,
    structural_similarity_loss,
    superpixel_means,
)
from hqsod.models.purnet import PurNet, from_published, load_purnet
from tests.golden import deterministic, inputs

GOLDEN = Path(__file__).parent / "golden"
NUMBERS = json.loads((GOLDEN / "purnet_losses.json").read_text())
ARRAYS = np.load(GOLDEN / "purnet_loss_inputs.npz")
SHAPES = json.loads((GOLDEN / "purnet_checkpoint_shapes.json").read_text())
NAMES = ("chelsea", "coffee")


def network(stage: str) -> PurNet:
    state = deterministic.state_dict(SHAPES[stage])
    return load_purnet({name: torch.from_numpy(np.asarray(a)) for name, a in state.items()})


def images() -> Tensor:
    photos = [inputs.photo(n).resize((320, 320), Image.Resampling.BILINEAR) for n in NAMES]
    return torch.from_numpy(np.stack(photos)).permute(0, 3, 1, 2) / 255


@pytest.fixture(scope="module")
def targets() -> Targets:
    masks = [inputs.mask(n).resize((320, 320), Image.Resampling.NEAREST) for n in NAMES]
    superpixels = torch.from_numpy(ARRAYS["superpixels"][:, 0].astype(np.int64))
    return Targets(torch.from_numpy(np.stack(masks))[:, None] / 255, superpixels)


@pytest.fixture(scope="module")
def logits() -> Tensor:
    """The golden soft prediction before its sigmoid; finite where it is exactly 0 or 1."""
    return torch.logit(torch.from_numpy(ARRAYS["prediction"]).double()).clamp(-60, 60).float()


def near(ours: Tensor | float, wanted: float | list[float]) -> None:
    np.testing.assert_allclose(torch.as_tensor(ours).detach(), wanted, rtol=1e-3, atol=1e-4)


def test_single_terms_equal_the_published_ones(logits: Tensor, targets: Targets) -> None:
    error = torch.from_numpy(deterministic.tensor("error.map", (2, 1, 320, 320))).tanh()
    near(error_weighted_bce(logits, targets.mask, error), [ARRAYS["weighted_bce"]])
    assert targets.superpixels is not None
    ours = structural_similarity_loss(logits, targets.mask, targets.superpixels)
    near(ours, [ARRAYS["ssl_single"]])


def test_the_gradient_equals_the_published_one(targets: Targets) -> None:
    # The published gradient is that of the probabilities; ours of the logits has p (1 - p) on top.
    prediction = torch.from_numpy(ARRAYS["prediction"])
    logits = torch.logit(prediction.double()).clamp(-60, 60).float().requires_grad_()
    assert targets.superpixels is not None
    loss = structural_similarity_loss(
        logits, targets.mask, targets.superpixels, double_sigmoid=True
    )
    near(loss, [ARRAYS["ssl_double_sigmoid"]])
    (ours,) = torch.autograd.grad(loss.sum(), logits)
    wanted = ARRAYS["ssl_double_sigmoid_gradient"]
    slope = (prediction * (1 - prediction))[..., ::8, ::8].numpy()
    np.testing.assert_allclose(ours[..., ::8, ::8], wanted * slope, rtol=1e-3, atol=1e-11)


def check_gradients(
    model: nn.Module, loss: Tensor, wanted: dict[str, float], *, retain: bool = True
) -> None:
    parameters = dict(model.named_parameters())
    ours = [next(iter(from_published({name: torch.empty(0)}))) for name in wanted]
    gradients = torch.autograd.grad(loss, [parameters[n] for n in ours], retain_graph=retain)
    np.testing.assert_allclose(
        [g.norm().item() for g in gradients], list(wanted.values()), rtol=1e-3, atol=1e-4
    )


@pytest.mark.slow
def test_whole_losses_equal_the_published_ones(targets: Targets) -> None:
    model = network("stage2_and_3")
    side = model.side_outputs(images())
    assert side.promotion is not None
    assert side.rectification is not None
    assert side.error is not None
    main = purificatory_loss(side.saliency, targets, error=side.error.tanh(), double_sigmoid=True)
    near(main["bce"], NUMBERS["weighted_bce"])
    near(main["structural_similarity"], NUMBERS["structural_similarity"])
    promotion = promotion_loss(side.promotion, targets)
    near(promotion["promotion"], NUMBERS["promotion"])
    rectification = rectification_loss(side.rectification, side.error, targets)
    near(rectification["rectification"], NUMBERS["rectification_saliency"])
    near(rectification["error"], NUMBERS["rectification_error"])
    totals = {
        "stage2_main": main["bce"].sum(),
        "stage3_main": sum(main.values()).sum(),
        "promotion": promotion["promotion"].sum(),
        "rectification": sum(rectification.values()).sum(),
    }
    near(totals["stage3_main"], NUMBERS["stage3_main"])
    for name, wanted in NUMBERS["gradient_norms"].items():
        check_gradients(model, totals[name], wanted)


@pytest.mark.slow
def test_the_stage_1_loss_equals_the_published_one(targets: Targets) -> None:
    model = network("stage1")
    terms = purificatory_loss(model.side_outputs(images()).saliency, targets, double_sigmoid=True)
    near(terms["bce"], NUMBERS["stage1"]["bce"])
    near(terms["structural_similarity"], NUMBERS["stage1"]["structural_similarity"])
    total = sum(terms.values()).sum()
    near(total, NUMBERS["stage1"]["total"])
    check_gradients(model, total, NUMBERS["stage1"]["gradient_norms"], retain=False)


@pytest.mark.parametrize("logit", [-1e4, -30.0, 0.0, 30.0, 1e4])
@pytest.mark.parametrize("mask", [0.0, 1.0])
@pytest.mark.parametrize("label", [UNLABELLED, 0, 7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_losses_stay_finite(logit: float, mask: float, label: int, dtype: torch.dtype) -> None:
    x = torch.full((2, 5, 8, 8), logit, dtype=dtype, requires_grad=True)
    error = torch.full_like(x, 3.0).requires_grad_()
    targets = Targets(torch.full((2, 1, 8, 8), mask), torch.full((2, 8, 8), label))
    with torch.autocast("cpu", torch.bfloat16):
        terms = purificatory_loss(x, targets, error=error.tanh(), iou=True, s_measure=True)
        terms |= rectification_loss(x, error, targets)
    total = sum(terms.values()).sum()
    assert total.isfinite()
    assert (terms["structural_similarity"] == 0).all()  # one superpixel has no structure
    assert all(g.isfinite().all() for g in torch.autograd.grad(total, [x, error]))


@given(seed=st.integers(0, 2**16), regions=st.integers(1, 40), channels=st.integers(1, 5))
@settings(deadline=None, max_examples=30)
def test_structural_similarity_equals_its_definition(
    seed: int, regions: int, channels: int
) -> None:
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, channels, 12, 9, generator=random)
    mask = torch.rand(2, 1, 12, 9, generator=random).round()
    superpixels = torch.randint(-1, regions, (2, 12, 9), generator=random)
    wanted = torch.zeros(channels)
    for picture in range(2):
        labels = superpixels[picture]
        owned = [labels == label for label in labels.unique() if label >= 0]

        def pairs(of: Tensor, owned: list[Tensor] = owned) -> Tensor:
            means = torch.stack([of[o].mean() for o in owned]).double()
            matrix = (means[:, None] - means + 1) / 2
            return matrix / matrix.sum()

        target = pairs(mask[picture, 0])
        for channel in range(channels):
            given_ = pairs(logits[picture, channel].sigmoid())
            kl = torch.xlogy(target, target) - target * given_.log()
            wanted[channel] += kl.sum().float() / 2
    ours = structural_similarity_loss(logits, mask, superpixels)
    torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-6)


def test_a_perfect_saliency_map_loses_nothing() -> None:
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., :8] = 1
    superpixels = torch.arange(16).repeat_interleave(16).view(1, 16, 16) % 4
    superpixels = superpixels * 2 + (torch.arange(16) >= 8)
    logits = (mask * 2 - 1) * 50
    assert structural_similarity_loss(logits, mask, superpixels).item() < 1e-6
    assert structural_similarity_loss(-logits, mask, superpixels).item() > 1


@given(seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_iou_loss_of_decided_maps_is_one_less_their_iou(seed: int) -> None:
    random = np.random.default_rng(seed)
    maps, masks = random.random((2, 3, 4, 30, 30)) < random.random()
    masks[:, 1:] = masks[:, :1]
    loss = iou_loss(torch.from_numpy(np.where(maps, 50.0, -50.0)), torch.from_numpy(masks[:, :1]))
    shared, either = (maps & masks).sum((2, 3)), (maps | masks).sum((2, 3))
    expected = (1 - (shared + 1) / (either + 1)).mean(0)  # 1: so that nothing matches nothing
    np.testing.assert_allclose(loss, expected, atol=1e-6)


@given(seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_s_measure_loss_is_one_less_the_measure(seed: int) -> None:
    random = np.random.default_rng(seed)
    (y, x), (height, width) = random.integers(0, 20, 2), random.integers(10, 40, 2)
    mask = np.zeros((64, 72), np.uint8)
    mask[y : y + height, x : x + width] = 255
    maps = cv2.GaussianBlur(np.roll(mask, random.integers(-6, 7), 1), (0, 0), random.uniform(1, 6))
    levels = (maps * (255 / maps.max())).round()
    logits = torch.logit(torch.from_numpy(levels / 255), 1e-7)[None, None]
    loss = s_measure_loss(logits, torch.from_numpy(mask / 255)[None, None])
    # As far as the constants of SSIM reach, and where between two pixels the quadrants part.
    expected = 1 - metrics.score(levels.astype(np.uint8), mask)["s_measure"]
    assert loss.item() == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("value", [0, 255])
def test_s_measure_loss_of_masks_without_a_contour(value: int) -> None:
    mask = np.full((16, 16), value, np.uint8)
    levels = np.full((16, 16), 51, np.uint8)
    levels[0] = 102
    logits = torch.logit(torch.from_numpy(levels / 255))[None, None]
    loss = s_measure_loss(logits, torch.from_numpy(mask / 255)[None, None])
    mean = levels.mean() / 255
    assert loss.item() == pytest.approx(mean if value == 0 else 1 - mean, abs=1e-6)


def test_unlabelled_pixels_belong_to_no_superpixel() -> None:
    maps = torch.arange(12.0).view(1, 1, 3, 4)
    labels = torch.tensor([[[0, 0, -1, -1], [0, 0, -1, -1], [2, 2, 2, 2]]])
    means, sizes = superpixel_means(maps, labels, 3)
    assert means.tolist() == [[[2.5, 0.0, 9.5]]]
    assert sizes.tolist() == [[4, 0, 4]]
