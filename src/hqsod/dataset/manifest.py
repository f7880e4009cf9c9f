"""What has been made, from what, with which weights: an SQLite file beside the pictures.

Append-only: a pair built again gets a further row, and the newest row of a stem counts. A row is
committed after its files have their names, so a kill at any moment leaves no row without files.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self

from hqsod.dataset.folders import Inside
from hqsod.errors import InputError, OutputError, printable
from hqsod.types import Placement

NAME = "manifest.sqlite"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS recipes (
    key      TEXT PRIMARY KEY,     -- SHA-256 of settings
    settings TEXT NOT NULL         -- JSON: networks, weight hashes, canvas, precision
);
CREATE TABLE IF NOT EXISTS records (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    made       TEXT NOT NULL,      -- UTC, ISO 8601
    stem       TEXT NOT NULL,
    status     TEXT NOT NULL CHECK (status IN ('built', 'rejected')),
    recipe     TEXT NOT NULL REFERENCES recipes (key),
    sources    TEXT NOT NULL,      -- JSON: path and SHA-256 of image and mask
    placement  TEXT,               -- JSON: canvas, top, left, size
    outputs    TEXT NOT NULL,      -- JSON: path within the data set -> SHA-256 and bytes
    seconds    TEXT NOT NULL,      -- JSON: step -> seconds
    quality    TEXT NOT NULL,      -- JSON: figure -> value
    score      REAL,               -- trust in the refined mask, 0 to 1
    flagged    INTEGER NOT NULL,   -- 1: look at this one
    notes      TEXT NOT NULL       -- what was converted, or why the pair was rejected
);
CREATE INDEX IF NOT EXISTS records_by_stem ON records (stem, id);
CREATE VIEW IF NOT EXISTS latest AS
    SELECT * FROM records WHERE id IN (SELECT max(id) FROM records GROUP BY stem);
"""


@dataclass(frozen=True, slots=True)
class File:
    """A file as the manifest knows it: its path, hash and length in bytes."""

    path: str
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Record:
    """One pair's outcome; see the table `records` for each field's meaning."""

    stem: str
    status: Literal["built", "rejected"]
    recipe: str
    sources: dict[str, File]
    placement: Placement | None = None
    outputs: dict[str, File] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    quality: dict[str, float] = field(default_factory=dict)
    score: float | None = None
    flagged: bool = False
    notes: str = ""


@contextmanager
def connect(folder: Path, *, create: bool = False) -> Iterator[sqlite3.Connection]:
    """Connect to the manifest's file in `folder`; its other tables are reached this way.

    Raises:
        InputError: there is none and `create` is false.
        OutputError: it cannot be read or written.
    """
    path = folder / NAME
    if not create and not path.is_file():
        raise InputError(
            f"{folder}: no {NAME}", expected="a data set made by hqsod build", fix="build it first"
        )
    with _told_plainly(path):
        connection = sqlite3.connect(path, timeout=30)
        try:
            connection.row_factory = sqlite3.Row
            yield connection
        finally:
            connection.close()


class Manifest:
    """The open manifest of a data set; use it as a context manager, from one thread.

    Attributes:
        folder: where its file is.
    """

    def __init__(self, connection: sqlite3.Connection, folder: Path) -> None:
        self._connection = connection
        self.folder = folder

    @classmethod
    @contextmanager
    def open(cls, folder: Path, *, create: bool = False) -> Iterator[Self]:
        """Open the manifest in `folder`.

        Raises:
            InputError: there is none and `create` is false.
            OutputError: it cannot be written.
        """
        with connect(folder, create=create) as connection:
            if create:
                connection.executescript(_SCHEMA)
            yield cls(connection, folder)

    def add_recipe(self, key: str, settings: dict[str, Any]) -> None:
        """Keep a recipe's settings under its key; keeping them twice is harmless."""
        with self._connection:
            self._connection.execute(
                "INSERT OR IGNORE INTO recipes VALUES (?, ?)",
                (key, json.dumps(settings, sort_keys=True)),
            )

    def recipe(self, key: str) -> dict[str, Any]:
        """The settings kept under `key`."""
        row = self._connection.execute("SELECT settings FROM recipes WHERE key = ?", (key,))
        return dict(json.loads(row.fetchone()["settings"]))

    def newest_recipe(self) -> dict[str, Any] | None:
        """The settings that the pair built last was built with; None before the first."""
        row = self._connection.execute(
            "SELECT settings FROM recipes JOIN records ON key = recipe WHERE status = 'built' "
            "ORDER BY id DESC LIMIT 1"
        ).fetchone()
        return row and dict(json.loads(row["settings"]))

    def append(self, record: Record) -> None:
        """Commit one record; what it names is on disk already."""
        values = asdict(record)
        values["stem"] = printable(record.stem)  # of a pair rejected for its name
        for name in ("sources", "placement", "outputs", "seconds", "quality"):
            values[name] = json.dumps(values[name])
        values["made"] = datetime.now(UTC).isoformat(timespec="seconds")
        columns = ", ".join(values)
        places = ", ".join(f":{name}" for name in values)
        with self._connection:
            self._connection.execute(f"INSERT INTO records ({columns}) VALUES ({places})", values)  # noqa: S608 (field names of Record)

    def latest(self) -> dict[str, Record]:
        """The newest record of every stem, by stem.

        Raises:
            InputError: a row is damaged, or names a file outside of the data set.
        """
        rows = self._connection.execute("SELECT * FROM latest ORDER BY stem")
        inside = Inside(self.folder)
        return {row["stem"]: _record(row, inside) for row in rows}

    def find(self, stem: str) -> Record | None:
        """The newest record of `stem`, if it has one; raises as `latest`."""
        newest = "SELECT * FROM records WHERE stem = ? ORDER BY id DESC LIMIT 1"
        row = self._connection.execute(newest, (stem,)).fetchone()
        return row and _record(row, Inside(self.folder))


def _record(row: sqlite3.Row, inside: Inside) -> Record:
    """The record in a row, fit to be used: a data set may come from a stranger.

    Raises:
        InputError: the row is damaged, or a name in it leads out of the data set.
    """
    try:
        record = _parse(row)
        for name in (record.stem, *record.outputs):
            inside.require_name(name)
        for file in record.outputs.values():
            inside.require_path(file.path)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{inside.folder / NAME}: row {row['id']} is damaged ({type(error).__name__}: {error})",
            expected="a manifest as hqsod build writes it",
            fix="build the data set again",
        ) from error
    return record


def _parse(row: sqlite3.Row) -> Record:
    placement = json.loads(row["placement"])
    return Record(
        stem=row["stem"],
        status=row["status"],
        recipe=row["recipe"],
        sources={name: File(**file) for name, file in json.loads(row["sources"]).items()},
        placement=placement and _placement(**placement),
        outputs={name: File(**file) for name, file in json.loads(row["outputs"]).items()},
        seconds=json.loads(row["seconds"]),
        quality=json.loads(row["quality"]),
        score=row["score"],
        flagged=bool(row["flagged"]),
        notes=row["notes"],
    )


def _placement(canvas: list[int], top: int, left: int, size: list[int]) -> Placement:
    return Placement((canvas[0], canvas[1]), top, left, (size[0], size[1]))


@contextmanager
def _told_plainly(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise OutputError(
            f"{path}: {error}",
            expected="a manifest that can be read and written",
            fix="free space or mend the folder's permissions, then run again",
        ) from error
