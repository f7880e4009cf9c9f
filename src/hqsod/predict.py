"""Saliency maps of images: from Python with `Predictor`, or as a job over a list of files."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, TypeAlias, overload

import numpy as np
from PIL import Image

from hqsod import cutout, encoding, images
from hqsod.cutout import CutOut, Shaping
from hqsod.errors import SettingsError
from hqsod.image_jobs import Outcome, Work, make_each
from hqsod.images import AnyImage, Array, pixels
from hqsod.inference.saliency import SaliencyNetwork, load_network
from hqsod.inference.scaling import Maps, prepare, restore
from hqsod.masks import MASK_THRESHOLD

if TYPE_CHECKING:
    from hqsod.inference.refiner import Refiner

REFINER = "hqsod-refiner-small"  # draws edges anew where that is asked for
SeveralImages: TypeAlias = list[AnyImage] | tuple[AnyImage, ...]
# What can be drawn of an image and its map, uint8. All but the maps go to a folder of that name.
KINDS: Mapping[str, Callable[[Array, Array, CutOut], Array]] = {
    "maps": lambda _, saliency, settings: cutout.shape(saliency, settings),
    "cutouts": cutout.cut_out,
    "overlays": lambda image, saliency, settings: cutout.overlay(
        image, cutout.shape(saliency, settings)
    ),
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
        precision: `auto` (float32 in ONNX Runtime, else bf16 where the hardware has it),
            `float32` or `bf16`.
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

    def __getstate__(self) -> dict[str, object]:
        """All but what is loaded, which each process loads for itself."""
        loaded = ("network", "refiner")
        return {name: value for name, value in vars(self).items() if name not in loaded}

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
        sizes = self.network.sizes
        if size not in sizes:
            few = f"{sizes[0]}, which the network is fixed to"
            many = f"from {sizes[0]} to {sizes[-1]} pixels"
            raise SettingsError(f"size {size}", expected=few if len(sizes) == 1 else many)
        return size

    @cached_property
    def batch(self) -> int:
        """Images that go through the network at once."""
        batch = self.network.batch if self._batch is None else self._batch
        if batch < 1:
            raise SettingsError(f"batch {batch}", expected="1 or more")
        return batch

    @cached_property
    def refiner(self) -> Refiner:
        """What draws the maps' edges anew, loaded."""
        from hqsod.inference.refiner import load_refiner
        from hqsod.inference.runtime import choose_runtime, wants_gpu

        like_network = self._precision == "auto" and not wants_gpu(self._device)
        runtime = choose_runtime(self._device, "float32" if like_network else self._precision)
        refiner = load_refiner(REFINER, runtime)
        assert refiner is not None
        return refiner

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
            read = [as_read(self, pixels(image)) for image in given[first : first + self.batch]]
            made = self.maps([image.prepared for image in read])
            maps += [
                restore(small, image.pixels.shape[:2], image.method)
                for small, image in zip(made, read, strict=True)
            ]
        return maps

    def cut_out(self, image: AnyImage, settings: CutOut = cutout.PLAIN) -> Image.Image:
        """What is salient, cut out; its `save` writes any format.

            hqsod.Predictor().cut_out("photo.jpg", hqsod.CutOut(crop=20)).save("object.png")

        Args:
            image: of any kind that calling takes.
            settings: see there; its format is for the command and the service.

        Returns:
            RGBA with the object's own colours at its edge, or RGB with a background.

        Raises:
            InputError, WeightsError, SettingsError: as calling.
        """
        read = as_read(self, pixels(image))
        return Image.fromarray(draw("cutouts", read, make(self, [read], settings)[0], settings))

    def maps(self, prepared: Sequence[Array]) -> Maps:
        """(B, S, S) float32 maps of prepared images."""
        return self.network(np.stack(prepared))

    def refine(self, image: Read, saliency: Maps) -> Maps:
        """A map with its edge drawn anew at the size of its image.

        Args:
            image: the image.
            saliency: (S, S) float32.

        Returns:
            (H, W) float32.
        """
        refined = self.refiner(image.pixels, _levels(image, saliency))
        return refined.astype(np.float32) / np.float32(255)


