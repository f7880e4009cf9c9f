"""What schemathesis takes for a picture: hooks that it loads beside the service's description."""

from __future__ import annotations

import io

import schemathesis
from hypothesis import strategies as st
from PIL import Image

from hqsod.decoding import FORMATS


def encoded(form: str, height: int, width: int, seed: int) -> bytes:
    """Noise of a size as a picture's file."""
    buffer = io.BytesIO()
    noise = Image.effect_noise((width, height), seed).convert("RGB")
    noise.save(buffer, form)
    return buffer.getvalue()


sides = st.integers(1, 40)
for form in FORMATS:
    pictures = st.builds(encoded, st.just(form), sides, sides, st.integers(0, 200))
    schemathesis.openapi.media_type(f"image/{form.lower()}", pictures)


@schemathesis.hook
def filter_case(context: object, case: schemathesis.Case) -> bool:
    """Leave out JPEGs without a background, which no description excludes."""
    query = case.query or {}
    return query.get("format") != "jpg" or "background" in query
