"""Jobs that turn each image of a list into files: finding the list, and going through it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from glob import has_magic
from os.path import exists, expanduser, isdir, isfile, realpath  # realpath takes circles of links
from pathlib import Path
from typing import Generic, TypeVar

from hqsod.addresses import write_bytes
from hqsod.encoding import encode
from hqsod.errors import InputError, OutputError
from hqsod.images import Array, find_images, find_others
from hqsod.progress import note, progress_bar
from hqsod.runner import Steps, go_through

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How many images were made, how many were there already, which failed, what was remarked."""

    made: int
    kept: int
    failed: tuple[Path, ...]
    remarks: tuple[str, ...] = ()

    def __str__(self) -> str:
        said = f"{self.made} made, {self.kept} kept as they were, {len(self.failed)} failed"
        remarks = [f"{remark} in {count}" for remark, count in Counter(self.remarks).items()]
        if self.kept:  # nothing tells what made them
            remarks.append("what is kept may be of other weights or options; --overwrite renews it")
        return "; ".join([said, *remarks])


@dataclass(frozen=True, slots=True)
class Work(Generic[Item, Result]):
    """What is done with each image.

    Attributes:
        description: what it is called on the progress bar.
        read: from an image's path to what is worked on; runs ahead, in threads. Raises InputError.
        make: results for a batch, in order. May raise InputError, which fails the whole batch.
        draw: for each folder of results, the uint8 image in it, of what was read and what was
            made; runs behind, in threads.
        batch: how many are made at once.
        formats: for folders whose results are no PNG, the ending of `hqsod.encoding.FORMATS`.
        beside: files that are read with the images; no result may take their place either.
        remark: what the user should know of an image drawn for the first folder, such as that it
            is empty; None if nothing.
    """

    description: str
    read: Callable[[Path], Item]
    make: Callable[[Sequence[Item]], Sequence[Result]]
    draw: Mapping[Path, Callable[[Item, Result], Array]]
    batch: int = 1
    formats: Mapping[Path, str] = field(default_factory=dict)
    beside: Sequence[Path] = ()
    remark: Callable[[Array], str | None] = lambda _: None


def find_inputs(
    inputs: Sequence[str], *, recursive: bool = False, apart: Path | None = None
) -> dict[Path, str]:
    """Images behind files, folders and glob patterns, in that order, and their results' names.

    Args:
        inputs: paths and patterns.
        recursive: whether subfolders are searched too, except hidden ones and those behind
            links. The names then include the path from the folder given: `sub/STEM`.
        apart: a folder that is not searched, as the results go there.

    Raises:
        InputError: an input leads to no image, or two images have the same name.
        OutputError: a folder of images is where the results go, or `apart` is a file.
    """
    if apart and isfile(apart):  # noqa: PTH113 (Path's raises where a name is too long)
        raise OutputError(f"{apart} is a file, not a folder", fix="choose another for the results")
    found: dict[str, Path] = {}
    for text in inputs:
        for path, name in _behind(text, recursive, apart):
            other = found.setdefault(name, path)
            if realpath(other) != realpath(path):
                alike = other.parent == path.parent
                raise InputError(
                    f"{other} and {path} would both become {name}.png",
                    expected="images with different names",
                    fix="rename one" if alike else "run the command once for each folder",
                )
    return {path: name for name, path in found.items()}


def _behind(text: str, recursive: bool, apart: Path | None) -> list[tuple[Path, str]]:
    path = Path(expanduser(text))  # noqa: PTH111 (Path's raises where there is no such user)
    if isdir(path):  # noqa: PTH112 (Path's raises where a name is too long)
        if apart and realpath(path) == realpath(apart):
            raise OutputError(
                f"{apart} is where the images are", fix="choose another folder for the results"
            )
        folders = list(_folders(path, apart)) if recursive else [path]
        found = [(image, _name(image, path)) for f in folders for image in find_images(f)]
        if others := [other for folder in folders for other in find_others(folder)]:
            note(f"{path}: left out, not images: {len(others)}, such as {others[0].name}")
    elif exists(path) or not has_magic(text):  # noqa: PTH110 (as above)
        found = [(path, path.stem)]  # one that is missing is reported when its turn comes
    else:
        found = [(match, match.stem) for match in sorted(_matches(path, apart))]
    if not found:
        raise InputError(f"{text}: no images", expected="an image, a folder of images or a pattern")
    return found


