"""Images and masks as arrays: reading a file, placing, resizing.

Images are uint8 arrays, (H, W, 3) RGB; masks and saliency maps are uint8 arrays, (H, W). What can
be read without doubt is converted, and a note says how; what cannot be trusted raises `InputError`.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeAlias

import numpy as np
from PIL import Image

from hqsod import pillow_modes
from hqsod.decoding import ERRORS, SUFFIXES, decode, name_of
from hqsod.decoding import MAX_PIXELS as MAX_PIXELS
from hqsod.decoding import Source as Source
from hqsod.decoding import read_size as read_size
from hqsod.errors import InputError
from hqsod.masks import MASK_THRESHOLD
from hqsod.pillow_modes import LEVELS
from hqsod.pillow_modes import Array as Array

AnyImage: TypeAlias = str | Path | bytes | BinaryIO | Image.Image | Array
Convert: TypeAlias = Callable[[Image.Image, str], tuple[Array, list[str]]]

LISTED_LEVELS = 5  # in a message


class Note(NamedTuple):
    """What was converted in a file, in words."""

    file: Path
    text: str

    def __str__(self) -> str:
        return f"{self.file}: {self.text}"


class Read(NamedTuple):
    """A file as read.

    Attributes:
        pixels: uint8, (H, W, 3) of an image, (H, W) of a mask or map.
        notes: what was converted, in words; empty for an ordinary file.
        orientation: by EXIF, 1 to 8, honoured already.
    """

    pixels: Array
    notes: tuple[str, ...]
    orientation: int


def read_image(source: Source, most: int = MAX_PIXELS) -> Array:
    """Read an image, turned as its EXIF orientation says, in sRGB.

    Args:
        source: its path, or an open file.
        most: pixels it may have; the header tells before anything is decoded.

    Returns:
        (H, W, 3) uint8 RGB; transparency is laid over black.

    Raises:
        InputError: missing, no image, truncated, or more than `most` pixels.
    """
    return load_image(source, most).pixels


def pixels(image: AnyImage) -> Array:
    """(H, W, 3) uint8 RGB of whatever kind of image.

    Raises:
        InputError: it cannot be read, or is no image.
    """
    if isinstance(image, str | Path):
        return read_image(Path(image))
    if isinstance(image, bytes | bytearray | memoryview):
        return read_image(io.BytesIO(image))
    if isinstance(image, Image.Image):
        return _converted(pillow_modes.to_rgb, image, "the image")[0]
    if not isinstance(image, np.ndarray):
        if hasattr(image, "read"):
            return pixels(image.read())  # a pipe cannot be read twice
        raise InputError(
            f"an image given as {type(image).__name__}",
            expected="a path, bytes, an open file, a PIL image or a (H, W, 3) uint8 array",
        )
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise InputError(f"an array of {image.shape} {image.dtype}", expected="(H, W, 3) uint8 RGB")
    return image


def _converted(convert: Convert, image: Image.Image, name: str) -> tuple[Array, list[str]]:
    """A PIL image, which may not have been read from its file yet, converted."""
    try:
        return convert(image, name)
    except ERRORS as error:
        reason = str(error) or type(error).__name__
        raise InputError(
            f"{name}: cannot be converted ({reason})", expected="an image that Pillow can convert"
        ) from error


def load_image(source: Source, most: int = MAX_PIXELS) -> Read:
    """`read_image`, with what was converted."""
    decoded = decode(source, most)
    rgb, converted = _converted(pillow_modes.to_rgb, decoded.upright, name_of(source))
    turned = () if decoded.orientation == 1 else ("turned as its EXIF orientation says",)
    return Read(rgb, (*decoded.notes, *turned, *converted), decoded.orientation)


def read_mask(source: Source) -> Array:
    """Read a mask to build from or to train on.

    Returns:
        (H, W) uint8, object above 127.

    Raises:
        InputError: as `read_map`, or not black, and yet all of it would be background.
    """
    return load_mask(source).pixels


def load_mask(source: Source) -> Read:
    """`read_mask`, with what was converted."""
    mask = load_map(source)
    if 0 < mask.pixels.max() <= MASK_THRESHOLD:
        raise InputError(
            f"{name_of(source)}: levels {_listed(np.unique(mask.pixels))}, none above "
            f"{MASK_THRESHOLD}",
            expected=LEVELS,
            fix="save the object as 255",
        )
    return mask


def _listed(levels: Array) -> str:
    first, last = [str(level) for level in levels[:LISTED_LEVELS]], str(levels[-1])
    if len(levels) > LISTED_LEVELS:
        return f"{', '.join(first)} ... {last}"
    return f"{', '.join(first[:-1])} and {last}" if len(levels) > 1 else f"{last} alone"


def read_map(source: Source) -> Array:
    """Read a saliency map, or anything grey.

    Returns:
        (H, W) uint8.

    Raises:
        InputError: as `read_image`; or colours, or levels beside transparency, which say nothing
            of a mask.
    """
    return load_map(source).pixels


def load_map(source: Source) -> Read:
    """`read_map`, with what was converted."""
    decoded = decode(source)
    grey, converted = _converted(pillow_modes.to_grey, decoded.upright, name_of(source))
    return Read(grey, (*decoded.notes, *converted), decoded.orientation)


def find_images(folder: Path) -> list[Path]:
    """Image files directly in `folder`, sorted by name; hidden files are left out.

    Raises:
        InputError: the folder cannot be listed.
    """
    try:
        return sorted(path for path in folder.iterdir() if _is_listed(path) and _is_image(path))
    except OSError as error:
        raise InputError(
            f"{folder}: {error.strerror}", expected="a folder that can be listed"
        ) from error


def find_others(folder: Path) -> list[Path]:
    """What else is in `folder`, sorted by name, and neither hidden nor a folder."""
    return sorted(
        path
        for path in folder.iterdir()
        if _is_listed(path) and not path.is_dir() and not _is_image(path)
    )


def _is_listed(path: Path) -> bool:
    return not path.name.startswith(".")


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and path.is_file()


def resize(array: Array, size: tuple[int, int], method: Image.Resampling) -> Array:
    """Resize with Pillow, whose bicubic is the one DUTS-HQ's masks were made with.

    Args:
        array: uint8, (H, W) or (H, W, 3).
        size: (height, width) wanted.
        method: `PIL.Image.Resampling.BICUBIC` and so on.
    """
    height, width = size
    return np.asarray(Image.fromarray(array).resize((width, height), method))
