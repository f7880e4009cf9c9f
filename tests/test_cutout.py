"""A cut-out shows the object's own colours, whoever calls it and however often."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from hqsod.cutout import OPACITY, cut_out, overlay
from tests.conftest import random_picture
from tests.golden import inputs


def saliency_for(share: np.ndarray) -> np.ndarray:
    """Levels whose opacity is a share of the object, (H, W) from 0 to 1."""
    return np.where(share <= 0, 0, np.where(share >= 1, 255, 25.5 + 204 * share)).astype(np.uint8)


def mixture(object_: np.ndarray, behind: np.ndarray, share: np.ndarray) -> np.ndarray:
    return (share[..., None] * object_ + (1 - share[..., None]) * behind).round().astype(np.uint8)


def photograph(name: str, size: tuple[int, int]) -> np.ndarray:
    return np.array(inputs.photo(name).convert("RGB").resize(size[::-1]))


def hairy(size: tuple[int, int], blur: float) -> np.ndarray:
    """The share of a shape with thin hairs and a soft edge, (H, W) from 0 to 1."""
    height, width = size
    drawn = np.zeros(size, np.uint8)
    centre = (width // 2, height // 2)
    cv2.ellipse(drawn, centre, (width * 3 // 10, height // 4), 0, 0, 360, 255, -1)
    for turn in np.linspace(0, 2 * np.pi, 60):
        way = np.array([np.cos(turn) * width, np.sin(turn) * height])
        ends = (tuple(int(c + w * r) for c, w in zip(centre, way, strict=True)) for r in (0.2, 0.4))
        cv2.line(drawn, *ends, 255, 1, cv2.LINE_AA)
    return cv2.GaussianBlur(drawn, (0, 0), blur) / np.float32(255)


def test_plain_colours_are_found_to_a_level_or_two():
    share = np.clip(np.linspace(3, -2, 160), 0, 1)[None].repeat(90, 0)
    red, blue = np.array([230, 30, 20]), np.array([10, 20, 240])
    levels = saliency_for(share)
    share = OPACITY[levels] / 255
    cut = cut_out(mixture(red, blue, share), levels)
    assert cut.shape == (90, 160, 4)
    np.testing.assert_array_equal(cut[..., 3], OPACITY[levels])
    seen = share > 0.1
    off = np.abs(cut[seen][:, :3] - red) * share[seen][:, None]
    assert off.mean() < 1
    assert off.max() < 8
    assert (cut[share == 0] == 0).all()


# What pymatting 1.1.16's estimate_foreground_ml leaves of the same mattes' error, in levels.
@pytest.mark.parametrize(("blur", "before", "pymatting"), [(1, 11.1, 4.85), (4, 7.2, 3.77)])
def test_photographs_are_unmixed_as_well_as_pymatting_does(
    blur: float, before: float, pymatting: float
):
    size = (400, 600)
    true, behind = photograph("coffee", size), photograph("chelsea", size)
    levels = saliency_for(hairy(size, blur))
    share = OPACITY[levels] / 255
    image = mixture(true, behind, share)
    edge = (share > 0.1) & (share < 1)

    def error(colours: np.ndarray) -> float:
        return float(
            (np.abs(colours[edge].astype(float) - true[edge]) * share[edge][:, None]).mean()
        )

    assert error(image) > before
    assert error(cut_out(image, levels)[..., :3]) < pymatting + 1.5


def test_inside_the_object_nothing_changes():
    image, share = photograph("chelsea", (200, 300)), hairy((200, 300), 1)
    levels = saliency_for(share)
    inside = OPACITY[levels] == 255
    assert inside.any()
    np.testing.assert_array_equal(cut_out(image, levels)[inside][:, :3], image[inside])


def test_threads_do_not_disturb_each_other():
    image, levels = photograph("chelsea", (200, 300)), saliency_for(hairy((200, 300), 1))
    with ThreadPoolExecutor(4) as pool:
        first, *others = pool.map(lambda _: cut_out(image, levels), range(8))
    for other in others:
        np.testing.assert_array_equal(other, first)


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (2, 3), (5, 4)])
def test_any_size_is_cut_out(shape: tuple[int, int]):
    grey = np.full((*shape, 3), 90, np.uint8)
    assert (cut_out(grey, np.full(shape, 255, np.uint8)) == [90, 90, 90, 255]).all()
    assert (cut_out(grey, np.full(shape, 128, np.uint8))[..., :3] == 90).all()
    assert (cut_out(grey, np.zeros(shape, np.uint8)) == 0).all()


def test_an_overlay_leaves_the_background_alone():
    image = random_picture((8, 9, 3))
    levels = np.zeros((8, 9), np.uint8)
    levels[2:5, 3:6] = 255
    shown = overlay(image, levels)
    np.testing.assert_array_equal(shown[levels == 0], image[levels == 0])
    assert (shown[levels > 0] != image[levels > 0]).any(1).all()
