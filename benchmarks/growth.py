"""How the cost of building, scoring and training grows with the number and the size of pictures.

    OMP_NUM_THREADS=1 python benchmarks/growth.py    # prints, and writes results/growth.json

Processor seconds, so that other programs do not count. What the networks need grows with the area
(benchmarks/floors.py); here is what is around them: the build's records, and everything of a build
with bicubic pictures and the guided filter; the five scores of a map; a step of the light network.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import process_time

import numpy as np
import torch
from PIL import Image
from skimage import data

from common import LIGHT_NETWORK, machine, report
from hqsod import metrics
from hqsod.building.engines import load_engine
from hqsod.building.pipeline import build
from hqsod.building.recipes import RECIPES
from hqsod.dataset.layouts import find_pairs
from hqsod.dataset.manifest import File, Manifest, Record
from hqsod.inference.runtime import Runtime
from hqsod.losses import Targets, purificatory_loss
from hqsod.models.purnet import build_purnet
from hqsod.review.data_set import ReviewSet
from hqsod.review.listing import Query

SIDES = (100, 200, 400)
PAIRS = 6
SCORED = (200, 400, 800, 1600)
TRAINED = (96, 128, 192, 256)
BATCH = 8
RECORDS = (1_000, 10_000, 100_000)
ROUNDS = 3


def seconds(work: Callable[[], object]) -> float:
    """Median of a few rounds, after one to warm up."""
    work()
    taken = []
    for _ in range(ROUNDS):
        start = process_time()
        work()
        taken.append(process_time() - start)
    return median(taken)


def building() -> dict[str, float]:
    """Seconds for a pair by the picture's side, of which the result has four times as much."""
    recipe = RECIPES["preview"].changed("bicubic", "guided", "none")
    engine = load_engine(recipe, Runtime())
    photo = Image.fromarray(data.astronaut())
    rows, columns = np.indices((512, 512)) / 512 - 0.5
    mask = Image.fromarray(np.where(np.hypot(rows, columns) < 0.3, np.uint8(255), np.uint8(0)))
    found = {}
    for side in SIDES:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for kind, picture in (("images", photo), ("masks", mask)):
                (folder / "source" / kind).mkdir(parents=True)
                for number in range(PAIRS):
                    small = picture.resize((side, side))
                    small.save(folder / "source" / kind / f"{number}.png")
            pairs = find_pairs(folder / "source")
            build(pairs[:1], folder / "warm", engine)
            start = process_time()
            build(pairs, folder / "dest", engine)
            found[f"{side} x {side}"] = round((process_time() - start) / PAIRS, 3)
    return found


def scoring() -> dict[str, float]:
    """Milliseconds for a soft map by its side."""
    found = {}
    for side in SCORED:
        rows, columns = np.indices((side, side)) / side - 0.5
        distance = np.hypot(rows, columns)
        truth = np.where(distance < 0.3, np.uint8(255), np.uint8(0))
        soft = np.uint8(255 / (1 + np.exp((distance - 0.32) * 20)))
        taken = seconds(lambda soft=soft, truth=truth: metrics.score(soft, truth))
        found[f"{side} x {side}"] = round(1000 * taken, 2)
    return found


def training() -> dict[str, float]:
    """Seconds for a picture of a step of stage 1 in float32, by its side."""
    network = build_purnet(*LIGHT_NETWORK, attention=()).to(memory_format=torch.channels_last)
    found = {}
    for side in TRAINED:
        picture = torch.rand(BATCH, 3, side, side).to(memory_format=torch.channels_last)
        labels = (torch.arange(side**2).view(1, side, side) * 200 // side**2).expand(BATCH, -1, -1)
        targets = Targets((torch.rand(BATCH, 1, side, side) > 0.5).float(), labels.short())

        def step(picture: torch.Tensor = picture, targets: Targets = targets) -> None:
            terms = purificatory_loss(network.side_outputs(picture).saliency, targets)
            torch.stack([term.sum() for term in terms.values()]).sum().backward()

        found[f"{side} x {side}"] = round(seconds(step) / BATCH, 4)
    return found


def records() -> dict[str, dict[str, float]]:
    """Of a manifest of so many pairs: bytes for each, seconds to read and to list it, megabytes."""
    found = {}
    for count in RECORDS:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            with Manifest.open(folder, create=True) as manifest:
                manifest._connection.execute("PRAGMA synchronous = OFF")  # filling it is not timed
                for number in range(count):
                    manifest.append(_record(f"picture_{number:09d}"))
            size = (folder / "manifest.sqlite").stat().st_size
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            start = process_time()
            with Manifest.open(folder) as manifest:
                held = manifest.latest()
            taken = process_time() - start
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
            review_set = ReviewSet(folder)
            listed, searched = (
                seconds(lambda q=query, r=review_set: r.pairs(q))
                for query in (Query(), Query(state="left", search="77"))
            )
            found[f"{len(held):,}"] = {
                "bytes for each": round(size / count),
                "seconds to read": round(taken, 2),
                "megabytes to hold": round(grown / 1000),
                "milliseconds to list for review": round(1000 * listed, 1),
                "milliseconds to search there": round(1000 * searched, 1),
            }
    return found


def _record(stem: str) -> Record:
    files = {x: File(f"{x}/{stem}.png", "0" * 64, 1_000_000) for x in ("images", "masks", "hq")}
    figures = dict.fromkeys("abcdefgh", 0.12345678)
    return Record(stem, "built", "0" * 64, files, None, files, figures, figures, 0.9)


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    kept = records()  # first: later work would hide how memory grows
    result = {
        "seconds for a pair, built without networks": building(),
        "milliseconds for a map, scored": scoring(),
        "seconds for a picture of a training step": training(),
        "manifest": kept,
    }
    report("growth", {"machine": machine("opencv-python-headless"), **result})


if __name__ == "__main__":
    main()
