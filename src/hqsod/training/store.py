"""Training pictures, decoded and cut into superpixels once and kept at training size.

Decoding and SLIC cost far more than a training step of a small network, so a data set is brought to
training size once, into memory-mapped arrays in hqsod's cache folder. The making of a store can be
killed and goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from PIL import Image

from hqsod import images, weights
from hqsod.addresses import write_bytes
from hqsod.dataset.layouts import find_pairs
from hqsod.dataset.manifest import NAME as MANIFEST
from hqsod.dataset.manifest import Manifest
from hqsod.errors import InputError, OutputError
from hqsod.images import Array
from hqsod.progress import console, progress_bar
from hqsod.training.superpixels import Labels, read_superpixels, slic_superpixels
from hqsod.types import Pair, Placement

_CHUNK = 64  # pictures between two flushes to disk
_PATIENCE = 1.0  # seconds before a wait is told: processes of one training meet for a moment
_WAITING, _READY, _REJECTED = range(3)
_FORMAT = 1  # raise it when what is stored changes


class Example(NamedTuple):
    """A picture at training size.

    Attributes:
        image: (S, S, 3) uint8 RGB.
        mask: (S, S) uint8.
        superpixels: (S, S) int16 labels from 0.
    """

    image: Array
    mask: Array
    superpixels: Labels


class Source(NamedTuple):
    """A data set that is trained on or validated with.

    Attributes:
        pairs: its pictures and masks, sorted by stem.
        placements: where pictures lie on a black canvas, by stem; the rest is cropped away.
    """

    pairs: Sequence[Pair]
    placements: Mapping[str, Placement]


@dataclass(frozen=True)
class Store:
    """Pictures of a data set at training size.

    Attributes:
        stems: names of the pictures, in order.
        image: (N, S, S, 3) uint8 RGB, memory-mapped.
        mask: (N, S, S) uint8, memory-mapped.
        superpixels: (N, S, S) int16, memory-mapped.
        rejected: why a picture is not among them, by stem.
    """

    stems: tuple[str, ...]
    image: Array
    mask: Array
    superpixels: Labels
    rows: NDArray[np.int64]
    rejected: Mapping[str, str]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Example:
        row = self.rows[index]
        return Example(self.image[row], self.mask[row], self.superpixels[row])

    def part(self, indices: Sequence[int]) -> Store:
        """The pictures at `indices` alone."""
        stems = tuple(self.stems[i] for i in indices)
        rows = self.rows[list(indices)]
        return Store(stems, self.image, self.mask, self.superpixels, rows, self.rejected)

    def split(self, share: float) -> tuple[Store, Store]:
        """All but about `share` of the pictures, and those; names alone decide."""
        held = [draw(stem) < share for stem in self.stems]
        rest = [i for i, out in enumerate(held) if not out]
        return self.part(rest), self.part([i for i, out in enumerate(held) if out])


def draw(stem: str) -> float:
    """A number in [0, 1) that depends on the name alone."""
    return int.from_bytes(hashlib.sha256(stem.encode()).digest()[:4]) / 2**32


def find_source(folder: Path, image_folder: str | None, mask_folder: str | None) -> Source:
    """The pairs of a data set, and where their pictures lie if hqsod has built it.

    Args:
        folder: the data set.
        image_folder: see `find_pairs`; `images` where only masks are named, as in DUTS-HQ.
        mask_folder: see `find_pairs`; `masks` or `hq-masks` for DUTS-HQ.

    Raises:
        InputError: see `find_pairs`.
    """
    if mask_folder is not None and image_folder is None and (folder / "images").is_dir():
        image_folder = "images"
    pairs = find_pairs(folder, image_folder, mask_folder)
    if not (folder / MANIFEST).is_file():
        return Source(pairs, {})
    with Manifest.open(folder) as manifest:
        latest = manifest.latest()
    placements = {stem: r.placement for stem, r in latest.items() if r.placement is not None}
    return Source(pairs, placements)


def open_store(source: Source, size: int, superpixels: int) -> Store:
    """Bring a data set to training size, or find that it has been.

    Args:
        source: what to bring.
        size: height and width wanted.
        superpixels: how many SLIC is asked for.

    Raises:
        InputError: not one picture could be read.
        OutputError: the cache folder cannot be written to, or there is no room.
    """
    folder = weights.cache_folder() / "training" / _key(source, size, superpixels)
    with _alone(folder):
        files = _open_files(folder, len(source.pairs), size)
        rejected = _fill(files, folder / "rejected.json", source, size, superpixels)
    rows = np.flatnonzero(files.states == _READY)
    if not len(rows):
        reason = next(iter(rejected.values()))
        raise InputError(f"{len(source.pairs)} pairs, none readable: {reason}")
    stems = tuple(source.pairs[int(row)].stem for row in rows)
    return Store(stems, files.image, files.mask, files.superpixels, rows, rejected)


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
            console.print("waiting for another training that makes the same pictures")
            lock.acquire()
    except OSError as error:
        raise OutputError(
            f"{folder}: {error.strerror}", fix=f"set {weights.CACHE_VARIABLE} to another folder"
        ) from error
    try:
        yield
    finally:
        lock.release()


def _fill(
    files: _Files, reasons: Path, source: Source, size: int, superpixels: int
) -> dict[str, str]:
    """Make the rows that wait; why pictures were left out, now or before, by stem."""
    rejected: dict[str, str] = json.loads(reasons.read_text("utf-8")) if reasons.is_file() else {}

    def make(row: np.int64) -> Example | InputError:
        pair = source.pairs[int(row)]
        try:
            return read_example(pair, source.placements.get(pair.stem), size, superpixels)
        except InputError as error:
            return error

    waiting = np.flatnonzero(files.states == _WAITING)
    if not len(waiting):
        return rejected
    with (
        progress_bar(len(waiting), "bringing pictures to training size") as bar,
        ThreadPoolExecutor(os.cpu_count()) as pool,
    ):
        for chunk in np.array_split(waiting, -(-len(waiting) // _CHUNK)):
            states = []
            for row, made in zip(chunk, pool.map(make, chunk), strict=True):
                states.append(files.put(row, made))
                if isinstance(made, InputError):
                    rejected[source.pairs[int(row)].stem] = str(made)
                    bar.note(f"left out: {made}")
                bar.advance()
            write_bytes(reasons, json.dumps(rejected, indent=1).encode())
            files.mark(chunk, states)
    return rejected


class _Files(NamedTuple):
    """The memory-mapped arrays of a store, one row for each pair, and which rows are done."""

    image: np.memmap
    mask: np.memmap
    superpixels: np.memmap
    states: np.memmap

    def put(self, row: np.int64, made: Example | InputError) -> int:
        """Store what was made of a pair, and give its state."""
        if isinstance(made, InputError):
            return _REJECTED
        self.image[row], self.mask[row], self.superpixels[row] = made
        return _READY

    def mark(self, rows: NDArray[np.int64], states: Sequence[int]) -> None:
        """Mark rows as done, once what they hold is on disk."""
        for array in (self.image, self.mask, self.superpixels):
            array.flush()
        self.states[rows] = states
        self.states.flush()


def _open_files(folder: Path, count: int, size: int) -> _Files:
    """Open the arrays of a store, or make them of zeros.

    Raises:
        OutputError: there is no room for what is to be made: writing to a mapped file on a full
            disk ends the process without a word.
    """
    shapes: dict[str, tuple[tuple[int, ...], type]] = {
        "image": ((count, size, size, 3), np.uint8),
        "mask": ((count, size, size), np.uint8),
        "superpixels": ((count, size, size), np.int16),
        "states": ((count,), np.uint8),
    }
    states = _array(folder / "states.npy", *shapes["states"])
    needed = int(np.count_nonzero(states == _WAITING)) * size * size * 6
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OutputError(
            f"{folder}: {free / 1e9:.1f} GB free",
            expected=f"{needed / 1e9:.1f} GB for pictures at training size",
            fix=f"free space, or set {weights.CACHE_VARIABLE} to another disk",
        )
    return _Files(*(_array(folder / f"{n}.npy", *shape) for n, shape in shapes.items()))


def _key(source: Source, size: int, superpixels: int) -> str:
    """A name that changes with anything the stored arrays depend on."""
    files = [
        [str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns]
        for pair in source.pairs
        for path in (pair.image, pair.mask)
    ]
    placements = {stem: str(placement) for stem, placement in source.placements.items()}
    text = json.dumps([_FORMAT, size, superpixels, files, placements], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _array(path: Path, shape: tuple[int, ...], dtype: type) -> np.memmap:
    """Open a memory-mapped array, made of zeros where there is none."""
    if not path.is_file():
        temporary = path.with_suffix(".part")
        np.lib.format.open_memmap(temporary, "w+", dtype, shape).flush()
        temporary.replace(path)
    return np.lib.format.open_memmap(path, "r+")


def read_example(pair: Pair, placement: Placement | None, size: int, superpixels: int) -> Example:
    """Read a pair and bring it to size x size, whatever its proportions, as PurNet does.

    Args:
        pair: what to read; superpixels are read from `image_sp` beside the pictures' folder, as in
            PurNet's data, or made.
        placement: where the picture lies on its canvas, if it has one.
        size: height and width wanted.
        superpixels: how many SLIC is asked for.

    Raises:
        InputError: a file that cannot be read, or sizes that differ.
    """
    image, mask, _ = images.read_pair(pair)
    published = pair.image.parent.parent / "image_sp" / f"{pair.stem}.mat"
    labels = read_superpixels(published) if published.is_file() else None
    if labels is not None and labels.shape != mask.shape:
        raise InputError(
            f"{published}: {labels.shape}", expected=f"{mask.shape} as {pair.image.name}"
        )
    if placement is not None:
        image, mask = images.unpad(image, placement), images.unpad(mask, placement)
        labels = None if labels is None else labels[placement.window]
    small = images.resize(image, (size, size), Image.Resampling.BILINEAR)
    small_mask = images.resize(mask, (size, size), Image.Resampling.BILINEAR)
    if labels is None:
        return Example(small, small_mask, slic_superpixels(small, superpixels))
    resized = cv2.resize(labels, (size, size), interpolation=cv2.INTER_NEAREST)
    return Example(small, small_mask, np.asarray(resized, np.int16))
