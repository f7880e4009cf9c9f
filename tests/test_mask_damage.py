import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hqsod.metrics.regions import mask_iou
from hqsod.training.mask_damage import enlarge, perturb, roughen


def blob(seed: int, side: int = 160) -> np.ndarray:
    """An uneven object with a hole."""
    random = np.random.default_rng(seed)
    angles = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    radii = side * (0.3 + 0.1 * np.sin(3 * angles + random.uniform(0, 6)))
    outline = side / 2 + np.stack([np.cos(angles), np.sin(angles)], 1) * radii[:, None]
    mask = cv2.fillPoly(np.zeros((side, side), np.uint8), [outline.astype(np.int32)], 255)
    return cv2.circle(mask, (side // 2, side // 2), side // 12, 0, -1)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), target=st.floats(0.7, 0.98))
def test_damage_ends_at_its_target(seed: int, target: float) -> None:
    truth = blob(seed)
    damaged = perturb(truth, truth, target, np.random.default_rng(seed))
    assert damaged.shape == truth.shape
    assert set(np.unique(damaged)) <= {0, 255}
    assert target - 0.011 <= mask_iou(damaged, truth) <= target


def test_damage_follows_from_the_seed_and_leaves_its_inputs_alone() -> None:
    truth = blob(1)
    kept = truth.copy()
    first, again, other = (
        perturb(truth, truth, 0.85, np.random.default_rng(seed)) for seed in (3, 3, 4)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert np.array_equal(truth, kept)


def test_a_mask_that_is_bad_enough_is_left_alone() -> None:
    truth = blob(2)
    bad = cv2.erode(truth, np.ones((15, 15), np.uint8))
    assert np.array_equal(perturb(bad, truth, 0.95, np.random.default_rng(0)), bad)


@pytest.mark.parametrize("level", [0, 255])
def test_masks_without_a_contour_pass(level: int) -> None:
    flat = np.full((40, 50), level, np.uint8)
    assert perturb(flat, flat, 0.9, np.random.default_rng(0)).shape == flat.shape


def test_roughening_moves_the_contour_and_keeps_the_hole() -> None:
    truth = blob(5)
    rough = roughen(truth, 0.1, np.random.default_rng(0))
    assert 0.8 < mask_iou(rough, truth) < 1
    assert rough[80, 80] == 0


def test_enlarging_loses_what_is_finer_than_the_factor() -> None:
    truth = blob(7)
    truth[10, 10] = 255
    back = enlarge(truth, 4)
    assert back[10, 10] == 0
    assert 0.95 < mask_iou(back, truth) < 1
    assert np.array_equal(enlarge(truth, 1), truth)
    assert mask_iou(enlarge(truth, 4, Image.Resampling.NEAREST), truth) < mask_iou(back, truth)
