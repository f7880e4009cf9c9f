"""What the loop asks of whatever is trained, and what a job asks of each kind of training.

A task holds a network and its data; it turns a batch into losses and says how good the network is.
Steps, optimizer, checkpoints and logs are the loop's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from torch import Tensor, nn

from hqsod.images import Array
from hqsod.training.batches import Batch, Dataset
from hqsod.training.settings import LoopSettings


class Objective(NamedTuple):
    """A loss and the parts of the network it trains; its gradient reaches no other part.

    Attributes:
        terms: tensors by name; the loss is the sum of all their values.
        trains: names in `TrainingTask.parts`.
    """

    terms: Mapping[str, Tensor]
    trains: tuple[str, ...]


class Validation(NamedTuple):
    """How good a network is.

    Attributes:
        scores: by name.
        error: the figure that is smallest for the best network.
        sheet: (H, W, 3) uint8 sheet of predictions to look at; see `sheets`.
    """

    scores: Mapping[str, float]
    error: float
    sheet: Array


class TrainingTask(Protocol):
    """Something that can be trained."""

    @property
    def network(self) -> nn.Module:
        """What is trained; the loop moves it to its device."""

    @property
    def parts(self) -> Mapping[str, nn.Module]:
        """Its parts by name, disjoint; each has a learning rate of its own."""

    @property
    def data(self) -> Dataset:
        """What batches are made of."""

    @property
    def metadata(self) -> Mapping[str, str]:
        """Text kept with the weights."""

    def objectives(self, batch: Batch) -> list[Objective]:
        """The losses of a batch, under autocast; their graphs may overlap."""

    def validate(self, network: nn.Module) -> Validation | None:
        """Scores of `network`, which is `self.network` or an average of it; None without data."""


class DataFolders(NamedTuple):
    """Where the images of a training are.

    Attributes:
        data: folder of the data set.
        images: folder of the photographs in it, where it is not found by itself.
        masks: folder of the masks, likewise.
        validation: folder of a data set to validate on; None holds out a part of `data`.
        overfit: how many images to overfit; 0 for an ordinary training.
    """

    data: Path
    images: str | None = None
    masks: str | None = None
    validation: Path | None = None
    overfit: int = 0


class Prepared(NamedTuple):
    """A task that is ready for the loop.

    Attributes:
        task: what is trained.
        held_out: how many images it is validated on.
        rejected: why images were left out, by stem.
        unpaired: photographs without a mask and masks without a photograph.
    """

    task: TrainingTask
    held_out: int
    rejected: Mapping[str, str]
    unpaired: Sequence[Path] = ()


class Stage(NamedTuple):
    """One stage of a training.

    Attributes:
        name: of its folder in the run's.
        settings: what the loop is told.
        prepare: finds the data and makes the task; the stages before it are done by then.
    """

    name: str
    settings: LoopSettings
    prepare: Callable[[], Prepared]
