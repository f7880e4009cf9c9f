"""Time the five common measures against PySODMetrics: same maps, same run, one core each.

    pip install --no-deps pysodmetrics scikit-learn
    python benchmarks/metrics.py

Both score in turn, with threads off; processor time is counted, so that a busy machine counts for
neither, and the ratio is the median over the turns. Their scores are compared as well. Then
`evaluate` runs over a folder with one process and with one for each core, in seconds on the wall.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

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
from hqsod.evaluate import evaluate

SIZES = {(300, 400): 60, (1600, 1600): 7}  # (height, width): turns
KINDS = ("blurred", "noisy", "mask")
MAPS = 400  # in the folder


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
    for size, turns in SIZES.items():
        for kind in KINDS:
            maps = pair(size, kind)
            theirs, ours = by_reference(*maps), metrics.score(*maps)
            spent: dict[str, list[float]] = {"pysodmetrics": [], "hqsod": []}
            for _ in range(turns):
                for name, score in (("pysodmetrics", by_reference), ("hqsod", metrics.score)):
                    start = process_time()
                    score(*maps)
                    spent[name].append((process_time() - start) * 1000)
            ratios = [t / o for t, o in zip(spent["pysodmetrics"], spent["hqsod"], strict=True)]
            rows.append(
                {
                    "size": f"{size[1]} x {size[0]}",
                    "map": kind,
                    **{f"{name}_ms": round(median(times), 2) for name, times in spent.items()},
                    "ratio": round(median(ratios), 1),
                    "largest_difference": float(max(abs(theirs[n] - ours[n]) for n in ours)),
                }
            )
    return rows


def whole_job() -> dict[str, float]:
    """Seconds on the wall for a folder of PNG files of 400 x 300, reading included."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("pred", "gt"):
            (folder / part).mkdir()
        for index in range(MAPS):
            maps = pair((300, 400), KINDS[index % len(KINDS)])
            for part, array in zip(("pred", "gt"), maps, strict=True):
                array[0, :9] = [255 * (index >> bit & 1) for bit in range(9)]  # no two alike
                cv2.imwrite(str(folder / part / f"{index}.png"), array)
        seconds = {}
        start = perf_counter()
        for path in sorted((folder / "pred").iterdir()):
            truth = folder / "gt" / path.name
            by_reference(*(cv2.imread(str(p), cv2.IMREAD_GRAYSCALE) for p in (path, truth)))
        seconds["pysodmetrics, one process"] = perf_counter() - start
        for label, workers in (("one process", 1), (f"{os.cpu_count()} processes", None)):
            start = perf_counter()
            evaluate(
                {"maps": folder / "pred"},
                {"ellipses": folder / "gt"},
                metrics.Settings(),
                workers=workers,
                kept=folder / f"{label}.sqlite",
            )
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
