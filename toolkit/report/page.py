"""Report as a single HTML page without external files."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any

import jinja2
import vl_convert
from markupsafe import Markup

from toolkit.core.documents import plain
from toolkit.report.content import Chart, Content

GLUE = "window.vegaEmbed = vegaEmbed;"
SECTIONS = {"study": "The study", "results": "Results", "provenance": "Provenance"}


def page(content: Content) -> str:
    """Return the report as HTML with embedded styles, scripts and data."""
    place = resources.files("toolkit.report").joinpath("page")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string(place.joinpath("report.html.j2").read_text("utf-8"))
    return template.render(
        content=content,
        sections=[
            (name, title, _of(content.grids, name), _of(content.charts, name))
            for name, title in SECTIONS.items()
        ],
        style=Markup(place.joinpath("report.css").read_text("utf-8")),
        script=Markup(place.joinpath("report.js").read_text("utf-8")),
        library=Markup(_library()),
        data=Markup(_data(content)),
    )


def _of(parts: Any, section: str) -> list[tuple[int, Any]]:
    """Return the parts of a section, with their indices among all parts."""
    return [(n, part) for n, part in enumerate(parts) if part.section == section]


@cache
def _library() -> str:
    """Return Vega-Embed, bundled with Vega and Vega-Lite, as a script for an HTML page."""
    bundle: str = vl_convert.javascript_bundle(GLUE)
    return bundle.replace("</script", "<\\/script")


def _data(content: Content) -> str:
    """Return the charts as JSON that is safe within a script element, whatever text it contains.

    `<` and `>` are escaped, so that no text can end the element or open a comment in it; JSON has
    them only in strings, so no value changes. Non-ASCII characters are escaped as well, since they
    include line separators, and lone surrogates, which UTF-8 cannot encode.
    """
    charts = [_chart(chart) for chart in content.charts]
    text = json.dumps(plain(charts), separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e")


def _chart(chart: Chart) -> dict[str, Any]:
    """Return a chart with its choices as columns, which take a third of the space of records."""
    choices = {}
    for name, records in chart.choices.items():
        keys = list(dict.fromkeys(key for one in records for key in one))
        choices[name] = {key: [one.get(key) for one in records] for key in keys}
    return {"spec": chart.spec, "choices": choices}
