"""What all servers have in common: slow clients hold up nobody, and no header breaks the guard."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("fastapi", reason="neither the review nor the serve extra is installed")

from fastapi import FastAPI, Request, Response

from hqsod.web import connections, guard
from hqsod.web.refusals import answer_errors

SECONDS = 60  # after which a test has failed
LARGE = 8_000_000  # bytes of an answer that no socket buffer holds
LOCAL, REMOTE = (guard.Address("127.0.0.1", 80, token) for token in (None, "secret"))


def answers_as_described(url: str, folder: Path, *options: str) -> str:
    """What schemathesis says; it asks what a server's description allows, and anything else."""
    pytest.importorskip("schemathesis", reason="schemathesis is not installed")
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json"]
    hooks = Path(__file__).with_name("schemathesis_hooks.py")
    run = subprocess.run(
        [*command, "--max-examples=25", "--seed=1", "--no-color", *options],
        cwd=folder,
        env={**os.environ, "SCHEMATHESIS_HOOKS": str(hooks)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def small_app() -> FastAPI:
    app = FastAPI()
    answer_errors(app)

    @app.get("/large")
    def large() -> Response:
        return Response(bytes(LARGE))

    @app.get("/never")
    async def never() -> None:
        await asyncio.sleep(10**6)

    @app.post("/length")
    async def length(request: Request) -> int:
        return len(await request.body())

    return app


@contextmanager
def serving(most: int = 100, app: FastAPI | None = None) -> Iterator[int]:
    """A server on the port, in a thread."""
    listening, address = connections.listen("127.0.0.1", 0)
    server = connections.make(guard.Guard(app or small_app(), address, 10**6), most)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield address.port
    finally:
        server.should_exit = True
        thread.join(SECONDS)
        listening.close()
        assert not thread.is_alive()


def begin(port: int, text: str) -> socket.socket:
    """A connection that has sent so much, and reads nothing."""
    connection = socket.create_connection(("127.0.0.1", port), SECONDS)
    connection.sendall(text.encode())
    return connection


def length(port: int, body: object = b"12345") -> tuple[int, object]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)) as connection:
        connection.request("POST", "/length", body)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


def is_closed(connection: socket.socket) -> bool:
    """Read to the end; whether it came."""
    try:
        while connection.recv(1_000_000):
            pass
    except ConnectionResetError:
        pass
    except TimeoutError:
        return False
    return True


HALF = {
    "line": "GET /len",
    "header": "GET /length HTTP/1.1\r\nHost: localhost\r\nX: ",
    "body": "POST /length HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n1",
    "answer": "GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n",
}


@pytest.mark.parametrize("half", HALF.values(), ids=HALF)
def test_too_many_slow_clients_hold_up_nobody(half: str) -> None:
    with serving(most=8) as port, ExitStack() as stack:
        slow = [stack.enter_context(closing(begin(port, half))) for _ in range(30)]
        for _ in range(3):
            assert length(port) == (200, 5)
        assert is_closed(slow[0])


@pytest.mark.parametrize("half", HALF.values(), ids=HALF)
def test_who_is_slow_is_left(half: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "SECONDS", dict.fromkeys(connections.SECONDS, 0.3))
    with serving() as port, closing(begin(port, half)) as slow:
        time.sleep(1)
        start = time.monotonic()
        assert is_closed(slow)
        assert time.monotonic() - start < SECONDS / 2


def test_a_body_must_arrive_in_time_and_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "BODY_SECONDS", 0.3)
    with serving() as port, closing(begin(port, HALF["body"])) as slow:
        answer = http.client.HTTPResponse(slow)
        answer.begin()
        assert answer.status == 408
        assert "within 0.3 s" in json.loads(answer.read())["error"]


def test_answers_that_nobody_reads_fill_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "UNREAD_BYTES", LARGE)
    with serving() as port, ExitStack() as stack:
        slow = [stack.enter_context(closing(begin(port, HALF["answer"]))) for _ in range(4)]
        time.sleep(1)
        read = [len(received(connection)) for connection in slow[:1]]
        assert read[0] < LARGE
        assert length(port) == (200, 5)


def received(connection: socket.socket) -> bytes:
    data = b""
    try:
        while len(data) < LARGE and (part := connection.recv(1_000_000)):
            data += part
    except ConnectionResetError:
        pass
    return data


def test_an_orderly_end_takes_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "END_SECONDS", 1)
    with ExitStack() as stack:
        with serving() as port:
            never = "GET /never HTTP/1.1\r\nHost: localhost\r\n\r\n"
            for text in (*HALF.values(), never):
                stack.enter_context(closing(begin(port, text)))
            assert length(port) == (200, 5)
            start = time.monotonic()
        assert time.monotonic() - start < SECONDS / 2


def test_a_body_has_bounds_with_and_without_a_length() -> None:
    with serving() as port:
        assert length(port, bytes(10**6)) == (200, 10**6)
        for body in (bytes(10**6 + 1), iter([bytes(400_000)] * 3)):
            status, answer = length(port, body)
            assert (status, answer) == (413, {"error": "more than 1,000,000 bytes"})


# ---- the guard, whatever comes


async def inner(scope, receive, send) -> None:
    await Response("in")(scope, receive, send)


def ask(address: guard.Address, path: str, query: bytes = b"", **headers: str):
    """Status and headers that the guard gives; names of headers with - for _."""
    sent = []

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message) -> None:
        sent.append(message)

    raw = [
        (name.lower().replace("_", "-").encode(), text.encode("latin-1", "replace"))
        for name, text in headers.items()
    ]
    scope = {"type": "http", "method": "GET", "path": path, "query_string": query, "headers": raw}
    asyncio.run(guard.Guard(inner, address, 1000)(scope, receive, send))
    return sent[0]["status"], {name.decode(): text.decode() for name, text in sent[0]["headers"]}


odd = st.sampled_from(
    ["[", "http://[", "http://[::1", "//", "a/b", "a/b=c; x", "=", "null", "\ud800", "http://a:b"]
) | st.text(max_size=30)
names = ("Host", "Origin", "Cookie", "Content_Length", "Authorization", "Sec_Fetch_Site")


@given(
    st.sampled_from([LOCAL, REMOTE]),
    st.sampled_from(["/", "/x", "//evil.example/", "/%00"]),
    st.binary(max_size=30) | st.just(b"token=%ff"),
    st.dictionaries(st.sampled_from(names), odd | st.sampled_from(["localhost", "9" * 5000])),
)
def test_no_header_lets_a_stranger_in_or_breaks_anything(address, path, query, headers) -> None:
    status, answer = ask(address, path, query, **headers)
    assert status in (200, 401, 403, 413, 421)
    assert "location" not in answer
    if status == 200:
        assert address is LOCAL
        assert headers["Host"].lower().startswith("localhost")


@pytest.mark.parametrize(
    ("path", "status"), [("/", 303), ("//evil.example/", 401), ("/\\evil.example", 401)]
)
def test_the_token_leads_nowhere_else(path: str, status: int) -> None:
    got, headers = ask(REMOTE, path, b"token=secret")
    assert got == status
    assert headers.get("location", "/") == "/"


@pytest.mark.parametrize("other", ["a/b=c; ", "", "=; x; "])
def test_a_cookie_of_another_page_does_not_hide_ours(other: str) -> None:
    assert ask(REMOTE, "/x", Cookie=f"{other}hqsod-80=secret")[0] == 200
