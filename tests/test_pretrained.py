"""The weights that come with hqsod: whole, small, described, and good for something."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from skimage import data

import hqsod
from hqsod import images, metrics, weights
from hqsod.building.recipes import RECIPES
from hqsod.inference.refiner import load_refiner
from hqsod.inference.runtime import Runtime
from hqsod.inference.saliency import DEFAULT
from hqsod.inference.upscaler import load_upscaler
from hqsod.masks import binarise
from hqsod.metrics.regions import mask_iou
from hqsod.training.contour_wear import enlarge_mask
from hqsod.training.mask_damage import enlarge, perturb
from hqsod.training.recipes import read_recipe
from hqsod.training.upscaler import luma_psnr

ROOT = Path(__file__).parents[1]
SHIPPED = [file for file in weights.registry().values() if not file.urls]
LIMIT = 40e6  # bytes, together
CPU = torch.device("cpu")


def pair(name: str, side: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """One of the demo's photographs with its hand-traced mask, the long side `side` pixels."""
    photo = np.ascontiguousarray(getattr(data, name)()[..., :3])
    mask = Image.new("L", photo.shape[1::-1])
    for polygon in json.loads((ROOT / "demo/outlines.json").read_text())[name]:
        ImageDraw.Draw(mask).polygon([(x, y) for x, y in polygon], fill=255)
    factor = side / max(photo.shape)
    size = (round(photo.shape[0] * factor), round(photo.shape[1] * factor))
    small = (images.resize(x, size, Image.Resampling.BOX) for x in (photo, np.array(mask)))
    photo, shape = small
    return photo, binarise(shape)


def test_what_the_jobs_use_comes_with_hqsod() -> None:
    recipe = RECIPES["preview"]
    started = (
        read_recipe("refiner"),
        read_recipe("quick").stage1,
        read_recipe("purnet-light").stage1,
    )
    assert {file.name for file in SHIPPED} == {
        recipe.upscaler,
        recipe.refiner,
        recipe.predictor,
        DEFAULT,
        *(training.start for training in started),
    }


def test_together_they_are_small() -> None:
    assert sum(file.path.stat().st_size for file in SHIPPED) < LIMIT


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.name)
def test_each_is_whole_and_has_a_card(file: weights.WeightFile) -> None:
    assert weights.is_intact(file.path, file.digest)
    assert file.path.stat().st_size == file.size
    card = file.path.with_suffix(".md").read_text("utf-8")
    assert card.startswith(f"# {file.name}\n")
    for needed in ("Data", "Recipe", "Training", "Licence", "## Scores", "## What it is bad at"):
        assert needed in card
    assert "larger" in weights.describe(file.name)


@pytest.mark.parametrize("name", ["chelsea", "coffee", "astronaut"])
def test_the_upscaler_beats_bicubic(name: str) -> None:
    truth, _ = pair(name)
    truth = truth[: truth.shape[0] // 4 * 4, : truth.shape[1] // 4 * 4]
    height, width = truth.shape[:2]
    small = images.resize(truth, (height // 4, width // 4), Image.Resampling.BICUBIC)
    bicubic = images.resize(small, (height, width), Image.Resampling.BICUBIC)
    (ours,) = load_upscaler(RECIPES["preview"].upscaler, Runtime())([small])
    assert luma_psnr(ours, truth, 4) > luma_psnr(bicubic, truth, 4) + 0.3


@pytest.mark.parametrize("name", ["chelsea", "coffee", "astronaut"])
def test_the_refiner_mends_masks_and_leaves_good_ones_alone(name: str) -> None:
    image, truth = pair(name)
    refiner = load_refiner(RECIPES["preview"].refiner, Runtime())
    assert refiner is not None
    rng = np.random.default_rng(0)
    before, after = [], []
    for _ in range(5):
        damaged = perturb(enlarge(truth, 4), truth, 0.9, rng)
        before.append(1 - mask_iou(damaged, truth))
        after.append(1 - mask_iou(binarise(refiner(image, damaged)), truth))
    assert np.mean(after) < 0.9 * np.mean(before)
    assert mask_iou(binarise(refiner(image, truth)), truth) > 0.98


@pytest.mark.parametrize("soft", [True, False], ids=["soft", "binary"])
def test_the_refiner_beats_the_upscaled_mask(soft: bool) -> None:
    """The build's own task, of the demo's masks: less error everywhere.

    The outlines are traced to a pixel or two, so only of a binary mask is the contour known worse.
    """
    upscaler = load_upscaler(RECIPES["preview"].upscaler, Runtime())
    refiner = load_refiner(RECIPES["preview"].refiner, Runtime())
    assert refiner is not None
    gains = []
    for name in ("chelsea", "coffee", "astronaut", "rocket"):
        image, truth = (layer[: layer.shape[0] // 4 * 4, :400] for layer in pair(name))
        size = truth.shape[0] // 4, truth.shape[1] // 4
        (large,) = upscaler([images.resize(image, size, Image.Resampling.BICUBIC)])
        small = images.resize(truth, size, Image.Resampling.BOX)
        mask = enlarge_mask(small if soft else binarise(small))
        before, after = (metrics.compare(m, truth) for m in (mask, refiner(large, mask)))
        gains.append(metrics.mba(after) - metrics.mba(before))
        assert metrics.mae(after) < metrics.mae(before), name
    assert soft or min(gains) > 0
    assert soft or np.mean(gains) > 0.02


def test_the_predictor_sees_what_a_person_sees() -> None:
    predict = hqsod.Predictor(precision="float32")
    scores = {}
    for name in ("chelsea", "coffee", "astronaut", "rocket"):
        image, truth = pair(name)
        saliency = (predict(image) * 255).round().astype(np.uint8)
        scores[name] = metrics.score(saliency, truth)["s_measure"]
    assert np.mean(list(scores.values())) > 0.6, scores
