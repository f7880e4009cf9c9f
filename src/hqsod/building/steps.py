"""One pair on its way through the build: read, enlarge, place, refine, judge, write.

`Source` is a pair as read, `Enlarged` as the networks left it; each step is a function of the one
before, so that any engine can run them where it likes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
from PIL import Image

from hqsod import images
from hqsod.addresses import read_bytes
from hqsod.building.recipes import SCALE, Settings
from hqsod.dataset.folders import IMAGES, MASKS, REFINED
from hqsod.dataset.manifest import File, Record
from hqsod.errors import InputError
from hqsod.images import MASK_THRESHOLD, Array
from hqsod.inference.refiner import Refiner
from hqsod.inference.saliency import SaliencyNetwork, prepare
from hqsod.quality.judge import judge
from hqsod.types import Pair, Placement


@dataclass(frozen=True, slots=True)
class Source:
    """A pair as read: pixels, what the files were, and where the result will lie."""

    pair: Pair
    image: Array
    mask: Array
    files: dict[str, File]
    placement: Placement
    notes: str
    seconds: dict[str, float]


@dataclass(frozen=True, slots=True)
class Enlarged:
    """A pair after the networks; `image`, `mask` and `refined` have the canvas's size.

    `prediction` is a network's own saliency map of the picture, uint8, at the network's size.
    """

    source: Source
    image: Array
    mask: Array
    refined: Array | None
    prediction: Array | None
    seconds: dict[str, float]


def hash_files(pair: Pair) -> dict[str, File]:
    """Path, SHA-256 and length of the pair's two files.

    Raises:
        InputError: a file cannot be read.
    """
    return {"image": _hash_file(pair.image), "mask": _hash_file(pair.mask)}


def _hash_file(path: Path) -> File:
    data = read_bytes(path)
    return File(str(path), hashlib.sha256(data).hexdigest(), len(data))


def place(size: tuple[int, int], settings: Settings, name: str) -> Placement:
    """Where a picture of `size` (height, width) before enlarging comes to lie.

    Raises:
        InputError: it does not fit the canvas.
    """
    enlarged = (size[0] * SCALE, size[1] * SCALE)
    canvas = (settings.canvas, settings.canvas) if settings.canvas else enlarged
    if max(enlarged) > max(canvas):
        raise InputError(
            f"{name}: {size[1]} x {size[0]} pixels become {enlarged[1]} x {enlarged[0]}",
            expected=f"at most {canvas[1]} x {canvas[0]}",
            fix="use --canvas none or a larger canvas",
        )
    return Placement.centred(enlarged, canvas)


def read(pair: Pair, files: dict[str, File], settings: Settings) -> Source:
    """Read both files.

    Raises:
        InputError: one cannot be used, or their sizes differ.
    """
    start = perf_counter()
    image, mask = read_pixels(pair)
    placement = place(mask.shape, settings, str(pair.image))
    notes = "; ".join(f"{pair.image}: {oddity}" for oddity in images.oddities(pair.image))
    return Source(pair, image, mask, files, placement, notes, {"read": perf_counter() - start})


def read_pixels(pair: Pair) -> tuple[Array, Array]:
    """The photograph, (H, W, 3) uint8, and its mask, (H, W) uint8.

    Raises:
        InputError: one cannot be used, or their sizes differ.
    """
    image, mask = images.read_image(pair.image), images.read_mask(pair.mask)
    if image.shape[:2] != mask.shape:
        raise InputError(
            f"{pair.mask}: {mask.shape[1]} x {mask.shape[0]} pixels",
            expected=f"the size of {pair.image.name}, {image.shape[1]} x {image.shape[0]}",
            fix="resize the mask or mend the pair",
        )
    return image, mask


def binarise(mask: Array) -> Array:
    """0 up to `MASK_THRESHOLD`, 255 above: what refiners are given."""
    return np.where(mask > MASK_THRESHOLD, np.uint8(255), np.uint8(0))


def enlarge(
    source: Source,
    upscaled: Array,
    refiner: Refiner | None,
    seconds: float,
    predictor: SaliencyNetwork | None = None,
) -> Enlarged:
    """Place picture and mask on the canvas and refine the mask.

    Args:
        source: the pair as read.
        upscaled: its picture after the upscaler.
        refiner: None leaves the mask as enlarged.
        seconds: the pair's share of the upscaler's time.
        predictor: says what is salient without the mask; None for no such opinion.
    """
    start = perf_counter()
    image = images.pad(upscaled, source.placement)
    mask = images.resize(source.mask, source.placement.size, Image.Resampling.BICUBIC)
    mask = images.pad(mask, source.placement)
    refined = None
    if refiner is not None:
        refined = refiner(image, binarise(mask))
    refined_at = perf_counter()
    times = {**source.seconds, "upscale": seconds, "refine": refined_at - start}
    prediction = None
    if predictor is not None:
        saliency = predictor(np.stack([prepare(source.image, predictor.size)]))[0]
        prediction = np.asarray((saliency * 255).round(), np.uint8)
        times["predict"] = perf_counter() - refined_at
    return Enlarged(source, image, mask, refined, prediction, times)


def write(enlarged: Enlarged, folder: Path, settings: Settings) -> Record:
    """Judge the refined mask and write the pair's files, each whole or not at all.

    Returns:
        The record to commit; every file it names is on disk.

    Raises:
        OutputError: the folder cannot be written to.
    """
    source, start = enlarged.source, perf_counter()
    layers = {IMAGES: enlarged.image, MASKS: enlarged.mask}
    quality = None
    if enlarged.refined is not None:
        window = source.placement.window
        image, mask, refined = (
            layer[window] for layer in (enlarged.image, enlarged.mask, enlarged.refined)
        )
        quality = judge(image, mask, refined, enlarged.prediction)
        fall_back = settings.fallback and quality.flagged
        layers[REFINED] = enlarged.mask if fall_back else enlarged.refined
    judged = perf_counter()
    outputs = {layer: _write(folder, layer, source.pair, array) for layer, array in layers.items()}
    seconds = {**enlarged.seconds, "judge": judged - start, "write": perf_counter() - judged}
    return Record(
        stem=source.pair.stem,
        status="built",
        recipe=settings.key,
        sources=source.files,
        placement=source.placement,
        outputs=outputs,
        seconds={step: round(value, 4) for step, value in seconds.items()},
        quality=quality.as_dict() if quality else {},
        score=quality.score if quality else None,
        flagged=bool(quality and quality.flagged),
        notes=source.notes,
    )


def _write(folder: Path, layer: str, pair: Pair, array: Array) -> File:
    name = f"{layer}/{pair.stem}.png"
    data = images.encode_png(array)
    images.write_bytes(folder / name, data)
    return File(name, hashlib.sha256(data).hexdigest(), len(data))
