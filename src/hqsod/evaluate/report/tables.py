"""Scores as rows: on the terminal, as CSV, as LaTeX. The best is bold, the second underlined.

Which scores there are, and in which order, is said in `hqsod.metrics.protocols`; a new one needs a
heading here.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from hqsod.errors import printable
from hqsod.evaluate.report.results import Evaluation

Mark = Literal["best", "second", ""]
PUBLISHED_DIGITS = 3


@dataclass(frozen=True, slots=True)
class Measure:
    """How a score is shown: its title, in LaTeX, and whether lower is better."""

    title: str
    latex: str
    lower: bool = False


HEADINGS = {
    "mae": Measure("MAE", r"$\mathcal{M}$", lower=True),
    "f_max": Measure("Fmax", r"$F_\beta^{\max}$"),
    "f_mean": Measure("Fmean", r"$F_\beta^{\mathrm{mean}}$"),
    "f_adaptive": Measure("Fadp", r"$F_\beta^{\mathrm{adp}}$"),
    "f": Measure("F", r"$F_\beta$"),
    "f_weighted": Measure("Fw", r"$F_\beta^w$"),
    "s_measure": Measure("S", r"$S_\alpha$"),
    "e_max": Measure("Emax", r"$E_\xi^{\max}$"),
    "e_mean": Measure("Emean", r"$E_\xi^{\mathrm{mean}}$"),
    "e_adaptive": Measure("Eadp", r"$E_\xi^{\mathrm{adp}}$"),
    "ber": Measure("BER", "BER", lower=True),
    "iou": Measure("IoU", "IoU"),
    "dice": Measure("Dice", "Dice"),
    "mba": Measure("mBA", "mBA"),
    "biou": Measure("BIoU", "BIoU"),
    "msiou": Measure("MSIoU", "MSIoU"),
    "f_max_pr": Measure("Fmax (PR)", r"$F_\beta^{\max}$ (PR)"),
    "f_mean_pr": Measure("Fmean (PR)", r"$F_\beta^{\mathrm{mean}}$ (PR)"),
    "precision": Measure("precision", "precision"),
    "recall": Measure("recall", "recall"),
}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a data set's table.

    Attributes:
        method: its name.
        values: scores by name; a published row has not all of them.
        marks: "best", "second" or "" by name.
        source: the paper it was taken from; empty where it was measured.
        scored: number of images scored; 0 where published.
    """

    method: str
    values: Mapping[str, float]
    marks: Mapping[str, Mark]
    source: str
    scored: int

    def text(self, name: str, digits: int = 4) -> str:
        """A score as papers print it: no zero before the point; a dash where there is none."""
        if name not in self.values:
            return "–"
        digits = min(digits, PUBLISHED_DIGITS) if self.source else digits
        return f"{self.values[name]:.{digits}f}".removeprefix("0")


def columns(evaluation: Evaluation) -> list[str]:
    """Names of the scores that a table shows: those of the protocol, in its order."""
    first = next(iter(evaluation.datasets.values()))
    return list(next(iter(first.methods.values())).mean)


def rows(evaluation: Evaluation, dataset: str, digits: int = 4) -> list[Row]:
    """A data set's rows, what was measured and then what was published, to be shown in `digits`."""
    found = [
        Row(method, result.mean, {}, "", len(result.per_image))
        for method, result in evaluation.datasets[dataset].methods.items()
    ]
    published = evaluation.published.get(dataset, [])
    found += [Row(row.method, row.scores, {}, row.source, 0) for row in published]
    marks = {name: _mark(found, name, digits) for name in columns(evaluation)}
    return [
        replace(row, marks={name: column[place] for name, column in marks.items()})
        for place, row in enumerate(found)
    ]


