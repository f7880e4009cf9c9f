"""The contact sheet of a built data set: pairs whole, and close by where refining changed them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from hqsod import images
from hqsod.dataset.folders import IMAGES, MASKS, REFINED
from hqsod.dataset.manifest import Record
from hqsod.dataset.refining_changes import most_changed
from hqsod.errors import InputError
from hqsod.images import Array

LAYERS = (IMAGES, MASKS, REFINED)
ROWS = 12  # pairs: half the most doubtful, half spread over the rest
CELL = 300  # pixels a side
CLOSE = 75  # pixels of the data set that a cell shows close by, at four times their size
CAPTION = 24  # pixels below each row
FLAG_COLOUR, TEXT_COLOUR, PAPER = (214, 40, 57), (30, 30, 30), (255, 255, 255)


def contact_sheet(folder: Path, built: Sequence[Record]) -> Array:
    """Rows of image, mask and refined mask, whole and close by.

    Flagged pairs stand first, framed in red. Close by is where refining changed most.

    Returns:
        (H, W, 3) uint8.
    """
    rows = [_row(folder, record) for record in _choose(built)]
    return np.asarray(np.vstack([_titles(), *rows]), np.uint8)


def _titles() -> Array:
    titles = Image.new("RGB", (2 * len(LAYERS) * CELL, CAPTION), PAPER)
    close = [f"{layer}, close-up" for layer in LAYERS]
    for column, title in enumerate([*LAYERS, *close]):
        position = (column * CELL + 8, 3)
        ImageDraw.Draw(titles).text(position, title, TEXT_COLOUR, ImageFont.load_default(15))
    return np.asarray(titles)


def _choose(built: Sequence[Record]) -> list[Record]:
    by_trust = sorted(built, key=lambda record: (record.score is None, record.score, record.stem))
    if len(by_trust) <= ROWS:
        return by_trust
    doubtful, rest = by_trust[: ROWS // 2], by_trust[ROWS // 2 :]
    spread = np.linspace(0, len(rest) - 1, ROWS - len(doubtful)).astype(int)
    return doubtful + [rest[index] for index in spread]


def _row(folder: Path, record: Record) -> Array:
    sheet = Image.new("RGB", (2 * len(LAYERS) * CELL, CELL + CAPTION), PAPER)
    draw, read = ImageDraw.Draw(sheet), _read(folder, record)
    for column, layer in enumerate(layer for layer in LAYERS if layer in record.outputs):
        if layer not in read:
            draw.text((column * CELL + 8, CELL // 2), "cannot be read", FLAG_COLOUR)
            continue
        cell = Image.fromarray(read[layer])
        cell.thumbnail((CELL - 4, CELL - 4), Image.Resampling.BOX)
        _paste(sheet, cell, column)
    for column, crop in enumerate(_close(read), len(LAYERS)):
        size = (crop.shape[1] * (CELL // CLOSE), crop.shape[0] * (CELL // CLOSE))
        _paste(sheet, Image.fromarray(crop).resize(size, Image.Resampling.NEAREST), column)
    trust = "" if record.score is None else f"  trust {record.score:.2f}"
    caption = f"{record.stem}{trust}{'  FLAGGED' if record.flagged else ''}"
    colour = FLAG_COLOUR if record.flagged else TEXT_COLOUR
    draw.text((8, CELL + 3), caption, fill=colour, font=ImageFont.load_default(15))
    if record.flagged:
        draw.rectangle((0, 0, sheet.width - 1, sheet.height - 1), outline=FLAG_COLOUR, width=3)
    return np.asarray(sheet)


def _read(folder: Path, record: Record) -> dict[str, Array]:
    """The layers that can be read; not one that is damaged, or deleted by hand."""
    read = {}
    for layer in LAYERS:
        if layer in record.outputs:
            opened = images.read_image if layer == IMAGES else images.read_mask
            try:
                read[layer] = opened(folder / record.outputs[layer].path)
            except InputError:
                continue
    return read


def _close(read: Mapping[str, Array]) -> list[Array]:
    """The part of each layer in which refining changed most; none where there is no change."""
    if set(read) != set(LAYERS) or len({array.shape[:2] for array in read.values()}) > 1:
        return []
    window = most_changed(read[MASKS], read[REFINED], CLOSE)
    return [np.ascontiguousarray(read[layer][window]) for layer in LAYERS]


def _paste(sheet: Image.Image, cell: Image.Image, column: int) -> None:
    left = column * CELL + (CELL - cell.width) // 2
    sheet.paste(cell, (left, (CELL - cell.height) // 2))
