"""Do the most doubtful pairs of DUTS-TR have wrong masks?

    python benchmarks/faults.py DUTS-TR
    python benchmarks/faults.py DUTS-TR --rows ROWS.json

No pair is enlarged or refined: each mask is judged as it is published, against its image and the
prediction of purnet-light, a quarter of an hour of one core for all 10,553. ROWS.json keeps the
figures, so that a killed run goes on.

`results/faults-looked.csv` says what was seen on the pairs that were looked at: `stem`, `seen` (a
kind of docs/duts-faults.md, or right) and `drawn` (at random, or because an order names it). Half
of the pairs, by a hash of their names, were for choosing the order; the other half was looked at
after it was chosen. Reported is, for each order and half, how many of the first were looked at and
how many of these are wrong, beside those drawn at random.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from pathlib import Path

import cv2

sys.path.insert(0, str(Path(__file__).parent))
from common import RESULTS, report
from hqsod import Predictor, images
from hqsod.dataset.layouts import find_pairs
from hqsod.progress import progress_bar
from hqsod.quality.judge import judge
from ranking import for_ranking

LOOKED = RESULTS / "faults-looked.csv"
FIRST = (50, 100, 300)  # of all pairs; of a half or a sample the same share
ORDERS = ("score", "prediction_iou")
KEPT = 500  # pairs after which the figures are written


def take_figures(data: Path, rows: Path | None) -> dict[str, dict[str, float]]:
    """The figures of every pair, from `rows` where they are there."""
    figures = json.loads(rows.read_text()) if rows and rows.is_file() else {}
    predict, pairs = Predictor(device="cpu"), find_pairs(data)
    with progress_bar(len(pairs), "judging") as bar:
        for number, pair in enumerate(pairs, start=1):
            if pair.stem not in figures:
                image, mask, _ = images.read_pair(pair)
                prediction = (predict(image) * 255).round().astype("uint8")
                figures[pair.stem] = judge(image, mask, mask, prediction).as_dict()
            if rows and (number % KEPT == 0 or number == len(pairs)):
                rows.write_text(json.dumps(figures))
            bar.advance()
    return figures


def wrong_among(stems: list[str], seen: dict[str, str]) -> dict[str, int]:
    """How many of the pairs were looked at, and are wrong."""
    kinds = [seen[stem] for stem in stems if stem in seen]
    wrong = sum(kind != "right" for kind in kinds)
    return {"pairs": len(stems), "looked at": len(kinds), "wrong": wrong}


def first(
    figures: dict[str, dict[str, float]], seen: dict[str, str], size: int
) -> dict[str, dict[str, dict[str, dict[str, int]]]]:
    """Of each half and order, what is wrong among the first; `size`: pairs of the whole set."""
    found: dict[str, dict[str, dict[str, dict[str, int]]]] = {}
    for half in ("choosing", "held back"):
        stems = [stem for stem in figures if for_ranking(stem) == (half == "held back")]
        found[half] = {}
        for order in ORDERS:
            ranked = sorted(
                (stem for stem in stems if order in figures[stem]),
                key=lambda stem, order=order: figures[stem][order],
            )
            found[half][order] = {
                str(most): wrong_among(ranked[: round(most * len(ranked) / size)], seen)
                for most in FIRST
            }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--rows", type=Path)
    parser.add_argument("--print-only", action="store_true")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    with LOOKED.open(encoding="utf-8") as file:
        looked = list(csv.DictReader(file))
    seen = {row["stem"]: row["seen"] for row in looked}
    drawn = [row["stem"] for row in looked if row["drawn"] == "random"]
    figures = take_figures(options.data, options.rows)
    result = {"random": wrong_among(drawn, seen), "first": first(figures, seen, len(figures))}
    report("faults", result, write=not options.print_only)


if __name__ == "__main__":
    main()
