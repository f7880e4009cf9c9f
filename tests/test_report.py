"""Scores shown as CSV, LaTeX, on the terminal and as a page: the right numbers, the right marks."""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.console import Console

from hqsod import metrics
from hqsod.errors import SettingsError
from hqsod.evaluate import evaluate, report
from hqsod.evaluate.report import tables
from hqsod.evaluate.report.page import html_page, worst_images


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> report.Evaluation:
    """Three methods, the second the best, on ECSSD and on a set of another name."""
    folder = tmp_path_factory.mktemp("sets")
    rng = np.random.default_rng(0)
    for dataset in ("ECSSD", "b&d_set"):
        for index in range(14):
            truth = np.zeros((60, 80), np.uint8)
            middle = (int(rng.integers(20, 60)), int(rng.integers(20, 40)))
            cv2.circle(truth, middle, 15, 255, -1)
            maps = {"worst": 255 - truth, "best": cv2.GaussianBlur(truth, (0, 0), 1)}
            maps["<i>middle</i>"] = cv2.GaussianBlur(truth, (0, 0), 6)
            photograph = rng.integers(0, 256, (60, 80, 3), np.uint8)
            for path, array in {
                f"{dataset}/masks/{index}.png": truth,
                f"{dataset}/images/{index}.jpg": photograph,
                **{f"maps{n}/{dataset}/{index}.png": a for n, a in enumerate(maps.values())},
            }.items():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(folder / path), array)
    return evaluate(
        {name: folder / f"maps{n}" for n, name in enumerate(maps)},
        {name: folder / name / "masks" for name in ("ECSSD", "b&d_set")},
        metrics.ScoreSettings(),
        workers=1,
        kept=folder / "scores.sqlite",
    )


@pytest.fixture(scope="module")
def compared(found: report.Evaluation) -> report.Evaluation:
    """The same beside the paper's rows."""
    return replace(found, published=report.load_published("purnet-paper", found.datasets))


def test_csv_holds_every_score_in_full(compared: report.Evaluation) -> None:
    lines = list(csv.DictReader(io.StringIO(tables.scores_csv(compared))))
    assert [line["method"] for line in lines[:3]] == ["worst", "best", "<i>middle</i>"]
    measured = [line for line in lines if line["source"] == "measured"]
    assert len(measured) == 6
    for line in measured:
        result = compared.datasets[line["dataset"]].methods[line["method"]]
        assert {name: float(line[name]) for name in result.mean} == result.mean
        assert line["images"] == "14"
    published = [line for line in lines if line["source"].startswith("Li et al.")]
    assert {line["dataset"] for line in published} == {"ECSSD"}
    assert published[0]["mae"] == "0.035"
    assert published[0]["s_measure"] == ""


def test_csv_of_pictures_has_a_line_for_each(found: report.Evaluation) -> None:
    lines = list(csv.DictReader(io.StringIO(tables.images_csv(found))))
    assert len(lines) == 2 * 3 * 14
    line = lines[-1]
    scores = found.datasets[line["dataset"]].methods[line["method"]].per_image[line["image"]]
    assert {name: float(line[name]) for name in scores} == scores


def test_the_best_is_marked(found: report.Evaluation) -> None:
    rows = tables.rows(found, "ECSSD")
    marks = {row.method: set(row.marks.values()) for row in rows}
    assert marks["best"] == {"best"}
    assert marks["<i>middle</i>"] == {"second"}
    assert marks["worst"] == {""}


def test_scores_that_read_the_same_share_a_mark() -> None:
    assert marked([0.10001, 0.1, 0.2]) == ["best", "best", "second"]
    assert marked([0.1004, 0.1, 0.2]) == ["second", "best", ""]
    assert marked([0.1]) == [""]


def test_a_published_score_that_is_better_is_the_best() -> None:
    assert marked([0.05, 0.06], published=[0.041, None]) == ["second", "", "best", ""]
    assert marked([0.04], published=[0.041]) == ["best", "second"]
    assert marked([0.0404], published=[0.041]) == ["best", "second"]
    # What a paper prints as .041 may be .0406: it is no worse than our .0408.
    assert marked([0.0408], published=[0.041]) == ["best", "best"]
    assert marked([0.05], published=[None]) == ["", ""]


def marked(measured: list[float], published: Sequence[float | None] = ()) -> list[str]:
    rows = [tables.Row("ours", {"mae": value}, {}, "", 9) for value in measured]
    for value in published:
        rows.append(tables.Row("theirs", {} if value is None else {"mae": value}, {}, "a paper", 0))
    return tables._mark(rows, "mae", 4)


