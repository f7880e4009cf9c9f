"""Training: recipes, data, the loop, and the whole job, killed and resumed."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from typer.testing import CliRunner

from hqsod import weights
from hqsod.cli import app
from hqsod.dataset.manifest import Manifest, Record
from hqsod.errors import InputError, OutputError, SettingsError, TrainingError, WeightsError
from hqsod.images import pad
from hqsod.losses import UNLABELLED
from hqsod.models.purnet import BACKBONES, build_purnet, load_purnet
from hqsod.training import loop
from hqsod.training.checkpoints import Journal, newest_state, save_state
from hqsod.training.data import Batches, Pictures, augment, paste
from hqsod.training.job import Plan, train
from hqsod.training.purnet import PurNetTask, fill
from hqsod.training.recipes import read_recipe
from hqsod.training.stages import Augmentation, LoopSettings, Network, Optimizer, Recipe
from hqsod.training.store import Example, Store, find_source, open_store
from hqsod.types import Placement
from tests.conftest import save, write_pair
from tests.training_job import CHANGES, command, finish, kill_when, losses, torchrun

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")


def noise_store(count: int = 5, side: int = 32) -> Store:
    random = np.random.default_rng(0)
    return Store(
        tuple(f"picture{i}" for i in range(count)),
        random.integers(0, 256, (count, side, side, 3), np.uint8),
        random.integers(0, 2, (count, side, side), np.uint8) * 255,
        random.integers(0, 9, (count, side, side), np.int16),
        np.arange(count),
        {},
    )


class Noise(Pictures):
    """Pictures without files."""

    def __init__(self) -> None:
        super().__init__(noise_store(), Augmentation())


def tiny() -> Recipe:
    recipe = read_recipe("quick", CHANGES)
    assert isinstance(recipe, Recipe)
    return recipe


def purnet_trainer(
    accelerator: Accelerator, data: Pictures, stage: str = "stage3"
) -> tuple[loop.Trainer, Batches]:
    recipe = tiny()
    chosen = recipe.stage(stage)
    torch.manual_seed(0)
    network = build_purnet("light", width=8, attention=chosen.attention)
    task = PurNetTask(network, chosen, data, noise_store(0))
    settings = recipe.loop(stage)
    return loop.Trainer(task, settings, accelerator), loop._batches(task, settings, accelerator)


# Recipes


def test_a_recipe_can_name_every_backbone() -> None:
    assert set(get_args(Network.model_fields["backbone"].annotation)) == set(BACKBONES)


def test_recipe_purnet_is_the_schedule_of_the_paper() -> None:
    recipe = read_recipe("purnet")
    assert isinstance(recipe, Recipe)
    assert (recipe.network.backbone, recipe.network.width, recipe.data.size) == (
        "resnet50",
        128,
        320,
    )
    stages = [recipe.stage1, recipe.stage2, recipe.stage3]
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
    assert isinstance(recipe, Recipe)
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


@pytest.mark.parametrize("schedule", ["poly", "cosine"])
def test_rates_warm_up_and_fall_to_zero(schedule: str) -> None:
    optimizer = Optimizer(warmup=10, schedule=schedule)
    factors = [loop.rate_factor(optimizer, step, 100) for step in range(101)]
    assert factors[:10] == sorted(factors[:10])
    assert factors[10] == max(factors) == 1
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert factors[100] == pytest.approx(0)


def test_poly_decay_reaches_every_group() -> None:
    trainer, batches = purnet_trainer(Accelerator(cpu=True), Noise())
    for batch in batches.ahead(0, 4):
        trainer.train(batch, batches.names)
    factor = loop.rate_factor(trainer.settings.optimizer, 3, trainer.settings.steps)
    groups = trainer.optimizer.param_groups
    assert [g["lr"] for g in groups] == pytest.approx([g["base"] * factor for g in groups])
    assert len(groups) == 8  # weights and biases of four parts


# Data


@given(
    angle=st.floats(0, 45),
    zoom=st.floats(0.7, 1.5),
    flip=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_image_mask_and_superpixels_move_together(
    angle: float, zoom: float, flip: bool, seed: int
) -> None:
    mask = np.zeros((48, 48), np.uint8)
    mask[10:30, 14:40] = 255
    example = Example(np.dstack([mask] * 3), mask, (mask > 0).astype(np.int16))
    settings = Augmentation(flip=flip, rotation=angle, scale=(zoom, zoom))
    changed = augment(example, settings, np.random.default_rng(seed))
    assert (changed.image == changed.mask[..., None]).all()
    labelled = changed.superpixels != UNLABELLED
    # Nearest and linear interpolation may differ by half a pixel at the outline.
    differ = (changed.superpixels == 1) != (changed.mask > 127)
    assert differ[labelled].mean() < 0.02


def test_corners_that_turn_in_belong_to_no_superpixel() -> None:
    example = noise_store(1, 64)[0]
    changed = augment(example, Augmentation(flip=False, rotation=10), np.random.default_rng(1))
    corner = changed.superpixels[:3, :3], changed.superpixels[-3:, -3:]
    assert all((c == UNLABELLED).any() for c in corner)
    assert (changed.superpixels[16:48, 16:48] >= 0).all()


def test_no_augmentation_changes_nothing() -> None:
    example = noise_store(1)[0]
    settings = Augmentation(flip=False, rotation=0)
    changed = augment(example, settings, np.random.default_rng(0))
    for before, after in zip(example, changed, strict=True):
        assert (before == after).all()


def test_a_pasted_object_brings_mask_and_superpixels_along() -> None:
    below, above = noise_store(2)[0], noise_store(2)[1]
    above = above._replace(superpixels=np.where(above.mask > 127, above.superpixels, UNLABELLED))
    joined = paste(below, above)
    pasted = above.mask > 127
    assert (joined.image[pasted] == above.image[pasted]).all()
    assert (joined.image[~pasted] == below.image[~pasted]).all()
    assert (joined.mask == np.maximum(below.mask, above.mask)).all()
    assert set(np.unique(joined.superpixels)) == set(range(18))
    for part in (pasted, ~pasted):  # no superpixel lies in both pictures
        other = above if part is pasted else below
        pairs = set(zip(joined.superpixels[part], other.superpixels[part], strict=True))
        assert len(pairs) == 9


def test_pictures_are_pasted_into_as_often_as_asked() -> None:
    store = noise_store()
    settings = Augmentation(flip=False, rotation=0, paste=0.5)
    data = Pictures(store, settings)
    changed = [
        bool((data.sample(0, np.random.default_rng(i))["image"] != store[0].image).any())
        for i in range(200)
    ]
    assert 50 < sum(changed) < 110  # half of them, less those that show the picture itself


def test_a_textured_object_has_the_outline_of_one_picture_and_the_surface_of_another() -> None:
    levels = np.array([10, 90, 170, 250], np.uint8)
    image = np.broadcast_to(levels[:, None, None, None], (4, 32, 32, 3))
    mask = np.zeros((4, 32, 32), np.uint8)
    for number in range(4):
        mask[number, 4 : 10 + 5 * number, 8:20] = 255
    labels = np.zeros((4, 32, 32), np.int16)
    store = Store(tuple("abcd"), image, mask, labels, np.arange(4), {})
    data = Pictures(store, Augmentation(flip=False, rotation=0, paste=1, texture=1))
    seen = set()
    for seed in range(100):
        sample = data.sample(0, np.random.default_rng(seed))
        pasted = sample["image"][..., 0] != levels[0]
        outlines = [i for i in range(4) if (pasted == (mask[i] > 127)).all()]
        if outlines:  # else the surface is that of the picture itself
            (surface,) = np.unique(sample["image"][pasted])
            seen.add((outlines[0], int(np.flatnonzero(levels == surface)[0])))
            assert (sample["mask"][pasted] == 255).all()
    assert seen == {(outline, surface) for outline in range(4) for surface in (1, 2, 3)}


def test_nothing_left_to_train_on_is_told() -> None:
    with pytest.raises(SettingsError, match="held out"):
        purnet_trainer(Accelerator(cpu=True), Pictures(noise_store(0), None))


def test_batches_follow_from_the_step_alone() -> None:
    batches = Batches(Noise(), 2, seed=3, rank=0, processes=1, device=CPU)
    whole = list(batches.ahead(0, 7))
    later = list(Batches(Noise(), 2, 3, 0, 1, CPU).ahead(4, 7))
    assert len(whole) == 7
    for a, b in zip(whole[4:], later, strict=True):
        assert all(torch.equal(a[name], b[name]) for name in a)
    assert whole[0]["image"].is_contiguous(memory_format=torch.channels_last)


def test_processes_share_what_one_would_show() -> None:
    one = Batches(Noise(), 4, 3, 0, 1, CPU)
    two = [Batches(Noise(), 2, 3, rank, 2, CPU) for rank in (0, 1)]
    for step in range(3):
        assert one.names(step) == two[0].names(step) + two[1].names(step)
        together = torch.cat([b.make(step)["image"] for b in two])
        assert torch.equal(one.make(step)["image"], together)


def test_every_picture_is_shown_once_before_any_again() -> None:
    batches = Batches(Noise(), 2, 0, 0, 1, CPU)
    epochs = [sorted(batches.index(p) for p in range(e * 5, e * 5 + 5)) for e in range(3)]
    assert epochs == [[0, 1, 2, 3, 4]] * 3


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("HQSOD_CACHE", str(folder))
    return folder


def test_a_store_is_made_once_and_leaves_bad_pictures_out(
    source: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (source / "images" / "a.png").write_bytes(b"no picture")
    store = open_store(find_source(source, None, None), 48, 20)
    assert store.stems == ("b c", "d", "é日")
    assert list(store.rejected) == ["a"]
    assert store[0].image.shape == (48, 48, 3)
    monkeypatch.setattr("hqsod.training.store.read_example", None)  # not called again
    again = open_store(find_source(source, None, None), 48, 20)
    assert again.stems == store.stems
    assert again.rejected == store.rejected
    assert all((x == y).all() for x, y in zip(again[2], store[2], strict=True))


def test_a_store_that_several_ask_for_at_once_is_made_once(source: Path, cache: Path) -> None:
    """Each in a process of its own, as trainings are; a made picture takes long enough to meet."""
    lines = f"""
