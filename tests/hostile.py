"""Image files that ask for far more than they are worth, for the tests and benchmarks/attack.py."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping

from PIL import Image, ImageCms


def encoded(image: Image.Image, form: str = "PNG", **settings: object) -> bytes:
    """The image as a file."""
    buffer = io.BytesIO()
    image.save(buffer, form, **settings)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    """A part of a PNG file."""
    length, check = struct.pack(">I", len(data)), struct.pack(">I", zlib.crc32(kind + data))
    return length + kind + data + check


def png(width: int, height: int, bits: int, colours: int, *parts: bytes) -> bytes:
    """A PNG file of a header and these parts."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colours, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(parts)


def bomb(side: int) -> bytes:
    """A PNG header that promises `side` x `side` pixels."""
    return png(side, side, 8, 2, chunk(b"IDAT", zlib.compress(b"\0" * 9)))


def many_scans(side: int, scans: int) -> bytes:
    """A progressive JPEG with its last scan repeated, which libjpeg decodes over and over."""
    data = encoded(Image.new("L", (side, side), 77), "JPEG", progressive=True)
    return data[:-2] + data[data.rindex(b"\xff\xda") : -2] * scans + b"\xff\xd9"


def many_segments(count: int) -> bytes:
    """A JPEG of empty segments."""
    data = encoded(Image.new("L", (8, 8)), "JPEG")
    return data[:2] + b"\xff\xe5\x00\x02" * count + data[2:]


def many_chunks(count: int) -> bytes:
    """A PNG of empty chunks."""
    return png(1, 1, 8, 0, chunk(b"IDAT", b"") * count, chunk(b"IDAT", zlib.compress(b"\0\0")))


def many_runs(count: int) -> bytes:
    """A BMP of empty runs, which Pillow decodes in Python, two bytes at a time."""
    sizes = (40, 3000, 3000, 1, 8, 1, 2 * count, 0, 0, 256, 0)
    start = struct.pack("<IHHI", 1078 + 2 * count, 0, 0, 1078)
    return b"BM" + start + struct.pack("<IiiHHIIiiII", *sizes) + bytes(1024 + 2 * count)


def tiff(tags: Mapping[int, int], pixels: bytes = b"") -> bytes:
    """A TIFF file of these tags; a value below 0 counts from where `pixels` begin."""
    start = 8 + 2 + 12 * len(tags) + 4
    entries = [(tag, value + start + 1 if value < 0 else value) for tag, value in tags.items()]
    fields = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(entries))
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + fields + bytes(4) + pixels


def tiled_tiff(width: int, height: int) -> bytes:
    """A TIFF of 48 x 32 pixels in one tile of `width` x `height`."""
    pixels = zlib.compress(bytes(width * height if width * height < 10**6 else 9))
    sizes = {256: 48, 257: 32, 258: 8, 259: 8, 262: 1, 277: 1, 322: width, 323: height}
    return tiff({**sizes, 324: -1, 325: len(pixels)}, pixels)


def jpeg_in_tiff(side: int, scans: int) -> bytes:
    """`many_scans` as the one strip of a TIFF, which libtiff decodes in a single call."""
    pixels = many_scans(side, scans)
    sizes = {256: side, 257: side, 258: 8, 259: 7, 262: 1, 277: 1, 278: side}
    return tiff({**sizes, 273: -1, 279: len(pixels)}, pixels)


def overlapping_tags(size: int) -> bytes:
    """A TIFF header, or EXIF, of `size` bytes whose tags all hold the same half of them."""
    count, data = size // 24, size // 2
    start = 8 + 2 + 12 * count + 4
    tags = b"".join(struct.pack("<HHII", 1000 + i, 7, data, start) for i in range(count))
    return b"II*\0\x08\0\0\0" + struct.pack("<H", count) + tags + bytes(4) + bytes(data)


def endless_profile(steps: int) -> bytes:
    """sRGB's profile with a chain of steps that change nothing, for each colour anew."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    count = int.from_bytes(profile[128:132])
    fields = [
        struct.unpack(">4sII", profile[at : at + 12]) for at in range(132, 132 + 12 * count, 12)
    ]
    tags = {name: profile[start : start + length] for name, start, length in fields}
    step = b"matf" + bytes(4) + struct.pack(">HH12f", 3, 3, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0)
    places = [struct.pack(">II", 16 + 8 * steps + i * len(step), len(step)) for i in range(steps)]
    chain = b"mpet" + bytes(4) + struct.pack(">HHI", 3, 3, steps) + b"".join(places) + step * steps
    tags |= {b"D2B0": chain, b"D2B1": chain}
    table, body = struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        table += struct.pack(">4sII", name, 132 + 12 * len(tags) + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    whole = profile[4:8] + b"\x04\x30\0\0" + profile[12:128] + table + body
    return struct.pack(">I", 4 + len(whole)) + whole
