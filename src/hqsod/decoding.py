"""The one door for image files: whatever decodes a file, from whomever it came, does so here.

Only the decoders of `FORMATS` run, the header is checked before anything is decoded, and metadata
that cannot be read is as if it were not there.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache, lru_cache
from itertools import product
from pathlib import Path
from time import thread_time
from typing import BinaryIO, NamedTuple, cast

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError

from hqsod import addresses
from hqsod.errors import InputError

Source = Path | BinaryIO

# Pillow knows forty more decoders, and one of them starts another program.
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF", "AVIF")
SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".avif"}
    | {".heic", ".heif"}
)
MAX_PIXELS = 64_000_000  # 8000 x 8000: an image that needs about 200 MB once decoded
# Processor time in which a file must be decoded: ten times what the slowest ordinary one takes. A
# small file can ask for hours (a progressive JPEG of thousands of scans, millions of empty chunks).
DECODE_SECONDS = 10.0
BLOCK = 4096  # bytes that a decoder reads at once; between two blocks it can be ended
MAX_SIDE = 250_000  # four times as much is the most that a PNG file can be written with
ORIENTATION = 0x0112  # the EXIF tag
TILE_SIDES = (322, 323)  # the TIFF tags of a tile's width and height
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
NEAR_SRGB = 2  # levels: a profile that moves no colour further is sRGB, under whatever name
# Pillow meets what is damaged in all these ways; the tests damage every byte of a header.
_ERRORS = (
    *(OSError, SyntaxError, ValueError, EOFError, TypeError, LookupError, ArithmeticError),
    *(struct.error, Image.DecompressionBombError),
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
    with _told(source, most):
        return _without_bad_metadata(_rewindable(source), most)


def read_size(source: Source) -> tuple[int, int]:
    """(height, width), EXIF orientation applied, from the header.

    A PNG whose header has no EXIF is decoded: it may follow the pixels.

    Raises:
        InputError: as `decode`.
    """
    with _told(source, MAX_PIXELS):
        try:
            with _opened(source, MAX_PIXELS) as image:
                (width, height), orientation = image.size, _orientation(image)
        except _ERRORS:
            image, orientation, _ = _without_bad_metadata(source, MAX_PIXELS)
            width, height = image.size
    return (width, height) if orientation > 4 else (height, width)


def name_of(source: Source) -> str:
    """What messages call a source: its path, or an open file's name."""
    return str(getattr(source, "name", "the file") if hasattr(source, "read") else source)


def _without_bad_metadata(source: Source, most: int) -> Decoded:
    try:
        return _decode(source, most)
    except (FileNotFoundError, TimeoutError):
        raise
    except _ERRORS:
        plain = _without_metadata(_bytes(source))
        if plain is not None:
            with suppress(*_ERRORS):
                decoded = _decode(io.BytesIO(plain), most)
                return decoded._replace(notes=(*decoded.notes, "damaged metadata, passed over"))
        raise


def _decode(source: Source, most: int) -> Decoded:
    with _opened(source, most) as image:
        # The further frames of an MPO are previews and depth.
        several = image.format != "MPO" and getattr(image, "is_animated", False)
        deep = image.mode not in WIDE and ";16" in str(getattr(image, "tile", ""))
        image.load()
        if deep:
            _require_sixteen_bits(image, name_of(source))
        notes = ("several frames, the first one taken",) if several else ()
        return Decoded(image, _orientation(image), notes)


def _require_sixteen_bits(image: Image.Image, name: str) -> None:
    """Of colours in 16 bits Pillow keeps the upper eight, of which nothing is left of 12 bits."""
    if np.asarray(image.convert("L")).max() < 16:
        raise InputError(
            f"{name}: colours in 16 bits, of which it uses 12 or fewer",
            expected="levels over the whole range",
            fix="convert it to 8 bits",
        )


def _require_small_tiles(image: Image.Image, name: str, most: int) -> None:
    """A TIFF file of 250 bytes may ask for a tile of gigabytes, and every Pillow would try."""
    tags = getattr(image, "tag_v2", {})
    width, height = (int(tags.get(tag, 0)) for tag in TILE_SIDES)
    if width * height > most:
        raise InputError(
            f"{name}: tiles of {width} x {height} pixels",
            expected=f"at most {most:,} pixels",
            fix="save it without tiles",
        )