import sys, time
from pathlib import Path
from hqsod.training import store
read = store.read_example
def slowly(*arguments):
    print("made")
    time.sleep(0.3)
    return read(*arguments)
store.read_example = slowly
opened = store.open_store(store.find_source(Path({str(source)!r}), None, None), 48, 20)
print(*(int(picture.sum()) for picture in opened.image))
"""
    asking = [
        subprocess.Popen([sys.executable, "-c", lines], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    told = [process.communicate()[0] for process in asking]
    assert all(process.returncode == 0 for process in asking)
    assert sum(text.count("made") for text in told) == 4
    assert len({text.splitlines()[-1] for text in told}) == 1


def test_a_store_without_a_readable_picture_is_refused(source: Path, cache: Path) -> None:
    for image in (source / "images").iterdir():
        image.write_bytes(b"no picture")
    with pytest.raises(InputError, match="none readable"):
        open_store(find_source(source, None, None), 48, 20)


def test_a_full_disk_is_told_before_it_is_met(
    source: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(OutputError, match="HQSOD_CACHE"):
        open_store(find_source(source, None, None), 48, 20)


def test_published_superpixels_are_read(tmp_path: Path, cache: Path) -> None:
    from scipy.io import savemat

    write_pair(tmp_path, "a", width=60)
    (tmp_path / "images").rename(tmp_path / "image")
    (tmp_path / "masks").rename(tmp_path / "groundtruth")
    (tmp_path / "image_sp").mkdir()
    labels = np.zeros(np.asarray(Image.open(tmp_path / "image" / "a.png")).shape[:2])
    labels[:, 30:] = 7
    savemat(tmp_path / "image_sp" / "a.mat", {"sp": labels})
    superpixels = open_store(find_source(tmp_path, None, None), 32, 20)[0].superpixels
    assert (superpixels[:, :16] == 0).all()
    assert (superpixels[:, 16:] == 1).all()


def test_the_border_of_a_built_data_set_is_cropped_away(tmp_path: Path, cache: Path) -> None:
    placement = Placement.centred((20, 40), (40, 40))
    for kind, value in (("images", 200), ("masks", 0), ("hq-masks", 255)):
        shape = (20, 40, 3) if kind == "images" else (20, 40)
        save(tmp_path / kind / "a.png", pad(np.full(shape, value, np.uint8), placement))
    with Manifest.open(tmp_path, create=True) as manifest:
        manifest.add_recipe("key", {})
        manifest.append(Record("a", "built", "key", {}, placement=placement))
    for masks, value in (("masks", 0), ("hq-masks", 255)):
        example = open_store(find_source(tmp_path, None, masks), 32, 20)[0]
        assert (example.image == 200).all()
        assert (example.mask == value).all()


def test_a_split_depends_on_names_alone() -> None:
    store = noise_store(200)
    training, held = store.split(0.2)
    assert 20 < len(held) < 60
    assert not set(training.stems) & set(held.stems)
    assert set(store.part(range(100)).split(0.2)[1].stems) <= set(held.stems)


# Stages and the loop


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


def test_what_has_no_rate_is_frozen_with_its_batchnorm() -> None:
    recipe = tiny()
    network = build_purnet("light", width=8)
    task = PurNetTask(network, recipe.stage3, Noise(), noise_store(0))
    settings = recipe.loop("stage3").model_copy(update={"rates": {"promotion": 1e-3}})
    trainer = loop.Trainer(task, settings, Accelerator(cpu=True))
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
    with pytest.raises(TrainingError, match=r"step 1 is nan.*picture\d"):
        trainer.train(next(batches.ahead(0, 1)), batches.names)
    for name, parameter in trainer.network.named_parameters():
        assert parameter.equal(before[name]) or parameter.isnan().all()


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
        loop.Trainer(task, settings.model_copy(update={"rates": {"neck": 1.0}}), accelerator)


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


def test_the_newest_three_checkpoints_are_kept(tmp_path: Path) -> None:
    for step in range(5):
        save_state(tmp_path, step, {"step": step, "random": torch.get_rng_state()})
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"step-{s:08d}.pt" for s in (2, 3, 4)]
    state = newest_state(tmp_path)
    assert state is not None
    assert state["step"] == 4


def test_a_journal_drops_what_comes_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 0)
    for step in (1, 2, 3):
        journal.write(step, {"loss": step / 2})
    journal.close()
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('{"step": 4, "lo')  # cut short by a kill
    journal = Journal(tmp_path, 2)
    journal.write(3, {"loss": 9.0})
    journal.close()
    assert [line["loss"] for line in losses(tmp_path)] == [0.5, 1.0, 9.0]


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


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("stage1.bogus=3", "stage1.bogus; expected a setting that there is"),
        ("network.backbone=resnet9", "'resnet50', 'vgg16', 'efficientnet-lite0' or 'light'"),
        ("stage1.rates.promotion=0.1", "promotion, which takes no part without attention"),
        ("data.size=8", "greater than or equal to 32"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused_at_once(change: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        read_recipe("quick", [change])


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


def test_a_start_of_another_backbone_says_what_to_set(tmp_path: Path) -> None:
    recipe = read_recipe("quick", ["network.backbone=light"])
    plan = Plan(data=tmp_path, recipe=recipe, device="cpu", precision="float32")
    with pytest.raises(
        WeightsError, match=r"stage1\.start = efficientnet-lite0.*network\.backbone"
    ):
        train(plan, tmp_path / "run")


# The whole job


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
