"""Do the most doubtful pairs of DUTS-TR have wrong masks?

    python benchmarks/faults.py DUTS-TR
    python benchmarks/faults.py DUTS-TR --rows ROWS.json
    python benchmarks/faults.py DUTS-TR --rows ROWS.json --second isnet.onnx

No pair is enlarged or refined: each mask is judged as it is published, against its image and the
prediction of purnet-light, a quarter of an hour of one core for all 10,553. ROWS.json keeps the
figures, so that a killed run goes on.

`results/faults-looked.csv` says what was seen on the pairs that were looked at: `stem`, `seen` (a
kind of docs/duts-faults.md, or right) and `drawn` (at random, or because an order names it). Half
of the pairs, by a hash of their names, were for choosing the order; the other half was looked at
after it was chosen. Reported is, for each order and half, how many of the first were looked at and
how many of these are wrong, beside those drawn at random. With `--second`, a further network
predicts the first 300 by overlap and those drawn at random: are more of the first wrong by its
overlap, or by both?
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from pathlib import Path
from statistics import median

import cv2

sys.path.insert(0, str(Path(__file__).parent))
from common import RESULTS, report
from hqsod import Predictor
from hqsod.dataset.layouts import find_pairs
from hqsod.pairs import Pair, read_pair
from hqsod.progress import progress_bar
from hqsod.quality.judge import judge
from ranking import for_ranking

LOOKED = RESULTS / "faults-looked.csv"
FIRST = (50, 100, 300)  # of all pairs; of a half or a sample the same share
OVERLAP = "prediction_iou"
ORDERS = ("score", OVERLAP)
KEPT = 100  # pairs after which the figures are written


def take_figures(
    pairs: list[Pair], predict: Predictor, rows: Path | None
) -> dict[str, dict[str, float]]:
    """The figures of every pair, from `rows` where they are there."""
    figures = json.loads(rows.read_text()) if rows and rows.is_file() else {}
    with progress_bar(len(pairs), "judging") as bar:
        for number, pair in enumerate(pairs, start=1):
            if pair.stem not in figures:
                image, mask, _ = read_pair(pair)
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


def second_opinion(
    ours: dict[str, float], theirs: dict[str, float], seen: dict[str, str], drawn: list[str]
) -> dict[str, object]:
    """What is wrong among the first by one network's overlap, once another has looked at these.

    Args:
        ours: the overlap of every pair.
        theirs: the second network's, of the first by ours and of those drawn at random.
        seen: what was seen on a pair.
        drawn: the pairs drawn at random.
    """
    first = sorted(ours, key=ours.__getitem__)[: max(FIRST)]
    orders = {
        "ours": ours,
        "theirs": theirs,
        "mean of both": {stem: (ours[stem] + theirs[stem]) / 2 for stem in theirs},
        "larger of both": {stem: max(ours[stem], theirs[stem]) for stem in theirs},
    }
    result: dict[str, object] = {}
    for name, order in orders.items():
        ranked = sorted(first, key=order.__getitem__)
        result[name] = {
            "wrong among the first": {
                str(most): wrong_among(ranked[:most], seen)["wrong"] for most in FIRST
            },
            "drawn at random, right, below the overlap of the 50th": sum(
                order[stem] < order[ranked[min(FIRST)]] for stem in drawn if seen[stem] == "right"
            ),
            "drawn at random, at the median": round(median(order[stem] for stem in drawn), 3),
        }
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--rows", type=Path)
    parser.add_argument("--second", help="a further network")
    parser.add_argument("--second-rows", type=Path)
    parser.add_argument("--print-only", action="store_true")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    with LOOKED.open(encoding="utf-8") as file:
        looked = list(csv.DictReader(file))
    seen = {row["stem"]: row["seen"] for row in looked}
    drawn = [row["stem"] for row in looked if row["drawn"] == "random"]
    pairs = find_pairs(options.data)
    figures = take_figures(pairs, Predictor(device="cpu"), options.rows)
    result = {"random": wrong_among(drawn, seen), "first": first(figures, seen, len(figures))}
    if options.second:
        ours = {stem: figure[OVERLAP] for stem, figure in figures.items()}
        wanted = {*sorted(ours, key=ours.__getitem__)[: max(FIRST)], *drawn}
        theirs = take_figures(
            [pair for pair in pairs if pair.stem in wanted],
            Predictor(options.second, device="cpu"),
            options.second_rows,
        )
        overlaps = {stem: figure[OVERLAP] for stem, figure in theirs.items()}
        result["second opinion"] = second_opinion(ours, overlaps, seen, drawn)
    report("faults", result, write=not options.print_only)


if __name__ == "__main__":
    main()
