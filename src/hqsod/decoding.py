"""The one door for image files: whatever decodes a file, from whomever it came, does so here.

Only the decoders of `FORMATS` run, the header is checked before anything is decoded, and metadata
that cannot be read is as if it were not there.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from time import thread_time
from typing import BinaryIO, NamedTuple, cast

import numpy as np
import PIL
from PIL import Image, UnidentifiedImageError

from hqsod import addresses
from hqsod.errors import InputError
from hqsod.metadata import without_metadata

Source = Path | BinaryIO

# Pillow knows forty more decoders, and one of them starts another program.
FORMATS: tuple[str, ...] = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF")
if int(PIL.__version__.partition(".")[0]) >= 13:  # before, 1 MB of EXIF in an AVIF file took 12 GB
    FORMATS += ("AVIF",)
SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".avif"}
    | {".heic", ".heif"}
)
# Allowed in a TIFF file. Not JPEG: it is decoded in one call, its scans over and over.
TIFF_COMPRESSIONS = frozenset(
    {"raw", "packbits", "tiff_lzw", "tiff_deflate", "tiff_adobe_deflate", "zstd", "lzma"}
    | {"tiff_ccitt", "group3", "group4"}
)
MAX_PIXELS = 64_000_000  # 8000 x 8000: an image that needs about 1 GB while it is read
MAX_SIDE = 250_000  # four times as much is the most that a PNG file can be written with
# Processor time in which a file must be decoded: ten times what the slowest ordinary one takes. A
# small file can ask for hours (a progressive JPEG of thousands of scans, millions of empty chunks).
DECODE_SECONDS = 10.0
BLOCK = 4096  # bytes that a decoder reads at once; between two blocks it can be ended
READ_AGAIN = 4  # times that a file may be read: its header, its pixels, and both without metadata
READ_MORE = 2**24  # bytes that may be read again beyond that: metadata that lies over itself
MAX_EXIF = 2**16  # bytes: what a JPEG file can hold
ORIENTATION = 0x0112  # the EXIF tag
TILE_SIDES = (322, 323)  # the TIFF tags of a tile's width and height
PHOTOMETRIC, WHITE_IS_ZERO = 262, 0  # the TIFF tag of what levels mean, and one of its values
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Pillow meets what is damaged in all these ways; the tests damage every byte of a header.
ERRORS = (
    *(OSError, SyntaxError, ValueError, EOFError, TypeError, LookupError, ArithmeticError),
    *(struct.error, Image.DecompressionBombError, RuntimeError, AssertionError),
)
# Modes of 16 and 32 bits, and numbers with a fraction.
WIDE = frozenset({"I;16", "I;16B", "I;16L", "I;16N", "I", "F"})


class Decoded(NamedTuple):
    """A decoded file.

    Attributes:
        image: as stored: any mode, not turned.
        orientation: by EXIF, 1 to 8; 1 for upright.
        notes: what was left out of the file, in words.
    """

    image: Image.Image
    orientation: int
    notes: tuple[str, ...]

    @property
    def upright(self) -> Image.Image:
        """The image as it is shown."""
        turn = TURNS.get(self.orientation)
        return self.image if turn is None else self.image.transpose(turn)


def decode(source: Source, most: int = MAX_PIXELS) -> Decoded:
    """Decode a file's first frame.

    Args:
        source: a path, a file at an address, or an open file.
        most: pixels it may have; the header tells before anything is decoded.

    Raises:
        InputError: missing, no image, truncated, or more than `most` pixels.
    """
    with _door(source) as file:
        return _without_bad_metadata(file, most)


def read_size(source: Source) -> tuple[int, int]:
    """(height, width), EXIF orientation applied, from the header.

    A PNG whose header has no EXIF is decoded: it may follow the pixels.

    Raises:
        InputError: as `decode`.
    """
    with _door(source) as file:
        try:
            with _opened(file, MAX_PIXELS) as image:
                (width, height), orientation = image.size, _orientation(image)
        except ERRORS:
            image, orientation, _ = _without_bad_metadata(file, MAX_PIXELS)
            width, height = image.size
        if image.format == "TIFF":  # Pillow has turned its size already
            orientation = 1
    return (width, height) if orientation > 4 else (height, width)


def name_of(source: Source) -> str:
    """What messages call a source: its path, or an open file's name."""
    return str(getattr(source, "name", "the file") if hasattr(source, "read") else source)


class _Bounded(io.BufferedReader):
    """A file that can be read for as long and as often as a decoder has reasons to.

    Attributes:
        called: its name in messages.
        size: in bytes.
    """

    def __init__(self, raw: io.RawIOBase, called: str) -> None:
        super().__init__(raw)
        self.called, self.size = called, self.seek(0, io.SEEK_END)
        self._until = thread_time() + DECODE_SECONDS
        self._left = READ_AGAIN * self.size + READ_MORE

    def read(self, size: int | None = -1, /) -> bytes:
        """Read so many bytes, or all of the file where no size is given."""
        if thread_time() > self._until:
            raise TimeoutError(f"not decoded within {DECODE_SECONDS:g} s of processor time")
        data = super().read(size)
        self._left -= len(data)
        if self._left < 0:
            raise TimeoutError("its parts overlap")
        return data


