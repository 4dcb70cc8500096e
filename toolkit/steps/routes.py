"""The way from the format of a source to that of a target, exporter by exporter."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from exporters import EXPORTERS, ROUTES
from toolkit.core.artifact import Format
from toolkit.core.errors import UsageError, unknown_name

Step = tuple[str, frozenset[Format], Format]
"""The name of an exporter, what it takes, what it writes."""


def find_route(given: Format, to: str, via: str | None = None) -> list[str]:
    """The fewest exporters that lead from one format to another, through `via` if it is named.

    `to` is a format, or the name of the last exporter. None for what is already there. Raises
    UnknownNameError for a target that nothing writes, UsageError where no way leads there.
    """
    steps = [_step(name) for name in EXPORTERS.names()]
    formats = {writes.value for _, _, writes in steps}
    if via is not None:
        if via not in formats:
            raise unknown_name("format to go by", via, sorted(formats))
        return [*find_route(given, via), *find_route(Format(via), to)]
    if to in formats:
        return _shortest(given, {Format(to)}, steps)
    if to not in EXPORTERS.names():
        raise unknown_name("export target", to, sorted({*formats, *EXPORTERS.names()}))
    return [*_shortest(given, _step(to)[1], steps), to]


def _step(name: str) -> Step:
    if name in ROUTES:
        return (name, *ROUTES[name])
    exporter = EXPORTERS.create(name)
    return name, exporter.takes, exporter.format


def _shortest(given: Format, to: Collection[Format], steps: Sequence[Step]) -> list[str]:
    ways: dict[Format, list[str]] = {given: []}
    todo = [given]
    while todo:
        place = todo.pop(0)
        if place in to:
            return ways[place]
        for name, takes, writes in steps:
            if place in takes and writes not in ways:
                ways[writes] = [*ways[place], name]
                todo.append(writes)
    reached = sorted(format for format in ways if format is not given)
    raise UsageError(
        f"No way leads from {given} to {' or '.join(sorted(to))}.",
        hint=f"It can be made into: {', '.join(reached) or 'nothing'}; or start from its source.",
    )
