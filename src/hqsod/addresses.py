"""Folders in object stores, at addresses such as s3://bucket/prefix, beside folders on disks.

universal_pathlib gives pathlib's interface to whatever fsspec reaches, so the jobs take either kind
as a `Path`. What differs stands here. Credentials and endpoints come from the environment, as the
store's own tools take them.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

from hqsod.errors import InputError, OutputError, SettingsError


def folder(text: str) -> Path:
    """The folder of that name, or at that address.

    Raises:
        SettingsError: an address, and what reads addresses is not installed.
        InputError: an address that does not answer.
    """
    if "://" not in text:
        return Path(text)
    try:
        from upath import UPath
    except ImportError as error:
        raise SettingsError(
            f"{text}: {error}",
            expected="universal_pathlib and fsspec",
            fix="pip install 'hqsod[s3]'",
        ) from error
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


def read_bytes(path: Path) -> bytes:
    """The file's content.

    Raises:
        InputError: it is missing or cannot be read.
    """
    try:
        return path.read_bytes()
    except Exception as error:  # every store has errors of its own
        raise InputError(f"{path}: {_reason(error)}") from error


def put(path: Path, data: bytes) -> None:
    """Write a file at an address; stores show it whole or not at all.

    Raises:
        OutputError: the store refuses, or cannot be reached.
    """
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
    return {path.name: path.stat().st_size for path in folder.iterdir() if path.is_file()}


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
