"""What every recipe says of the optimizer, the pace and the steps, checked before anything runs."""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

Rate = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]  # what every generator takes
Number = TypeVar("Number", int, float)


def _ascending(ends: tuple[Number, Number]) -> tuple[Number, Number]:
    if ends[0] > ends[1]:
        raise ValueError("the lower end first")
    return ends


Range = Annotated[tuple[Number, Number], AfterValidator(_ascending)]

OVERFIT_STEPS = 240  # of a stage that overfits a handful of images


class Section(BaseModel):
    """A table of a recipe: it cannot be changed, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Optimizer(Section):
    """Steps along the gradient, and how their size changes.

    Attributes:
        kind: `sgd` or `adamw`.
        momentum: of SGD; AdamW keeps its usual 0.9 and 0.999.
        weight_decay: on everything but biases.
        bias_rate: factor on the learning rate of biases.
        schedule: how the learning rate falls: `poly` (power 0.9), `cosine` or `constant`; see
            `optimizer.rate_factor`.
        warmup: steps over which the learning rate grows from 0; at most a sixth of all steps, so
            that a short stage has a schedule too.
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


class Pace(Section):
    """How often something is written, in steps.

    Attributes:
        log: losses, averaged since the last time.
        checkpoint: the whole state; a multiple of `log`, so that a resumed curve has no seam.
        validation: scores and a sheet of predictions; also written at the end.
    """

    log: int = Field(default=50, ge=1)
    checkpoint: int = Field(default=1000, ge=1)
    validation: int = Field(default=2000, ge=1)

    @model_validator(mode="after")
    def _aligned(self) -> Pace:
        if self.checkpoint % self.log:
            raise ValueError(
                f"checkpoint to be a multiple of log ({self.log}), not {self.checkpoint}"
            )
        return self


class LoopSettings(Section):
    """What the loop needs to know; see `loop.run`.

    Attributes:
        steps: how many.
        batch: images in a step, over all processes together.
        rates: learning rate of each part of the task; a part without one is not trained.
        optimizer: see `Optimizer`.
        pace: see `Pace`.
        seed: of the order of the images and their changes.
    """

    steps: int = Field(ge=1)
    batch: int = Field(ge=1)
    rates: dict[str, Rate] = Field(min_length=1)
    optimizer: Optimizer = Optimizer()
    pace: Pace = Pace()
    seed: Seed = 0

    def for_overfitting(self, count: int) -> LoopSettings:
        """The same, for a handful of `count` images and no others."""
        optimizer = self.optimizer.model_copy(update={"warmup": 10, "average": 0.0})
        pace = Pace(log=10, checkpoint=OVERFIT_STEPS, validation=OVERFIT_STEPS // 2)
        steps = min(self.steps, OVERFIT_STEPS)
        changes = {"steps": steps, "batch": count, "optimizer": optimizer, "pace": pace}
        return self.model_copy(update=changes)
