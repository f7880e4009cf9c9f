"""How opaque an object's edge is, hair by hair: closed-form matting, as PyMatting solves it.

Levin, Lischinski and Weiss, "A Closed-Form Solution to Natural Image Matting", TPAMI 2008. It needs
to be told what is surely object and what surely is not; that is where a map is sure all around.
"""

from __future__ import annotations

import os
from threading import Lock

import cv2
import numpy as np

from hqsod.images import Array

REACH = 10  # pixels, at the size it is solved at, from the edge to what is sure
SIDE = 800  # of what is solved, at most: 81 numbers a pixel are held, here about 1 GB
BEHIND, OBJECT = 10, 240  # levels of opacity up to and from which a pixel is surely this
MIDDLE = 128  # in the map of what is sure: not known
_alone = Lock()  # numba, which compiles PyMatting, ends a process in which two threads call it


def _renew_lock() -> None:
    """The lock of a forked process, which has none of the threads that could open its parent's."""
    global _alone
    _alone = Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def matte(image: Array, opacity: Array) -> Array:
    """An opacity with its edge decided anew.

    Args:
        image: (H, W, 3) uint8 RGB.
        opacity: (H, W) uint8.

    Returns:
        (H, W) uint8; the opacity given, where nothing is surely object or nothing surely is not.
    """
    factor = min(1.0, SIDE / max(opacity.shape))
    size = [max(1, round(side * factor)) for side in opacity.shape[::-1]]
    small, coarse = (cv2.resize(a, size, interpolation=cv2.INTER_AREA) for a in (image, opacity))
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * REACH + 1, 2 * REACH + 1))
    sure, possible = cv2.erode(coarse, disk) >= OBJECT, cv2.dilate(coarse, disk) > BEHIND
    if min(size) < 3 or not sure.any() or possible.all():
        return opacity
    known = np.where(sure, 255, np.where(possible, MIDDLE, 0))
    from pymatting import estimate_alpha_cf

    with _alone:
        alpha = estimate_alpha_cf(small / 255.0, known / 255.0)
    solved = cv2.resize((alpha.clip(0, 1) * 255).astype(np.float32), opacity.shape[::-1])
    return np.asarray(solved.round(), np.uint8)
