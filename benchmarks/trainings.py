"""What benchmarks that train networks share: their test scores, and means over seeds."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev

from hqsod.dataset.layouts import find_pairs
from hqsod.evaluate import dataset_name, evaluate
from hqsod.metrics import ScoreSettings

Scores = dict[str, float]
MEASURES = ("mae", "f_weighted", "s_measure", "e_mean", "mba", "biou")


def tested(
    networks: Mapping[str, Path], tests: Iterable[Path], size: int | None, out: Path
) -> dict[str, dict[str, Scores]]:
    """Mean scores of networks by test set and network. What was predicted or scored is kept.

    Args:
        networks: weights by name.
        tests: folders of data sets.
        size: that images are brought to; None for what each network was trained at.
        out: folder for the maps.
    """
    sets = {dataset_name(folder): folder for folder in tests}
    maps = {name: out / f"{name}-{size or 'own'}" for name in networks}
    for name, weights in networks.items():
        for dataset, folder in sets.items():
            images = find_pairs(folder)[0].image.parent
            command = [sys.executable, "-m", "hqsod", "predict", str(images)]
            command += ["--out", str(maps[name] / dataset), "--weights", str(weights)]
            command += ["--size", str(size)] if size else []
            subprocess.run(command, check=True)
    found = evaluate(maps, sets, ScoreSettings(also=("mba", "biou")))
    return {
        dataset: {
            name: {measure: scores.mean[measure] for measure in MEASURES}
            for name, scores in result.methods.items()
        }
        for dataset, result in found.datasets.items()
    }


def over_seeds(runs: Sequence[Scores]) -> dict[str, list[float]]:
    """Mean and standard deviation of each score over the seeds."""
    columns = {name: [run[name] for run in runs] for name in runs[0]}
    return {
        name: [round(mean(values), 4), round(stdev(values), 4) if len(values) > 1 else 0.0]
        for name, values in columns.items()
    }
