"""Where a build runs: this process. `hqsod.building.ray_engine` has the other place.

An engine turns batches of tasks into records. It keeps a bounded number of pairs in memory, however
many there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hqsod import machine, weights
from hqsod.building.networks import Networks
from hqsod.building.pair import PairPixels, PairTask, build_pair, read, rejected
from hqsod.building.recipes import BF16, SCALE, BuildRecipe, BuildSettings
from hqsod.dataset.manifest import Record
from hqsod.errors import InputError, WeightsError
from hqsod.images import Array
from hqsod.inference.refiner import Refiner, load_refiner
from hqsod.inference.runtime import Runtime
from hqsod.inference.saliency import SaliencyNetwork, find_weights, load_network
from hqsod.inference.upscaler import Upscaler, load_upscaler
from hqsod.runner import Steps, go_through

GPU_BATCH = 8  # images of one size in the upscaler; on a CPU one fills the cores
AT_ONCE = 2  # networks that compute at a time on a CPU, as far as it has as many threads


class Engine(Protocol):
    """Builds pairs."""

    @property
    def settings(self) -> BuildSettings:
        """What the bytes of its outputs follow from."""
        ...

    def run(self, batches: Sequence[Sequence[PairTask]], folder: Path) -> Iterator[Record]:
        """Build the batches, each of images of one size.

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
    settings: BuildSettings
    predictor: SaliencyNetwork | None = None
    at_once: int = 1

    def run(self, batches: Sequence[Sequence[PairTask]], folder: Path) -> Iterator[Record]:
        """Build the batches in this process; see `Engine`."""
        with Networks(self.upscaler, self.refiner, self.predictor, self.at_once) as networks:

            def upscale(pairs: Sequence[PairPixels]) -> list[Array]:
                return networks.upscale([p.image for p in pairs], [p.watch for p in pairs])

            def finish(task: PairTask, pixels: PairPixels, upscaled: Array) -> Record:
                return build_pair(task, pixels, upscaled, networks, self.settings, folder)

            steps = Steps(
                read=lambda task: read(task.pair, self.settings.canvas),
                make=upscale,
                finish=finish,
                is_wanted=lambda task: task.needed,
            )
            outcomes = go_through(batches, steps)
            with closing(outcomes):
                for task, outcome in outcomes:
                    if isinstance(outcome, InputError):
                        yield rejected(task, str(outcome), self.settings)
                    else:
                        yield outcome


def load_engine(recipe: BuildRecipe, runtime: Runtime) -> LocalEngine:
    """Load a recipe's networks, fetching weights where needed.

    Raises:
        WeightsError: weights cannot be had or do not fit.
        SettingsError: PyTorch is needed and missing.
    """
    upscaler = load_upscaler(recipe.upscaler, runtime)
    if upscaler.scale != SCALE:
        raise WeightsError(
            f"{recipe.upscaler}: enlarges {upscaler.scale} times",
            expected=f"{SCALE} times",
            fix="use another",
        )
    refiner = load_refiner(recipe.refiner, runtime)
    predictor, predictor_weights = None, ""
    if recipe.predictor != "none":
        path = find_weights(recipe.predictor)
        precision = "auto" if path.suffix == ".onnx" else runtime.precision
        predictor = load_network(recipe.predictor, runtime.device, precision)
        predictor_weights = weights.sha256(path)
    settings = BuildSettings(
        recipe=recipe.name,
        upscaler=upscaler.name,
        upscaler_weights=upscaler.weights,
        refiner=refiner.name if refiner else "none",
        refiner_weights=refiner.weights if refiner else "",
        predictor=recipe.predictor,
        predictor_weights=predictor_weights,
        canvas=recipe.canvas,
        precision=BF16 if runtime.precision == "bf16" else runtime.precision,
        batch=recipe.batch or (1 if runtime.device == "cpu" else GPU_BATCH),
        fallback=recipe.fallback,
    )
    at_once = min(AT_ONCE, machine.threads()) if runtime.device == "cpu" else 1
    return LocalEngine(upscaler, refiner, settings, predictor, at_once)
