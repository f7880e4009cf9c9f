"""What has been made, from what, with which weights: an SQLite file beside the images.

Append-only: a pair built again gets a further row, and the newest row of a stem counts. A row is
committed after its files have their names, so a kill at any moment leaves no row without files.

The file may come from a stranger, so it is opened in one place, which refuses whatever SQLite would
obey, and each row is checked when it is read.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import TypeAdapter, ValidationError

from hqsod.canvas import Placement
from hqsod.dataset.folders import IMAGES, LONGEST, MASKS, own_path, require_name, require_path
from hqsod.errors import InputError, OutputError, printable

NAME = "manifest.sqlite"
_BESIDE = ("", "-journal", "-wal", "-shm")  # endings of the files that SQLite keeps
_JSON = ("sources", "placement", "outputs", "seconds", "quality")  # columns
# What a journal ends with that names another file, which SQLite would delete. Ours name none.
_NAMES_ANOTHER = bytes.fromhex("d9d505f920a163d7")

SCHEMA = """
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
CREATE TABLE IF NOT EXISTS decisions (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    made     TEXT NOT NULL,        -- UTC, ISO 8601
    stem     TEXT NOT NULL,
    number   INTEGER NOT NULL,     -- counts a stem's rows from 1
    who      TEXT NOT NULL,
    choice   TEXT,                 -- a version's name, 'reject', 'later'; NULL: undecided again
    note     TEXT NOT NULL,
    seen     TEXT NOT NULL,        -- digest of the masks that were judged
    UNIQUE (stem, number)
);
CREATE VIEW IF NOT EXISTS latest_decisions AS
    SELECT * FROM decisions WHERE id IN (SELECT max(id) FROM decisions GROUP BY stem);
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


_RECORD = TypeAdapter(Record)
_SETTINGS = TypeAdapter(dict[str, str | int | bool | None])


@contextmanager
def connect(folder: Path, *, create: bool = False) -> Iterator[sqlite3.Connection]:
    """Connect to the manifest's file in `folder`; its other tables are reached this way.

    Args:
        folder: of the data set.
        create: whether to make the file and the tables that are not there.

    Raises:
        InputError: there is none and `create` is false.
        OutputError: it cannot be read or written, or is not as hqsod makes it.
    """
    path = folder / NAME
    _require_own(folder)
    if not create and not (path.is_file() and path.stat().st_size):
        raise InputError(
            f"{folder}: no {NAME}", expected="a data set made by hqsod build", fix="build it first"
        )
    with _told_plainly(path), closing(sqlite3.connect(path, timeout=30)) as connection:
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA cell_size_check = ON")
        if unknown := _schema(connection) - _own_schema():
            raise _strange(path, f"holds {sorted(name for name, _ in unknown)[0]!r}")
        if create:
            connection.executescript(f"BEGIN; {SCHEMA} COMMIT;")  # whole or not at all
        yield connection


def _require_own(folder: Path) -> None:
    """Check what SQLite finds before it reads a table: it follows links, and obeys journals."""
    for ending in _BESIDE:
        path = own_path(folder, NAME + ending)
        if path.exists() and not path.is_file():  # a pipe would be waited for, for ever
            raise _strange(path, "not a file")
    journal = folder / f"{NAME}-journal"
    if journal.is_file() and journal.stat().st_size:
        with journal.open("rb") as file:
            file.seek(-min(len(_NAMES_ANOTHER), journal.stat().st_size), os.SEEK_END)
            if file.read() == _NAMES_ANOTHER:
                raise _strange(journal, "names another file to delete")


def _schema(connection: sqlite3.Connection) -> frozenset[tuple[str, str]]:
    """Tables, indices, views and triggers, each by name and definition without its comments."""
    rows = connection.execute("SELECT name, sql FROM sqlite_master")
    return frozenset((name, re.sub(r"('[^']*')|--.*|\s+", r"\1", sql or "")) for name, sql in rows)


@cache
def _own_schema() -> frozenset[tuple[str, str]]:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(SCHEMA)
        return _schema(connection)


def _strange(path: Path, reason: str) -> OutputError:
    return OutputError(
        f"{path}: {reason}",
        expected="a manifest as hqsod build writes it",
        fix="do not use this data set: whoever made it may want to harm you",
    )


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
            yield cls(connection, folder)

    def add_recipe(self, key: str, settings: dict[str, Any]) -> None:
        """Keep a recipe's settings under its key; keeping them twice is harmless."""
        with self._connection:
            self._connection.execute(
                "INSERT OR IGNORE INTO recipes VALUES (?, ?)",
                (key, json.dumps(settings, sort_keys=True)),
            )

    def recipe(self, key: str) -> dict[str, Any]:
        """The settings kept under `key`.

        Raises:
            InputError: they are damaged or missing.
        """
        rows = self._connection.execute("SELECT settings FROM recipes WHERE key = ?", (key,))
        return self._settings(rows.fetchone())

    def newest_recipe(self) -> dict[str, Any] | None:
        """The settings that the pair built last was built with; None before the first."""
        row = self._connection.execute(
            "SELECT settings FROM recipes JOIN records ON key = recipe WHERE status = 'built' "
            "ORDER BY id DESC LIMIT 1"
        ).fetchone()
        return row and self._settings(row)

    def _settings(self, row: sqlite3.Row) -> dict[str, Any]:
        with damage_told(self.folder, "a recipe"):
            return _SETTINGS.validate_json(row["settings"])

    def identity(self) -> str:
        """A short digest that stays while the data set grows, changes and moves."""
        first = "SELECT made, stem, sources, outputs FROM records ORDER BY id LIMIT 1"
        told = repr(tuple(self._connection.execute(first).fetchone() or ()))
        return hashlib.sha256(told.encode()).hexdigest()[:16]

    def append(self, record: Record) -> None:
        """Commit one record; what it names is on disk already."""
        values = asdict(record)
        if record.status == "rejected":  # perhaps for its name
            values["stem"] = printable(record.stem).encode()[:LONGEST].decode(errors="ignore")
        for name in _JSON:
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
        return {row["stem"]: _record(row, self.folder) for row in rows}

    def find(self, stem: str) -> Record | None:
        """The newest record of `stem`, if it has one; raises as `latest`."""
        newest = "SELECT * FROM records WHERE stem = ? ORDER BY id DESC LIMIT 1"
        row = self._connection.execute(newest, (stem,)).fetchone()
        return row and _record(row, self.folder)


@contextmanager
def damage_told(folder: Path, what: str) -> Iterator[None]:
    """Report an error in this block as damage to `what` in the manifest of `folder`."""
    try:
        yield
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else None
        reason = f"{first['loc']}: {first['msg']}" if first else f"{type(error).__name__}: {error}"
        raise InputError(
            f"{folder / NAME}: {what} is damaged ({reason})",
            expected="a manifest as hqsod build writes it",
            fix="build the data set again",
        ) from error


def _record(row: sqlite3.Row, folder: Path) -> Record:
    """The record in a row, fit to be used.

    Raises:
        InputError: the row is damaged, or a name in it leads out of the data set.
    """
    with damage_told(folder, f"row {row['id']}"):
        record = _RECORD.validate_python(
            dict(row) | {name: json.loads(row[name]) for name in _JSON}
        )
        for name in (record.stem, *record.outputs):
            require_name(folder, name)
        for file in record.outputs.values():
            require_path(folder, file.path)
        if record.status == "built":
            _ = record.outputs[IMAGES], record.outputs[MASKS]
            _ = record.sources["image"], record.sources["mask"]
    return record


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
