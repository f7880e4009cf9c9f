"""The training job as a whole: refused, killed, resumed, overfitted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from hqsod.cli import app
from hqsod.dataset.lock import sole_run
from hqsod.errors import OutputError, SettingsError, TrainingError, WeightsError
from hqsod.models.purnet import load_purnet
from hqsod.training.job import train
from hqsod.training.plan import TrainingPlan, read_plan
from hqsod.training.recipes import read_recipe
from hqsod.training.settings import OVERFIT_STEPS
from tests.conftest import write_pair
from tests.training_job import CHANGES, command, finish, kill_when, losses, tiny, torchrun


def test_what_was_refused_claims_no_folder(source: Path, cache: Path, tmp_path: Path) -> None:
    """The message says what to change; the same folder then takes the changed run."""
    how: dict[str, Any] = {"data": source, "stages": (1,), "device": "cpu", "precision": "float32"}
    wrong = read_recipe("quick", [*CHANGES, "data.holdout=0.999"])
    with pytest.raises(SettingsError, match="lower the recipe's holdout"):
        train(TrainingPlan(recipe=wrong, **how), tmp_path / "run")
    right = TrainingPlan(recipe=tiny(), **how)
    train(right, tmp_path / "run")
    with pytest.raises(SettingsError, match="holds a run"):
        train(right, tmp_path / "run")


def test_a_start_of_another_backbone_says_what_to_set(tmp_path: Path) -> None:
    recipe = read_recipe("quick", ["network.backbone=light"])
    plan = TrainingPlan(data=tmp_path, recipe=recipe, device="cpu", precision="float32")
    with pytest.raises(
        WeightsError, match=r"stage1\.start = efficientnet-lite0.*network\.backbone"
    ):
        train(plan, tmp_path / "run")


def test_one_run_at_a_time_and_the_last_stage_counts(
    source: Path, cache: Path, tmp_path: Path
) -> None:
    how: dict[str, Any] = {"data": source, "device": "cpu", "precision": "float32"}
    recipe = read_recipe("quick", [*CHANGES, *(f"stage{n}.steps=1" for n in (1, 2, 3))])
    out = tmp_path / "run"
    with sole_run(out), pytest.raises(OutputError, match="another run is at work"):
        train(TrainingPlan(recipe=recipe, **how), out)
    whole = train(TrainingPlan(recipe=recipe, **how), out).weights.read_bytes()
    first = TrainingPlan(recipe=recipe, stages=(1,), **how)
    assert train(first, out, resume=True).weights.read_bytes() == whole


def test_a_batch_that_no_process_can_share_is_refused_before_any_stage(
    source: Path, tmp_path: Path
) -> None:
    recipe = read_recipe("quick", [*CHANGES, "stage3.batch=3"])
    plan = TrainingPlan(data=source, recipe=recipe, device="cpu", precision="float32", accumulate=2)
    with pytest.raises(SettingsError, match="a batch of 3"):
        train(plan, tmp_path / "run")
    assert not (tmp_path / "run").exists()


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
    ours, wanted = (run / "purnet.safetensors" for run in (killed, whole))
    assert ours.read_bytes() == wanted.read_bytes()
    saliency = load_purnet(load_file(ours))(torch.rand(1, 3, 50, 70))
    assert saliency.shape == (1, 1, 50, 70)


@pytest.mark.slow
def test_four_pictures_are_learned_by_heart(source: Path, tmp_path: Path) -> None:
    changes = ["--overfit", "4", "--stages", "1"]
    changes += ["--set", "stage1.steps=1000", "--set", "network.width=16"]
    done = finish(command(source, tmp_path / "run", *changes), tmp_path / "cache")
    assert done.returncode == 0, done.stderr
    last = losses(tmp_path / "run/stage1")[-1]
    assert last["step"] == OVERFIT_STEPS
    assert last["validation/mae"] < 0.05


@pytest.mark.parametrize("wrong", ["3,1", "4", "2,2"])
def test_stages_come_in_order(tmp_path: Path, wrong: str) -> None:
    line = ["train", str(tmp_path), "--out", str(tmp_path / "run"), "--stages", wrong]
    result = CliRunner().invoke(app, line)
    assert isinstance(result.exception, SettingsError)
    assert "some of 1,2,3" in str(result.exception)


def test_training_without_its_extra_is_told_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hqsod.extras.find_spec", lambda name: None if name == "accelerate" else 1)
    result = CliRunner().invoke(app, ["train", str(tmp_path), "--out", str(tmp_path / "run")])
    assert str(result.exception) == (
        "hqsod train needs accelerate, not installed here; pip install 'hqsod[train]'"
    )


@pytest.fixture
def begun(source: Path, cache: Path, tmp_path: Path) -> Path:
    """A run whose first stage has two steps behind it, and all of its plan."""
    out = tmp_path / "run"
    changes = [*CHANGES, "stage1.steps=2"]
    plan = TrainingPlan(
        data=source,
        recipe=read_recipe("quick", changes),
        stages=(1,),
        device="cpu",
        precision="float32",
    )
    train(plan, out)
    return out


def test_going_on_needs_nothing_repeated(begun: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(begun)
    (begun / "stage1/weights.safetensors").unlink()
    result = CliRunner().invoke(app, ["train", "--out", str(begun), "--resume"])
    assert result.exit_code == 0, result.output
    assert (begun / "stage1/weights.safetensors").is_file()
    differing = ["--overfit", "2", "--set", "stage1.steps=9", "--set", "data.size=96"]
    refused = CliRunner().invoke(app, ["train", "--out", str(begun), "--resume", *differing])
    message = str(refused.exception)
    assert "overfit = 2 where the run has 0" in message
    assert "recipe.stage1.steps = 9 where the run has 2" in message
    assert "recipe.data.size = 96 where the run has 64" in message


def test_going_on_where_nothing_began_asks_for_a_data_set(tmp_path: Path) -> None:
    for more, said in ([], "no data set;"), (["--resume"], "holds no run to go on with"):
        result = CliRunner().invoke(app, ["train", "--out", str(tmp_path / "run"), *more])
        assert said in str(result.exception)


def test_a_damaged_plan_is_told_in_a_line(begun: Path) -> None:
    plan = begun / "plan.json"
    for damaged in (plan.read_bytes()[:200], b"", bytes(99), b"[" * 9999):
        plan.write_bytes(damaged)
        with pytest.raises(SettingsError, match=r"plan\.json.*--out"):
            read_plan(begun)


def test_a_holdout_is_never_empty_and_none_is_told(
    source: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for holdout, said in (0.0001, "3 images to train on, 1 to validate"), (0, "no scores"):
        recipe = read_recipe("quick", [*CHANGES, f"data.holdout={holdout}", "stage1.steps=1"])
        how: dict[str, Any] = {"stages": (1,), "device": "cpu", "precision": "float32"}
        out = tmp_path / str(holdout)
        train(TrainingPlan(data=source, recipe=recipe, **how), out)
        told = " ".join(capsys.readouterr().err.split())
        assert said in told
        assert "training: stage1 of 1 steps; cpu, float32" in told
        assert (out / "stage1/best.safetensors").is_file() == (holdout > 0)


def test_photographs_without_a_mask_are_counted(
    source: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for stem in ("a", "d"):
        (source / f"masks/{stem}.png").unlink()
    recipe = read_recipe("quick", [*CHANGES, "stage1.steps=1"])
    how: dict[str, Any] = {"stages": (1,), "device": "cpu", "precision": "float32"}
    train(TrainingPlan(data=source, recipe=recipe, **how), tmp_path / "run")
    said = " ".join(capsys.readouterr().err.split())
    assert "2 photographs or masks have no partner of the same name" in said
    assert "a.png, d.png" in said


def test_what_overfitting_does_not_learn_is_told(source: Path, cache: Path, tmp_path: Path) -> None:
    """Python and the command alike: the plan says how."""
    recipe = read_recipe("quick", [*CHANGES, "stage1.steps=2"])
    how: dict[str, Any] = {"stages": (1,), "device": "cpu", "precision": "float32"}
    with pytest.raises(TrainingError, match="were not learned"):
        train(TrainingPlan(data=source, recipe=recipe, overfit=2, **how), tmp_path / "run")
    assert [line["step"] for line in losses(tmp_path / "run/stage1")] == [2, 2]
