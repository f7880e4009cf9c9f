"""The judgement of a refined mask: damaged masks are trusted less, and odd ones break nothing."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hqsod.quality.judge import WEIGHTS, explained, judge
from tests.golden import inputs


@pytest.fixture(scope="module")
def cat() -> tuple[np.ndarray, np.ndarray]:
    """An object whose right mask is known, 300 x 450: a textured blob laid over a photograph."""
    picture = np.asarray(inputs.photo("coffee").resize((450, 300))).copy()
    other = np.asarray(inputs.photo("chelsea").resize((450, 300)))
    rows, columns = np.indices((300, 450))
    angle = np.arctan2(rows - 150, columns - 225)
    reach = 80 + 18 * np.sin(3 * angle) + 9 * np.cos(7 * angle)
    mask = np.hypot(rows - 150, columns - 225) < reach
    picture[mask] = 255 - other[mask] // 2
    return picture, (mask * 255).astype(np.uint8)


def score(picture: np.ndarray, mask: np.ndarray, refined: np.ndarray | None = None) -> float:
    return judge(picture, mask, mask if refined is None else refined).score


def cut(mask: np.ndarray) -> np.ndarray:
    damaged = mask.copy()
    damaged[:, 225:] = 0
    return damaged


def shift(mask: np.ndarray) -> np.ndarray:
    return np.roll(mask, 25, axis=1)


def bump(mask: np.ndarray) -> np.ndarray:
    return cv2.circle(mask.copy(), (320, 150), 45, 255, -1)


def hole(mask: np.ndarray) -> np.ndarray:
    return cv2.circle(mask.copy(), (225, 150), 40, 0, -1)


def smooth(mask: np.ndarray) -> np.ndarray:
    return np.where(cv2.GaussianBlur(mask, (0, 0), 28) > 127, np.uint8(255), np.uint8(0))


def noise(mask: np.ndarray) -> np.ndarray:
    clutter = cv2.GaussianBlur(np.random.default_rng(0).normal(size=mask.shape), (0, 0), 2)
    return np.where((mask > 0) ^ (clutter > 0.2), np.uint8(255), np.uint8(0))


DAMAGES = [cut, shift, bump, hole, smooth, noise]


def test_a_right_mask_is_trusted(cat: tuple[np.ndarray, np.ndarray]) -> None:
    assert not judge(cat[0], cat[1], cat[1]).flagged


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_source_is_doubted_though_the_refiner_keeps_it(cat, damage) -> None:
    picture, mask = cat
    assert score(picture, damage(mask)) < 0.75 * score(picture, mask)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_refinement_is_doubted(cat, damage) -> None:
    picture, mask = cat
    quality = judge(picture, mask, damage(mask))
    assert quality.score < 0.75 * score(picture, mask)
    assert quality.change.iou < 0.95


def test_a_contour_that_moved_is_no_fault(cat) -> None:
    """Two pixels of the small mask, eight of the enlarged one, anywhere; a wider patch is one."""
    picture, mask = (cv2.resize(x, (1280, 853), interpolation=cv2.INTER_CUBIC) for x in cat)
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (17, 17))
    for moved in (cv2.dilate(mask, disk), cv2.erode(mask, disk), np.roll(mask, 8, 1)):
        quality = judge(picture, mask, moved)
        assert quality.change.iou < 0.97
        assert quality.change.mended < 0.003
        assert not quality.flagged
    bumped = cv2.resize(bump(cat[1]), (1280, 853), interpolation=cv2.INTER_CUBIC)
    assert judge(picture, mask, bumped).change.mended > 0.05
    assert judge(picture, mask, mask).change.mended == 0


def test_fog_is_doubted_and_a_soft_edge_is_not(cat) -> None:
    picture, mask = cat
    fog = np.where(mask > 0, np.uint8(140), np.uint8(0))
    assert judge(picture, mask, fog).flagged
    assert judge(picture, mask, fog).change.fog > 0.3
    soft = cv2.GaussianBlur(mask, (0, 0), 2)
    assert judge(picture, mask, soft).change.fog < 0.01


def test_a_network_that_sees_something_else_is_heard(cat) -> None:
    picture, mask = cat
    seen = (mask, cut(mask), 255 - mask)
    same, half, other = (judge(picture, mask, mask, cv2.resize(m, (90, 60))) for m in seen)
    assert same.score == pytest.approx(score(picture, mask))
    assert half.score == pytest.approx(same.score * half.as_dict()["prediction_iou"] / 0.8)
    assert other.score < 0.1 * half.score
    assert not same.flagged
    assert other.as_dict()["prediction_iou"] < 0.1
    assert "prediction_iou" not in judge(picture, mask, mask).as_dict()


def test_a_larger_copy_is_judged_the_same(cat) -> None:
    picture, mask = cat
    large = [cv2.resize(x, (1800, 1200), interpolation=cv2.INTER_CUBIC) for x in (picture, mask)]
    assert score(*large) == pytest.approx(score(picture, mask), abs=0.1)


@pytest.mark.parametrize("level", [0, 255])
def test_a_mask_without_contour_is_not_trusted(cat, level: int) -> None:
    flat = np.full_like(cat[1], level)
    quality = judge(cat[0], flat, flat)
    assert (quality.score, quality.figures) == (0.0, None)
    assert all(isinstance(value, float) for value in quality.as_dict().values())


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_any_mask_gets_finite_figures(height: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    picture = rng.integers(0, 256, (height, width, 3), np.uint8)
    before, after = (rng.integers(0, 256, (height, width), np.uint8) for _ in range(2))
    quality = judge(picture, before, after)
    assert all(np.isfinite(value) for value in quality.as_dict().values())
    assert 0 <= quality.score <= 1


def test_every_figure_has_a_weight(cat) -> None:
    without = explained(judge(cat[0], cat[1], cat[1]))
    assert without.keys() == set(WEIGHTS)
    seen = explained(judge(cat[0], cat[1], cat[1], cat[1]))
    assert seen.keys() == {*WEIGHTS, "prediction_iou"}
