"""Refiners on held-out pictures whose masks were reduced by 4, enlarged again and damaged.

    python benchmarks/refiner.py DATA                               # writes results/refiner.json
    python benchmarks/refiner.py DATA --refiner guided FILE --limit 40 --print-only

DATA is a data set's folder; the pairs that `hqsod train --recipe refiner` holds out are used.
`damaged`: IoU between 0.85 and 0.95. `intact`: enlarged only. `x4`: the same, and picture, mask and
ground truth enlarged four times by bicubic, as `hqsod build` does. `gone` is the share of the IoU
error (1 - IoU) that the refiner took away: of all pictures together, and the pictures' mean and
standard deviation. mBA in points of 100.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import torch
from PIL import Image

from common import machine, report
from hqsod import images
from hqsod.dataset.holdout import holdout_fraction
from hqsod.dataset.layouts import find_pairs
from hqsod.images import binarise
from hqsod.inference.devices import choose_precision
from hqsod.inference.refiner import Refiner, load_refiner
from hqsod.metrics.regions import mask_iou
from hqsod.training.damaged import Case, held_out_cases
from hqsod.training.recipes import read_recipe
from hqsod.training.refiner import RefinerRecipe, boundary_accuracy
from hqsod.types import Pair

CPU = torch.device("cpu")
SCALE = 4


def cases(pairs: list[Pair], kind: str) -> Iterator[Case]:
    for case in held_out_cases(pairs, intact="intact" in kind):
        if "x4" not in kind:
            yield case
            continue
        size = (case.mask.shape[0] * SCALE, case.mask.shape[1] * SCALE)
        image, mask, truth = (
            images.resize(layer, size, Image.Resampling.BICUBIC)
            for layer in (case.image, case.mask, case.truth)
        )
        yield Case(case.stem, image, binarise(mask), binarise(truth))


def measure(refiner: Refiner, pairs: list[Pair], kind: str) -> dict[str, object]:
    rows, seconds, parts = [], [], defaultdict(list)
    for case in cases(pairs, kind):
        start = perf_counter()
        refined = binarise(refiner(case.image, case.mask))
        seconds.append(perf_counter() - start)
        measures, masks = (mask_iou, boundary_accuracy), (case.mask, refined)
        row = [score(mask, case.truth) for score in measures for mask in masks]
        rows.append(row)
        parts[case.stem.split("_")[0]].append(row)
    scores = summarise(np.array(rows))
    scores["seconds"] = round(median(seconds), 3)
    scores["parts"] = {name: summarise(np.array(rows)) for name, rows in sorted(parts.items())}
    return scores


def summarise(rows: np.ndarray) -> dict[str, object]:
    """Of rows of IoU before, IoU after, mBA before, mBA after."""
    before, after, edges, new_edges = rows.T
    gone, gain = 1 - (1 - after) / (1 - before).clip(1e-9), 100 * (new_edges - edges)
    return {
        "pictures": len(rows),
        "iou": [round(float(x.mean()), 4) for x in (before, after)],
        "gone_together": round(float(1 - (1 - after).sum() / (1 - before).sum()), 3),
        "gone": [round(float(x), 3) for x in (gone.mean(), gone.std(), np.median(gone))],
        "worse": round(float((after < before).mean()), 3),
        "mba": [round(float(100 * x.mean()), 2) for x in (edges, new_edges)],
        "mba_gain": [round(float(x), 2) for x in (gain.mean(), gain.std(), np.median(gain))],
        "mba_worse": round(float((gain < 0).mean()), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--refiner", nargs="+", default=["hqsod-refiner-small", "guided"])
    parser.add_argument("--kinds", nargs="+", default=["damaged", "intact", "x4", "x4 intact"])
    parser.add_argument("--limit", type=int, help="pictures, drawn evenly from those held out")
    parser.add_argument("--print-only", action="store_true")
    options = parser.parse_args()
    recipe = read_recipe("refiner")
    assert isinstance(recipe, RefinerRecipe)
    pairs = [
        pair for pair in find_pairs(options.data) if holdout_fraction(pair.stem) < recipe.holdout
    ]
    pairs = pairs[:: max(1, len(pairs) // (options.limit or len(pairs)))]
    results = {}
    for name in options.refiner:
        refiner = load_refiner(name, CPU, choose_precision("auto", CPU))
        assert refiner is not None
        results[name] = {kind: measure(refiner, pairs, kind) for kind in options.kinds}
    about = machine("opencv-python-headless")
    report("refiner", {"machine": about, **results}, write=not options.print_only)


if __name__ == "__main__":
    main()
