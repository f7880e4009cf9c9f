"""The guided filter: a mask drawn to the edges of its image, without weights.

He, Sun and Tang, "Guided Image Filtering", TPAMI 2013, with a colour guide; fitted on a reduced
image as in He and Sun, "Fast Guided Filter", 2015. Written here on OpenCV's box filter because
the ready-made one is in opencv-contrib alone, which replaces the OpenCV that hqsod installs.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


def guided_filter(
    guide: Floats, mask: Floats, radius: int, smoothness: float, reduction: int = 1
) -> Floats:
    """Filter a mask so that in every window it is a linear function of the guide's colours.

    Args:
        guide: (H, W, 3) float32 in [0, 1].
        mask: (H, W) float32 in [0, 1].
        radius: the windows reach this many pixels to every side.
        smoothness: variance below which the guide counts as flat (epsilon in the paper).
        reduction: the linear functions are fitted on a guide and mask this many times smaller.

    Returns:
        (H, W) float32, about [0, 1]; not clipped.
    """
    height, width = mask.shape
    size = max(1, width // reduction), max(1, height // reduction)
    small, target = (_resize(x, size, cv2.INTER_AREA) for x in (guide, mask))
    reach = max(1, radius // reduction)

    def mean(x: Floats) -> Floats:
        return cv2.blur(x, (2 * reach + 1, 2 * reach + 1)).astype(np.float32, copy=False)

    mean_guide, mean_target = mean(small), mean(target)
    products = (small[..., :, None] * small[..., None, :]).reshape(*small.shape[:2], 9)
    variance = mean(products).reshape(*small.shape[:2], 3, 3)
    variance -= mean_guide[..., :, None] * mean_guide[..., None, :]
    covariance = mean(small * target[..., None]) - mean_guide * mean_target[..., None]
    variance += smoothness * np.eye(3, dtype=np.float32)
    slope = np.linalg.solve(variance, covariance[..., None])[..., 0]
    offset = mean_target - (slope * mean_guide).sum(-1)
    slope, offset = (_resize(mean(x), (width, height), cv2.INTER_LINEAR) for x in (slope, offset))
    filtered: Floats = np.einsum("hwc,hwc->hw", slope, guide) + offset
    return filtered


def _resize(x: Floats, size: tuple[int, int], method: int) -> Floats:
    return cv2.resize(x, size, interpolation=method).astype(np.float32, copy=False)
