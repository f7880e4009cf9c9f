"""Refiners on held-out pairs, as `hqsod build` would give them a mask.

    python benchmarks/refiner.py DATA...                            # writes results/refiner.json
    python benchmarks/refiner.py DATA... --refiner guided FILE --limit 40 --print-only

DATA are data sets' folders. Of the pairs that the recipes hold out, one half chose what there was
to choose (`--half choose`), the other is for these figures. Kinds:

- `right`: pair reduced by 4 with a soft mask, image enlarged by `--upscaler`, mask by bicubic; the
  full-size mask is the truth. `binary`: the same, the small mask binary. `worn`: the small mask
  off, rough, grown or dabbed (see `training/wear.py`), soft or binary.
- `damaged`: damaged at its own size to an IoU between 0.85 and 0.95. `x4`: the same, and all of it
  enlarged four times by bicubic. `intact`: undamaged.

mBA, boundary IoU, IoU and mean absolute error in points of 100. `better`: share of the pairs whose
mBA rose; `worse`: fell by more than half a point; `iou_worse`, `mae_worse`: got worse at all by IoU
or mean error. `gone`: share of the IoU error that went, all pairs together. `edge`: grey pixels (10
to 90 %) to a pixel of contour: before, after, the truth's.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from time import perf_counter

import cv2
import numpy as np
from PIL import Image

from common import machine, report
from hqsod import images, metrics
from hqsod.dataset.holdout import holdout_fraction
from hqsod.dataset.layouts import find_pairs
from hqsod.images import Array
from hqsod.inference.refiner import Refiner, load_refiner
from hqsod.inference.runtime import choose_runtime
from hqsod.inference.upscaler import Upscaler, load_upscaler
from hqsod.masks import binarise
from hqsod.metrics.regions import mask_iou
from hqsod.pairs import Pair
from hqsod.training.contour_pairs import reduced_cases
from hqsod.training.contour_wear import SCALE, Wear
from hqsod.training.damaged_pairs import Case, held_out_cases

# Of `holdout_fraction`; all of a data set that is for testing alone.
HALVES = {"choose": (0.0, 0.05), "final": (0.05, 0.1), "all": (0.0, 1.0)}
WEARS = {
    "right": Wear(intact=1, binary=0, blurred=0),
    "binary": Wear(intact=1, binary=1, blurred=0),
    "worn": Wear(intact=0),
}
CLEARLY = 0.5  # points of mBA
FIGURES = ("mba", "biou", "iou", "mae", "edge")
SOFT = (26, 229)  # grey levels from 10 % to 90 %


def cases(pairs: list[Pair], kind: str, upscaler: Upscaler) -> Iterator[Case]:
    if kind in WEARS:
        yield from reduced_cases(pairs, upscaler, WEARS[kind])
        return
    for case in held_out_cases(pairs, intact="intact" in kind):
        if "x4" not in kind:
            yield case
            continue
        size = (case.mask.shape[0] * SCALE, case.mask.shape[1] * SCALE)
        image, mask, truth = (
            images.resize(layer, size, Image.Resampling.BICUBIC)
            for layer in (case.image, case.mask, case.truth)
        )
        yield Case(case.stem, image, mask, binarise(truth))


def measure(refiner: Refiner, sets: dict[str, list[Pair]], kind: str, upscaler: Upscaler) -> dict:
    rows, seconds, parts = [], [], defaultdict(list)
    for name, pairs in sets.items():
        for case in cases(pairs, kind, upscaler):
            start = perf_counter()
            refined = refiner(case.image, case.mask)
            seconds.append(perf_counter() - start)
            row = [*score(case.mask, case.truth), *score(refined, case.truth), edge(case.truth)]
            rows.append(row)
            parts[name].append(row)
    scores = summarise(np.array(rows))
    scores["seconds"] = round(median(seconds), 3)
    scores["parts"] = {name: summarise(np.array(rows)) for name, rows in sorted(parts.items())}
    return scores


def score(mask: Array, truth: Array) -> tuple[float, ...]:
    """`FIGURES` of a mask."""
    compared = metrics.compare(mask, truth)
    error = 100 * float(np.abs(mask.astype(np.float32) - truth).mean()) / 255
    overlap = 100 * mask_iou(mask > 127, truth > 127)
    return 100 * metrics.mba(compared), 100 * metrics.biou(compared), overlap, error, edge(mask)


def edge(mask: Array) -> float:
    contours, _ = cv2.findContours(binarise(mask), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    length = sum(cv2.arcLength(contour, closed=True) for contour in contours)
    return float(np.count_nonzero((mask >= SOFT[0]) & (mask <= SOFT[1])) / max(length, 1))


def summarise(rows: np.ndarray) -> dict[str, object]:
    """Of rows of `FIGURES` before, `FIGURES` after, and the truth's edge."""
    count = len(FIGURES)
    before, after = rows[:, :count], rows[:, count : 2 * count]
    pairs = zip(FIGURES, before.T, after.T, strict=True)
    means = {name: [round(float(x.mean()), 3) for x in both] for name, *both in pairs}
    means["edge"].append(round(float(rows[:, -1].mean()), 3))
    gain = after[:, 0] - before[:, 0]
    lost = 100 - before[:, 2], 100 - after[:, 2]
    return {
        "pairs": len(rows),
        **means,
        "gain": [round(float(x), 2) for x in (gain.mean(), gain.std(), np.median(gain))],
        "better": round(float((gain > 0).mean()), 3),
        "worse": round(float((gain < -CLEARLY).mean()), 3),
        "gone": round(float(1 - lost[1].sum() / max(lost[0].sum(), 1e-9)), 3),
        "iou_worse": round(float((after[:, 2] < before[:, 2]).mean()), 3),
        "mae_worse": round(float((after[:, 3] > before[:, 3]).mean()), 3),
    }


def held_out(folders: list[Path], half: str, limit: int | None) -> dict[str, list[Pair]]:
    """Pairs by data set; of a folder that mixes several, by the first word of their names."""
    sets: dict[str, list[Pair]] = defaultdict(list)
    low, high = HALVES[half]
    for folder in folders:
        for pair in find_pairs(folder):
            if low <= holdout_fraction(pair.stem) < high:
                mixed = folder.name == "train"
                sets[pair.stem.split("_")[0] if mixed else folder.name].append(pair)
    return {
        name: pairs[:: max(1, len(pairs) // (limit or len(pairs)))] for name, pairs in sets.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--refiner", nargs="+", default=["hqsod-refiner-small", "guided"])
    parser.add_argument("--upscaler", default="hqsod-x4-small")
    parser.add_argument("--kinds", nargs="+", default=[*WEARS, "damaged", "x4"])
    parser.add_argument("--half", choices=HALVES, default="final")
    parser.add_argument("--limit", type=int, help="pairs of each set, drawn evenly")
    parser.add_argument("--print-only", action="store_true")
    options = parser.parse_args()
    sets = held_out(options.data, options.half, options.limit)
    runtime, results = choose_runtime("cpu"), {}
    upscaler = load_upscaler(options.upscaler, runtime)
    for name in options.refiner:
        refiner = load_refiner(name, runtime)
        assert refiner is not None
        results[name] = {k: measure(refiner, sets, k, upscaler) for k in options.kinds}
    about = machine("opencv-python-headless")
    report("refiner", {"machine": about, **results}, write=not options.print_only)


if __name__ == "__main__":
    main()
