"""From a picture's file to the file of its result, for many clients at once and in bounded memory.

What is bounded: the pictures taken in at all (the rest is told to come again), the bytes and the
time a picture may take to arrive, its pixels, and how many lie decoded in memory. Pictures are
decoded, drawn and compressed in a few threads, beside the network's.
"""

from __future__ import annotations

import asyncio
import io
import math
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from hqsod.cutout import require_pymatting
from hqsod.errors import InputError
from hqsod.images import encode_png
from hqsod.inference.saliency import Maps
from hqsod.predict import Predictor, Read, draw, read
from hqsod.runner import THREADS
from hqsod.serve.batching import Batcher
from hqsod.serve.metrics import Metrics

Result = TypeVar("Result")
LONGEST_WAIT = 60  # seconds that a client is told to wait at most


@dataclass(frozen=True, slots=True)
class Limits:
    """What the service takes.

    Attributes:
        places: pictures it works on or has waiting at once.
        body: bytes of a picture's file.
        pixels: of a picture, height times width.
        seconds: in which the file must have arrived.
    """

    places: int = 64
    body: int = 20_000_000
    pixels: int = 25_000_000
    seconds: float = 30


def warm_up(predictor: Predictor) -> None:
    """Do what the first client would wait for, and find out whether a whole batch fits the memory.

    Raises:
        WeightsError, SettingsError: see `Predictor` and `require_pymatting`.
    """
    require_pymatting()
    blank = np.zeros((predictor.size, predictor.size, 3), np.uint8)
    predictor.maps([blank] * predictor.batch)


class Service:
    """Pictures in, PNG files out; within `running`.

    Args:
        predictor: what makes the maps.
        limits: see there.
    """

    def __init__(self, predictor: Predictor, limits: Limits) -> None:
        self.predictor, self.limits = predictor, limits
        self.in_progress = 0
        self.metrics = Metrics(lambda: self.in_progress)
        self._batcher = Batcher(predictor.maps, predictor.batch, self._observe)
        self._pool = ThreadPoolExecutor(THREADS, "pictures")
        # Enough that the next batch lies ready and the last one can be drawn.
        self._decoded = asyncio.Semaphore(2 * predictor.batch + THREADS)

    @property
    def failure(self) -> str | None:
        """Why the last pictures got no map; None if they did."""
        return self._batcher.failure

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """While the network's thread runs. The server leaves when every client has its answer."""
        network = asyncio.create_task(self._batcher.run())
        try:
            yield
        finally:
            network.cancel()
            self._pool.shutdown()

    async def answer(self, request: Request, kind: str) -> bytes:
        """The PNG file for a request that carries a picture.

        Args:
            request: its body is the picture's file.
            kind: of `hqsod.predict.KINDS`.

        Raises:
            HTTPException: 503, no place is free; 408, the body came too slowly; 415, it is a form.
            InputError: it is no picture that can be read, or has too many pixels.
            ClientDisconnect: nobody waits for the answer any more.
            SettingsError: see `SaliencyNetwork` and `cut_out`.
        """
        if request.headers.get("content-type", "").startswith("multipart/"):
            raise HTTPException(415, "a form; send the picture itself as the request's body")
        with self._place():
            body = await self._body(request)
            return await _unless_left(request, self._make(body, kind))

    @contextmanager
    def _place(self) -> Iterator[None]:
        if self.in_progress >= self.limits.places:
            wait = min(max(1, math.ceil(self.in_progress * self._batcher.pace)), LONGEST_WAIT)
            reason = f"all {self.limits.places} places are taken; come again in {wait} s"
            raise HTTPException(503, reason, {"Retry-After": str(wait)})
        self.in_progress += 1
        try:
            yield
        finally:
            self.in_progress -= 1

    async def _body(self, request: Request) -> bytes:
        try:
            async with asyncio.timeout(self.limits.seconds):
                body = b"".join([part async for part in request.stream()])
        except TimeoutError:
            reason = f"the picture did not arrive within {self.limits.seconds:g} s"
            raise HTTPException(408, reason) from None
        if not body:
            raise InputError("an empty body", expected="a picture's file as the request's body")
        return body

    async def _make(self, body: bytes, kind: str) -> bytes:
        async with self._decoded:
            picture = await self._in_thread(self._read, body)
            saliency = await self._batcher(picture.prepared)
            return await self._in_thread(_draw, kind, picture, saliency)

    def _read(self, body: bytes) -> Read:
        return read(self.predictor.size, io.BytesIO(body), self.limits.pixels)

    async def _in_thread(self, work: Callable[..., Result], *arguments: Any) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work, *arguments)

    def _observe(self, pictures: int, seconds: float) -> None:
        self.metrics.batches.observe(pictures)
        self.metrics.network.observe(seconds)


def _draw(kind: str, picture: Read, saliency: Maps) -> bytes:
    return encode_png(draw(kind, picture, saliency))


async def _unless_left(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """What `work` comes to; it is cancelled when the client leaves, and then nobody is told."""
    working = asyncio.create_task(work)
    leaving = asyncio.create_task(_left(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
