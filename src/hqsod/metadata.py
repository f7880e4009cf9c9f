"""PNG and JPEG files without the metadata that a decoder might stumble over."""

from __future__ import annotations

import zlib


def without_metadata(data: bytes) -> bytes | None:
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
