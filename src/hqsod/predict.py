"""Saliency maps of pictures: from Python with `Predictor`, or as a job over a list of files.

A picture is brought to the size the network was trained at, whatever its proportions, and its map
is brought back bilinearly, both as in the paper (Li et al., IEEE TIP 30, 2021).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeAlias, overload

import cv2
import numpy as np
from PIL import Image

from hqsod import images as pictures
from hqsod.cutout import cut_out, overlay, require_pymatting
from hqsod.errors import InputError, SettingsError
from hqsod.files import Outcome, Work, make_each
from hqsod.images import Array
from hqsod.inference.saliency import Maps, SaliencyNetwork, load_network, prepare

Picture: TypeAlias = str | Path | Image.Image | Array
# What can be drawn of a picture and its map, uint8. All but the maps go to a folder of that name.
KINDS: Mapping[str, Callable[[Array, Array], Array]] = {
    "maps": lambda _, saliency: saliency,
    "cutouts": cut_out,
    "overlays": overlay,
}
SIZES = range(32, 4097)


class Predictor:
    """Pictures to saliency maps.

        saliency = hqsod.Predictor("runs/quick")("photo.jpg")

    Nothing is loaded before the first picture comes.

    Args:
        weights: see `hqsod.inference.saliency`; None for the network that ships with hqsod.
        size: height and width pictures are brought to; None for what the weights were trained at.
        batch: pictures that go through the network at once; None for what is fastest.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        precision: `auto` (bf16 where the hardware has it), `float32` or `bf16`.
    """

    def __init__(
        self,
        weights: str | Path | None = None,
        *,
        size: int | None = None,
        batch: int | None = None,
        device: str = "auto",
        precision: str = "auto",
    ) -> None:
        self._weights, self._size, self._batch = weights, size, batch
        self._device, self._precision = device, precision

    @cached_property
    def network(self) -> SaliencyNetwork:
        """The network, loaded.

        Raises:
            WeightsError, SettingsError: see `load_network`.
        """
        return load_network(self._weights, self._device, self._precision)

    @cached_property
    def size(self) -> int:
        """Height and width pictures are brought to."""
        size = self.network.size if self._size is None else self._size
        if size not in SIZES:
            raise SettingsError(f"size {size}", expected=f"from {SIZES[0]} to {SIZES[-1]} pixels")
        return size

    @cached_property
    def batch(self) -> int:
        """Pictures that go through the network at once."""
        batch = self.network.batch if self._batch is None else self._batch
        if batch < 1:
            raise SettingsError(f"batch {batch}", expected="1 or more")
        return batch

    @overload
    def __call__(self, images: Picture) -> Maps: ...  # type: ignore[overload-overlap]  # str is one

    @overload
    def __call__(self, images: Sequence[Picture]) -> list[Maps]: ...

    def __call__(self, images: Picture | Sequence[Picture]) -> Maps | list[Maps]:
        """Saliency maps.

        Args:
            images: one picture or a sequence of them, each a path (turned as its EXIF orientation
                says), a PIL picture or a (H, W, 3) uint8 RGB array (both taken as they are).

        Returns:
            (H, W) float32 probabilities at the picture's own size; a list for a sequence.

        Raises:
            InputError: a picture that cannot be read.
            WeightsError, SettingsError: see `load_network`.
        """
        if isinstance(images, str | Path | Image.Image | np.ndarray):
            return self([images])[0]
        maps: list[Maps] = []
        for first in range(0, len(images), self.batch):
            read = [pixels(image) for image in images[first : first + self.batch]]
            made = self.maps([prepare(image, self.size) for image in read])
            maps += [
                restore(small, image.shape[:2]) for small, image in zip(made, read, strict=True)
            ]
        return maps

    def maps(self, prepared: Sequence[Array]) -> Maps:
        """(B, S, S) float32 maps of prepared pictures."""
        return self.network(np.stack(prepared))


def pixels(image: Picture) -> Array:
    """(H, W, 3) uint8 RGB of whatever kind of picture.

    Raises:
        InputError: it cannot be read, or is an array of another shape or dtype.
    """
    if isinstance(image, str | Path):
        return pictures.read_image(Path(image))
    if isinstance(image, Image.Image):
        return pictures.to_rgb(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise InputError(f"an array of {image.shape} {image.dtype}", expected="(H, W, 3) uint8 RGB")
    return image


def restore(saliency: Maps, size: tuple[int, int]) -> Maps:
    """Bring a map to the size of its picture, (height, width)."""
    result = cv2.resize(saliency, size[::-1], interpolation=cv2.INTER_LINEAR)
    return result.astype(np.float32, copy=False)


class Read(NamedTuple):
    """A picture on its way, and as the network sees it."""

    pixels: Array
    prepared: Array


def read(size: int, source: pictures.Source, most: int = pictures.MAX_PIXELS) -> Read:
    """A picture of at most so many pixels, prepared; raises as `read_image`."""
    image = pictures.read_image(source, most)
    return Read(image, prepare(image, size))


def _make(predictor: Predictor, batch: Sequence[Read]) -> list[Maps]:
    return list(predictor.maps([picture.prepared for picture in batch]))


def draw(kind: str, picture: Read, saliency: Maps) -> Array:
    """What is shown of a picture and its (S, S) map: one of `KINDS`, uint8."""
    levels = restore(saliency, picture.pixels.shape[:2]) * 255
    return KINDS[kind](picture.pixels, levels.round().astype(np.uint8))


def predict(
    paths: Sequence[Path],
    out: Path,
    predictor: Predictor,
    *,
    kinds: Sequence[str] = ("maps",),
    overwrite: bool = False,
) -> Outcome:
    """Write the results of every picture: `out/STEM.png` its map, others in folders below `out`.

    Args:
        paths: the pictures; one that fails is named and passed over.
        out: folder of the maps; it holds nothing else, so that it can be scored as it is.
        predictor: what makes them.
        kinds: of `KINDS`.
        overwrite: make again what is there.

    Raises:
        OutputError: see `make_each`.
        WeightsError, SettingsError: see `Predictor` and `cut_out`.
    """
    if "cutouts" in kinds:
        require_pymatting()
    work = Work(
        description="predicting",
        read=partial(read, predictor.size),
        make=partial(_make, predictor),
        draw={out / ("" if kind == "maps" else kind): partial(draw, kind) for kind in kinds},
        batch=predictor.batch,
    )
    return make_each(paths, work, overwrite=overwrite)


def predict_one(source: BinaryIO, predictor: Predictor, kind: str = "maps") -> bytes:
    """The result of one picture as a PNG file; see `predict`."""
    picture = read(predictor.size, source)
    return pictures.encode_png(draw(kind, picture, _make(predictor, [picture])[0]))
