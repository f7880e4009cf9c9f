"""The canvas that an image and its mask are laid on, and where they lie on it.

How large it is a recipe says (`hqsod.building.recipes`); `hqsod.building.pair` checks that an
image fits. Sizes are (height, width).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from hqsod.errors import InputError
from hqsod.pillow_modes import Array

Number = TypeVar("Number", bound=np.generic)


@dataclass(frozen=True, slots=True)
class Placement:
    """Where an image lies on its canvas, in pixels.

    Attributes:
        canvas: (height, width) of the canvas.
        top: first row of the image.
        left: first column of the image.
        size: (height, width) of the image.

    Raises:
        ValueError: the image does not lie within its canvas.
    """

    canvas: tuple[int, int]
    top: int
    left: int
    size: tuple[int, int]

    def __post_init__(self) -> None:
        """Check that the image fits."""
        (height, width), (rows, columns) = self.size, self.canvas
        top, left = self.top, self.left
        if not (0 <= top < top + height <= rows and 0 <= left < left + width <= columns):
            raise ValueError(f"an image of {height} x {width} does not fit {rows} x {columns}")

    @classmethod
    def centred(cls, size: tuple[int, int], canvas: tuple[int, int]) -> Placement:
        """Place an image of `size` in the centre of `canvas`, rounding up and left."""
        (height, width), (rows, columns) = size, canvas
        return cls(canvas, (rows - height) // 2, (columns - width) // 2, size)

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the canvas that the image covers."""
        height, width = self.size
        return slice(self.top, self.top + height), slice(self.left, self.left + width)


def pad(array: Array, placement: Placement) -> Array:
    """Lay an image or mask on its black canvas.

    Args:
        array: uint8, (H, W) or (H, W, C), of `placement.size`.
    """
    if array.shape[:2] != placement.size:
        raise InputError(
            f"an image of {array.shape[0]} x {array.shape[1]}",
            expected=f"{placement.size[0]} x {placement.size[1]} as placed",
        )
    canvas = np.zeros((*placement.canvas, *array.shape[2:]), np.uint8)
    canvas[placement.window] = array
    return canvas


def unpad(array: npt.NDArray[Number], placement: Placement | None) -> npt.NDArray[Number]:
    """Cut the image out of its canvas: the inverse of `pad`, a view.

    Args:
        array: (H, W) or (H, W, C), of `placement.canvas`.
        placement: None where there is no canvas.

    Raises:
        InputError: the array is not of the canvas's size.
    """
    if placement is None:
        return array
    if array.shape[:2] != placement.canvas:
        raise InputError(
            f"a canvas of {array.shape[0]} x {array.shape[1]}",
            expected=f"{placement.canvas[0]} x {placement.canvas[1]} as placed",
        )
    return array[placement.window]
