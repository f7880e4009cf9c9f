"""Where a build runs: this process, reading ahead and writing behind the networks.

An engine turns batches of tasks into records. It keeps a bounded number of pictures in memory,
however many there are. `hqsod.building.ray_engine` has the other one, which runs this one in each
of its workers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Protocol

import torch

from hqsod import weights
from hqsod.building import steps
from hqsod.building.recipes import SCALE, Recipe, Settings
from hqsod.building.steps import Source
from hqsod.dataset.manifest import File, Record
from hqsod.errors import InputError, WeightsError
from hqsod.inference.devices import precision_name
from hqsod.inference.refiner import Refiner, load_refiner
from hqsod.inference.saliency import SaliencyNetwork, find_weights, load_network
from hqsod.inference.upscaler import Upscaler, load_upscaler
from hqsod.types import Pair

READ_AHEAD = 2  # batches decoded before the networks ask for them
WRITERS = 4  # threads that judge, compress and write
WRITE_BEHIND = 8  # pictures the networks may be ahead of the disk
GPU_BATCH = 8  # pictures of one size in the upscaler; on a CPU one fills the cores


@dataclass(frozen=True, slots=True)
class Task:
    """A pair to pass through the networks.

    Attributes:
        pair: the pair.
        files: its hashes.
        needed: False for a pair that is built already and only completes its batch, so that a
            resumed run multiplies the same batches, and so writes the same bytes, as a whole one.
    """

    pair: Pair
    files: dict[str, File]
    needed: bool = True


class Engine(Protocol):
    """Builds pairs."""

    @property
    def settings(self) -> Settings:
        """What the bytes of its outputs follow from."""
        ...

    def run(self, batches: Sequence[Sequence[Task]], folder: Path) -> Iterator[Record]:
        """Build the batches, each of pictures of one size.

        Yields:
            One record for each needed task, once its files are written to `folder`.

        Raises:
            OutputError: the folder cannot be written to.
        """
        ...


@dataclass(frozen=True, slots=True)
class LocalEngine:
    """The networks of a recipe, loaded in this process, and what they were loaded with."""

    upscaler: Upscaler
    refiner: Refiner | None
    settings: Settings
    predictor: SaliencyNetwork | None = None

    def run(self, batches: Sequence[Sequence[Task]], folder: Path) -> Iterator[Record]:
        """Build the batches in this process, in order; see `Engine`."""
        writing: deque[Future[Record]] = deque()
        with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(WRITERS) as writer:
            for batch, sources in _read_ahead(reader, batches, self.settings):
                yield from (source for source in sources if isinstance(source, Record))
                readable = [source for source in sources if isinstance(source, Source)]
                needed = {task.pair.stem for task in batch if task.needed}
                for enlarged in self._through_networks(readable, needed):
                    if isinstance(enlarged, Record):
                        yield enlarged
                        continue
                    writing.append(writer.submit(steps.write, enlarged, folder, self.settings))
                    while len(writing) > WRITE_BEHIND:
                        yield writing.popleft().result()
            for future in writing:
                yield future.result()

    def _through_networks(
        self, sources: Sequence[Source], needed: set[str]
    ) -> Iterator[steps.Enlarged | Record]:
        if not sources:
            return
        start = perf_counter()
        upscaled = self.upscaler([source.image for source in sources])
        seconds = (perf_counter() - start) / len(sources)
        for source, image in zip(sources, upscaled, strict=True):
            if source.pair.stem not in needed:
                continue
            try:
                yield steps.enlarge(source, image, self.refiner, seconds, self.predictor)
            except InputError as error:  # such as a picture too narrow for the refiner
                task = Task(source.pair, source.files)
                yield rejected(task, str(error), self.settings)


def load_engine(
    recipe: Recipe, device: torch.device, precision: torch.dtype, *, fallback: bool
) -> LocalEngine:
    """Load a recipe's networks, fetching weights where needed.

    Raises:
        WeightsError: weights cannot be had or do not fit.
    """
    upscaler = load_upscaler(recipe.upscaler, device, precision)
    if upscaler.scale != SCALE:
        raise WeightsError(
            f"{recipe.upscaler}: enlarges {upscaler.scale} times",
            expected=f"{SCALE} times",
            fix="use another",
        )
    refiner = load_refiner(recipe.refiner, device, precision)
    predictor, predictor_weights = None, ""
    if recipe.predictor != "none":
        predictor = load_network(recipe.predictor, str(device), precision_name(precision))
        predictor_weights = weights.sha256(find_weights(recipe.predictor))
    settings = Settings(
        recipe=recipe.name,
        upscaler=upscaler.name,
        upscaler_weights=upscaler.weights,
        refiner=refiner.name if refiner else "none",
        refiner_weights=refiner.weights if refiner else "",
        predictor=recipe.predictor,
        predictor_weights=predictor_weights,
        canvas=recipe.canvas,
        precision=str(precision).removeprefix("torch."),
        batch=GPU_BATCH if device.type == "cuda" else 1,
        fallback=fallback,
    )
    return LocalEngine(upscaler, refiner, settings, predictor)


def _read_ahead(
    reader: ThreadPoolExecutor, batches: Iterable[Sequence[Task]], settings: Settings
) -> Iterator[tuple[Sequence[Task], list[Source | Record]]]:
    """Each batch with its sources as read, the next ones being read meanwhile."""
    waiting = iter(batches)
    reading = deque(
        (batch, reader.submit(read_batch, batch, settings)) for batch in islice(waiting, READ_AHEAD)
    )
    while reading:
        batch, future = reading.popleft()
        for following in islice(waiting, 1):
            reading.append((following, reader.submit(read_batch, following, settings)))
        yield batch, future.result()


def read_batch(batch: Sequence[Task], settings: Settings) -> list[Source | Record]:
    """Read a batch; a pair that cannot be used becomes a record that says why."""
    sources: list[Source | Record] = []
    for task in batch:
        try:
            sources.append(steps.read(task.pair, task.files, settings))
        except InputError as error:
            sources.append(rejected(task, str(error), settings))
    return sources


def rejected(task: Task, reason: str, settings: Settings) -> Record:
    """The record of a pair that could not be built."""
    return Record(task.pair.stem, "rejected", settings.key, task.files, notes=reason)
