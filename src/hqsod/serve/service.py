"""From an image's file to the file of its result, for many clients at once and in bounded memory.

It bounds the images being worked on or waiting (further requests get 503), the bytes of those
that are arriving, an image's bytes and pixels, and how many images lie decoded in memory. Images
are decoded, drawn and compressed in a few threads, besides the network's own.
"""

from __future__ import annotations

import asyncio
import io
import math
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, nullcontext
from typing import Any, TypeVar

import numpy as np
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from hqsod.cutout import CutOut
from hqsod.encoding import FORMATS
from hqsod.errors import InputError, SettingsError
from hqsod.images import read_image
from hqsod.predict import Predictor, Read, encoded, ending, read
from hqsod.runner import THREADS
from hqsod.serve.asked import CutOutAsked, MapAsked
from hqsod.serve.batching import Batcher
from hqsod.serve.forms import Sent, files_in
from hqsod.serve.limits import Limits
from hqsod.serve.metrics import Metrics

Result = TypeVar("Result")
LONGEST_WAIT = 60  # seconds that a client is told to wait at most


def warm_up(predictor: Predictor) -> None:
    """Do what the first client would wait for, and find out whether a whole batch fits the memory.

    Raises:
        WeightsError, SettingsError: see `Predictor`.
    """
    blank = np.zeros((predictor.size, predictor.size, 3), np.uint8)
    predictor.maps([blank] * predictor.batch)


class Service:
    """Image files in, image files out; within `running`.

    Args:
        predictor: what makes the maps.
        limits: see `Limits`.
    """

    def __init__(self, predictor: Predictor, limits: Limits) -> None:
        self.predictor, self.limits = predictor, limits
        self.in_progress = 0
        self._arriving: dict[asyncio.Timeout, int] = {}  # bytes of bodies that are not whole yet
        self.metrics = Metrics(lambda: self.in_progress)
        self._batcher = Batcher(predictor.maps, predictor.batch, self._observe)
        self._pool = ThreadPoolExecutor(THREADS, "images")
        # One thread for what takes seconds, so that the others are there for everybody else.
        self._slow = ThreadPoolExecutor(1, "refining and matting")
        # One at work and one that is ready; the others hold no place that a quick one could have.
        self._unhurried = asyncio.Semaphore(2)
        # Enough that the next batch lies ready and the last one can be drawn.
        self._decoded = asyncio.Semaphore(2 * predictor.batch + THREADS)

    @property
    def failure(self) -> Exception | None:
        """Why the last images got no map; None if they did."""
        return self._batcher.failure

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the network within a `with`; the server leaves it once every client is answered."""
        network = asyncio.create_task(self._batcher.run())
        try:
            yield
        finally:
            network.cancel()
            for pool in (self._pool, self._slow):
                pool.shutdown(wait=False, cancel_futures=True)

    async def answer(self, request: Request, kind: str, asked: MapAsked) -> Response:
        """The file for a request that carries an image.

        Args:
            request: its body is the image's file, or a form with that file in it.
            kind: of `hqsod.predict.KINDS`.
            asked: how it is drawn.

        Raises:
            HTTPException: 503, no place is free, or see `_parts`; 422, settings that do not go
                together.
            InputError: it is no image that can be read, or has too many pixels.
            ClientDisconnect: nobody waits for the answer any more.
            SettingsError: see `SaliencyNetwork` and `cut_out`.
        """
        self._require_place()  # refused before the body is read
        sent = await self._files(request)
        self._require_place()
        self.in_progress += 1
        try:
            return await _until_left(request, self._make(sent, kind, asked))
        finally:
            self.in_progress -= 1

    def _require_place(self) -> None:
        if self.in_progress >= self.limits.places:
            raise self._busy(f"all {self.limits.places} places are taken")

    def _busy(self, reason: str) -> HTTPException:
        wait = min(max(1, math.ceil(self.in_progress * self._batcher.pace)), LONGEST_WAIT)
        return HTTPException(503, f"{reason}; try again in {wait} s", {"Retry-After": str(wait)})

    async def _files(self, request: Request) -> Sent:
        """What a request's body holds, once all of it is there."""
        body = b"".join(await self._parts(request))
        kind = request.headers.get("content-type", "")
        sent = (
            files_in(body, kind) if kind.lower().startswith("multipart/form-data") else Sent(body)
        )
        if not sent.image:
            raise InputError("an empty body", expected="an image's file as the request's body")
        return sent

    async def _parts(self, request: Request) -> list[bytes]:
        """A body in parts.

        Raises:
            HTTPException: 503, it was the slowest when too much was arriving.
        """
        parts: list[bytes] = []
        patience = asyncio.timeout(None)
        try:
            async with patience:
                async for part in request.stream():
                    parts.append(part)
                    self._arriving[patience] = self._arriving.get(patience, 0) + len(part)
                    self._end_slowest()
        except TimeoutError:
            raise self._busy("too much is arriving, and this was the slowest") from None
        finally:
            self._arriving.pop(patience, None)
        return parts

    def _end_slowest(self) -> None:
        """Refuse the bodies that began to arrive first, while too many bytes are arriving."""
        while sum(self._arriving.values()) > self.limits.places * self.limits.body:
            slowest = next(iter(self._arriving))
            del self._arriving[slowest]
            slowest.reschedule(asyncio.get_running_loop().time())

    async def _make(self, sent: Sent, kind: str, asked: MapAsked) -> Response:
        slow = asked.refine or (isinstance(asked, CutOutAsked) and asked.matting)
        async with self._unhurried if slow else nullcontext(), self._decoded:
            image, settings = await self._in_thread(self._pool, self._read, sent, asked)
            saliency = await self._batcher(image.prepared)
            if settings.refine:
                refine = self.predictor.refine
                saliency = await self._in_thread(self._slow, refine, image, saliency)
            pool = self._slow if settings.matting else self._pool
            data = await self._in_thread(pool, encoded, kind, image, saliency, settings)
        name, _ = FORMATS[ending(kind, settings)]
        return Response(data, media_type=f"image/{name.lower()}")

    def _read(self, sent: Sent, asked: MapAsked) -> tuple[Read, CutOut]:
        """The image, and the settings with the background that came with it.

        Raises:
            HTTPException: 422, settings that do not go together.
            InputError: an image that cannot be read, or has too many pixels.
        """
        given = asked.model_dump()
        if sent.background is not None:
            if not isinstance(asked, CutOutAsked):
                raise InputError("a background for a map", expected="the image's file alone")
            given["background"] = read_image(io.BytesIO(sent.background), self.limits.pixels)
        try:
            settings = CutOut(**given)
            if settings.refine:
                _ = self.predictor.refiner  # which may not be had on this device
        except SettingsError as error:
            raise HTTPException(422, str(error)) from error
        return read(self.predictor, io.BytesIO(sent.image), self.limits.pixels), settings

    async def _in_thread(
        self, pool: ThreadPoolExecutor, work: Callable[..., Result], *arguments: Any
    ) -> Result:
        return await asyncio.get_running_loop().run_in_executor(pool, work, *arguments)

    def _observe(self, images: int, seconds: float) -> None:
        self.metrics.batches.observe(images)
        self.metrics.network.observe(seconds)


async def _until_left(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """The result of `work`, which is cancelled when the client leaves.

    Raises:
        ClientDisconnect: the client left.
    """
    working = asyncio.create_task(work)
    leaving = asyncio.create_task(_leaving(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()


async def _leaving(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
