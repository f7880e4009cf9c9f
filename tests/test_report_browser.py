"""The report in a real browser, offline: no errors, nothing fetched, sorting and charts work."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hqsod.evaluate import report
from tests.test_report import found  # noqa: F401 (a fixture)

CHROMIUM = Path("/usr/bin/chromium")
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no browser at {CHROMIUM}")


@pytest.fixture(scope="module")
def page(
    found: report.Evaluation,  # noqa: F811 (the fixture of that name)
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Any]:
    """The report of three methods and the paper's rows, opened from disk without a network."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    published = report.load_published("purnet-paper", found.datasets)
    report.write_report(replace(found, published=published), path)
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"]
        )
        context = browser.new_context(viewport={"width": 1280, "height": 720}, offline=True)
        opened = context.new_page()
        opened.set_default_timeout(120_000)  # milliseconds; on a busy machine it takes its time
        opened.errors, opened.requests = [], []
        opened.on("pageerror", lambda error: opened.errors.append(str(error)))
        opened.on("console", lambda m: opened.errors.append(m.text) if m.type == "error" else None)
        opened.on("request", lambda request: opened.requests.append(request.url))
        opened.goto(path.as_uri())
        yield opened
        browser.close()


def column(page: Any, number: int) -> list[str]:
    cells = page.locator(f"#d1 .scores tbody tr > :nth-child({number})")
    return [text.split("\n")[0].strip() for text in cells.all_inner_texts()]


def test_it_loads_without_errors_and_fetches_nothing(page: Any) -> None:
    assert page.errors == []
    assert [url for url in page.requests if not url.startswith(("file:", "data:"))] == []
    assert page.locator("h2").all_inner_texts()[:2] == ["ECSSD", "b&d_set"]


def test_a_click_sorts_the_best_first_and_another_the_worst(page: Any) -> None:
    head = page.locator("#d1 .scores thead button").nth(1)
    assert head.inner_text().startswith("MAE")
    head.click()
    values = [float(text) for text in column(page, 2)]
    assert values == sorted(values)
    head.click()
    values = [float(text) for text in column(page, 2)]
    assert values == sorted(values, reverse=True)


def test_rows_without_a_value_stay_at_the_end(page: Any) -> None:
    head = page.locator("#d1 .scores thead button", has_text="S ").first
    for _ in range(2):
        head.click()
        texts = column(page, 7)
        assert texts[-4:] == ["–"] * 4
        assert "–" not in texts[:3]


def test_every_chart_is_drawn(page: Any) -> None:
    blank = page.evaluate(
        """() => [...document.querySelectorAll("canvas")].filter((canvas) => {
            const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
            return !pixels.data.some((value) => value);
        }).length"""
    )
    assert page.locator("canvas").count() == 8
    assert blank == 0


def test_choosing_a_measure_redraws_the_distribution(page: Any) -> None:
    bars = "() => Chart.getChart(document.querySelector('#d1 [data-chart=histogram]'))"
    before = page.evaluate(f"{bars[6:]}.data.datasets.map((set) => set.data)")
    page.locator("#d1 .charts select").select_option("mae")
    after = page.evaluate(f"{bars[6:]}.data.datasets.map((set) => set.data)")
    assert before != after
    assert [sum(counts) for counts in after] == [14, 14, 14]


def test_the_worst_pictures_of_the_chosen_method_are_shown(
    page: Any,
    found: report.Evaluation,  # noqa: F811 (the fixture of that name)
) -> None:
    broken = page.evaluate("[...document.images].filter((image) => !image.naturalWidth).length")
    assert broken == 0
    for number, result in enumerate(found.datasets["ECSSD"].methods.values()):
        if number:
            page.locator("#d1 select.worst").select_option(str(number))
        worst = sorted(result.per_image, key=lambda stem: result.per_image[stem]["s_measure"])[:12]
        shown = page.locator("#d1 .gallery tbody tr:visible td:first-child .caption")
        assert shown.all_inner_texts() == worst


def test_it_fits_the_window_in_both_colour_schemes(page: Any) -> None:
    colours = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= 1280
        colours.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert colours[0] != colours[1]
