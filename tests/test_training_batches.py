"""What training is shown: augmentation, pasted objects, batches."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from hqsod.losses import UNLABELLED
from hqsod.training.batches import Batches, StoredImages, augment, paste
from hqsod.training.examples import Example
from hqsod.training.purnet_recipe import Augmentation
from hqsod.training.store import Store
from tests.training_job import (
    Noise,
    noise_store,
)

CPU = torch.device("cpu")


@given(
    angle=st.floats(0, 45),
    zoom=st.floats(0.7, 1.5),
    flip=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_image_mask_and_superpixels_move_together(
    angle: float, zoom: float, flip: bool, seed: int
) -> None:
    mask = np.zeros((48, 48), np.uint8)
    mask[10:30, 14:40] = 255
    example = Example(np.dstack([mask] * 3), mask, (mask > 0).astype(np.int16))
    settings = Augmentation(flip=flip, rotation=angle, scale=(zoom, zoom))
    changed = augment(example, settings, np.random.default_rng(seed))
    assert (changed.image == changed.mask[..., None]).all()
    labelled = changed.superpixels != UNLABELLED
    # Nearest and linear interpolation may differ by half a pixel at the outline.
    differ = (changed.superpixels == 1) != (changed.mask > 127)
    assert differ[labelled].mean() < 0.02


def test_corners_that_turn_in_belong_to_no_superpixel() -> None:
    example = noise_store(1, 64)[0]
    changed = augment(example, Augmentation(flip=False, rotation=10), np.random.default_rng(1))
    corner = changed.superpixels[:3, :3], changed.superpixels[-3:, -3:]
    assert all((c == UNLABELLED).any() for c in corner)
    assert (changed.superpixels[16:48, 16:48] >= 0).all()


def test_no_augmentation_changes_nothing() -> None:
    example = noise_store(1)[0]
    settings = Augmentation(flip=False, rotation=0)
    changed = augment(example, settings, np.random.default_rng(0))
    for before, after in zip(example, changed, strict=True):
        assert (before == after).all()


def test_a_pasted_object_brings_mask_and_superpixels_along() -> None:
    below, above = noise_store(2)[0], noise_store(2)[1]
    above = above._replace(superpixels=np.where(above.mask > 127, above.superpixels, UNLABELLED))
    joined = paste(below, above)
    pasted = above.mask > 127
    assert (joined.image[pasted] == above.image[pasted]).all()
    assert (joined.image[~pasted] == below.image[~pasted]).all()
    assert (joined.mask == np.maximum(below.mask, above.mask)).all()
    assert set(np.unique(joined.superpixels)) == set(range(18))
    for part in (pasted, ~pasted):  # no superpixel lies in both pictures
        other = above if part is pasted else below
        pairs = set(zip(joined.superpixels[part], other.superpixels[part], strict=True))
        assert len(pairs) == 9


def test_pictures_are_pasted_into_as_often_as_asked() -> None:
    store = noise_store()
    settings = Augmentation(flip=False, rotation=0, paste=0.5)
    data = StoredImages(store, settings)
    changed = [
        bool((data.sample(0, np.random.default_rng(i))["image"] != store[0].image).any())
        for i in range(200)
    ]
    assert 50 < sum(changed) < 110  # half of them, less those that show the picture itself


def test_a_textured_object_has_the_outline_of_one_picture_and_the_surface_of_another() -> None:
    levels = np.array([10, 90, 170, 250], np.uint8)
    image = np.broadcast_to(levels[:, None, None, None], (4, 32, 32, 3))
    mask = np.zeros((4, 32, 32), np.uint8)
    for number in range(4):
        mask[number, 4 : 10 + 5 * number, 8:20] = 255
    labels = np.zeros((4, 32, 32), np.int16)
    arrays = {"image": image, "mask": mask, "superpixels": labels}
    store = Store(tuple("abcd"), arrays, np.arange(4), {})
    data = StoredImages(store, Augmentation(flip=False, rotation=0, paste=1, texture=1))
    seen = set()
    for seed in range(100):
        sample = data.sample(0, np.random.default_rng(seed))
        pasted = sample["image"][..., 0] != levels[0]
        outlines = [i for i in range(4) if (pasted == (mask[i] > 127)).all()]
        if outlines:  # else the surface is that of the picture itself
            (surface,) = np.unique(sample["image"][pasted])
            seen.add((outlines[0], int(np.flatnonzero(levels == surface)[0])))
            assert (sample["mask"][pasted] == 255).all()
    assert seen == {(outline, surface) for outline in range(4) for surface in (1, 2, 3)}


def test_batches_follow_from_the_step_alone() -> None:
    batches = Batches(Noise(), 2, seed=3, rank=0, processes=1, device=CPU)
    whole = list(batches.ahead(0, 7))
    later = list(Batches(Noise(), 2, 3, 0, 1, CPU).ahead(4, 7))
    assert len(whole) == 7
    for a, b in zip(whole[4:], later, strict=True):
        assert all(torch.equal(a[name], b[name]) for name in a)
    assert whole[0]["image"].is_contiguous(memory_format=torch.channels_last)


def test_processes_share_what_one_would_show() -> None:
    one = Batches(Noise(), 4, 3, 0, 1, CPU)
    two = [Batches(Noise(), 2, 3, rank, 2, CPU) for rank in (0, 1)]
    for step in range(3):
        assert one.names(step) == two[0].names(step) + two[1].names(step)
        together = torch.cat([b.make(step)["image"] for b in two])
        assert torch.equal(one.make(step)["image"], together)


def test_every_picture_is_shown_once_before_any_again() -> None:
    batches = Batches(Noise(), 2, 0, 0, 1, CPU)
    epochs = [sorted(batches.index(p) for p in range(e * 5, e * 5 + 5)) for e in range(3)]
    assert epochs == [[0, 1, 2, 3, 4]] * 3
