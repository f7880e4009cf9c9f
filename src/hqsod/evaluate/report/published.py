"""Published tables that ship with the package, to stand beside what was measured."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from importlib import resources

from hqsod.errors import SettingsError
from hqsod.evaluate.report.results import PublishedRow


def load_published(name: str, datasets: Iterable[str]) -> dict[str, list[PublishedRow]]:
    """The rows of a published table by data set; empty for a data set that it does not know.

    Args:
        name: "purnet-paper" or "networks".
        datasets: names of data sets; case, hyphens and underscores do not matter.

    Raises:
        SettingsError: no such table, or it has a row for none of the data sets.
    """
    tables = tomllib.loads((resources.files(__package__) / "published.toml").read_text("utf-8"))
    if name not in tables:
        raise SettingsError(f"published table {name!r}", expected=f"one of {', '.join(tables)}")
    rows: dict[str, list[PublishedRow]] = {dataset: [] for dataset in datasets}
    known: dict[str, None] = {}
    for table in tables[name]:
        for method, sets in table["rows"].items():
            for printed, values in sets.items():
                known[printed] = None
                scores = dict(zip(table["measures"], values, strict=True))
                for dataset in rows:
                    if _plain(dataset) == _plain(printed):
                        rows[dataset].append(PublishedRow(method, scores, table["source"]))
    if not any(rows.values()):
        raise SettingsError(
            f"{name} has no row for {', '.join(rows)}",
            expected=f"a data set named {', '.join(known)}",
            fix="name it with --gt NAME=DIR",
        )
    return rows


def _plain(name: str) -> str:
    return name.casefold().replace("-", "").replace("_", "")
