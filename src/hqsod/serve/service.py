"""From a picture's file to the file of its result, for many clients at once and in bounded memory.

What is bounded: the images worked on or waiting (the rest is told to come again), the bytes of
those that are arriving, an image's bytes and pixels, and how many lie decoded in memory. Images are
decoded, drawn and compressed in a few threads, beside the network's.
"""

from __future__ import annotations

import asyncio
import io
import math
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from hqsod.errors import InputError
from hqsod.images import encode_png
from hqsod.inference.scaling import Maps
from hqsod.predict import Predictor, Read, draw, read
from hqsod.runner import THREADS
from hqsod.serve.batching import Batcher
from hqsod.serve.forms import file_in
from hqsod.serve.metrics import Metrics

Result = TypeVar("Result")
LONGEST_WAIT = 60  # seconds that a client is told to wait at most


@dataclass(frozen=True, slots=True)
class Limits:
    """What the service takes.

    Attributes:
        places: images it works on or has waiting at once; as many times `body` may be arriving.
        body: bytes of an image's file, or of the form with it.
        pixels: of an image, height times width.
    """

    places: int = 64
    body: int = 20_000_000
    pixels: int = 25_000_000


def warm_up(predictor: Predictor) -> None:
    """Do what the first client would wait for, and find out whether a whole batch fits the memory.

    Raises:
        WeightsError, SettingsError: see `Predictor`.
    """
    blank = np.zeros((predictor.size, predictor.size, 3), np.uint8)
    predictor.maps([blank] * predictor.batch)


class Service:
    """Image files in, PNG files out; within `running`.

    Args:
        predictor: what makes the maps.
        limits: see there.
    """

    def __init__(self, predictor: Predictor, limits: Limits) -> None:
        self.predictor, self.limits = predictor, limits
        self.in_progress = 0
        self._arriving = 0  # bytes of bodies that are not whole yet
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
            self._pool.shutdown(wait=False, cancel_futures=True)

    async def answer(self, request: Request, kind: str) -> bytes:
        """The PNG file for a request that carries an image.

        Args:
            request: its body is the image's file, or a form with that file in it.
            kind: of `hqsod.predict.KINDS`.

        Raises:
            HTTPException: 503, no place is free; 422, there are parameters.
            InputError: it is no image that can be read, or has too many pixels.
            ClientDisconnect: nobody waits for the answer any more.
            SettingsError: see `SaliencyNetwork` and `cut_out`.
        """
        for name in request.query_params:
            raise HTTPException(422, f"{name}: there is no such parameter, nor any other")
        self._require(self.in_progress < self.limits.places)  # before the body comes for nothing
        body = await self._body(request)
        self._require(self.in_progress < self.limits.places)
        self.in_progress += 1
        try:
            return await _unless_left(request, self._make(body, kind))
        finally:
            self.in_progress -= 1

    def _require(self, room: bool) -> None:
        if not room:
            wait = min(max(1, math.ceil(self.in_progress * self._batcher.pace)), LONGEST_WAIT)
            reason = f"all {self.limits.places} places are taken; come again in {wait} s"
            raise HTTPException(503, reason, {"Retry-After": str(wait)})

    async def _body(self, request: Request) -> bytes:
        """The image's file, once all of it is there."""
        parts: list[bytes] = []
        try:
            async for part in request.stream():
                parts.append(part)
                self._arriving += len(part)
                self._require(self._arriving <= self.limits.places * self.limits.body)
        finally:
            self._arriving -= sum(map(len, parts))
        body = b"".join(parts)
        kind = request.headers.get("content-type", "")
        if kind.lower().startswith("multipart/form-data"):
            body = file_in(body, kind)
        if not body:
            raise InputError("an empty body", expected="an image's file as the request's body")
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
