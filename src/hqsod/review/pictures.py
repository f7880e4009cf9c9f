"""Thumbnails and tiles: made once, kept in the user's cache, which is of bounded size.

They are not kept in the data set: it may come from a stranger, with a cache that shows other
pictures than its files, or with a link where files are removed.

A picture is cut into tiles of 512 pixels at full size, at half, a quarter and so on, so that the
page draws only what it shows. Tiles are PNG: at full size each pixel is the file's own.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np

from hqsod import __version__, encoding
from hqsod.dataset.manifest import NAME as MANIFEST
from hqsod.dataset.refining_changes import most_changed
from hqsod.errors import InputError
from hqsod.images import Array
from hqsod.masks import MASK_THRESHOLD

TILE = 512  # pixels a side
THUMBNAIL = 288  # pixels of a thumbnail's long side
CLOSE, GAP = 50, 3  # pixels of a close-up's parts and between them; the page doubles them
FOLDER = "review"  # in the user's cache
CACHE_BYTES = 2_000_000_000  # about 600 pairs of 1600 x 1600
# A stamp or several, and for a tile its level, row and column; before it has its name, the writer.
_CACHED = re.compile(r"\.?[0-9a-f]{16}[0-9a-f-]*\.(jpg|png)(\.\d+-\d+)?")
KEPT_SHARE = 0.8  # of the limit, after the oldest files have gone
DIMMED = 0.35  # brightness of a thumbnail's background
# What the other version does not have, and what only it has; the page uses the same colours.
ADDED, REMOVED = (226, 61, 128), (0, 158, 200)


class MissingError(InputError):
    """There is no such pair, version or tile, or no longer."""


class Cache:
    """Files made on demand in `folder`, the longest unused removed beyond `limit` bytes.

    Where the folder cannot be written to, they are made anew each time.
    """

    def __init__(self, folder: Path, limit: int = CACHE_BYTES) -> None:
        self._folder, self._limit = folder, limit
        self._size: int | None = None
        self._sizing = threading.Lock()
        # One for each core: decoding takes a core and memory. What is made together shares one.
        self._making = [threading.Lock() for _ in range(os.cpu_count() or 1)]

    def get(self, group: str, name: str, make: Callable[[], dict[str, bytes]]) -> bytes:
        """The file `name`; where it is missing, `make` returns all files of its group.

        Raises:
            MissingError: `make` made no such file.
        """
        path = self._folder / name
        if (known := _read(path)) is not None:
            return known
        with self._making[hash(group) % len(self._making)]:
            if (known := _read(path)) is not None:  # made while this one waited
                return known
            made = make()
            if name not in made:
                raise MissingError(f"{name}: no such tile")
            with suppress(OSError):  # what cannot be kept is shown all the same
                for other, data in made.items():
                    _write(self._folder / other, data)
        with suppress(OSError):
            self._account(sum(map(len, made.values())))
        return made[name]

    def _account(self, added: int) -> None:
        with self._sizing:
            if self._size is None:
                self._size = sum(size for _, size, _ in self._files())
            else:
                self._size += added
            if self._size > self._limit:
                self._size = self._shrink()

    def _files(self) -> list[tuple[float, int, Path]]:
        """Time of last use, size and path of every file that the cache has made."""
        found = []
        for path in self._folder.iterdir():
            if not _CACHED.fullmatch(path.name) or path.is_dir():
                continue
            with suppress(FileNotFoundError):  # another thread or review has renamed or removed it
                status = path.lstat()
                found.append((status.st_mtime, status.st_size, path))
        return found

    def _shrink(self) -> int:
        files = sorted(self._files())
        size = sum(length for _, length, _ in files)
        for _, length, path in files:
            if size <= KEPT_SHARE * self._limit:
                break
            path.unlink(missing_ok=True)
            size -= length
        return size


def _read(path: Path) -> bytes | None:
    try:
        data = path.read_bytes()
    except OSError:  # missing, or in a folder that is somebody else's
        return None
    with suppress(OSError):
        os.utime(path)
    return data


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all; what a power cut loses is made again, so the disk is not waited for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")
    temporary.write_bytes(data)
    temporary.replace(path)


def require(path: Path) -> None:
    """Check that a file which the manifest names is there.

    Raises:
        MissingError: it is not.
    """
    if not path.is_file():
        raise MissingError(
            f"{path}: no such file", expected=f"what {MANIFEST} names", fix="build it again"
        )


def stamp(path: Path) -> str:
    """Sixteen letters that change when the file does, or what is made of it."""
    status = path.stat()
    told = f"{__version__}:{path.absolute()}:{status.st_size}:{status.st_mtime_ns}"
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def cut(array: Array, prefix: str) -> dict[str, bytes]:
    """All tiles of a picture, each level half the size of the one before.

    Args:
        array: (H, W) or (H, W, 3) uint8.
        prefix: what their names begin with; `-LEVEL-ROW-COLUMN.png` follows.
    """
    tiles, level = {}, 0
    while True:
        for row in range(0, array.shape[0], TILE):
            for column in range(0, array.shape[1], TILE):
                name = f"{prefix}-{level}-{row // TILE}-{column // TILE}.png"
                tiles[name] = encoding.encode_png(array[row : row + TILE, column : column + TILE])
        if max(array.shape[:2]) <= TILE:
            return tiles
        half = (-(-array.shape[1] // 2), -(-array.shape[0] // 2))
        array = cv2.resize(array, half, interpolation=cv2.INTER_AREA).astype(np.uint8)
        level += 1


def thumbnail(image: Array, before: Array, after: Array) -> bytes:
    """A small JPEG: the object bright, the rest dim, what changed in colour.

    Args:
        image: (H, W, 3) uint8 photograph.
        before: (H, W) uint8, the mask that the other was made from.
        after: (H, W) uint8, the mask that is judged.
    """
    scale = min(1.0, THUMBNAIL / max(image.shape[:2]))
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    first, second = (
        cv2.resize((mask > MASK_THRESHOLD).astype(np.float32), size, interpolation=cv2.INTER_AREA)
        for mask in (before, after)
    )
    small *= DIMMED + (1 - DIMMED) * np.maximum(first, second)[..., None]
    for share, colour in ((second - first, ADDED), (first - second, REMOVED)):
        share = np.clip(share, 0, 1)[..., None] * 0.75
        small = small * (1 - share) + np.array(colour, np.float32) * share
    return encoding.encode_jpeg(np.clip(small, 0, 255).astype(np.uint8), quality=85)


def close_up(image: Array, before: Array, after: Array) -> bytes:
    """A PNG of where two masks differ most: photograph, one mask and the other, side by side.

    Args:
        image: (H, W, 3) uint8 photograph.
        before: (H, W) uint8.
        after: (H, W) uint8.
    """
    window = most_changed(before, after, CLOSE)
    masks = (np.repeat(mask[window][..., None], 3, 2) for mask in (before, after))
    gap = ((0, 0), (0, GAP), (0, 0))
    parts = [np.pad(x, gap, constant_values=128) for x in (image[window], *masks)]
    return encoding.encode_png(np.ascontiguousarray(np.hstack(parts)[:, :-GAP]))
