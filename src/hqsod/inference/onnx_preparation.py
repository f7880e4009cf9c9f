"""How a saliency network wants its images and what its maps mean, as data.

A network of the registry has it in `weights.json`, any other ONNX file in a JSON file beside it,
which comes from strangers as the network does. What `hqsod export` writes needs none: it normalises
inside the graph.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from hqsod.errors import WeightsError
from hqsod.images import Array
from hqsod.inference.scaling import SIZES, Maps, require_numbers

Values = Literal["probabilities", "logits"]

SLACK = 1e-3  # by which rounding may bring a probability out of [0, 1]


@dataclass(frozen=True, slots=True)
class Preparation:
    """What is done to images before the network, and to maps after it.

    Attributes:
        size: side of the square that images are brought to, in pixels; None for the graph's own.
        divisor: what levels from 0 to 255 are divided by: a number, or each image's `maximum`.
        mean: what is then subtracted from red, green and blue.
        std: what the rest is divided by.
        resampling: how images are brought to the square, and maps back to their images.
        output: which of the graph's outputs is the map; None for the first.
        values: what the map holds.
        stretched: whether each map's lowest value becomes 0 and its highest 1.

    Raises:
        ValueError: numbers that cannot be.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    size: int | None = None
    divisor: float | Literal["maximum"] = 255.0
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    resampling: Literal["bilinear", "bicubic", "lanczos"] = "bilinear"
    output: str | None = None
    values: Values = "probabilities"
    stretched: bool = False

    def __post_init__(self) -> None:
        divisor = 255.0 if self.divisor == "maximum" else self.divisor
        if not all(map(math.isfinite, (*self.mean, *self.std, divisor))):
            raise ValueError("mean, std and divisor must be finite")
        if min(*self.std, divisor) <= 0:
            raise ValueError("std and divisor must be above 0")
        if self.size is not None and self.size not in SIZES:
            raise ValueError(f"size must be from {SIZES[0]} to {SIZES[-1]}")

    @property
    def method(self) -> Image.Resampling:
        """`resampling` as Pillow has it."""
        return Image.Resampling[self.resampling.upper()]

    def prepare(self, images: Array, dtype: type[np.generic]) -> npt.NDArray[Any]:
        """(B, S, S, 3) uint8 RGB as (B, 3, S, S) for a graph; one of uint8 prepares it itself."""
        batch = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
        if dtype is np.uint8:
            return batch
        divisor: Any = self.divisor
        if divisor == "maximum":  # a black image stays black
            divisor = batch.max((1, 2, 3), keepdims=True).clip(1).astype(np.float32)
        prepared = batch / np.float32(divisor)
        mean, std = np.array([self.mean, self.std], np.float32).reshape(2, 3, 1, 1)
        prepared -= mean
        prepared /= std
        return prepared.astype(dtype, copy=False)

    def read(self, maps: Maps, name: object) -> Maps:
        """Probabilities, (B, H, W) float32, of the graph's maps of that shape.

        Raises:
            WeightsError: NaN or infinity, or what should be probabilities is not.
        """
        require_numbers(maps, name)
        if self.values == "logits":
            # The sigmoid, without overflow.
            maps = (np.tanh(maps / 2) / 2 + 0.5).astype(np.float32, copy=False)
        elif not are_probabilities(maps):
            raise WeightsError(
                f"{name}: values from {maps.min():.3g} to {maps.max():.3g}",
                expected="probabilities",
                fix="describe it again with `hqsod weights describe`",
            )
        if self.stretched:
            lowest, highest = (f((1, 2), keepdims=True) for f in (maps.min, maps.max))
            reach = highest - lowest
            maps = np.divide(maps - lowest, reach, out=maps.copy(), where=reach > 0)
        return maps.clip(0, 1)


def are_probabilities(maps: Maps) -> bool:
    """Whether all values lie in [0, 1], but for rounding."""
    return bool(maps.min() >= -SLACK and maps.max() <= 1 + SLACK)


def file_beside(network: Path) -> Path:
    """Where an ONNX file's preparation is kept."""
    return network.with_name(f"{network.name}.json")


def from_json(text: str | bytes, name: object) -> Preparation:
    """A preparation from JSON; what it leaves out is as by default.

    Args:
        text: comes from strangers.
        name: what the message calls it.

    Raises:
        WeightsError: no JSON, an unknown key, or a value that cannot be.
    """
    from pydantic import TypeAdapter, ValidationError  # slow to import

    try:
        return TypeAdapter(Preparation).validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise WeightsError(
            f"{name}: {f'{where}: ' if where else ''}{first['msg']}",
            expected="what `hqsod weights describe` writes",
        ) from error


def to_json(preparation: Preparation) -> bytes:
    """The inverse of `from_json`, all values written out."""
    from pydantic import TypeAdapter

    return TypeAdapter(Preparation).dump_json(preparation, indent=1) + b"\n"
