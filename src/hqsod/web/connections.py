"""Listening, and how long a connection may keep a server waiting.

A client has little time for its header, its body and for reading the answer. Where there are too
many connections, or too much of the answers lies unread, those whose clients have kept us waiting
longest are closed. So whoever asks and reads promptly is answered, whatever the others do.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
from functools import partial
from typing import Any, cast

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from hqsod.errors import SettingsError
from hqsod.web.guard import BODY_SECONDS, Address, is_loopback

TOKEN_BYTES = 24
CONNECTIONS = 128  # open at once
ACCEPTED_AT_ONCE = 64  # beyond that many, the system keeps new connections waiting
SECONDS = {  # that a client may take
    "header": 10,  # for a request's first line and headers
    "body": BODY_SECONDS + 5,  # the guard's refusal comes first
    "answer": 60,  # to read what it asked for
}
UNREAD_BYTES = 500_000_000  # of answers in memory that clients have not read
END_SECONDS = 30  # for an orderly end, after which what is still open is closed


def listen(host: str, port: int, token: str | None = None) -> tuple[socket.socket, Address]:
    """Listen on `host` and `port`; 0 takes a free port.

    Args:
        host: name or address to bind to.
        port: TCP port.
        token: secret to ask for; None for a new one, or for none on a loopback address.

    Raises:
        SettingsError: the address cannot be bound to, or no header can carry the token.
    """
    if token and not all("!" <= letter <= "~" for letter in token):
        raise SettingsError(
            "a token that no header can carry", expected="visible ASCII, without spaces"
        )
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


class Connection(H11Protocol):
    """A client's connection, closed when the client keeps us waiting too long.

    Args:
        most: connections that may be open at once.
    """

    def __init__(self, *arguments: Any, most: int, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._most = most
        self._awaited = ""  # what the client owes us; empty while the next step is ours
        self._since = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait; make room where there are too many connections."""
        super().connection_made(transport)
        self._note_turn()
        if len(self.connections) > self._most:
            next(iter(self._slowest(*SECONDS)), self)._close()

    def data_received(self, data: bytes) -> None:
        """Take what came."""
        super().data_received(data)
        self._note_turn()

    def on_response_complete(self) -> None:
        """Wait for the next request, or for the answer to be read."""
        super().on_response_complete()
        self._note_turn()

    def pause_writing(self) -> None:
        """Wait for the answer to be read; make room where too much lies unread."""
        super().pause_writing()
        self._note_turn()
        for connection in self._slowest("answer"):
            if sum(c.transport.get_write_buffer_size() for c in self.connections) <= UNREAD_BYTES:
                break
            connection._close()

    def resume_writing(self) -> None:
        """Go on."""
        super().resume_writing()
        self._note_turn()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the waiting."""
        super().connection_lost(exc)
        self._wait_for("")

    def _note_turn(self) -> None:
        if self.flow.write_paused or self.transport.is_closing():
            self._wait_for("answer")
        else:
            states = {h11.IDLE: "header", h11.SEND_BODY: "body"}
            self._wait_for(states.get(self.conn.their_state, ""))

    def _wait_for(self, awaited: str) -> None:
        if awaited == self._awaited:
            return
        self._awaited, self._since = awaited, self.loop.time()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(SECONDS[awaited], self._close) if awaited else None

    def _slowest(self, *awaited: str) -> list[Connection]:
        """Connections that wait for one of these of their clients, the longest waiting first."""
        ours = [one for one in self.connections if isinstance(one, Connection)]  # all of them
        waiting = [connection for connection in ours if connection._awaited in awaited]
        return sorted(waiting, key=lambda connection: connection._since)

    def _close(self) -> None:
        self.transport.abort()
        self.connections.discard(self)


def make(app: ASGIApp, connections: int = CONNECTIONS) -> uvicorn.Server:
    """A server of `app` with at most so many connections; its `run` takes the sockets."""
    config = uvicorn.Config(
        app,
        http=cast(Any, partial(Connection, most=connections)),
        ws="none",
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=ACCEPTED_AT_ONCE,
        timeout_graceful_shutdown=END_SECONDS,
    )
    return uvicorn.Server(config)
