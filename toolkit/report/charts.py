"""Plots of a report, as Vega-Lite specifications (https://vega.github.io/vega-lite/docs/)."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from toolkit.core.measurement import Result, Row, Scope
from toolkit.report.content import Chart
from toolkit.report.figures import OPTIONS, label, plotted
from toolkit.report.tables import apart, equal, where
from toolkit.study.document import Plot, Table

Record = Mapping[str, Any]
Spec = dict[str, Any]

SCOPES = ("forward", "end_to_end")
MOST_POINTS = 60_000  # in all time lines together
LEAST, MOST = 20, 300  # points in one time line
QUANTILES = np.linspace(0, 1, 81)
HEIGHT = 260


def general(kinds: Mapping[str, Sequence[Record]], results: Sequence[Result]) -> Iterator[Chart]:
    """Yield the plots that every report has, as far as there are records for them."""
    rows = [one for one in kinds.get("rows", ()) if one.get("status") == "ok"]
    if latencies := _latencies(rows):
        yield _latency(latencies)
    if throughput := _throughput(rows):
        yield throughput
    if front := _pareto(rows, kinds.get("accuracy", ())):
        yield front
    if kinds.get("epochs"):
        yield from _curves(kinds["epochs"])
    if kinds.get("training_rows"):
        yield from _training_speed(kinds["training_rows"])
    if series := dict(_series(results)):
        yield _time_line(series)
        yield _distribution(dict(_quantiles(results)))


def _named(row: Record) -> str:
    """Return the name of a row within its measurement."""
    parts = [row["runtime"], row.get("form", ""), row.get("tuning", "")]
    return " · ".join(str(part) for part in parts if part and part != "checkpoint")


def _measurement(row: Record) -> str:
    """Return the name of a measurement, which is the same for rows that were interleaved."""
    told = f"{row.get('model', '')}, batch {row['batch']}, {row['threads']} threads"
    again = f", repetition {row['repetition'] + 1}" if row.get("repetition") else ""
    return f"{told}{again} ({str(row['result'])[-8:]}.{row['group']})"


def _latencies(rows: Sequence[Record]) -> list[Spec]:
    return [
        {
            "measurement": _measurement(row),
            "row": _named(row),
            "scope": scope.replace("_", " "),
            "median": row[f"{scope}_ms"],
            "low": row.get(f"{scope}_low_ms"),
            "high": row.get(f"{scope}_high_ms"),
            "p99": row.get(f"{scope}_p99_ms"),
        }
        for row in rows
        for scope in SCOPES
        if f"{scope}_ms" in row
    ]


def _latency(records: list[Spec]) -> Chart:
    names = list(dict.fromkeys(one["measurement"] for one in records))
    base = {
        "y": {"field": "row", "type": "nominal", "title": None, "sort": {"field": "median"},
              "axis": {"labelLimit": 320}},
        "color": {"field": "scope", "type": "nominal", "title": "scope"},
        "yOffset": {"field": "scope"},
    }  # fmt: skip
    x = {"type": "quantitative", "title": "median and 95 % interval, ms", "scale": {"zero": True}}
    spec = _spec(
        None,
        layer=[
            {"mark": {"type": "rule", "strokeWidth": 2},
             "encoding": {**base, "x": {"field": "low", **x}, "x2": {"field": "high"}}},
            {"mark": {"type": "point", "filled": True, "size": 60},
             "encoding": {**base, "x": {"field": "median", **x},
                          "tooltip": _tips("row", "scope", "median", "low", "high", "p99")}},
        ],
        height={"step": 22},
    )  # fmt: skip
    return Chart(
        title="Latency by runtime and scope",
        spec=spec,
        alt=_ranked(records),
        choices={name: [one for one in records if one["measurement"] == name] for name in names},
    )


def _ranked(records: Sequence[Spec]) -> str:
    """Return the lowest and the highest latency of the first measurement in words."""
    first = [r for r in records if r["measurement"] == records[0]["measurement"]]
    best, worst = (pick(first, key=lambda one: one["median"]) for pick in (min, max))
    return (
        f"Median latencies with 95 % intervals. Of {first[0]['measurement']}, {best['row']} is "
        f"lowest with {best['median']:.4g} ms ({best['scope']}), {worst['row']} highest with "
        f"{worst['median']:.4g} ms ({worst['scope']})."
    )


def _shown(records: Sequence[Record]) -> list[str]:
    """Return the name of each record's choice: its model, and its machine if there are several."""
    keys = ["model", *apart(records)]
    return [", ".join(str(one.get(key, "")) for key in keys) for one in records]


