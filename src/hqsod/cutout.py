"""Cutting objects out along a saliency map, and showing the map on its picture.

At its edge an object is mixed with what lies behind it. Cut out with those colours it has a rim, so
the object's own colours are estimated: Germer et al., "Fast Multi-Level Foreground Estimation",
ICPR 2020, as the library pymatting computes it.
"""

from __future__ import annotations

import threading

import cv2
import numpy as np

from hqsod.errors import SettingsError
from hqsod.images import Array

MARGIN = 32  # pixels around the object whose colours are looked at too
# Opacity of each level of a saliency map: none below a tenth, all above nine tenths. A network is
# seldom quite sure, and what it leaves at 3 % is seen as a haze around the object.
OPACITY = (np.linspace(-1 / 8, 9 / 8, 256).clip(0, 1) * 255).round().astype(np.uint8)
TINT = (220, 0, 255)  # a colour that few objects have
_one_at_a_time = threading.Lock()  # numba's own threads end the process when called from two


def require_pymatting() -> None:
    """Import the library; its first import after it was installed compiles for a minute or more.

    Raises:
        SettingsError: it is not installed.
    """
    try:
        import pymatting  # noqa: F401 (to see that it is there)
    except ImportError as error:
        raise SettingsError(
            "cut-outs need pymatting, which is not installed", "", "pip install 'hqsod[cutout]'"
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
    from pymatting import estimate_foreground_ml

    opacity = OPACITY[saliency]
    result = np.zeros((*opacity.shape, 4), np.uint8)
    window = _around(opacity)
    alpha = opacity[window]
    colours = image[window]
    if alpha.size > 1:  # a single pixel has no neighbours to tell its colours from
        with _one_at_a_time:
            own = estimate_foreground_ml(colours / np.float32(255), alpha / np.float32(255))
        colours = (own * 255).round().astype(np.uint8)
    result[window] = np.dstack([colours, alpha])
    result[opacity == 0] = 0
    return result


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
