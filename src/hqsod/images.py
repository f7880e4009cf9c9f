"""Reading and writing pictures: the one place that touches files of pixels.

Pictures are uint8 arrays, (H, W, 3) RGB; masks and saliency maps are uint8 arrays, (H, W). What can
be read without doubt (grey, palette, CMYK, 16-bit and EXIF-rotated pictures) is converted, and
`oddities` names it; what cannot be trusted raises `InputError`.
"""

from __future__ import annotations

import io
import os
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, cast

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from hqsod import addresses
from hqsod.errors import InputError, OutputError
from hqsod.types import MASK_THRESHOLD, Placement

Array = npt.NDArray[np.uint8]
Source = Path | BinaryIO

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
# Only these decoders are run: Pillow knows forty more, and one of them starts another program.
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF")
MAX_PIXELS = 64_000_000  # 8000 x 8000: a picture that needs about 200 MB once decoded
MAX_SIDE = 250_000  # four times as much is the most that a PNG file can be written with
ORIENTATION = 0x0112  # the EXIF tag
# Adaptive filters and run lengths: as small as zlib's level 6 in a quarter of its time.
PNG_SETTINGS = [
    *(cv2.IMWRITE_PNG_COMPRESSION, 1),
    *(cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE),
]
# Pillow warns of what `MAX_PIXELS` refuses with a better message.
warnings.simplefilter("ignore", Image.DecompressionBombWarning)
_SIXTEEN_BIT = frozenset({"I;16", "I;16B", "I;16L", "I;16N", "I", "F"})
# Pillow meets what is damaged in all these ways; the tests damage every byte of a header.
_DECODER_ERRORS = (
    *(OSError, SyntaxError, ValueError, EOFError, TypeError, LookupError, ArithmeticError),
    *(struct.error, Image.DecompressionBombError),
)


def _name(source: Source) -> str:
    """What messages call the source: its path, or an open file's name."""
    return str(getattr(source, "name", "the file") if _is_open(source) else source)


def _is_open(source: Source) -> bool:
    return hasattr(source, "read")


def openable(source: Source) -> Source:
    """What Pillow can open: a file at an address is fetched.

    Raises:
        InputError: it cannot be fetched.
    """
    if isinstance(source, Path) or _is_open(source):
        return source
    return io.BytesIO(addresses.read_bytes(cast(Path, source)))


@contextmanager
def _opened(source: Source, most: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """Open a picture, its header checked; every decoder's complaint becomes an InputError."""
    name = _name(source)
    try:
        with Image.open(openable(source), formats=FORMATS) as image:
            if image.width * image.height > most or max(image.size) > MAX_SIDE:
                raise InputError(
                    f"{name}: {image.width} x {image.height} pixels",
                    expected=f"at most {most:,} pixels, and {MAX_SIDE:,} a side",
                    fix="scale it down first",
                )
            yield image
    except FileNotFoundError:
        raise InputError(f"{name}: no such file") from None
    except _DECODER_ERRORS as error:
        raise InputError(
            f"{name}: {_reason(error)}", expected="a complete picture file", fix="replace the file"
        ) from error


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return f"not a picture in {', '.join(FORMATS)}"
    if isinstance(error, Image.DecompressionBombError):
        return "so many pixels that it may be an attack"
    if "truncated" in str(error).lower():
        return "the file is truncated"
    return f"cannot be decoded ({error})"


def _eight_bit(image: Image.Image) -> Image.Image:
    """Bring 16-bit grey to mode L by its upper eight bits; Pillow itself would clip."""
    if image.mode not in _SIXTEEN_BIT:
        return image
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535 or values.dtype.kind == "f":
        raise InputError(
            f"values from {values.min()} to {values.max()}",
            expected="8 or 16 bits",
            fix="convert to 8 bits",
        )
    return Image.fromarray((values.astype(np.uint32) >> 8).astype(np.uint8))


def read_image(source: Source, most: int = MAX_PIXELS) -> Array:
    """Read a photograph, turned as its EXIF orientation says.

    Args:
        source: its path, or an open file.
        most: pixels it may have; the header tells before anything is decoded.

    Returns:
        (H, W, 3) uint8 RGB; transparency is laid over black.

    Raises:
        InputError: missing, not a picture, truncated, or more than `most` pixels.
    """
    with _opened(source, most) as image:
        return to_rgb(ImageOps.exif_transpose(image))


def to_rgb(image: Image.Image) -> Array:
    """(H, W, 3) uint8 of a PIL picture in any mode; transparency is laid over black.

    Raises:
        InputError: values beyond 16 bits.
    """
    image = _eight_bit(image)
    if "transparency" in image.info or image.mode in ("LA", "PA", "RGBA"):
        image = image.convert("RGBA")
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, image)
    return np.array(image.convert("RGB"))


LEVELS = "grey levels from 0 (background) to 255 (object)"


def read_mask(source: Source) -> Array:
    """Read a mask to build from or to train on.

    Returns:
        (H, W) uint8, object above 127.

    Raises:
        InputError: as `read_map`, or its levels are 0 and 1, and all of it would be background.
    """
    mask = read_map(source)
    if mask.max() == 1:
        raise InputError(
            f"{_name(source)}: levels 0 and 1", expected=LEVELS, fix="multiply them by 255"
        )
    return mask


