"""How PurNet is trained, as values that are checked before anything runs; see `recipes`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, model_validator

from hqsod.training.settings import LoopSettings, Optimizer, Pace, Range, Rate, Section, Seed, Share

BackboneName = Literal["resnet50", "vgg16", "efficientnet-lite0", "efficientnet-lite2", "light"]
Attention = Literal["promotion", "rectification"]
Part = Literal["extractor", "purificatory", "promotion", "rectification"]


class Network(Section):
    """The network that is trained.

    Attributes:
        backbone: `resnet50`, `vgg16`, `efficientnet-lite0`, `efficientnet-lite2` or `light`.
        width: channels of the decoders.
        attention: the attention subnetworks that it has once a stage uses attention; to leave one
            out shows what it is worth.
        frozen: how many of the extractor's first `blocks` stay as they begin, and its stem with
            them; 0 for none. What ImageNet taught them hardly changes, and their large maps make
            their gradients the slowest.
    """

    backbone: BackboneName = "resnet50"
    width: int = Field(default=128, ge=1)
    attention: tuple[Attention, ...] = ("promotion", "rectification")
    frozen: int = Field(default=0, ge=0)


class Augmentation(Section):
    """How each image is changed every time it is shown.

    Attributes:
        flip: whether half of them are mirrored.
        rotation: largest angle, in degrees.
        scale: smallest and largest zoom; above 1 a random part is cropped out.
        colour: largest change of brightness, contrast and saturation, as a share.
        paste: share of the images that another's salient object is pasted into.
        texture: share of the pasted objects that bring a third image's surface, so that their
            outline is all that says what they are.
    """

    flip: bool = True
    rotation: float = Field(default=10.0, ge=0, le=180)
    scale: Range[Rate] = (1.0, 1.0)
    colour: float = Field(default=0.0, ge=0, lt=1)
    paste: Share = 0.0
    texture: Share = 0.0


class Data(Section):
    """What images are brought to before they are shown.

    Attributes:
        size: height and width in pixels, a multiple of 32 for speed, not by need.
        superpixels: how many SLIC is asked for, where a data set brings none of its own.
        holdout: share of the images kept for validation where no other set is named.
        augmentation: see `Augmentation`.
    """

    size: int = Field(default=320, ge=32)
    superpixels: int = Field(default=200, ge=1, le=10_000)
    holdout: float = Field(default=0.05, ge=0, lt=1)
    augmentation: Augmentation = Augmentation()


class PurNetStage(Section):
    """One stage of PurNet's training.

    Attributes:
        start: `random`, an earlier stage such as `stage1`, or weights by name or path, which fill
            the extractor or the whole network.
        attention: whether the promotion and rectification subnetworks take part.
        structural_similarity: whether that loss takes part.
        iou: whether a soft IoU takes part, which the paper does not have; maps get more decided.
        s_measure: whether 1 - S-measure takes part, likewise; maps get more even.
        steps: how many.
        batch: images in a step, over all processes together.
        rates: learning rate of each part; that of a subnetwork which `network.attention` leaves
            out is not used.
        size: height and width of its images in pixels; None for that of `Data`.
    """

    start: str
    attention: bool
    structural_similarity: bool
    iou: bool = False
    s_measure: bool = False
    steps: int = Field(ge=1)
    batch: int = Field(ge=1)
    rates: dict[Part, Rate] = Field(min_length=1)
    size: int | None = Field(default=None, ge=32)

    @model_validator(mode="after")
    def _consistent(self) -> PurNetStage:
        idle = {"promotion", "rectification"} & self.rates.keys()
        if idle and not self.attention:
            raise ValueError(
                f"no learning rate for {min(idle)}, which is not used without attention"
            )
        return self


class PurNetRecipe(Section):
    """A whole training of PurNet.

    Attributes:
        task: says that it is one.
        network: see `Network`.
        data: see `Data`.
        optimizer: see `Optimizer`.
        pace: see `Pace`.
        seed: of the first weights, the order of the images and their changes.
        double_sigmoid: the published code's second sigmoid in the structural similarity loss.
        stage1: see `PurNetStage`; likewise the others, of which the last may be left out.
    """

    task: Literal["purnet"] = "purnet"
    network: Network = Network()
    data: Data = Data()
    optimizer: Optimizer = Optimizer()
    pace: Pace = Pace()
    seed: Seed = 0
    double_sigmoid: bool = False
    stage1: PurNetStage
    stage2: PurNetStage
    stage3: PurNetStage | None = None

    @model_validator(mode="after")
    def _consistent(self) -> PurNetRecipe:
        for name, stage in self.stages.items():
            if name <= stage.start in self.stages:
                raise ValueError(f"{name} to start from an earlier stage, not {stage.start}")
            if not _trained(stage, self.attention(name)):
                raise ValueError(f"a learning rate for a part that {name} has")
        return self

    @property
    def stages(self) -> Mapping[str, PurNetStage]:
        """The stages by name, in order."""
        stages = {"stage1": self.stage1, "stage2": self.stage2, "stage3": self.stage3}
        return {name: stage for name, stage in stages.items() if stage is not None}

    def attention(self, name: str) -> tuple[Attention, ...]:
        """The attention subnetworks of the network in a stage."""
        return self.network.attention if self.stages[name].attention else ()

    def size(self, name: str) -> int:
        """Height and width of a stage's images."""
        return self.stages[name].size or self.data.size

    def loop(self, name: str) -> LoopSettings:
        """What the loop needs for a stage."""
        stage = self.stages[name]
        return LoopSettings(
            steps=stage.steps,
            batch=stage.batch,
            rates=_trained(stage, self.attention(name)),
            optimizer=self.optimizer,
            pace=self.pace,
            seed=self.seed + int(name[-1]),
        )


def _trained(stage: PurNetStage, attention: tuple[Attention, ...]) -> dict[str, float]:
    """The learning rates of the parts that the network of a stage has."""
    parts = {"extractor", "purificatory", *attention}
    return {part: rate for part, rate in stage.rates.items() if part in parts}
