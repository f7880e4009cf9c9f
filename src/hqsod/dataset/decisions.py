"""What a person decided about the masks: a table beside the records in the manifest's file.

Append-only: a changed mind, an undo and a new note each get a row, and a stem's newest row counts.
Rows of a stem are numbered 1, 2, 3 ...; whoever decides gives the number they saw last, so that
with two windows open the later one gets an error and overwrites nothing.
"""

from __future__ import annotations

import hashlib
import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from pydantic import TypeAdapter

from hqsod.dataset.folders import CORRECTED_FOLDER, IMAGES, MASKS, REFINED
from hqsod.dataset.manifest import SCHEMA, File, Record, connect, damage_told
from hqsod.errors import HqsodError, InputError

CORRECTED = "corrected"  # masks that a person painted: corrected-1, with decision 1, and so on
REJECT, LATER = "reject", "later"

BUILT_NAMES = {MASKS: "upscaled", REFINED: "refined"}  # what a person calls its masks


@dataclass(frozen=True, slots=True)
class Decision:
    """One row; see the table `decisions` for each field's meaning."""

    made: str
    stem: str
    number: int
    who: str
    choice: str | None
    note: str
    seen: str

    @property
    def is_final(self) -> bool:
        """Whether it says what to do with the pair."""
        return self.choice is not None and self.choice != LATER

    @property
    def kind(self) -> str | None:
        """The choice without the number of a painted mask."""
        return CORRECTED if is_painted(self.choice or "") else self.choice

    @property
    def painted(self) -> bool:
        """Whether it came with a painted mask."""
        return self.choice == painted_name(self.number)

    def holds_for(self, record: Record) -> bool:
        """Whether it was made on the masks that the record names."""
        return self.seen == digest_of(record.outputs)


_DECISION = TypeAdapter(Decision)


class OvertakenError(HqsodError):
    """The pair's newest decision is not the one that was seen: somebody decided meanwhile.

    Attributes:
        decision: the newest; None where there is none.
    """

    def __init__(self, stem: str, decision: Decision | None) -> None:
        self.decision = decision
        if decision is None:
            got = f"{stem}: nobody has decided on it yet"
        else:
            choice = decision.choice or "undecided"
            got = f"{stem}: {decision.who} decided on it meanwhile ({choice})"
        super().__init__(got, fix="look at it again, then decide")


class RebuiltError(OvertakenError):
    """The pair's masks are not those that were seen: they were built again meanwhile."""

    def __init__(self, stem: str) -> None:
        HqsodError.__init__(
            self, f"{stem}: was built again meanwhile", fix="look at it again, then decide"
        )
        self.decision = None


def digest_of(outputs: Mapping[str, File]) -> str:
    """A short digest of a record's masks: a pair built to other masks is undecided again."""
    hashes = (f"{layer}:{file.sha256}" for layer, file in outputs.items() if layer != IMAGES)
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()[:16]


def versions(record: Record) -> dict[str, str]:
    """Name and file, within the data set, of each version; the one others were made from first."""
    built = REFINED in record.outputs
    return {
        BUILT_NAMES.get(layer, layer) if built else layer: file.path
        for layer, file in record.outputs.items()
        if layer != IMAGES
    }


def painted_name(number: int) -> str:
    """The version that a person painted for a pair's decision of this number."""
    return f"{CORRECTED}-{number}"


def is_painted(version: str) -> bool:
    """Whether the version is one that a person painted."""
    return re.fullmatch(rf"{CORRECTED}-[1-9]\d{{0,18}}", version) is not None


def version_file(dest: Path, record: Record, version: str) -> Path:
    """The file of a version of the record's mask, in the data set in `dest`.

    Raises:
        InputError: there is no such version, or it is a painted mask and yet a link.
    """
    path = dest / version_path(record, version)
    if is_painted(version) and path.is_symlink():
        raise InputError(f"{path}: a link", expected="a mask painted in hqsod review")
    return path


def version_path(record: Record, version: str) -> str:
    """Where, within the data set, a version of the record's mask stands.

    Raises:
        InputError: there is no such version.
    """
    if is_painted(version):
        return f"{CORRECTED_FOLDER}/{record.stem}{version.removeprefix(CORRECTED)}.png"
    known = versions(record)
    if version not in known:
        raise InputError(
            f"{record.stem}: no version is called {version}", expected=", ".join(known)
        )
    return known[version]


def chosen(record: Record, decision: Decision | None) -> str | None:
    """The version that counts, by name; None where the pair is left out.

    As decided; while undecided, the refined version unless it is flagged or there is none, then the
    first: the one that a refined mask is made from, or a folder's own masks.
    """
    if decision is not None and decision.is_final and decision.holds_for(record):
        return None if decision.choice == REJECT else decision.choice
    names = versions(record)
    refined = BUILT_NAMES[REFINED]
    return refined if refined in names and not record.flagged else next(iter(names))


class Decisions:
    """The open decisions of a data set; use it as a context manager, from one thread."""

    def __init__(self, connection: sqlite3.Connection, folder: Path) -> None:
        self._connection, self._folder = connection, folder

    @classmethod
    @contextmanager
    def open(cls, folder: Path) -> Iterator[Self]:
        """Open the decisions on the data set in `folder`.

        Raises:
            InputError: there is no manifest.
            OutputError: it cannot be written.
        """
        with connect(folder) as connection:
            connection.executescript(SCHEMA)
            yield cls(connection, folder)

    def latest(self) -> dict[str, Decision]:
        """The newest decision on every stem that has one.

        Raises:
            InputError: a row is damaged.
        """
        return {d.stem: d for d in self._read("SELECT * FROM latest_decisions")}

    def history(self, stem: str) -> list[Decision]:
        """All decisions on `stem`, the newest first; raises as `latest`."""
        return self._read("SELECT * FROM decisions WHERE stem = ? ORDER BY number DESC", stem)

    def _read(self, query: str, *values: str) -> list[Decision]:
        rows = self._connection.execute(query, values)
        with damage_told(self._folder, "a decision"):
            return [_DECISION.validate_python(dict(row)) for row in rows]

    def add(
        self,
        record: Record,
        who: str,
        choice: str | None,
        note: str,
        after: int,
        first: Callable[[], None] | None = None,
    ) -> Decision:
        """Commit a decision.

        Args:
            record: the pair decided on.
            who: who decided.
            choice: a version's name, `REJECT`, `LATER`, or None for undecided.
            note: in their words.
            after: number of the stem's newest decision that they saw; 0 for none.
            first: what to do once it is certain that nobody came before; its files are written
                when the decision is committed, and no other process decides meanwhile.

        Raises:
            OvertakenError: the newest decision is not `after`.
        """
        made = datetime.now(UTC).isoformat(timespec="seconds")
        seen = digest_of(record.outputs)
        decision = Decision(made, record.stem, after + 1, who, choice, note, seen)
        with self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            newest = next(iter(self.history(record.stem)), None)
            if after != (newest.number if newest else 0):
                raise OvertakenError(record.stem, newest)
            if first is not None:
                first()
            self._connection.execute(
                "INSERT INTO decisions (made, stem, number, who, choice, note, seen) "
                "VALUES (:made, :stem, :number, :who, :choice, :note, :seen)",
                asdict(decision),
            )
        return decision
