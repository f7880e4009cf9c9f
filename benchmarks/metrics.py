"""Time the five common measures against PySODMetrics: same maps, same run, one core each.

    pip install --no-deps pysodmetrics scikit-learn
    python benchmarks/metrics.py

Both score in turn, so that whatever else the machine does meets both; processor time is counted,
threads are off, and the ratio of the medians is printed. Then `hqsod evaluate` runs over a folder
with one worker and with all cores. Results go to benchmarks/results/metrics.json.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import cv2
import numpy as np
import py_sod_metrics

from hqsod import metrics

SIZES = ((300, 400), (1600, 1600))
ROUNDS = {SIZES[0]: 60, SIZES[1]: 8}
KINDS = ("blurred", "noisy", "mask")
RESULTS = Path(__file__).parent / "results" / "metrics.json"
REFERENCE = ("MAE", "Fmeasure", "WeightedFmeasure", "Smeasure", "Emeasure")


def pair(size: tuple[int, int], kind: str) -> tuple[np.ndarray, np.ndarray]:
    """An ellipse and a thin bar as ground truth, and a map of it."""
    height, width = size
    truth = np.zeros(size, np.uint8)
    middle, axes = (int(width * 0.45), height // 2), (int(width * 0.25), int(height * 0.3))
    cv2.ellipse(truth, middle, axes, 20, 0, 360, 255, -1)
    cv2.line(truth, middle, (width - 10, 10), 255, max(1, width // 200))
    soft = cv2.GaussianBlur(truth, (0, 0), height / 40)
    if kind == "noisy":
        noise = np.random.default_rng(0).normal(0, 20, size)
        soft = np.clip(soft + noise, 0, 255).astype(np.uint8)
    if kind == "mask":
        soft = np.roll(truth, height // 30, axis=0)
    return soft, truth


def by_reference(prediction: np.ndarray, truth: np.ndarray) -> None:
    for name in REFERENCE:
        getattr(py_sod_metrics, name)().step(prediction, truth)


def in_turn(first: Callable[[], object], second: Callable[[], object], rounds: int) -> list[float]:
    """Median processor milliseconds of each, run alternately."""
    spent: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for run, times in zip((first, second), spent, strict=True):
            start = time.process_time()
            run()
            times.append((time.process_time() - start) * 1000)
    return [statistics.median(times) for times in spent]


def one_core() -> list[dict[str, object]]:
    cv2.setNumThreads(1)
    rows: list[dict[str, object]] = []
    for size in SIZES:
        for kind in KINDS:
            prediction, truth = pair(size, kind)
            theirs, ours = in_turn(
                lambda p=prediction, t=truth: by_reference(p, t),
                lambda p=prediction, t=truth: metrics.score(p, t),
                ROUNDS[size],
            )
            rows.append(
                {
                    "size": f"{size[1]} x {size[0]}",
                    "map": kind,
                    "pysodmetrics_ms": round(theirs, 2),
                    "hqsod_ms": round(ours, 2),
                    "ratio": round(theirs / ours, 1),
                }
            )
            print(rows[-1])
    return rows


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # PySODMetrics announces a removal at each call
    one_core()
