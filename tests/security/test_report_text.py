"""Texts of a result that are markup, script or no JSON: the report shows them as text."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.browser import Watched, chromium
from tests.stored_results import result_of
from toolkit.report.write import write_report
from toolkit.results import store

HOSTILE = (
    "<!-- comment",
    "--> end",
    "<!--<script>",
    "</script><script>window.attacked = true</script>",
    "</SCRIPT ><img src=x onerror='window.attacked = true'>",
    "]]><svg onload='window.attacked = true'>",
    "line\u2028separator\u2029paragraph",
    "back\\slash \\u003c and \"quotes\" and 'quotes' &lt; &amp;",
    "{{ 7 * 7 }} ${7 * 7} \x00\x1b[31m\x7f\x9c\ufeff\ufffe",
    "a.b[0]['c']",
)


def report(directory: Path, texts: Sequence[str]) -> Path:
    """Write the report of a result in which each text is a row's name and a warning."""
    path = store.save(directory / "results", result_of(texts, warnings=tuple(texts)))
    return write_report([path], directory / "report.html")


def test_a_browser_shows_hostile_texts_and_runs_none(tmp_path: Path) -> None:
    with chromium() as browser:
        watched = Watched(browser, report(tmp_path, HOSTILE), {"width": 1280, "height": 900})
        assert watched.draw_all() >= 2
        assert watched.complaints == []
        assert watched.outside() == []
        assert watched.page.evaluate("window.attacked === undefined")
        charts = watched.page.evaluate("JSON.parse(document.getElementById('data').textContent)")
        shown = watched.page.locator(".warnings").all_inner_texts()
        watched.context.close()
    for text in HOSTILE:
        assert text in names_in(charts)
    assert HOSTILE[3] in "".join(shown)


@settings(max_examples=25, deadline=None)
@given(st.text())
@example("<!--")
@example("</script>")
def test_any_text_survives_in_the_data_of_the_charts(text: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        page = report(Path(directory), [f"a{text}"]).read_text(encoding="utf-8")
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script', page, re.S)
    assert not set(data) & set("<>\u2028\u2029")
    assert f"a{text}" in names_in(json.loads(data))


def names_in(charts: list[dict[str, dict[str, dict[str, list[str]]]]]) -> set[str]:
    """Return the names of the rows that the charts with choices show."""
    columns = [series for chart in charts for series in chart["choices"].values()]
    return {name for series in columns for name in series.get("row", ())}
