"""What may be asked of a map and a cut-out: their settings as parameters of an address."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema

from hqsod.cutout import read_colour


def _colour(text: str) -> str:
    if read_colour(text) is None:
        raise ValueError("not a colour; expected one such as white or #ffcc00")
    return text


# `SkipJsonSchema` keeps null out of the description: an address cannot hold it.
Share = Annotated[float, Field(ge=0, lt=1)] | SkipJsonSchema[None]
Pixels = Annotated[int, Field(ge=0)] | SkipJsonSchema[None]
Colour = Annotated[str, AfterValidator(_colour)] | SkipJsonSchema[None]


class MapAsked(BaseModel):
    """`hqsod.cutout.Shaping`."""

    model_config = ConfigDict(extra="forbid")

    refine: bool = Field(False, description="Draw the edge anew at the image's own size.")
    threshold: Share = Field(None, description="Black and white: 255 above this share of 255.")
    drop_islands: Share = Field(
        None, description="Drop parts smaller than this share of the largest part."
    )


class CutOutAsked(MapAsked):
    """`hqsod.cutout.CutOut`; an image for the background comes in a form."""

    matting: bool = Field(False, description="Closed-form matting at the edge, for hair.")
    crop: Pixels = Field(None, description="Crop to the object, with this many pixels around it.")
    background: Colour = Field(
        None,
        description="A colour behind the object: white, #ffcc00.",
        json_schema_extra={"pattern": "^#[0-9a-fA-F]{6}$"},
    )
    format: Literal["png", "webp", "jpg"] = Field(
        "png", description="File format of the answer; jpg needs a background."
    )