@contextmanager
def _door(source: Source) -> Iterator[_Bounded]:
    """The source as a bounded file; every decoder's complaint becomes an InputError naming it."""
    name = name_of(source)
    try:
        with _readable(source) as raw:
            file = _Bounded(cast(io.RawIOBase, raw), name)
            if file.size > addresses.MAX_BYTES:  # one that was open, or fetched
                most = f"at most {addresses.MAX_BYTES:,}"
                raise InputError(f"{name}: {file.size:,} bytes", expected=most)
            try:
                yield file
            finally:
                file.detach()
    except FileNotFoundError:
        raise InputError(f"{name}: no such file") from None
    except Image.DecompressionBombError:
        raise InputError(
            f"{name}: so many pixels that it may be an attack",
            expected=f"at most {MAX_PIXELS:,} pixels",
        ) from None
    except UnidentifiedImageError as error:
        known = ", ".join(_formats())
        needs_extra = name.lower().endswith((".heic", ".heif")) and "HEIF" not in known
        fix = "pip install 'hqsod[heic]'" if needs_extra else "replace the file"
        raise InputError(f"{name}: not an image in {known}", fix=fix) from error
    except ERRORS as error:
        cut = "truncated" in str(error).lower()
        reason = "the file is truncated" if cut else f"cannot be decoded ({error})"
        raise InputError(
            f"{name}: {reason}", expected="a complete image file", fix="replace the file"
        ) from error


@contextmanager
def _readable(source: Source) -> Iterator[io.IOBase | BinaryIO]:
    """The source as a file that can be read twice; one that was open stays open."""
    if hasattr(source, "read"):
        stream = cast(BinaryIO, source)
        yield stream if stream.seekable() else io.BytesIO(stream.read())
    elif addresses.is_remote(source):
        yield io.BytesIO(addresses.read_bytes(source))
    else:
        addresses.require_file(source)
        with source.open("rb", buffering=0) as file:
            yield file


@contextmanager
def _opened(file: _Bounded, most: int) -> Iterator[Image.Image]:
    """A file's header, checked."""
    file.seek(0)
    with Image.open(file, formats=_formats()) as image:
        if image.width * image.height > most or max(image.size) > MAX_SIDE:
            raise InputError(
                f"{file.called}: {image.width} x {image.height} pixels",
                expected=f"at most {most:,} pixels, and {MAX_SIDE:,} a side",
                fix="scale it down first",
            )
        if image.format == "TIFF":
            _require_plain_tiff(image, file.called, most)
        image.decodermaxblock = BLOCK
        yield image


def _require_plain_tiff(image: Image.Image, name: str, most: int) -> None:
    """A TIFF file of 250 bytes may ask for a tile of gigabytes, and every Pillow would try."""
    width, height = (int(getattr(image, "tag_v2", {}).get(tag, 0)) for tag in TILE_SIDES)
    if width * height > most:
        raise InputError(
            f"{name}: tiles of {width} x {height} pixels",
            expected=f"at most {most:,} pixels",
            fix="save it without tiles",
        )
    if (compression := image.info.get("compression")) not in TIFF_COMPRESSIONS:
        raise InputError(
            f"{name}: a TIFF file compressed as {compression}",
            expected="LZW, Deflate or no compression",
            fix="save it as PNG",
        )


def _without_bad_metadata(file: _Bounded, most: int) -> Decoded:
    try:
        return _decode(file, most)
    except TimeoutError:
        raise
    except ERRORS:
        file.seek(0)
        plain = without_metadata(file.read())
        if plain is not None:
            with suppress(*ERRORS):
                decoded = _decode(
                    _Bounded(cast(io.RawIOBase, io.BytesIO(plain)), file.called), most
                )
                return decoded._replace(notes=(*decoded.notes, "damaged metadata, passed over"))
        raise


def _decode(file: _Bounded, most: int) -> Decoded:
    with _opened(file, most) as image:
        # The further frames of an MPO are previews and depth.
        several = image.format != "MPO" and getattr(image, "is_animated", False)
        deep = image.mode not in WIDE and ";16" in str(getattr(image, "tile", ""))
        image.load()
        # Of colours in 16 bits Pillow keeps the upper eight, of which nothing is left of 12 bits.
        if deep and np.asarray(image.convert("L")).max() < 16:
            raise InputError(
                f"{file.called}: colours in 16 bits, of which it uses 12 or fewer",
                expected="levels over the whole range",
                fix="convert it to 8 bits",
            )
        notes = ("several frames, the first one taken",) if several else ()
        return Decoded(_black_is_zero(image), _orientation(image), notes)


def _black_is_zero(image: Image.Image) -> Image.Image:
    """The image, inverted where its TIFF file has white as 0; of 8 bits Pillow does that."""
    meaning = getattr(image, "tag_v2", {}).get(PHOTOMETRIC)
    if meaning != WHITE_IS_ZERO or not image.mode.startswith("I;16"):
        return image
    inverted = Image.fromarray(65535 - np.asarray(image).astype(np.uint16))
    inverted.info = image.info
    return inverted


@cache
def _formats() -> tuple[str, ...]:
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return FORMATS
    register_heif_opener()
    return (*FORMATS, "HEIF")


def _orientation(image: Image.Image) -> int:
    if image.format == "PNG" and "exif" not in image.info:
        image.load()  # it may follow the pixels
    if len(image.info.get("exif") or b"") > MAX_EXIF:
        return 1
    try:
        orientation = image.getexif().get(ORIENTATION, 1)
    except ERRORS:  # EXIF that is nonsense
        return 1
    return orientation if orientation in TURNS else 1
