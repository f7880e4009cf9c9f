"""What hqsod made of the demo's photographs, side by side in one picture.

    python demo/show.py SOURCE BUILT MAPS PICTURE.jpg

SOURCE holds the photographs, BUILT what `hqsod build` made of them, MAPS what
`hqsod predict --cutout` did. The first four columns stand close by, where refining changed most.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from hqsod.dataset.manifest import Manifest
from hqsod.dataset.refining_changes import most_changed

TITLES = ("photograph", "enlarged x4", "mask, x4", "refined mask", "predicted", "cut out")
CELL = 300  # pixels a side
CLOSE = 147  # pixels of the first four columns, twice as large: where refining changed most
CAPTION = 24
SQUARE = 12  # of the chequered ground behind a cut-out
PAPER, INK, LIGHT, DARK = (255, 255, 255), (30, 30, 30), (236, 236, 236), (206, 206, 206)


def main(source: Path, built: Path, maps: Path, out: Path) -> None:
    """Write the picture."""
    with Manifest.open(built) as manifest:
        records = manifest.latest()
    sheet = Image.new("RGB", (len(TITLES) * CELL, len(records) * CELL + CAPTION), PAPER)
    draw = ImageDraw.Draw(sheet)
    for column, title in enumerate(TITLES):
        draw.text((column * CELL + 6, 3), title, fill=INK, font=ImageFont.load_default(15))
    for row, (stem, record) in enumerate(sorted(records.items())):
        assert record.placement is not None
        window = record.placement.window
        large, mask, refined = (
            Image.fromarray(np.asarray(Image.open(built / file.path))[window])
            for file in (record.outputs[name] for name in ("images", "masks", "hq-masks"))
        )
        photo = Image.open(source / "images" / f"{stem}.png").resize(large.size, Image.NEAREST)
        rows, columns = most_changed(np.asarray(mask), np.asarray(refined), CLOSE)
        box = (columns.start, rows.start, columns.stop, rows.stop)
        cells = [
            *(
                layer.crop(box).resize((2 * CLOSE, 2 * CLOSE), Image.NEAREST)
                for layer in (photo, large, mask, refined)
            ),
            Image.open(maps / f"{stem}.png"),
            on_squares(Image.open(maps / "cutouts" / f"{stem}.png")),
        ]
        for column, cell in enumerate(cells):
            cell = cell.convert("RGB")
            cell.thumbnail((CELL - 6, CELL - 6), Image.LANCZOS)
            left, top = ((CELL - side) // 2 for side in cell.size)
            sheet.paste(cell, (column * CELL + left, CAPTION + row * CELL + top))
    sheet.save(out, quality=88)


def on_squares(cutout: Image.Image) -> Image.Image:
    """A cut-out on a chequered ground."""
    y, x = np.indices((cutout.height, cutout.width)) // SQUARE
    ground = np.where(((x + y) % 2)[..., None], np.uint8(LIGHT), np.uint8(DARK))
    return Image.alpha_composite(Image.fromarray(ground).convert("RGBA"), cutout)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
