"""PurNet as a task: one stage of its training.

Each loss trains its own subnetwork alone (Li et al., section on the training process): the
purificatory loss the extractor and the purificatory subnetwork, although its gradient passes
through both attentions on its way to the extractor; the other two one attention subnetwork each.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from hqsod import images, metrics
from hqsod.errors import WeightsError
from hqsod.images import Array
from hqsod.losses import Targets, promotion_loss, purificatory_loss, rectification_loss
from hqsod.models.purnet import PurNet, from_published, is_published
from hqsod.training.data import Batch, Pictures
from hqsod.training.stages import Stage
from hqsod.training.store import Store
from hqsod.training.task import Objective, Validation, is_shown

_ATTENTION = ("promotion.", "rectification.", "purificatory.promoted.")
_SCORES = ("mae", "f_max", "f_weighted", "s_measure", "e_mean")
_SHOWN = 8  # pictures on a sheet
_TILE = 160  # pixels


class PurNetTask:
    """A stage of PurNet's training. Args: see `Task` and `Recipe`."""

    def __init__(
        self,
        network: PurNet,
        stage: Stage,
        data: Pictures,
        validation: Store,
        double_sigmoid: bool = False,
    ) -> None:
        self.network, self.stage, self.data, self.validation = network, stage, data, validation
        self.double_sigmoid = double_sigmoid
        size = str(data.store.image.shape[1])  # what the network is at its best with
        self.metadata: Mapping[str, str] = {"network": "PurNet", "size": size}
        parts = {str(name): getattr(network, name) for name in stage.rates}
        self.parts: Mapping[str, nn.Module] = parts

    def objectives(self, batch: Batch) -> list[Objective]:
        """One loss in stage 1, three with attention; see `Task`."""
        side = self.network.side_outputs(batch["image"].float() / 255)
        targets = Targets(batch["mask"].float() / 255, batch.get("superpixels"))
        main = purificatory_loss(
            side.saliency,
            targets,
            error=None if side.error is None else side.error.float().tanh(),
            structural_similarity=self.stage.structural_similarity,
            iou=self.stage.iou,
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
        """Standard scores over the validation pictures at training size, averaged."""
        if not len(self.validation):
            return None
        store = self.validation
        device = next(network.parameters()).device
        scores, rows = [], []
        for index in range(len(store)):
            example = store[index]
            image = torch.from_numpy(np.array(example.image)).permute(2, 0, 1)[None].to(device)
            saliency = _levels(network(image.float() / 255))
            scores.append(metrics.score(saliency, np.array(example.mask)))
            if is_shown(index, len(store), _SHOWN):
                rows.append(_row(example.image, example.mask, saliency))
        means = {name: float(np.mean([s[name] for s in scores])) for name in _SCORES}
        return Validation(means, means["mae"], np.vstack(rows))


def fill(network: PurNet, state: Mapping[str, Tensor]) -> None:
    """Start a network from weights: of a PurNet, without attention perhaps, or of its extractor.

    Raises:
        WeightsError: tensors that the network has no place for, or that leave out more than the
            attention subnetworks.
    """
    if is_published(state):
        state = from_published(state)
    if not any(name.startswith("purificatory.") for name in state):  # ImageNet's
        state = {
            f"extractor.{n}": t
            for n, t in state.items()
            if not n.startswith(("fc.", "classifier."))
        }
        left_out: tuple[str, ...] = (*_ATTENTION, "purificatory.")
    else:
        left_out = _ATTENTION
    try:
        missing, unexpected = network.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise WeightsError(
            str(error).splitlines()[1].strip(), expected="weights of this network"
        ) from None
    wrong = [*unexpected, *(name for name in missing if not name.startswith(left_out))]
    if wrong:
        raise WeightsError(
            f"weights that do not fit at {wrong[0]} ({len(wrong)} tensors)",
            expected="those of this backbone and width",
        )


def _levels(saliency: Tensor) -> Array:
    """(1, 1, H, W) probabilities to (H, W) uint8."""
    return np.asarray((saliency[0, 0].float() * 255).round().to(torch.uint8).cpu().numpy())


def _row(image: Array, mask: Array, saliency: Array) -> Array:
    """Picture, mask and prediction side by side."""
    tiles = (image, np.dstack([mask] * 3), np.dstack([saliency] * 3))
    small = [images.resize(tile, (_TILE, _TILE), Image.Resampling.BILINEAR) for tile in tiles]
    return np.hstack(small)
