"""Degradation: sizes, shares, strength, and the same again from the same seed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from hqsod import images
from hqsod.images import Array
from hqsod.training.photo_degradation import Degradation, compress, degrade

from .golden import inputs


def photo() -> Array:
    return np.asarray(inputs.photo("chelsea"))[:96, 100:228]


def reduced() -> Array:
    return images.resize(photo(), (24, 32), Image.Resampling.BICUBIC)


@given(st.integers(0, 2**32), st.sampled_from([2, 4]))
def test_any_degradation_keeps_type_and_proportions(seed: int, scale: int) -> None:
    result = degrade(photo(), scale, Degradation(), np.random.default_rng(seed))
    assert result.shape == (96 // scale, 128 // scale, 3)
    assert result.dtype == np.uint8


def test_the_same_seed_degrades_the_same_way() -> None:
    settings = Degradation(clean=0, compressed=0)
    first, again, other = (
        degrade(photo(), 4, settings, np.random.default_rng(seed)) for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_clean_pictures_are_only_reduced() -> None:
    clean = degrade(photo(), 4, Degradation(clean=1, compressed=0), np.random.default_rng(0))
    np.testing.assert_array_equal(clean, reduced())


def test_compressed_pictures_are_reduced_and_compressed() -> None:
    settings = Degradation(clean=0, compressed=1, quality=(40, 41))
    worn = degrade(photo(), 4, settings, np.random.default_rng(0))
    assert any((worn == compress(reduced(), quality)).all() for quality in (40, 41))


def test_worn_pictures_stay_where_they_were() -> None:
    """What a whole chain loses is detail: brightness and position stay."""
    settings = Degradation(clean=0, compressed=0, noise=(0, 5))
    rng = np.random.default_rng(1)
    mean = np.mean([degrade(photo(), 4, settings, rng) for _ in range(40)], 0)
    assert abs(mean.mean() - reduced().mean()) < 2
    moved = [np.abs(np.roll(mean, x, 1) - reduced())[:, 2:-2].mean() for x in (-1, 0, 1)]
    assert min(moved) == moved[1]


def test_lower_quality_loses_more() -> None:
    losses = [np.abs(compress(photo(), quality) - 1.0 * photo()).mean() for quality in (90, 60, 30)]
    assert 0 < losses[0] < losses[1] < losses[2]


@pytest.mark.parametrize("wrong", [{"clean": 0.8}, {"blur": (0, 1)}, {"quality": (30, 101)}])
def test_settings_are_checked(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Degradation.model_validate(wrong)
