"""The training loop: rates, freezing, averages, parts of a batch, several processes."""

from __future__ import annotations

import math
import subprocess
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from hqsod.errors import SettingsError, TrainingError
from hqsod.models.purnet import build_purnet
from hqsod.training import loop
from hqsod.training.batches import StoredImages
from hqsod.training.optimizer import rate_factor
from hqsod.training.purnet import PurNetTask
from hqsod.training.settings import LoopSettings, Optimizer
from hqsod.training.trainer import Trainer
from tests.training_job import (
    Noise,
    noise_store,
    purnet_trainer,
    tiny,
    torchrun,
)

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("schedule", ["poly", "cosine"])
def test_rates_warm_up_and_fall_to_zero(schedule: str) -> None:
    optimizer = Optimizer(warmup=10, schedule=schedule)
    factors = [rate_factor(optimizer, step, 100) for step in range(101)]
    assert factors[:10] == sorted(factors[:10])
    assert factors[10] == max(factors) == 1
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert factors[100] == pytest.approx(0)


def test_a_short_stage_has_more_schedule_than_warm_up() -> None:
    factors = [rate_factor(Optimizer(warmup=200, schedule="cosine"), s, 120) for s in range(121)]
    assert factors.index(max(factors)) == 20
    assert factors[120] == pytest.approx(0)


def test_poly_decay_reaches_every_group() -> None:
    trainer, batches = purnet_trainer(Accelerator(cpu=True), Noise())
    for batch in batches.ahead(0, 4):
        trainer.train(batch, batches.names)
    factor = rate_factor(trainer.settings.optimizer, 3, trainer.settings.steps)
    groups = trainer.optimizer.param_groups
    assert [g["lr"] for g in groups] == pytest.approx([g["base"] * factor for g in groups])
    assert len(groups) == 8  # weights and biases of four parts


def test_learning_rates_are_logged_as_they_are() -> None:
    trainer, batches = purnet_trainer(Accelerator(cpu=True), Noise())
    for batch in batches.ahead(0, 4):
        trainer.train(batch, batches.names)
    logged = trainer.averages()
    factor = rate_factor(trainer.settings.optimizer, 3, trainer.settings.steps)
    for part, rate in trainer.settings.rates.items():
        assert logged[f"learning_rate/{part}"] == pytest.approx(rate * factor)


def test_nothing_left_to_train_on_is_told() -> None:
    with pytest.raises(SettingsError, match="held out"):
        purnet_trainer(Accelerator(cpu=True), StoredImages(noise_store(0), None))


def test_what_has_no_rate_is_frozen_with_its_batchnorm() -> None:
    recipe = tiny()
    network = build_purnet("light", width=8)
    task = PurNetTask(network, recipe.stages["stage3"], Noise(), noise_store(0))
    settings = recipe.loop("stage3").model_copy(update={"rates": {"promotion": 1e-3}})
    trainer = Trainer(task, settings, Accelerator(cpu=True))
    before = {n: t.clone() for n, t in network.state_dict().items()}
    batches = loop._batches(task, settings, trainer.accelerator)
    for batch in batches.ahead(0, 2):
        trainer.train(batch, batches.names)
    moved = {n.split(".")[0] for n, t in network.state_dict().items() if (t != before[n]).any()}
    assert moved == {"promotion"}


def test_a_loss_that_is_not_finite_names_the_batch() -> None:
    trainer, batches = purnet_trainer(Accelerator(cpu=True), Noise())
    with torch.no_grad():
        next(trainer.network.parameters()).fill_(math.nan)
    before = {n: p.clone() for n, p in trainer.network.named_parameters()}
    with pytest.raises(TrainingError, match=r"step 1 is nan.*image\d"):
        trainer.train(next(batches.ahead(0, 1)), batches.names)
    for name, parameter in trainer.network.named_parameters():
        assert parameter.equal(before[name]) or parameter.isnan().all()


def test_weights_that_a_last_step_ruined_are_not_kept() -> None:
    trainer, _ = purnet_trainer(Accelerator(cpu=True), Noise())
    trainer.require_finite()
    with torch.no_grad():
        next(trainer.kept.parameters()).fill_(math.inf)
    with pytest.raises(TrainingError, match="at step 0 is not finite"):
        trainer.require_finite()


def test_a_batch_must_go_around() -> None:
    accelerator = Accelerator(cpu=True)
    settings = LoopSettings(steps=1, batch=3, rates={"extractor": 1.0})
    task = PurNetTask(build_purnet("light", 8), tiny().stage3, Noise(), noise_store(0))
    object.__setattr__(accelerator.state, "num_processes", 2)
    try:
        with pytest.raises(SettingsError, match="a multiple of 2"):
            loop._batches(task, settings, accelerator)
    finally:
        object.__setattr__(accelerator.state, "num_processes", 1)
    with pytest.raises(SettingsError, match="neck"):
        Trainer(task, settings.model_copy(update={"rates": {"neck": 1.0}}), accelerator)


def test_the_average_follows_the_weights() -> None:
    trainer, batches = purnet_trainer(Accelerator(cpu=True), Noise())
    assert trainer.average is not None
    for batch in batches.ahead(0, 3):
        trainer.train(batch, batches.names)
    assert trainer.kept is not trainer.network
    gap = [
        (a - b).abs().max()
        for a, b in zip(trainer.kept.parameters(), trainer.network.parameters(), strict=True)
    ]
    assert 0 < max(gap) < 0.1


def gradients(accelerator: Accelerator) -> dict[str, Tensor]:
    """Of the first step, in however many parts and processes."""
    trainer, batches = purnet_trainer(accelerator, Noise())
    trainer.network.eval()  # each process and part would have BatchNorm statistics of its own
    for batch in batches.ahead(0, trainer.parts):
        trainer._backward(batch, batches.names)
    trainer._average_gradients()
    found = {n: p.grad for n, p in trainer.network.named_parameters() if p.grad is not None}
    assert len(found) > 300
    return found


def require_same(ours: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    for name in wanted:
        torch.testing.assert_close(ours[name], wanted[name], rtol=1e-3, atol=1e-6, msg=name)


@pytest.mark.parametrize("parts", [2, 4])
def test_a_batch_in_parts_has_the_gradients_of_the_whole(parts: int) -> None:
    alone = gradients(Accelerator(cpu=True))
    require_same(gradients(Accelerator(cpu=True, gradient_accumulation_steps=parts)), alone)


def test_a_step_is_taken_after_the_last_part() -> None:
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    trainer, batches = purnet_trainer(accelerator, Noise())
    taken = [trainer.train(batch, batches.names) for batch in batches.ahead(0, 4)]
    assert taken == [False, True, False, True]
    assert trainer.step == 2
    whole = loop._batches(trainer.task, trainer.settings, Accelerator(cpu=True))
    assert batches.names(2) + batches.names(3) == whole.names(1)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_several_processes_have_the_gradients_of_one(tmp_path: Path, processes: int) -> None:
    line = [*torchrun(processes), "-m", "tests.data_parallel", str(tmp_path)]
    subprocess.run(line, cwd=ROOT, check=True, capture_output=True)
    alone = gradients(Accelerator(cpu=True))
    for rank in range(processes):
        require_same(torch.load(tmp_path / f"{processes}-{rank}.pt"), alone)
