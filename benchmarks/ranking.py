"""Does the ranking of doubtful masks find the damaged ones?

    python benchmarks/ranking.py fit DATA      # fits the weights of build/quality.py
    python benchmarks/ranking.py rank DATA     # builds, damages, ranks: results/ranking.json

DATA holds `images/` and `masks/`. Half of the pictures, by a hash of their names, are for fitting,
the others for ranking. `fit` prints the weights, and what they are worth on a kind of damage that
they were fitted without (each kind in turn), on pictures that they were not fitted on.

`rank` enlarges pictures and masks as the preview recipe does and damages either the mask that goes
into the build (the refiner may keep the damage) or the refined mask that comes out of it. Reported
is how many of the damaged pairs stand in the first tenth when one pair in twenty is damaged.
"""

from __future__ import annotations

import argparse
import json
import sys
import zlib
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
from damages import KINDS, damage
from hqsod import images
from hqsod.build import contour, quality
from hqsod.build import pair as steps
from hqsod.build.pair import Enlarged, Source
from hqsod.build.quality import judge
from hqsod.build.recipes import RECIPES, Settings
from hqsod.build.refine import load_refiner
from hqsod.build.upscale import load_upscaler
from hqsod.datasets import find_pairs
from hqsod.types import Pair

RESULTS = Path(__file__).parent / "results" / "ranking.json"
SHARE, TENTH = 0.05, 0.1  # of the pairs that are damaged, and that a person looks at first
KINDS_EACH = 3  # damages of each picture when fitting
SHRINKAGE = 0.1  # added to the variances: figures that say the same share their weight


@dataclass(frozen=True)
class Judged:
    """One mask: how it was damaged (`none`: not) and what its figures are."""

    stem: str
    kind: str
    figures: dict[str, float]


def for_ranking(stem: str) -> bool:
    return zlib.crc32(stem.encode()) % 2 == 1


def read(pair: Pair) -> tuple[np.ndarray, np.ndarray]:
    return images.read_image(pair.image), images.read_mask(pair.mask) > 127


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


# ---- fit


def judge_source(job: tuple[int, Pair, Pair]) -> list[Judged]:
    """The picture's figures for its mask and for some damages of it, at the size it has."""
    number, pair, other = job
    cv2.setNumThreads(1)
    image, mask = read(pair)
    found = [Judged(pair.stem, "none", picture_figures(image, mask))]
    for turn in range(KINDS_EACH):
        kind = list(KINDS)[(number * KINDS_EACH + turn) % len(KINDS)]
        wrong = damaged(pair, other, kind, image, mask)
        if wrong is not None:
            found.append(Judged(pair.stem, kind, picture_figures(image, wrong)))
    return [one for one in found if one.figures]


