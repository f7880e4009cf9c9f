"""Masks as COCO's instances (https://cocodataset.org/#format-data), exact to the pixel.

An object without holes becomes polygons, which every tool reads. COCO's polygons have no holes, so
an object with holes becomes run lengths, which FiftyOne, CVAT and pycocotools read.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from hqsod import images
from hqsod.export_dataset.items import Item
from hqsod.masks import MASK_THRESHOLD

Mask = npt.NDArray[np.bool_]
CATEGORY = {"id": 1, "name": "salient object", "supercategory": ""}
FINER = 2  # a contour traced at twice the size passes between the pixels


def instances(items: Sequence[Item], names: Sequence[str]) -> str:
    """The annotations of a split, as JSON.

    Args:
        items: its pairs.
        names: of their images, relative to the images' folder.
    """
    described, annotated = [], []
    for number, (item, name) in enumerate(zip(items, names, strict=True), start=1):
        mask = images.read_mask(item.mask) > MASK_THRESHOLD
        height, width = mask.shape
        size = {"height": height, "width": width}
        described.append({"id": number, "file_name": name, **size, **item.about})
        if mask.any():
            annotated.append({"id": number, "image_id": number, **annotation(mask)})
    told = {"images": described, "annotations": annotated, "categories": [CATEGORY]}
    return json.dumps(told, ensure_ascii=False)


def annotation(mask: Mask) -> dict[str, Any]:
    """Shape, box and area of a mask, (H, W), that is not empty."""
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    box = (columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1)
    return {
        "category_id": CATEGORY["id"],
        "segmentation": polygons(mask) or run_lengths(mask),
        "bbox": [int(side) for side in box],
        "area": int(np.count_nonzero(mask)),
        "iscrowd": 0,
    }


def polygons(mask: Mask) -> list[list[float]]:
    """The contours as x, y, x, y ... in pixels; none where the mask has holes.

    They run through the outer pixels a quarter of a pixel within their edges, so whoever fills them
    by the pixels' centres has the mask back.
    """
    fine = mask.astype(np.uint8).repeat(FINER, axis=0).repeat(FINER, axis=1)
    contours, hierarchy = cv2.findContours(fine, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    if (np.asarray(hierarchy)[0, :, 3] >= 0).any():  # a contour within another is a hole's
        return []
    return [((contour.reshape(-1) + 0.5) / FINER).tolist() for contour in contours]


def run_lengths(mask: Mask) -> dict[str, list[int]]:
    """COCO's uncompressed run lengths: down the columns, the background's first."""
    pixels = mask.reshape(-1, order="F")
    changes = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    edges = np.concatenate(([0], changes, [len(pixels)]))
    lengths = np.diff(edges).tolist()
    return {"size": list(mask.shape), "counts": [0, *lengths] if pixels[0] else lengths}
