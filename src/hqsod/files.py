"""Jobs that turn each picture of a list into one file: finding the list, and going through it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path

from hqsod.errors import InputError
from hqsod.images import Array, find_images, write_png
from hqsod.progress import progress_bar


@dataclass(frozen=True, slots=True)
class Outcome:
    """How many pictures were made, how many were there already, and which failed."""

    made: int
    kept: int
    failed: tuple[Path, ...]

    def __str__(self) -> str:
        return f"{self.made} made, {self.kept} kept as they were, {len(self.failed)} failed"


def find_pictures(inputs: Sequence[str]) -> list[Path]:
    """Pictures behind files, folders (not searched deeper) and glob patterns, in that order.

    Raises:
        InputError: an input leads to no picture, or two pictures have the same stem.
    """
    found: dict[str, Path] = {}
    for text in inputs:
        for path in _behind(text):
            other = found.setdefault(path.stem, path)
            if other.resolve() != path.resolve():
                raise InputError(
                    f"{other} and {path} would both become {path.stem}.png",
                    "pictures with different names",
                    "run the command once for each folder",
                )
    return list(found.values())


def _behind(text: str) -> list[Path]:
    path = Path(text).expanduser()
    if path.is_dir():
        pictures = find_images(path)
    elif path.exists() or not has_magic(text):
        pictures = [path]  # a missing file is reported when its turn comes, with the others done
    else:
        pictures = sorted(Path(match) for match in glob(str(path), recursive=True))  # noqa: PTH207 (absolute patterns)
    if not pictures:
        raise InputError(f"{text}: no pictures", "a picture, a folder of pictures or a pattern")
    return pictures


def make_each(
    pictures: Sequence[Path],
    folder: Path,
    make: Callable[[Path], Array],
    description: str,
    *,
    overwrite: bool = False,
) -> Outcome:
    """Write `folder/STEM.png` for every picture; one that fails is named and passed over.

    Args:
        pictures: what to go through.
        folder: where results go; what is there already is kept unless `overwrite`.
        make: from a picture's path to the result, uint8.
        description: what is being done, for the progress bar.

    Raises:
        OutputError: the folder cannot be written to.
    """
    todo = [path for path in pictures if overwrite or not (folder / f"{path.stem}.png").exists()]
    failed = []
    with progress_bar(len(todo), description) as bar:
        for path in todo:
            try:
                result = make(path)
            except InputError as error:
                failed.append(path)
                bar.note(f"failed: {error}")
            else:
                write_png(folder / f"{path.stem}.png", result)
            bar.advance()
    return Outcome(len(todo) - len(failed), len(pictures) - len(todo), tuple(failed))
