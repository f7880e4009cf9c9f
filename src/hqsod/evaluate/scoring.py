"""Scoring one pair of files: read, look whether it was scored before, else score."""

from __future__ import annotations

import hashlib
import io
import json
import sqlite3
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hqsod import metrics
from hqsod.errors import InputError
from hqsod.evaluate import score_cache
from hqsod.evaluate.plan import Task
from hqsod.evaluate.report import Problem
from hqsod.images import Array, read_map, resize

RESIZING = {"standard": Image.Resampling.BILINEAR, "purnet": Image.Resampling.NEAREST}


@dataclass(frozen=True)
class How:
    """How every pair of a run is scored.

    Attributes:
        settings: protocol, thresholds, further measures.
        resize: bring a map of another size to its ground truth's, instead of refusing it.
        kept: file of scores kept from earlier runs.
    """

    settings: metrics.Settings
    resize: bool
    kept: Path


@dataclass(frozen=True)
class Outcome:
    """Scores, or the problem that there is instead. `key` is set where scores were not kept yet."""

    stem: str
    result: metrics.ImageScores | None = None
    problem: Problem | None = None
    key: str = ""


def score_files(task: Task, how: How) -> Outcome:
    """Score one pair; whatever is wrong with its files is a problem, not an error."""
    files = []
    for path in (task.prediction, task.ground_truth):
        try:
            files.append(path.read_bytes())
        except OSError as error:
            return _unreadable(task, path, error.strerror or "cannot be read")
    key = _key(files, how)
    if result := _load(how.kept, key):
        return Outcome(task.stem, result)
    arrays = []
    for path, data in zip((task.prediction, task.ground_truth), files, strict=True):
        try:
            arrays.append(_decode(data, path))
        except InputError as error:
            return _unreadable(task, path, error.got.removeprefix(f"{path}: "))
    prediction, truth = arrays
    if prediction.shape != truth.shape:
        if not how.resize:
            sizes = [f"{width} x {height}" for height, width in (prediction.shape, truth.shape)]
            detail = f"{sizes[0]}, its ground truth {sizes[1]}"
            return Outcome(task.stem, problem=Problem("size", task.prediction, detail))
        height, width = truth.shape
        prediction = resize(prediction, (height, width), RESIZING[how.settings.protocol])
    return Outcome(task.stem, metrics.score_pair(prediction, truth, how.settings), key=key)


def record(result: metrics.ImageScores) -> dict[str, Any]:
    """Scores as plain values, to be kept; `_load` is the way back."""
    tally = {
        name: value.tolist() if isinstance(value, np.ndarray) else value
        for name, value in asdict(result.tally).items()
    }
    return {"scores": result.scores, "tally": tally}


def _load(kept: Path, key: str) -> metrics.ImageScores | None:
    try:
        known = score_cache.load(kept, key)
    except sqlite3.Error:
        return None  # a damaged file; keeping new scores in it fails too, and says so
    if known is None:
        return None
    counts: Mapping[str, Any] = known["tally"]
    hits, alarms = (np.array(counts[name], np.int64) for name in ("hits", "alarms"))
    tally = metrics.Tally(hits, alarms, counts["area"], counts["pixels"])
    return metrics.ImageScores(known["scores"], tally)


def _key(files: list[bytes], how: How) -> str:
    parts = [hashlib.sha256(data).digest() for data in files]
    return hashlib.sha256(b"".join([*parts, _fingerprint(how.settings, how.resize)])).hexdigest()


@cache
def _fingerprint(settings: metrics.Settings, resized: bool) -> bytes:
    """Everything besides the two files that decides a score."""
    return json.dumps([asdict(settings), resized, metrics.fingerprint()]).encode()


class _Named(io.BytesIO):
    """Bytes of a file that know its name, for `read_map`'s messages."""

    def __init__(self, data: bytes, name: str) -> None:
        super().__init__(data)
        self.name = name


def _decode(data: bytes, path: Path) -> Array:
    return read_map(_Named(data, str(path)))


def _unreadable(task: Task, path: Path, reason: str) -> Outcome:
    return Outcome(task.stem, problem=Problem("unreadable", path, reason))
