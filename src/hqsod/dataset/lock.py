"""One job at a time writes to a data set; decisions are rows, and need no lock."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from hqsod.dataset.folders import own_path
from hqsod.errors import OutputError

NAME = ".lock"


@contextmanager
def sole_run(dest: Path) -> Iterator[None]:
    """Hold the lock of the data set in `dest`; a killed run's lock is free at once.

    Raises:
        OutputError: another run holds it, it is a link, or `dest` cannot be written to.
    """
    lock = FileLock(own_path(dest, NAME), timeout=0)
    try:
        dest.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise OutputError(
            f"{dest}: another run is at work there", fix="wait for it, or choose another folder"
        ) from None
    except OSError as error:
        raise OutputError(
            f"{dest}: {error.strerror}",
            expected="a folder that can be written to",
            fix="correct its permissions",
        ) from error
    try:
        yield
    finally:
        lock.release()
