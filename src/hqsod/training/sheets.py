"""Sheets of predictions to look at: a row for each image, a heading above each column."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from hqsod import images
from hqsod.images import Array

_HEADING = 24  # pixels
_FONT_SIZE = 14


def is_shown(number: int, count: int, most: int) -> bool:
    """Whether an image is on the sheet, which holds at most `most`, spread over all `count`."""
    return number * most // count > (number - 1) * most // count


def sheet(headings: Sequence[str], rows: Sequence[Sequence[Array]], side: int) -> Array:
    """Draw a sheet.

    Args:
        headings: one for each column.
        rows: at least one; as many images in each, (H, W, 3) or (H, W) uint8.
        side: what each image is brought to, in pixels.

    Returns:
        (H, W, 3) uint8.
    """
    strip = Image.new("RGB", (side * len(headings), _HEADING), "white")
    draw, font = ImageDraw.Draw(strip), ImageFont.load_default(_FONT_SIZE)
    for column, heading in enumerate(headings):
        draw.text((side * column + 4, 3), heading, "black", font)
    return np.vstack(
        [np.asarray(strip), *(np.hstack([_tile(i, side) for i in row]) for row in rows)]
    )


def _tile(image: Array, side: int) -> Array:
    small = images.resize(np.asarray(image), (side, side), Image.Resampling.BILINEAR)
    return np.dstack([small] * 3) if small.ndim == 2 else small
