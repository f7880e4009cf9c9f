"""The job: folders of saliency maps and of ground truths -> scores.

It never runs a network, so any method's maps can be scored. What is scored is kept (see
`hqsod.evaluate.score_cache`), so a run that was stopped goes on where it was.
"""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import cv2

from hqsod import metrics
from hqsod.errors import HqsodError, InputError
from hqsod.evaluate import score_cache
from hqsod.evaluate.plan import Matched, Task, ground_truth_folder, plan
from hqsod.evaluate.report import DatasetScores, Evaluation, MethodScores
from hqsod.evaluate.scoring import RESIZING, How, Outcome, record, score_files
from hqsod.progress import Bar, progress_bar

__all__ = ["evaluate", "ground_truth_folder"]

_PAIRS_PER_WORKER = 32  # for fewer, a process costs more to start than it saves
_KEEP_EVERY = 64  # pairs; what a kill can lose
_Scorer = Callable[[Iterable[Task]], Iterator[Outcome]]


def evaluate(
    predictions: Mapping[str, Path],
    ground_truths: Mapping[str, Path],
    settings: metrics.Settings,
    *,
    resize: bool = False,
    workers: int | None = None,
    kept: Path | None = None,
) -> Evaluation:
    """Score every method on every data set.

    Args:
        predictions: folder of maps by method name. With several data sets it holds one folder
            for each, named as the data set; with one it may hold the maps themselves.
        ground_truths: folder of ground truths by data set name.
        settings: protocol, thresholds, further measures.
        resize: bring a map of another size to its ground truth's (bilinear; nearest under the
            purnet protocol). Otherwise it is a problem of the result.
        workers: processes at most; one for each core where None.
        kept: file of scores kept between runs; the user's own where None.

    Returns:
        The scores of what could be scored, and the problems with the rest.

    Raises:
        InputError: a folder is missing or empty, or a method has not one map to score.
    """
    how = How(settings, resize, kept or score_cache.default_path())
    plans = plan(predictions, ground_truths)
    total = sum(len(matched.tasks) for p in plans.values() for matched in p.methods.values())
    found: dict[str, DatasetScores] = {}
    with progress_bar(total, "evaluate", "maps") as bar, _scorer(how, total, workers) as scorer:
        for name, planned in plans.items():
            methods = {
                method: _collect(method, matched, _keeping(scorer(matched.tasks), how, bar), how)
                for method, matched in planned.methods.items()
            }
            found[name] = DatasetScores(planned.ground_truths, planned.images, methods)
    return Evaluation(settings.protocol, _said(how), found)


def _said(how: How) -> dict[str, Any]:
    said: dict[str, Any] = dict(metrics.describe(how.settings))
    method = RESIZING[how.settings.protocol].name.lower()
    said["other sizes"] = f"resized to the ground truth's, {method}" if how.resize else "refused"
    return said


def _collect(method: str, matched: Matched, outcomes: Iterable[Outcome], how: How) -> MethodScores:
    """Gather one method's outcomes; of each picture only its scores stay."""
    average = metrics.Average(how.settings.protocol)
    per_image: dict[str, dict[str, float]] = {}
    problems = list(matched.problems)
    for outcome in outcomes:
        if outcome.result is not None:
            average.add(outcome.result)
            per_image[outcome.stem] = outcome.result.scores
        if outcome.problem is not None:
            problems.append(outcome.problem)
    if not per_image:
        last = problems[-1]
        raise InputError(
            f"{method}: not one map could be scored; {last.file}: {last.detail}",
            expected="maps as large as their ground truths",
            fix="check the folders, or pass --resize",
        )
    return MethodScores(
        mean=average.mean,
        f_from_mean_pr=average.f_from_mean_pr,
        per_image=per_image,
        curves=asdict(average.curves),
        maps={task.stem: task.prediction for task in matched.tasks},
        problems=tuple(problems),
    )


@contextmanager
def _scorer(how: How, total: int, workers: int | None) -> Iterator[_Scorer]:
    """A function from tasks to outcomes, in order: in this process, or in several."""
    score = partial(score_files, how=how)
    processes = min(workers or os.cpu_count() or 1, total // _PAIRS_PER_WORKER)
    if processes < 2:
        yield lambda tasks: map(score, tasks)
        return
    # Spawned, not forked: the parent may hold threads. One thread each: the pool fills the cores.
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, spawn, cv2.setNumThreads, (1,))
    try:
        yield lambda tasks: pool.map(score, tasks, chunksize=8)
    except BrokenProcessPool as error:
        raise HqsodError(
            "a worker process was killed, most likely for want of memory",
            fix="run again with fewer --workers; what was scored is kept",
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _keeping(outcomes: Iterable[Outcome], how: How, bar: Bar) -> Iterator[Outcome]:
    """Pass outcomes on, and keep new scores for the next run every now and then."""
    new: dict[str, dict[str, Any]] = {}
    try:
        for outcome in outcomes:
            if outcome.key and outcome.result is not None:
                new[outcome.key] = record(outcome.result)
            if len(new) >= _KEEP_EVERY:
                _keep(how.kept, new, bar)
            bar.advance()
            yield outcome
    finally:
        _keep(how.kept, new, bar)


def _keep(kept: Path, new: dict[str, dict[str, Any]], bar: Bar) -> None:
    """Move `new` into the file; scores that cannot be kept are still scores."""
    try:
        if new:
            score_cache.store(kept, new)
    except (sqlite3.Error, OSError) as error:
        bar.note(f"scores are not kept for the next run: {kept}: {error}")
    new.clear()
