"""Reading and writing whole files, in folders on disks and at addresses such as s3://bucket/prefix.

universal_pathlib gives pathlib's interface to whatever fsspec reaches, so the jobs take either kind
as a `Path`. What differs stands here. Credentials and endpoints come from the environment, as the
store's own tools take them.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import time
from contextlib import suppress
from functools import cache
from os.path import realpath  # unlike Path.resolve it takes links that lead in circles
from pathlib import Path
from typing import cast

from hqsod import extras
from hqsod.errors import InputError, OutputError

PART = re.compile(r"\.[0-9a-f]{16}\.part")
ABANDONED = 3600  # seconds: longer than any file takes
# Longest file that is read whole: 64 million pixels of four channels in 16 bits. A sparse file
# is longer than the space it takes.
MAX_BYTES = 512_000_000


def folder(text: str) -> Path:
    """The folder of that name, or at that address.

    Raises:
        SettingsError: an address, and what reads addresses is not installed.
        InputError: an address that does not answer.
    """
    if "://" not in text:
        return Path(text)
    extras.require("s3", text)
    from upath import UPath

    try:
        path = UPath(text)
        path.exists()
    except Exception as error:  # every store has errors of its own
        raise InputError(
            f"{text}: {_reason(error)}",
            expected="an address that can be reached",
            fix="check it, the credentials and the endpoint in the environment",
        ) from error
    return Path(path.path) if path.protocol in ("file", "local") else cast(Path, path)


def is_remote(path: Path) -> bool:
    """Whether the path is an address; its other methods are those of any path."""
    return not isinstance(path, Path)


def require_file(path: Path) -> None:
    """Check that what is there, if anything, can be read whole.

    Raises:
        InputError: it is no file (a pipe would be waited for, for ever), or too long.
    """
    if not path.exists():
        return
    if not path.is_file():
        raise InputError(f"{path}: not a file", expected="a file")
    if (size := path.stat().st_size) > MAX_BYTES:
        raise InputError(f"{path}: {size:,} bytes", expected=f"at most {MAX_BYTES:,}")


def read_bytes(path: Path) -> bytes:
    """The file's content.

    Raises:
        InputError: it is missing, too long or cannot be read.
    """
    try:
        require_file(path)
        return path.read_bytes()
    except InputError:
        raise
    except Exception as error:  # every store has errors of its own
        raise InputError(f"{path}: {_reason(error)}") from error


def real(path: Path) -> str:
    """Where a path leads once its links are followed; an address stays as it is."""
    return str(path) if is_remote(path) else realpath(path)


def sweep(folder: Path, age: float = ABANDONED) -> None:
    """Remove what killed runs left half written in a folder.

    Args:
        folder: on a disk; it need not exist.
        age: seconds since the last byte came; 0 where nobody else can be writing there.
    """
    for path in folder.glob(".*.part"):
        with suppress(FileNotFoundError):
            is_folder = path.is_dir() and not path.is_symlink()  # none that we made
            if PART.fullmatch(path.name) and not is_folder and _age(path) >= age:
                path.unlink()


def _age(path: Path) -> float:
    return time.time() - path.lstat().st_mtime


_sweep_once = cache(sweep)  # for each folder in a process


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole or not at all, never through a link.

    On a disk it gets a temporary name that nobody can guess, then its own; a store shows it whole
    or not at all.

    Raises:
        OutputError: the disk is full, the folder cannot be written to, or the name is too long.
    """
    if is_remote(path):
        _put(path, data)
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep_once(path.parent)
        temporary = path.with_name(f".{secrets.token_hex(8)}.part")
        try:
            _create(temporary, data)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise InputError(
                f"{path}: {error.strerror}", expected="a shorter name", fix="rename the image"
            ) from error
        raise OutputError(
            f"{path}: {error.strerror}",
            fix="free space or choose a writable folder, then run again",
        ) from error


def _create(path: Path, data: bytes) -> None:
    """Write a new file, and wait until the disk has it."""
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0)
    with os.fdopen(os.open(path, flags, 0o666), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _put(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except Exception as error:  # every store has errors of its own
        raise OutputError(
            f"{path}: {_reason(error)}",
            expected="a folder that can be written to",
            fix="check the credentials, then run again",
        ) from error


def sizes(folder: Path) -> dict[str, int]:
    """Names and lengths in bytes of the files in a folder; a store is asked once for them all."""
    if is_remote(folder):
        folder.fs.invalidate_cache()  # type: ignore[attr-defined]  # UPath's
    if not folder.is_dir():
        return {}
    found = {}
    for path in folder.iterdir():
        with suppress(FileNotFoundError):  # gone meanwhile, as what another process renames
            if path.is_file():
                found[path.name] = path.stat().st_size
    return found


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
