"""A page in a real browser: Chromium without a screen, and without a network."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start the browser. Skip the test where there is none, except in CI."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        assert "CI" not in os.environ, "install chromium before the tests: make browser"
        pytest.skip("no chromium: run make browser")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield launched
        launched.close()


class Watched:
    """An open page, the URLs that it requested, and the errors that it logged."""

    def __init__(self, browser: Browser, path: Path, viewport: Any, scheme: Any = "light") -> None:
        self.context = browser.new_context(viewport=viewport, color_scheme=scheme, offline=True)
        self.page: Page = self.context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on(
            "console", lambda m: self.complaints.append(m.text) if m.type == "error" else None
        )
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda one: self.requests.append(one.url))
        began = time.monotonic()
        self.page.goto(path.as_uri())
        self.page.wait_for_load_state("load")
        self.seconds = time.monotonic() - began

    def outside(self) -> list[str]:
        return [url for url in self.requests if not url.startswith(("file:", "data:", "blob:"))]

    def draw_all(self) -> int:
        """Scroll every plot into view, and return how many were drawn."""
        charts = self.page.locator(".chart")
        for number in range(charts.count()):
            charts.nth(number).scroll_into_view_if_needed()
            self.page.wait_for_selector(
                f"#{charts.nth(number).get_attribute('id')}[data-drawn] svg"
            )
        return charts.count()