def read_map(source: Source) -> Array:
    """Read a saliency map, or anything grey.

    Returns:
        (H, W) uint8.

    Raises:
        InputError: as `read_image`, or the file has colours, which say nothing of a mask.
    """
    with _opened(source) as image:
        upright = _eight_bit(ImageOps.exif_transpose(image))
        if upright.mode in ("1", "L"):
            return np.array(upright.convert("L"))
        colours = np.array(upright.convert("RGB"))
        if (colours != colours[..., :1]).any():
            raise InputError(
                f"{_name(source)}: a mask in colours (mode {upright.mode})",
                expected=LEVELS,
                fix="convert it to a grey picture",
            )
        return np.ascontiguousarray(colours[..., 0])


def read_size(source: Source) -> tuple[int, int]:
    """(height, width), EXIF orientation applied, from the header.

    A PNG whose header has no EXIF is decoded: it may follow the pixels.
    """
    with _opened(source) as image:
        width, height = image.size
        turned = image.getexif().get(ORIENTATION, 1) in (5, 6, 7, 8)
        return (width, height) if turned else (height, width)


def oddities(path: Path) -> list[str]:
    """What `read_image` converts in this file, in words; empty for an ordinary RGB picture."""
    with _opened(path) as image:
        found = []
        if image.mode in _SIXTEEN_BIT:
            found.append("16-bit, brought to 8 bits")
        elif image.mode in ("1", "L", "LA"):
            found.append("grey, copied to three channels")
        elif image.mode in ("P", "PA"):
            found.append("palette, converted to RGB")
        elif image.mode != "RGB":
            found.append(f"{image.mode}, converted to RGB")
        if image.getexif().get(ORIENTATION, 1) != 1:
            found.append("turned as its EXIF orientation says")
        return found


def find_images(folder: Path) -> list[Path]:
    """Picture files directly in `folder`, sorted by name; hidden files are left out."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def pad(array: Array, placement: Placement) -> Array:
    """Lay a picture or mask on its black canvas.

    Args:
        array: uint8, (H, W) or (H, W, C), of `placement.size`.
    """
    if array.shape[:2] != placement.size:
        raise InputError(
            f"a picture of {array.shape[0]} x {array.shape[1]}",
            expected=f"{placement.size[0]} x {placement.size[1]} as placed",
        )
    canvas = np.zeros((*placement.canvas, *array.shape[2:]), np.uint8)
    canvas[placement.window] = array
    return canvas


def unpad(array: Array, placement: Placement) -> Array:
    """Cut the picture out of its canvas: the inverse of `pad`, a view."""
    return array[placement.window]


def require_pair(image: Array, mask: Array) -> None:
    """Check a picture and its mask.

    Raises:
        InputError: shapes or types are wrong; the message says what came.
    """
    good = image.ndim == 3 and image.shape[2] == 3 and mask.shape == image.shape[:2]
    if not good or image.dtype != np.uint8 or mask.dtype != np.uint8 or not mask.size:
        raise InputError(
            f"a picture {_describe(image)} and a mask {_describe(mask)}",
            expected="(H, W, 3) uint8 and (H, W) uint8 of the same H and W",
            fix="convert the image to RGB and the mask to one channel, and make their sizes equal",
        )


def _describe(array: Array) -> str:
    return f"({', '.join(map(str, array.shape))}) {array.dtype}"


def binarise(mask: Array) -> Array:
    """255 above `MASK_THRESHOLD`, 0 elsewhere, in a mask of any shape."""
    return np.where(mask > MASK_THRESHOLD, np.uint8(255), np.uint8(0))


def resize(array: Array, size: tuple[int, int], method: Image.Resampling) -> Array:
    """Resize with Pillow, whose bicubic is the one DUTS-HQ's masks were made with.

    Args:
        array: uint8, (H, W) or (H, W, 3).
        size: (height, width) wanted.
        method: `PIL.Image.Resampling.BICUBIC` and so on.
    """
    height, width = size
    return np.asarray(Image.fromarray(array).resize((width, height), method))


def encode_png(array: Array) -> bytes:
    """Compress to PNG: (H, W) grey, (H, W, 3) RGB or (H, W, 4) RGBA, uint8."""
    if array.ndim == 3:
        swap = {3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}[array.shape[2]]
        array = cv2.cvtColor(array, swap).astype(np.uint8, copy=False)
    return cv2.imencode(".png", array, PNG_SETTINGS)[1].tobytes()


def encode_jpeg(array: Array, quality: int = 90) -> bytes:
    """Compress a (H, W, 3) uint8 RGB picture to JPEG, for pages and sheets that are looked at."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole or not at all: a temporary name beside it, then a rename, on a disk.

    Raises:
        OutputError: the disk is full, or the folder cannot be written to.
    """
    if addresses.is_remote(path):
        addresses.put(path, data)
        return
    temporary = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):  # what failed first is the message that counts
            temporary.unlink(missing_ok=True)
        raise OutputError(
            f"{path}: {error.strerror}",
            fix="free space or choose a writable folder, then run again",
        ) from error


def write_png(path: Path, array: Array) -> None:
    """`encode_png`, then `write_bytes`."""
    write_bytes(path, encode_png(array))
