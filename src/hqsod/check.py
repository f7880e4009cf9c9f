"""The job: look a data set over before it is trained on or scored against."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from hqsod import images
from hqsod.dataset.alike import Print, alike, take_print
from hqsod.dataset.known_faults import KnownFault
from hqsod.dataset.layouts import Found
from hqsod.errors import InputError, printable
from hqsod.images import Array, Note, Read
from hqsod.masks import MASK_THRESHOLD
from hqsod.metrics.regions import mask_iou
from hqsod.pairs import Pair, match_pair, require_utf8
from hqsod.progress import progress_bar

GREY = (26, 229)  # grey levels from 10 % to 90 %
GREY_SHARE = 0.05  # a mask with a larger share of these is a soft map, not a mask
# Masks of one image that overlap less show different things. Those that DUTS-TR has of one image
# overlap by 0.92 to 0.99, and once by 0.18.
SAME_MASK = 0.8


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
class _Look:
    problems: tuple[Problem, ...]
    notes: tuple[Problem, ...]
    print: Print | None  # None where the image cannot be read


def check(found: Found, against: Found | None = None, known: Sequence[KnownFault] = ()) -> Report:
    """Open every pair and say what is wrong.

    Args:
        found: the data set.
        against: another one, such as the test set of what is trained on `found`; images that stand
            in both are problems.
        known: faults that others found in it, which no program sees.
    """
    problems = [Problem("unpaired", str(file), "has no partner") for file in found.unpaired]
    problems += [
        Problem("ambiguous", str(file), "another file has the same stem")
        for file in found.ambiguous
    ]
    notes = [Problem("not read", str(file), "not named like an image") for file in found.others]
    if not found.pairs:
        nothing = "no image with a mask of the same name"
        problems.append(Problem("no pairs", f"the {found.layout}", nothing))
    prints: list[Print] = []
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
    told, strange = _known(found.pairs, known, problems)
    problems += told
    notes += strange
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
        require_utf8(pair)
    except InputError as error:
        problems.append(_problem("name", pair.image, error))
    if image is not None and mask is not None:
        try:
            notes = match_pair(pair, image, mask).notes
        except InputError as error:
            problems.append(_problem("size", pair.mask, error))
    converted = (Problem("converted", str(note.file), note.text) for note in notes)
    print_ = None if image is None else take_print(pair, image.pixels)
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


def _prints(found: Found) -> list[Print]:
    """The prints of all images of another data set, those without a mask too.

    Its own check reports what cannot be read.
    """
    alone = [Pair(file.stem, file, file) for file in (*found.unpaired, *found.ambiguous)]
    pairs = [*found.pairs, *alone]

    def read(pair: Pair) -> Print | None:
        try:
            return take_print(pair, images.read_image(pair.image))
        except InputError:
            return None

    with ThreadPoolExecutor() as pool, progress_bar(len(pairs), "comparing") as bar:
        prints = []
        for print_ in pool.map(read, pairs):
            bar.advance()
            if print_ is not None:
                prints.append(print_)
    return prints


def _twins(prints: Sequence[Print]) -> list[Problem]:
    """Images of a data set that are the same as an earlier one, or nearly so."""
    problems: dict[int, Problem] = {}
    for later, earlier in alike(prints, prints):
        if earlier < later and later not in problems:
            problems[later] = _twin(prints[later], prints[earlier])
    return list(problems.values())


def _twin(image: Print, earlier: Print) -> Problem:
    kind, detail = "near-duplicate", f"looks like {earlier.pair.image.name}"
    if image.digest == earlier.digest:
        kind, detail = "duplicate", f"the same image as {earlier.pair.image.name}"
    overlap = _overlap(image.pair.mask, earlier.pair.mask)
    if overlap is not None and overlap < SAME_MASK:
        kind, detail = "contradictory", f"{detail}, but their masks overlap by {overlap:.0%}"
    return Problem(kind, str(image.pair.image), detail)


def _overlap(mask: Path, other: Path) -> float | None:
    """Intersection over union; None where one cannot be read, which is told already."""
    try:
        first, second = (images.load_mask(path).pixels for path in (mask, other))
    except InputError:
        return None
    size = (first.shape[1], first.shape[0])
    resized = cv2.resize(second, size, interpolation=cv2.INTER_AREA)
    return mask_iou(first > MASK_THRESHOLD, resized > MASK_THRESHOLD)


def _shared(prints: Sequence[Print], others: Sequence[Print]) -> list[Problem]:
    """Images that stand in another data set too."""
    return [
        Problem(
            "shared",
            str(prints[ours].pair.image),
            f"also in the other set, as {others[theirs].pair.image}",
        )
        for ours, theirs in alike(prints, others)
    ]


def _known(
    pairs: Sequence[Pair], known: Sequence[KnownFault], problems: Sequence[Problem]
) -> tuple[list[Problem], list[Problem]]:
    """Faults that others found and we did not, and a note on those of pairs that are not here."""
    masks = {pair.stem: pair.mask for pair in pairs}
    seen = {(problem.kind, Path(problem.file).stem) for problem in problems}
    told = [
        Problem(fault.fault, str(masks[fault.stem]), f"known; found by {fault.found}")
        for fault in known
        if fault.stem in masks and (fault.fault, fault.stem) not in seen
    ]
    absent = len({fault.stem for fault in known}.difference(masks))
    note = Problem("known faults", f"{absent} of their pairs", "not in this data set")
    return told, [note] if absent else []
