"""The service's addresses: `POST /saliency` and `POST /cutout` take an image's file as the body.

A path for each result, as each has its own description and its own count. The body is the file
itself, or a form with it, and settings are parameters of the address. The file says which format it
has; of the Content-Type only `multipart/form-data` counts. A refusal is JSON whose `error` is a
sentence. `GET /` answers with a page that lists all this and tries it out.
"""

from __future__ import annotations

from importlib import resources
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from hqsod import __version__
from hqsod.decoding import FORMATS
from hqsod.encoding import FORMATS as WRITTEN
from hqsod.predict import Predictor
from hqsod.serve.asked import CutOutAsked, MapAsked
from hqsod.serve.limits import Limits
from hqsod.serve.metrics import Measured
from hqsod.serve.service import Service
from hqsod.web.guard import Address, Guard
from hqsod.web.refusals import answer_errors, described, logged

# What refusals mean. The guard's can come from anywhere, the others where images are sent.
GUARDS = {
    401: "A token is required, and it is missing.",
    403: "Sent by a page of another site.",
    421: "Sent to a name that is not this machine's.",
}
IMAGES = {
    408: "The body did not arrive in time.",
    413: "The body has too many bytes.",
    422: "Not an image, damaged, too many pixels, or a parameter that is unknown or out of range.",
    500: "The network or the drawing failed.",
    503: "All places are taken; Retry-After says how many seconds to wait before retrying.",
}
DESCRIPTION = "The salient object of an image, cut out, and the image's saliency map."


class Health(BaseModel):
    """Whether the service works, and with what.

    Attributes:
        weights: their name, or the end of their path.
        sha256: of their file.
        runs_on: the device, and what runs them.
        precision: `float32` or `bf16`.
        size: height and width that images are brought to, in pixels.
        batch: images that go through the network together at most.
    """

    status: str
    version: str
    weights: str
    sha256: str
    runs_on: str
    precision: str
    size: int
    batch: int


def create_service(predictor: Predictor, limits: Limits, address: Address) -> ASGIApp:
    """The whole service as it listens at `address`: counted, guarded, within `limits`."""
    service = Service(predictor, limits)
    app = create_app(service)
    guarded = Guard(app, address, limits.body)
    return Measured(guarded, service.metrics, frozenset(app.openapi()["paths"]))


def create_app(service: Service) -> FastAPI:
    """The addresses of a service."""
    app = FastAPI(
        title="hqsod",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lambda _: service.running(),
        responses=described(GUARDS),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    answer_errors(app, discreet=True)
    _add_images(app, service)
    _add_watching(app, service)
    page = str(resources.files("hqsod.serve") / "page")

    @app.get("/", include_in_schema=False)
    def index() -> FileResponse:
        return FileResponse(f"{page}/index.html")

    app.mount("/page", StaticFiles(directory=page))
    return app


BINARY: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}


def _operation(written: list[str], *files: str) -> dict[str, Any]:
    """How FastAPI describes an address that takes images, by the files in its form."""
    kinds = {f"image/{name.lower()}": BINARY for name in FORMATS}
    form = {
        "schema": {
            "type": "object",
            "properties": dict.fromkeys(files, BINARY["schema"]),
            "required": ["file"],
            "additionalProperties": False,
        },
        "encoding": {file: {"contentType": ", ".join(kinds)} for file in files},
    }
    answers = {f"image/{name.lower()}": BINARY for name in written}
    return {
        "response_class": Response,
        "responses": {200: {"content": answers}, **described(IMAGES)},
        "openapi_extra": {
            "requestBody": {"required": True, "content": {**kinds, "multipart/form-data": form}}
        },
    }


def _add_images(app: FastAPI, service: Service) -> None:
    written = [name for name, _ in WRITTEN.values()]

    @app.post(
        "/cutout", summary="Salient object, cut out", **_operation(written, "file", "background")
    )
    async def cutout(request: Request, asked: Annotated[CutOutAsked, Query()]) -> Response:
        """RGBA with the object's own colours at its edge, or RGB with a background."""
        return await service.answer(request, "cutouts", asked)

    @app.post("/saliency", summary="The saliency map of an image", **_operation(["PNG"], "file"))
    async def saliency(request: Request, asked: Annotated[MapAsked, Query()]) -> Response:
        """A grey PNG as large as the image, 255 where it is surely salient."""
        return await service.answer(request, "maps", asked)


def _add_watching(app: FastAPI, service: Service) -> None:
    predictor, network = service.predictor, service.predictor.network
    about = Health(
        status="ok",
        version=__version__,
        weights=network.origin.name,
        sha256=network.origin.sha256,
        runs_on=network.runs_on,
        precision=network.precision,
        size=predictor.size,
        batch=predictor.batch,
    )

    @app.get("/health", summary="Whether it works", responses=described({503: "It fails."}))
    async def health() -> Health:
        """Fails once the network has failed on a batch, until a batch succeeds."""
        if service.failure is not None:
            raise HTTPException(503, logged(service.failure))
        return about

    text: dict[int | str, dict[str, Any]] = {
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}}
    }

    @app.get("/metrics", summary="Counters", response_class=Response, responses=text)
    def count() -> Response:
        """For Prometheus, in its text format."""
        return Response(service.metrics.page(), media_type=CONTENT_TYPE_LATEST)
