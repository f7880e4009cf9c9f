"""Which pairs are shown, in which order, and how many are left: questions to the manifest's file.

Answered by SQLite, so that memory does not grow with the data set and a build that is still running
is seen as it goes.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from hqsod.dataset.decisions import LATER, digest_of
from hqsod.dataset.manifest import SCHEMA, File, connect

State = Literal["all", "flagged", "left", "undecided", "later", "decided"]

# Every built pair with its state; `left` is what still wants a person: undecided or later.
_PAIRS = f"""
WITH pairs AS (
    SELECT r.stem, r.score, r.flagged, r.quality, d.choice, d.number,
        CASE WHEN d.choice IS NULL OR d.seen != digest_of(r.outputs) THEN 'undecided'
             WHEN d.choice = '{LATER}' THEN 'later'
             ELSE 'decided' END AS state
    FROM latest r LEFT JOIN latest_decisions d ON d.stem = r.stem
    WHERE r.status = 'built'
)
"""  # noqa: S608 (a constant)
_WANTED = {
    "all": "1",
    "flagged": "flagged",
    "left": "state != 'decided'",
    "undecided": "state = 'undecided'",
    "later": "state = 'later'",
    "decided": "state = 'decided'",
}


class Query(BaseModel, extra="forbid"):
    """What to show.

    Attributes:
        state: which pairs.
        search: text that the stem contains, in upper or lower case.
        figure: a quality figure to order by instead of the score, or None.
        descending: whether its largest values are the doubtful ones.
        at_least: its least value shown.
        at_most: its largest value shown.
    """

    state: State = "all"
    search: Annotated[str, Field(max_length=255)] = ""
    figure: Annotated[str, Field(pattern=r"^[a-z_]{1,40}$")] | None = None
    descending: bool = False
    at_least: float | None = None
    at_most: float | None = None


class Listing:
    """The open manifest with its decisions, asked from one thread."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    @classmethod
    @contextmanager
    def open(cls, folder: Path) -> Iterator[Listing]:
        """Open the listing of the data set in `folder`.

        Raises:
            InputError: there is no manifest.
        """
        with connect(folder) as connection:
            connection.executescript(SCHEMA)
            connection.create_function("digest_of", 1, _digest_of, deterministic=True)
            connection.create_function("casefold", 1, _casefold, deterministic=True)
            yield cls(connection)

    def stems(self, query: Query) -> list[str]:
        """Stems of the pairs wanted, the most doubtful first."""
        figure = "CASE WHEN json_valid(quality) THEN json_extract(quality, :path) END"
        value = figure if query.figure else "score"
        direction = "DESC" if query.figure and query.descending else "ASC"
        rows = self._connection.execute(
            f"""{_PAIRS} SELECT stem FROM pairs
            WHERE {_WANTED[query.state]} AND instr(casefold(stem), casefold(:search))
              AND (:least IS NULL OR {value} >= :least) AND (:most IS NULL OR {value} <= :most)
            ORDER BY {value} IS NULL, {value} {direction}, stem""",  # noqa: S608 (all constants)
            {
                "search": query.search,
                "path": f'$."{query.figure}"',
                "least": query.at_least,
                "most": query.at_most,
            },
        )
        return [row["stem"] for row in rows]

    def counts(self) -> dict[str, int]:
        """How many pairs there are of each `State`, and how many flagged ones are left."""
        sums = ", ".join(
            f"coalesce(sum({wanted}), 0) AS '{state}'" for state, wanted in _WANTED.items()
        )
        row = self._connection.execute(
            f"{_PAIRS} SELECT {sums}, "  # noqa: S608 (all constants)
            "coalesce(sum(flagged AND state != 'decided'), 0) AS flagged_left FROM pairs"
        ).fetchone()
        return dict(row)

    def figures(self) -> set[str]:
        """Names of the quality figures that any of the pairs has."""
        rows = self._connection.execute(
            "SELECT DISTINCT key FROM latest, "
            "json_each(CASE WHEN json_valid(quality) THEN quality END) "
            "WHERE status = 'built' AND typeof(key) = 'text'"
        )
        return {row["key"] for row in rows}


def _casefold(text: object) -> str:
    return str(text).casefold()  # SQLite's lower() knows ASCII alone


@lru_cache(maxsize=20_000)
def _digest_of(outputs: str) -> str:
    return digest_of({name: File(**file) for name, file in json.loads(outputs).items()})