class _Timed(io.BufferedReader):
    """A file that can be read for as long as `DECODE_SECONDS` allow."""

    def __init__(self, raw: io.RawIOBase) -> None:
        super().__init__(raw)
        self._until = thread_time() + DECODE_SECONDS

    def read(self, size: int | None = -1, /) -> bytes:
        """Read so many bytes, or all of the file where no size is given."""
        if thread_time() > self._until:
            raise TimeoutError(f"not decoded within {DECODE_SECONDS:g} s of processor time")
        return super().read(size)


@contextmanager
def _timed(source: Source) -> Iterator[_Timed]:
    """The source as a file that ends decoding in time; one that was open stays open."""
    found = _openable(source)
    raw = found.open("rb", buffering=0) if isinstance(found, Path) else found
    file = _Timed(cast(io.RawIOBase, raw))
    try:
        yield file
    finally:
        if raw is found:
            file.detach()
        else:
            file.close()


@contextmanager
def _opened(source: Source, most: int) -> Iterator[Image.Image]:
    with _timed(source) as file, Image.open(file, formats=_formats()) as image:
        if image.width * image.height > most or max(image.size) > MAX_SIDE:
            raise InputError(
                f"{name_of(source)}: {image.width} x {image.height} pixels",
                expected=f"at most {most:,} pixels, and {MAX_SIDE:,} a side",
                fix="scale it down first",
            )
        _require_small_tiles(image, name_of(source), most)
        image.decodermaxblock = BLOCK
        yield image


def _rewindable(source: Source) -> Source:
    """The same, or all of a pipe: a file may be read twice, for its metadata and without."""
    if not hasattr(source, "read") or cast(BinaryIO, source).seekable():
        return source
    whole = io.BytesIO(cast(BinaryIO, source).read())
    whole.name = name_of(source)
    return whole


def _openable(source: Source) -> Source:
    """What Pillow can open; a file at an address is fetched."""
    if hasattr(source, "read"):
        stream = cast(BinaryIO, source)
        stream.seek(0)  # the second time, too
        return stream
    if addresses.is_remote(source):
        return io.BytesIO(addresses.read_bytes(source))
    if source.exists() and not source.is_file():  # a pipe would be waited for, for ever
        raise InputError(f"{source}: not a file", expected="an image file")
    return source


def _bytes(source: Source) -> bytes:
    opened = _openable(source)
    return opened.read_bytes() if isinstance(opened, Path) else opened.read()


@cache
def _formats() -> tuple[str, ...]:
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return FORMATS
    register_heif_opener()
    return (*FORMATS, "HEIF")


@contextmanager
def _told(source: Source, most: int) -> Iterator[None]:
    """Every decoder's complaint becomes an InputError that names the file."""
    name = name_of(source)
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"{name}: no such file") from None
    except Image.DecompressionBombError:
        raise InputError(
            f"{name}: so many pixels that it may be an attack", expected=f"at most {most:,} pixels"
        ) from None
    except UnidentifiedImageError as error:
        known = ", ".join(_formats())
        if name.lower().endswith((".heic", ".heif")) and "HEIF" not in known:
            fix = "pip install 'hqsod[heic]'"
        else:
            fix = "replace the file"
        raise InputError(f"{name}: not an image in {known}", fix=fix) from error
    except _ERRORS as error:
        cut = "truncated" in str(error).lower()
        reason = "the file is truncated" if cut else f"cannot be decoded ({error})"
        raise InputError(
            f"{name}: {reason}", expected="a complete image file", fix="replace the file"
        ) from error


def _orientation(image: Image.Image) -> int:
    try:
        orientation = image.getexif().get(ORIENTATION, 1)
    except _ERRORS:  # EXIF that is nonsense
        return 1
    return orientation if orientation in TURNS else 1


