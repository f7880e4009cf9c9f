"""The job: look a data set over before it is trained on or scored against."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from hqsod import images
from hqsod.dataset.layouts import Found
from hqsod.errors import InputError, printable
from hqsod.images import Array, Note, Read
from hqsod.progress import progress_bar
from hqsod.types import MASK_THRESHOLD, Pair

GREY = (26, 229)  # grey levels from 10 % to 90 %
GREY_SHARE = 0.05  # a mask with a larger share of these is a soft map, not a mask
THUMBNAIL = 16  # pixels a side
# Correlation of two thumbnails. Between DUTS-TR and DUTS-TE the one image that stands in both has
# 0.9999996, and the most alike of different ones 0.970.
ALIKE = 0.99
COMPARED = 1024  # thumbnails compared with all others at once


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
        notes: what is odd, and will be converted or passed over.
    """

    layout: str
    pairs: int
    problems: tuple[Problem, ...]
    notes: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class _Print:
    """What an image is recognised by: a digest of its pixels, and a thumbnail.

    The thumbnail is (256,) float32 of mean 0 and length 1: the product of two is their correlation.
    """

    file: Path
    digest: bytes
    thumbnail: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Look:
    problems: tuple[Problem, ...]
    notes: tuple[Problem, ...]
    print: _Print | None  # None where the image cannot be read


def check(found: Found, against: Found | None = None) -> Report:
    """Open every pair and say what is wrong.

    Args:
        found: the data set.
        against: another one, such as the test set of what is trained on `found`; images that stand
            in both are problems.
    """
    problems = [Problem("unpaired", str(file), "has no partner") for file in found.unpaired]
    problems += [
        Problem("ambiguous", str(file), "another file has the same stem")
        for file in found.ambiguous
    ]
    notes = [Problem("not read", str(file), "not an image by its name") for file in found.others]
    if not found.pairs:
        nothing = "no image with a mask of the same name"
        problems.append(Problem("no pairs", f"the {found.layout}", nothing))
    prints: list[_Print] = []
    with ThreadPoolExecutor() as pool, progress_bar(len(found.pairs), "checking") as bar:
        for look in pool.map(_look, found.pairs):
            problems += look.problems
            notes += look.notes
            if look.print is not None:
                prints.append(look.print)
            bar.advance()
    problems += _twins(prints)
    if against is not None:
        problems += _shared(prints, _prints(against))
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
    try:
        images.require_utf8(pair)
    except InputError as error:
        problems.append(_problem("name", pair.image, error))
    if image is not None and mask is not None:
        try:
            notes = images.match_pair(pair, image, mask).notes
        except InputError as error:
            problems.append(_problem("size", pair.mask, error))
    converted = (Problem("converted", str(note.file), note.text) for note in notes)
    print_ = None if image is None else _print(pair.image, image.pixels)
    return _Look(tuple(problems), tuple(converted), print_)


def _open(load: Callable[[Path], Read], path: Path, problems: list[Problem]) -> Read | None:
    try:
        return load(path)
    except InputError as error:
        kind = "truncated" if "truncated" in error.got else "unreadable"
        problems.append(_problem(kind, path, error))
        return None


def _problem(kind: str, path: Path, error: InputError) -> Problem:
    return Problem(kind, str(path), str(error).removeprefix(printable(f"{path}: ")))


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


def _print(file: Path, image: Array) -> _Print:
    digest = hashlib.sha256(f"{image.shape}".encode() + image.tobytes()).digest()
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    thumbnail = small.astype(np.float32).ravel()
    if small.min() == small.max():  # nothing to compare but the digest, which has as many bits
        thumbnail = np.unpackbits(np.frombuffer(digest, np.uint8)).astype(np.float32)
    thumbnail -= thumbnail.mean()
    return _Print(file, digest, thumbnail / np.linalg.norm(thumbnail))


def _prints(found: Found) -> list[_Print]:
    """Of the images of another data set; what cannot be read there is its own check's matter."""

    def read(pair: Pair) -> _Print | None:
        try:
            return _print(pair.image, images.read_image(pair.image))
        except InputError:
            return None

    with ThreadPoolExecutor() as pool, progress_bar(len(found.pairs), "comparing") as bar:
        prints = []
        for print_ in pool.map(read, found.pairs):
            bar.advance()
            if print_ is not None:
                prints.append(print_)
    return prints


def _twins(prints: Sequence[_Print]) -> list[Problem]:
    """Images of a data set that are the same as an earlier one, or nearly so."""
    problems: dict[int, Problem] = {}
    for later, earlier in _alike(prints, prints):
        if earlier < later and later not in problems:
            image, other = prints[later], prints[earlier]
            if image.digest == other.digest:
                kind, detail = "duplicate", f"the same image as {other.file.name}"
            else:
                kind, detail = "near-duplicate", f"looks like {other.file.name}"
            problems[later] = Problem(kind, str(image.file), detail)
    return list(problems.values())


def _shared(prints: Sequence[_Print], others: Sequence[_Print]) -> list[Problem]:
    """Images that stand in another data set too."""
    return [
        Problem("shared", str(prints[ours].file), f"stands in the other set, {others[theirs].file}")
        for ours, theirs in _alike(prints, others)
    ]


def _alike(first: Sequence[_Print], second: Sequence[_Print]) -> Iterator[tuple[int, int]]:
    """Positions of images that look alike, in order; memory stays bounded."""
    if not first or not second:
        return
    rows, columns = (np.stack([each.thumbnail for each in prints]) for prints in (first, second))
    for start in range(0, len(rows), COMPARED):
        alike = rows[start : start + COMPARED] @ columns.T > ALIKE
        for row, column in np.argwhere(alike):
            yield start + int(row), int(column)
