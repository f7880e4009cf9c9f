"""PurNet: salient objects by promotion, rectification and purification.

Li et al., "Salient Object Detection with Purificatory Mechanism and Structural Similarity Loss",
IEEE TIP 30, 2021, arXiv 1912.08393. One extractor feeds three subnetworks of the same build, each a
top-down decoder with a prediction head per level. The promotion subnetwork says where salient
objects are, the rectification subnetwork where mistakes are likely; the purificatory subnetwork
weighs its features with both. Lists of levels are finest first: entry 0 is level 1 of the paper.

Differs from the published code: any input size goes through, images come as RGB in [0, 1] and are
normalised here, `forward` computes only what the finest saliency map needs, and either attention
subnetwork may be left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from hqsod.errors import SettingsError, WeightsError
from hqsod.models import efficientnet
from hqsod.models.blocks import (
    Decoder,
    PredictionHead,
    conv_stack,
    crop_to,
    promotion_attention,
)
from hqsod.models.efficientnet import EfficientNetLite
from hqsod.models.loading import fitting
from hqsod.models.resnet import BasicBlock, ResNet
from hqsod.models.vgg import VGG16

MEAN = (0.4923, 0.4634, 0.3974)  # of the paper's training images
STD = (0.2737, 0.2659, 0.2836)
LEVELS = 5
ATTENTIONS = ("promotion", "rectification")

Extractor = ResNet | VGG16 | EfficientNetLite


class Backbone(NamedTuple):
    """How an extractor is built, and what it wants images brought to: (image - mean) / std."""

    build: Callable[[], Extractor]
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD


_EFFICIENTNET = (efficientnet.MEAN,) * 3, (efficientnet.STD,) * 3

BACKBONES: dict[str, Backbone] = {
    "resnet50": Backbone(lambda: ResNet(strides=(1, 2, 2, 1), dilations=(1, 1, 2, 4))),
    "vgg16": Backbone(VGG16),
    "efficientnet-lite0": Backbone(EfficientNetLite, *_EFFICIENTNET),
    "efficientnet-lite2": Backbone(lambda: EfficientNetLite(1.1, 1.2), *_EFFICIENTNET),
    "light": Backbone(
        lambda: ResNet(
            block=BasicBlock,
            depths=(2, 2, 2, 2),
            width=32,
            strides=(1, 2, 2, 1),
            dilations=(1, 1, 1, 2),
        )
    ),
}


class SideOutputs(NamedTuple):
    """What PurNet's training looks at, one channel per level, finest first.

    Attributes:
        saliency: (B, 5, H, W) logits of the purificatory subnetwork.
        promotion: (B, 5, H, W) logits of the promotion subnetwork's saliency maps.
        rectification: (B, 5, H, W) logits of the rectification subnetwork's saliency maps.
        error: (B, 5, H, W) error maps before their tanh, which brings them to [-1, 1].

    What belongs to a subnetwork that the network does not have is None.
    """

    saliency: Tensor
    promotion: Tensor | None = None
    rectification: Tensor | None = None
    error: Tensor | None = None


class Subnetwork(nn.Module):
    """A decoder over the extractor's features and a prediction head for each level."""

    def __init__(self, extractor: Extractor, width: int) -> None:
        super().__init__()
        self.decoder = Decoder(extractor.channels, extractor.strides, width)
        self.heads = _heads(extractor, width)


class Rectification(Subnetwork):
    """Features of a saliency map, and by how much features of its mistakes differ from them."""

    def __init__(self, extractor: Extractor, width: int) -> None:
        super().__init__(extractor, width)
        self.saliency = nn.ModuleList(conv_stack(width, (3, 3, 1)) for _ in range(LEVELS))
        self.mistakes = nn.ModuleList(conv_stack(width, (3, 3, 1)) for _ in range(LEVELS))
        self.error_heads = _heads(extractor, width)

    def split(self, level: int, features: Tensor) -> tuple[Tensor, Tensor]:
        """Decoded features of a level to saliency features and a difference, whose tanh attends."""
        saliency = self.saliency[level](features)
        return saliency, self.mistakes[level](features) - saliency


