"""What a data set is built with: recipes as values, and the choice between them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from typing import Literal

from hqsod import weights
from hqsod.errors import SettingsError
from hqsod.types import MASK_THRESHOLD

SCALE = 4  # what both the recipes and the published data set enlarge by


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
    """

    name: str
    upscaler: str
    refiner: str
    predictor: str
    canvas: int | None
    meaning: str

    def changed(
        self,
        upscaler: str | None = None,
        refiner: str | None = None,
        predictor: str | None = None,
        canvas: int | Literal["none"] | None = None,
    ) -> BuildRecipe:
        """The recipe with other values, under another name; None leaves one as it is."""
        new = replace(
            self,
            upscaler=upscaler or self.upscaler,
            refiner=refiner or self.refiner,
            predictor=predictor or self.predictor,
            canvas=self.canvas if canvas is None else None if canvas == "none" else canvas,
        )
        if new == self:
            return self
        meaning = (
            f"pictures by {new.upscaler}, masks by {new.refiner}, judged by {new.predictor}, "
            + (f"on a canvas of {new.canvas}" if new.canvas else "without a canvas")
        )
        return replace(new, name="custom", meaning=meaning)


RECIPES = {
    recipe.name: recipe
    for recipe in (
        BuildRecipe(
            name="duts-hq",
            upscaler="swinir-l",
            refiner="cascadepsp",
            predictor="purnet-light",
            canvas=1600,
            meaning="the published DUTS-HQ: SwinIR-L pictures, CascadePSP masks",
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
    """Everything that the bytes of the outputs follow from, beside the sources themselves.

    Attributes:
        recipe: its name.
        upscaler: the upscaler's name.
        upscaler_weights: SHA-256 of its weight file, empty without weights.
        refiner: the refiner's name, or `none`.
        refiner_weights: likewise.
        predictor: the name of the network whose prediction masks are compared with, or `none`.
        predictor_weights: likewise.
        canvas: side of the square canvas, or None.
        precision: `float32` or `bf16`.
        batch: pictures of one size that pass the upscaler together.
        fallback: whether a flagged refined mask gives way to the upscaled one.
        scale: how many times larger the outputs are.
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
