"""Training the upscaler: what it is shown, how it is scored, and the job whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio

from hqsod import images, weights
from hqsod.errors import InputError, SettingsError
from hqsod.models.small_upscaler import SmallUpscaler, UpscalerSizes, build_small_upscaler
from hqsod.training.job import train
from hqsod.training.photo_degradation import Degradation
from hqsod.training.plan import TrainingPlan
from hqsod.training.recipes import read_recipe
from hqsod.training.upscaler import (
    DegradedPhotographs,
    Patches,
    UpscalerTask,
    find_photographs,
    luma_psnr,
    reduce,
)

from .conftest import random_picture, save
from .golden import inputs

CLEAN = Degradation(clean=1, compressed=0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two photographs, neither side a multiple of 4."""
    for name, box in (("chelsea", (90, 40, 293, 199)), ("coffee", (100, 60, 247, 241))):
        inputs.photo(name).crop(box).save(tmp_path / f"{name}.png")
    return tmp_path


def task(folder: Path) -> UpscalerTask:
    torch.manual_seed(0)
    paths = images.find_images(folder)
    data = DegradedPhotographs(paths, 4, Patches(side=12, each=2), Degradation())
    return UpscalerTask(SmallUpscaler(UpscalerSizes(features=8, blocks=1)), data, paths[:1])


def test_psnr_is_the_fields() -> None:
    """scikit-image's conversion is that of BT.601 in video range, its PSNR the plain one."""
    truth = np.asarray(inputs.photo("chelsea"))[:80, :120]
    image = images.resize(reduce(truth, 4), (80, 120), Image.Resampling.BICUBIC)
    first, second = (rgb2ycbcr(x)[4:-4, 4:-4, 0] for x in (truth, image))
    expected = peak_signal_noise_ratio(first, second, data_range=255)
    assert luma_psnr(image, truth, 4) == pytest.approx(expected, abs=1e-6)
    assert np.isfinite(luma_psnr(truth, truth, 4))


def test_patches_fit_each_other(folder: Path) -> None:
    """A large patch reduced is the small one, away from the border, however it is turned."""
    data = DegradedPhotographs(images.find_images(folder), 4, Patches(side=16, each=8), CLEAN)
    for seed in range(4):
        sample = data.sample(seed % 2, np.random.default_rng(seed))
        assert sample["small"].shape == (8, 16, 16, 3)
        assert sample["large"].shape == (8, 64, 64, 3)
        for small, large in zip(sample["small"], sample["large"], strict=True):
            difference = np.abs(reduce(large, 4).astype(int) - small)[2:-2, 2:-2]
            assert difference.max() <= 1


def test_photographs_that_cannot_be_used_are_named(folder: Path) -> None:
    save(folder / "tiny.png", random_picture((40, 200, 3)))
    (folder / "broken.png").write_bytes((folder / "coffee.png").read_bytes()[:2000])
    usable, rejected = find_photographs(folder, None, 64)
    assert [path.stem for path in usable] == ["chelsea", "coffee"]
    assert set(rejected) == {"tiny", "broken"}
    assert "200 x 40" in rejected["tiny"]


def test_untrained_it_gains_nothing(folder: Path) -> None:
    upscaler = task(folder)
    validation = upscaler.validate(upscaler.network.eval())
    assert validation is not None
    assert validation.scores == pytest.approx({"clean_gain": 0, "compressed_gain": 0}, abs=0.02)
    assert validation.sheet.shape[1:] == (3 * 240, 3)


def test_the_job_whole(folder: Path, tmp_path: Path) -> None:
    """The recipe, made short: what it wrote enlarges better than bicubic does."""
    changes = ["network.features=8", "network.blocks=1", "patches.side=12", "patches.each=2"]
    changes += ["loop.steps=100", "loop.rates.upscaler=1e-2", "loop.optimizer.warmup=5"]
    changes += ["loop.optimizer.average=0.9", "loop.optimizer.clip=0.1", "loop.pace.validation=100"]
    recipe = read_recipe("upscaler", changes)
    (folder / "broken.png").write_bytes((folder / "coffee.png").read_bytes()[:2000])
    plan = TrainingPlan(
        data=folder, validation=folder, recipe=recipe, device="cpu", precision="float32"
    )
    outcome = train(plan, tmp_path / "run")
    assert set(outcome.rejected) == {"broken"}
    assert (tmp_path / "run" / "run" / "samples" / "step-00000100.jpg").is_file()
    (folder / "broken.png").unlink()
    validation = task(folder).validate(build_small_upscaler(weights.load(outcome.weights)))
    assert validation is not None
    assert validation.scores["clean_gain"] > 0.08
    assert train(plan, tmp_path / "run", resume=True).weights == outcome.weights


@pytest.mark.parametrize("option", ["stages", "overfit", "masks"])
def test_options_of_other_networks_are_refused(option: str, folder: Path, tmp_path: Path) -> None:
    given = {"stages": (2,), "overfit": 2, "masks": "masks"}[option]
    plan = TrainingPlan.model_validate(
        {"data": folder, "recipe": read_recipe("upscaler"), "precision": "float32", option: given}
    )
    with pytest.raises(SettingsError, match=option):
        train(plan, tmp_path / "run")


def test_a_folder_without_photographs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no photograph"):
        find_photographs(tmp_path, None, 64)
    with pytest.raises(InputError, match="no such folder"):
        find_photographs(tmp_path, "images", 64)


def test_a_recipe_for_nothing_known_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text('task = "painter"')
    with pytest.raises(SettingsError, match="one of purnet, upscaler"):
        read_recipe(str(file))
