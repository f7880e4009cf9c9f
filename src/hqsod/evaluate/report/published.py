"""Published tables that ship with the package, to stand beside what was measured."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from importlib import resources
from typing import Any

from hqsod.errors import SettingsError
from hqsod.evaluate.report.results import PublishedRow

SHOWN = {"weighted F": "f_weighted", "S": "s_measure"}  # of a network, in a line


def load_published(name: str, datasets: Iterable[str]) -> dict[str, list[PublishedRow]]:
    """The rows of a published table by data set; empty for a data set that it does not know.

    Args:
        name: "purnet-paper" or "networks".
        datasets: names of data sets; case, hyphens and underscores do not matter.

    Raises:
        SettingsError: no such table, or it has a row for none of the data sets.
    """
    tables = _tables()
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


def scores_of(network: str) -> str:
    """What is published of a network of the table `networks`, on DUTS-TE or else another data set.

    Args:
        network: its name there.

    Returns:
        For example "DUTS-TE: weighted F .804, S .861".
    """
    for table in _tables()["networks"]:
        if found := table["rows"].get(network):
            dataset = "DUTS-TE" if "DUTS-TE" in found else next(iter(found))
            values = dict(zip(table["measures"], found[dataset], strict=True))
            shown = (f"{title} {values[measure]:.3f}" for title, measure in SHOWN.items())
            return f"{dataset}: {', '.join(shown)}".replace(" 0.", " .")
    raise KeyError(network)


def _tables() -> dict[str, list[dict[str, Any]]]:
    return tomllib.loads((resources.files(__package__) / "published.toml").read_text("utf-8"))


def _plain(name: str) -> str:
    return name.casefold().replace("-", "").replace("_", "")
