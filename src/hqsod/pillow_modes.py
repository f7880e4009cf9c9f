"""From any mode that Pillow has to RGB or to grey in 8 bits, and what was converted, in words."""

from __future__ import annotations

import io
from functools import lru_cache
from itertools import product

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

from hqsod.decoding import ERRORS, WIDE
from hqsod.errors import InputError

Array = npt.NDArray[np.uint8]

LEVELS = "grey levels from 0 (background) to 255 (object)"
# Between the channels of a mask in RGB; the four of DUTS have 14 at most, on 0.4 % of the pixels.
TRACE_OF_COLOUR = 16
NEAR_SRGB = 2  # levels: a profile that moves no colour further is sRGB, under whatever name
MAX_PROFILE = 4_000_000  # bytes, twice what printers' profiles have
ENDLESS = b"mpet"  # of a profile: a chain of steps for each colour, of any length


def to_rgb(image: Image.Image, name: str) -> tuple[Array, list[str]]:
    """Bring an image to sRGB by its embedded profile; transparency is laid over black.

    Args:
        image: in any mode.
        name: what messages call it.

    Returns:
        (H, W, 3) uint8, and what was converted.

    Raises:
        InputError: values that are no levels, see `_eight_bit`.
    """
    image = _straight(image)
    notes = [_meaning(image.mode)]
    image, narrowed = _eight_bit(image, name)
    transparent = image.has_transparency_data
    if transparent:
        image = image.convert("RGBA")
    elif image.mode not in ("RGB", "CMYK", "L"):
        image = image.convert("RGB")
    image, converted = _to_srgb(image)
    if transparent:
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    return np.array(rgb), [note for note in (*notes, narrowed, converted) if note]


def _meaning(mode: str) -> str | None:
    if mode in ("1", "L", "LA"):
        return "grey, copied to three channels"
    if mode in ("P", "PA"):
        return "palette, converted to RGB"
    return None if mode in ("RGB", *WIDE) else f"{mode}, converted to RGB"


def to_grey(image: Image.Image, name: str) -> tuple[Array, list[str]]:
    """The levels of an image that holds a mask or map, which are none of sRGB's.

    Args, returns: as `to_rgb`; (H, W) uint8.

    Raises:
        InputError: as `to_rgb`; or colours, or levels beside transparency, which say nothing of a
            mask.
    """
    image, narrowed = _eight_bit(_straight(image), name)
    image, laid = _without_transparency(image, name)
    grey, traced = _without_colour(image, name)
    return np.array(grey), [note for note in (narrowed, laid, traced) if note]


def _straight(image: Image.Image) -> Image.Image:
    """The image, in LA if it is in La, grey times opacity, of which Pillow makes nothing else."""
    return image.convert("LA") if image.mode == "La" else image


def _without_transparency(image: Image.Image, name: str) -> tuple[Image.Image, str | None]:
    """The image that holds a mask: where only the transparency says anything, that is the mask."""
    if not image.has_transparency_data:
        return image, None
    image = image.convert("RGBA")
    *colours, alpha = image.split()
    if alpha.getextrema() in ((255, 255), (0, 0)):
        return image.convert("RGB"), None
    if all(low == high for low, high in (channel.getextrema() for channel in colours)):
        return alpha, "in one colour, its transparency taken as the mask"
    black = Image.new("RGBA", image.size, (0, 0, 0, 255))
    if np.asarray(image.convert("RGB"))[np.asarray(alpha) == 0].any():
        raise InputError(
            f"{name}: levels and transparency that say different things",
            expected=LEVELS,
            fix="save the mask without transparency",
        )
    return Image.alpha_composite(black, image).convert("RGB"), "transparency laid over black"


def _without_colour(image: Image.Image, name: str) -> tuple[Image.Image, str | None]:
    """The image in mode L, when it is grey but for a trace of colour."""
    if image.mode in ("1", "L"):
        return image.convert("L"), None
    colours = image.convert("RGB")
    channels = np.asarray(colours)
    spread = channels.max(2) - channels.min(2)
    if spread.max() > TRACE_OF_COLOUR:
        raise InputError(
            f"{name}: a mask in colours (mode {image.mode})",
            expected=LEVELS,
            fix="convert it to a grey image",
        )
    share = np.count_nonzero(spread) / spread.size
    note = f"a trace of colour on {share:.1%} of the pixels, made grey" if share else None
    return colours.convert("L"), note


def _eight_bit(image: Image.Image, name: str) -> tuple[Image.Image, str | None]:
    """Bring 16 and 32 bits to mode L by the range that they use, and say so.

    Whole numbers lose lower bits until the highest fits into eight. Numbers with a fraction are
    levels from 0 to 255, or shares where none is above 1.

    Raises:
        InputError: negative numbers, numbers with a fraction above 255, or no numbers.
    """
    if image.mode not in WIDE:
        return image, None
    values = np.asarray(image)
    low, high = values.min(), values.max()
    if not low >= 0 or (values.dtype.kind == "f" and not high <= 255):
        raise InputError(
            f"{name}: values from {low} to {high}",
            expected="whole numbers from 0, fractions up to 1 or levels up to 255",
            fix="convert it to 8 bits",
        )
    if values.dtype.kind == "f":
        values = np.round(values * 255 if high <= 1 else values)
        note = "floating-point numbers, converted to 8 bits"
    else:
        bits = max(int(high).bit_length(), 8)
        values = values.astype(np.uint32) >> (bits - 8)
        note = f"{bits} bits used, more than 8 stored; reduced to 8 bits"
    levels = Image.fromarray(values.astype(np.uint8))
    if "icc_profile" in image.info:
        levels.info["icc_profile"] = image.info["icc_profile"]
    return levels, note


def _to_srgb(image: Image.Image) -> tuple[Image.Image, str | None]:
    """Bring an image in RGB, RGBA, CMYK or grey to sRGB by its embedded profile, and say so.

    Without a profile, or with one that is sRGB or does not fit, it stays as it is.
    """
    profile = image.info.get("icc_profile")
    if not profile:
        return image, None
    unusable = "a colour profile that cannot be used, passed over"
    if not isinstance(profile, bytes) or len(profile) > MAX_PROFILE or ENDLESS in profile:
        return image, unusable
    if image.mode == "L" and profile[16:20] == b"RGB ":  # the colours that the profile is of
        image = image.convert("RGB")
    try:
        transform = _transform(profile, image.mode)
        if transform is None:
            return image, None
        return transform.apply(image), "converted to sRGB from its embedded colour profile"
    except (ImageCms.PyCMSError, *ERRORS):
        return image, unusable


@lru_cache(8)  # a data set has few profiles
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """How a profile's colours become sRGB; None where they are that already."""
    transform = ImageCms.buildTransform(
        ImageCms.ImageCmsProfile(io.BytesIO(profile)),
        ImageCms.createProfile("sRGB"),
        mode,
        "RGBA" if mode == "RGBA" else "RGB",
    )
    levels = np.arange(0, 256, 51, dtype=np.uint8)
    colours = np.array(list(product(levels, repeat=len(mode))), np.uint8)[None]
    sample = Image.fromarray(colours.squeeze(-1) if mode == "L" else colours, mode)
    moved = np.asarray(transform.apply(sample).convert("RGB"), np.int16)
    away = np.abs(moved - np.asarray(sample.convert("RGB"), np.int16)).max()
    return transform if away > NEAR_SRGB else None
