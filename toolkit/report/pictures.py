"""Plots as PNG images, rendered without a browser."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import vl_convert

from toolkit.report.content import Chart, Content

WIDTH, SCALE = 720, 2.0
CONFIG = {"background": "white", "font": "sans-serif"}


def pictures(content: Content) -> Iterator[tuple[str, bytes]]:
    """Yield file name and PNG of each plot, or of each of its first MOST choices if it has any."""
    for chart in content.charts:
        for name, spec in _specs(chart):
            yield f"{_slug(name)}.png", vl_convert.vegalite_to_png(json.dumps(spec), scale=SCALE)


MOST = 12  # images per plot


def _specs(chart: Chart) -> Iterator[tuple[str, Mapping[str, Any]]]:
    fixed = {**chart.spec, "width": WIDTH, "config": CONFIG}
    if not chart.choices:
        yield chart.title, {**fixed, "title": chart.title}
        return
    for name, values in list(chart.choices.items())[:MOST]:
        title = {"text": chart.title, "subtitle": name}
        yield f"{chart.title} {name}", {**fixed, "title": title, "data": {"values": list(values)}}


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:100]
