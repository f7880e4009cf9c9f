"""Downloads that can be broken off and taken up again, and are whole or absent.

Pooch checks the hash and gives the file its name; its own downloader starts from the first byte
each time, so the one here, through Pooch's extension point, keeps what came before a break,
separately for each address, so that one that sends the wrong file does not spoil the next.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pooch
import requests
from filelock import FileLock
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from hqsod.errors import OutputError
from hqsod.progress import console

CHUNK = 1 << 20
TIMEOUT = 30  # seconds without a byte before an address counts as out of reach


def fetch(urls: Sequence[str], path: Path, digest: str, size: int) -> list[str]:
    """Download to `path` from the first address that answers with the right file.

    Args:
        urls: addresses of the same file.
        path: where it shall lie.
        digest: `sha256:...` or `md5:...`, checked before the file gets its name.
        size: bytes expected, 0 where not known; more than that is refused.

    Returns:
        Why each address failed; `path` exists unless there is one reason for each.

    Raises:
        OutputError: the folder cannot be written to, or is full.
    """
    pooch.get_logger().setLevel(logging.WARNING)
    lock = path.with_name(path.name + ".lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.touch()  # where that cannot be, FileLock may wait for ever
        with FileLock(lock):  # two processes, one download
            return _fetch(urls, path, digest, size)
    except OSError as error:
        raise OutputError(
            f"{path.parent}: {error.strerror or error}",
            fix="set HQSOD_CACHE to another folder",
        ) from error


def _fetch(urls: Sequence[str], path: Path, digest: str, size: int) -> list[str]:
    reasons: list[str] = []
    for url in urls:
        resume = _Resume(_part(path, url), size)
        try:
            pooch.retrieve(url, digest, path.name, path.parent, downloader=resume)
        except requests.RequestException as error:
            reasons.append(f"{url} is out of reach ({type(error).__name__})")
        except ValueError:  # what Pooch raises for another hash
            resume.part.unlink(missing_ok=True)
            reasons.append(f"{url} sent a file with another hash")
        else:
            for other in urls:
                _part(path, other).unlink(missing_ok=True)
            break
    return reasons


def _part(path: Path, url: str) -> Path:
    """Where what has come from an address is kept until it is whole."""
    return path.with_name(f"{path.name}.{hashlib.sha256(url.encode()).hexdigest()[:8]}.part")


class _Resume:
    """A Pooch downloader that continues `part` where it ends."""

    def __init__(self, part: Path, size: int) -> None:
        self.part, self.size = part, size

    def __call__(self, url: str, output_file: str, _pooch: Any) -> None:
        start = self.part.stat().st_size if self.part.is_file() else 0
        headers = {"Range": f"bytes={start}-"} if start else {}
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
            if answer.status_code != requests.codes.requested_range_not_satisfiable:
                answer.raise_for_status()
                resumed = answer.status_code == requests.codes.partial_content
                self._receive(answer, start if resumed else 0)
            # else the part is whole already, and its hash decides
        self.part.replace(output_file)

    def _receive(self, answer: requests.Response, start: int) -> None:
        total = self.size or start + int(answer.headers.get("Content-Length", 0)) or None
        columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        with (
            self.part.open("ab" if start else "wb") as file,
            Progress("{task.description}", *columns, console=console) as progress,
        ):
            task = progress.add_task(self.part.stem, total=total, completed=start)
            for chunk in answer.iter_content(CHUNK):
                file.write(chunk)
                progress.advance(task, len(chunk))
                if self.size and file.tell() > self.size:
                    raise ValueError("more bytes than the published file has")
