"""The dataclasses that several parts share. Sizes are (height, width)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Pair:
    """A photograph and its mask.

    Attributes:
        stem: the name both are known by, unique within a data set.
        image: path of the photograph.
        mask: path of the mask.
    """

    stem: str
    image: Path
    mask: Path


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
