"""Images at the size a saliency network sees, and its maps at the size of the images.

An image is brought to the square the network was trained at, whatever its proportions, and its map
is brought back, both bilinearly as in the paper (Li et al., IEEE TIP 30, 2021) unless the network
was trained otherwise.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from hqsod.errors import WeightsError
from hqsod.images import Array, resize

Maps = npt.NDArray[np.float32]

BILINEAR = Image.Resampling.BILINEAR
SIZES = range(32, 4097)  # of the square's side, in pixels


def prepare(image: Array, size: int, method: Image.Resampling = BILINEAR) -> Array:
    """An image as the network sees it, (size, size, 3) uint8; as in training."""
    return resize(image, (size, size), method)


def restore(saliency: Maps, size: tuple[int, int], method: Image.Resampling = BILINEAR) -> Maps:
    """Bring a map to the size of its image, (height, width); what overshoots is cut off."""
    if method is BILINEAR:  # Pillow takes several times as long
        result = cv2.resize(saliency, size[::-1], interpolation=cv2.INTER_LINEAR)
        return result.astype(np.float32, copy=False)
    return np.asarray(Image.fromarray(saliency).resize(size[::-1], method)).clip(0, 1)


def trained_size(text: str, name: object) -> int:
    """The side that weights were trained at, as their metadata tell it.

    Args:
        text: a number of pixels.
        name: what the message calls the weights.

    Raises:
        WeightsError: no number, or one that is not in `SIZES`.
    """
    if not text.isdecimal() or len(text) > len(str(SIZES[-1])) or int(text) not in SIZES:
        raise WeightsError(
            f"{name}: made for images of size {text[:20]!r}",
            expected=f"from {SIZES[0]} to {SIZES[-1]} pixels",
            fix="use weights that hqsod wrote",
        )
    return int(text)


def require_numbers(maps: Maps, name: object) -> None:
    """Check what a network gave.

    Raises:
        WeightsError: it holds NaN or infinity, as the weights must, too.
    """
    if not np.isfinite(maps).all():
        raise WeightsError(
            f"{name}: the network gives saliency maps that are not numbers",
            expected="weights without NaN or infinity",
            fix="use an earlier checkpoint of the training, or fetch the weights again",
        )
