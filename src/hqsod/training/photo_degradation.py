"""How a sharp photograph becomes a small, worn one: the upscaler's training input.

The idea is BSRGAN's (Zhang et al., "Designing a Practical Degradation Model for Deep Blind Image
Super-Resolution", ICCV 2021): blur, resizing and noise in random order and strength, then JPEG.
It differs in two ways. Most photographs are only reduced, or reduced and compressed, as those of
saliency data sets are. And the steps are milder: what they take away must be worth guessing.

Whole photographs are degraded, not patches, so that borders and JPEG's blocks fall as they will.
"""

from __future__ import annotations

import io
from typing import Annotated

import cv2
import numpy as np
from PIL import Image
from pydantic import Field, NonNegativeFloat, model_validator

from hqsod import encoding, images
from hqsod.images import Array
from hqsod.training.settings import Range, Rate, Section, Share

REDUCE = Image.Resampling.BICUBIC
FILTERS = (Image.Resampling.BICUBIC, Image.Resampling.LANCZOS, Image.Resampling.BOX)
BLUR_RADIUS = 3  # of the kernel, in its largest standard deviations

Quality = Annotated[int, Field(ge=1, le=95)]


class Degradation(Section):
    """How often and how strongly photographs are degraded; ranges are drawn from evenly.

    Attributes:
        clean: share of the photographs that are only reduced.
        compressed: share that are reduced and compressed; the rest goes through every step.
        quality: lowest and highest quality of JPEG.
        blur: standard deviations of a Gaussian along its axes, in pixels of the large image.
        resize: size after a resize on the way, relative to the large image.
        noise: standard deviation of Gaussian noise on the large image, in grey levels.
    """

    clean: Share = 0.5
    compressed: Share = 0.3
    quality: Range[Quality] = (35, 95)
    blur: Range[Rate] = (0.2, 2.5)
    resize: Range[Rate] = (0.4, 1.2)
    noise: Range[NonNegativeFloat] = (0.0, 20.0)

    @model_validator(mode="after")
    def _whole(self) -> Degradation:
        if self.clean + self.compressed > 1:
            raise ValueError(
                f"clean plus compressed to be at most 1, not {self.clean} + {self.compressed}"
            )
        return self


def degrade(image: Array, scale: int, settings: Degradation, rng: np.random.Generator) -> Array:
    """Reduce a photograph, and wear it as `settings` has it.

    Args:
        image: (H, W, 3) uint8 RGB, sides multiples of `scale`.
        scale: how many times smaller the result is.
        settings: how often and how strongly.
        rng: draws everything that is random.

    Returns:
        (H / scale, W / scale, 3) uint8.
    """
    size = (image.shape[0] // scale, image.shape[1] // scale)
    kind = rng.random()
    if kind < settings.clean:
        return images.resize(image, size, REDUCE)
    if kind < settings.clean + settings.compressed:
        return _compress(images.resize(image, size, REDUCE), settings, rng)
    steps = (_blur, _resize, _add_noise)
    for step in rng.permutation(len(steps)):
        image = steps[step](image, settings, rng)
    image = images.resize(image, size, FILTERS[rng.integers(len(FILTERS))])
    return _compress(image, settings, rng)


def compress(image: Array, quality: int) -> Array:
    """What JPEG leaves of a (H, W, 3) uint8 image; colours at half resolution, as is usual."""
    return images.read_image(io.BytesIO(encoding.encode_jpeg(image, quality)))


def _compress(image: Array, settings: Degradation, rng: np.random.Generator) -> Array:
    return compress(image, int(rng.integers(*settings.quality, endpoint=True)))


def _blur(image: Array, settings: Degradation, rng: np.random.Generator) -> Array:
    """Blur with a Gaussian of two widths, turned by a random angle."""
    angle, widths = rng.uniform(0, np.pi), rng.uniform(*settings.blur, 2)
    radius = int(np.ceil(BLUR_RADIUS * widths.max()))
    axis = np.arange(-radius, radius + 1)
    x, y = np.meshgrid(axis, axis)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    kernel = np.exp(-((along / widths[0]) ** 2 + (across / widths[1]) ** 2) / 2)
    blurred = cv2.filter2D(image, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT)
    return blurred.astype(np.uint8, copy=False)


def _resize(image: Array, settings: Degradation, rng: np.random.Generator) -> Array:
    factor = rng.uniform(*settings.resize)
    height, width = (max(1, round(side * factor)) for side in image.shape[:2])
    return images.resize(image, (height, width), FILTERS[rng.integers(len(FILTERS))])


def _add_noise(image: Array, settings: Degradation, rng: np.random.Generator) -> Array:
    """Add Gaussian noise, as often of one value for all colours as of three."""
    channels = 3 if rng.random() < 0.5 else 1
    noise = rng.normal(0, rng.uniform(*settings.noise), (*image.shape[:2], channels))
    return np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)
