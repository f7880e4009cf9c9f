"""What benchmarks that train networks share: their test scores, and means over seeds."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, stdev

import numpy as np

from hqsod import Predictor, machine, metrics
from hqsod.dataset.layouts import find_pairs
from hqsod.evaluate import dataset_name
from hqsod.pairs import Pair, read_pair

Scores = dict[str, float]
Scored = dict[str, Scores]  # by network
Networks = Mapping[str, Path]
MEASURES = ("mae", "f_weighted", "s_measure", "e_mean")
AT_CONTOURS = ("mba", "biou")
_SHARE = 16  # pairs that a process takes at a time


def tested(
    networks: Networks, tests: Iterable[Path], size: int | None, out: Path, also: Sequence[str]
) -> dict[str, Scored]:
    """Mean scores of networks by test set and network. What was scored is kept in `out`.

    The maps are those that `hqsod predict` writes. They stay in memory, so that each image is read
    once for all networks.

    Args:
        networks: weights by name.
        tests: folders of data sets.
        size: that images are brought to; None for what each network was trained at.
        out: folder for the scores, a file for each test set.
        also: more measures than `MEASURES`.
    """
    out.mkdir(parents=True, exist_ok=True)
    found = {}
    for folder in tests:
        name = dataset_name(folder)
        kept = out / f"{name}-{size or 'own'}.json"
        scores = json.loads(kept.read_text()) if kept.is_file() else {}
        if scores.keys() != networks.keys():
            scores = _tested(networks, folder, size, also)
            kept.write_text(json.dumps(scores))
        found[name] = scores
    return found


def _tested(networks: Networks, folder: Path, size: int | None, also: Sequence[str]) -> Scored:
    pairs = find_pairs(folder)
    processes = machine.threads()
    machine.set_threads(1)  # of each process
    score = partial(_score_pair, networks, size, also)
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        rows = list(pool.map(score, pairs, chunksize=_SHARE))
    return {
        name: {measure: mean(row[name][measure] for row in rows) for measure in (*MEASURES, *also)}
        for name in networks
    }


@cache
def _load(file: Path, size: int | None) -> Predictor:
    """A network, once for each process."""
    return Predictor(file, size=size)


def _score_pair(networks: Networks, size: int | None, also: Sequence[str], pair: Pair) -> Scored:
    """Scores of one image by network."""
    image, mask, _ = read_pair(pair)
    maps = {name: _load(file, size)(image) for name, file in networks.items()}
    return {
        name: metrics.score((saliency * 255).round().astype(np.uint8), mask, also=also)
        for name, saliency in maps.items()
    }


def over_seeds(runs: Sequence[Scores]) -> dict[str, list[float]]:
    """Mean and standard deviation of each score over the seeds."""
    columns = {name: [run[name] for run in runs] for name in runs[0]}
    return {
        name: [round(mean(values), 4), round(stdev(values), 4) if len(values) > 1 else 0.0]
        for name, values in columns.items()
    }