def _throughput(rows: Sequence[Record]) -> Chart | None:
    """Plot samples per second by batch size; None if no model has several batch sizes."""
    rows = [row for row in rows if "forward_samples_per_s" in row]
    told = _told_apart(rows, ("model", "machine", "batch"))
    records = [
        {
            "model": model,
            "row": " · ".join(filter(None, (_named(row), own))),
            "batch": row["batch"],
            "rate": row["forward_samples_per_s"],
        }
        for row, own, model in zip(rows, told, _shown(rows), strict=True)
    ]
    models = list(dict.fromkeys(one["model"] for one in records))
    several = [m for m in models if len({o["batch"] for o in records if o["model"] == m}) > 1]
    if not several:
        return None
    spec = _spec(
        None,
        mark={"type": "line", "point": True},
        encoding={
            "x": {"field": "batch", "type": "quantitative", "scale": {"type": "log"}},
            "y": {"field": "rate", "type": "quantitative", "scale": {"type": "log"},
                  "title": "samples a second (forward)"},
            "color": {"field": "row", "type": "nominal", "title": None},
            "tooltip": _tips("row", "batch", "rate"),
        },
    )  # fmt: skip
    best = max((one for one in records if one["model"] == several[0]), key=lambda one: one["rate"])
    return Chart(
        title="Throughput against batch",
        spec=spec,
        alt=f"Samples a second by batch. The most of {several[0]} is {best['rate']:,.0f}, by "
        f"{best['row']} at batch {best['batch']}.",
        choices={m: [one for one in records if one["model"] == m] for m in several},
    )


def _pareto(rows: Sequence[Record], accuracies: Sequence[Record]) -> Chart | None:
    """Plot latency against memory, with the Pareto front; None with fewer than two records.

    The front also considers the drop in accuracy where it is known.
    """
    lost = {
        (one.get("model"), one.get("form"), one.get("runtime")): one.get("drop", 0.0)
        for one in accuracies
    }
    records = [
        {
            "measurement": _measurement(row),
            "row": _named(row),
            "latency": row["forward_ms"],
            "memory": row["peak_rss_mib"],
            "drop": lost.get((row.get("model"), row.get("form"), row["runtime"])),
        }
        for row in rows
        if "forward_ms" in row and "peak_rss_mib" in row
    ]
    if len(records) < 2:
        return None
    for one in records:
        beside = [other for other in records if other["measurement"] == one["measurement"]]
        one["front"] = (
            "Pareto front" if not any(_better(o, one) for o in beside) else "another is better"
        )
    spec = _spec(
        None,
        mark={"type": "point", "filled": True, "size": 90},
        encoding={
            "x": {"field": "latency", "type": "quantitative", "title": "forward median, ms",
                  "scale": {"type": "log"}},
            "y": {"field": "memory", "type": "quantitative", "title": "peak RSS, MiB",
                  "scale": {"zero": False}},
            "color": {"field": "row", "type": "nominal", "title": None},
            "shape": {"field": "front", "type": "nominal", "title": None,
                      "scale": {"domain": ["Pareto front", "another is better"],
                                "range": ["diamond", "circle"]}},
            "opacity": {"condition": {"test": "datum.front == 'Pareto front'", "value": 1},
                        "value": 0.5},
            "tooltip": _tips("row", "latency", "memory", "drop", "front"),
        },
    )  # fmt: skip
    names = list(dict.fromkeys(one["measurement"] for one in records))
    on_front = [o["row"] for o in records if o["measurement"] == names[0] and o["front"][0] == "P"]
    return Chart(
        title="Pareto front of latency, memory and accuracy",
        spec=spec,
        alt=f"Forward latency against memory. On the front of {names[0]}: {', '.join(on_front)}.",
        note="Diamonds: no other row of the measurement is better in latency, memory and accuracy.",
        choices={name: [one for one in records if one["measurement"] == name] for name in names},
    )


