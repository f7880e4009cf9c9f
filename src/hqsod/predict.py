"""Saliency maps of images: from Python with `Predictor`, or as a job over a list of files."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeAlias, overload

import numpy as np
from PIL import Image

from hqsod import images
from hqsod.cutout import cut_out, overlay
from hqsod.errors import InputError, SettingsError
from hqsod.files import Outcome, Work, make_each
from hqsod.images import Array
from hqsod.inference.saliency import SaliencyNetwork, load_network
from hqsod.inference.scaling import SIZES, Maps, prepare, restore
from hqsod.types import MASK_THRESHOLD

AnyImage: TypeAlias = str | Path | bytes | BinaryIO | Image.Image | Array
SeveralImages: TypeAlias = list[AnyImage] | tuple[AnyImage, ...]
# What can be drawn of an image and its map, uint8. All but the maps go to a folder of that name.
KINDS: Mapping[str, Callable[[Array, Array], Array]] = {
    "maps": lambda _, saliency: saliency,
    "cutouts": cut_out,
    "overlays": overlay,
}


class Predictor:
    """Images to saliency maps.

        saliency = hqsod.Predictor("runs/quick")("photo.jpg")

    Nothing is loaded before the first image comes.

    Args:
        weights: see `hqsod.inference.saliency`; None for the network that ships with hqsod.
        size: height and width images are brought to; None for what the weights were trained at.
        batch: images that go through the network at once; None for what is fastest.
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
        """Height and width images are brought to."""
        size = self.network.size if self._size is None else self._size
        if size not in SIZES:
            raise SettingsError(f"size {size}", expected=f"from {SIZES[0]} to {SIZES[-1]} pixels")
        return size

    @cached_property
    def batch(self) -> int:
        """Images that go through the network at once."""
        batch = self.network.batch if self._batch is None else self._batch
        if batch < 1:
            raise SettingsError(f"batch {batch}", expected="1 or more")
        return batch

    @overload
    def __call__(self, given: AnyImage) -> Maps: ...

    @overload
    def __call__(self, given: SeveralImages) -> list[Maps]: ...

    def __call__(self, given: AnyImage | SeveralImages) -> Maps | list[Maps]:
        """Saliency maps.

        Args:
            given: one image or a list or tuple of them, each a path, a file's bytes or an open file
                (turned as its EXIF orientation says), a PIL image or a (H, W, 3) uint8 RGB array
                (both taken as they are).

        Returns:
            (H, W) float32 probabilities at the image's own size; a list for a list or tuple.

        Raises:
            InputError: an image that cannot be read.
            WeightsError, SettingsError: see `load_network`.
        """
        if not isinstance(given, list | tuple):
            return self((given,))[0]
        maps: list[Maps] = []
        for first in range(0, len(given), self.batch):
            read = [pixels(image) for image in given[first : first + self.batch]]
            made = self.maps([prepare(image, self.size) for image in read])
            maps += [
                restore(small, image.shape[:2]) for small, image in zip(made, read, strict=True)
            ]
        return maps

    def maps(self, prepared: Sequence[Array]) -> Maps:
        """(B, S, S) float32 maps of prepared images."""
        return self.network(np.stack(prepared))


def pixels(image: AnyImage) -> Array:
    """(H, W, 3) uint8 RGB of whatever kind of image.

    Raises:
        InputError: it cannot be read, or is no image.
    """
    if isinstance(image, str | Path):
        return images.read_image(Path(image))
    if isinstance(image, bytes | bytearray | memoryview):
        return images.read_image(io.BytesIO(image))
    if isinstance(image, Image.Image):
        return images.to_rgb(image)
    if not isinstance(image, np.ndarray):
        if hasattr(image, "read"):
            return pixels(image.read())  # a pipe cannot be read twice
        raise InputError(
            f"an image given as {type(image).__name__}",
            expected="a path, bytes, an open file, a PIL image or a (H, W, 3) uint8 array",
        )
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise InputError(f"an array of {image.shape} {image.dtype}", expected="(H, W, 3) uint8 RGB")
    return image


class Read(NamedTuple):
    """An image on its way, and as the network sees it."""

    pixels: Array
    prepared: Array


def read(size: int, source: images.Source, most: int = images.MAX_PIXELS) -> Read:
    """An image of at most so many pixels, prepared; raises as `read_image`."""
    image = images.read_image(source, most)
    return Read(image, prepare(image, size))


def _make(predictor: Predictor, batch: Sequence[Read]) -> list[Maps]:
    return list(predictor.maps([image.prepared for image in batch]))


def draw(kind: str, image: Read, saliency: Maps) -> Array:
    """What is shown of an image and its (S, S) map: one of `KINDS`, uint8."""
    levels = restore(saliency, image.pixels.shape[:2]) * 255
    return KINDS[kind](image.pixels, levels.round().astype(np.uint8))


def _remark(saliency: Maps) -> str | None:
    """What is said of a map without a salient pixel."""
    return None if saliency.max() * 255 > MASK_THRESHOLD else "nothing salient found"


def predict(
    paths: Sequence[Path],
    out: Path,
    predictor: Predictor,
    *,
    kinds: Sequence[str] = ("maps",),
    overwrite: bool = False,
) -> Outcome:
    """Write the results of every image: `out/STEM.png` its map, others in folders below `out`.

    Args:
        paths: the images; one that fails is named and passed over.
        out: folder of the maps; it holds nothing else, so that it can be scored as it is.
        predictor: what makes them.
        kinds: of `KINDS`.
        overwrite: make again what is there.

    Raises:
        OutputError: see `make_each`.
        WeightsError, SettingsError: see `Predictor`.
    """
    work = Work(
        description="predicting",
        read=partial(read, predictor.size),
        make=partial(_make, predictor),
        draw={out / ("" if kind == "maps" else kind): partial(draw, kind) for kind in kinds},
        batch=predictor.batch,
        remark=_remark,
    )
    return make_each(paths, work, overwrite=overwrite)


def predict_one(source: BinaryIO, predictor: Predictor, kind: str = "maps") -> bytes:
    """The result of one image as a PNG file; see `predict`."""
    image = read(predictor.size, io.BytesIO(source.read()))  # a pipe cannot be read twice
    return images.encode_png(draw(kind, image, _make(predictor, [image])[0]))
