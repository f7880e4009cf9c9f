"""Time the five common measures against PySODMetrics: same maps, same run, one core each.

    pip install --no-deps pysodmetrics scikit-learn
    python benchmarks/metrics.py

Each scores a set of maps, then the other does, and so on in turns, with threads off. Processor time
is counted, so that a busy machine counts for neither; the ratio is the median over the turns. The
scores are compared as well. Then `hqsod evaluate` runs over a folder of files with one worker and
with one for each core, start and reading included, in seconds on the wall.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from statistics import median
from time import perf_counter, process_time

import cv2
import numpy as np
import py_sod_metrics

from common import machine, report
from hqsod import metrics

SIZES = {(300, 400): 40, (1600, 1600): 4}  # (height, width): maps in a set
TURNS = 5
KINDS = ("blurred", "noisy", "mask")
FILES = 1000


def pair(size: tuple[int, int], kind: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """An ellipse with a thin bar as ground truth, and a map of it."""
    rng = np.random.default_rng(seed)
    height, width = size
    truth = np.zeros(size, np.uint8)
    middle = (int(width * rng.uniform(0.3, 0.7)), int(height * rng.uniform(0.3, 0.7)))
    axes = (int(width * rng.uniform(0.1, 0.3)), int(height * rng.uniform(0.1, 0.3)))
    cv2.ellipse(truth, middle, axes, rng.uniform(0, 180), 0, 360, 255, -1)
    end = (int(width * rng.uniform(0.1, 0.9)), int(height * rng.uniform(0.1, 0.9)))
    cv2.line(truth, middle, end, 255, max(1, width // 200))
    soft = cv2.GaussianBlur(truth, (0, 0), height / 40)
    if kind == "noisy":
        soft = np.clip(soft + rng.normal(0, 20, size), 0, 255).astype(np.uint8)
    if kind == "mask":
        soft = np.roll(truth, height // 30, axis=0)
    return soft, truth


def by_reference(prediction: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """PySODMetrics' scores of one map, under our names."""
    mae, f, weighted, s, e = (
        measure()
        for measure in (
            py_sod_metrics.MAE,
            py_sod_metrics.Fmeasure,
            py_sod_metrics.WeightedFmeasure,
            py_sod_metrics.Smeasure,
            py_sod_metrics.Emeasure,
        )
    )
    for measure in (mae, f, weighted, s, e):
        measure.step(prediction, truth)
    return {
        "mae": mae.maes[0],
        "f_max": f.changeable_fms[0].max(),
        "f_mean": f.changeable_fms[0].mean(),
        "f_adaptive": f.adaptive_fms[0],
        "f_weighted": weighted.weighted_fms[0],
        "s_measure": s.sms[0],
        "e_max": e.changeable_ems[0].max(),
        "e_mean": e.changeable_ems[0].mean(),
        "e_adaptive": e.adaptive_ems[0],
    }


def one_core() -> list[dict[str, object]]:
    """Milliseconds of processor time for one map, and how far the scores are apart."""
    rows: list[dict[str, object]] = []
    for size, number in SIZES.items():
        for kind in KINDS:
            maps = [pair(size, kind, seed) for seed in range(number)]
            both = [(by_reference(*one), metrics.score(*one)) for one in maps]
            spent: dict[str, list[float]] = {"pysodmetrics": [], "hqsod": []}
            for _ in range(TURNS):
                for name, score in (("pysodmetrics", by_reference), ("hqsod", metrics.score)):
                    start = process_time()
                    for one in maps:
                        score(*one)
                    spent[name].append((process_time() - start) * 1000 / number)
            ratios = [t / o for t, o in zip(spent["pysodmetrics"], spent["hqsod"], strict=True)]
            apart = max(abs(theirs[n] - ours[n]) for theirs, ours in both for n in ours)
            rows.append(
                {
                    "size": f"{size[1]} x {size[0]}",
                    "map": kind,
                    **{f"{name}_ms": round(median(times), 2) for name, times in spent.items()},
                    "ratio": round(median(ratios), 1),
                    "largest_difference": float(apart),
                }
            )
    return rows


def whole_job() -> dict[str, float]:
    """Seconds on the wall for a folder of PNG files of 400 x 300, reading included."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("pred", "gt"):
            (folder / part).mkdir()
        for index in range(FILES):
            maps = pair((300, 400), KINDS[index % len(KINDS)], index)
            for part, array in zip(("pred", "gt"), maps, strict=True):
                cv2.imwrite(str(folder / part / f"{index}.png"), array)
        seconds = {}
        start = perf_counter()
        for path in sorted((folder / "pred").iterdir()):
            truth = folder / "gt" / path.name
            by_reference(*(cv2.imread(str(p), cv2.IMREAD_GRAYSCALE) for p in (path, truth)))
        seconds["pysodmetrics, one process"] = perf_counter() - start
        for label, workers in (("1 worker", 1), (f"{os.cpu_count()} workers", os.cpu_count())):
            command = [sys.executable, "-m", "hqsod", "evaluate", "--workers", str(workers)]
            command += ["--pred", str(folder / "pred"), "--gt", str(folder / "gt")]
            place = {**os.environ, "HQSOD_CACHE": str(folder / label)}  # nothing kept yet
            start = perf_counter()
            subprocess.run(command, check=True, capture_output=True, env=place)
            seconds[f"hqsod evaluate, {label}"] = perf_counter() - start
    return {label: round(value, 2) for label, value in seconds.items()}


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # PySODMetrics announces a removal at each call
    cv2.setNumThreads(1)
    load = os.getloadavg()[0]
    report(
        "metrics",
        {
            "one_core": one_core(),
            "whole_job_seconds": whole_job(),
            "machine": machine("opencv-python-headless", "pysodmetrics"),
            "load_at_start": round(load, 1),
        },
    )
