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

import numpy as np

from hqsod.metrics import ImageScores, Tally
from hqsod.weights import cache_folder

_SCHEMA = "CREATE TABLE IF NOT EXISTS scores (key TEXT PRIMARY KEY, record BLOB NOT NULL)"
_PATIENCE_S = 30  # for another run's write
# What a file raises that is missing, locked for long, of another kind or damaged in any byte.
_UNREADABLE = (sqlite3.Error, OSError, zlib.error, ValueError, LookupError, TypeError)


def default_path() -> Path:
    """Where scores are kept for this user."""
    return cache_folder() / "scores.sqlite"


def load(path: Path, key: str) -> ImageScores | None:
    """The scores kept under `key`; None where there are none, or none that can be read."""
    try:
        with closing(_connect(path, "ro")) as connection:
            row = connection.execute("SELECT record FROM scores WHERE key = ?", (key,)).fetchone()
        return _from_plain(json.loads(zlib.decompress(row[0]))) if row else None
    except _UNREADABLE:
        return None  # they are computed again; where that cannot be kept either, `store` raises


def store(path: Path, scores: Mapping[str, ImageScores]) -> None:
    """Keep scores by key, all or none of them.

    Raises:
        sqlite3.Error, OSError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    records = {key: json.dumps(_to_plain(value)).encode() for key, value in scores.items()}
    rows = [(key, zlib.compress(record)) for key, record in records.items()]
    with closing(_connect(path, "rwc")) as connection, connection:
        connection.execute(_SCHEMA)
        connection.executemany("INSERT OR REPLACE INTO scores VALUES (?, ?)", rows)


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    address = f"{path.absolute().as_uri()}?mode={mode}"
    return sqlite3.connect(address, timeout=_PATIENCE_S, uri=True)


def _to_plain(scores: ImageScores) -> dict[str, Any]:
    tally = scores.tally
    counts = {"hits": tally.hits.tolist(), "alarms": tally.alarms.tolist()}
    return {"scores": scores.scores, **counts, "area": tally.area, "pixels": tally.pixels}


def _from_plain(record: Mapping[str, Any]) -> ImageScores:
    hits, alarms = (np.array(record[name], np.int64) for name in ("hits", "alarms"))
    return ImageScores(record["scores"], Tally(hits, alarms, record["area"], record["pixels"]))
