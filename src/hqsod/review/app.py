"""The page's server: what it shows and what it takes, over a `ReviewSet`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from importlib import resources
from typing import Annotated, Any

from fastapi import Body, FastAPI, Path, Query, Request, Response
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles

from hqsod import images
from hqsod.dataset.decisions import OvertakenError
from hqsod.review import listing, pictures
from hqsod.review.data_set import PICTURE, ReviewSet, Wish
from hqsod.review.pictures import MissingError
from hqsod.web.refusals import answer_errors, described, refuse

CARDS_AT_ONCE = 200
LARGEST_BODY = 64_000_000  # bytes: a painted mask
REFUSALS = {
    400: "Not JSON.",
    401: "A token is required, and it is missing.",
    403: "Sent by a page of another site.",
    404: "There is no such pair, version or image, or it is gone.",
    408: "The body did not arrive in time.",
    409: "Somebody decided on the pair meanwhile.",
    413: "The body has too many bytes.",
    421: "Sent to a name that is not this machine's.",
    422: "An invalid value, or a file that is not a mask.",
}
FOREVER = {"Cache-Control": "private, max-age=31536000, immutable"}  # the address names the content

Stamp = Annotated[str, Path(pattern=r"^[0-9a-f-]{16,60}$")]
Number = Annotated[int, Path(ge=0, le=100_000)]  # of a tile's level, row or column


def create_app(data_set: ReviewSet, who: str, cache: pictures.Cache) -> FastAPI:
    """The page on a data set.

    Args:
        data_set: what is reviewed.
        who: the name that the page offers for the reviewer.
        cache: where thumbnails and tiles are kept.
    """
    app = FastAPI(
        title="hqsod review",
        responses=described(REFUSALS),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    answer_errors(app)

    @app.exception_handler(OvertakenError)
    def overtaken(_: Request, error: OvertakenError) -> JSONResponse:
        newest = error.decision and asdict(error.decision)
        return JSONResponse({"error": str(error), "decision": newest}, 409)

    @app.exception_handler(MissingError)
    def missing(_: Request, error: MissingError) -> Response:
        return refuse(404, str(error))

    _add_pairs(app, data_set, who)
    _add_images(app, data_set, cache)
    app.mount("/", StaticFiles(directory=str(resources.files("hqsod.review") / "page"), html=True))
    return app


def _add_pairs(app: FastAPI, data_set: ReviewSet, who: str) -> None:
    @app.get("/api/set")
    def about() -> dict[str, Any]:
        return {**data_set.about(), "who": who}

    @app.get("/api/pairs")
    def pairs(query: Annotated[listing.Query, Query()]) -> dict[str, Any]:
        return data_set.pairs(query)

    @app.get("/api/cards")
    def cards(stem: Annotated[list[str], Query(max_length=CARDS_AT_ONCE)]) -> list[dict[str, Any]]:
        return data_set.cards(stem)

    @app.get("/api/pairs/{stem}")
    def pair(stem: str) -> dict[str, Any]:
        return data_set.pair(stem)

    @app.post("/api/pairs/{stem}/decision")
    def decide(stem: str, wish: Wish) -> dict[str, Any]:
        return data_set.decide(stem, wish)

    @app.post("/api/pairs/{stem}/correction")
    def correct(
        stem: str,
        png: Annotated[bytes, Body(media_type="image/png")],
        wish: Annotated[Wish, Query()],
    ) -> dict[str, Any]:
        return data_set.correct(stem, png, wish)


def _add_images(app: FastAPI, data_set: ReviewSet, cache: pictures.Cache) -> None:
    def kept(group: str, name: str, kind: str, make: Callable[[], dict[str, bytes]]) -> Response:
        return Response(cache.get(group, name, make), 200, FOREVER, f"image/{kind}")

    @app.get("/thumbnails/{stem}/{stamp}.jpg", response_class=Response)
    def thumbnail(stem: str, stamp: Stamp) -> Response:
        name = f"{stamp}.jpg"
        return kept(
            stamp, name, "jpeg", lambda: {name: pictures.thumbnail(*data_set.compared(stem, stamp))}
        )

    @app.get("/close-ups/{stem}/{stamp}.png", response_class=Response)
    def close_up(stem: str, stamp: Stamp) -> Response:
        name = f"{stamp}.png"
        return kept(
            stamp, name, "png", lambda: {name: pictures.close_up(*data_set.compared(stem, stamp))}
        )

    @app.get("/tiles/{stem}/{layer}/{stamp}/{level}-{row}-{column}.png", response_class=Response)
    def tile(
        stem: str, layer: str, stamp: Stamp, level: Number, row: Number, column: Number
    ) -> Response:
        path = data_set.layer(stem, layer, stamp)
        read = images.read_image if layer == PICTURE else images.read_map
        name = f"{stamp}-{level}-{row}-{column}.png"
        return kept(stamp, name, "png", lambda: pictures.cut(read(path), stamp))
