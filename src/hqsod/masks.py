"""From which level on a pixel is object, in a mask and in a ground truth."""

from __future__ import annotations

import numpy as np

from hqsod.pillow_modes import Array

# A pixel of a mask is object where its level is above this, that is, nearer to 255 than to 0.
MASK_THRESHOLD = 127
# A pixel of a ground truth is object above this: what PySODMetrics and the published tables take,
# so that our figures compare with them. It differs from a mask's threshold at level 128 alone.
GROUND_TRUTH_THRESHOLD = 128


def binarise(mask: Array) -> Array:
    """255 above `MASK_THRESHOLD`, 0 elsewhere, in a mask of any shape."""
    return np.where(mask > MASK_THRESHOLD, np.uint8(255), np.uint8(0))
