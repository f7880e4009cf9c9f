"""Jobs that turn each picture of a list into files: finding the list, and going through it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from glob import has_magic
from os.path import realpath  # unlike Path.resolve it takes links that lead in circles
from pathlib import Path
from typing import Generic, TypeVar

from hqsod.addresses import write_bytes
from hqsod.errors import InputError, OutputError
from hqsod.images import Array, encode, find_images, find_others
from hqsod.progress import note, progress_bar
from hqsod.runner import Steps, go_through

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How many pictures were made, how many were there already, which failed, what was remarked."""

    made: int
    kept: int
    failed: tuple[Path, ...]
    remarks: tuple[str, ...] = ()

    def __str__(self) -> str:
        said = f"{self.made} made, {self.kept} kept as they were, {len(self.failed)} failed"
        counts = Counter(self.remarks).items()
        return "; ".join([said, *(f"{remark} in {count}" for remark, count in counts)])


@dataclass(frozen=True, slots=True)
class Work(Generic[Item, Result]):
    """What is done with each picture.

    Attributes:
        description: what it is called on the progress bar.
        read: from a picture's path to what is worked on; runs ahead, in threads. Raises InputError.
        make: results for a batch, in order. May raise InputError, which fails the whole batch.
        draw: for each folder of results, the uint8 picture in it, of what was read and what was
            made; runs behind, in threads.
        batch: how many are made at once.
        formats: for folders whose results are no PNG, the ending of `hqsod.images.FORMATS`.
        beside: files that are read with the pictures; no result may take their place either.
        remark: what the user should know of a result, such as that it is empty; None if nothing.
    """

    description: str
    read: Callable[[Path], Item]
    make: Callable[[Sequence[Item]], Sequence[Result]]
    draw: Mapping[Path, Callable[[Item, Result], Array]]
    batch: int = 1
    formats: Mapping[Path, str] = field(default_factory=dict)
    beside: Sequence[Path] = ()
    remark: Callable[[Result], str | None] = lambda _: None


def find_pictures(inputs: Sequence[str]) -> list[Path]:
    """Pictures behind files, folders (not searched deeper) and glob patterns, in that order.

    Raises:
        InputError: an input leads to no picture, or two pictures have the same stem.
    """
    found: dict[str, Path] = {}
    for text in inputs:
        for path in _behind(text):
            other = found.setdefault(path.stem, path)
            if realpath(other) != realpath(path):
                alike = other.parent == path.parent
                raise InputError(
                    f"{other} and {path} would both become {path.stem}.png",
                    expected="images with different names",
                    fix="rename one" if alike else "run the command once for each folder",
                )
    return list(found.values())


def _behind(text: str) -> list[Path]:
    path = Path(text).expanduser()
    if path.is_dir():
        pictures = find_images(path)
        if others := find_others(path):
            note(f"{path}: left out as no images: {len(others)}, such as {others[0].name}")
    elif path.exists() or not has_magic(text):
        pictures = [path]  # a missing file is reported when its turn comes, with the others done
    else:
        pictures = sorted(_matches(path))
    if not pictures:
        raise InputError(
            f"{text}: no pictures", expected="a picture, a folder of pictures or a pattern"
        )
    return pictures


def _matches(pattern: Path) -> Iterator[Path]:
    """What a pattern finds, but hidden files; `**` follows no links, which may lead in circles.

    Raises:
        InputError: `**` beside other letters.
    """
    root = Path(pattern.anchor)
    try:
        for match in root.glob(str(pattern.relative_to(root))):
            new = set(match.parts) - set(pattern.parts)
            if not any(part.startswith(".") for part in new):
                yield match
    except ValueError as error:
        raise InputError(
            f"{pattern}: {error}", expected="** between slashes, for folders in folders"
        ) from error


def make_each(
    pictures: Sequence[Path], work: Work[Item, Result], *, overwrite: bool = False
) -> Outcome:
    """Write `FOLDER/STEM.png` for every picture and folder of results; formats change the ending.

    A picture that fails is named and passed over; a file that is there is kept unless `overwrite`.
    Batches are cut from the whole list, done or not, so that a run that goes on after a kill
    multiplies the same matrices as a whole one.

    Raises:
        OutputError: a folder cannot be written to, or a result would replace one of the pictures.
    """
    _require_pictures_kept(pictures, work)
    missing = {
        path: {f: draw for f, draw in _results(path, work).items() if overwrite or not f.exists()}
        for path in pictures
    }
    batches = [pictures[i : i + work.batch] for i in range(0, len(pictures), work.batch)]
    todo = [batch for batch in batches if any(missing[path] for path in batch)]
    count = sum(bool(files) for files in missing.values())
    failed: list[Path] = []
    remarks: list[str] = []

    def write(path: Path, item: Item, result: Result) -> str | None:
        for file, draw in missing[path].items():
            write_bytes(file, encode(draw(item, result), file.suffix[1:]))
        return work.remark(result)

    steps = Steps(work.read, work.make, write, lambda path: bool(missing[path]))
    with progress_bar(count, work.description) as bar:
        for path, outcome in go_through(todo, steps):
            if isinstance(outcome, InputError):
                failed.append(path)
                bar.note(f"failed: {outcome}")
            elif outcome is not None:
                remarks.append(outcome)
                bar.note(f"{path}: {outcome}")
            bar.advance()
    return Outcome(count - len(failed), len(pictures) - count, tuple(failed), tuple(remarks))


def _results(path: Path, work: Work[Item, Result]) -> dict[Path, Callable[[Item, Result], Array]]:
    """What is written for a picture, and how it is drawn."""
    return {
        folder / f"{path.stem}.{work.formats.get(folder, 'png')}": draw
        for folder, draw in work.draw.items()
    }


def _require_pictures_kept(pictures: Sequence[Path], work: Work[Item, Result]) -> None:
    """Check that no result has the name of a file that is read, which it would replace."""
    read = {realpath(path) for path in (*pictures, *work.beside)}
    for path in pictures:
        for result in _results(path, work):
            if realpath(result) in read:
                raise OutputError(
                    f"{result} is one of the pictures", fix="choose another folder for the results"
                )
