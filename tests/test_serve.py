"""The service: its answers, its batches, its limits, and its own description of itself."""

from __future__ import annotations

import http.client
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import fields
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

import hqsod
from hqsod import cli, extras, weights
from hqsod.cutout import CutOut, Shaping
from hqsod.decoding import FORMATS
from hqsod.errors import InputError, SettingsError, WeightsError
from hqsod.inference.saliency import SaliencyNetwork, load_network
from hqsod.inference.scaling import Maps
from hqsod.predict import Predictor, predict_one
from tests.conftest import random_picture
from tests.golden import inputs
from tests.hostile import bomb
from tests.networks import save_tiny

for package in ("fastapi", "prometheus_client"):
    pytest.importorskip(package, reason="the serve extra is not installed")

# After the packages they need were asked for.
from prometheus_client.parser import text_string_to_metric_families as parse  # noqa: E402

from hqsod.serve.app import create_service  # noqa: E402
from hqsod.serve.asked import CutOutAsked, MapAsked  # noqa: E402
from hqsod.serve.forms import files_in  # noqa: E402
from hqsod.serve.limits import DEFAULTS, Limits  # noqa: E402
from hqsod.web import connections, guard, refusals  # noqa: E402
from tests.test_web import answers_as_described  # noqa: E402

SECONDS = 60  # after which a test has failed


class Watched(Predictor):
    """A predictor whose network waits for `gate`, counts its batches, and fails when told."""

    def __init__(self, network: SaliencyNetwork, batch: int = 1) -> None:
        super().__init__(batch=batch)
        self.network = network
        self.gate = threading.Event()
        self.gate.set()
        self.batches: list[int] = []
        self.error: Exception | None = None

    def maps(self, prepared: Sequence[np.ndarray]) -> Maps:
        self.batches.append(len(prepared))
        assert self.gate.wait(SECONDS)
        if self.error is not None:
            raise self.error
        return super().maps(prepared)


