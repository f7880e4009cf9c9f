"""Does the ranking of doubtful masks find the damaged ones?

    python benchmarks/ranking.py DATA
    python benchmarks/ranking.py DATA --refiner guided --predictor none --share 0.16 --print-only

DATA holds `images/` and `masks/`. Pictures and masks pass the build's own steps (recipe `preview`,
nothing is written). Damaged is either the mask that goes in, which the refiner may keep so, or the
refined mask that comes out. The pictures are those that the networks which come with hqsod have not
seen: the share of DATA that their recipes hold out. Half of them, by a hash of their names, are for
fitting the weights anew, the others for ranking them. A kind of damage is ranked by
weights that were fitted without it: kind and picture are both new to them.

Then the weights as they are shipped rank all of the pictures.

Reported is how many damaged pairs stand in the first tenth when one pair in twenty is damaged, and
the weights fitted on all kinds, to be copied to quality/judge.py.
"""

from __future__ import annotations

import argparse
import json
import sys
import zlib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path

import cv2
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
from damages import KINDS, damage
from hqsod.building.engines import LocalEngine, load_engine
from hqsod.building.networks import Networks, Stopwatch
from hqsod.building.pair import PairPixels, find_placement, place
from hqsod.building.recipes import RECIPES, BuildRecipe
from hqsod.dataset.holdout import holdout_fraction
from hqsod.dataset.layouts import find_pairs
from hqsod.inference.runtime import choose_runtime
from hqsod.masks import MASK_THRESHOLD
from hqsod.pairs import Pair, read_pair
from hqsod.quality.judge import OUTLIER, explained, judge, trust
from hqsod.training.recipes import read_recipe

RESULTS = Path(__file__).parent / "results" / "ranking.json"
SHARE, TENTH = 0.05, 0.1  # of the pairs that are damaged, and that a person looks at first
ENTRIES = ("source", "refined")  # where damage enters
KINDS_EACH = 4  # damages of each picture
SHRINKAGE = 0.1  # added to the variances: figures that say the same share their weight


@dataclass(frozen=True)
class Judged:
    """A pair: where its damage entered (`none`, `source`, `refined`), its kind, its figures."""

    stem: str
    where: str
    kind: str
    figures: dict[str, float]


def for_ranking(stem: str) -> bool:
    return zlib.crc32(stem.encode()) % 2 == 1


def read(pair: Pair) -> tuple[np.ndarray, np.ndarray]:
    image, mask, _ = read_pair(pair)
    return image, mask > MASK_THRESHOLD


