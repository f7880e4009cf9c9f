"""The small refiner: what each of its steps keeps and what it draws anew."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hqsod import weights
from hqsod.errors import InputError
from hqsod.images import Array
from hqsod.inference.contour_step import ContourStep, find_phase, move_contour
from hqsod.inference.mending_step import MendingStep
from hqsod.inference.refiner import load_refiner
from hqsod.inference.runtime import Runtime
from hqsod.inference.small_refiner import SmallRefiner
from hqsod.inference.torch_pass import TorchPass
from hqsod.models.compact_refiner import CompactRefiner
from hqsod.models.contour_numbers import GROUP, REACH
from hqsod.models.contour_refiner import ContourRefiner
from hqsod.models.passes import ContourPass, MendPass
from hqsod.training.contour_wear import enlarge_mask

from .conftest import random_picture

CPU = torch.device("cpu")


def small_refiner(network: CompactRefiner, side: int = 64) -> SmallRefiner:
    return SmallRefiner("small", "", [mending(network, side)])


def mending(network: CompactRefiner, side: int = 64) -> MendingStep:
    mend = TorchPass(MendPass(network.eval()), CPU)
    return MendingStep(mend, network.stride, side)


def drawing(network: ContourRefiner, tile: int = 1024) -> ContourStep:
    draw = TorchPass(ContourPass(network.eval()), CPU)
    return ContourStep(draw, network.stride, network.margin, tile=tile)


def contour_step(seed: int | None = None, tile: int = 1024) -> ContourStep:
    """Of an untrained network, or of one that was given weights at random."""
    torch.manual_seed(seed or 0)
    network = ContourRefiner((8, 12)).eval()
    if seed is not None:
        torch.nn.init.normal_(network.unet.head.weight, std=0.3)
        torch.nn.init.normal_(network.filter.weight, std=0.1)
    return drawing(network, tile)


class Painter(CompactRefiner):
    """Says that what is red in the picture is the object, whatever the mask."""

    def __init__(self) -> None:
        super().__init__((8, 12, 16))

    def forward(self, images: Tensor, masks: Tensor) -> Tensor:
        return 20 * (images[:, :1] - images[:, 2:])


def scene(height: int, width: int) -> tuple[Array, Array]:
    """A red ellipse on blue, and its mask."""
    truth = np.zeros((height, width), np.uint8)
    centre, axes = (width // 2, height // 2), (width // 4, height // 4)
    truth = np.asarray(cv2.ellipse(truth, centre, axes, 20, 0, 360, 255, -1), np.uint8)
    image = np.where(truth[..., None] > 0, (200, 0, 0), (0, 0, 200)).astype(np.uint8)
    return image, truth


@settings(max_examples=20, deadline=None)
@given(height=st.integers(1, 150), width=st.integers(1, 150), seed=st.integers(0, 99))
def test_what_the_networks_leave_alone_keeps_its_soft_edges(
    height: int, width: int, seed: int
) -> None:
    """Untrained networks change nothing: no grey level of a mask that one saw but reduced."""
    image, mask = random_picture((height, width, 3), seed), random_picture((height, width), seed)
    steps = [mending(CompactRefiner((8, 12, 16)))]
    refined = SmallRefiner("small", "", [*steps, contour_step()])(image, mask)
    assert refined.dtype == np.uint8
    assert np.array_equal(refined, mask)


@pytest.mark.parametrize("size", [(60, 50), (300, 220)])
def test_what_it_changes_is_redrawn(size: tuple[int, int]) -> None:
    image, truth = scene(*size)
    mask = truth.copy()
    mask[:, : size[1] // 2] = 0
    refined = small_refiner(Painter())(image, mask)
    assert ((refined > 127) == (truth > 127)).mean() > 0.98
    right = np.s_[:, size[1] // 2 + 8 :]
    assert np.array_equal(refined[right] > 127, mask[right] > 127)


def test_the_canvas_around_a_picture_is_left_out() -> None:
    """The same result with and without it, and nothing on it."""
    image, truth = scene(120, 100)
    mask = cv2.circle(truth.copy(), (30, 60), 12, 0, -1)
    framed = [np.pad(layer, ((40, 40), (70, 70), (0, 0))[: layer.ndim]) for layer in (image, mask)]
    refiner = small_refiner(Painter())
    refined = refiner(*framed)
    assert np.array_equal(refined[40:160, 70:170], refiner(image, mask))
    refined[40:160, 70:170] = 0
    assert not refined.any()


@pytest.mark.parametrize("level", [0, 255])
def test_masks_without_a_contour_pass(level: int) -> None:
    for image in (random_picture((90, 70, 3)), np.zeros((90, 70, 3), np.uint8)):
        mask = np.full((90, 70), level, np.uint8)
        refined = small_refiner(CompactRefiner((8, 12, 16)))(image, mask)
        assert np.array_equal(refined, mask)
        assert np.array_equal(contour_step(seed=0)(image, mask), mask)


def test_far_from_the_contour_nothing_changes() -> None:
    image, mask = random_picture((200, 240, 3)), cv2.GaussianBlur(scene(200, 240)[1], (0, 0), 2)
    refined = contour_step(seed=1)(image, mask)
    side = 2 * (REACH + 2) * GROUP + 1
    contour = cv2.morphologyEx(
        (mask > 127).astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)
    )
    near = cv2.dilate(contour, np.ones((side, side), np.uint8)) > 0
    assert np.array_equal(refined[~near], mask[~near])
    assert not np.array_equal(refined, mask)


@pytest.mark.parametrize("size", [(250, 330), (96, 401)])
def test_tiles_are_those_of_the_whole(size: tuple[int, int]) -> None:
    image, mask = random_picture((*size, 3)), cv2.GaussianBlur(scene(*size)[1], (0, 0), 2)
    whole, tiled = (contour_step(2, tile)(image, mask) for tile in (1024, 64))
    assert np.abs(whole.astype(int) - tiled).max() <= 1  # of 255: rounding


@pytest.mark.parametrize("cut", [(0, 0), (6, 6), (5, 7)])
def test_groups_are_those_of_the_small_mask_however_it_is_cut(cut: tuple[int, int]) -> None:
    image, truth = random_picture((480, 520, 3)), scene(480, 520)[1]
    mask = enlarge_mask(cv2.resize(truth, (130, 120), interpolation=cv2.INTER_AREA))
    assert (find_phase(mask[cut[0] :]), find_phase(mask.T[cut[1] :])) == tuple(-c % 4 for c in cut)
    step, inside = contour_step(seed=3), np.s_[cut[0] :, cut[1] :]
    whole, part = step(image, mask)[inside], step(image[inside], mask[inside])
    assert not np.array_equal(whole, mask[inside])
    assert np.abs(whole.astype(int) - part).max() <= 1
    assert find_phase(truth) == find_phase(truth[2:]) == 0  # it was not enlarged


def test_where_the_network_cannot_decide_the_mask_stays() -> None:
    class Undecided(ContourRefiner):
        """Knows the left half of the picture, and nothing of the right."""

        def forward(self, images: Tensor, masks: Tensor) -> Tensor:
            logits = torch.full_like(masks, -9.0)
            logits[..., masks.shape[3] // 2 :] = 0.0
            return logits

    image, mask = random_picture((128, 160, 3)), cv2.GaussianBlur(scene(128, 160)[1], (0, 0), 2)
    refined = drawing(Undecided((8, 12)))(image, mask)
    drawn = refined != mask
    assert drawn[:, 24:76].any()
    assert not drawn[:, 92:].any()


def test_a_line_stays_where_the_network_draws_it_to_a_fraction_of_a_pixel() -> None:
    columns = np.arange(120, dtype=np.float32)
    for at in (60.0, 60.3, 60.5, 60.8):  # of the contour, in pixels; a pixel's middle is at n + 0.5
        saliency = np.tile(np.clip(at - columns, 0, 1), (80, 1))
        mask = np.tile(np.where(columns < 56, 255, 0).astype(np.uint8), (80, 1))
        moved = move_contour(mask, saliency)
        assert np.abs(moved[20:60].sum(1) / 255 - at).max() < 0.25


def test_no_smoke_and_no_specks_come_of_what_the_network_says_beside_its_line() -> None:
    mask = cv2.GaussianBlur(scene(160, 200)[1], (0, 0), 2)
    saliency = (mask > 127).astype(np.float32)
    clean = move_contour(mask, saliency)
    cv2.circle(saliency, (100, 42), 2, 0.3, -1)  # smoke outside of the object, and inside
    cv2.circle(saliency, (100, 80), 2, 0.8, -1)
    saliency[20:23, 100:103] = 0.9  # specks of the other side
    saliency[84:87, 110:113] = 0.1
    assert np.array_equal(move_contour(mask, saliency) > 127, clean > 127)
    grey = cv2.inRange(move_contour(mask, saliency), 1, 254)
    assert not grey[16:27, 96:107].any()
    assert not grey[76:90, 96:116].any()


def test_between_what_is_decided_and_what_is_not_the_line_goes_over() -> None:
    """No notch and no grey patch where holding back begins: at each column one edge, no jump."""
    mask = np.zeros((120, 240), np.uint8)
    mask[:60] = 255
    saliency = np.zeros((120, 240), np.float32)
    saliency[:70, :120] = 1  # ten pixels lower, where the network knows it
    saliency[:60, 120:] = 1
    saliency[50:80, 120:] = 0.4
    moved = move_contour(mask, saliency)
    lines = (moved > 127).sum(0)
    assert lines[20] == 70
    assert lines[220] == 60
    assert (np.diff(lines.astype(int)) <= 0).all()
    assert np.diff(lines.astype(int)).min() >= -2
    assert ((moved > 25) & (moved < 230)).sum(0).max() <= 3


def test_thin_parts_that_a_soft_mask_only_hints_at_stay() -> None:
    """A slit thinner than a small pixel never crosses a half in the mask."""
    truth = np.full((120, 120), 255, np.uint8)
    truth[:, :30] = 0
    truth[40:80, 60:62] = 40
    mask = enlarge_mask(cv2.resize(truth, (30, 30), interpolation=cv2.INTER_AREA))
    assert (mask[40:80, 50:70] > 127).all()
    moved = move_contour(mask, truth.astype(np.float32) / 255)
    assert (moved[44:76, 60:62] < 127).all()


def test_a_mask_of_another_size_is_refused() -> None:
    with pytest.raises(InputError, match="same H and W"):
        small_refiner(Painter())(random_picture((40, 40, 3)), random_picture((40, 41)))


def test_a_weights_file_is_known_for_what_it_is(tmp_path: Path) -> None:
    file = tmp_path / "mine.safetensors"
    weights.save(file, CompactRefiner((8, 12, 16)).state_dict(), {})
    refiner = load_refiner(str(file), Runtime())
    assert isinstance(refiner, SmallRefiner)
    assert refiner.name == str(file)
    assert refiner.weights == weights.sha256(file)


def test_a_weights_file_holds_one_step_or_both(tmp_path: Path) -> None:
    parts = {"mending": CompactRefiner((8, 12, 16)), "contour": ContourRefiner((8, 12))}
    files = {
        "both": torch.nn.ModuleDict(parts).state_dict(),
        "one": parts["contour"].state_dict(),
        "named": torch.nn.ModuleDict({"contour": parts["contour"]}).state_dict(),
    }
    counts = {}
    for name, state in files.items():
        weights.save(tmp_path / f"{name}.safetensors", state, {})
        loaded = load_refiner(str(tmp_path / f"{name}.safetensors"), Runtime())
        assert isinstance(loaded, SmallRefiner)
        counts[name] = [type(step) for step in loaded.steps]
    assert counts == {
        "both": [MendingStep, ContourStep],
        "one": [ContourStep],
        "named": [ContourStep],
    }


@pytest.mark.parametrize(("shift", "mended"), [(1, False), (8, True)])
@pytest.mark.parametrize("side", [64, 400])
def test_a_mask_that_is_nearly_right_is_left_alone(side: int, shift: int, mended: bool) -> None:
    """One pixel of 240 is less than the network's own noise, on a picture seen whole or reduced."""
    image, truth = scene(160, 240)
    mask = np.roll(truth, shift, 1)
    refined = small_refiner(Painter(), side)(image, mask) > 127
    assert np.array_equal(refined, mask > 127) is not mended


def test_a_picture_and_its_mirror_image_are_refined_alike() -> None:
    torch.manual_seed(0)
    network = CompactRefiner((8, 12, 16))
    torch.nn.init.normal_(network.unet.head.weight)  # what an untrained one says is nothing
    refiner = small_refiner(network, 400)
    image, mask = random_picture((64, 64, 3), 1), scene(64, 64)[1]
    refined = refiner(image, mask)
    mirrored = refiner(np.ascontiguousarray(image[:, ::-1]), np.ascontiguousarray(mask[:, ::-1]))
    assert not np.array_equal(refined > 127, mask > 127)
    assert np.abs(mirrored[:, ::-1].astype(int) - refined).max() <= 1
