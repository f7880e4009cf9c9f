"""The review page in a real browser: Debian's chromium, driven by playwright, on a real server.

apt-get install chromium; pip install playwright
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hqsod import encoding, images
from hqsod.dataset.decisions import Decisions
from hqsod.dataset.manifest import Manifest
from hqsod.review import words
from tests.built import built, many

pytest.importorskip("fastapi", reason="the review extra is not installed")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path(CHROMIUM).is_file(), reason="chromium is not installed"),
]
ARGUMENTS = [
    "--no-sandbox",  # a container's root cannot have chromium's own sandbox
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
]


class Server:
    """`hqsod review` as users start it, in a process that can be killed."""

    def __init__(self, folder: Path, port: int = 0) -> None:
        command = [sys.executable, "-m", "hqsod", "review", str(folder), "--port", str(port)]
        self.process = subprocess.Popen(
            [*command, "--who", "anna"],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        assert self.process.stdout is not None
        lines = iter(self.process.stdout.readline, "")
        self.url = next(m[0] for line in lines if (m := re.search(r"http://\S+", line)))
        self.port = int(self.url.split(":")[2].split("/")[0])

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@contextmanager
def serving(folder: Path, port: int = 0) -> Iterator[Server]:
    server = Server(folder, port)
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="module")
def browser() -> Iterator:
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture
def opened(browser) -> Iterator[Callable]:
    """Opens an address in a window of its own; every error of the page fails the test."""
    errors: list[str] = []
    contexts = []

    def open_page(url: str, width: int = 1280, height: int = 720):
        context = browser.new_context(viewport={"width": width, "height": height})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda m: errors.append(m.text) if "Security Policy" in m.text else None)
        page.goto(url)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert errors == []


def text(page, selector: str) -> str:
    return page.locator(selector).inner_text()


def stem_is(page, stem: str) -> None:
    playwright.expect(page.locator("#stem")).to_have_text(stem, timeout=30_000)


def wait_for_tiles(page) -> None:
    """Until the canvas shows the picture in its middle."""
    colours = """() => { const c = document.getElementById("canvas");
        const d = c.getContext("2d").getImageData(c.width / 2 - 40, c.height / 2 + 30, 80, 1).data;
        return new Set(d).size; }"""
    until = time.monotonic() + 30
    while page.evaluate(colours) < 16:
        assert time.monotonic() < until, "no tiles came"
        page.wait_for_timeout(100)


def start_correcting(page, tool: str) -> None:
    page.keyboard.press("b")
    page.wait_for_selector("#correction-bar:not([hidden])")
    page.keyboard.press(tool)


def pointer(page, size: int) -> Callable[[float, float], tuple[float, float]]:
    """Where on the screen a point of the fitted picture is."""
    page.wait_for_timeout(300)  # the canvas takes the size that the bar leaves it
    box = page.locator("#canvas").bounding_box()
    scale = min(box["width"], box["height"]) / size * 0.98
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    return lambda x, y: tuple(
        m + (at - size / 2) * scale for m, at in zip(middle, (x, y), strict=True)
    )


PINK = """([x, y]) => { const c = document.getElementById("canvas"), b = c.getBoundingClientRect();
    const [red, green, blue] = c.getContext("2d").getImageData(x - b.x, y - b.y, 1, 1).data;
    return red > blue && blue > green; }"""


def test_a_person_judges_a_data_set_with_the_keyboard_alone(tmp_path: Path, opened) -> None:
    folder = built(tmp_path / "set", 6, size=400)
    with serving(folder) as server:
        page = opened(server.url)
        page.wait_for_selector(".card img")
        assert text(page, "#left") == "6 of 6 to do, 2 of them flagged"
        page.keyboard.press("f")  # the next filter: flagged
        playwright.expect(page.locator(".card")).to_have_count(2)
        page.keyboard.press("Enter")
        page.wait_for_selector("#pair-view:not([hidden])")
        assert text(page, "#stem") == "pair_0000"
        wait_for_tiles(page)
        assert text(page, "#close-up") == "Where they differ most: picture, upscaled, refined"
        close_up = page.locator("#close-up img")
        playwright.expect(close_up).to_have_js_property("naturalWidth", 156, timeout=30_000)
        page.keyboard.press("r")
        stem_is(page, "pair_0001")
        assert text(page, "#left") == "5 of 6 to do, 1 of them flagged"
        page.keyboard.press("x")
        page.wait_for_selector(".state.decided")
        page.keyboard.press("z")  # both again
        page.wait_for_selector(".state:not(.decided)")
        page.keyboard.press("z")
        stem_is(page, "pair_0000")
        page.keyboard.press("n")
        page.keyboard.type("the paw is lost")
        page.keyboard.press("Escape")
        playwright.expect(page.locator("#history li")).to_have_count(3)
        page.keyboard.press("u")
        stem_is(page, "pair_0001")
        page.reload()
        page.wait_for_selector("#pair-view:not([hidden])")
        assert text(page, "#stem") == "pair_0001"  # where it was
        page.keyboard.press("Escape")
        page.keyboard.press("?")
        assert page.locator("#help dt").count() > 25
    with Decisions.open(folder) as decisions:
        rows = [(d.choice, d.note) for d in reversed(decisions.history("pair_0000"))]
    noted = "the paw is lost"
    assert rows == [("refined", ""), (None, ""), (None, noted), ("upscaled", noted)]


def test_decisions_outlive_a_killed_server_and_none_is_lost_silently(
    tmp_path: Path, opened
) -> None:
    folder = built(tmp_path / "set", 4, size=120)
    with serving(folder) as server:
        page = opened(f"{server.url}#pair/pair_0000")
        page.wait_for_selector("#pair-view:not([hidden])")
        page.keyboard.press("r")
        stem_is(page, "pair_0001")
        server.kill()
        page.keyboard.press("r")
        page.wait_for_selector(".toast.error")
        assert "nothing was saved" in text(page, "#toast")
        assert text(page, "#stem") == "pair_0001"
    with serving(folder, server.port):
        page.keyboard.press("r")
        stem_is(page, "pair_0002")
        page.reload()
        playwright.expect(page.locator("#left")).to_contain_text("2 of 4")
    with Decisions.open(folder) as decisions:
        assert {stem: d.choice for stem, d in decisions.latest().items()} == {
            "pair_0000": "refined",
            "pair_0001": "refined",
        }


def test_the_later_of_two_windows_is_told(tmp_path: Path, opened) -> None:
    folder = built(tmp_path / "set", 3, size=120)
    with serving(folder) as server:
        first, second = (opened(f"{server.url}#pair/pair_0000") for _ in range(2))
        for page in (first, second):
            page.wait_for_selector("#pair-view:not([hidden])")
        first.keyboard.press("r")
        stem_is(first, "pair_0001")
        second.keyboard.press("x")
        second.wait_for_selector(".toast.error")
        assert "anna decided on it meanwhile (refined)" in text(second, "#toast")
        assert text(second, "#stem") == "pair_0000"
        assert "refined is used" in text(second, "#state")
    with Decisions.open(folder) as decisions:
        assert decisions.latest()["pair_0000"].choice == "refined"


def test_undo_takes_back_nothing_of_somebody_else(tmp_path: Path, opened) -> None:
    folder = built(tmp_path / "set", 3, size=120)
    with serving(folder) as server:
        page = opened(f"{server.url}#pair/pair_0000")
        page.wait_for_selector("#pair-view:not([hidden])")
        page.keyboard.press("r")
        stem_is(page, "pair_0001")
        page.keyboard.press("r")
        stem_is(page, "pair_0002")
        with Manifest.open(folder) as manifest, Decisions.open(folder) as decisions:
            decisions.add(manifest.latest()["pair_0001"], "bert", "reject", "", 1)
        page.keyboard.press("z")
        page.wait_for_selector(".toast.error")
        assert "bert decided on it meanwhile (reject)" in text(page, "#toast")
        page.keyboard.press("z")  # one's own before that
        stem_is(page, "pair_0000")
    with Decisions.open(folder) as decisions:
        latest = decisions.latest()
    assert (latest["pair_0001"].choice, latest["pair_0000"].choice) == ("reject", None)


@pytest.mark.parametrize("by", ["mouse", "keyboard"])
def test_a_decision_right_after_a_note_keeps_both(tmp_path: Path, opened, by: str) -> None:
    folder = built(tmp_path / "set", 2, size=120)
    with serving(folder) as server:
        page = opened(f"{server.url}#pair/pair_0000")
        page.wait_for_selector("#pair-view:not([hidden])")
        page.keyboard.press("n")
        page.keyboard.type("hello")
        if by == "mouse":
            page.locator("[data-choice=upscaled]").click(delay=100)
        else:
            page.evaluate(
                """for (const key of ["Escape", "u"]) document.activeElement.dispatchEvent(
                new KeyboardEvent("keydown", {key, bubbles: true}))"""
            )
        stem_is(page, "pair_0001")
    with Decisions.open(folder) as decisions:
        decision = decisions.latest()["pair_0000"]
    assert (decision.choice, decision.note) == ("upscaled", "hello")


def test_the_brush_changes_what_it_touches_and_nothing_else(tmp_path: Path, opened) -> None:
    folder = built(tmp_path / "set", 2, size=600)
    soft = np.tile(np.arange(600) * 255 // 599, (600, 1)).astype(np.uint8)  # every grey level
    encoding.write_png(folder / "hq-masks" / "pair_0000.png", soft)
    with serving(folder) as server:
        page = opened(f"{server.url}#pair/pair_0000")
        wait_for_tiles(page)
        page.keyboard.press("b")
        page.wait_for_selector("#correction-bar:not([hidden])")
        box = page.locator("#canvas").bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        page.mouse.move(x - 60, y)
        page.mouse.down()
        page.mouse.move(x - 20, y, steps=5)
        page.mouse.up()
        page.keyboard.press("e")
        page.mouse.move(x + 100, y)
        page.mouse.down()
        page.mouse.up()
        page.mouse.move(x, y + 150)
        page.mouse.down()
        page.mouse.up()
        page.keyboard.press("z")  # the last stroke again
        page.keyboard.press("s")
        stem_is(page, "pair_0001")  # it goes on, as after any decision
        page.keyboard.press("ArrowLeft")
        page.wait_for_selector("[data-choice=corrected-1].taken")
        assert page.locator("#version-b").input_value() == "corrected-1"
    corrected = images.read_mask(folder / "corrected-masks" / "pair_0000-1.png")
    changed = corrected != soft
    rows, columns = np.nonzero(changed)
    assert 300 < np.count_nonzero(changed) < 6000
    assert abs(rows.mean() - 300) < 12  # along the middle; the stroke below was taken back
    assert corrected[300, columns.min() + 12] == 255
    assert corrected[300, columns.max() - 12] == 0
    np.testing.assert_array_equal(
        images.read_mask(folder / "hq-masks" / "pair_0000.png"), soft
    )  # the original stays


def test_a_polygon_is_added_and_another_taken_away(tmp_path: Path, opened) -> None:
    folder = built(tmp_path / "set", 2, size=600)
    before = images.read_mask(folder / "hq-masks" / "pair_0000.png")
    with serving(folder) as server:
        page = opened(f"{server.url}#pair/pair_0000")
        wait_for_tiles(page)
        start_correcting(page, "p")
        corner = pointer(page, 600)
        for x, y in ((20, 20), (220, 20), (300, 300), (20, 220)):
            page.mouse.click(*corner(x, y))
        page.keyboard.press("z")  # the last corner again
        page.mouse.click(*corner(20, 220))
        page.mouse.click(*corner(20, 20))  # the first one closes
        page.keyboard.press("e")
        for x, y in ((300, 300), (400, 300), (300, 400)):
            page.mouse.click(*corner(x, y))
        page.keyboard.press("s")
        assert "still open" in text(page, "#toast")
        page.keyboard.press("Enter")
        page.keyboard.press("s")
        stem_is(page, "pair_0001")
    corrected = images.read_mask(folder / "corrected-masks" / "pair_0000-1.png")
    rows, columns = np.indices(corrected.shape)
    added = (rows > 25) & (columns > 25) & (rows + columns < 215)
    taken = (rows > 305) & (columns > 305) & (rows + columns < 695)
    assert (corrected[added] == 255).all()
    assert not corrected[taken].any()
    near = (rows < 305) & (columns < 305) | (rows > 295) & (columns > 295)
    np.testing.assert_array_equal(corrected[~near], before[~near])


def test_a_click_adds_a_region_of_another_version_or_erases_one(tmp_path: Path, opened) -> None:
    folder = built(tmp_path / "set", 2, size=600)
    rows, columns = np.indices((600, 600))

    def blob(row: int, column: int) -> np.ndarray:  # with a soft rim
        distance = np.hypot(rows - row, columns - column)
        return np.clip((80 - distance) * 16, 0, 255).astype(np.uint8)

    first, second, third = blob(150, 150), blob(150, 450), blob(450, 300)
    encoding.write_png(folder / "masks" / "pair_0000.png", first | third)
    encoding.write_png(folder / "hq-masks" / "pair_0000.png", second | blob(440, 300))
    with serving(folder) as server:
        page = opened(f"{server.url}#pair/pair_0000")
        wait_for_tiles(page)
        page.keyboard.press("v")  # the upscaled mask fills the canvas
        start_correcting(page, "g")
        corner = pointer(page, 600)
        page.wait_for_function(PINK, arg=corner(450, 150))
        page.mouse.click(*corner(450, 150))
        page.mouse.click(*corner(300, 300))
        assert "no object" in text(page, "#toast")
        page.mouse.click(*corner(300, 440))
        page.keyboard.press("z")
        page.keyboard.press("e")
        page.mouse.click(*corner(150, 150))
        page.keyboard.press("s")
        stem_is(page, "pair_0001")
    corrected = images.read_mask(folder / "corrected-masks" / "pair_0000-1.png")
    np.testing.assert_array_equal(corrected, second | third)


def test_several_pairs_are_decided_at_once_and_taken_back_at_once(tmp_path: Path, opened) -> None:
    folder = built(tmp_path / "set", 6, size=120)
    with serving(folder) as server:
        page = opened(server.url)
        page.wait_for_selector(".card img")
        page.keyboard.press(" ")
        page.locator(".card").nth(3).click(modifiers=["Shift"])
        page.locator(".card").nth(1).click(modifiers=["Control"])
        assert page.locator(".card.selected").count() == 3
        page.keyboard.press("x")
        playwright.expect(page.locator("#left")).to_contain_text("3 of 6 to do")
        assert page.locator(".card.selected").count() == 0
        page.keyboard.press("z")
        playwright.expect(page.locator("#left")).to_contain_text("6 of 6 to do")
    with Decisions.open(folder) as decisions:
        rows = {stem: len(decisions.history(stem)) for stem in decisions.latest()}
    assert rows == {"pair_0000": 2, "pair_0002": 2, "pair_0003": 2}


def test_all_figures_are_in_sight_at_720_lines(tmp_path: Path, opened) -> None:
    figures = {name: 0.5 for name in words.FIGURES if name != "candidate_iou"}
    folder = built(tmp_path / "set", 1, change=lambda record: replace(record, quality=figures))
    with serving(folder) as server:
        page = opened(f"{server.url}#pair/pair_0000")
        page.wait_for_selector("#pair-view:not([hidden])")
        assert page.locator("#figures-said li").count() == len(figures)
        box = page.locator("#figures-said").bounding_box()
        assert box["y"] + box["height"] <= 720


OUTSIDE = """() => [...document.querySelectorAll("button, input, select")]
    .filter((field) => field.offsetParent && field.getBoundingClientRect().right > innerWidth)
    .map((field) => field.id || field.innerText)"""


def test_a_phone_shows_every_button(tmp_path: Path, opened) -> None:
    folder = built(tmp_path / "set", 3)
    with serving(folder) as server:
        page = opened(server.url, 390, 844)
        page.wait_for_selector(".card img")
        first, second = (page.locator(".card").nth(index).bounding_box() for index in range(2))
        assert first["y"] == second["y"]  # side by side
        assert page.evaluate(OUTSIDE) == []
        page.locator(".card").first.click()
        page.wait_for_selector("#pair-view:not([hidden])")
        assert page.evaluate(OUTSIDE) == []
        start_correcting(page, "g")
        assert page.evaluate(OUTSIDE) == []


# Zooms in to single pixels and out again, panning, one step a frame; answers milliseconds a frame.
ZOOMING = """() => new Promise((done) => {
    const canvas = document.getElementById("canvas"), box = canvas.getBoundingClientRect();
    const at = { clientX: box.x + 300, clientY: box.y + 300, cancelable: true };
    const frames = [];
    let before = performance.now(), closest = 0;
    const step = (now) => {
        frames.push(now - before);
        before = now;
        closest = Math.max(closest, parseInt(document.getElementById("zoom").textContent));
        if (frames.length > 120) { done({ frames: frames.slice(1), closest }); return; }
        const deltaY = frames.length < 60 ? -60 : 60;
        canvas.dispatchEvent(new WheelEvent("wheel", { ...at, deltaY }));
        const arrow = { key: "ArrowLeft", shiftKey: true, bubbles: true };
        document.body.dispatchEvent(new KeyboardEvent("keydown", arrow));
        requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
})"""


def test_zoom_and_pan_to_single_pixels_without_lag(tmp_path: Path, opened) -> None:
    folder = built(tmp_path / "set", 1, size=1600)
    with serving(folder) as server:
        page = opened(f"{server.url}#pair/pair_0000")
        wait_for_tiles(page)
        page.evaluate(ZOOMING)  # the tiles come
        moved = page.evaluate(ZOOMING)
    assert moved["closest"] >= 2000  # per cent: single pixels
    median, worst = np.median(moved["frames"]), max(moved["frames"])
    print(f"a frame while zooming: median {median:.0f} ms, worst {worst:.0f} ms")  # noqa: T201
    assert median < 34 * patience()  # thirty frames a second on an idle machine


def test_ten_thousand_pairs_open_within_a_second_and_take_no_memory(tmp_path: Path, opened) -> None:
    folder = many(tmp_path / "set", 10_000)
    with serving(folder) as server:
        opened(server.url).wait_for_selector(".card img")  # the server's own first request
        page = opened("about:blank")
        start = time.perf_counter()
        page.goto(server.url)
        page.wait_for_selector(".card img")
        seconds = time.perf_counter() - start
        cards, server_before = page.locator(".card").count(), resident(server.process.pid)
        heap_before = heap(page)
        for _ in range(60):
            page.evaluate("document.getElementById('scroll').scrollBy(0, 3000)")
            page.wait_for_timeout(40)
        page.wait_for_timeout(500)
        assert page.locator(".card").count() <= 2 * cards
        grown, server_grown = heap(page) - heap_before, resident(server.process.pid) - server_before
    print(f"first page {seconds:.2f} s; heap {grown:+.1f} MB; server {server_grown:+.1f} MB")  # noqa: T201
    assert seconds < 1 * patience()
    assert grown < 20
    assert server_grown < 60


def patience() -> float:
    """How much slower than an idle machine this one is just now."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def heap(page) -> float:
    page.evaluate("window.gc && window.gc()")
    return page.evaluate("performance.memory.usedJSHeapSize") / 1e6


def resident(process: int) -> float:
    status = Path(f"/proc/{process}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1e3