def test_latex_is_whole_and_escaped(compared: report.Evaluation) -> None:
    text = tables.latex(compared)
    columns = re.search(r"begin\{tabular\}\{l(c+)\}", text)
    assert columns
    rows = [
        line for line in text.splitlines() if line.endswith(r"\\") and "multicolumn" not in line
    ]
    assert {line.count("&") for line in rows} == {len(columns[1])}
    assert r"\textit{b\&d\_set}" in text
    assert re.search(r"PurNet, ResNet-50, DUTS\$\^\\dagger\$ & \S*\.035", text)
    assert r"\textbf{" in text
    assert r"\underline{" in text
    assert text.count("{") == text.count("}")


def test_the_terminal_table_shows_bold_and_underline(compared: report.Evaluation) -> None:
    console = Console(record=True, width=160, force_terminal=True, file=io.StringIO())
    console.print(tables.terminal_table(compared, "ECSSD"))
    text = console.export_text(styles=True)
    best = next(line for line in text.splitlines() if line.lstrip().startswith("best"))
    assert best.count("\x1b[1m") == 11
    assert "PurNet, VGG-16, DUTS (published)" in text


def test_the_page_holds_all_it_needs(compared: report.Evaluation) -> None:
    text = html_page(compared)
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!data:|#)""", text)
    assert "@import" not in text
    assert "<i>middle</i>" not in text
    assert "&lt;i&gt;middle&lt;/i&gt;" in text
    assert text.count('class="none"') == 0
    lines = text.count("<tr data-places=")
    assert text.count("data:image/jpeg;base64,") == 5 * lines
    assert 24 <= lines <= 28


def test_the_worst_pictures_of_each_method(found: report.Evaluation) -> None:
    data = found.datasets["ECSSD"]
    places = worst_images(data, "s_measure")
    for number, result in enumerate(data.methods.values()):
        worst = sorted(result.per_image, key=lambda stem: result.per_image[stem]["s_measure"])[:12]
        shown = {stem: place[number] for stem, place in places.items() if number in place}
        assert sorted(shown, key=shown.__getitem__) == worst
        if number == 0:
            assert list(places)[:12] == worst


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("r.html", ["r.html"]),
        ("r.csv", ["r.csv"]),
        ("r.tex", ["r.tex"]),
        ("r", ["images.csv", "report.html", "scores.csv", "table.tex"]),
    ],
)
def test_reports_are_written_by_name(
    found: report.Evaluation, name: str, files: list[str], tmp_path: Path
) -> None:
    written = report.write_report(found, tmp_path / name)
    assert sorted(path.name for path in written) == files
    assert all(path.stat().st_size for path in written)


def test_other_kinds_of_report_are_refused(found: report.Evaluation, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"\.html, \.csv, \.tex"):
        report.write_report(found, tmp_path / "report.pdf")


def test_published_tables_are_known_by_name() -> None:
    published = report.load_published("purnet-paper", ["duts_te", "mine"])
    assert len(published["duts_te"]) == 4
    assert published["duts_te"][0].method == "PurNet, ResNet-50, DUTS"
    assert published["duts_te"][0].scores == {"mae": 0.039, "f_weighted": 0.817, "f": 0.829}
    assert published["mine"] == []
    with pytest.raises(SettingsError, match="one of purnet-paper, networks"):
        report.load_published("another", ["ECSSD"])
    with pytest.raises(SettingsError, match="ECSSD, DUT-OMRON"):
        report.load_published("purnet-paper", ["mine"])


def test_every_published_score_is_one_and_has_its_source() -> None:
    for name in ("purnet-paper", "networks"):
        rows = report.load_published(name, ["ECSSD", "DUTS-TE"])
        assert all(rows.values())
        for row in (row for of_dataset in rows.values() for row in of_dataset):
            assert re.search(r"arXiv|github\.com/", row.source)
            assert row.scores.keys() <= tables.HEADINGS.keys()
            assert all(0 < value < 1 for value in row.scores.values())


def test_a_light_networks_row_reads_as_in_its_paper() -> None:
    rows = report.load_published("networks", ["ECSSD", "DUTS-TE"])
    scores = {
        name: next(row for row in rows[name] if row.method == "U²-Net†").scores for name in rows
    }
    assert scores == {
        "ECSSD": {"f_max_pr": 0.943, "mae": 0.041, "f_weighted": 0.885, "s_measure": 0.918},
        "DUTS-TE": {"f_max_pr": 0.852, "mae": 0.054, "f_weighted": 0.763, "s_measure": 0.847},
    }