class Purificatory(Subnetwork):
    """The subnetwork whose saliency maps are PurNet's; in stage 1 it stands alone."""

    def __init__(self, extractor: Extractor, width: int, promotion: bool) -> None:
        super().__init__(extractor, width)
        self.promoted = nn.ModuleList(conv_stack(width, (3,)) for _ in range(LEVELS) if promotion)

    def promote(self, level: int, features: Tensor, attention: Tensor) -> Tensor:
        """Features of a level weighed with the promotion attention."""
        promoted: Tensor = self.promoted[level](_attend(features, attention))
        return promoted


class PurNet(nn.Module):
    """The network of the paper.

    Args:
        extractor: (B, 3, H, W) to five maps, finest first, with its `channels` at its `strides`.
        width: channels of the decoders.
        attention: the attention subnetworks that take part: `promotion`, `rectification`, both
            (the paper's) or none (its stage 1).
        mean, std: what the extractor wants images brought to, for each channel.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        extractor: Extractor,
        width: int,
        attention: Collection[str],
        mean: Sequence[float] = MEAN,
        std: Sequence[float] = STD,
    ) -> None:
        super().__init__()
        promotion, rectification = (name in attention for name in ATTENTIONS)
        self.extractor = extractor
        self.purificatory = Purificatory(extractor, width, promotion)
        self.promotion = Subnetwork(extractor, width) if promotion else None
        self.rectification = Rectification(extractor, width) if rectification else None
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Saliency map, computing only what it needs.

        Args:
            image: (B, 3, H, W) RGB in [0, 1], any size; the paper's is 320 x 320.

        Returns:
            (B, 1, H, W) float32 probabilities.
        """
        features = self.extractor((image - self.mean) / self.std)
        finest = self.purificatory.decoder(features)[0]
        if self.promotion is not None:
            attention = promotion_attention(self.promotion.decoder(features)[0])
            finest = self.purificatory.promote(0, finest, attention)
        if self.rectification is not None:
            _, difference = self.rectification.split(0, self.rectification.decoder(features)[0])
            finest = _attend(finest, difference.tanh())
        return crop_to(self.purificatory.heads[0](finest), image).float().sigmoid()

    def side_outputs(self, image: Tensor) -> SideOutputs:
        """All that training and a curious reader look at.

        Args:
            image: (B, 3, H, W) RGB in [0, 1], any size.
        """
        features = self.extractor((image - self.mean) / self.std)
        levels = self.purificatory.decoder(features)
        promotion = rectification = error = None
        if self.promotion is not None:
            located = self.promotion.decoder(features)
            promote = [promotion_attention(f) for f in located]
            levels = [
                self.purificatory.promote(i, f, a)
                for i, (f, a) in enumerate(zip(levels, promote, strict=True))
            ]
            promotion = _side_outputs(self.promotion.heads, _attend_all(located, promote), image)
        if self.rectification is not None:
            doubted = enumerate(self.rectification.decoder(features))
            split = [self.rectification.split(i, f) for i, f in doubted]
            rectify = [difference.tanh() for _, difference in split]
            levels = _attend_all(levels, rectify)
            rectified = _attend_all([saliency for saliency, _ in split], rectify)
            rectification = _side_outputs(self.rectification.heads, rectified, image)
            differences = [difference for _, difference in split]
            error = _side_outputs(self.rectification.error_heads, differences, image)
        saliency = _side_outputs(self.purificatory.heads, levels, image)
        return SideOutputs(saliency, promotion, rectification, error)


def build_purnet(
    backbone: str = "resnet50", width: int = 128, attention: Collection[str] = ATTENTIONS
) -> PurNet:
    """PurNet with random weights.

    Args:
        backbone: `resnet50`, `vgg16` (the paper's two), `efficientnet-lite0` or `-lite2`, for
            machines without a GPU, or `light`, for those and without ImageNet's weights.
        width: channels of the decoders; 128 in the paper.
        attention: see `PurNet`; () for the network of stage 1.

    Raises:
        SettingsError: an unknown backbone.
    """
    if backbone not in BACKBONES:
        raise SettingsError(f"backbone {backbone!r}", expected="one of " + ", ".join(BACKBONES))
    return _assemble(BACKBONES[backbone], width, attention)


def _assemble(backbone: Backbone, width: int, attention: Collection[str]) -> PurNet:
    return PurNet(backbone.build(), width, attention, backbone.mean, backbone.std)