def _without_metadata(data: bytes) -> bytes | None:
    """A PNG or JPEG file without what Pillow might stumble over; None if there is no such thing."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        plain = _plain_png(data)
    elif data.startswith(b"\xff\xd8"):
        plain = _plain_jpeg(data)
    else:
        return None
    return plain if len(plain) < len(data) else None


def _plain_png(data: bytes) -> bytes:
    """Only the chunks that pixels need, and EXIF for the orientation."""
    kept, at = [data[:8]], 8
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4])
        kind = data[at + 4 : at + 8]
        is_exif = kind == b"eXIf" and zlib.crc32(data[at + 4 : end - 4]) == int.from_bytes(
            data[end - 4 : end]
        )
        if is_exif or kind in (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"):
            kept.append(data[at:end])
        at = end
    return b"".join(kept)


def _plain_jpeg(data: bytes) -> bytes:
    """No application's segments and no comments, except EXIF, and Adobe's for the colours."""
    kept, at = [data[:2]], 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4])
        marker, segment = data[at + 1], data[at:end]
        is_adobe = marker == 0xEE and segment[4:9] == b"Adobe" and len(segment) >= 16
        is_exif = marker == 0xE1 and segment[4:10] == b"Exif\0\0"
        if is_adobe or is_exif or not (0xE0 <= marker <= 0xEF or marker == 0xFE):
            kept.append(segment)
        at = end
    return b"".join([*kept, data[at:]])


def eight_bit(image: Image.Image, name: str) -> tuple[Image.Image, str | None]:
    """Bring 16 and 32 bits to mode L by the range that they use, and say so.

    Whole numbers lose lower bits until the highest fits into eight. Numbers with a fraction are
    levels from 0 to 255, or shares where none is above 1.

    Raises:
        InputError: negative numbers, numbers with a fraction above 255, or no numbers.
    """
    if image.mode not in WIDE:
        return image, None
    values = np.asarray(image)
    low, high = values.min(), values.max()
    if not low >= 0 or (values.dtype.kind == "f" and not high <= 255):
        raise InputError(
            f"{name}: values from {low} to {high}",
            expected="whole numbers from 0, shares up to 1 or levels up to 255",
            fix="convert it to 8 bits",
        )
    if values.dtype.kind == "f":
        values = np.round(values * 255 if high <= 1 else values)
        note = "numbers with a fraction, brought to 8 bits"
    else:
        bits = max(int(high).bit_length(), 8)
        values = values.astype(np.uint32) >> (bits - 8)
        note = f"more than 8 bits, of which {bits} are used; brought to 8 bits"
    levels = Image.fromarray(values.astype(np.uint8))
    if "icc_profile" in image.info:
        levels.info["icc_profile"] = image.info["icc_profile"]
    return levels, note


def to_srgb(image: Image.Image) -> tuple[Image.Image, str | None]:
    """Bring an image in RGB, RGBA, CMYK or grey to sRGB by its embedded profile, and say so.

    Without a profile, or with one that is sRGB or does not fit, it stays as it is.
    """
    profile = image.info.get("icc_profile")
    if not profile:
        return image, None
    if image.mode == "L" and profile[16:20] == b"RGB ":  # the colours that the profile is of
        image = image.convert("RGB")
    try:
        transform = _transform(profile, image.mode)
        if transform is None:
            return image, None
        return transform.apply(image), "converted to sRGB from its embedded colour profile"
    except (ImageCms.PyCMSError, *_ERRORS):
        return image, "a colour profile that cannot be used, passed over"


@lru_cache(8)  # a data set has few profiles
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """How a profile's colours become sRGB; None where they are that already."""
    transform = ImageCms.buildTransform(
        ImageCms.ImageCmsProfile(io.BytesIO(profile)),
        ImageCms.createProfile("sRGB"),
        mode,
        "RGBA" if mode == "RGBA" else "RGB",
    )
    levels = np.arange(0, 256, 51, dtype=np.uint8)
    colours = np.array(list(product(levels, repeat=len(mode))), np.uint8)[None]
    sample = Image.fromarray(colours.squeeze(-1) if mode == "L" else colours, mode)
    moved = np.asarray(transform.apply(sample).convert("RGB"), np.int16)
    away = np.abs(moved - np.asarray(sample.convert("RGB"), np.int16)).max()
    return transform if away > NEAR_SRGB else None