class Client:
    """A service on a port of its own, asked as programs ask it."""

    def __init__(self, port: int, **headers: str) -> None:
        self.port, self.headers = port, headers
        self.url = f"http://127.0.0.1:{port}"

    def ask(self, method: str, path: str, body: object, headers: dict[str, str]):
        """Status, headers and body of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        with closing(connection):
            connection.request(method, path, body, self.headers | headers)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()

    def get(self, path: str, **headers: str):
        return self.ask("GET", path, None, headers)

    def post(self, path: str, body: object, **headers: str):
        return self.ask("POST", path, body, headers)

    def refused(self, body: object, path: str = "/saliency", **headers: str) -> tuple[int, str]:
        status, _, answer = self.post(path, body, **headers)
        return status, json.loads(answer)["error"]

    def metric(self, name: str, **labels: str) -> float:
        families = parse(self.get("/metrics")[2].decode())
        samples = (sample for family in families for sample in family.samples)
        return sum(
            s.value for s in samples if s.name == name and labels.items() <= s.labels.items()
        )

    def half_a_request(self, body: bytes, sent: int | None = None) -> socket.socket:
        """A connection that has sent so much of a picture, and reads no answer."""
        connection = socket.create_connection(("127.0.0.1", self.port), SECONDS)
        headers = {"Host": "localhost", "Content-Length": str(len(body)), **self.headers}
        lines = ["POST /saliency HTTP/1.1", *(f"{name}: {text}" for name, text in headers.items())]
        connection.sendall("\r\n".join([*lines, "", ""]).encode() + body[:sent])
        return connection


def answered(connection: socket.socket) -> tuple[int, bytes]:
    """What came back on a connection."""
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    return answer.status, answer.read()


@contextmanager
def serving(
    predictor: Predictor, limits: Limits = DEFAULTS, token: str | None = None
) -> Iterator[Client]:
    """A service in a thread; what was taken in is answered before it ends."""
    listening, address = connections.listen("127.0.0.1", 0, token)
    running = connections.make(create_service(predictor, limits, address))
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield Client(address.port)
    finally:
        running.should_exit = True
        thread.join(SECONDS)
        listening.close()
        assert not thread.is_alive()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("weights") / "tiny.safetensors")


@pytest.fixture(scope="module")
def network(tiny: Path) -> SaliencyNetwork:
    return load_network(tiny, "cpu", "float32")


@pytest.fixture(scope="module")
def service(network: SaliencyNetwork) -> Iterator[Client]:
    """A service that many tests ask."""
    with serving(Watched(network, batch=4), Limits(body=1_000_000, pixels=1_000_000)) as client:
        yield client


def encoded(form: str, array: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, form, **options)
    return buffer.getvalue()


def photo(name: str = "chelsea", form: str = "JPEG") -> bytes:
    return encoded(form, np.asarray(inputs.photo(name)))


def decoded(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)))


def require_alike(one: bytes, other: bytes) -> None:
    """Check that two files show the same; another thread may multiply in another order."""
    first, second = (decoded(file).astype(int) for file in (one, other))
    assert first.shape == second.shape
    assert np.abs(first - second).mean() < 0.01


# ---- what it answers


@pytest.mark.parametrize(("path", "kind"), [("/saliency", "maps"), ("/cutout", "cutouts")])
@pytest.mark.parametrize("form", ["JPEG", "WEBP"])
def test_the_answer_is_what_predict_makes(
    service: Client, network: SaliencyNetwork, path: str, kind: str, form: str
) -> None:
    status, headers, png = service.post(path, photo(form=form))
    assert (status, headers["content-type"]) == (200, "image/png")
    wanted = predict_one(io.BytesIO(photo(form=form)), Watched(network), kind)
    assert decoded(wanted).std() > 10, "the test's network must see something"
    require_alike(png, wanted)


@pytest.mark.parametrize(
    ("asked", "settings", "form"),
    [
        ("background=white&crop=5", CutOut(background="white", crop=5), "PNG"),
        ("background=%23102030&format=jpg", CutOut(background="#102030", format="jpg"), "JPEG"),
        ("format=webp&threshold=0.4", CutOut(format="webp", threshold=0.4), "WEBP"),
        ("drop_islands=0.5", CutOut(drop_islands=0.5), "PNG"),
    ],
)
def test_settings_are_those_of_predict(
    service: Client, network: SaliencyNetwork, asked: str, settings: CutOut, form: str
) -> None:
    status, headers, data = service.post(f"/cutout?{asked}", photo())
    assert (status, headers["content-type"]) == (200, f"image/{form.lower()}")
    assert Image.open(io.BytesIO(data)).format == form
    require_alike(data, predict_one(io.BytesIO(photo()), Watched(network), "cutouts", settings))


def test_a_map_has_its_settings_too(service: Client) -> None:
    status, _, png = service.post("/saliency?threshold=0.4", photo())
    assert (status, set(np.unique(decoded(png)))) == (200, {0, 255})
    assert service.refused(photo(), "/saliency?crop=3")[0] == 422


def test_the_service_asks_for_what_the_library_has() -> None:
    for asked, ours in ((MapAsked, Shaping), (CutOutAsked, CutOut)):
        assert set(asked.model_fields) == {field.name for field in fields(ours)}
        assert ours(**asked().model_dump()) == ours()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("size=640", "size: there is no such parameter"),
        ("crop=-1", "crop: Input should be greater than or equal to 0"),
        ("crop=1.5", "crop: Input should be a valid integer"),
        ("threshold=1", "threshold: Input should be less than 1"),
        ("drop_islands=nan", "drop_islands: "),
        ("format=gif", "format: Input should be 'png', 'webp' or 'jpg'"),
        ("format=jpg", "format jpg, which has no transparency; expected a background"),
        ("background=photo.jpg", "background: not a colour; expected one such as white"),
        ("background=/etc/hostname", "background: not a colour"),
        ("background=rgb(300,0,0)", "background: not a colour"),
        ("background=hsl(0,500%25,500%25)", "background: not a colour"),
    ],
)
def test_settings_that_cannot_be_are_refused(service: Client, asked: str, said: str) -> None:
    status, reason = service.refused(photo(), f"/cutout?{asked}")
    assert (status, said in reason) == (422, True), reason


def test_what_is_not_installed_is_refused_in_a_line(
    service: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extras, "_is_there", lambda package: False)
    status, reason = service.refused(photo(), "/cutout?matting=true")
    assert (status, "pip install 'hqsod[matting]'" in reason) == (422, True), reason


def test_health_says_in_plain_fields_what_works(service: Client, tiny: Path) -> None:
    status, _, answer = service.get("/health")
    health = json.loads(answer)
    assert health.pop("runs_on").startswith("cpu (")
    assert (status, health) == (
        200,
        {
            "status": "ok",
            "version": hqsod.__version__,
            "weights": f"{tiny.parent.name}/{tiny.name}",
            "sha256": weights.sha256(tiny),
            "precision": "float32",
            "size": 64,
            "batch": 4,
        },
    )
    assert str(tiny.parent) not in answer.decode()


def test_the_page_loads_nothing_from_elsewhere(service: Client) -> None:
    for path in ("/", "/page/page.css", "/page/page.js"):
        status, headers, text = service.get(path)
        assert status == 200
        assert b"http" not in text.replace(b"http://www.w3.org/", b"")
        assert "default-src 'none'" in headers["content-security-policy"]
    assert b"openapi.json" in text


@pytest.mark.slow
def test_the_page_lists_the_api_and_tries_it(service: Client, tmp_path: Path) -> None:
    from tests.test_review_browser import ARGUMENTS, CHROMIUM, playwright  # skips without it

    if not Path(CHROMIUM).is_file():
        pytest.skip("chromium is not installed")
    (tmp_path / "cat.jpg").write_bytes(photo())
    (tmp_path / "text.jpg").write_text("no picture")
    with playwright.sync_playwright() as run:
        browser = run.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page()
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(service.url)
        page.wait_for_selector("article")
        described = json.loads(service.get("/openapi.json")[2])["paths"]
        shown = page.locator("article h3").all_inner_texts()
        assert [line.split()[1] for line in shown] == list(described)
        page.set_input_files("#file", tmp_path / "text.jpg")
        page.wait_for_selector("#said.bad")
        assert "not an image in JPEG" in page.inner_text("#said")
        assert page.is_checked("input[value='/cutout']")
        page.set_input_files("#file", tmp_path / "cat.jpg")
        page.wait_for_selector("#figure:not([hidden])")
        for name in ("picture", "result"):
            page.wait_for_function(f"document.getElementById('{name}').naturalWidth == 451")
        assert page.get_attribute("#save", "download") == "cat.png"
        assert page.inner_text("#command").endswith("/cutout' > result")
        Image.new("RGB", (40, 30), "green").save(tmp_path / "green.png")
        page.click("summary")
        page.set_input_files("fieldset[name='/cutout'] [data-file]", tmp_path / "green.png")
        page.select_option("[data-parameter=format]", "jpg")
        page.fill("fieldset[name='/cutout'] [data-parameter=threshold]", "0.9")
        page.press("fieldset[name='/cutout'] [data-parameter=threshold]", "Enter")
        page.wait_for_selector("#save[download='cat.jpg']")
        said = page.inner_text("#command")
        assert "-F background=@background.jpg" in said
        assert "/cutout?threshold=0.9&format=jpg" in said
        page.check("input[value='/saliency']")
        assert not page.is_visible("[data-parameter=format]")
        page.wait_for_selector("#save[download='cat.png']")
        page.fill("fieldset[name='/saliency'] [data-parameter=threshold]", "7")
        page.press("fieldset[name='/saliency'] [data-parameter=threshold]", "Enter")
        page.wait_for_selector("#said.bad")
        assert "less than 1" in page.inner_text("#said")
        browser.close()
    assert not faults


# ---- in batches


def test_who_comes_while_the_network_is_busy_shares_a_batch(network: SaliencyNetwork) -> None:
    predictor = Watched(network, batch=4)
    bodies = [photo("chelsea"), photo("coffee"), encoded("PNG", random_picture((9, 300, 3)))] * 3
    with serving(predictor) as client, ThreadPoolExecutor(9) as clients:
        alone = [decoded(client.post("/saliency", body)[2]) for body in bodies[:3]]
        predictor.gate.clear()
        predictor.batches.clear()
        first = clients.submit(client.post, "/saliency", bodies[0])
        until(lambda: predictor.batches == [1])
        rest = [clients.submit(client.post, "/saliency", body) for body in bodies[1:]]
        until(lambda: client.metric("hqsod_requests_in_progress") == 9)
        time.sleep(0.2)  # for the last ones to be decoded
        predictor.gate.set()
        for index, answer in enumerate([first, *rest]):
            status, _, png = answer.result(SECONDS)
            assert status == 200
            np.testing.assert_allclose(decoded(png), alone[index % 3], atol=1)
        assert predictor.batches == [1, 4, 4]
        assert client.metric("hqsod_batch_images_sum") == 12


def test_a_failure_is_its_batchs_alone(network: SaliencyNetwork) -> None:
    predictor = Watched(network)
    with serving(predictor) as client:
        predictor.error = RuntimeError("the device is gone")
        status, reason = client.refused(photo())
        assert (status, "RuntimeError" in reason) == (500, True)
        status, _, answer = client.get("/health")
        assert (status, "RuntimeError" in json.loads(answer)["error"]) == (503, True)
        predictor.error = None
        assert client.post("/saliency", photo())[0] == 200
        assert client.get("/health")[0] == 200
        assert client.metric("hqsod_requests_total", path="/saliency", status="500") == 1


def test_a_failure_that_names_files_is_told_to_the_log_alone(
    network: SaliencyNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor, told = Watched(network), list[str]()
    monkeypatch.setattr(refusals.LOG, "error", lambda text, *values: told.append(text % values))
    predictor.error = WeightsError("/secret/a.onnx: no numbers")
    with serving(predictor) as client:
        status, reason = client.refused(photo())
        health = client.get("/health")
    assert (status, health[0], told) == (500, 503, ["/secret/a.onnx: no numbers"])
    for said in (reason, health[2].decode()):
        assert "(WeightsError); its log says how" in said
        assert "secret" not in said


# ---- within limits


def test_a_full_queue_is_said_and_loses_nobody(network: SaliencyNetwork) -> None:
    predictor = Watched(network)
    with serving(predictor, Limits(places=3)) as client, ThreadPoolExecutor(3) as clients:
        predictor.gate.clear()
        taken = [clients.submit(client.post, "/saliency", photo()) for _ in range(3)]
        until(lambda: client.metric("hqsod_requests_in_progress") == 3)
        for _ in range(5):
            status, headers, answer = client.post("/saliency", photo())
            assert (status, int(headers["retry-after"]) >= 1) == (503, True)
            assert "all 3 places are taken" in json.loads(answer)["error"]
        assert client.get("/health")[0] == 200
        predictor.gate.set()
        assert [answer.result(SECONDS)[0] for answer in taken] == [200] * 3
        assert client.post("/saliency", photo())[0] == 200


def test_requests_that_take_long_hold_up_nobody(network: SaliencyNetwork) -> None:
    predictor, refining = Watched(network), threading.Event()

    def refine(_: object, saliency: np.ndarray) -> np.ndarray:
        assert refining.wait(SECONDS)
        return saliency

    predictor.refine = refine  # type: ignore[method-assign]
    with serving(predictor) as client, ThreadPoolExecutor(24) as clients:
        slow = [clients.submit(client.post, "/saliency?refine=true", photo()) for _ in range(24)]
        until(lambda: client.metric("hqsod_requests_in_progress") == 24)
        assert client.post("/saliency", photo())[0] == 200
        assert not any(answer.done() for answer in slow)
        refining.set()
        assert [answer.result(SECONDS)[0] for answer in slow] == [200] * 24


def test_who_left_is_not_worked_for(network: SaliencyNetwork) -> None:
    predictor = Watched(network)
    with serving(predictor) as client:
        predictor.gate.clear()
        kept: Future[object] = Future()
        threading.Thread(target=lambda: kept.set_result(client.post("/saliency", photo()))).start()
        until(lambda: predictor.batches == [1])
        leaving = [client.half_a_request(photo()) for _ in range(4)]
        leaving += [client.half_a_request(photo(), 500) for _ in range(2)]
        until(lambda: client.metric("hqsod_requests_in_progress") == 5)
        for connection in leaving:
            connection.close()
        until(lambda: client.metric("hqsod_requests_in_progress") == 1)
        predictor.gate.set()
        assert kept.result(SECONDS)[0] == 200
        assert client.post("/saliency", photo())[0] == 200
        assert predictor.batches == [1, 1]
        until(lambda: client.metric("hqsod_requests_total", status="499") == 6)


def test_it_ends_though_the_network_does_not(
    network: SaliencyNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "END_SECONDS", 1)
    predictor = Watched(network)
    with serving(predictor) as client:
        predictor.gate.clear()
        connection = client.half_a_request(photo())
        until(lambda: predictor.batches == [1])
        start = time.monotonic()
    assert time.monotonic() - start < SECONDS / 2
    predictor.gate.set()
    connection.close()


def test_a_picture_must_arrive_in_time(
    network: SaliencyNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "BODY_SECONDS", 0.3)
    with serving(Watched(network)) as client:
        with closing(client.half_a_request(photo(), 500)) as connection:
            status, text = answered(connection)
        assert (status, b"did not arrive within 0.3 s" in text) == (408, True)
        assert client.metric("hqsod_requests_in_progress") == 0


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"", 422, "an empty body"),
        (b"hello", 422, "not an image in JPEG, PNG"),
        (photo()[:2000], 422, "truncated"),
        (bomb(1001), 422, "1001 x 1001 pixels; expected at most 1,000,000"),
        (bomb(60_000), 422, "it may be an attack"),
        (bytes(1_000_001), 413, "more than 1,000,000 bytes"),
        (iter([bytes(300_000)] * 4), 413, "more than 1,000,000 bytes"),  # without a length
    ],
    ids=["empty", "text", "truncated", "pixels", "bomb", "bytes", "chunked"],
)
def test_what_cannot_be_is_refused_with_a_reason(
    service: Client, body: object, status: int, reason: str
) -> None:
    got, said = service.refused(body)
    assert (got, reason in said) == (status, True), said


def test_bodies_that_have_not_arrived_take_no_place(network: SaliencyNetwork) -> None:
    with serving(Watched(network), Limits(places=1)) as client, ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(closing(client.half_a_request(photo(), 1)))
        assert client.post("/saliency", photo())[0] == 200
        assert client.metric("hqsod_requests_in_progress") == 0


def test_bodies_that_are_arriving_are_bounded_together(network: SaliencyNetwork) -> None:
    limits = Limits(places=1, body=300_000)
    with serving(Watched(network), limits) as client, ExitStack() as stack:
        first = stack.enter_context(closing(client.half_a_request(bytes(300_000), 140_000)))
        assert client.get("/health")[0] == 200  # so that the first is there first
        second = stack.enter_context(closing(client.half_a_request(bytes(300_000), 140_000)))
        assert client.post("/saliency", photo())[0] == 200, "slow bodies keep nobody out"
        assert client.refused(bytes(100_000))[0] == 422
        status, text = answered(first)
        assert (status, b"the slowest; try again" in text) == (503, True)
        second.sendall(bytes(160_000))
        assert answered(second)[0] == 422, "which it may be once it is whole"


def form(*fields: tuple[str, bytes]) -> tuple[bytes, str]:
    """A form's body and its Content-Type."""
    parts = [
        b"--xx\r\nContent-Disposition: form-data; %s\r\n\r\n%s\r\n" % (name.encode(), data)
        for name, data in fields
    ]
    return b"".join(parts) + b"--xx--\r\n", "multipart/form-data; boundary=xx"


