"""The page of a report in a real browser: Chromium without a screen, and without a network."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser

from tests.browser import Watched, chromium
from tests.conftest import run_toolkit
from toolkit.core.measurement import Result
from toolkit.report.write import write_report
from toolkit.results import store

RESULTS = 200
SHOTS = Path(os.environ.get("SCREENSHOTS", "screenshots"))
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def report(main_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of RESULTS results: a measured one, and parts of it whose times are others."""
    place = tmp_path_factory.mktemp("page")
    done = run_toolkit(
        "bench", main_path / "lenet-onnx", "--runtime", "torch,onnxruntime,openvino",
        "--max-seconds", 2, "--processes", 1, "--out", "results", cwd=place,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (path,) = store.paths(place / "results")
    result, rng = store.load(path), np.random.default_rng(0)
    for number in range(1, RESULTS):
        store.save(place / "results", copied(result, number, rng.uniform(0.5, 2.0)))
    return write_report([place / "results"], place / "report.html")


def copied(result: Result, number: int, factor: float) -> Result:
    rows = tuple(
        replace(
            row,
            batch=1 + number % 8,
            measurements=tuple(
                replace(
                    one,
                    blocks=tuple(
                        replace(block, samples=(block.samples[:40] * factor).astype(np.int64))
                        for block in one.blocks[:8]
                    ),
                )
                for one in row.measurements
            ),
        )
        for row in result.rows
    )
    return replace(result, id=f"{result.id[:-8]}{number:08x}", rows=rows)


def test_a_page_of_two_hundred_results_is_small(report: Path) -> None:
    assert report.stat().st_size < 5 * 2**20


@pytest.mark.parametrize(
    ("name", "viewport", "scheme"),
    [("desktop", DESKTOP, "light"), ("dark", DESKTOP, "dark"), ("phone", PHONE, "light")],
)
def test_it_opens_without_a_complaint_or_a_request(
    browser: Browser, report: Path, name: str, viewport: Any, scheme: str
) -> None:
    SHOTS.mkdir(parents=True, exist_ok=True)
    watched = Watched(browser, report, viewport, scheme)
    page = watched.page
    page.screenshot(path=SHOTS / f"report-{name}.png")
    assert watched.draw_all() >= 4
    page.locator("figure").first.scroll_into_view_if_needed()
    page.screenshot(path=SHOTS / f"report-{name}-plots.png")
    assert watched.complaints == []
    assert watched.outside() == []
    overflow = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    assert overflow <= 0
    watched.context.close()


def test_tables_sort_and_filter(browser: Browser, report: Path) -> None:
    watched = Watched(browser, report, DESKTOP)
    page = watched.page
    table = page.locator("table").first
    heads = [head.strip() for head in table.locator("thead th").all_inner_texts()]
    column = next(at for at, head in enumerate(heads) if head == "forward, ms")
    button = table.locator("thead button").nth(column)

    def values() -> list[float]:
        cells = table.locator(f"tbody tr:not([hidden]) td:nth-child({column + 1})")
        return [float(text.replace(",", "")) for text in cells.all_inner_texts() if text != "-"]

    button.click()
    assert values() == sorted(values())
    assert table.locator("thead th").nth(column).get_attribute("aria-sort") == "ascending"
    button.press("Enter")
    assert values() == sorted(values(), reverse=True)
    page.locator("input[data-filter]").first.fill("openvino")
    assert table.locator("tbody tr:not([hidden])").count() == RESULTS
    assert page.locator("output").first.inner_text() == f"{RESULTS} of {3 * RESULTS} rows"
    watched.context.close()


def test_a_plot_shows_what_is_chosen(browser: Browser, report: Path) -> None:
    watched = Watched(browser, report, DESKTOP)
    page = watched.page
    figure = page.locator("figure").filter(has_text="Latency by runtime and scope").first
    figure.scroll_into_view_if_needed()
    chart = figure.locator(".chart")
    page.wait_for_selector(f"#{chart.get_attribute('id')}[data-drawn] svg")
    before = chart.inner_html()
    figure.locator("select").select_option(index=5)
    page.wait_for_function(
        "([id, before]) => document.getElementById(id).innerHTML !== before",
        arg=[chart.get_attribute("id"), before],
    )
    assert watched.complaints == []
    watched.context.close()


def test_it_can_be_read_by_those_who_do_not_see(browser: Browser, report: Path) -> None:
    """Headings in order, a name for every control and plot, and text that stands out enough."""
    watched = Watched(browser, report, DESKTOP)
    page = watched.page
    levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3')].map((h) => +h.tagName[1])")
    assert levels[0] == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
    assert page.evaluate("document.documentElement.lang") == "en"
    for control in page.locator("select, input").all():
        assert control.evaluate("(one) => one.labels.length") == 1
    for chart in page.locator(".chart").all():
        assert len(chart.get_attribute("aria-label") or "") > 20
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        for selector in ("body", ".made", "a[href^='#']", "td", ".FASTER", ".warnings"):
            for one in page.locator(selector).all()[:1]:
                assert one.evaluate(CONTRAST) >= 4.5, (scheme, selector)
    watched.context.close()


# The contrast ratio of WCAG 2.2 between an element's text and the first background behind it.
CONTRAST = """(element) => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (rgb) => {
    const [r, g, b] = rgb.slice(0, 3).map((v) => v / 255)
      .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  let behind = element, paper;
  do {
    paper = parse(getComputedStyle(behind).backgroundColor);
    behind = behind.parentElement;
  } while (paper.length === 4 && paper[3] === 0 && behind);
  const ink = parse(getComputedStyle(element).color);
  const [a, b] = [light(ink), light(paper)].sort((x, y) => y - x);
  return (a + 0.05) / (b + 0.05);
}"""
