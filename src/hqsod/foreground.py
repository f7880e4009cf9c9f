"""The object's own colours at its edge, where it is mixed with what lies behind it.

Keeping those mixed colours would leave a rim, so the object's own are estimated, from coarse to
fine: Germer et al., "Fast Multi-Level Foreground Estimation", ICPR 2020, with the box filters of
Forte, "Approximate Fast Foreground Colour Estimation", ICIP 2021, in place of its walk from pixel
to pixel. Differs from both: the pyramid stops at a quarter of the size, because both colours change
slowly; the mixture itself is solved at full size, in mixed pixels alone. Decision 403 has what that
costs in accuracy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from hqsod.images import Array

Floats = npt.NDArray[np.float32]

REDUCTION = 4  # of the finest level on which colours are spread
BOX = (3, 3)  # pixels, the box filter of a turn
TURNS = 2  # of spreading and correcting on a level
SMALL, SMALL_TURNS = 32, 10  # longest side of the levels that take more turns, nearly for free


def own_colours(image: Array, opacity: Array) -> Array:
    """The image with the object's colours alone where it is mixed with what lies behind.

    Args:
        image: (H, W, 3) uint8 RGB.
        opacity: (H, W) uint8, 255 where there is the object alone.

    Returns:
        (H, W, 3) uint8; meaningless where the opacity is 0.
    """
    result = np.ascontiguousarray(image).copy()
    mixed = np.flatnonzero(cv2.inRange(opacity, 1, 254))
    if mixed.size:
        size = opacity.shape[::-1]
        # In whole levels, which are enlarged in a quarter of the time.
        foreground, background = (
            _floats(_pixels(cv2.resize(colours.round().astype(np.uint8), size)).take(mixed, 0))
            for colours in _spread(image, opacity)
        )
        flat = _pixels(result)
        colours, share = _floats(flat.take(mixed, 0)), _share(opacity.ravel().take(mixed))
        flat[mixed] = _correct(colours, share, foreground, background)[0].round()
    return result


def _pixels(image: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """(H * W, 3), a view."""
    return image.reshape(-1, 3)


def _spread(image: Array, opacity: Array) -> tuple[Floats, Floats]:
    """Colours of the object and of what lies behind it, everywhere, at the reduced size.

    Where one hides the other, its colours come from the neighbourhood and from coarser levels.
    """
    levels = _pyramid(image, opacity)
    foreground = background = levels[-1][0]
    for colours, share in reversed(levels):
        size = share.shape[1::-1]
        foreground, background = _resize(foreground, size), _resize(background, size)
        for _ in range(SMALL_TURNS if max(size) <= SMALL else TURNS):
            blurred = (_floats(cv2.blur(layer, BOX)) for layer in (foreground, background))
            foreground, background = _correct(colours, share, *blurred)
    return foreground, background


def _pyramid(image: Array, opacity: Array) -> list[tuple[Floats, Floats]]:
    """The image, float32, and the object's share of it, by area means, finest first."""
    size = [-(-side // REDUCTION) for side in opacity.shape[::-1]]
    small, coarse = (cv2.resize(a, size, interpolation=cv2.INTER_AREA) for a in (image, opacity))
    levels = [(_floats(small), _share(coarse))]
    while max(size) > 2:
        size = [-(-side // 2) for side in size]
        colours, share = levels[-1]
        levels.append(
            (_resize(colours, size, cv2.INTER_AREA), _resize(share, size, cv2.INTER_AREA))
        )
    return levels


def _resize(level: Floats, size: Sequence[int], method: int = cv2.INTER_LINEAR) -> Floats:
    return _floats(cv2.resize(level, size, interpolation=method))


def _share(opacity: npt.NDArray[Any]) -> Floats:
    """(..., 3) from 0 to 1, once for each colour: numpy is slow where the last side is 1."""
    return np.repeat(_floats(opacity) * np.float32(1 / 255), 3).reshape(*opacity.shape, 3)


def _floats(values: npt.NDArray[Any]) -> Floats:
    return values.astype(np.float32, copy=False)


def _correct(
    colours: Floats, share: Floats, foreground: Floats, background: Floats
) -> tuple[Floats, Floats]:
    """Both colours changed as little as makes their mixture that of the image.

    Minimises the sum of both changes' squares; equation 5 of Forte minimises the object's alone.
    """
    rest = 1 - share
    missing = (colours - share * foreground - rest * background) / (share * share + rest * rest)
    return (foreground + share * missing).clip(0, 255), (background + rest * missing).clip(0, 255)
