"""Tables of load scenarios: query rates and latencies of each runtime."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from toolkit.cli.bench import PERCENTILE, TEXT, names_of, ratio_cells, struck_out

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from toolkit.core.documents import Json

# Columns of the tables, before the other percentiles. A column that no row has is not shown. On a
# narrow terminal, the last ones are left out.
RATES = ("asked/s", "largest held/s", "smallest not held/s", "answered/s", "samples/s")
TIMES = ("p50", "p99", "p99 es", "waiting")
COLUMNS = ("runtime", "status", *RATES, *TIMES, "ratio", "verdict", "parity", "tries")


def tables(console: Console, rows: list[Json]) -> Iterator[Table]:
    """Yield a table for each group of rows that answered queries."""
    from toolkit.cli import output

    for group in dict.fromkeys(row["group"] for row in rows if row["served"]):
        members = [row for row in rows if row["group"] == group]
        names = names_of(members)
        cells = [_cells(row, name) for row, name in zip(members, names, strict=True)]
        percentiles = dict.fromkeys(
            key for row in cells for key in row if PERCENTILE.fullmatch(key)
        )
        columns = dict.fromkeys((*COLUMNS, *percentiles))
        shown = tuple(column for column in columns if any(column in row for row in cells))
        title = _title(next(row for row in members if row["served"]), names[0])
        yield output.fitting_table(console, title, shown, cells, text=TEXT)


def reasons(rows: list[Json]) -> Iterator[str]:
    """Yield a line for each row without a sustainable rate, with the reason."""
    for row in rows:
        search = row["served"] and row["served"]["search"]
        if search and search["reason"]:
            yield f"{row['runtime']}, batch {row['batch']}: {search['reason']}"


def _title(row: Json, baseline: str) -> str:
    from toolkit.cli.output import duration

    served = row["served"]
    clients = f"{served['concurrency']} client{'s' if served['concurrency'] > 1 else ''}"
    title = f"{served['scenario']}, batch {row['batch']}, {clients}"
    if served["search"]:
        bound = duration(served["search"]["p99_bound_ns"])
        return f"{title}: the largest rate with a p99 within {bound}"
    compared = "time of a sample" if served["latency"] is None else "median latency"
    return f"{title} (ratio: {compared} over that of {baseline})"


def _cells(row: Json, name: str) -> dict[str, str]:
    """Return the cells of a row, by column, without unknown values."""
    from toolkit.cli.output import scientific

    around = {"runtime": name, "status": row["status"]}
    if row["parity"]:
        around["parity"] = scientific(row["parity"]["max_abs"])
    if not row["served"]:
        return around
    figures = {**_figure_cells(row["served"]), **ratio_cells(row["served"]["ratio"])}
    return {**around, **(struck_out(figures) if row["status"] == "failed" else figures)}


def _figure_cells(served: Json) -> dict[str, str]:
    from toolkit.cli.output import duration

    search, latency = served["search"] or {}, served["latency"] or {}
    rates = {
        "asked/s": None if search else served["asked_qps"],
        "largest held/s": search.get("largest_held_qps"),
        "smallest not held/s": search.get("smallest_not_held_qps"),
        "answered/s": served["achieved_qps"],
        "samples/s": served["samples_per_second"],
    }
    times = {
        "p50": latency.get("median_ns"),
        **{_column(key): time for key, time in latency.items() if PERCENTILE.fullmatch(key)},
        "p99 es": latency.get("p99_early_stopping_ns"),
    }
    cells = {column: _rate(rate) for column, rate in rates.items() if rate is not None}
    cells |= {column: duration(time) for column, time in times.items() if time is not None}
    if served["waiting_share"] is not None:
        cells["waiting"] = f"{served['waiting_share']:.0%}"
    if search:
        cells["tries"] = str(len(search["tries"]))
    return cells


def _column(key: str) -> str:
    return key.removesuffix("_ns").replace("_", ".")


def _rate(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"
