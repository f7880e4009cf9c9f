"""The job: look a data set over before it is trained on or scored against."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hqsod import images
from hqsod.dataset.layouts import Found
from hqsod.errors import InputError
from hqsod.images import Array, Note, Read
from hqsod.progress import progress_bar
from hqsod.types import MASK_THRESHOLD, Pair

GREY = (26, 229)  # grey levels from 10 % to 90 %
GREY_SHARE = 0.05  # a mask with a larger share of these is a soft map, not a mask


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with a file: a kind to count by, the file, and a sentence."""

    kind: str
    file: str
    detail: str


@dataclass(frozen=True, slots=True)
class Report:
    """What `check` found.

    Attributes:
        layout: the data set's layout, in words.
        pairs: pairs looked at.
        problems: what is wrong, by kind and file.
        notes: what is odd, and will be converted.
    """

    layout: str
    pairs: int
    problems: tuple[Problem, ...]
    notes: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class _Look:
    problems: tuple[Problem, ...]
    notes: tuple[Problem, ...]
    digest: str  # of the decoded picture; empty where it could not be


def check(found: Found) -> Report:
    """Open every pair and say what is wrong: one pass, memory that does not grow."""
    problems = [Problem("unpaired", str(file), "has no partner") for file in found.unpaired]
    problems += [
        Problem("ambiguous", str(file), "another file has the same stem")
        for file in found.ambiguous
    ]
    if not found.pairs:
        nothing = "no picture with a mask of the same name"
        problems.append(Problem("no pairs", f"the {found.layout}", nothing))
    notes: list[Problem] = []
    first_with: dict[str, Pair] = {}
    with ThreadPoolExecutor() as pool, progress_bar(len(found.pairs), "checking") as bar:
        for pair, look in zip(found.pairs, pool.map(_look, found.pairs), strict=True):
            problems += look.problems
            notes += look.notes
            if look.digest and (twin := first_with.setdefault(look.digest, pair)) is not pair:
                detail = f"the same picture as {twin.image.name}"
                problems.append(Problem("duplicate", str(pair.image), detail))
            bar.advance()
    return Report(found.layout, len(found.pairs), _sorted(problems), _sorted(notes))


def _sorted(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    return tuple(sorted(problems, key=lambda problem: (problem.kind, problem.file)))


def _look(pair: Pair) -> _Look:
    problems: list[Problem] = []
    notes: Sequence[Note] = ()
    image = _open(images.load_image, pair.image, problems)
    mask = _open(images.load_mask, pair.mask, problems)
    if mask is not None:
        problems += _judge_mask(pair.mask, mask.pixels)
    if image is not None and mask is not None:
        try:
            notes = images.match_pair(pair, image, mask).notes
        except InputError as error:
            problems.append(_problem("size", pair.mask, error))
    digest = "" if image is None else hashlib.sha256(image.pixels.tobytes()).hexdigest()
    converted = (Problem("converted", str(note.file), note.text) for note in notes)
    return _Look(tuple(problems), tuple(converted), digest)


def _problem(kind: str, path: Path, error: InputError) -> Problem:
    return Problem(kind, str(path), str(error).removeprefix(f"{path}: "))


def _open(load: Callable[[Path], Read], path: Path, problems: list[Problem]) -> Read | None:
    try:
        return load(path)
    except InputError as error:
        kind = "truncated" if "truncated" in error.got else "unreadable"
        problems.append(_problem(kind, path, error))
        return None


def _judge_mask(path: Path, mask: Array) -> list[Problem]:
    share = float(np.mean(mask > MASK_THRESHOLD))
    grey = float(np.mean((mask >= GREY[0]) & (mask <= GREY[1])))
    problems = []
    if share == 0:
        problems.append(Problem("empty", str(path), f"no pixel above {MASK_THRESHOLD}"))
    if share == 1:
        problems.append(Problem("full", str(path), f"every pixel above {MASK_THRESHOLD}"))
    if grey > GREY_SHARE:
        detail = f"{grey:.1%} of the pixels are neither object nor background"
        problems.append(Problem("grey", str(path), detail))
    return problems
