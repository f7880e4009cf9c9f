"""How PurNet is trained, as values that are checked before anything runs; see `recipes`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Part = Literal["extractor", "purificatory", "promotion", "rectification"]
Rate = Annotated[float, Field(gt=0)]


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Network(_Settings):
    """The network that is trained.

    Attributes:
        backbone: `resnet50`, `vgg16`, `efficientnet-lite0` or `light`.
        width: channels of the decoders.
    """

    backbone: Literal["resnet50", "vgg16", "efficientnet-lite0", "light"] = "resnet50"
    width: int = Field(default=128, ge=1)


class Augmentation(_Settings):
    """How each picture is changed every time it is shown.

    Attributes:
        flip: whether half of them are mirrored.
        rotation: largest angle, in degrees.
        scale: smallest and largest zoom; above 1 a random part is cropped out.
        colour: largest change of brightness, contrast and saturation, as a share.
        paste: share of the pictures that another's salient object is pasted into.
        texture: share of the pasted objects that bring a third picture's surface, so that their
            outline is all that says what they are.
    """

    flip: bool = True
    rotation: float = Field(default=10.0, ge=0, le=180)
    scale: tuple[Rate, Rate] = (1.0, 1.0)
    colour: float = Field(default=0.0, ge=0, lt=1)
    paste: float = Field(default=0.0, ge=0, le=1)
    texture: float = Field(default=0.0, ge=0, le=1)


class Data(_Settings):
    """What pictures are brought to before they are shown.

    Attributes:
        size: height and width in pixels, a multiple of 32 for speed, not by need.
        superpixels: how many SLIC is asked for, where a data set brings none of its own.
        holdout: share of the pictures kept for validation where no other set is named.
    """

    size: int = Field(default=320, ge=32)
    superpixels: int = Field(default=200, ge=1, le=10_000)
    holdout: float = Field(default=0.05, ge=0, lt=1)
    augmentation: Augmentation = Augmentation()


class Optimizer(_Settings):
    """Steps along the gradient, and how their size changes.

    Attributes:
        kind: `sgd` or `adamw`.
        momentum: of SGD; AdamW keeps its usual 0.9 and 0.999.
        weight_decay: on everything but biases.
        bias_rate: factor on the rate of biases.
        schedule: `poly` (power 0.9), `cosine` or `constant`.
        warmup: steps over which the rate grows from 0.
        average: decay of the running average of the weights that is validated and kept; 0 for none.
        clip: a longer gradient, over all that is trained, is shortened to this norm; 0 for never.
    """

    kind: Literal["sgd", "adamw"] = "sgd"
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=5e-4, ge=0)
    bias_rate: Rate = 2.0
    schedule: Literal["poly", "cosine", "constant"] = "poly"
    warmup: int = Field(default=0, ge=0)
    average: float = Field(default=0.0, ge=0, lt=1)
    clip: float = Field(default=0.0, ge=0)


class Pace(_Settings):
    """How often something is written, in steps.

    Attributes:
        log: losses, averaged since the last time.
        checkpoint: the whole state; a multiple of `log`, so that a resumed curve has no seam.
        validation: scores and a picture of predictions.
    """

    log: int = Field(default=50, ge=1)
    checkpoint: int = Field(default=1000, ge=1)
    validation: int = Field(default=2000, ge=1)

    @model_validator(mode="after")
    def _aligned(self) -> Pace:
        if self.checkpoint % self.log:
            raise ValueError(f"checkpoint {self.checkpoint} is no multiple of log {self.log}")
        return self


class LoopSettings(_Settings):
    """What the loop needs to know; see `loop.run`.

    Attributes:
        steps: how many.
        batch: pictures in a step, over all processes together.
        rates: learning rate of each part of the task; a part without one is not trained.
        optimizer: see `Optimizer`.
        pace: see `Pace`.
        seed: of the order of the pictures and their changes.
    """

    steps: int = Field(ge=1)
    batch: int = Field(ge=1)
    rates: dict[str, Rate]
    optimizer: Optimizer = Optimizer()
    pace: Pace = Pace()
    seed: int = 0


class Stage(_Settings):
    """One stage of PurNet's training.

    Attributes:
        start: `random`, an earlier stage such as `stage1`, or weights by name or path, which fill
            the extractor or the whole network.
        attention: whether the promotion and rectification subnetworks take part.
        structural_similarity: whether that loss takes part.
        iou: whether a soft IoU takes part, which the paper does not have; maps get more decided.
        steps: how many.
        batch: pictures in a step, over all processes together.
        rates: learning rate of each part.
        size: height and width of its pictures in pixels; None for that of `Data`.
    """

    start: str
    attention: bool
    structural_similarity: bool
    iou: bool = False
    steps: int = Field(ge=1)
    batch: int = Field(ge=1)
    rates: dict[Part, Rate]
    size: int | None = Field(default=None, ge=32)

    @model_validator(mode="after")
    def _consistent(self) -> Stage:
        idle = {"promotion", "rectification"} & self.rates.keys()
        if idle and not self.attention:
            raise ValueError(f"a rate for {min(idle)}, which takes no part without attention")
        return self


class Recipe(_Settings):
    """A whole training of PurNet. Attributes: see each class.

    Attributes:
        task: says that it is one.
        seed: of the first weights, the order of the pictures and their changes.
        double_sigmoid: the published code's second sigmoid in the structural similarity loss.
    """

    task: Literal["purnet"] = "purnet"
    network: Network = Network()
    data: Data = Data()
    optimizer: Optimizer = Optimizer()
    pace: Pace = Pace()
    seed: int = 0
    double_sigmoid: bool = False
    stage1: Stage
    stage2: Stage
    stage3: Stage

    def stage(self, name: str) -> Stage:
        """The stage called `stage1`, `stage2` or `stage3`."""
        stages = {"stage1": self.stage1, "stage2": self.stage2, "stage3": self.stage3}
        return stages[name]

    def loop(self, name: str) -> LoopSettings:
        """What the loop needs for a stage."""
        stage = self.stage(name)
        return LoopSettings(
            steps=stage.steps,
            batch=stage.batch,
            rates={str(part): rate for part, rate in stage.rates.items()},
            optimizer=self.optimizer,
            pace=self.pace,
            seed=self.seed + int(name[-1]),
        )
