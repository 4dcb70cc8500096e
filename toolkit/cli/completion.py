"""Shell completion of names: runtimes, targets, data sets, models and studies."""

from __future__ import annotations

from collections.abc import Callable, Iterable

Complete = Callable[[str], list[str]]


def of(names: Callable[[], Iterable[str]]) -> Complete:
    """Return a function that completes a name, or the last of several separated by commas.

    Names that precede it are not offered again. `names` is called only when a shell asks.
    """

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        taken = before.split(",")
        return [
            f"{before}{comma}{name}"
            for name in names()
            if name.startswith(last) and name not in taken
        ]

    return complete


def _runtimes() -> Iterable[str]:
    from runtimes import RUNTIMES

    return RUNTIMES.names()


def _targets() -> Iterable[str]:
    from exporters import ROUTES

    return sorted({str(route.format) for route in ROUTES.values()})


def _data() -> Iterable[str]:
    from toolkit.data import DATA_SETS

    return DATA_SETS.names()


def _models() -> Iterable[str]:
    from models import FAMILIES

    return FAMILIES.names()


def _studies() -> Iterable[str]:
    from toolkit.study.document import built_in

    return built_in()


RUNTIMES, TARGETS, DATA, MODELS, STUDIES = map(of, (_runtimes, _targets, _data, _models, _studies))
