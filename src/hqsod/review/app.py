"""The page's server: what it shows and what it takes, over the stores; pictures are never edited.

Every request opens the manifest anew, so that nothing is held that a kill could lose and a build
that is still running is seen as it goes.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import Body, FastAPI, Query, Request, Response
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, Field

from hqsod import images
from hqsod.dataset import decisions as store
from hqsod.dataset.decisions import CORRECTED, LATER, REJECT, Decision, Decisions, OvertakenError
from hqsod.dataset.folders import IMAGES
from hqsod.dataset.manifest import Manifest, Record
from hqsod.errors import HqsodError, InputError
from hqsod.review import listing, tiles, words
from hqsod.review.listing import Listing
from hqsod.types import Placement

CACHE = ".review-cache"
PICTURE = "picture"  # what the page calls the photograph among the layers
CARDS_AT_ONCE = 200
LARGEST_BODY = 64_000_000  # bytes: a painted mask
FOREVER = {"Cache-Control": "private, max-age=31536000, immutable"}  # the address names the content

Who = Annotated[str, Field(min_length=1, max_length=80)]
After = Annotated[int, Field(ge=0)]


class Wish(BaseModel):
    """A decision as the page sends it; fields as in `Decisions.add`."""

    choice: Annotated[str, Field(max_length=80)] | None = None
    note: Annotated[str, Field(max_length=2000)] = ""
    who: Who
    after: After


def create_app(folder: Path, who: str) -> FastAPI:
    """The page on the data set in `folder`; `who` is the name it offers for the reviewer."""
    app = FastAPI(title="hqsod review", docs_url=None, redoc_url=None, openapi_url=None)
    cache = tiles.Cache(folder / CACHE)
    _answer_errors(app)
    _add_reading(app, folder, who)
    _add_pictures(app, folder, cache)
    _add_deciding(app, folder)
    page = resources.files("hqsod.review") / "page"
    app.mount("/", StaticFiles(directory=str(page), html=True))
    return app


def _answer_errors(app: FastAPI) -> None:
    @app.exception_handler(OvertakenError)
    def overtaken(_: Request, error: OvertakenError) -> JSONResponse:
        return JSONResponse({"error": str(error), "decision": asdict(error.decision)}, 409)

    @app.exception_handler(InputError)
    def refused(_: Request, error: InputError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 404)

    @app.exception_handler(HqsodError)
    def failed(_: Request, error: HqsodError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 500)


def _add_reading(app: FastAPI, folder: Path, who: str) -> None:
    @app.get("/api/set")
    def about() -> dict[str, Any]:
        with Listing.open(folder) as pairs:
            known = [words.FIGURES[name] for name in pairs.figures() if name in words.FIGURES]
        return {"name": folder.resolve().name, "who": who, "figures": [asdict(f) for f in known]}

    @app.get("/api/pairs")
    def pairs(query: Annotated[listing.Query, Query()]) -> dict[str, Any]:
        with Listing.open(folder) as pairs:
            return {"stems": pairs.stems(query), "counts": pairs.counts()}

    @app.get("/api/cards")
    def cards(stem: Annotated[list[str], Query(max_length=CARDS_AT_ONCE)]) -> list[dict[str, Any]]:
        with Manifest.open(folder) as manifest, Decisions.open(folder) as decisions:
            found = ((manifest.find(name), decisions.history(name)) for name in stem)
            return [_card(folder, record, history) for record, history in found if record]

    @app.get("/api/pairs/{stem}")
    def pair(stem: str) -> dict[str, Any]:
        record = _find(folder, stem)
        with Decisions.open(folder) as decisions:
            history = decisions.history(stem)
        height, width = images.read_size(tiles.locate(folder, record.outputs[IMAGES].path))
        placement = record.placement or Placement((height, width), 0, 0, (height, width))
        return _card(folder, record, history) | {
            "height": height,
            "width": width,
            "tile": tiles.TILE,
            "window": [placement.top, placement.left, *placement.size],
            "layers": {name: tiles.stamp(path) for name, path in _layers(folder, record).items()},
            "quality": [asdict(line) for line in words.describe(record)],
            "notes": record.notes,
            "history": [asdict(decision) for decision in history],
        }


def _add_pictures(app: FastAPI, folder: Path, cache: tiles.Cache) -> None:
    @app.get("/thumbnails/{stem}/{stamp}.jpg")
    def thumbnail(stem: str, stamp: str) -> Response:
        record = _find(folder, stem)
        if stamp != _thumbnail_stamp(folder, record):
            raise InputError(f"{stem}: the files have changed", fix="load the page again")

        def make() -> dict[str, bytes]:
            layers = list(_layers(folder, record).values())
            image, before = images.read_image(layers[0]), images.read_map(layers[1])
            after = images.read_map(layers[min(2, len(layers) - 1)])
            shown = record.placement.window if record.placement else np.s_[:, :]
            small = tiles.thumbnail(image[shown], before[shown], after[shown])
            return {f"{stamp}.jpg": small}

        return Response(cache.get(stamp, f"{stamp}.jpg", make), 200, FOREVER, "image/jpeg")

    @app.get("/tiles/{stem}/{layer}/{stamp}/{level}-{row}-{column}.png")
    def tile(stem: str, layer: str, stamp: str, level: int, row: int, column: int) -> Response:
        path = _layers(folder, _find(folder, stem)).get(layer)
        if path is None or stamp != tiles.stamp(path):
            raise InputError(f"{stem}: {layer} has changed", fix="load the page again")

        def make() -> dict[str, bytes]:
            read = images.read_image if layer == PICTURE else images.read_map
            return tiles.cut(read(path), stamp)

        name = f"{stamp}-{level}-{row}-{column}.png"
        return Response(cache.get(stamp, name, make), 200, FOREVER, "image/png")


def _add_deciding(app: FastAPI, folder: Path) -> None:
    @app.post("/api/pairs/{stem}/decision")
    def decide(stem: str, wish: Wish) -> dict[str, Any]:
        record = _find(folder, stem)
        allowed = {*_layers(folder, record), REJECT, LATER, None} - {PICTURE}
        if wish.choice not in allowed:
            raise InputError(f"{stem}: no version is called {wish.choice}")
        return _decide(folder, record, wish)

    @app.post("/api/pairs/{stem}/correction")
    def correct(
        stem: str,
        png: Annotated[bytes, Body(media_type="image/png")],
        wish: Annotated[Wish, Query()],
    ) -> dict[str, Any]:
        record = _find(folder, stem)
        mask = images.read_map(io.BytesIO(png))
        size = images.read_size(tiles.locate(folder, record.outputs[IMAGES].path))
        if mask.shape != size:
            raise InputError(
                f"{stem}: a correction of {mask.shape}", expected=f"the picture's {size}"
            )
        path = folder / store.corrected_path(stem)
        taken = wish.model_copy(update={"choice": CORRECTED})
        return _decide(folder, record, taken, lambda: images.write_png(path, mask))


def _decide(
    folder: Path, record: Record, wish: Wish, first: Callable[[], None] | None = None
) -> dict[str, Any]:
    with Decisions.open(folder) as decisions:
        decisions.add(record, wish.who, wish.choice, wish.note, wish.after, first)
        history = decisions.history(record.stem)
    with Listing.open(folder) as pairs:
        counts = pairs.counts()
    return {"card": _card(folder, record, history), "counts": counts}


def _find(folder: Path, stem: str) -> Record:
    with Manifest.open(folder) as manifest:
        record = manifest.find(stem)
    if record is None or record.status != "built" or "/" in stem:
        raise InputError(f"{stem}: no such pair")
    return record


def _layers(folder: Path, record: Record) -> dict[str, Path]:
    """The picture and the versions of its mask, in order, the painted one last."""
    files = {PICTURE: record.outputs[IMAGES].path} | store.versions(record)
    layers = {name: tiles.locate(folder, path) for name, path in files.items()}
    corrected = folder / store.corrected_path(record.stem)
    return layers | ({CORRECTED: corrected} if corrected.is_file() else {})


def _thumbnail_stamp(folder: Path, record: Record) -> str | None:
    """Changes with the files; None where one is missing, which the grid says in its place."""
    try:
        paths = list(_layers(folder, record).values())[:3]
    except InputError:
        return None
    return "-".join(tiles.stamp(path) for path in paths)


def _card(folder: Path, record: Record, history: list[Decision]) -> dict[str, Any]:
    """What the grid shows of a pair."""
    newest = history[0] if history else None
    holds = newest is not None and newest.holds_for(record)
    return {
        "stem": record.stem,
        "score": record.score,
        "flagged": record.flagged,
        "choice": newest.choice if newest and holds else None,
        "note": newest.note if newest else "",
        "number": newest.number if newest else 0,
        "rebuilt": newest is not None and not holds,
        "counts_as": store.chosen(record, newest),
        "thumbnail": _thumbnail_stamp(folder, record),
    }