def damaged(
    pair: Pair, other: Pair, kind: str, image: np.ndarray, mask: np.ndarray
) -> np.ndarray | None:
    _, strange = read(other)
    size = (mask.shape[1], mask.shape[0])
    strange = cv2.resize(strange.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
    return damage(kind, image, mask, strange, zlib.crc32((pair.stem + kind).encode()))


def chunks(pairs: list[Pair]) -> Iterator[tuple[int, Pair, Pair]]:
    """Each pair, its number, and another one far from it."""
    for number, pair in enumerate(pairs):
        yield number, pair, pairs[(number + len(pairs) // 2) % len(pairs)]


@dataclass(frozen=True)
class Built:
    """A pair after the networks, all but the prediction on the canvas."""

    image: np.ndarray
    mask: np.ndarray
    refined: np.ndarray
    prediction: np.ndarray | None


@cache
def engine(recipe: BuildRecipe) -> LocalEngine:
    return load_engine(recipe, choose_runtime("cpu"))


def through_networks(
    pair: Pair, image: np.ndarray, upscaled: np.ndarray, mask: np.ndarray, recipe: BuildRecipe
) -> Built:
    """Through the build's own steps, without judging and writing."""
    used, watch = engine(recipe), Stopwatch()
    placement = find_placement(mask.shape, used.settings.canvas, pair.stem)
    pixels = PairPixels(image, mask.astype(np.uint8) * 255, placement, "", watch)
    placed = place(pixels, upscaled)
    with Networks(used.upscaler, used.refiner, used.predictor) as networks:
        refined, prediction = networks.refine(*placed, watch), networks.predict(image, watch)
    assert refined is not None
    return Built(*placed, refined, prediction)


def figures(built: Built, upscaled: np.ndarray) -> dict[str, float]:
    """Empty where the mask has no contour: such a mask needs no fitting to be doubted."""
    return explained(judge(built.image, upscaled, built.refined, built.prediction))


def judge_built(recipe: BuildRecipe, job: tuple[int, Pair, Pair]) -> list[Judged]:
    """One picture as it is, and with some kinds of damage, each entering in both places."""
    number, pair, other = job
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    image, mask = read(pair)
    (upscaled,) = engine(recipe).upscaler([image])
    right = through_networks(pair, image, upscaled, mask, recipe)
    found = [Judged(pair.stem, "none", "none", figures(right, right.mask))]
    for turn in range(KINDS_EACH):
        kind = list(KINDS)[(number * KINDS_EACH + turn) % len(KINDS)]
        wrong = damaged(pair, other, kind, image, mask)
        if wrong is None:
            continue
        built = through_networks(pair, image, upscaled, wrong, recipe)
        for where, before in (("source", built.mask), ("refined", right.mask)):
            found.append(Judged(pair.stem, where, kind, figures(built, before)))
    return [one for one in found if one.figures]


def discriminant(x: np.ndarray, bad: np.ndarray) -> np.ndarray:
    """Fisher's linear discriminant between right and damaged masks."""
    right, wrong = x[~bad], x[bad]
    spread = np.cov(right.T) + np.cov(wrong.T) + SHRINKAGE * np.eye(x.shape[1])
    return np.linalg.solve(spread, wrong.mean(0) - right.mean(0))


class Table:
    """All pairs' figures in one array, with the two halves and the fits on one of them."""

    def __init__(self, judged: list[Judged]) -> None:
        self.names = list(judged[0].figures)
        self.where = np.array([one.where for one in judged])
        self.kind = np.array([one.kind for one in judged])
        self.ranking = np.array([for_ranking(one.stem) for one in judged])
        values = np.array([[one.figures[name] for name in self.names] for one in judged])
        self.centre = values[~self.ranking].mean(0)
        self.spread = values[~self.ranking].std(0)
        self.x = np.clip((values - self.centre) / self.spread, -OUTLIER, OUTLIER)

    def fit(self, columns: list[int], without: str = "") -> np.ndarray:
        """Weights fitted on the first half, without one kind of damage."""
        rows = ~self.ranking & (self.kind != without)
        return discriminant(self.x[rows][:, columns], self.kind[rows] != "none")

    def found(self, columns: list[int]) -> dict[str, dict[str, float]]:
        """For each entry and kind: share in the first tenth, on the second half."""
        shares: dict[str, dict[str, float]] = {where: {} for where in ENTRIES}
        for kind in KINDS:
            trust = -(self.x[:, columns] @ self.fit(columns, kind))
            right = trust[self.ranking & (self.kind == "none")]
            for where, share in shares.items():
                rows = self.ranking & (self.kind == kind) & (self.where == where)
                share[kind] = share_found(right, trust[rows])
        return shares


def shipped(judged: list[Judged]) -> dict[str, float]:
    """Mean share in the first tenth with the weights of quality/judge.py, on all pictures."""
    trusted = {where: [one for one in judged if one.where == where] for where in ENTRIES}
    right = np.array([trust(one.figures) for one in judged if one.where == "none"])
    shares = {
        where: {
            kind: share_found(right, np.array([trust(x.figures) for x in ones if x.kind == kind]))
            for kind in KINDS
        }
        for where, ones in trusted.items()
    }
    return averages(shares)


def averages(shares: dict[str, dict[str, float]]) -> dict[str, float]:
    each = {where: round(float(np.mean(list(s.values()))), 3) for where, s in shares.items()}
    return each | {"both": round(mean(shares), 3)}


def share_found(right: np.ndarray, wrong: np.ndarray, draws: int = 400) -> float:
    """Mean share of the damaged pairs in the first tenth, over random data sets."""
    rng, size = np.random.default_rng(0), len(right)
    count, shares = max(1, round(SHARE * size)), []
    for _ in range(draws):
        bad = rng.choice(wrong, count)
        good = rng.choice(right, size - count, replace=False)
        limit = np.sort(np.concatenate([bad, good]))[round(TENTH * size) - 1]
        shares.append(np.mean(bad <= limit))
    return round(float(np.mean(shares)), 3)


def mean(shares: dict[str, dict[str, float]]) -> float:
    return float(np.mean([list(share.values()) for share in shares.values()]))


def report(table: Table) -> dict[str, object]:
    every = list(range(len(table.names)))
    shares = table.found(every)
    without = {
        name: round(mean(table.found([n for n in every if n != column])) - mean(shares), 3)
        for column, name in enumerate(table.names)
    }
    weights = table.fit(every)
    doubt = table.x @ weights
    right = doubt[table.ranking & (table.kind == "none")]
    return {
        "pairs_ranked": int(np.count_nonzero(table.ranking & (table.kind == "none"))),
        "damaged_ranked": int(np.count_nonzero(table.ranking & (table.kind != "none"))),
        "first_tenth": shares,
        "mean": averages(shares),
        "change_without_figure": without,
        "right_doubt": dict(
            zip(
                ("50 %", "90 %", "95 %"), np.quantile(right, (0.5, 0.9, 0.95)).round(2), strict=True
            )
        ),
        "weights": {
            name: [round(float(v), 3) for v in values]
            for name, *values in zip(table.names, table.centre, table.spread, weights, strict=True)
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--share", type=float, default=read_recipe("quick").data.holdout)
    parser.add_argument("--refiner")
    parser.add_argument("--predictor")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--print-only", action="store_true")
    parser.add_argument("--rows", type=Path, help="keep the figures here, or take them from here")
    options = parser.parse_args()
    if options.rows and options.rows.is_file():
        judged = [Judged(**row) for row in json.loads(options.rows.read_text())]
    else:
        pairs = [
            pair for pair in find_pairs(options.data) if holdout_fraction(pair.stem) < options.share
        ]
        pairs = [pairs[index] for index in np.random.default_rng(0).permutation(len(pairs))]
        recipe = replace(
            RECIPES["preview"].changed(None, options.refiner, options.predictor), canvas=None
        )
        with ProcessPoolExecutor(options.workers) as pool:
            many = pool.map(partial(judge_built, recipe), chunks(pairs), chunksize=4)
            judged = [one for found in many for one in found]
        if options.rows:
            options.rows.write_text(json.dumps([asdict(one) for one in judged]))
    result = {"mean as shipped": shipped(judged), **report(Table(judged))}
    text = json.dumps(result, indent=1) + "\n"
    if not options.print_only:
        RESULTS.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
