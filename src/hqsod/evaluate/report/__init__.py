"""Scores shown: on the terminal, as CSV, as LaTeX, and as one HTML file that opens offline."""

from __future__ import annotations

import json
from pathlib import Path

from hqsod.addresses import write_bytes
from hqsod.errors import SettingsError
from hqsod.evaluate.report.page import html_page
from hqsod.evaluate.report.published import load_published
from hqsod.evaluate.report.results import (
    DatasetScores,
    Evaluation,
    MethodScores,
    PublishedRow,
    Unscored,
)
from hqsod.evaluate.report.tables import images_csv, latex, scores_csv, terminal_table

__all__ = [
    "DatasetScores",
    "Evaluation",
    "MethodScores",
    "PublishedRow",
    "Unscored",
    "load_published",
    "terminal_table",
    "write_json",
    "write_report",
]

_FILES = {
    "report.html": html_page,
    "scores.csv": scores_csv,
    "images.csv": images_csv,
    "table.tex": latex,
}
_BY_SUFFIX = {".html": html_page, ".csv": scores_csv, ".tex": latex}


def write_report(evaluation: Evaluation, out: Path) -> list[Path]:
    """Write a report.

    Args:
        evaluation: what to show.
        out: a file ending in .html, .csv or .tex, or a folder for report.html, scores.csv,
            images.csv (one line for each image) and table.tex.

    Returns:
        The files written.

    Raises:
        SettingsError: a file of another kind.
        OutputError: it cannot be written.
    """
    check_out(out)
    if out.suffix in _BY_SUFFIX:
        files = {out: _BY_SUFFIX[out.suffix]}
    else:
        files = {out / name: show for name, show in _FILES.items()}
    for path, show in files.items():
        _write(path, show(evaluation))
    return list(files)


def write_json(evaluation: Evaluation, file: Path) -> None:
    """Write the scores as JSON.

    Raises:
        OutputError: it cannot be written.
    """
    _write(file, json.dumps(evaluation.as_json(), indent=1, ensure_ascii=False))


def _write(path: Path, text: str) -> None:
    """Write UTF-8. A byte of a file's name that is none becomes \\udcXX, which JSON reads back."""
    write_bytes(path, text.encode(errors="backslashreplace"))


def check_out(out: Path) -> None:
    """Refuse a destination `write_report` could not write, before an hour of scoring.

    Raises:
        SettingsError: as `write_report`.
    """
    if out.suffix and out.suffix not in _BY_SUFFIX and not out.is_dir():
        raise SettingsError(
            f"--out {out}", expected=f"a folder, or a file ending in {', '.join(_BY_SUFFIX)}"
        )
