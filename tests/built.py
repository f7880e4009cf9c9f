"""A built data set without a build: files and manifest records, for tests of the jobs after it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from skimage import data

from hqsod import encoding, images
from hqsod.addresses import write_bytes
from hqsod.canvas import Placement
from hqsod.dataset.manifest import File, Manifest, Record, connect

SETTINGS = {"recipe": "preview", "upscaler": "bicubic", "refiner": "guided"}
LAYERS = ("images", "masks", "hq-masks")


def photograph(size: int) -> np.ndarray:
    """Scikit-image's cat, `size` pixels a side."""
    return images.resize(np.asarray(data.chelsea()[:, 50:350]), (size, size), 3)


def disc(size: int, radius: float, centre: float = 0.5) -> np.ndarray:
    """A round mask of `radius`, both told as shares of the side."""
    rows, columns = np.indices((size, size)) / size
    return np.where(np.hypot(rows - centre, columns - centre) < radius, np.uint8(255), np.uint8(0))


def write_pair(folder: Path, stem: str, size: int = 96, shift: float = 0.0) -> dict[str, File]:
    """Write a pair's three files; `shift` moves the refined mask."""
    arrays = {
        "images": photograph(size),
        "masks": disc(size, 0.3),
        "hq-masks": disc(size, 0.3, 0.5 + shift),
    }
    return {layer: _write(folder, f"{layer}/{stem}.png", array) for layer, array in arrays.items()}


def _write(folder: Path, name: str, array: np.ndarray) -> File:
    content = encoding.encode_png(array)
    write_bytes(folder / name, content)
    return File(name, hashlib.sha256(content).hexdigest(), len(content))


def record(stem: str, outputs: dict[str, File], score: float, size: int = 96) -> Record:
    """A record as the build job writes it."""
    return Record(
        stem=stem,
        status="built",
        recipe="key",
        sources={"image": File("source.jpg", "0" * 64, 1), "mask": File("source.png", "0" * 64, 1)},
        placement=Placement((size, size), 0, 0, (size, size)),
        outputs=outputs,
        quality={"iou": score, "score": score},
        score=score,
        flagged=score < 0.5,
    )


def built(
    folder: Path,
    count: int = 6,
    size: int = 96,
    change: Callable[[Record], Record] = lambda record: record,
) -> Path:
    """A data set of `count` pairs, pair_0000 the most doubtful, a third of them flagged."""
    folder.mkdir(parents=True, exist_ok=True)
    with Manifest.open(folder, create=True) as manifest:
        manifest.add_recipe("key", SETTINGS)
        for number in range(count):
            stem = f"pair_{number:04d}"
            score = (number + 0.5) / count * 0.75 + 0.25
            outputs = write_pair(folder, stem, size, shift=0.02 * (number % 5))
            manifest.append(change(record(stem, outputs, score, size)))
    return folder


def many(folder: Path, count: int, size: int = 200) -> Path:
    """`count` records of spread scores over the files of twenty pairs, written in one go."""
    built(folder, 20, size)
    with connect(folder) as connection, connection:
        connection.execute(
            """WITH RECURSIVE numbers (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers
               WHERE n + 1 < ?)
            INSERT INTO records (made, stem, status, recipe, sources, placement, outputs, seconds,
                quality, score, flagged, notes)
            SELECT made, printf('many_%05d', n), status, recipe, sources, placement, outputs,
                seconds, quality, (n * 7919 % 10007) / 10007.0, n % 10 = 0, notes
            FROM numbers JOIN latest ON latest.stem = printf('pair_%04d', n % 20)""",
            (count,),
        )
    return folder