def _better(other: Spec, one: Spec) -> bool:
    """Return whether `other` is no worse in all values known for both, and better in one."""
    pairs = [(other[key], one[key]) for key in ("latency", "memory", "drop")]
    known = [(a, b) for a, b in pairs if a is not None and b is not None]
    return all(a <= b for a, b in known) and any(a < b for a, b in known)


def _curves(epochs: Sequence[Record]) -> Iterator[Chart]:
    """Yield plots of loss, metric, time and peak memory by epoch."""
    metric = "accuracy" if any("test_accuracy" in one for one in epochs) else "mae"
    for name in ("train_loss", f"test_{metric}", "train_s", "peak_mib"):
        known = [one for one in epochs if one.get(name) is not None]
        if not known:
            continue
        told = _told_apart(known)
        runs = {
            one["cell"]: name or str(one.get("model", "run"))
            for one, name in zip(known, told, strict=True)
        }
        models = list(dict.fromkeys(str(one.get("model", "")) for one in known))
        records = [
            {"run": runs[one["cell"]], "epoch": one["epoch"], "value": plotted(name, one[name]),
             "model": str(one.get("model", ""))}
            for one in known
        ]  # fmt: skip
        last = [one for one in records if one["epoch"] == max(o["epoch"] for o in records)]
        spec = _spec(
            None,
            mark={"type": "line", "point": len(records) < 400},
            encoding={
                "x": {"field": "epoch", "type": "quantitative", "axis": {"tickMinStep": 1}},
                "y": {"field": "value", "type": "quantitative", "title": label(name),
                      "scale": {"zero": False}},
                "color": {"field": "run", "type": "nominal", "title": None,
                          "legend": {"labelLimit": 320, "symbolLimit": 40}},
                "tooltip": _tips("run", "epoch", "value"),
            },
        )  # fmt: skip
        values = [one["value"] for one in last]
        yield Chart(
            title=f"Training: {label(name)} by epoch",
            spec=spec,
            alt=f"{label(name)} by epoch of {len(set(runs.values()))} runs; in the last epoch from "
            f"{min(values):.4g} to {max(values):.4g}.",
            choices={m: [one for one in records if one["model"] == m] for m in models},
        )


NAMING = frozenset(
    {"model", "trainer", "data", "seed", "optimizer", "learning_rate", "batch", "epochs",
     "device", "threads", "loader_workers", "repetition", "machine"}
)  # fmt: skip


def _told_apart(records: Sequence[Record], shown: Collection[str] = ()) -> list[str]:
    """Return the values that distinguish each record, without the keys in `shown`."""
    keys = [
        key
        for key in dict.fromkeys(key for one in records for key in one)
        if key not in shown and (key in NAMING or key.startswith(OPTIONS))
        if len({str(one.get(key)) for one in records}) > 1
    ]
    return [
        ", ".join(
            str(one[key]) if key in ("trainer", "model", "machine") else f"{label(key)} {one[key]}"
            for key in keys
            if key in one
        )
        for one in records
    ]


