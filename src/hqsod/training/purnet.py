"""How PurNet is trained: its stages, what each loss moves, how good the network is.

Each loss trains its own subnetwork alone (Li et al., section on the training process): the
purificatory loss the extractor and the purificatory subnetwork, although its gradient passes
through both attentions on its way to the extractor; the other two one attention subnetwork each.
Recipes say which terms the loss of a stage has; `losses` has their formulas.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from hqsod import metrics, weights
from hqsod.errors import SettingsError, WeightsError
from hqsod.images import Array
from hqsod.losses import Targets, promotion_loss, purificatory_loss, rectification_loss
from hqsod.models.loading import fitting, misfit
from hqsod.models.purnet import PurNet, build_purnet, from_published, is_published
from hqsod.training.batches import Batch, StoredImages
from hqsod.training.examples import TrainingSet, find_training_set
from hqsod.training.purnet_recipe import PurNetRecipe, PurNetStage
from hqsod.training.sheets import is_shown, sheet
from hqsod.training.store import Store, open_store
from hqsod.training.task import DataFolders, Objective, Prepared, Stage, Validation

_ATTENTION = ("promotion.", "rectification.", "purificatory.promoted.")
_SCORES = ("mae", "f_max", "f_weighted", "s_measure", "e_mean")
_SHOWN = 8  # images on a sheet
_TILE = 160  # pixels


def stages(recipe: PurNetRecipe, folders: DataFolders, out: Path) -> list[Stage]:
    """The three stages; the network of each begins with what the one before it learned.

    Args:
        recipe: how.
        folders: where the images are.
        out: the run's folder, which holds the stages before.
    """
    return [
        Stage(name, recipe.loop(name), partial(_prepare, recipe, name, folders, out))
        for name in recipe.stages
    ]


def _prepare(recipe: PurNetRecipe, name: str, folders: DataFolders, out: Path) -> Prepared:
    """The task of a stage.

    Raises:
        InputError: no images, or none that can be read.
        SettingsError: the stage before was not trained, or more is frozen than there is.
        WeightsError: no weights to begin with, or those of another network.
    """
    network = _start(recipe, name, out)
    found = find_training_set(folders.data, folders.images, folders.masks)
    training, validation = _stores(recipe, name, folders, found)
    augmentation = None if folders.overfit else recipe.data.augmentation
    task = PurNetTask(
        network,
        recipe.stages[name],
        StoredImages(training, augmentation),
        validation,
        double_sigmoid=recipe.double_sigmoid,
        frozen=recipe.network.frozen,
    )
    rejected = {**training.rejected, **validation.rejected}
    return Prepared(task, len(validation), rejected, found.unpaired)


def _stores(
    recipe: PurNetRecipe, name: str, folders: DataFolders, found: TrainingSet
) -> tuple[Store, Store]:
    """The images to train on and to validate with, at the size of a stage.

    Superpixels are made where a stage of this size asks for them: stages of one size share a store.
    """
    size, data = recipe.size(name), recipe.data
    asking = {other for other, s in recipe.stages.items() if s.structural_similarity}
    superpixels = data.superpixels if size in map(recipe.size, asking) else None
    whole = open_store(found, size, superpixels)
    if name not in asking:
        whole = whole.without_superpixels()
    if folders.overfit:
        few = whole.part(range(min(folders.overfit, len(whole))))
        return few, few
    if folders.validation is None:
        return whole.split(data.holdout)
    return whole, open_store(find_training_set(folders.validation), size)


def _start(recipe: PurNetRecipe, name: str, out: Path) -> PurNet:
    """The network a stage begins with."""
    start = recipe.stages[name].start
    torch.manual_seed(recipe.seed)
    network = build_purnet(recipe.network.backbone, recipe.network.width, recipe.attention(name))
    if start == "random":
        return network
    if start in recipe.stages:
        source = out / start / "weights.safetensors"
        if not source.is_file():
            raise SettingsError(
                f"{name} starts from {start}, which {out} does not hold",
                expected=f"{source}",
                fix=f"train {start} first, or set {name}.start to the path of its weights",
            )
    else:
        source = weights.resolve(start)
    try:
        fill(network, weights.load(source))
    except WeightsError as error:
        raise WeightsError(
            f"{name}.start = {start}: {error.got}",
            expected=f"weights of {recipe.network.backbone} or of PurNet with it",
            fix=f"set {name}.start to such weights or to random, or network.backbone to theirs",
        ) from None
    return network


def fill(network: PurNet, state: Mapping[str, Tensor]) -> None:
    """Start a network from weights: of a PurNet, without attention perhaps, or of its extractor.

    Raises:
        WeightsError: tensors that the network has no place for, or that leave out more than the
            attention subnetworks.
    """
    expected = "those of this backbone and width"
    if is_published(state):
        state = from_published(state)
    optional: tuple[str, ...] = _ATTENTION
    if not any(name.startswith("purificatory.") for name in state):  # ImageNet's
        classifier = ("fc.", "classifier.")
        state = {f"extractor.{n}": t for n, t in state.items() if not n.startswith(classifier)}
        optional = (*_ATTENTION, "purificatory.")
    with fitting(expected):
        missing, unexpected = network.load_state_dict(state, strict=False)
    wrong = [*unexpected, *(name for name in missing if not name.startswith(optional))]
    if wrong:
        raise misfit(f"{wrong[0]} and {len(wrong) - 1} other tensors", expected)


class PurNetTask:
    """A stage of PurNet's training.

    Args:
        network: what is trained.
        stage: how.
        data: what it is shown.
        validation: images it is measured on.
        double_sigmoid: see `PurNetRecipe`.
        frozen: see `Network`.

    Raises:
        SettingsError: more is frozen than the extractor has.
    """

    def __init__(
        self,
        network: PurNet,
        stage: PurNetStage,
        data: StoredImages,
        validation: Store,
        *,
        double_sigmoid: bool = False,
        frozen: int = 0,
    ) -> None:
        self.network, self.stage, self.data, self.validation = network, stage, data, validation
        self.double_sigmoid = double_sigmoid
        # The size is what the network is at its best with.
        self.metadata: Mapping[str, str] = {"network": "PurNet", "size": str(data.store.size)}
        parts = {name: getattr(network, name) for name in stage.rates}
        if frozen and "extractor" in parts:
            parts["extractor"] = _unfrozen(network, frozen)
        self.parts: Mapping[str, nn.Module] = {n: p for n, p in parts.items() if p is not None}

    def objectives(self, batch: Batch) -> list[Objective]:
        """One loss in stage 1, one more for each attention subnetwork; see `TrainingTask`."""
        side = self.network.side_outputs(batch["image"].float() / 255)
        targets = Targets(batch["mask"].float() / 255, batch.get("superpixels"))
        main = purificatory_loss(
            side.saliency,
            targets,
            error=None if side.error is None else side.error.float().tanh(),
            structural_similarity=self.stage.structural_similarity,
            iou=self.stage.iou,
            s_measure=self.stage.s_measure,
            double_sigmoid=self.double_sigmoid,
        )
        objectives = [Objective(main, ("extractor", "purificatory"))]
        if side.promotion is not None:
            promotion = promotion_loss(side.promotion, targets)
            objectives.append(Objective(promotion, ("promotion",)))
        if side.rectification is not None and side.error is not None:
            rectification = rectification_loss(side.rectification, side.error, targets)
            objectives.append(Objective(rectification, ("rectification",)))
        return objectives

    def validate(self, network: nn.Module) -> Validation | None:
        """Standard scores of the validation images at training size, averaged as in `evaluate`."""
        if not len(self.validation):
            return None
        store = self.validation
        device = next(network.parameters()).device
        average, rows = metrics.Average("standard"), []
        for index in range(len(store)):
            example = store[index]
            image = torch.from_numpy(np.array(example.image)).permute(2, 0, 1)[None].to(device)
            saliency = _levels(network(image.float() / 255))
            mask = np.array(example.mask)
            average.add(metrics.score_pair(saliency, mask, metrics.ScoreSettings()))
            if is_shown(index, len(store), _SHOWN):
                rows.append((example.image, example.mask, saliency))
        means = {name: average.mean[name] for name in _SCORES}
        return Validation(means, means["mae"], sheet(("image", "mask", "prediction"), rows, _TILE))


def _unfrozen(network: PurNet, frozen: int) -> nn.Module:
    """The extractor but for its stem and first blocks."""
    blocks = network.extractor.blocks
    if frozen >= len(blocks):
        raise SettingsError(
            f"network.frozen = {frozen} for an extractor of {len(blocks)} blocks",
            expected=f"less than {len(blocks)}",
            fix="leave out the extractor's learning rate to freeze all of it",
        )
    return nn.ModuleList(list(blocks)[frozen:])


def _levels(saliency: Tensor) -> Array:
    """(1, 1, H, W) probabilities to (H, W) uint8."""
    return np.asarray((saliency[0, 0].float() * 255).round().to(torch.uint8).cpu().numpy())
