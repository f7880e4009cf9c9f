"""How PurNet is trained: its parts, what each loss moves, where a stage starts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from hqsod import weights
from hqsod.errors import SettingsError, WeightsError
from hqsod.models.purnet import BACKBONES, build_purnet
from hqsod.training import loop
from hqsod.training.examples import find_training_set
from hqsod.training.purnet import PurNetTask, _stores, fill, stages
from hqsod.training.purnet_recipe import PurNetRecipe
from hqsod.training.recipes import read_recipe
from hqsod.training.task import DataFolders
from hqsod.training.trainer import Trainer
from tests.training_job import (
    CHANGES,
    Noise,
    noise_store,
    purnet_trainer,
    tiny,
)

ROOT = Path(__file__).parents[1]


def test_parts_have_the_sizes_of_the_published_network() -> None:
    recipe = read_recipe("purnet")
    assert isinstance(recipe, PurNetRecipe)
    task = PurNetTask(build_purnet(), recipe.stage3, Noise(), noise_store(0))
    sizes = {n: sum(p.numel() for p in part.parameters()) for n, part in task.parts.items()}
    golden = json.loads((ROOT / "tests/golden/purnet_losses.json").read_text())["parameter_counts"]
    assert sizes["extractor"] + sizes["purificatory"] == golden["main"]
    assert sizes["promotion"] == golden["promotion"]
    assert sizes["rectification"] == golden["rectification"]


@pytest.mark.parametrize(
    ("stage", "parts"),
    [
        ("stage1", {"extractor", "purificatory"}),
        ("stage2", {"extractor", "purificatory", "promotion", "rectification"}),
        ("stage3", {"extractor", "purificatory", "promotion", "rectification"}),
    ],
)
def test_which_parameters_move(stage: str, parts: set[str]) -> None:
    trainer, batches = purnet_trainer(Accelerator(cpu=True), Noise(), stage)
    before = {n: p.clone() for n, p in trainer.network.named_parameters()}
    for batch in batches.ahead(0, 3):  # a bias that starts at 0 may need a second step
        trainer.train(batch, batches.names)
    after = dict(trainer.network.named_parameters())
    still = [n for n in before if torch.equal(before[n], after[n])]
    # What a BatchNorm follows has a bias without effect; only rounding moves it, if anything.
    assert [n for n in still if not n.endswith(".bias")] == []
    assert {n.split(".")[0] for n in before} == parts


def test_frozen_blocks_stay_as_they_begin_with_stem_and_batchnorm() -> None:
    network, stage = build_purnet("efficientnet-lite0", 8, ()), tiny().stage1
    task = PurNetTask(network, stage, Noise(), noise_store(0), frozen=3)
    trainer = Trainer(task, tiny().loop("stage1"), Accelerator(cpu=True))
    before = {n: t.clone() for n, t in network.state_dict().items()}
    trainer.train(loop._batches(task, trainer.settings, trainer.accelerator).make(0), str)
    moved = {n for n, t in network.state_dict().items() if not torch.equal(t, before[n])}
    blocks = {int(n.split(".")[2]) for n in moved if n.startswith("extractor.blocks.")}
    assert blocks == set(range(3, 16))
    assert not any(n.startswith("extractor.stem.") for n in moved)
    assert any(n.startswith("purificatory.") for n in moved)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_no_more_is_frozen_than_there_is(backbone: str) -> None:
    network = build_purnet(backbone, 8, ())
    how = (network, tiny().stage1, Noise(), noise_store(0))
    count = len(network.extractor.blocks)
    last = PurNetTask(*how, frozen=count - 1).parts["extractor"]
    assert list(last) == [network.extractor.blocks[-1]]
    with pytest.raises(SettingsError, match=f"less than {count}"):
        PurNetTask(*how, frozen=count)


@pytest.mark.parametrize("attention", ["promotion", "rectification"])
def test_either_attention_can_be_left_out(attention: str) -> None:
    recipe = read_recipe("quick", [*CHANGES, f'network.attention=["{attention}"]'])
    assert isinstance(recipe, PurNetRecipe)
    assert set(recipe.loop("stage3").rates) == {"extractor", "purificatory", attention}
    network = build_purnet("light", 8, recipe.attention("stage3"))
    task = PurNetTask(network, recipe.stage3, Noise(), noise_store(0))
    trainer = Trainer(task, recipe.loop("stage3"), Accelerator(cpu=True))
    batches = loop._batches(task, trainer.settings, trainer.accelerator)
    before = {n: p.clone() for n, p in network.named_parameters()}
    for batch in batches.ahead(0, 3):
        trainer.train(batch, batches.names)
    still = [n for n, p in network.named_parameters() if torch.equal(p, before[n])]
    assert [n for n in still if not n.endswith(".bias")] == []
    assert {n.split(".")[0] for n in before} == {"extractor", "purificatory", attention}


def test_superpixels_are_made_for_the_losses_that_ask_for_them(source: Path, cache: Path) -> None:
    """Neither a store whose size no such stage has, nor a batch of another stage, holds them."""
    recipe = read_recipe("quick", [*CHANGES, "stage1.structural_similarity=false"])
    assert isinstance(recipe, PurNetRecipe)
    task = stages(recipe, DataFolders(source), source)[0].prepare().task
    assert set(task.data.sample(0, np.random.default_rng(0))) == {"image", "mask"}
    (first,) = (cache / "training").iterdir()
    assert {file.name for file in first.glob("*.npy")} == {"image.npy", "mask.npy", "states.npy"}
    how = DataFolders(source), find_training_set(source)
    pair = {name: _stores(recipe, name, *how)[0] for name in ("stage2", "stage3")}
    assert set(pair["stage2"].arrays) == {"image", "mask"}
    assert set(pair["stage3"].arrays) == {"image", "mask", "superpixels"}
    assert len(list((cache / "training").iterdir())) == 2  # one for both stages of this size


def test_each_loss_trains_its_own_parts_alone() -> None:
    trainer, batches = purnet_trainer(Accelerator(cpu=True), Noise())
    trainer.network.eval()
    batch = next(batches.ahead(0, 1))
    trainer._backward(batch, batches.names)
    ours = {n: p.grad for n, p in trainer.network.named_parameters()}
    for objective in trainer.task.objectives(batch):
        loss = sum(term.sum() for term in objective.terms.values())
        named = [
            (f"{part}.{n}", p)
            for part in objective.trains
            for n, p in trainer.task.parts[part].named_parameters()
        ]
        alone = torch.autograd.grad(loss, [p for _, p in named], retain_graph=True)
        for (name, _), wanted in zip(named, alone, strict=True):
            torch.testing.assert_close(ours.pop(name), wanted, msg=name)
    assert ours == {}


def test_a_stage_starts_from_the_one_before_or_from_imagenet() -> None:
    first = build_purnet("light", 8, attention=())
    second = build_purnet("light", 8)
    fill(second, first.state_dict())
    assert torch.equal(second.extractor.conv1.weight, first.extractor.conv1.weight)
    assert torch.equal(
        second.purificatory.heads[0][0].weight, first.purificatory.heads[0][0].weight
    )
    imagenet = {n.removeprefix("extractor."): t for n, t in first.state_dict().items()}
    imagenet = {n: t for n, t in imagenet.items() if not n.startswith("purificatory.")}
    third = build_purnet("light", 8)
    fill(third, {**imagenet, "fc.weight": torch.zeros(2)})
    assert torch.equal(third.extractor.conv1.weight, first.extractor.conv1.weight)
    fourth = build_purnet("efficientnet-lite0", 8)
    shipped = weights.load(weights.resolve("efficientnet-lite0"))
    fill(fourth, shipped)
    assert torch.equal(fourth.extractor.stem[0].weight, shipped["stem.0.weight"].float())
    with pytest.raises(WeightsError, match="do not fit"):
        fill(third, shipped)
