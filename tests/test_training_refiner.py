"""Training the refiner: what it is shown, what it is told, how it is scored, and the job whole."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from hqsod import weights
from hqsod.dataset.layouts import find_pairs
from hqsod.errors import InputError, SettingsError, WeightsError
from hqsod.metrics.regions import mask_iou
from hqsod.models.compact_refiner import CompactRefiner, build_compact_refiner
from hqsod.training.damaged_pairs import TARGET, Damage, DamagedMasks, held_out_cases
from hqsod.training.job import train
from hqsod.training.plan import TrainingPlan
from hqsod.training.recipes import TrainingRecipe, read_recipe
from hqsod.training.refiner import (
    RefinerRecipe,
    RefinerTask,
    divide_pairs,
    refinement_loss,
    stages,
)
from hqsod.training.task import DataFolders, Prepared

from .conftest import save

SHORT = [
    "widths=[8, 12, 16]",
    "holdout=0.3",
    "damage.crop=64",
    "loop.steps=60",
    "loop.batch=4",
    "loop.rates.refiner=1e-2",
    "loop.optimizer.warmup=5",
    "loop.optimizer.average=0.9",
    "loop.pace.validation=60",
]


def prepared(recipe: TrainingRecipe, folder: Path) -> Prepared:
    assert isinstance(recipe, RefinerRecipe)
    (stage,) = stages(recipe, DataFolders(folder), folder)
    return stage.prepare()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve easy pairs: a bright ellipse on dark noise."""
    random = np.random.default_rng(0)
    for number in range(12):
        truth = np.zeros((96, 112), np.uint8)
        centre, axes = random.integers(40, 60, 2).tolist(), random.integers(14, 34, 2).tolist()
        cv2.ellipse(truth, centre, axes, float(random.uniform(0, 180)), 0, 360, 255, -1)
        image = random.integers(0, 90, (96, 112, 3)) + 120 * (truth[..., None] > 0)
        save(tmp_path / "data" / "images" / f"{number}.png", image.astype(np.uint8))
        save(tmp_path / "data" / "masks" / f"{number}.png", truth)
    return tmp_path / "data"


def test_crops_are_damaged_square_and_follow_from_the_seed(folder: Path) -> None:
    data = DamagedMasks(find_pairs(folder), Damage(crop=64, intact=0))
    wrong = []
    for index in range(len(data)):
        sample, again = (data.sample(index, np.random.default_rng(7)) for _ in range(2))
        assert {n: x.shape for n, x in sample.items()} == {
            "image": (64, 64, 3),
            "mask": (64, 64, 1),
            "truth": (64, 64, 1),
        }
        assert all(np.array_equal(sample[name], again[name]) for name in sample)
        assert set(np.unique(sample["truth"])) <= {0, 255}
        wrong.append(np.mean((sample["mask"] > 127) != (sample["truth"] > 127)))
    assert 0.01 < np.mean(wrong) < 0.5


def test_picture_and_masks_stay_on_each_other(folder: Path) -> None:
    """However it is cropped, resized and flipped, the object stays the bright part."""
    data = DamagedMasks(find_pairs(folder), Damage(crop=64, colour=0, degraded=0))
    for index in range(len(data)):
        sample = data.sample(index, np.random.default_rng(index))
        bright = sample["image"].mean(-1) > 105
        inside = cv2.erode(sample["truth"][..., 0], np.ones((5, 5), np.uint8)) > 0
        outside = cv2.dilate(sample["truth"][..., 0], np.ones((5, 5), np.uint8)) == 0
        assert bright[inside].mean() > 0.95
        assert bright[outside].mean() < 0.05


def test_held_out_masks_are_damaged_as_far_as_asked(folder: Path) -> None:
    pairs = find_pairs(folder)
    damaged, again = list(held_out_cases(pairs)), list(held_out_cases(pairs[::-1]))[::-1]
    for case, same, intact in zip(damaged, again, held_out_cases(pairs, intact=True), strict=True):
        assert TARGET[0] - 0.011 <= mask_iou(case.mask, case.truth) <= TARGET[1]
        assert np.array_equal(case.mask, same.mask)
        assert mask_iou(intact.mask, case.truth) > TARGET[1]


def test_the_loss_is_least_for_the_truth() -> None:
    torch.manual_seed(0)
    truth = (torch.rand(3, 1, 16, 16) > 0.5).float()
    sure, unsure, wrong = (
        refinement_loss(scale * (2 * truth - 1), truth) for scale in (20.0, 0.5, -20.0)
    )
    for name in sure:
        assert sure[name] < unsure[name] < wrong[name]
        assert sure[name] == pytest.approx(0, abs=1e-6)