FILE = 'name="file"; filename="a b.jpg"'


def test_a_form_with_a_file_is_the_file(service: Client) -> None:
    body, kind = form((FILE, photo()))
    status, _, png = service.post("/saliency", body, **{"Content-Type": kind})
    assert status == 200
    assert png == service.post("/saliency", photo())[2]
    assert (
        service.refused(body, **{"Content-Type": kind, "Origin": "http://evil.example"})[0] == 403
    )


BACKGROUND = 'name="background"; filename="file.png"'


def test_a_form_may_have_an_image_for_the_background(
    service: Client, network: SaliencyNetwork
) -> None:
    behind = random_picture((20, 30, 3))
    wanted = predict_one(
        io.BytesIO(photo()), Watched(network), "cutouts", CutOut(background=behind)
    )
    named_alike = ('name="file"; filename="background"', photo())
    for parts in (
        [(FILE, photo()), (BACKGROUND, encoded("PNG", behind))],
        [(BACKGROUND, encoded("PNG", behind)), named_alike],
    ):
        body, kind = form(*parts)
        status, _, png = service.post("/cutout", body, **{"Content-Type": kind})
        assert status == 200
        require_alike(png, wanted)
    status, said = service.refused(body, **{"Content-Type": kind})
    assert (status, "a background for a map" in said) == (422, True)
    large = encoded("PNG", np.zeros((1001, 1000, 3), np.uint8))
    body, kind = form((FILE, photo()), (BACKGROUND, large))
    status, said = service.refused(body, "/cutout", **{"Content-Type": kind})
    assert (status, "1000 x 1001 pixels" in said) == (422, True)


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ([], "a form of 0 fields"),
        ([('name="size"', b"640")], "a field that is no file"),
        ([(FILE, photo()), ('name="size"', b"640")], "a field that is no file"),
        ([(FILE, photo()), (FILE, photo())], "a form of 2 fields"),
        ([(BACKGROUND, photo())], "a form of 1 fields"),
        ([(FILE, b"")], "an empty body"),
    ],
)
def test_other_forms_are_refused(service: Client, parts: list, reason: str) -> None:
    body, kind = form(*parts)
    status, said = service.refused(body, **{"Content-Type": kind})
    assert (status, reason in said) == (422, True), said


