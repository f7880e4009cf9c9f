"""Scoring one pair of files: read, look whether it was scored before, else score."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from hqsod import decoding, images, metrics, pillow_modes
from hqsod.errors import InputError
from hqsod.evaluate import score_cache
from hqsod.evaluate.matching import ScoringTask
from hqsod.evaluate.report import Unscored
from hqsod.evaluate.report.results import UnscoredKind
from hqsod.images import Array

_READERS = (pillow_modes.__file__, decoding.__file__, images.__file__)  # what pixels a file has


@dataclass(frozen=True)
class ScoredPair:
    """Scores, or why there are none. `key` is set where the scores were not kept yet."""

    stem: str
    scores: metrics.ImageScores | None = None
    unscored: Unscored | None = None
    key: str = ""


class _RefusedError(Exception):
    """A file that cannot be scored as it is."""

    def __init__(self, kind: UnscoredKind, file: Path, reason: str) -> None:
        super().__init__(reason)
        self.unscored = Unscored(kind, file, reason)


def score_files(task: ScoringTask, settings: metrics.ScoreSettings, kept: Path) -> ScoredPair:
    """Score one pair; whatever is wrong with its files is a result, not an error.

    Args:
        task: the two files.
        settings: how they are scored.
        kept: file of scores kept from earlier runs.
    """
    try:
        return _score(task, settings, kept)
    except _RefusedError as refused:
        return ScoredPair(task.stem, unscored=refused.unscored)


def _score(task: ScoringTask, settings: metrics.ScoreSettings, kept: Path) -> ScoredPair:
    prediction_file, truth_file = _read(task.prediction), _read(task.ground_truth)
    key = _key(prediction_file, truth_file, settings)
    if known := score_cache.load(kept, key):
        return ScoredPair(task.stem, known)
    prediction = _decode(prediction_file, task.prediction)
    truth = _decode(truth_file, task.ground_truth)
    if prediction.shape != truth.shape and not settings.resize:
        sizes = [f"{width} x {height}" for height, width in (prediction.shape, truth.shape)]
        reason = f"{sizes[0]}, its ground truth {sizes[1]}"
        raise _RefusedError("size", task.prediction, reason)
    highest = int(truth.max())
    if settings.protocol == "standard" and 0 < highest <= settings.gt_threshold:
        reason = (
            f"its highest level is {highest}, so it has no foreground, which must be above "
            f"{settings.gt_threshold}; rescale it to 0 and 255, or lower --gt-threshold"
        )
        raise _RefusedError("levels", task.ground_truth, reason)
    return ScoredPair(task.stem, metrics.score_pair(prediction, truth, settings), key=key)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        reason = error.strerror or "cannot be read"
        raise _RefusedError("unreadable", path, reason) from error


def _decode(data: bytes, path: Path) -> Array:
    try:
        return images.read_map(_NamedBytes(data, str(path)))
    except InputError as error:
        reason = error.got.removeprefix(f"{path}: ")
        raise _RefusedError("unreadable", path, reason) from error


class _NamedBytes(io.BytesIO):
    """Bytes of a file that know its name, for `read_map`'s messages."""

    def __init__(self, data: bytes, name: str) -> None:
        super().__init__(data)
        self.name = name


def _key(prediction: bytes, truth: bytes, settings: metrics.ScoreSettings) -> str:
    parts = [hashlib.sha256(data).digest() for data in (prediction, truth)]
    return hashlib.sha256(b"".join([*parts, _fingerprint(settings)])).hexdigest()


@cache
def _fingerprint(settings: metrics.ScoreSettings) -> bytes:
    """Everything besides the two files that decides a score: the settings, and the code."""
    code = sorted(Path(metrics.__file__).parent.glob("*.py"))
    sources = [path.read_bytes() for path in (*code, *map(Path, _READERS))]
    digest = hashlib.sha256(b"".join(sources)).hexdigest()
    return json.dumps([asdict(settings), digest]).encode()