def test_the_contour_counts_for_itself() -> None:
    truth = torch.zeros(1, 1, 16, 16)
    truth[..., 4:12, 4:12] = 1
    right = 8 * (2 * truth - 1)
    on_contour, far_away = right.clone(), right.clone()
    on_contour[..., 4, 4:12] *= -1
    far_away[..., 0, 4:12] *= -1
    terms = [refinement_loss(logits, truth)["contour"] for logits in (right, far_away, on_contour)]
    assert terms[0] == terms[1] < 0.01
    # 8 of 60 pixels on either side of the contour are wrong by a logit of 8.
    assert terms[2].item() == pytest.approx(8 * 8 / 60, rel=0.01)


def test_untrained_it_changes_nothing(folder: Path) -> None:
    pairs = find_pairs(folder)
    task = RefinerTask(CompactRefiner((8, 12, 16)), DamagedMasks(pairs, Damage()), pairs)
    validation = task.validate(task.network.eval())
    assert validation is not None
    assert validation.scores["error_gone"] == 0
    assert validation.scores["worse"] == 0
    assert validation.sheet.shape[1:] == (4 * 200, 3)


def test_the_job_whole(folder: Path, tmp_path: Path) -> None:
    """The recipe, made short: what it wrote mends masks of pictures it has not seen."""
    (folder / "images" / "broken.png").write_bytes(b"\x89PNG")
    (folder / "masks" / "broken.png").write_bytes((folder / "masks" / "0.png").read_bytes())
    recipe = read_recipe("refiner", SHORT)
    assert isinstance(recipe, RefinerRecipe)
    plan = TrainingPlan(data=folder, recipe=recipe, device="cpu", precision="float32")
    outcome = train(plan, tmp_path / "run")
    assert set(outcome.rejected) == {"broken"}
    network = build_compact_refiner(weights.load(outcome.weights))
    task = prepared(recipe, folder).task
    validation = task.validate(network)
    assert validation is not None
    assert validation.scores["error_gone"] > 0.2
    assert validation.scores["worse"] < 0.3

    again = recipe.model_copy(update={"start": str(outcome.weights)})
    begun = prepared(again, folder).task
    for name, tensor in network.state_dict().items():
        assert torch.equal(begun.network.state_dict()[name], tensor)
    extractor = weights.load(weights.resolve(recipe.start))
    for name, tensor in extractor.items():  # it has no rate, so it stays as it was
        assert torch.equal(network.extractor.state_dict()[name], tensor.float())
    with pytest.raises(WeightsError, match="of widths"):
        prepared(again.model_copy(update={"widths": (8, 16)}), folder)


def test_it_goes_on_from_the_refiner_that_ships(folder: Path) -> None:
    """As docs/training.md has it; that file holds another step's network too."""
    recipe = read_recipe("refiner", ["start=hqsod-refiner-small"])
    assert isinstance(recipe, RefinerRecipe)
    shipped = weights.load(weights.resolve("hqsod-refiner-small"))
    for name, tensor in prepared(recipe, folder).task.network.state_dict().items():
        assert torch.equal(tensor, shipped[f"mending.{name}"].to(tensor.dtype))


def test_masks_of_a_built_data_set_are_named_alone(folder: Path) -> None:
    (folder / "masks").rename(folder / "hq-masks")
    pairs = divide_pairs(DataFolders(folder, masks="hq-masks"), 0.1)
    assert {pair.mask.parent.name for pair in pairs.usable} == {"hq-masks"}


def test_held_out_masks_without_an_object_are_no_error(folder: Path) -> None:
    for file in (folder / "masks").iterdir():
        save(file, np.zeros((96, 112), np.uint8))
    task = prepared(read_recipe("refiner", SHORT), folder).task
    validation = task.validate(deepcopy(task.network).eval())
    assert validation is not None
    assert np.isfinite(validation.error)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("start=random", "a learning rate for the extractor"),
        ("damage.crop=200", "multiple of 32"),
        ("widths=[8, 8, 8, 8, 8, 8]", "multiple of 64"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused_in_a_line(change: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said) as refusal:
        read_recipe("refiner", [change])
    assert len(str(refusal.value)) < 200
    rates = "loop.rates={refiner=1e-3, extractor=1e-3}"
    assert isinstance(read_recipe("refiner", ["start=random", rates]), RefinerRecipe)


def test_weights_of_another_network_are_refused_in_a_line(folder: Path) -> None:
    recipe = read_recipe("refiner", ["start=purnet-light"])
    with pytest.raises(
        WeightsError, match=r"start = purnet-light.*or efficientnet-lite0"
    ) as refusal:
        prepared(recipe, folder)
    assert len(str(refusal.value)) < 400


def test_a_folder_without_usable_pairs_is_refused(tmp_path: Path) -> None:
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "a.png").write_bytes(b"\x89PNG")
    recipe = read_recipe("refiner")
    assert isinstance(recipe, RefinerRecipe)
    with pytest.raises(InputError, match="no pair can be used"):
        prepared(recipe, tmp_path)
