"""Photographs, their saliency maps and cut-outs on one sheet, as `hqsod predict` made them.

    python demo/sheet.py IMAGES MAPS SHEET.jpg

One photograph after the other in the order of their names, in two columns; MAPS is the folder that
`hqsod predict IMAGES --out MAPS --cutout` wrote.
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image
from show import PAPER, on_squares

COLUMNS = 2
CELL = (200, 150)  # pixels, width and height
GAP = 6


def main(images: Path, maps: Path, out: Path) -> None:
    """Write the sheet."""
    photographs = sorted(images.iterdir())
    rows = -(-len(photographs) // COLUMNS)
    width = 3 * CELL[0] + 2 * GAP
    sheet = Image.new("RGB", (COLUMNS * (width + 3 * GAP), rows * (CELL[1] + GAP)), PAPER)
    for number, path in enumerate(photographs):
        cells = [
            Image.open(path),
            Image.open(maps / f"{path.stem}.png"),
            on_squares(Image.open(maps / "cutouts" / f"{path.stem}.png")),
        ]
        left, top = number % COLUMNS * (width + 3 * GAP), number // COLUMNS * (CELL[1] + GAP)
        for cell in cells:
            small = cell.convert("RGB")
            small.thumbnail(CELL, Image.Resampling.LANCZOS)
            sheet.paste(small, (left, top))
            left += CELL[0] + GAP
    sheet.save(out, quality=85)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
