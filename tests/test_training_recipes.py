"""Training recipes: what they say, what can be set on top, what is refused."""

from __future__ import annotations

import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from hqsod.errors import SettingsError
from hqsod.models.purnet import BACKBONES
from hqsod.training.purnet_recipe import Network, PurNetRecipe
from hqsod.training.recipes import KINDS, read_recipe
from hqsod.training.settings import Optimizer


def test_a_recipe_nested_without_end_is_refused_in_a_line(tmp_path: Path) -> None:
    path = tmp_path / "deep.toml"
    path.write_text(f"seed = {'[' * 5000}{']' * 5000}")
    with pytest.raises(SettingsError, match="nested too deep"):
        read_recipe(str(path))
    with pytest.raises(SettingsError, match="seed"):
        read_recipe("quick", [f"seed={'[' * 5000}{']' * 5000}"])


@pytest.mark.parametrize("path", ["/dev/zero", "nothing.toml", "."])
def test_what_is_no_file_is_no_recipe(path: str) -> None:
    with pytest.raises(SettingsError, match="no such file; expected a path or one of contour"):
        read_recipe(path)


def test_a_recipe_can_name_every_backbone() -> None:
    assert set(get_args(Network.model_fields["backbone"].annotation)) == set(BACKBONES)


def test_recipe_purnet_is_the_schedule_of_the_paper() -> None:
    recipe = read_recipe("purnet")
    assert isinstance(recipe, PurNetRecipe)
    assert (recipe.network.backbone, recipe.network.width, recipe.data.size) == (
        "resnet50",
        128,
        320,
    )
    stages = list(recipe.stages.values())
    assert [s.steps for s in stages] == [50_000, 250_000, 200_000]
    assert [s.batch for s in stages] == [4, 4, 2]
    assert [s.structural_similarity for s in stages] == [True, False, True]
    assert [s.start for s in stages] == ["resnet50", "stage1", "stage2"]
    assert recipe.stage1.rates == {"extractor": 1e-3, "purificatory": 1e-2}
    assert recipe.optimizer == Optimizer(
        kind="sgd", momentum=0.9, weight_decay=5e-4, bias_rate=2.0, schedule="poly"
    )
    assert not recipe.double_sigmoid


def test_values_can_be_set_on_top_of_a_recipe() -> None:
    recipe = read_recipe("quick", ["stage1.steps=7", "stage2.start=other.pth", "data.holdout=0"])
    assert isinstance(recipe, PurNetRecipe)
    assert (recipe.stage1.steps, recipe.stage2.start, recipe.data.holdout) == (7, "other.pth", 0)


@pytest.mark.parametrize(
    ("source", "changes", "message"),
    [
        ("none", [], "purnet"),
        ("quick", ["stage1.step=7"], r"stage1\.step"),
        ("quick", ["stage1.steps=0"], r"stage1\.steps"),
        ("quick", ["stage1.steps"], "table.key=value"),
        ("quick", ["seed.x=1"], "seed"),
        ("quick", ["pace.log=30"], "multiple"),
        ("quick", ["data.augmentation.scale=[1.0]"], "scale"),
    ],
)
def test_bad_recipes_are_refused(source: str, changes: list[str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        read_recipe(source, changes)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("stage1.bogus=3", "stage1.bogus; expected a setting that exists"),
        (
            "stage1.step=3",
            "stage1.step; expected a setting that exists; the closest settings are stage1.steps",
        ),
        ("network.backbone=resnet9", "'efficientnet-lite0', 'efficientnet-lite2' or 'light'"),
        (
            "stage1.rates.promotion=0.1",
            "no learning rate for promotion, which is not used without attention",
        ),
        ("data.size=8", "greater than or equal to 32"),
        ("steps=3", "the closest settings are stage[123].steps"),
        ("stage2.start=stage3", "stage2 to start from an earlier stage, not stage3"),
        ("seed=-1", "greater than or equal to 0"),
        ("optimizer.clip=inf", "finite number"),
        ("stage1.rates={}", "at least 1 item"),
        ("data.augmentation.scale=[1.5, 0.8]", "the lower end first"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused_at_once(change: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        read_recipe("quick", [change])


@pytest.mark.parametrize(
    ("source", "change", "said"),
    [
        ("refiner", "loop.rates={}", "at least 1 item"),
        ("refiner", "widths=[]", "at least 1 item"),
        ("refiner", "damage.factors=[]", "at least 1 item"),
        ("refiner", "damage.iou=[0.9, 0.5]", "the lower end first"),
        ("upscaler", "degradation.quality=[90, 40]", "the lower end first"),
        ("upscaler", "network.scale=0", "sizes of at least 1"),
        ("upscaler", "degradation.noise=[-1, 2]", "greater than or equal to 0"),
    ],
)
def test_nothing_to_draw_from_is_refused_at_once(source: str, change: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        read_recipe(source, [change])


def test_a_stage_that_trains_no_part_it_has_is_refused() -> None:
    changes = ["network.attention=[]", "stage2.attention=true", "stage2.rates={promotion=0.1}"]
    with pytest.raises(SettingsError, match="a learning rate for a part that stage2 has"):
        read_recipe("quick", changes)


def settings(model: type[BaseModel]) -> set[str]:
    """Names of all settings of a recipe, without the tables they stand in."""
    names = set()
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            names |= settings(inner)
        elif isinstance(inner, type) and is_dataclass(inner):
            names |= {part.name for part in fields(inner)}
        else:
            names.add(name)
    return names


@pytest.mark.parametrize("task", KINDS)
def test_every_setting_stands_in_the_guide(task: str) -> None:
    guide = (Path(__file__).parents[1] / "docs/training.md").read_text("utf-8")
    named = {name.rpartition(".")[2] for name in re.findall(r"`([\w.]+)`", guide)}
    assert settings(KINDS[task]) - named <= {"task"}
