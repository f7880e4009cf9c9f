"""Images and masks as files: how results are compressed and written."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from hqsod import addresses
from hqsod.decoding import MAX_SIDE
from hqsod.errors import InputError
from hqsod.images import Array

# Run lengths of what Paeth's filter leaves: as small as zlib's level 6 in a fifth of its time.
PNG_SETTINGS = [
    *(cv2.IMWRITE_PNG_COMPRESSION, 1),
    *(cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE),
]
if hasattr(cv2, "IMWRITE_PNG_FILTER"):  # before 4.12 OpenCV tries all filters on each row
    PNG_SETTINGS += [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_PAETH]
# What results can be written as, by the ending of the file: the format's name, and the longest side
# in pixels that it can hold (a PNG's is more than we read).
FORMATS: Mapping[str, tuple[str, int]] = {
    "png": ("PNG", MAX_SIDE),
    "webp": ("WEBP", 16_383),
    "jpg": ("JPEG", 65_500),
}
QUALITY = 95  # of WebP and JPEG, as both count it; their artefacts are not seen


def encode_png(array: Array) -> bytes:
    """Compress to PNG: (H, W) grey, (H, W, 3) RGB or (H, W, 4) RGBA, uint8."""
    if array.ndim == 3:
        swap = {3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}[array.shape[2]]
        array = cv2.cvtColor(array, swap).astype(np.uint8, copy=False)
    return cv2.imencode(".png", array, PNG_SETTINGS)[1].tobytes()


def encode(array: Array, ending: str) -> bytes:
    """Compress to one of `FORMATS`; JPEG has no transparency.

    Raises:
        InputError: a side is longer than the format can hold.
    """
    if ending == "png":
        return encode_png(array)
    name, longest = FORMATS[ending]
    height, width = array.shape[:2]
    if max(height, width) > longest:
        raise InputError(
            f"{width} x {height} pixels as {name}",
            expected=f"at most {longest:,} a side",
            fix="ask for png",
        )
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, name, quality=QUALITY)
    return buffer.getvalue()


def encode_jpeg(array: Array, quality: int = 90) -> bytes:
    """Compress a (H, W, 3) uint8 RGB image to JPEG, for pages and sheets that are looked at."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def write_png(path: Path, array: Array) -> None:
    """`encode_png`, then `addresses.write_bytes`."""
    addresses.write_bytes(path, encode_png(array))