class Read(NamedTuple):
    """An image on its way, as the network sees it, and how its map is brought back."""

    pixels: Array
    prepared: Array
    method: Image.Resampling


def as_read(predictor: Predictor, image: Array) -> Read:
    """An image, (H, W, 3) uint8, beside itself as the network sees it."""
    method = predictor.network.method
    return Read(image, prepare(image, predictor.size, method), method)


def read(predictor: Predictor, source: images.Source, most: int = images.MAX_PIXELS) -> Read:
    """An image of at most so many pixels, prepared; raises as `read_image`."""
    return as_read(predictor, images.read_image(source, most))


def make(predictor: Predictor, batch: Sequence[Read], settings: Shaping) -> list[Maps]:
    """Maps of images: (S, S), or refined, of the size of the image."""
    maps = list(predictor.maps([image.prepared for image in batch]))
    if settings.refine:
        return [predictor.refine(image, small) for image, small in zip(batch, maps, strict=True)]
    return maps


def draw(kind: str, image: Read, saliency: Maps, settings: CutOut) -> Array:
    """What is shown of an image and its map, as `make` makes it: one of `KINDS`, uint8."""
    return KINDS[kind](image.pixels, _levels(image, saliency), settings)


def _levels(image: Read, saliency: Maps) -> Array:
    """(H, W) uint8 of a map of any size."""
    return (restore(saliency, image.pixels.shape[:2], image.method) * 255).round().astype(np.uint8)


def _remark(written: Array) -> str | None:
    """What is said of a map without a salient pixel."""
    return None if written.max() > MASK_THRESHOLD else "nothing salient found"


def predict(
    found: Mapping[Path, str],
    out: Path,
    predictor: Predictor,
    *,
    kinds: Sequence[str] = ("maps",),
    settings: CutOut = cutout.PLAIN,
    overwrite: bool = False,
) -> Outcome:
    """Write the results of every image: `out/NAME.png` its map, others in folders below `out`.

    Args:
        found: the images by the names of their results, as `find_inputs` finds them; one that
            fails is named and passed over.
        out: folder of the maps; it holds nothing else, so that it can be scored as it is.
        predictor: what makes them.
        kinds: of `KINDS`, maps first, of which is said where nothing is salient.
        settings: how cut-outs are made; what they say of maps holds for all drawn from them.
        overwrite: make again what is there.

    Raises:
        OutputError: see `make_each`.
        WeightsError, SettingsError: see `Predictor`.
    """
    if settings.refine:
        _ = predictor.refiner  # loaded before any work begins
    folders = {out / ("" if kind == "maps" else kind): kind for kind in kinds}
    work = Work(
        description="predicting",
        read=partial(read, predictor),
        make=partial(make, predictor, settings=settings),
        draw={folder: partial(draw, kind, settings=settings) for folder, kind in folders.items()},
        batch=predictor.batch,
        formats={folder: ending(kind, settings) for folder, kind in folders.items()},
        beside=[settings.background] if isinstance(settings.background, Path) else [],
        remark=_remark,
    )
    return make_each(found, work, overwrite=overwrite)


def predict_one(
    source: BinaryIO, predictor: Predictor, kind: str = "maps", settings: CutOut = cutout.PLAIN
) -> bytes:
    """The result of one image as a file; see `predict`."""
    image = read(predictor, io.BytesIO(source.read()))  # a pipe cannot be read twice
    return encoded(kind, image, make(predictor, [image], settings)[0], settings)


def ending(kind: str, settings: CutOut) -> str:
    """The ending of a result's file: only cut-outs come in formats other than PNG."""
    return settings.format if kind == "cutouts" else "png"


def encoded(kind: str, image: Read, saliency: Maps, settings: CutOut) -> bytes:
    """What `draw` draws, as a file."""
    return encoding.encode(draw(kind, image, saliency, settings), ending(kind, settings))


cut_out = Predictor().cut_out  # with the network that ships
