"""The object's own colours at its edge, where it is mixed with what lies behind it.

Cut out with the mixture an object has a rim, so its own colours are estimated, from coarse to fine:
Germer et al., "Fast Multi-Level Foreground Estimation", ICPR 2020, with the box filters of Forte,
"Approximate Fast Foreground Colour Estimation", ICIP 2021, in place of its walk from pixel to
pixel. Differs from both: the pyramid ends at a quarter of the size, for both colours change slowly
beside the mixture, which is solved at full size, where there is one. As close to the truth as the
first (docs/decisions).
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
BOX = (3, 3)  # pixels, from which colours spread in a turn
TURNS = 2  # of spreading and correcting on a level
SMALL, SMALL_TURNS = 32, 10  # longest side of the levels that have more, which cost nothing


def own_colours(image: Array, opacity: Array) -> Array:
    """The image with the object's colours alone where it is mixed with what lies behind.

    Args:
        image: (H, W, 3) uint8 RGB.
        opacity: (H, W) uint8, 255 where there is the object alone.

    Returns:
        (H, W, 3) uint8; meaningless where the opacity is 0.
    """
    mixed = np.nonzero((opacity > 0) & (opacity < 255))
    result = image.copy()
    if mixed[0].size:
        size = opacity.shape[::-1]
        object_, behind = (_resize(colours, size)[mixed] for colours in _spread(image, opacity))
        share = _share(opacity)[mixed]
        result[mixed] = _correct(_floats(image[mixed]), share, object_, behind)[0].round()
    return result


def _spread(image: Array, opacity: Array) -> tuple[Floats, Floats]:
    """Colours of the object and of what lies behind it, everywhere, at the reduced size.

    What a level does not tell, because there the one hides the other, comes from around it and
    from the coarser levels.
    """
    levels = _pyramid(image, opacity)
    object_ = behind = levels[-1][0]
    for colours, share in reversed(levels):
        size = share.shape[1::-1]
        object_, behind = _resize(object_, size), _resize(behind, size)
        for _ in range(SMALL_TURNS if max(size) <= SMALL else TURNS):
            object_, behind = _floats(cv2.blur(object_, BOX)), _floats(cv2.blur(behind, BOX))
            object_, behind = _correct(colours, share, object_, behind)
    return object_, behind


def _pyramid(image: Array, opacity: Array) -> list[tuple[Floats, Floats]]:
    """The image, float32, and the object's share of it, (h, w, 1), by area means, finest first."""
    colours, share, factor = _floats(image), _share(opacity), REDUCTION
    levels: list[tuple[Floats, Floats]] = []
    while not levels or max(share.shape) > 2:
        size = tuple(-(-side // factor) for side in share.shape[1::-1])
        colours = _resize(colours, size, cv2.INTER_AREA)
        share = _resize(share, size, cv2.INTER_AREA).reshape(*size[::-1], 1)
        levels.append((colours, share))
        factor = 2
    return levels


def _resize(level: Floats, size: Sequence[int], method: int = cv2.INTER_LINEAR) -> Floats:
    return _floats(cv2.resize(level, size, interpolation=method))


def _share(opacity: Array) -> Floats:
    """(H, W, 1) from 0 to 1."""
    return _floats(opacity)[..., None] * np.float32(1 / 255)


def _floats(values: npt.NDArray[Any]) -> Floats:
    return values.astype(np.float32, copy=False)


def _correct(
    colours: Floats, share: Floats, object_: Floats, behind: Floats
) -> tuple[Floats, Floats]:
    """Both colours changed as little as makes their mixture that of the image.

    Minimises the sum of both changes' squares: equation 5 of Forte has the object's alone.
    """
    rest = 1 - share
    missing = (colours - share * object_ - rest * behind) / (share * share + rest * rest)
    return (object_ + share * missing).clip(0, 255), (behind + rest * missing).clip(0, 255)
