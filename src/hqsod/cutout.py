"""Cutting objects out along a saliency map, and showing the map on its image."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from PIL import Image, ImageColor, ImageOps

from hqsod import extras
from hqsod.encoding import FORMATS
from hqsod.errors import SettingsError
from hqsod.foreground import own_colours
from hqsod.images import AnyImage, Array, pixels
from hqsod.matting import matte

MARGIN = 32  # pixels around the object whose colours are looked at too
MATTING_MARGIN = 8  # the same for matting, in parts of the longer side
# Opacity of each level of a saliency map: none below a tenth, all above nine tenths. A network is
# seldom quite sure, and what it leaves at 3 % is seen as a haze around the object.
OPACITY = (np.linspace(-1 / 8, 9 / 8, 256).clip(0, 1) * 255).round().astype(np.uint8)
TINT = (220, 0, 255)  # a colour that few objects have


@dataclass(frozen=True)
class Shaping:
    """What is done to a saliency map before anything is drawn of it, in this order.

    Attributes:
        refine: whether hqsod's refiner draws its edge anew at the image's own size.
        threshold: from 0 to 1; above it the map becomes 1, elsewhere 0; None for no threshold.
        drop_islands: parts with less than this share of the largest part's area become 0; None for
            none. Parts that touch at a corner are one.

    Raises:
        SettingsError: a value out of range.
        InputError: see `CutOut`.
    """

    refine: bool = False
    threshold: float | None = None
    drop_islands: float | None = None

    def __post_init__(self) -> None:
        for name in ("threshold", "drop_islands"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise SettingsError(f"{name} {value}", expected="from 0 to less than 1")


@dataclass(frozen=True)
class CutOut(Shaping):
    """How an object is cut out.

    Attributes:
        matting: whether closed-form matting decides how opaque the edge is, hair by hair.
        crop: pixels around the object that are kept, as far as there are any; None for the whole
            image.
        background: a colour by its name in CSS or as #rrggbb, or an image of any kind but a `str`,
            which covers the whole and is cut at its sides; None for transparency.
        format: of the file, by its ending, of `hqsod.encoding.FORMATS`: png, webp or jpg.

    Raises:
        SettingsError: a value out of range; jpg without a background; `matting` without PyMatting.
        InputError: a background that cannot be read.
    """

    matting: bool = False
    crop: int | None = None
    background: AnyImage | None = None
    format: str = "png"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.matting:
            extras.require("matting", "matting")
        if self.crop is not None and not (isinstance(self.crop, int) and self.crop >= 0):
            raise SettingsError(f"crop {self.crop}", expected="a whole number of pixels, 0 or more")
        if self.format not in FORMATS:
            raise SettingsError(f"format {self.format}", expected=f"one of {', '.join(FORMATS)}")
        if self.format == "jpg" and self.background is None:
            raise SettingsError(
                "format jpg, which has no transparency", expected="a background, or png or webp"
            )
        _ = self.ground  # read now, before any work begins

    @cached_property
    def ground(self) -> Array | None:
        """What is behind the object: uint8, (3,) of one colour or (H, W, 3) of any size."""
        if self.background is None:
            return None
        if not isinstance(self.background, str):
            return pixels(self.background)
        if (colour := read_colour(self.background)) is None:
            raise SettingsError(
                f"background {self.background!r}",
                expected="a colour such as white or #ffcc00, or an image",
                fix="give the name of a file as a Path",
            )
        return colour


PLAIN = CutOut()


def read_colour(text: str) -> Array | None:
    """(3,) uint8 RGB of a colour's name or #rrggbb; None for any other text."""
    try:
        levels = ImageColor.getrgb(text)
    except ValueError:
        return None
    if len(levels) != 3 or not all(0 <= level <= 255 for level in levels):
        return None
    return np.array(levels, np.uint8)


def shape(saliency: Array, settings: Shaping) -> Array:
    """A map, refined already, with the threshold applied and its islands dropped, (H, W) uint8."""
    if settings.threshold is not None:
        saliency = np.where(saliency > settings.threshold * 255, np.uint8(255), np.uint8(0))
    if settings.drop_islands is not None:
        saliency = _without_islands(saliency, settings.drop_islands)
    return saliency


def _without_islands(saliency: Array, share: float) -> Array:
    seen = (OPACITY[saliency] > 0).astype(np.uint8)
    _, parts, figures, _ = cv2.connectedComponentsWithStats(seen)
    areas = figures[:, cv2.CC_STAT_AREA]
    kept = areas >= share * areas[1:].max(initial=0)
    kept[0] = True  # what is no part; nothing of it is seen
    return np.where(kept[parts], saliency, np.uint8(0))


def cut_out(image: Array, saliency: Array, settings: CutOut = PLAIN) -> Array:
    """An object with its saliency as its opacity and its own colours at the edges.

    Args:
        image: (H, W, 3) uint8 RGB.
        saliency: (H, W) uint8, refined already where that is asked for.
        settings: see there. An image in which nothing is seen is not cropped.

    Returns:
        (h, w, 4) uint8 RGBA, black where it is transparent; (h, w, 3) RGB with a background.
        Opacity is `OPACITY` of the map, or what matting makes of that.
    """
    opacity = np.asarray(cv2.LUT(shape(saliency, settings), OPACITY), np.uint8)
    result = np.zeros((*opacity.shape, 4), np.uint8)
    margin = max(opacity.shape) // MATTING_MARGIN if settings.matting else 0
    window = _around(opacity, max(margin, MARGIN))
    alpha = matte(image[window], opacity[window]) if settings.matting else opacity[window]
    opacity[window] = alpha
    cut = cv2.cvtColor(own_colours(image[window], alpha), cv2.COLOR_RGB2RGBA)
    cut[..., 3] = alpha
    result[window] = cv2.bitwise_and(cut, cut, mask=alpha)  # black where it is transparent
    if settings.crop is not None and opacity.any():
        result = result[_around(opacity, settings.crop)]
    return result if settings.ground is None else _lay_on(settings.ground, result)


def _around(opacity: Array, margin: int) -> tuple[slice, slice]:
    """The rows and columns of what is not transparent, and a margin."""
    left, top, width, height = cv2.boundingRect(opacity)
    return (
        slice(max(0, top - margin), top + height + margin),
        slice(max(0, left - margin), left + width + margin),
    )


def _lay_on(ground: Array, cut: Array) -> Array:
    """A cut-out, (H, W, 4), on one colour, (3,), or on an image, (h, w, 3), that covers it all."""
    height, width = cut.shape[:2]
    if ground.ndim == 3:
        covering = ImageOps.fit(Image.fromarray(ground), (width, height))
    else:
        covering = Image.new("RGB", (width, height), tuple(ground.tolist()))
    covering.paste(Image.fromarray(cut[..., :3]), mask=Image.fromarray(cut[..., 3]))
    return np.asarray(covering)


def overlay(image: Array, saliency: Array) -> Array:
    """The image tinted where its map is bright, to look at.

    Args:
        image: (H, W, 3) uint8 RGB.
        saliency: (H, W) uint8.
    """
    share = saliency[..., None] * np.float32(0.5 / 255)
    return (image * (1 - share) + np.array(TINT, np.float32) * share).round().astype(np.uint8)