@given(st.binary(max_size=200), st.text(max_size=30))
def test_no_form_raises_anything_but_an_input_error(data: bytes, boundary: str) -> None:
    for kind in ("multipart/form-data", f"multipart/form-data; boundary={boundary}"):
        with suppress(InputError):
            files_in(data, kind)


@st.composite
def broken_files(draw: st.DrawFn) -> bytes:
    """A picture's file with bytes changed, taken out or put in, or cut off."""
    form = draw(st.sampled_from(FORMATS))
    exif = Image.Exif()
    exif[274] = draw(st.integers(0, 9))
    data = bytearray(encoded(form, random_picture((8, 6, 3)), exif=exif))
    for _ in range(draw(st.integers(1, 6))):
        start = draw(st.integers(0, max(0, min(len(data) - 1, draw(st.sampled_from((64, 9999)))))))
        length = draw(st.sampled_from((0, 1, 1, 4, 10**6)))
        data[start : start + length] = draw(st.binary(max_size=4))
    return bytes(data)


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(broken_files(), st.sampled_from(["/saliency", "/cutout"]))
def test_a_broken_file_is_read_or_refused_with_a_reason(
    service: Client, data: bytes, path: str
) -> None:
    status, headers, answer = service.post(path, data)
    if status == 200:
        assert decoded(answer).size
    else:
        assert status in (413, 422)
        assert headers["content-type"] == "application/json"
        assert len(json.loads(answer)["error"]) > 10


