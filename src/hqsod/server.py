"""What every page hqsod serves has in common: who may reach it, and what a request may be.

On a loopback address the machine's own users are trusted, and requests must name the machine (a
page elsewhere whose name was made to point here, DNS rebinding, names another). On any other
address a token is asked for: the printed address carries it, a cookie keeps it. State changes only
by POST from the page itself or from a program, bodies are bounded, and the pages may load nothing
from elsewhere. A refusal is JSON: its `error` is a sentence.
"""

from __future__ import annotations

import ipaddress
import secrets
import socket
from collections.abc import MutableMapping
from dataclasses import dataclass
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

import uvicorn
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hqsod.errors import SettingsError

TOKEN_BYTES = 24
READING = frozenset({"GET", "HEAD"})
OWN_PAGE = frozenset({"same-origin", "none"})  # Sec-Fetch-Site of the page's own requests
SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens and what it takes to reach it.

    Attributes:
        host: name or address bound to.
        port: TCP port.
        token: secret that requests must carry; None on a loopback address.
    """

    host: str
    port: int
    token: str | None

    @property
    def url(self) -> str:
        """What a person opens; carries the token."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        query = f"?token={self.token}" if self.token else ""
        return f"http://{host}:{self.port}/{query}"

    @property
    def cookie(self) -> str:
        """Name of the cookie that keeps the token; servers on other ports have others."""
        return f"hqsod-{self.port}"


class Guard:
    """ASGI middleware that lets only proper requests through to `app`.

    Args:
        app: what is guarded.
        address: where it listens.
        largest_body: bytes a request's body may have.
    """

    def __init__(self, app: ASGIApp, address: Address, largest_body: int) -> None:
        self._app, self._address, self._largest_body = app, address, largest_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the request, or pass it on with its body counted and its answer's headers set."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, _with_headers(send))
            return
        await self._app(scope, self._counted(receive), _with_headers(send))

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host = urlsplit(f"//{headers.get('host', '')}").hostname or ""
        if self._address.token is None:
            if not is_loopback(host):
                return _refuse(421, f"{host}: not a name of this machine")
        elif (refusal := self._token_refusal(scope, headers)) is not None:
            return refusal
        if not _from_own_page(scope, headers):
            return _refuse(403, "requests from other sites are refused")
        if int(headers.get("content-length", "0")) > self._largest_body:
            return _refuse(413, self._too_large())
        return None

    def _too_large(self) -> str:
        return f"more than {self._largest_body:,} bytes"

    def _token_refusal(self, scope: Scope, headers: Headers) -> Response | None:
        """None if the cookie holds the token; a redirect that sets it if the address does."""
        token, name = self._address.token or "", self._address.cookie
        cookie = SimpleCookie(headers.get("cookie", "")).get(name)
        if cookie is not None and _same(cookie.value, token):
            return None
        if _same(headers.get("authorization", ""), f"Bearer {token}"):
            return None
        shown = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if scope["method"] in READING and _same(shown, token):
            answer = RedirectResponse(scope["path"], 303)
            answer.set_cookie(name, token, httponly=True, samesite="strict")
            return answer
        refusal = _refuse(
            401,
            "no token; open the address that hqsod printed, or send it as a bearer token",
        )
        refusal.headers["WWW-Authenticate"] = "Bearer"
        return refusal

    def _counted(self, receive: Receive) -> Receive:
        seen = 0

        async def counting() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._largest_body:  # sent without a length
                raise HTTPException(413, self._too_large())
            return message

        return counting


def _same(given: str, secret: str) -> bool:
    """Compare in a time that says nothing of the secret."""
    return secrets.compare_digest(given.encode(), secret.encode())


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine's own name or address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _from_own_page(scope: Scope, headers: Headers) -> bool:
    """Whether no other site caused the request, by what browsers say of it."""
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if scope["method"] in READING and scope["path"] == "/":
        return True  # a link from elsewhere may open the page
    if site is not None:
        return site in OWN_PAGE
    return origin is None or urlsplit(origin).netloc == headers.get("host")


def _refuse(status: int, reason: str) -> Response:
    return JSONResponse({"error": reason}, status)


def _with_headers(send: Send) -> Send:
    async def sending(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in SECURITY_HEADERS.items():
                headers.setdefault(name, value)
            headers.setdefault("Cache-Control", "no-store")
        await send(message)

    return sending


def listen(host: str, port: int, token: str | None = None) -> tuple[socket.socket, Address]:
    """Listen on `host` and `port`; 0 takes a free port.

    Args:
        host: name or address to bind to.
        port: TCP port.
        token: secret to ask for; None for a new one, or for none on a loopback address.

    Raises:
        SettingsError: the address cannot be bound to.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named as TCP, or asyncio does not see that it is: answers would wait 40 ms for the client's
    # delayed acknowledgement.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen()  # whoever comes before the server is up waits for it
    except OSError as error:
        listening.close()
        raise SettingsError(
            f"{host}:{port}: {error.strerror}",
            expected="a free port of this machine",
            fix="choose another with --port, or 0 for any",
        ) from error
    if not token:  # an empty one, from an empty variable, would let everyone in
        token = None if is_loopback(host) else secrets.token_urlsafe(TOKEN_BYTES)
    return listening, Address(host, listening.getsockname()[1], token)


def run(app: ASGIApp, listening: socket.socket) -> None:
    """Serve until interrupted."""
    config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False)
    uvicorn.Server(config).run(sockets=[listening])
