"""Training images, decoded and cut into superpixels once and kept at training size.

Decoding and SLIC cost far more than a training step of a small network, so a data set is brought to
training size once, into memory-mapped arrays in hqsod's cache folder. The making of a store can be
killed and goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from hqsod import machine, weights
from hqsod.dataset.holdout import hold_out
from hqsod.errors import InputError, OutputError
from hqsod.progress import console, note, progress_bar
from hqsod.training.examples import Example, TrainingSet, read_example, superpixels_path

_CHUNK = 64  # images between two flushes to disk
_PATIENCE = 1.0  # seconds before a wait is told: processes of one training meet for a moment
_WAITING, _READY, _REJECTED = range(3)
_FORMAT = 2  # raise it when what is stored changes


@dataclass(frozen=True)
class Store:
    """Images of a data set at training size.

    Attributes:
        stems: names of the images, in order.
        arrays: memory-mapped arrays of rows by name, as `Example` has them.
        rows: which row is whose, in the order of `stems`.
        rejected: why an image is not among them, by stem.
    """

    stems: tuple[str, ...]
    arrays: Mapping[str, NDArray[Any]]
    rows: NDArray[np.int64]
    rejected: Mapping[str, str]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Example:
        row = self.rows[index]
        return Example(**{name: array[row] for name, array in self.arrays.items()})

    @property
    def size(self) -> int:
        """Height and width of the images."""
        return int(self.arrays["image"].shape[1])

    def without_superpixels(self) -> Store:
        """The same images, for a loss that does not ask for superpixels."""
        return replace(self, arrays={n: a for n, a in self.arrays.items() if n != "superpixels"})

    def part(self, indices: Sequence[int]) -> Store:
        """The images at `indices` alone."""
        stems = tuple(self.stems[i] for i in indices)
        return replace(self, stems=stems, rows=self.rows[list(indices)])

    def split(self, share: float) -> tuple[Store, Store]:
        """All but about `share` of the images, and those; see `hold_out`."""
        held = hold_out(self.stems, share)
        rest = [i for i, stem in enumerate(self.stems) if stem not in held]
        return self.part(rest), self.part([i for i, s in enumerate(self.stems) if s in held])


def open_store(data: TrainingSet, size: int, superpixels: int | None = None) -> Store:
    """Bring a data set to training size, or find that it has been.

    Args:
        data: what to bring.
        size: height and width wanted.
        superpixels: how many SLIC is asked for; None to keep none.

    Raises:
        InputError: not one image could be read.
        OutputError: the cache folder cannot be written to, or there is no room.
    """
    folder = weights.cache_folder() / "training" / _key(data, size, superpixels)
    with _alone(folder):
        files = _open_files(folder, len(data.pairs), size, superpixels is not None)
        rejected = _fill(files, data, size, superpixels)
    rows = np.flatnonzero(files.states == _READY)
    if not len(rows):
        reason = next(iter(rejected.values()))
        raise InputError(f"{len(data.pairs)} pairs, none readable: {reason}")
    stems = tuple(data.pairs[int(row)].stem for row in rows)
    return Store(stems, files.arrays, rows, rejected)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder's lock: of trainings that begin at once, one makes the store.

    Raises:
        OutputError: the folder cannot be written to.
    """
    lock = FileLock(folder / ".lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=_PATIENCE)
        except Timeout:
            console.print("waiting for another training run that is preparing the same images")
            lock.acquire()
    except OSError as error:
        raise OutputError(
            f"{folder}: {error.strerror}", fix=f"set {weights.CACHE_VARIABLE} to another folder"
        ) from error
    try:
        yield
    finally:
        lock.release()


def _fill(files: _Files, data: TrainingSet, size: int, superpixels: int | None) -> dict[str, str]:
    """Make the rows that wait, and try those again that were left out; why they are, by stem."""
    rejected: dict[str, str] = {}

    def make(row: np.int64) -> Example | InputError:
        pair = data.pairs[int(row)]
        try:
            return read_example(pair, data.placements.get(pair.stem), size, superpixels)
        except InputError as error:
            return error

    waiting = np.flatnonzero(files.states != _READY)
    if not len(waiting):
        return rejected
    with (
        progress_bar(len(waiting), "bringing images to training size", "images") as bar,
        ThreadPoolExecutor(machine.threads()) as pool,
    ):
        for chunk in np.array_split(waiting, -(-len(waiting) // _CHUNK)):
            states = []
            for row, made in zip(chunk, pool.map(make, chunk), strict=True):
                states.append(files.put(row, made))
                if isinstance(made, InputError):
                    rejected[data.pairs[int(row)].stem] = str(made)
                    note(f"left out: {made}")
                bar.advance()
            files.mark(chunk, states)
    return rejected


class _Files(NamedTuple):
    """The memory-mapped arrays of a store, one row for each pair, and which rows are done."""

    arrays: Mapping[str, np.memmap]
    states: np.memmap

    def put(self, row: np.int64, made: Example | InputError) -> int:
        """Store what was made of a pair, and give its state."""
        if isinstance(made, InputError):
            return _REJECTED
        for name, array in self.arrays.items():
            array[row] = getattr(made, name)
        return _READY

    def mark(self, rows: NDArray[np.int64], states: Sequence[int]) -> None:
        """Mark rows as done, once what they hold is on disk."""
        for array in self.arrays.values():
            array.flush()
        self.states[rows] = states
        self.states.flush()


def _open_files(folder: Path, count: int, size: int, superpixels: bool) -> _Files:
    """Open the arrays of a store, or make them of zeros.

    Raises:
        OutputError: there is no room for what is to be made: writing to a mapped file on a full
            disk ends the process without a word.
    """
    kinds: dict[str, tuple[tuple[int, ...], type[np.generic]]] = {
        "image": ((size, size, 3), np.uint8),
        "mask": ((size, size), np.uint8),
    }
    if superpixels:
        kinds["superpixels"] = ((size, size), np.int16)
    states = _array(folder / "states.npy", (count,), np.uint8)
    row = sum(math.prod(shape) * np.dtype(kind).itemsize for shape, kind in kinds.values())
    needed = int(np.count_nonzero(states != _READY)) * row
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OutputError(
            f"{folder}: {free / 1e9:.1f} GB free",
            expected=f"{needed / 1e9:.1f} GB for images at training size",
            fix=f"free space, or set {weights.CACHE_VARIABLE} to another disk",
        )
    arrays = {
        name: _array(folder / f"{name}.npy", (count, *shape), kind)
        for name, (shape, kind) in kinds.items()
    }
    return _Files(arrays, states)


def _key(data: TrainingSet, size: int, superpixels: int | None) -> str:
    """A name that changes with anything the stored arrays depend on."""
    paths = [path for pair in data.pairs for path in (pair.image, pair.mask)]
    if superpixels is not None:
        published = (superpixels_path(pair) for pair in data.pairs)
        paths += [path for path in published if path.is_file()]
    files = [[str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns] for p in paths]
    placements = {stem: str(placement) for stem, placement in data.placements.items()}
    text = json.dumps([_FORMAT, size, superpixels or 0, files, placements], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _array(path: Path, shape: tuple[int, ...], dtype: type[np.generic]) -> np.memmap:
    """Open a memory-mapped array, made of zeros where there is none.

    Raises:
        OutputError: it is damaged.
    """
    if not path.is_file():
        temporary = path.with_suffix(".part")
        np.lib.format.open_memmap(temporary, "w+", dtype, shape).flush()
        temporary.replace(path)
    try:
        return np.lib.format.open_memmap(path, "r+")
    except ValueError as error:
        raise _damaged(path) from error


def _damaged(path: Path) -> OutputError:
    return OutputError(
        f"{path}: damaged", fix=f"delete the folder {path.parent}, which is then made again"
    )
