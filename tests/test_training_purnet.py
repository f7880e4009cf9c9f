"""How PurNet is trained: its parts, what each loss moves, where a stage starts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from hqsod import weights
from hqsod.errors import WeightsError
from hqsod.models.purnet import build_purnet
from hqsod.training.purnet import PurNetTask, fill
from hqsod.training.recipes import read_recipe
from hqsod.training.stages import Recipe
from tests.training_job import (
    Noise,
    noise_store,
    purnet_trainer,
)

ROOT = Path(__file__).parents[1]


def test_parts_have_the_sizes_of_the_published_network() -> None:
    recipe = read_recipe("purnet")
    assert isinstance(recipe, Recipe)
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
    first = build_purnet("light", 8, attention=False)
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
