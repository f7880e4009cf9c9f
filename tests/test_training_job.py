"""The training job as a whole: refused, killed, resumed, learned by heart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from hqsod.cli import app
from hqsod.errors import SettingsError, WeightsError
from hqsod.models.purnet import load_purnet
from hqsod.training.job import Plan, train
from hqsod.training.recipes import read_recipe
from tests.conftest import write_pair
from tests.training_job import CHANGES, command, finish, kill_when, losses, tiny, torchrun


def test_what_was_refused_claims_no_folder(source: Path, cache: Path, tmp_path: Path) -> None:
    """The message says what to change; the same folder then takes the changed run."""
    how: dict[str, Any] = {"data": source, "stages": (1,), "device": "cpu", "precision": "float32"}
    wrong = read_recipe("quick", [*CHANGES, "data.holdout=0.999"])
    with pytest.raises(SettingsError, match="lower the recipe's holdout"):
        train(Plan(recipe=wrong, **how), tmp_path / "run")
    right = Plan(recipe=tiny(), **how)
    train(right, tmp_path / "run")
    with pytest.raises(SettingsError, match="holds a run"):
        train(right, tmp_path / "run")


def test_a_start_of_another_backbone_says_what_to_set(tmp_path: Path) -> None:
    recipe = read_recipe("quick", ["network.backbone=light"])
    plan = Plan(data=tmp_path, recipe=recipe, device="cpu", precision="float32")
    with pytest.raises(
        WeightsError, match=r"stage1\.start = efficientnet-lite0.*network\.backbone"
    ):
        train(plan, tmp_path / "run")


@pytest.mark.slow
def test_a_run_of_two_processes_goes_on_with_four(tmp_path: Path) -> None:
    data, cache = tmp_path / "data", tmp_path / "cache"
    for stem, name in (("a", "chelsea"), ("b", "coffee"), ("c", "chelsea"), ("p", "coffee")):
        write_pair(data, stem, name, width=90)
    alone, many = tmp_path / "alone", tmp_path / "many"
    done = finish(command(data, alone, "--stages", "1"), cache)
    assert done.returncode == 0, done.stderr
    _, *arguments = command(data, many, "--stages", "1")
    kill_when([*torchrun(2), *arguments], cache, many / "stage1/checkpoints/step-00000002.pt")
    assert not (many / "stage1/weights.safetensors").exists()
    resumed = finish([*torchrun(4), *arguments, "--resume"], cache)
    assert resumed.returncode == 0, resumed.stderr
    ours, wanted = losses(many / "stage1"), losses(alone / "stage1")
    assert [line["step"] for line in ours] == [line["step"] for line in wanted]
    for one, other in zip(ours, wanted, strict=True):  # BatchNorm sees fewer pictures at once
        if "loss" in one:
            assert one["loss"] == pytest.approx(other["loss"], rel=0.15)


@pytest.mark.slow
def test_a_killed_run_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    data, cache = tmp_path / "data", tmp_path / "cache"
    for stem, name in (("a", "chelsea"), ("b", "coffee"), ("c", "chelsea"), ("p", "coffee")):
        write_pair(data, stem, name, width=90)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done = finish(command(data, whole), cache)
    assert done.returncode == 0, done.stderr
    kill_when(command(data, killed), cache, killed / "stage2/checkpoints/step-00000002.pt")
    assert not (killed / "stage2/weights.safetensors").exists()
    refused = finish(command(data, killed), cache)
    assert refused.returncode == 1
    assert "--resume" in refused.stderr
    resumed = finish(command(data, killed, "--resume"), cache)
    assert resumed.returncode == 0, resumed.stderr
    for stage in ("stage1", "stage2", "stage3"):
        assert losses(killed / stage) == losses(whole / stage)
        assert (killed / stage / "best.safetensors").is_file()
        assert len(list((killed / stage / "samples").iterdir())) == 2
    ours, wanted = (load_file(run / "purnet.safetensors") for run in (killed, whole))
    assert all(torch.equal(ours[name], wanted[name]) for name in wanted)
    saliency = load_purnet(ours)(torch.rand(1, 3, 50, 70))
    assert saliency.shape == (1, 1, 50, 70)


@pytest.mark.slow
def test_four_pictures_are_learned_by_heart(source: Path, tmp_path: Path) -> None:
    changes = ["--overfit", "4", "--stages", "1", "--set", "stage1.steps=240"]
    changes += [
        "--set",
        "stage1.batch=4",
        "--set",
        "network.width=16",
        "--set",
        "pace.validation=40",
    ]
    done = finish(command(source, tmp_path / "run", *changes), tmp_path / "cache")
    assert done.returncode == 0, done.stderr
    scores = [line for line in losses(tmp_path / "run/stage1") if "validation/mae" in line]
    assert scores[-1]["validation/mae"] < 0.05 < scores[0]["validation/mae"]


@pytest.mark.parametrize("wrong", [["3", "1"], ["4"]])
def test_stages_come_in_order(tmp_path: Path, wrong: list[str]) -> None:
    line = ["train", str(tmp_path), "--out", str(tmp_path / "run"), "--stages", *wrong]
    result = CliRunner().invoke(app, line)
    assert isinstance(result.exception, SettingsError)
    assert "1 2 3" in str(result.exception)
