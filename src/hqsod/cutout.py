"""Cutting objects out along a saliency map, and showing the map on its picture.

At its edge an object is mixed with what lies behind it. Cut out with those colours it has a rim, so
the object's own colours are estimated: Germer et al., "Fast Multi-Level Foreground Estimation",
ICPR 2020, as the library pymatting computes it.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from importlib import import_module

import cv2
import numpy as np

from hqsod.errors import SettingsError
from hqsod.images import Array

MARGIN = 32  # pixels around the object whose colours are looked at too
# Opacity of each level of a saliency map: none below a tenth, all above nine tenths. A network is
# seldom quite sure, and what it leaves at 3 % is seen as a haze around the object.
OPACITY = (np.linspace(-1 / 8, 9 / 8, 256).clip(0, 1) * 255).round().astype(np.uint8)
TINT = (220, 0, 255)  # a colour that few objects have
# pymatting is imported and called in a thread of its own: numba, which it is compiled with, ends
# the process when two threads call it at once, and sets how many threads PyTorch uses in its own.
_colourist = ThreadPoolExecutor(1)


def require_pymatting() -> None:
    """Import the library; its first import after it was installed compiles for a minute.

    Raises:
        SettingsError: it is not installed.
    """
    try:
        _colourist.submit(import_module, "pymatting").result()
    except ImportError as error:
        raise SettingsError(
            "cut-outs need pymatting, which is not installed", fix="pip install 'hqsod[cutout]'"
        ) from error


def cut_out(image: Array, saliency: Array) -> Array:
    """An object with its saliency as its opacity and its own colours at the edges.

    Args:
        image: (H, W, 3) uint8 RGB.
        saliency: (H, W) uint8.

    Returns:
        (H, W, 4) uint8 RGBA; opacity is `OPACITY` of the map; black where it is transparent.

    Raises:
        SettingsError: pymatting is not installed.
    """
    require_pymatting()
    opacity = OPACITY[saliency]
    result = np.zeros((*opacity.shape, 4), np.uint8)
    window = _around(opacity)
    alpha = opacity[window]
    colours = image[window]
    if alpha.size > 1:  # a single pixel has no neighbours to tell its colours from
        colours = _colourist.submit(_own_colours, colours, alpha).result()
    result[window] = np.dstack([colours, alpha])
    result[opacity == 0] = 0
    return result


def _own_colours(image: Array, opacity: Array) -> Array:
    """(H, W, 3) colours of the object where it is mixed with what lies behind it."""
    from numba import set_num_threads
    from pymatting import estimate_foreground_ml

    set_num_threads(1)  # its parallel loops are so short that a second thread slows them down
    colours = estimate_foreground_ml(image / np.float32(255), opacity / np.float32(255))
    levels: Array = (colours * 255).round().astype(np.uint8)
    return levels


def _around(opacity: Array) -> tuple[slice, slice]:
    """The rows and columns of what is not transparent, and a margin; the rest need not be read."""
    left, top, width, height = cv2.boundingRect(opacity)
    return (
        slice(max(0, top - MARGIN), top + height + MARGIN),
        slice(max(0, left - MARGIN), left + width + MARGIN),
    )


def overlay(image: Array, saliency: Array) -> Array:
    """The picture tinted where its map is bright, to look at.

    Args:
        image: (H, W, 3) uint8 RGB.
        saliency: (H, W) uint8.
    """
    share = saliency[..., None] * np.float32(0.5 / 255)
    return (image * (1 - share) + np.array(TINT, np.float32) * share).round().astype(np.uint8)
