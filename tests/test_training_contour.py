"""Training the contour refiner: what it is shown, what it is told, and the job whole."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from hqsod import weights
from hqsod.dataset.layouts import find_pairs
from hqsod.errors import SettingsError
from hqsod.inference.refiner import load_refiner
from hqsod.inference.runtime import Runtime
from hqsod.inference.upscaler import Bicubic
from hqsod.training.contour import ContourRecipe, contour_loss, stages
from hqsod.training.contour_pairs import Crops, ReducedPairs, reduced_cases
from hqsod.training.contour_wear import SCALE, Wear, displace, enlarge_mask, reduce_mask
from hqsod.training.job import train
from hqsod.training.plan import TrainingPlan
from hqsod.training.recipes import read_recipe
from hqsod.training.task import DataFolders

from .conftest import save

SHORT = [
    "widths=[8, 12]",
    "upscaler=bicubic",
    "holdout=0.3",
    "crops.side=64",
    "wear.binary=1",
    "loop.steps=150",
    "loop.batch=4",
    "loop.rates.contour=1e-2",
    "loop.optimizer.warmup=5",
    "loop.optimizer.average=0.9",
    "loop.pace.validation=150",
]
INTACT = Wear(intact=1, binary=0, blurred=0, compressed=0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve easy pairs: a bright ellipse with a soft edge on dark noise."""
    random = np.random.default_rng(0)
    for number in range(12):
        truth = np.zeros((97, 114), np.uint8)
        centre, axes = random.integers(40, 60, 2).tolist(), random.integers(14, 34, 2).tolist()
        angle = float(random.uniform(0, 180))
        cv2.ellipse(truth, centre, axes, angle, 0, 360, 255, -1, cv2.LINE_AA)
        image = random.integers(0, 40, (97, 114, 3)) + 160 * (truth[..., None] / 255)
        save(tmp_path / "data" / "images" / f"{number}.png", image.astype(np.uint8))
        save(tmp_path / "data" / "masks" / f"{number}.png", truth)
    return tmp_path / "data"


def test_crops_are_square_and_follow_from_the_seed(folder: Path) -> None:
    data = ReducedPairs(find_pairs(folder), Bicubic(), Wear(), Crops(side=64))
    for index in range(len(data)):
        sample, again = (data.sample(index, np.random.default_rng(7)) for _ in range(2))
        assert {n: x.shape for n, x in sample.items()} == {
            "image": (64, 64, 3),
            "mask": (64, 64, 1),
            "truth": (64, 64, 1),
        }
        assert all(np.array_equal(sample[name], again[name]) for name in sample)
        assert sample["truth"].min() < 127 < sample["truth"].max()  # there is contour in it


def test_picture_mask_and_truth_stay_on_each_other(folder: Path) -> None:
    """However a pair is cropped, turned and flipped; the mask is what the build would have made."""
    crops = Crops(side=64, blurred=0, colour=0)
    data = ReducedPairs(find_pairs(folder), Bicubic(), INTACT, crops)
    for index in range(len(data)):
        sample = data.sample(index, np.random.default_rng(index))
        truth = sample["truth"][..., 0].astype(int)
        assert np.abs(sample["mask"][..., 0] - truth).mean() < 12
        bright = sample["image"].mean(-1) > 100
        assert (bright == (truth > 127)).mean() > 0.95


def test_worn_masks_are_off_by_about_a_small_pixel(folder: Path) -> None:
    truth = np.zeros((160, 160), np.uint8)
    truth = np.asarray(cv2.circle(truth, (80, 80), 50, 255, -1, cv2.LINE_AA), np.uint8)
    within = cv2.dilate(truth, np.ones((65, 65))) > cv2.erode(truth, np.ones((65, 65)))
    off = []
    for seed in range(30):
        mask = enlarge_mask(reduce_mask(truth, Wear(intact=0), np.random.default_rng(seed)))
        assert mask.shape == truth.shape
        assert np.array_equal(mask[~within] > 127, truth[~within] > 127)
        off.append(np.count_nonzero((mask > 127) != (truth > 127)) / (2 * np.pi * 50))
    assert 0.3 < np.median(off) < SCALE
    right = enlarge_mask(reduce_mask(truth, INTACT, np.random.default_rng(0)))
    assert np.count_nonzero((right > 127) != (truth > 127)) / (2 * np.pi * 50) < 0.3


def test_displacing_keeps_the_size_of_any_mask() -> None:
    for shape in ((1, 1), (5, 90), (200, 33)):
        mask = np.full(shape, 255, np.uint8)
        assert np.array_equal(displace(mask, np.random.default_rng(0)), mask)


def test_held_out_pairs_follow_from_their_names(folder: Path) -> None:
    pairs = find_pairs(folder)
    cases = list(reduced_cases(pairs, Bicubic(), Wear()))
    again = list(reduced_cases(pairs[::-1], Bicubic(), Wear()))[::-1]
    for case, same in zip(cases, again, strict=True):
        assert case.image.shape == (96, 112, 3)
        assert case.mask.shape == case.truth.shape == (96, 112)
        assert np.array_equal(case.mask, same.mask)


def test_the_loss_is_least_for_the_truth_and_blind_far_from_the_contour() -> None:
    truth = torch.zeros(1, 1, 128, 128)
    truth[..., 32:96, 32:96] = 1
    sure, unsure, wrong = (
        sum(contour_loss(scale * (2 * truth - 1), truth, truth).values())
        for scale in (20.0, 0.5, -20.0)
    )
    assert sure < unsure < wrong
    far = 20 * (2 * truth - 1)
    far[..., :4, :4] *= -1
    assert sum(contour_loss(far, truth, truth).values()) == sure
    nothing = contour_loss(torch.zeros_like(truth), torch.zeros_like(truth), truth)
    assert all(term == 0 for term in nothing.values())


def test_the_job_whole(folder: Path, tmp_path: Path) -> None:
    """The recipe, made short: one file that is a whole refiner, and draws contours better."""
    recipe = read_recipe("contour", SHORT)
    assert isinstance(recipe, ContourRecipe)
    plan = TrainingPlan(data=folder, recipe=recipe, device="cpu", precision="float32")
    outcome = train(plan, tmp_path / "run")
    state = weights.load(outcome.weights)
    assert {name.split(".")[0] for name in state} == {"contour", "mending"}
    assert load_refiner(str(outcome.weights), Runtime()) is not None

    (stage,) = stages(recipe, DataFolders(folder), folder)
    task = stage.prepare().task
    untrained = task.validate(task.network.eval())
    assert untrained is not None
    assert untrained.error == 0
    assert untrained.sheet.shape[1:] == (4 * 200, 3)
    task.network.load_state_dict(state)
    trained = task.validate(task.network.eval())
    assert trained is not None
    assert trained.scores["worn_gain"] > 0.02


def test_a_recipe_that_cannot_be_is_refused_in_a_line() -> None:
    with pytest.raises(SettingsError, match="multiple of 16"):
        read_recipe("contour", ["crops.side=200"])