def _training_speed(rows: Sequence[Record]) -> Iterator[Chart]:
    rows = [one for one in rows if "epoch_samples_per_s" in one]
    told = _told_apart(rows, ("model", "machine", "batch", "trainer"))
    records = [
        {
            "model": model,
            "trainer": ", ".join(filter(None, (one["trainer"], own))),
            "batch": one["batch"],
            "rate": one["epoch_samples_per_s"],
        }
        for one, own, model in zip(rows, told, _shown(rows), strict=True)
    ]
    if not records:
        return
    models = list(dict.fromkeys(one["model"] for one in records))
    best = max(records, key=lambda one: one["rate"])
    yield Chart(
        title="Training speed against batch",
        spec=_spec(
            None,
            mark={"type": "line", "point": True},
            encoding={
                "x": {"field": "batch", "type": "quantitative", "scale": {"type": "log"}},
                "y": {"field": "rate", "type": "quantitative",
                      "title": "samples a second, training"},
                "color": {"field": "trainer", "type": "nominal", "title": None},
                "tooltip": _tips("trainer", "batch", "rate"),
            },
        ),
        alt=f"Samples a second in training, by batch; the most is {best['rate']:,.0f} by "
        f"{best['trainer']} at batch {best['batch']}.",
        choices={m: [one for one in records if one["model"] == m] for m in models},
    )  # fmt: skip


def _rows(results: Sequence[Result]) -> Iterator[tuple[str, Row, Scope, np.ndarray]]:
    for result in results:
        for number, row in enumerate(result.rows):
            for measurement in row.measurements:
                if len(samples := measurement.samples):
                    artifact = row.artifact.rstrip("/").split("/")[-2:]
                    yield (
                        f"{'/'.join(artifact)}, batch {row.batch}: {row.runtime} "
                        f"{measurement.scope} ({result.id[-8:]}.{number})",
                        row,
                        measurement.scope,
                        samples,
                    )


def _series(results: Sequence[Result]) -> Iterator[tuple[str, list[Spec]]]:
    """Yield name and samples of each row and scope, in order and thinned if there are many."""
    found = list(_rows(results))
    limit = int(min(MOST, max(LEAST, MOST_POINTS / max(1, len(found)))))
    for name, _, _, samples in found:
        picks = np.unique(np.linspace(0, len(samples) - 1, min(limit, len(samples))).astype(int))
        yield name, [{"n": int(at), "ms": _rounded(samples[at])} for at in picks]


def _quantiles(results: Sequence[Result]) -> Iterator[tuple[str, list[Spec]]]:
    for name, _, _, samples in _rows(results):
        yield name, [{"ms": _rounded(value)} for value in np.quantile(samples, QUANTILES)]


def _rounded(nanoseconds: float) -> float:
    return float(f"{nanoseconds / 1e6:.5g}")


def _time_line(series: dict[str, list[Spec]]) -> Chart:
    first, points = next(iter(series.items()))
    return Chart(
        title="Samples in the order in which they were taken",
        spec=_spec(
            None,
            mark={"type": "point", "size": 10, "opacity": 0.6},
            encoding={
                "x": {"field": "n", "type": "quantitative", "title": "run"},
                "y": {"field": "ms", "type": "quantitative", "title": "ms",
                      "scale": {"zero": False}},
                "tooltip": _tips("n", "ms"),
            },
        ),
        alt=f"Time of each run, in order. Of {first}: {len(points)} points from "
        f"{min(p['ms'] for p in points):.4g} to {max(p['ms'] for p in points):.4g} ms.",
        note="Thinned where there are many: drift and outliers show, single runs may not.",
        choices=series,
    )  # fmt: skip


def _distribution(series: dict[str, list[Spec]]) -> Chart:
    first, points = next(iter(series.items()))
    return Chart(
        title="Distribution of samples",
        spec=_spec(
            None,
            transform=[
                {"window": [{"op": "row_number", "as": "number"}]},
                {"calculate": f"(datum.number - 1) / {len(QUANTILES) - 1}", "as": "share"},
            ],
            mark={"type": "line"},
            encoding={
                "x": {"field": "ms", "type": "quantitative", "scale": {"zero": False}},
                "y": {"field": "share", "type": "quantitative", "title": "share of runs below",
                      "axis": {"format": "%"}},
                "tooltip": _tips("share", "ms"),
            },
        ),
        alt=f"Share of runs that took less than a time. Of {first}, half took less than "
        f"{points[40]['ms']:.4g} ms, all but 5 % less than {points[76]['ms']:.4g} ms.",
        choices=series,
    )  # fmt: skip