# ---- as it describes itself


@pytest.mark.slow
def test_it_answers_as_it_describes(service: Client, tmp_path: Path) -> None:
    """With every check that schemathesis has, on proper pictures and on anything else."""
    assert "No issues found" in answers_as_described(service.url, tmp_path, "--checks=all")
    for path in ("/saliency", "/cutout", "/health", "/metrics"):
        for status in ("200", "405"):
            assert service.metric("hqsod_requests_total", path=path, status=status) > 0
    assert service.metric("hqsod_requests_total", path="/cutout", status="422") > 0


# ---- who is let in


def test_pages_of_other_sites_are_kept_out(service: Client) -> None:
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "http://evil.example"}):
        assert service.refused(photo(), **headers)[0] == 403
    assert service.refused(photo(), Host="evil.example")[0] == 421


def test_a_token_is_asked_for_where_there_is_one(network: SaliencyNetwork) -> None:
    with serving(Watched(network), token="secret") as client:
        for path in ("/", "/health", "/metrics", "/openapi.json"):
            status, headers, _ = client.get(path)
            assert (status, headers["www-authenticate"]) == (401, "Bearer")
        assert client.refused(photo())[0] == 401
        assert client.post("/saliency", photo(), Authorization="Bearer secret")[0] == 200


def test_the_address_that_is_printed_carries_any_token(network: SaliencyNetwork) -> None:
    token = "ab+cd/ef==&#%"
    with serving(Watched(network), token=token) as client:
        url = urlsplit(guard.Address("127.0.0.1", 80, token).url)
        assert client.get(f"{url.path}?{url.query}")[0] == 303


