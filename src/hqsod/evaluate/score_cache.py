"""Scores already computed, so that a run that was stopped, or repeated, does not repeat them.

One SQLite file in the user's cache folder. A key is made of the hashes of both files, the settings
and the code that scores, so an entry never goes stale; the file may be deleted at any time.
"""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from hqsod.weights import cache_folder

_SCHEMA = "CREATE TABLE IF NOT EXISTS scores (key TEXT PRIMARY KEY, record BLOB NOT NULL)"
_PATIENCE_S = 30  # for another run's write


def default_path() -> Path:
    """Where scores are kept for this user."""
    return cache_folder() / "scores.sqlite"


def load(path: Path, key: str) -> dict[str, Any] | None:
    """The record kept under `key`, or None.

    Raises:
        sqlite3.Error: the file is damaged or locked for long.
    """
    if not path.is_file():
        return None
    with closing(_connect(path)) as connection:
        row = connection.execute("SELECT record FROM scores WHERE key = ?", (key,)).fetchone()
    record: dict[str, Any] | None = json.loads(zlib.decompress(row[0])) if row else None
    return record


def store(path: Path, records: Mapping[str, Mapping[str, Any]]) -> None:
    """Keep records, all or none of them.

    Raises:
        sqlite3.Error, OSError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [(key, zlib.compress(json.dumps(record).encode())) for key, record in records.items()]
    with closing(_connect(path)) as connection, connection:
        connection.execute(_SCHEMA)
        connection.executemany("INSERT OR REPLACE INTO scores VALUES (?, ?)", rows)


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=_PATIENCE_S)
