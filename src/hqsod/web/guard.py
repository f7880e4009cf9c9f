"""Who may reach a page, and what a request may be.

On a loopback address the machine's own users are trusted, and requests must name the machine (a
page elsewhere whose name was made to point here, DNS rebinding, names another). On any other
address a token is asked for: the printed address carries it, a cookie keeps it. State changes only
by POST from the page itself or from a program, bodies are bounded, and the pages may load nothing
from elsewhere.
"""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import cookie_parser
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hqsod.web.refusals import refuse

BODY_SECONDS = 30  # in which a request's body must have arrived
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
        query = f"?token={quote(self.token, safe='')}" if self.token else ""
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
        """Refuse the request, or pass it on with its body bounded and its answer's headers set."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = self._refusal(scope, Headers(scope=scope)) or self._app
        await answer(scope, self._bounded(receive), _with_headers(send))

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        if self._address.token is None:
            host = headers.get("host", "")
            if not is_loopback(_host_of(f"//{host}")):
                return refuse(421, f"{host}: not a name of this machine")
        elif (refusal := self._token_refusal(scope, headers)) is not None:
            return refusal
        if not _from_own_page(scope, headers):
            return refuse(403, "requests from other sites are refused")
        if "\0" in scope["path"]:  # older servers of static files end in a traceback
            return refuse(404, "no such page")
        length = headers.get("content-length", "0")
        if not length.isdecimal() or len(length) > 18 or int(length) > self._largest_body:
            return refuse(413, self._too_large())
        return None

    def _too_large(self) -> str:
        return f"more than {self._largest_body:,} bytes"

    def _token_refusal(self, scope: Scope, headers: Headers) -> Response | None:
        """None if the cookie holds the token; a redirect that sets it if the address does."""
        token, name = self._address.token or "", self._address.cookie
        if _same(cookie_parser(headers.get("cookie", "")).get(name, ""), token):
            return None
        if _same(headers.get("authorization", ""), f"Bearer {token}"):
            return None
        shown = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if scope["method"] in READING and scope["path"] == "/" and _same(shown, token):
            answer = RedirectResponse("/", 303)
            answer.set_cookie(name, token, httponly=True, samesite="strict")
            return answer
        refusal = refuse(
            401,
            "no token; open the address that hqsod printed, or send it as a bearer token",
        )
        refusal.headers["WWW-Authenticate"] = "Bearer"
        return refusal

    def _bounded(self, receive: Receive) -> Receive:
        """The request's body, of bounded length and in bounded time; then whether it leaves."""
        until = asyncio.get_running_loop().time() + BODY_SECONDS
        seen, whole = 0, False

        async def bounded() -> Message:
            nonlocal seen, whole
            try:
                async with asyncio.timeout_at(None if whole else until):
                    message = await receive()
            except TimeoutError:
                reason = f"the request's body did not arrive within {BODY_SECONDS:g} s"
                raise HTTPException(408, reason) from None
            seen += len(message.get("body", b""))
            if seen > self._largest_body:  # sent without a length
                raise HTTPException(413, self._too_large())
            whole = not message.get("more_body", False)
            return message

        return bounded


def _same(given: str, secret: str) -> bool:
    """Compare in a time that says nothing of the secret."""
    return secrets.compare_digest(given.encode(), secret.encode())


def _host_of(address: str) -> str:
    """The host that an address names; empty where it is none."""
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""


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
    return origin is None or origin.partition("://")[2] == headers.get("host")


def _with_headers(send: Send) -> Send:
    async def sending(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in SECURITY_HEADERS.items():
                headers.setdefault(name, value)
            headers.setdefault("Cache-Control", "no-store")
        await send(message)

    return sending