@pytest.mark.parametrize("token", ["schl\u00fcssel", "two words", "line\n"])
def test_a_token_that_no_header_carries_is_refused(token: str) -> None:
    with pytest.raises(SettingsError, match="visible ASCII"):
        connections.listen("127.0.0.1", 0, token)


@pytest.mark.parametrize("given", ["", None])
def test_no_token_given_is_not_an_empty_one(given: str | None) -> None:
    for host, asked in (("127.0.0.1", False), ("0.0.0.0", True)):
        listening, address = connections.listen(host, 0, given)
        listening.close()
        assert (address.token is not None, bool(address.token)) == (asked, asked)


# ---- the command


@pytest.mark.slow
def test_the_command_answers_whom_it_took_in_before_it_ends(tiny: Path) -> None:
    command = [sys.executable, "-m", "hqsod", "serve", "--weights", tiny, "--port", "0"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "HQSOD_TOKEN": "secret"}
    process = subprocess.Popen(
        map(str, command), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )
    try:
        assert process.stdout is not None
        lines = (line.decode() for line in process.stdout)
        port = next(int(m[1]) for line in lines if (m := re.search(r"open http.*:(\d+)/", line)))
        client = Client(port, Authorization="Bearer secret")
        assert client.post("/cutout", photo())[0] == 200
        sent = [client.half_a_request(photo()) for _ in range(8)]
        seen = ("hqsod_requests_in_progress", "hqsod_requests_total")
        until(lambda: client.metric(seen[0]) + client.metric(seen[1], path="/saliency") >= 8)
        process.send_signal(signal.SIGTERM)
        assert [answered(connection)[0] for connection in sent] == [200] * 8
        assert process.wait(SECONDS) == -signal.SIGTERM
        assert process.stderr is not None
        assert b"Traceback" not in process.stderr.read()
        with pytest.raises(ConnectionRefusedError):
            client.get("/health")
    finally:
        process.kill()
        process.communicate()


def test_the_command_says_what_is_missing(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def error(*arguments: object) -> BaseException | None:
        return CliRunner().invoke(cli.app, ["serve", *map(str, arguments)]).exception

    assert isinstance(error("--weights", tmp_path / "none.safetensors"), WeightsError)
    for name in [name for name in sys.modules if name.startswith("hqsod.serve")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    assert "hqsod[serve]" in str(error("--weights", tiny))


def test_answers_do_not_wait_for_the_clients_acknowledgement() -> None:
    """Asyncio turns Nagle's algorithm off for sockets that are named as TCP alone."""
    listening, _ = connections.listen("127.0.0.1", 0)
    with listening:
        assert listening.proto == socket.IPPROTO_TCP
