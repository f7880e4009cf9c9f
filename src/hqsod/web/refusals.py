"""Every refusal and every failure of a server is a status and JSON whose `error` is a sentence."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from hqsod.errors import HqsodError, InputError

CLIENT_LEFT = 499  # as nginx counts it; nobody receives it
LOG = logging.getLogger("uvicorn.error")  # where the server prints tracebacks


class Problem(BaseModel):
    """Why there is no result: one sentence."""

    error: str


def described(meanings: Mapping[int, str]) -> dict[int | str, dict[str, Any]]:
    """Refusals as FastAPI describes them, by status."""
    return {
        status: {"model": Problem, "description": meaning} for status, meaning in meanings.items()
    }


def refuse(status: int, reason: str, headers: Mapping[str, str] | None = None) -> Response:
    """An answer that says why there is no other."""
    readable = reason.encode(errors="replace").decode()  # it may repeat what JSON cannot hold
    return JSONResponse({"error": readable}, status, headers)


def logged(error: Exception) -> str:
    """What is told of an error that the server's log has."""
    return f"the server failed ({type(error).__name__}); its log says how"


def answer_errors(app: FastAPI, *, discreet: bool = False) -> None:
    """Make every refusal and every failure of `app` a status and a sentence.

    Args:
        app: the server.
        discreet: whether failures are told to its log alone, as they may name files of the machine.
    """

    @app.exception_handler(HTTPException)
    def refused(_: Request, error: HTTPException) -> Response:
        return refuse(error.status_code, error.detail, error.headers)

    @app.exception_handler(RequestValidationError)
    def unfit(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where, *names = first["loc"]
        # After a parameter's name comes, if anything, which of its types was tried.
        name = names[0] if where == "query" else ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            return refuse(422, f"{name}: there is no such parameter")
        return refuse(422, f"{name}: {first['msg'].removeprefix('Value error, ')}")

    @app.exception_handler(HqsodError)
    def failed(_: Request, error: HqsodError) -> Response:
        if isinstance(error, InputError):
            return refuse(422, str(error))
        if not discreet:
            return refuse(500, str(error))
        LOG.error("%s", error)
        return refuse(500, logged(error))

    @app.exception_handler(Exception)  # the server prints its traceback
    def broken(_: Request, error: Exception) -> Response:
        return refuse(500, logged(error))

    @app.exception_handler(ClientDisconnect)
    def left(_: Request, __: ClientDisconnect) -> Response:
        return Response(status_code=CLIENT_LEFT)
