"""What each step of the preview build costs, in seconds of the processor.

    OMP_NUM_THREADS=1 python benchmarks/steps.py DUTS-TR [--pairs 10]

Every pair goes through the steps one after the other, in one thread, so that the sum is what a pair
costs; a build does several at once. Medians over pairs drawn evenly from the data set.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

import cv2
import torch

from common import machine, report
from hqsod.addresses import write_bytes
from hqsod.building.engines import LocalEngine, load_engine
from hqsod.building.networks import saliency_map
from hqsod.building.pair import hash_files, place, read
from hqsod.building.recipes import RECIPES
from hqsod.dataset.layouts import find_pairs
from hqsod.encoding import encode_png
from hqsod.inference.runtime import choose_runtime
from hqsod.pairs import Pair
from hqsod.quality.judge import judge


def build_pair(pair: Pair, engine: LocalEngine, folder: Path) -> dict[str, float]:
    """Seconds of each step of one pair."""
    seconds: dict[str, float] = {}

    def timed(step: str, function: Callable[..., Any], *args: object) -> Any:
        start = process_time()
        value = function(*args)
        seconds[step] = seconds.get(step, 0.0) + process_time() - start
        return value

    assert engine.refiner
    assert engine.predictor
    timed("hash", hash_files, pair)
    pixels = timed("read", read, pair, engine.settings.canvas)
    upscaled = timed("upscale", engine.upscaler, [pixels.image])[0]
    image, mask = timed("place", place, pixels, upscaled)
    refined = timed("refine", engine.refiner, image, mask)
    prediction = timed("predict", saliency_map, engine.predictor, pixels.image)
    inside = pixels.placement.window
    timed("judge", judge, image[inside], mask[inside], refined[inside], prediction)
    for layer, array in (("image", image), ("mask", mask), ("mask", refined)):
        data = timed(f"PNG of the {layer}", encode_png, array)
        timed("write", write_bytes, folder / f"{layer}.png", data)
        timed("hash", lambda data=data: hashlib.sha256(data).hexdigest())
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--precision", default="auto", help="as `hqsod build` takes it")
    arguments = parser.parse_args()
    cv2.setNumThreads(torch.get_num_threads())
    where = choose_runtime("cpu", arguments.precision)
    engine = load_engine(RECIPES["preview"], where)
    pairs = find_pairs(arguments.source)
    chosen = pairs[:: max(1, len(pairs) // arguments.pairs)][: arguments.pairs]
    with tempfile.TemporaryDirectory() as folder:
        first, *taken = [build_pair(p, engine, Path(folder)) for p in (chosen[0], *chosen)]
    steps = {step: round(median(pair[step] for pair in taken), 4) for step in first}
    result = {
        "machine": machine("pillow", "opencv-python-headless"),
        "precision": where.precision,
        "pairs": len(taken),
        "processor_seconds": steps | {"a pair": round(sum(steps.values()), 4)},
    }
    report("steps", result)


if __name__ == "__main__":
    main()
