"""One pair on its way through the build: `read` begins it, `build_pair` does the rest.

Between the two the upscaler takes the pairs of a batch together.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from hqsod import encoding, images
from hqsod.addresses import read_bytes, write_bytes
from hqsod.building.networks import Networks, Stopwatch
from hqsod.building.recipes import SCALE, BuildSettings
from hqsod.canvas import Placement, pad
from hqsod.dataset.folders import IMAGES, MASKS, REFINED
from hqsod.dataset.manifest import File, Record
from hqsod.errors import InputError, printable
from hqsod.images import Array
from hqsod.pairs import Pair, read_pair
from hqsod.quality.judge import judge


@dataclass(frozen=True, slots=True)
class PairTask:
    """A pair to be built.

    Attributes:
        pair: its name and paths.
        files: its hashes.
        needed: False for a pair that is built already and only completes its batch, so that a
            resumed run multiplies the same batches, and so writes the same bytes, as a whole one.
    """

    pair: Pair
    files: dict[str, File]
    needed: bool = True


@dataclass(frozen=True, slots=True)
class PairPixels:
    """A pair as read.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        mask: (H, W) uint8, object above 127.
        placement: where the upscaled pair will lie on its canvas.
        notes: what was converted to read it, in words; empty for an ordinary pair.
        watch: how long its steps took.
    """

    image: Array
    mask: Array
    placement: Placement
    notes: str
    watch: Stopwatch


def hash_files(pair: Pair) -> dict[str, File]:
    """Path, SHA-256 and length of the pair's two files.

    Raises:
        InputError: a file cannot be read.
    """
    return {"image": _hash_file(pair.image), "mask": _hash_file(pair.mask)}


def _hash_file(path: Path) -> File:
    data = read_bytes(path)
    return File(str(path.absolute()), hashlib.sha256(data).hexdigest(), len(data))


def find_placement(size: tuple[int, int], canvas: int | None, name: str) -> Placement:
    """Where a pair comes to lie.

    Args:
        size: (height, width) before upscaling.
        canvas: side of the square canvas, or None for no canvas.
        name: of the pair, for the message.

    Raises:
        InputError: the upscaled image does not fit the canvas, or is too large to be read again.
    """
    upscaled = (size[0] * SCALE, size[1] * SCALE)
    rows, columns = upscaled if canvas is None else (canvas, canvas)
    if rows * columns > images.MAX_PIXELS:
        raise InputError(
            f"{name}: {size[1]} x {size[0]} pixels, and {columns} x {rows} when built",
            expected=f"at most {images.MAX_PIXELS:,} pixels, which hqsod reads",
            fix="reduce the image, or the canvas",
        )
    if max(upscaled) > max(rows, columns):
        raise InputError(
            f"{name}: {size[1]} x {size[0]} pixels become {upscaled[1]} x {upscaled[0]}",
            expected=f"at most {columns} x {rows}",
            fix="use --canvas none or a larger canvas",
        )
    return Placement.centred(upscaled, (rows, columns))


def read(pair: Pair, canvas: int | None) -> PairPixels:
    """Read both files.

    Raises:
        InputError: one cannot be used, their sizes differ, or they do not fit the canvas.
    """
    watch = Stopwatch()
    image, mask, notes = watch("read", read_pair, pair)
    placement = find_placement(mask.shape, canvas, str(pair.image))
    return PairPixels(image, mask, placement, "; ".join(map(str, notes)), watch)


def build_pair(
    task: PairTask,
    pixels: PairPixels,
    upscaled: Array,
    networks: Networks,
    settings: BuildSettings,
    folder: Path,
) -> Record:
    """Place, refine, predict, judge and write a pair whose image was upscaled.

    Returns:
        The record to commit; every file it names is on disk.

    Raises:
        InputError: a network refuses the pair.
        OutputError: `folder` cannot be written to.
    """
    watch, placement = pixels.watch, pixels.placement
    image, mask = watch("place", place, pixels, upscaled)
    refined = networks.refine(image, mask, watch)
    prediction = networks.predict(pixels.image, watch)
    layers, quality = {IMAGES: image, MASKS: mask}, None
    if refined is not None:
        inside = placement.window
        quality = watch("judge", judge, image[inside], mask[inside], refined[inside], prediction)
        layers[REFINED] = mask if settings.fallback and quality.flagged else refined
    outputs = watch("write", _write, layers, folder, task.pair.stem)
    return Record(
        stem=task.pair.stem,
        status="built",
        recipe=settings.key,
        sources=task.files,
        placement=placement,
        outputs=outputs,
        seconds=watch.seconds,
        quality=quality.as_dict() if quality else {},
        score=quality.score if quality else None,
        flagged=bool(quality and quality.flagged),
        notes=printable(pixels.notes),
    )


def place(pixels: PairPixels, upscaled: Array) -> tuple[Array, Array]:
    """The upscaled image, and the mask upscaled by Pillow's bicubic, on their canvas."""
    placement = pixels.placement
    mask = images.resize(pixels.mask, placement.size, Image.Resampling.BICUBIC)
    return pad(upscaled, placement), pad(mask, placement)


def _write(layers: dict[str, Array], folder: Path, stem: str) -> dict[str, File]:
    """Write each layer's PNG, whole or not at all."""
    written = {}
    for layer, array in layers.items():
        name, data = f"{layer}/{stem}.png", encoding.encode_png(array)
        write_bytes(folder / name, data)
        written[layer] = File(name, hashlib.sha256(data).hexdigest(), len(data))
    return written


def rejected(task: PairTask, reason: str, settings: BuildSettings) -> Record:
    """The record of a pair that could not be built."""
    stem, notes = printable(task.pair.stem), printable(reason)
    return Record(stem, "rejected", settings.key, task.files, notes=notes)
