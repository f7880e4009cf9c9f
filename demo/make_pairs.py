"""A small data set to try hqsod on: scikit-image's own photographs, masks from traced outlines.

    python demo/make_pairs.py FOLDER

The pictures are reduced to at most 400 pixels, as DUTS's are. `outlines.json` holds polygons of
(x, y) in the photographs' own pixels, traced by hand.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from skimage import data

LONG_SIDE = 400
OUTLINES = Path(__file__).with_name("outlines.json")


def main(folder: Path) -> None:
    """Write `images/*.png` and `masks/*.png` into `folder`."""
    for name, polygons in json.loads(OUTLINES.read_text()).items():
        photo = Image.fromarray(np.ascontiguousarray(getattr(data, name)()[..., :3]))
        mask = Image.new("L", photo.size)
        for polygon in polygons:
            ImageDraw.Draw(mask).polygon([(x, y) for x, y in polygon], fill=255)
        for kind, picture in (("images", photo), ("masks", mask)):
            picture.thumbnail((LONG_SIDE, LONG_SIDE), Image.Resampling.LANCZOS)
            path = folder / kind / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
