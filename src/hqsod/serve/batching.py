"""Images that wait at the same time go through the network together.

No image waits for company: a batch is what came while the network was busy with the one before,
up to the largest. So a lone client waits for nothing, and many share the network's time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter

from hqsod.images import Array
from hqsod.inference.scaling import Maps

OLD = 0.8  # weight of what is known of the pace when another batch is done


@dataclass(frozen=True, slots=True)
class _Waiting:
    """An image for the network, and where its map is waited for."""

    prepared: Array
    result: asyncio.Future[Maps]


class Batcher:
    """Takes single images to a network that takes several.

    Args:
        network: (S, S, 3) uint8 images to (B, S, S) float32 maps; always called in one thread.
        largest: images in a batch at most.
        observe: told the images and the seconds of every batch.

    Attributes:
        failure: what went wrong with the last batch, for whoever watches; None if nothing did.
        pace: seconds the network takes for an image, of late; 0 before the first.
    """

    def __init__(
        self,
        network: Callable[[Sequence[Array]], Maps],
        largest: int,
        observe: Callable[[int, float], None],
    ) -> None:
        self.failure: Exception | None = None
        self.pace = 0.0
        self._network, self._largest, self._observe = network, largest, observe
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue()

    async def __call__(self, prepared: Array) -> Maps:
        """The (S, S) map of an image.

        Raises:
            Exception: whatever the network raised for its batch.
        """
        waiting = _Waiting(prepared, asyncio.get_running_loop().create_future())
        self._queue.put_nowait(waiting)  # whoever calls bounds how many wait
        return await waiting.result

    async def run(self) -> None:
        """Work until cancelled."""
        loop = asyncio.get_running_loop()
        thread = ThreadPoolExecutor(1, "network")
        try:
            while True:
                batch = await self._next()
                images = [waiting.prepared for waiting in batch]
                await self._answer(batch, loop.run_in_executor(thread, self._network, images))
        finally:
            thread.shutdown(wait=False)  # nobody waits for its batch any more

    async def _next(self) -> list[_Waiting]:
        """At least one image, whose client is still there, and what others have come."""
        batch: list[_Waiting] = []
        while not batch or (len(batch) < self._largest and not self._queue.empty()):
            waiting = await self._queue.get()
            if not waiting.result.done():
                batch.append(waiting)
        return batch

    async def _answer(self, batch: list[_Waiting], computing: asyncio.Future[Maps]) -> None:
        """Hand out a batch's maps, or its error, to those who wait; the next batch goes on.

        An image whose client has left has a result that is done already: it was cancelled.
        """
        started = perf_counter()
        try:
            maps = await computing
        except Exception as error:
            self.failure = error
            for waiting in batch:
                if not waiting.result.done():
                    waiting.result.set_exception(error)
            return
        self.failure = None
        self._note(len(batch), perf_counter() - started)
        for waiting, saliency in zip(batch, maps, strict=True):
            if not waiting.result.done():
                waiting.result.set_result(saliency)

    def _note(self, images: int, seconds: float) -> None:
        recent = seconds / images
        self.pace = OLD * self.pace + (1 - OLD) * recent if self.pace else recent
        self._observe(images, seconds)