def _mark(found: Sequence[Row], name: str, digits: int) -> list[Mark]:
    """Marks for one score. Rows that read the same share a place; one row alone has none."""
    if any(row.source and name in row.values for row in found):
        digits = min(digits, PUBLISHED_DIGITS)  # nothing is better than a paper by what it left out
    shown = [round(row.values[name], digits) if name in row.values else None for row in found]
    values = [value for value in shown if value is not None]
    if len(values) < 2:
        return [""] * len(found)
    best, *others = sorted(set(values), reverse=not HEADINGS[name].lower)
    places: dict[float | None, Mark] = {best: "best", **dict.fromkeys(others[:1], "second")}
    return [places.get(value, "") for value in shown]


def terminal_table(evaluation: Evaluation, dataset: str) -> Table:
    """One data set's scores for a terminal."""
    names = columns(evaluation)
    styles = {"best": "bold", "second": "underline", "": ""}
    table = Table(
        title=Text(printable(dataset)), box=SIMPLE_HEAD, title_justify="left", padding=(0, 1, 0, 0)
    )
    table.add_column("method")
    for name in names:
        arrow = "↓" if HEADINGS[name].lower else "↑"
        table.add_column(f"{HEADINGS[name].title}{arrow}", justify="right", no_wrap=True)
    for row in rows(evaluation, dataset):
        cells = [Text(row.text(name), styles[row.marks.get(name, "")]) for name in names]
        label = f"{row.method} (published)" if row.source else row.method
        table.add_row(Text(printable(label)), *cells, style="dim" if row.source else None)
    return table


def scores_csv(evaluation: Evaluation) -> str:
    """Every data set's and method's scores; the source is "measured" or the paper."""
    names = columns(evaluation)
    lines = (
        [
            *(dataset, row.method, row.source or "measured", row.scored or ""),
            *(row.values.get(name, "") for name in names),
        ]
        for dataset in evaluation.datasets
        for row in rows(evaluation, dataset)
    )
    return _csv(["dataset", "method", "source", "images", *names], lines)


def images_csv(evaluation: Evaluation) -> str:
    """Every image's scores."""
    first = next(iter(evaluation.datasets.values()))
    per_image = next(iter(first.methods.values())).per_image
    names = list(next(iter(per_image.values())))
    lines = (
        [dataset, method, stem, *(scores[name] for name in names)]
        for dataset, data in evaluation.datasets.items()
        for method, result in data.methods.items()
        for stem, scores in result.per_image.items()
    )
    return _csv(["dataset", "method", "image", *names], lines)


def _csv(header: list[str], lines: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(lines)
    return text.getvalue()


def latex(evaluation: Evaluation) -> str:
    """One booktabs table, data sets below one another."""
    names = columns(evaluation)
    heads = (
        HEADINGS[n].latex + (r"$\downarrow$" if HEADINGS[n].lower else r"$\uparrow$") for n in names
    )
    lines = [
        r"% \usepackage{booktabs}",
        rf"\begin{{tabular}}{{l{'c' * len(names)}}}",
        r"\toprule",
        " & ".join(["Method", *heads]) + r" \\",
    ]
    for dataset in evaluation.datasets:
        title = rf"\multicolumn{{{len(names) + 1}}}{{l}}{{\textit{{{_escape(dataset)}}}}} \\"
        lines += [r"\midrule", title]
        lines += [_latex_row(row, names) for row in rows(evaluation, dataset, digits=3)]
    lines += [r"\bottomrule", r"\end{tabular}"]
    for source, methods in evaluation.sources.items():
        lines.append(rf"% $^\dagger$ published, not measured: {', '.join(methods)}: {source}")
    return "\n".join(lines) + "\n"


def _latex_row(row: Row, names: list[str]) -> str:
    wrap = {"best": r"\textbf{%s}", "second": r"\underline{%s}", "": "%s"}
    cells = [wrap[row.marks.get(n, "")] % row.text(n, 3) for n in names]
    label = _escape(row.method) + (r"$^\dagger$" if row.source else "")
    return " & ".join([label, *cells]).replace("–", "--") + r" \\"


def _escape(text: str) -> str:
    special = {c: f"\\{c}" for c in "&%$#_{}"}
    special |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(special.get(c, c) for c in text)
