"""The networks of a recipe, in use: a few compute at a time, each in a thread of its own.

Other threads place, judge and write meanwhile. On a CPU two networks compute at a time: much of a
network runs in a single thread, which would leave the other cores idle. No more than two, because
PyTorch keeps a pool of threads for each thread that calls it, and pools that wait for one another
are slow. They share PyTorch's threads; ONNX Runtime's wait without spinning, and each has its own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import ParamSpec, Self, TypeVar

import numpy as np

from hqsod.images import Array
from hqsod.inference.refiner import Refiner
from hqsod.inference.saliency import SaliencyNetwork
from hqsod.inference.scaling import prepare
from hqsod.inference.upscaler import Upscaler

Arguments = ParamSpec("Arguments")
Value = TypeVar("Value")


class Stopwatch:
    """How long the steps of a pair took.

    Attributes:
        seconds: by step.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def __call__(
        self,
        step: str,
        function: Callable[Arguments, Value],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Value:
        """Call the function as a step of that name."""
        start = perf_counter()
        value = function(*args, **kwargs)
        self.seconds[step] = round(perf_counter() - start, 4)
        return value


class Networks:
    """The networks of a recipe; use it as a context manager.

    Args:
        upscaler: for the images.
        refiner: for the masks; None leaves them as upscaled.
        predictor: says what is salient without the mask; None for no such opinion.
        at_once: how many compute at a time.
    """

    def __init__(
        self,
        upscaler: Upscaler,
        refiner: Refiner | None,
        predictor: SaliencyNetwork | None,
        at_once: int = 1,
    ) -> None:
        self._upscaler, self._refiner, self._predictor = upscaler, refiner, predictor
        self._threads = ThreadPoolExecutor(at_once, "networks", _share_threads, (at_once,))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._threads.shutdown()

    def upscale(self, images: Sequence[Array], watches: Sequence[Stopwatch]) -> list[Array]:
        """Upscale (H, W, 3) images of one size together; each takes its share of the time."""
        shared = Stopwatch()
        upscaled = self._threads.submit(shared, "upscale", self._upscaler, images).result()
        for watch in watches:
            watch.seconds["upscale"] = round(shared.seconds["upscale"] / len(images), 4)
        return upscaled

    def refine(self, image: Array, mask: Array, watch: Stopwatch) -> Array | None:
        """The (H, W) mask of a (H, W, 3) image refined, if there is a refiner.

        Raises:
            InputError: the refiner cannot take them.
        """
        if self._refiner is None:
            return None
        return self._threads.submit(watch, "refine", self._refiner, image, mask).result()

    def predict(self, image: Array, watch: Stopwatch) -> Array | None:
        """A saliency map of a (H, W, 3) image, (S, S) uint8, if there is a predictor."""
        if self._predictor is None:
            return None
        return self._threads.submit(watch, "predict", saliency_map, self._predictor, image).result()


def _share_threads(at_once: int) -> None:
    """Give the calling thread its share of PyTorch's threads, where PyTorch is at work."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(max(1, torch.get_num_threads() // at_once))


def saliency_map(predictor: SaliencyNetwork, image: Array) -> Array:
    """What a network finds salient in a (H, W, 3) image: (S, S) uint8."""
    saliency = predictor(prepare(image, predictor.size, predictor.method)[None])[0]
    return np.asarray((saliency * 255).round(), np.uint8)
