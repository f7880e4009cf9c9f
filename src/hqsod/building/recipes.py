"""What a data set is built with: recipes as values, and the choice between them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from hqsod import weights
from hqsod.errors import SettingsError
from hqsod.masks import MASK_THRESHOLD

SHA256_DIGITS = 64
BF16 = "bfloat16"  # the precision as manifests name it
SCALE = 4  # of the published data set, and so of every recipe


@dataclass(frozen=True, slots=True)
class BuildRecipe:
    """How pairs become high-quality pairs.

    Attributes:
        name: what users call it.
        upscaler: name or path, as `load_upscaler` takes it.
        refiner: name or path, as `load_refiner` takes it.
        predictor: name or path, as `load_network` takes it, of the network whose own
            prediction a mask is compared with; `none` for no such comparison.
        canvas: side of the square canvas in pixels, or None for no canvas.
        meaning: one sentence for the user.
        fallback: whether a flagged refined mask gives way to the upscaled one.
        batch: images of one size that pass the upscaler together, or None for what the device is
            best at.
    """

    name: str
    upscaler: str
    refiner: str
    predictor: str
    canvas: int | None
    meaning: str
    fallback: bool = False
    batch: int | None = None

    def changed(
        self,
        upscaler: str | None = None,
        refiner: str | None = None,
        predictor: str | None = None,
        canvas: int | Literal["none"] | None = None,
        fallback: bool | None = None,
    ) -> BuildRecipe:
        """The recipe with other values, under another name; None leaves a value as it is."""
        new = replace(
            self,
            upscaler=upscaler or self.upscaler,
            refiner=refiner or self.refiner,
            predictor=predictor or self.predictor,
            canvas=self.canvas if canvas is None else None if canvas == "none" else canvas,
        )
        if new != self:
            new = replace(new, name="custom", meaning=_in_words(new))
        return new if fallback is None else replace(new, fallback=fallback)


def _in_words(recipe: BuildRecipe) -> str:
    canvas = f"on a canvas of {recipe.canvas}" if recipe.canvas else "without a canvas"
    return (
        f"images by {recipe.upscaler}, masks by {recipe.refiner}, judged by {recipe.predictor}, "
        f"{canvas}"
    )


RECIPES = {
    recipe.name: recipe
    for recipe in (
        BuildRecipe(
            name="duts-hq",
            upscaler="swinir-l",
            refiner="cascadepsp",
            predictor="purnet-light",
            canvas=1600,
            meaning="the published DUTS-HQ: SwinIR-L images, CascadePSP masks",
        ),
        BuildRecipe(
            name="preview",
            upscaler="hqsod-x4-small",
            refiner="hqsod-refiner-small",
            predictor="purnet-light",
            canvas=1600,
            meaning="the small networks that come with hqsod, far below the published ones",
        ),
    )
}


def choose_recipe(name: str | None) -> BuildRecipe:
    """The named recipe; where None, `duts-hq` if its weights are at hand and `preview` if not.

    Raises:
        SettingsError: no such recipe.
    """
    if name is None:
        published = RECIPES["duts-hq"]
        ready = weights.at_hand(published.upscaler) and weights.at_hand(published.refiner)
        return published if ready else RECIPES["preview"]
    if name not in RECIPES:
        raise SettingsError(f"--recipe {name}", expected=" or ".join(RECIPES))
    return RECIPES[name]


@dataclass(frozen=True, slots=True)
class BuildSettings:
    """Everything that determines the bytes of the outputs, besides the sources themselves.

    Attributes:
        recipe: its name.
        upscaler: the upscaler's name.
        upscaler_weights: SHA-256 of its weight file, empty without weights.
        refiner: the refiner's name, or `none`.
        refiner_weights: likewise.
        predictor: the name of the network whose prediction masks are compared with, or `none`.
        predictor_weights: likewise.
        canvas: side of the square canvas, or None.
        precision: `float32` or `bfloat16`.
        batch: images of one size that pass the upscaler together.
        fallback: whether a flagged refined mask gives way to the upscaled one.
        scale: how many times larger the outputs are than the sources.
        mask_threshold: grey level above which the refiner's input mask is object.
    """

    recipe: str
    upscaler: str
    upscaler_weights: str
    refiner: str
    refiner_weights: str
    predictor: str
    predictor_weights: str
    canvas: int | None
    precision: str
    batch: int
    fallback: bool
    scale: int = SCALE
    mask_threshold: int = MASK_THRESHOLD

    def as_dict(self) -> dict[str, str | int | bool | None]:
        """Plain values, for the manifest."""
        return asdict(self)

    @property
    def key(self) -> str:
        """SHA-256 of the settings: records made with other settings are made again."""
        return hashlib.sha256(json.dumps(self.as_dict(), sort_keys=True).encode()).hexdigest()

    @property
    def precision_name(self) -> str:
        """The precision as `choose_runtime` takes it."""
        return "bf16" if self.precision == BF16 else self.precision

    @property
    def build_recipe(self) -> BuildRecipe:
        """The recipe that leads to these settings, to go on with."""
        recipe = BuildRecipe(
            name=self.recipe,
            upscaler=self.upscaler,
            refiner=self.refiner,
            predictor=self.predictor,
            canvas=self.canvas,
            meaning="",
            fallback=self.fallback,
            batch=self.batch,
        )
        return replace(recipe, meaning=_in_words(recipe))


def read_settings(values: Mapping[str, object]) -> BuildSettings | None:
    """Settings as `as_dict` gave them; None where these values are none, such as of a review."""
    try:
        return TypeAdapter(BuildSettings).validate_json(json.dumps(values), strict=True)
    except ValidationError:
        return None


def differences(before: Mapping[str, object], after: BuildSettings) -> str:
    """What differs between the settings of a data set and those of a run, in words."""
    now = after.as_dict()
    changes = [
        f"{name.replace('_', ' ')} {_short(before.get(name))} -> {_short(value)}"
        for name, value in now.items()
        if before.get(name) != value
    ]
    return ", ".join(changes) or "settings that this version does not know"


def _short(value: object) -> str:
    """A value in a message: of a digest its beginning."""
    text = str(value)
    return text[:8] if len(text) == SHA256_DIGITS else text or "none"
