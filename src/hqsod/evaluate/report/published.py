"""Published tables that ship with the package, to stand beside what was measured."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from importlib import resources
from typing import Any

from hqsod.errors import SettingsError
from hqsod.evaluate.report.results import Published


def load_published(name: str, datasets: Iterable[str]) -> Published:
    """The rows of a published table for the data sets that it knows.

    Args:
        name: "purnet-paper".
        datasets: names of data sets; case, hyphens and underscores do not matter.

    Raises:
        SettingsError: no such table, or it has a row for none of the data sets.
    """
    tables = tomllib.loads((resources.files(__package__) / "published.toml").read_text("utf-8"))
    if name not in tables:
        raise SettingsError(f"published table {name!r}", expected=f"one of {', '.join(tables)}")
    table = tables[name]
    rows = {dataset: _rows(table, dataset) for dataset in datasets}
    if not any(rows.values()):
        known = ", ".join(next(iter(table["rows"].values())))
        raise SettingsError(
            f"{name} has no row for {', '.join(rows)}",
            expected=f"a data set named {known}",
            fix="name it with --gt NAME=DIR",
        )
    return Published(table["source"], table["protocol"], rows)


def _rows(table: dict[str, Any], dataset: str) -> dict[str, dict[str, float]]:
    wanted = _plain(dataset)
    return {
        row: dict(zip(table["measures"], values, strict=True))
        for row, sets in table["rows"].items()
        for known, values in sets.items()
        if _plain(known) == wanted
    }


def _plain(name: str) -> str:
    return name.casefold().replace("-", "").replace("_", "")