def of_study(plot: Plot, records: Sequence[Record], tables: Sequence[Table]) -> Chart | None:
    """Return a plot that a study defines, with reference points; None if there are no points."""
    x, y, by = plot.x, plot.y, list(plot.by)
    found = where(records, plot.where)
    ours = _points(found, x, y, [*by, *apart(found)], "ours")
    reference = next((t.reference for t in tables if t.title == plot.reference), ())
    theirs = _points(reference, x, y, by, "reference")
    points = [*ours, *theirs]
    if not points:
        return None
    continuous = all(isinstance(one["x"], int | float) for one in points)
    scale_x = {"type": "log"} if plot.log_x else {"zero": False}
    encoding: Spec = {
        "x": {"field": "x", "type": "quantitative" if continuous else "nominal",
              "title": label(x), **({"scale": scale_x} if continuous else {})},
        "y": {"field": "y", "type": "quantitative", "title": label(y),
              "scale": {"type": "log"} if plot.log_y else {"zero": plot.kind == "bar"}},
        "color": {"field": "series", "type": "nominal", "title": None,
                  "legend": {"labelLimit": 320, "symbolLimit": 40}},
        "tooltip": _tips("series", "x", "y", "whose"),
    }  # fmt: skip
    if theirs and plot.kind == "bar":
        encoding |= {"xOffset": {"field": "whose"}, "opacity": {"field": "whose"}}
    elif theirs:
        encoding |= {
            "strokeDash": {"field": "whose", "type": "nominal", "title": None},
            "shape": {"field": "whose", "type": "nominal", "title": None},
        }
    marks: Mapping[str, Spec] = {
        "line": {"type": "line", "point": True},
        "bar": {"type": "bar"},
        "point": {"type": "point", "filled": True, "size": 70},
    }
    values = [one["y"] for one in ours] or [one["y"] for one in theirs]
    return Chart(
        title=plot.title,
        spec=_spec(points, mark=marks[plot.kind], encoding=encoding),
        alt=f"{label(y)} against {label(x)}: {len(ours)} points of ours"
        f"{f' and {len(theirs)} of the reference' if theirs else ''}, from {min(values):.4g} to "
        f"{max(values):.4g}.",
        note=plot.note,
        section="study",
    )


def _points(records: Sequence[Record], x: str, y: str, by: Sequence[str], whose: str) -> list[Spec]:
    points: list[Spec] = []
    for one in records:
        if one.get(x) is None or one.get(y) is None:
            continue
        series = ", ".join(str(one.get(key)) for key in by if one.get(key) is not None) or "all"
        value = plotted(x, one[x]) if isinstance(one[x], int | float) else str(one[x])
        point = {"series": series, "x": value, "y": plotted(y, one[y]), "whose": whose}
        if not any(equal(point, other) for other in points):
            points.append(point)
    return points


def _tips(*names: str) -> list[Spec]:
    numbers = {"median", "low", "high", "p99", "ms", "value", "rate", "latency", "memory", "y"}
    return [
        {"field": name, **({"type": "quantitative", "format": ",.4~g"} if name in numbers else {})}
        for name in names
    ]


def _spec(values: Sequence[Record] | None, **parts: Any) -> Spec:
    """Return a specification with `values` as data, or with the chosen series if None."""
    data: Spec = {"name": "chosen"} if values is None else {"values": list(values)}
    return {
        "width": "container",
        "height": HEIGHT,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "data": data,
        **parts,
    }
