"""The job: folders of saliency maps and of ground truths -> scores.

It never runs a network, so any method's maps can be scored. What is scored is kept (see
`hqsod.evaluate.score_cache`), so a run that was stopped goes on where it was.
"""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path

import cv2

from hqsod import metrics
from hqsod.errors import HqsodError, InputError
from hqsod.evaluate import score_cache
from hqsod.evaluate.matching import (
    MatchedMaps,
    ScoringTask,
    dataset_name,
    match_folders,
    passed_over,
)
from hqsod.evaluate.report import DatasetScores, Evaluation, MethodScores, load_published
from hqsod.evaluate.scoring import ScoredPair, score_files
from hqsod.machine import threads
from hqsod.progress import Bar, note, progress_bar

__all__ = ["dataset_name", "evaluate"]

_PAIRS_PER_WORKER = 32  # for fewer, a process costs more to start than it saves
_KEEP_EVERY = 64  # pairs; what a kill can lose
_Scorer = Callable[[Iterable[ScoringTask]], Iterator[ScoredPair]]


def evaluate(
    predictions: Mapping[str, Path],
    ground_truths: Mapping[str, Path],
    settings: metrics.ScoreSettings,
    *,
    images: Mapping[str, Path] | None = None,
    compare: str | None = None,
    workers: int | None = None,
    kept: Path | None = None,
) -> Evaluation:
    """Score every method on every data set.

    Args:
        predictions: folder of maps by method name. With several data sets it holds one folder
            for each, named as the data set; with one it may hold the maps themselves.
        ground_truths: folder of ground truths, or a data set's folder, by data set name.
        settings: protocol, thresholds, further measures, what is done about other sizes.
        images: folder of photographs by data set name, for the report; where a data set has
            none, they are looked for beside its ground truths.
        compare: name of a published table whose rows stand beside the scores.
        workers: processes at most; one for each core where None.
        kept: file of scores kept between runs; the user's own where None.

    Returns:
        The scores of what could be scored, and what could not.

    Raises:
        InputError: a folder is missing or empty, or a method has not one map to score.
        SettingsError: photographs of no data set, or a table that is not known or has no row.
    """
    published = load_published(compare, ground_truths) if compare else {}
    matched = match_folders(predictions, ground_truths, images or {})
    total = sum(len(maps.tasks) for data in matched.values() for maps in data.methods.values())
    kept = kept or score_cache.default_path()
    score = partial(score_files, settings=settings, kept=kept)
    found: dict[str, DatasetScores] = {}
    with progress_bar(total, "evaluate", "maps") as bar, _scorer(score, total, workers) as scorer:
        for line in passed_over(matched):
            note(line)
        keeper = _Keeper(kept, bar)
        for name, data in matched.items():
            methods = {
                method: _collect(method, maps, keeper.passed(scorer(maps.tasks)), settings)
                for method, maps in data.methods.items()
            }
            found[name] = DatasetScores(data.ground_truths, data.images, methods)
    return Evaluation(settings.protocol, settings.in_words(), found, published)


def _collect(
    method: str, maps: MatchedMaps, pairs: Iterable[ScoredPair], settings: metrics.ScoreSettings
) -> MethodScores:
    """Gather one method's results; of each image only its scores stay."""
    average = metrics.Average(settings.protocol)
    per_image: dict[str, dict[str, float]] = {}
    unscored = list(maps.unscored)
    for pair in pairs:
        if pair.scores is not None:
            average.add(pair.scores)
            per_image[pair.stem] = pair.scores.scores
        if pair.unscored is not None:
            unscored.append(pair.unscored)
    if not per_image:
        raise InputError(
            f"{method}: not one map could be scored; {unscored[-1].file}: {unscored[-1].reason}",
            fix="check the two folders",
        )
    return MethodScores(
        mean=average.mean,
        per_image=per_image,
        curves=asdict(average.curves),
        maps={task.stem: task.prediction for task in maps.tasks},
        unscored=tuple(unscored),
    )


@contextmanager
def _scorer(
    score: Callable[[ScoringTask], ScoredPair], total: int, workers: int | None
) -> Iterator[_Scorer]:
    """A function from tasks to scored pairs, in order: in this process, or in several."""
    processes = min(workers or threads(), total // _PAIRS_PER_WORKER)
    if processes < 2:
        yield lambda tasks: map(score, tasks)
        return
    # Spawned, not forked: the parent may hold threads.
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, spawn, _begin_worker)
    try:
        yield lambda tasks: pool.map(score, tasks, chunksize=8)
    except BrokenProcessPool as error:
        raise HqsodError(
            "a worker process was killed, most likely for want of memory",
            fix="run again with fewer --workers; what was scored is kept",
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _begin_worker() -> None:
    cv2.setNumThreads(1)  # the pool fills the cores
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this worker once the process that started it is gone, even if it was killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


class _Keeper:
    """Keeps new scores for the next run, some at a time; says once where that fails."""

    def __init__(self, kept: Path, bar: Bar) -> None:
        self._kept, self._bar = kept, bar
        self._new: dict[str, metrics.ImageScores] = {}
        self._failed = False

    def passed(self, pairs: Iterable[ScoredPair]) -> Iterator[ScoredPair]:
        """The same pairs, in order, each counted, its scores kept."""
        try:
            for pair in pairs:
                if pair.key and pair.scores is not None:
                    self._new[pair.key] = pair.scores
                if len(self._new) >= _KEEP_EVERY:
                    self._store()
                self._bar.advance()
                yield pair
        finally:
            self._store()

    def _store(self) -> None:
        try:
            if self._new:
                score_cache.store(self._kept, self._new)
        except (sqlite3.Error, OSError) as error:  # scores that cannot be kept are still scores
            if not self._failed:
                note(f"scores are not kept for the next run: {self._kept}: {error}")
            self._failed = True
        self._new.clear()
