"""Going through batches: threads read ahead, the caller's thread makes, threads finish behind.

Building, predicting, upscaling and refining go this way. However many items there are, only those
that are being read and finished are held in memory.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, ParamSpec, TypeVar

from hqsod import machine
from hqsod.errors import InputError

THREADS = max(4, min(os.cpu_count() or 1, 8))  # that read, and as many that finish
BEHIND = 2 * THREADS  # items that the caller's thread may be ahead of those that finish
AHEAD = 4  # items read before they are asked for, or one batch where that is more
GIVEN_BACK = 32  # batches after which freed memory is given back to the system

Item = TypeVar("Item")
Read = TypeVar("Read")
Made = TypeVar("Made")
Done = TypeVar("Done")
Value = TypeVar("Value")
Arguments = ParamSpec("Arguments")


@dataclass(frozen=True, slots=True)
class Steps(Generic[Item, Read, Made, Done]):
    """What is done with each item. Every step may raise InputError, which costs only its item.

    Attributes:
        read: from an item to what is worked on; in threads, ahead.
        make: results for what was read of a batch, in order; in the caller's thread. An InputError
            costs the batch.
        finish: from an item, what was read and what was made to its outcome; in threads, behind.
        is_wanted: False for an item that only completes its batch, so that a run that goes on
            multiplies the same matrices as a whole one. It is not finished, and has no outcome.
    """

    read: Callable[[Item], Read]
    make: Callable[[Sequence[Read]], Sequence[Made]]
    finish: Callable[[Item, Read, Made], Done]
    is_wanted: Callable[[Item], bool]


def go_through(
    batches: Iterable[Sequence[Item]], steps: Steps[Item, Read, Made, Done]
) -> Generator[tuple[Item, Done | InputError], None, None]:
    """Take every batch through the steps.

    Yields:
        Each wanted item with its outcome, or with the error that it failed with.
    """
    machine.keep_memory_low()
    finishing: deque[tuple[Item, Future[Done | InputError]]] = deque()
    with ThreadPoolExecutor(THREADS) as readers, ThreadPoolExecutor(THREADS) as finishers:
        for reading in _read_ahead(batches, steps.read, readers):
            items, reads = [], []
            for item, future in reading:
                read = _attempt(future.result)
                if not isinstance(read, InputError):
                    items.append(item)
                    reads.append(read)
                elif steps.is_wanted(item):
                    yield item, read
            made = _attempt(steps.make, reads) if reads else []
            if isinstance(made, InputError):
                yield from ((item, made) for item in items if steps.is_wanted(item))
                continue
            for item, read, result in zip(items, reads, made, strict=True):
                if steps.is_wanted(item):
                    job = finishers.submit(_attempt, steps.finish, item, read, result)
                    finishing.append((item, job))
            while finishing and (len(finishing) > BEHIND or finishing[0][1].done()):
                item, job = finishing.popleft()
                yield item, job.result()
        for item, job in finishing:
            yield item, job.result()


def _read_ahead(
    batches: Iterable[Sequence[Item]], read: Callable[[Item], Read], readers: ThreadPoolExecutor
) -> Iterator[list[tuple[Item, Future[Read]]]]:
    """Batches being read, the next ones begun."""
    waiting: deque[list[tuple[Item, Future[Read]]]] = deque()
    for number, batch in enumerate(batches, 1):
        if number % GIVEN_BACK == 0:
            machine.give_back_memory()
        waiting.append([(item, readers.submit(read, item)) for item in batch])
        if (len(waiting) - 1) * len(batch) >= AHEAD:
            yield waiting.popleft()
    yield from waiting


def _attempt(
    function: Callable[Arguments, Value], *args: Arguments.args, **kwargs: Arguments.kwargs
) -> Value | InputError:
    try:
        return function(*args, **kwargs)
    except InputError as error:
        return error
