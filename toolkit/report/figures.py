"""Labels of columns, and formatting of their values, by the name of the column."""

from __future__ import annotations

import math
from typing import Any

UNITS = {"ms": "ms", "s": "s", "mib": "MiB", "bytes": "bytes", "qps": "queries/s"}
GIVEN = frozenset({"learning_rate", "momentum", "weight_decay"})  # settings, shown exactly
PERCENT = ("accuracy", "agreement", "share")
SAMPLES = "_per_s"
OPTIONS = ("settings.", "data_settings.")  # prefixes of options, which are never shares
NAMES = {"mae": "MAE", "mse": "MSE", "rss": "RSS"}
DASH = "-"


def label(name: str) -> str:
    """Return the label of a column: "forward p99, ms" for "forward_p99_ms"."""
    if name.startswith(OPTIONS):
        return _words(name.partition(".")[2])
    if name.endswith(SAMPLES):
        return f"{_words(name.removesuffix(SAMPLES))}/s"
    if name.endswith("_ms_per_sample"):
        return f"{_words(name.removesuffix('_ms_per_sample'))}, ms a sample"
    stem, _, unit = name.rpartition("_")
    if stem and unit in UNITS:
        return f"{_words(stem)}, {UNITS[unit]}"
    return f"{_words(name)}, %" if _is_share(name) else _words(name)


def _is_share(name: str) -> bool:
    """Return whether a column has fractions, which are shown in percent."""
    return not name.startswith(OPTIONS) and any(word in name for word in PERCENT)


def plotted(name: str, value: Any) -> Any:
    """Return a value of a column as plotted: fractions in percent, others unchanged."""
    return 100 * value if _is_share(name) and isinstance(value, int | float) else value


def _words(name: str) -> str:
    return " ".join(NAMES.get(word, word) for word in name.split("_"))


def written(name: str, value: Any) -> str:
    """Format a value of a column, with a dash if it is unknown."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return " ".join(map(str, value)) or DASH
    if not isinstance(value, int | float):
        return str(value)
    if name.startswith(OPTIONS) or name in GIVEN:
        return f"{value:g}"
    if _is_share(name):
        return f"{plotted(name, value):.2f}"
    return number(value)


def number(value: float) -> str:
    """Format a number with four significant digits; integers and values from 1000 in full.

    Values below 0.0001 have three digits and an exponent.
    """
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    if value == 0 or 1e-4 <= abs(value) < 1e6:
        digits = 0 if value == 0 else max(0, 3 - math.floor(math.log10(abs(value))))
        return f"{value:,.{digits}f}"
    return f"{value:.2e}"


def numeric(values: list[Any]) -> bool:
    """Return whether all known values of a column are numbers, for its alignment."""
    known = [value for value in values if value is not None]
    return bool(known) and all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in known
    )