def picture_figures(image: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """Empty where the mask has no contour: such a mask needs no fitting to be doubted."""
    small = contour.reduce(mask.astype(np.uint8) * 255) > 127
    figures = contour.examine(contour.reduce(image), small)
    return quality.explained(figures) if figures else {}


def discriminant(x: np.ndarray, bad: np.ndarray) -> np.ndarray:
    """Fisher's linear discriminant between right and damaged masks."""
    right, wrong = x[~bad], x[bad]
    spread = np.cov(right.T) + np.cov(wrong.T) + SHRINKAGE * np.eye(x.shape[1])
    return np.linalg.solve(spread, wrong.mean(0) - right.mean(0))


def fit(pairs: list[Pair], workers: int) -> None:
    with ProcessPoolExecutor(workers) as pool:
        many = pool.map(judge_source, chunks(pairs), chunksize=16)
        judged = [one for found in many for one in found]
    names = list(judged[0].figures)
    values = np.array([[one.figures[name] for name in names] for one in judged])
    kinds = np.array([one.kind for one in judged])
    ranking = np.array([for_ranking(one.stem) for one in judged])
    centre, spread = values[~ranking].mean(0), values[~ranking].std(0)
    x = np.clip((values - centre) / spread, -quality.OUTLIER, quality.OUTLIER)

    def found(kind: str, columns: list[int]) -> float:
        """Share of this kind that stands in the first tenth, fitted without it."""
        fitting = ~ranking & (kinds != kind)
        weights = discriminant(x[fitting][:, columns], kinds[fitting] != "none")
        doubt = x[ranking][:, columns] @ weights
        limit = np.quantile(doubt[kinds[ranking] == "none"], 1 - allowed())
        return float(np.mean(doubt[kinds[ranking] == kind] > limit))

    every = list(range(len(names)))
    shares = {kind: found(kind, every) for kind in KINDS}
    right = np.count_nonzero(kinds == "none")
    print(f"{right} right masks, {len(kinds) - right} damaged")
    for kind, share in shares.items():
        print(f"  {kind:16} {share:.3f}")
    mean = float(np.mean(list(shares.values())))
    print(f"mean over kinds, each fitted without it: {mean:.3f}; without the figure")
    for column, name in enumerate(names):
        others = [other for other in every if other != column]
        without = float(np.mean([found(kind, others) for kind in KINDS]))
        print(f"  {name:16} {without:.3f} ({without - mean:+.3f})")
    weights = discriminant(x[~ranking], kinds[~ranking] != "none")
    for name, middle, deviation, weight in zip(names, centre, spread, weights, strict=True):
        print(f'    "{name}": ({middle:.3f}, {deviation:.3f}, {weight:.2f}),')
    doubt = x[~ranking] @ weights
    for label, which in (
        ("right", kinds[~ranking] == "none"),
        ("damaged", kinds[~ranking] != "none"),
    ):
        print(
            label,
            "doubt at 10, 50, 90, 95 %:",
            np.quantile(doubt[which], (0.1, 0.5, 0.9, 0.95)).round(2),
        )


def allowed() -> float:
    """Share of the right masks that fit into the first tenth beside nine of ten damaged ones."""
    return (TENTH - 0.9 * SHARE) / (1 - SHARE)


# ---- rank


def settings() -> Settings:
    recipe = RECIPES["preview"]
    names = {"recipe": recipe.name, "upscaler": recipe.upscaler, "refiner": recipe.refiner}
    weights = {"upscaler_weights": "", "refiner_weights": ""}
    return Settings(**names, **weights, canvas=None, precision="float32", batch=1, fallback=False)


def enlarge(pair: Pair, image: np.ndarray, mask: np.ndarray) -> Enlarged:
    """Through the build's own steps, without writing."""
    cpu = torch.device("cpu")
    upscaler = load_upscaler("bicubic", cpu, torch.float32)
    refiner = load_refiner("guided", cpu, torch.float32)
    placement = steps.place(mask.shape, settings(), pair.stem)
    source = Source(pair, image, mask.astype(np.uint8) * 255, {}, placement, "", {})
    return steps.enlarge(source, upscaler([image])[0], refiner, 0.0)


def judge_built(job: tuple[int, Pair, Pair]) -> list[tuple[str, str, float]]:
    """Where the damage entered (`none`, `source`, `refined`), its kind, and the score."""
    number, pair, other = job
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    image, mask = read(pair)
    right = enlarge(pair, image, mask)
    found = [("none", "none", judge(right.image, right.mask, right.refined).score)]
    kind = list(KINDS)[number % len(KINDS)]
    wrong = damaged(pair, other, kind, image, mask)
    if wrong is None:
        return found
    built = enlarge(pair, image, wrong)
    found.append(("source", kind, judge(built.image, built.mask, built.refined).score))
    found.append(("refined", kind, judge(right.image, right.mask, built.refined).score))
    return found


def rank(pairs: list[Pair], workers: int) -> None:
    pairs = [pair for pair in pairs if for_ranking(pair.stem)]
    with ProcessPoolExecutor(workers) as pool:
        rows = [row for found in pool.map(judge_built, chunks(pairs), chunksize=4) for row in found]
    right = np.array([score for where, _, score in rows if where == "none"])
    result: dict[str, object] = {"pairs": len(pairs), "flagged_right": float(np.mean(right < 0.5))}
    for where in ("source", "refined"):
        scores = defaultdict(list)
        for entry, kind, score in rows:
            if entry == where:
                scores[kind].append(score)
        result[where] = {kind: share_found(right, np.array(scores[kind])) for kind in KINDS}
        every = np.concatenate([scores[kind] for kind in KINDS])
        result[where] |= {"all": share_found(right, every), "flagged": float(np.mean(every < 0.5))}
    both = np.array([score for where, _, score in rows if where != "none"])
    result["both"] = share_found(right, both)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("fit", "rank"))
    parser.add_argument("data", type=Path)
    parser.add_argument("--pairs", type=int, default=1500)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    pairs = list(find_pairs(options.data))
    chosen = np.random.default_rng(0).permutation(len(pairs))[: options.pairs]
    pairs = [pairs[index] for index in chosen]
    if options.what == "fit":
        fit(pairs, options.workers)
    else:
        rank(pairs, options.workers)


if __name__ == "__main__":
    main()
