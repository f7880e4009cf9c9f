"""One HTML file that holds everything it shows: tables, curves, distributions, worst pictures.

Charts are drawn by Chart.js, which the file carries with it.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from PIL import Image

from hqsod import __version__
from hqsod.encoding import encode_jpeg
from hqsod.errors import InputError
from hqsod.evaluate.report.results import DatasetScores, Evaluation
from hqsod.evaluate.report.tables import HEADINGS, columns, rows
from hqsod.images import Array, read_image, read_map, resize

WORST = 12
BINS = 20
THUMBNAIL_WIDTH = 320  # pixels kept; at most SHOWN_WIDTH are taken, to be sharp on dense screens
SHOWN_WIDTH = 220
GALLERY_WIDTH = 1150
# What the worst pictures are the worst by: defined for empty ground truths too.
WORST_BY = {"standard": "s_measure", "purnet": "mae"}


def html_page(evaluation: Evaluation) -> str:
    """The whole report as one HTML text."""
    parts = resources.files(__package__)
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string((parts / "page.html").read_text("utf-8"))
    ours = {
        name: Markup((parts / file).read_text("utf-8"))  # noqa: S704 (the package's own files)
        for name, file in {
            "style": "page.css",
            "script": "page.js",
            "chart_library": "vendor/chart.umd.min.js",
        }.items()
    }
    first = next(iter(evaluation.datasets.values()))
    worst_by = WORST_BY[evaluation.protocol]
    return template.render(
        ours,
        version=__version__,
        evaluation=evaluation,
        measures=HEADINGS,
        columns=columns(evaluation),
        rows={dataset: rows(evaluation, dataset) for dataset in evaluation.datasets},
        worst_by=worst_by,
        worst={name: _gallery(data, worst_by) for name, data in evaluation.datasets.items()},
        thumbnail=min(SHOWN_WIDTH, GALLERY_WIDTH // (len(first.methods) + 2)),
        charts={
            "methods": list(first.methods),
            "curves": [_charts(data) for data in evaluation.datasets.values()],
        },
    )


def _charts(data: DatasetScores) -> list[dict[str, Any]]:
    """Every method's curves, from threshold 0 to 255, and its images counted by score."""
    charts = []
    for result in data.methods.values():
        curves: dict[str, Any] = {
            name: np.round(curve, 4).tolist() for name, curve in result.curves.items()
        }
        values = {
            name: [scores[name] for scores in result.per_image.values()]
            for name in next(iter(result.per_image.values()))
        }
        edges = np.linspace(0, 1, BINS + 1)
        curves["histograms"] = {
            name: np.histogram(np.clip(found, 0, 1), edges)[0].tolist()
            for name, found in values.items()
        }
        charts.append(curves)
    return charts


def worst_images(data: DatasetScores, by: str) -> dict[str, dict[int, int]]:
    """The images that each method scores worst: by stem its place by the method's number, from 0.

    Those of the first method come first, its worst one at the head.
    """
    sign = -1 if HEADINGS[by].lower else 1
    places: dict[str, dict[int, int]] = {}
    for number, result in enumerate(data.methods.values()):
        scores = {stem: sign * values[by] for stem, values in result.per_image.items()}
        for place, stem in enumerate(sorted(scores, key=scores.__getitem__)[:WORST]):
            places.setdefault(stem, {})[number] = place
    return places


def _gallery(data: DatasetScores, by: str) -> list[dict[str, Any]]:
    """A line for each of the worst images."""
    return [
        {
            "stem": stem,
            "places": places,
            "image": _thumbnail(data.images.get(stem), colour=True),
            "truth": _thumbnail(data.ground_truths[stem]),
            "maps": [
                {
                    "image": _thumbnail(result.maps[stem]) if stem in result.per_image else "",
                    "caption": _caption(result.per_image.get(stem, {}), by),
                }
                for result in data.methods.values()
            ],
        }
        for stem, places in worst_images(data, by).items()
    ]


def _caption(scores: Mapping[str, float], by: str) -> str:
    names = dict.fromkeys([by, "f_weighted", "mae"])
    return ", ".join(f"{HEADINGS[n].title} {scores[n]:.3f}" for n in names if n in scores)


def _thumbnail(path: Path | None, *, colour: bool = False) -> str:
    """A small JPEG as a data address; empty where there is no image, or none that can be read."""
    if path is None:
        return ""
    try:
        array = read_image(path) if colour else read_map(path)
    except InputError:
        return ""  # the report is of scores; a photograph is there to look at
    height, width = array.shape[:2]
    share = min(1, THUMBNAIL_WIDTH / width, 4 * THUMBNAIL_WIDTH / height)
    size = (max(1, round(height * share)), max(1, round(width * share)))
    small: Array = resize(array, size, Image.Resampling.LANCZOS) if share < 1 else array
    if small.ndim == 2:
        small = np.repeat(small[..., None], 3, axis=2)
    return "data:image/jpeg;base64," + base64.b64encode(encode_jpeg(small, quality=80)).decode()
