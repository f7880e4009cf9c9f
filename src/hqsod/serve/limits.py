"""What the service accepts, and by default."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits on what the service accepts.

    Attributes:
        places: images that it works on or that wait, at once; at most `places * body` bytes may be
            arriving.
        body: bytes of an image's file, or of the form with it.
        pixels: of an image, height times width.
    """

    places: int = 64
    body: int = 20_000_000
    pixels: int = 25_000_000


DEFAULTS = Limits()
