"""Find the chain of exporters from the format of a source to that of a target."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from exporters import EXPORTERS, ROUTES
from exporters.base import Route
from toolkit.core.artifact import Format
from toolkit.core.errors import UsageError, unknown_name


def find_route(given: Format, to: str, via: str | None = None) -> list[str]:
    """Return the shortest chain of exporters from one format to another, through `via` if given.

    `to` is a format, or the name of the last exporter. The chain is empty if `to` is the format
    `given`. Raises UnknownNameError for a target that no exporter writes, UsageError if no chain
    leads there.
    """
    routes = {name: route_of(name) for name in EXPORTERS.names()}
    formats = {route.format.value for route in routes.values()}
    if via is not None:
        if via not in formats:
            raise unknown_name("format to go by", via, sorted(formats))
        return [*find_route(given, via), *find_route(Format(via), to)]
    if to in formats:
        return _shortest(given, {Format(to)}, routes)
    if to not in EXPORTERS.names():
        raise unknown_name("export target", to, sorted({*formats, *EXPORTERS.names()}))
    return [*_shortest(given, routes[to].takes, routes), to]


def route_of(exporter: str) -> Route:
    """Return the formats that an exporter takes and writes.

    Raises UnknownNameError, and UnavailableError if a third-party exporter cannot be imported.
    """
    EXPORTERS.entry(exporter)
    return ROUTES[exporter] if exporter in ROUTES else EXPORTERS.create(exporter).route


def _shortest(given: Format, to: Collection[Format], routes: Mapping[str, Route]) -> list[str]:
    ways: dict[Format, list[str]] = {given: []}
    todo = [given]
    while todo:
        place = todo.pop(0)
        if place in to:
            return ways[place]
        for name, route in routes.items():
            if place in route.takes and route.format not in ways:
                ways[route.format] = [*ways[place], name]
                todo.append(route.format)
    reached = sorted(format for format in ways if format is not given)
    raise UsageError(
        f"No way leads from {given} to {' or '.join(sorted(to))}.",
        hint=f"It can be made into: {', '.join(reached) or 'nothing'}; or start from its source.",
    )