def load_purnet(state: Mapping[str, Tensor]) -> PurNet:
    """The network a checkpoint holds, in eval mode; its build follows from the shapes.

    Args:
        state: tensors in our naming or in the published one.

    Raises:
        WeightsError: the tensors are not those of a PurNet.
    """
    state = from_published(state) if is_published(state) else state
    with fitting("those of a PurNet"):
        laterals = [state[f"purificatory.decoder.lateral.{i}.0.weight"] for i in range(LEVELS)]
        channels = tuple(weight.shape[1] for weight in laterals)
        network = _assemble(_backbone(channels), laterals[0].shape[0], _attention(state))
        network.load_state_dict(state)
    return network.eval()


def _backbone(channels: tuple[int, ...]) -> Backbone:
    """The backbone whose maps have these channels."""
    for backbone in BACKBONES.values():
        with torch.device("meta"):  # only its numbers are looked at
            extractor = backbone.build()
        if extractor.channels == channels:
            return backbone
    raise ValueError(f"no backbone has maps of {channels} channels")


def _attention(state: Mapping[str, Tensor]) -> tuple[str, ...]:
    """The attention subnetworks whose tensors there are."""
    return tuple(part for part in ATTENTIONS if any(name.startswith(f"{part}.") for name in state))


def is_published(state: Mapping[str, Tensor]) -> bool:
    """Whether the tensors carry the names of the published PurNet checkpoints."""
    return any(name.removeprefix("module.").startswith("layer0.") for name in state)


def from_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a published checkpoint of stage 1, 2 or 3 under our names.

    Raises:
        WeightsError: a name the published network does not have.
    """
    return {_our_name(name.removeprefix("module.")): tensor for name, tensor in state.items()}


def _our_name(name: str) -> str:
    module = re.match(r"layer0\.[01]|\w+", name)
    if module is None or module[0] not in _PUBLISHED:
        raise WeightsError(f"tensor {name!r}", expected="a name of the published PurNet")
    return _PUBLISHED[module[0]] + name[module.end() :]


def _published_modules() -> dict[str, str]:
    """The published name of each part, where levels count from 1, and ours."""
    names = {"layer0.0": "extractor.conv1", "layer0.1": "extractor.bn1"}
    names |= {f"layer{i}": f"extractor.layer{i}" for i in range(1, 5)}
    for i in range(LEVELS):
        for prefix, part in ("", "purificatory"), ("oa_", "promotion"), ("ea_", "rectification"):
            names |= {
                f"{prefix}convert{i + 1}": f"{part}.decoder.lateral.{i}",
                f"{prefix}feature_upscore{i + 2}": f"{part}.decoder.top_down.{i}",
                f"{prefix}predict{i + 1}": f"{part}.heads.{i}",
            }
        names |= {
            f"feature_upscore{i + 1}_2": f"purificatory.promoted.{i}",
            f"ea_pre_predict{i + 1}_g": f"rectification.saliency.{i}",
            f"ea_e_pre_predict{i + 1}_e": f"rectification.mistakes.{i}",
            f"ea_predict{i + 1}_g": f"rectification.heads.{i}",
            f"ea_predict{i + 1}_g_upscore": f"rectification.heads.{i}.7",
            f"ea_e_predict{i + 1}_e": f"rectification.error_heads.{i}",
            f"ea_e_predict{i + 1}_e_upscore": f"rectification.error_heads.{i}.7",
        }
    return names


_PUBLISHED = _published_modules()


def _heads(extractor: Extractor, width: int) -> nn.ModuleList:
    return nn.ModuleList(PredictionHead(width, stride) for stride in extractor.strides)


def _attend(features: Tensor, attention: Tensor) -> Tensor:
    """Features raised where attention is positive and lowered where it is negative."""
    return torch.addcmul(features, features, attention.to(features.dtype))


def _attend_all(levels: Sequence[Tensor], attention: Sequence[Tensor]) -> list[Tensor]:
    return [_attend(f, a) for f, a in zip(levels, attention, strict=True)]


def _side_outputs(heads: nn.ModuleList, levels: Sequence[Tensor], image: Tensor) -> Tensor:
    """One channel of logits for each level, at the size of the image."""
    maps = (crop_to(head(level), image) for head, level in zip(heads, levels, strict=True))
    return torch.cat(list(maps), 1)