def _folders(root: Path, apart: Path | None) -> Iterator[Path]:
    """A folder and those in it, sorted."""
    for folder, inner, _ in os.walk(root):
        inner[:] = sorted(
            name
            for name in inner
            if not name.startswith(".")
            and not (apart and realpath(Path(folder, name)) == realpath(apart))
        )
        yield Path(folder)


def _name(image: Path, root: Path) -> str:
    return str(image.relative_to(root).parent / image.stem)


def _matches(pattern: Path, apart: Path | None) -> Iterator[Path]:
    """What a pattern finds, except hidden files; `**` does not follow links, which may loop.

    What it finds in the folder of the results is left out, unless it names that folder.

    Raises:
        InputError: `**` beside other letters.
    """
    root, real = Path(pattern.anchor), cache(realpath)
    results = real(apart) if apart else None
    try:
        for match in root.glob(str(pattern.relative_to(root))):
            new = set(match.parts) - set(pattern.parts)
            hidden = any(part.startswith(".") for part in new)
            folders = set(match.parents) - set(pattern.parents)
            if not hidden and results not in map(real, folders):
                yield match
    except ValueError as error:
        raise InputError(
            f"{pattern}: {error}", expected="** between slashes, for folders in folders"
        ) from error


def make_each(
    images: Mapping[Path, str], work: Work[Item, Result], *, overwrite: bool = False
) -> Outcome:
    """Write `FOLDER/NAME.png` for every image and folder of results; formats change the ending.

    An image that fails is named and passed over; a file that is there is kept unless `overwrite`.
    Batches are cut from the whole list, done or not, so that a run that goes on after a kill
    multiplies the same matrices as a whole one.

    Raises:
        InputError: two images would have the same result.
        OutputError: a folder cannot be written to, or a result would replace one of the images or
            a folder.
    """
    results = {path: _results(name, work) for path, name in images.items()}
    _require_nothing_lost(results, work)
    missing = {
        path: {f: draw for f, draw in drawn.items() if overwrite or not exists(f)}  # noqa: PTH110 (as above)
        for path, drawn in results.items()
    }
    paths = list(images)
    batches = [paths[i : i + work.batch] for i in range(0, len(paths), work.batch)]
    todo = [batch for batch in batches if any(missing[path] for path in batch)]
    count = sum(bool(files) for files in missing.values())
    failed: list[Path] = []
    remarks: list[str] = []

    def write(path: Path, item: Item, result: Result) -> str | None:
        remark, first = None, next(iter(results[path]))
        for file, draw in missing[path].items():
            drawn = draw(item, result)
            write_bytes(file, encode(drawn, file.suffix[1:]))
            remark = work.remark(drawn) if file == first else remark
        return remark

    steps = Steps(work.read, work.make, write, lambda path: bool(missing[path]))
    with progress_bar(count, work.description) as bar:
        for path, outcome in go_through(todo, steps):
            if isinstance(outcome, InputError):
                failed.append(path)
                note(f"failed: {outcome}")
            elif outcome is not None:
                remarks.append(outcome)
                note(f"{path}: {outcome}")
            bar.advance()
    return Outcome(count - len(failed), len(images) - count, tuple(failed), tuple(remarks))


def _results(name: str, work: Work[Item, Result]) -> dict[Path, Callable[[Item, Result], Array]]:
    """What is written for an image of that name, and how it is drawn."""
    return {
        folder / f"{name}.{work.formats.get(folder, 'png')}": draw
        for folder, draw in work.draw.items()
    }


def _require_nothing_lost(results: Mapping[Path, Iterable[Path]], work: Work[Item, Result]) -> None:
    """Check that no result would replace a file that is read, a folder, or another result.

    Raises:
        InputError, OutputError: see `make_each`.
    """
    read = {realpath(path) for path in (*results, *work.beside)}
    taken: dict[Path, Path] = {}
    for path, files in results.items():
        for file in files:
            if realpath(file) in read:
                raise OutputError(
                    f"{file} is one of the images", fix="choose another folder for the results"
                )
            if isdir(file):  # noqa: PTH112 (as above)
                raise OutputError(f"{file} is a folder", fix="move it away")
            if (other := taken.setdefault(file, path)) != path:
                raise InputError(f"{other} and {path} would both become {file}", fix="rename one")
