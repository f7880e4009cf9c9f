"""Superpixels: made by SLIC, or read from the `.mat` files of PurNet's data.

Achanta et al., "SLIC Superpixels", TPAMI 2012, in scikit-image's zero-parameter variant, which
gives close to the number asked for.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hqsod.errors import InputError
from hqsod.images import MAX_PIXELS, Array

Labels = NDArray[np.int16]

# What SciPy lets through for files that are damaged or no MATLAB files at all.
_UNREADABLE = (OSError, ValueError, TypeError, LookupError, NotImplementedError, zlib.error)


def slic_superpixels(image: Array, count: int) -> Labels:
    """Cut an image into about `count` superpixels.

    Args:
        image: (H, W, 3) uint8 RGB.
        count: how many are wanted.

    Returns:
        (H, W) int16 labels, counted from 0 without a gap.
    """
    from skimage.segmentation import slic  # slow to import, and only this needs it

    labels = slic(image, n_segments=count, slic_zero=True, start_label=0, channel_axis=-1)
    return np.asarray(labels, np.int16)


def read_superpixels(path: Path) -> Labels:
    """Read the labels of a MATLAB file, key `sp`.

    Returns:
        (H, W) int16 labels, counted from 0 without a gap.

    Raises:
        InputError: missing, damaged, without `sp`, or not a map of at most 32,767 labels.
    """
    from scipy.io import loadmat, whosmat
    from scipy.io.matlab import MatReadError

    try:
        shapes = {name: shape for name, shape, _ in whosmat(path)}
        shape = shapes.get("sp", ())
        if len(shape) != 2 or np.prod(shape) > MAX_PIXELS:
            raise InputError(f"{path}: arrays {shapes}", expected="an array sp of (height, width)")
        labels = loadmat(path, variable_names=["sp"])["sp"]
    except (*_UNREADABLE, MatReadError) as error:
        raise InputError(f"{path}: {error}", expected="a MATLAB file up to version 7") from error
    found, numbered = np.unique(labels, return_inverse=True)
    if len(found) > np.iinfo(np.int16).max:
        raise InputError(f"{path}: {len(found)} superpixels", expected="at most 32,767")
    return numbered.reshape(labels.shape).astype(np.int16)
