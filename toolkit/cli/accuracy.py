"""Printing of an accuracy comparison."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from toolkit.cli import output
from toolkit.core.gates import CheckOutcome
from toolkit.core.measurement import Status
from toolkit.parity.paired import Unit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from toolkit.parity.paired import Drop
    from toolkit.parity.similarity import Similarity
    from toolkit.verification.report import AccuracyComparison, AccuracyRow

SHARES = {"top1": "top-1", "top5": "top-5"}
WORSE = {Unit.POINTS: ("worse", "better"), Unit.MSE: ("higher", "lower")}
WORDS = {
    CheckOutcome.PASSED: "passed",
    CheckOutcome.FAILED: "FAILED",
    CheckOutcome.UNKNOWN: "unknown",
}
VERDICTS = {
    CheckOutcome.PASSED: "Passed.",
    CheckOutcome.FAILED: "FAILED.",
    CheckOutcome.UNKNOWN: "Inconclusive.",
}


def print_accuracy(done: AccuracyComparison) -> None:
    console = output.stdout()
    for form in done.forms:
        what = ""
        if form.letter == "A":
            taken = "probabilities" if done.probabilities else ""
            what = f", on {done.reference}: what the others are compared with"
            what += f"; {done.output} is taken for {taken}" if taken else ""
        console.out(f"{form.letter}: {form.path} ({form.format}, {form.precision}){what}")
    _print_rows(console, done)
    for row in done.rows:
        name = f"{row.form} on {row.runtime}"
        if row.drop is not None:
            console.out(f"{name}: {told(row.drop)}.")
        console.out(f"{name}: {WORDS[row.gate]}: {row.why.rstrip('.')}.")
    for row in done.rows:
        if row.classes:
            _print_classes(console, row)
    _print_layers(console, done)
    if done.labelled:
        console.out(
            "Intervals are of 95 %, of rows like these; "
            "'worse' and 'better' are said where the interval excludes 0"
            + (" and McNemar's exact test gives p <= 0.05." if "top1" in done.scores else ".")
        )
    console.out(VERDICTS[done.gate])


def told(drop: Drop) -> str:
    """Describe a drop, for example `0.4 points worse, between 0.1 and 0.7 (…)`.

    For an accuracy, the parentheses contain the counts and p-value of McNemar's test.
    """
    low, high = drop.interval
    worse, better = WORSE[drop.unit]
    digits = 1 if high - low >= 0.5 else 2 if high - low >= 0.05 else 4
    number = f"{{:.{digits}f}}".format
    of = "points" if drop.unit is Unit.POINTS else "%"
    if not drop.shown:
        ends = [
            f"{number(abs(end))} {better if end < 0 else worse}" if end else "0"
            for end in drop.interval
        ]
        found = f"no difference shown: between {ends[0]} and {ends[1]}"
        found += "" if drop.unit is Unit.POINTS else ", in % of the MSE"
    else:
        near, far = sorted((abs(low), abs(high)))
        word = worse if drop.value > 0 else better
        found = f"{number(abs(drop.value))} {of} {word}, between {number(near)} and {number(far)}"
        found = found if drop.unit is Unit.POINTS else f"MSE {found}"
    if drop.p is None:
        return found
    return (
        f"{found} ({drop.only_a} rows right only by A, {drop.only_b} only by the other; "
        f"p = {drop.p:.2g})"
    )


def _print_rows(console: Console, done: AccuracyComparison) -> None:
    shown = [*(SHARES.get(name, name) for name in done.scores)]
    agreement = ["agreement"] if any(row.agreement is not None for row in done.rows) else []
    columns = (*shown, *agreement, "SQNR dB", "cosine", "max abs", "max rel")
    table = output.table(
        f"{done.samples} {output.escape(done.description)}", "form", "runtime", *columns, "",
        numeric=columns,
    )  # fmt: skip
    table.add_row("A", done.reference, *_scores(done.scores))
    for row in done.rows:
        absent = "unavailable" if row.status is Status.UNAVAILABLE else "did not run"
        status = WORDS[row.gate] if row.status is Status.OK else absent
        near = row.outputs.get(done.output)
        scores = _scores(row.scores) if row.scores is not None else ["-"] * len(shown)
        table.add_row(
            row.form,
            row.runtime,
            *scores,
            *(["-" if row.agreement is None else f"{row.agreement:.2%}"] if agreement else []),
            decibels(near),
            "-" if near is None or near.cosine is None else f"{near.cosine:.6f}",
            output.scientific(row.parity.max_abs if row.parity else None),
            output.scientific(row.parity.max_rel if row.parity else None),
            status,
        )
    console.print(table)


def _scores(scores: Mapping[str, float]) -> list[str]:
    """Format scores in the order of the columns: top-1 and top-5 as percentages."""
    return [f"{v:.2%}" if name in SHARES else f"{v:.6f}" for name, v in scores.items()]


def decibels(near: Similarity | None) -> str:
    if near is None or near.sqnr_db is None:
        return "-"
    return "equal" if near.sqnr_db == math.inf else f"{near.sqnr_db:.1f}"


def _print_classes(console: Console, row: AccuracyRow) -> None:
    columns = ("class", "rows", "A", row.form, f"{row.form} less accurate by", "95 % interval")
    table = output.table(f"{row.form} on {row.runtime}, by class", *columns, numeric=columns)
    for one in row.classes:
        low, high = one.drop.interval
        table.add_row(
            str(one.label),
            str(one.rows),
            f"{one.a:.2%}",
            f"{one.b:.2%}",
            f"{one.drop.value:.1f}",
            f"{low:.1f} to {high:.1f}",
        )
    console.print(table)
    console.out("In points. Of twenty such intervals, one misses by chance.")


def _print_layers(console: Console, done: AccuracyComparison) -> None:
    for one in done.layers:
        if one.layers is None:
            console.out(f"{one.form}: no inner tensors. {one.reason}")
            continue
        table = output.table(
            f"Inner tensors of {one.form} on {one.layers.runtime}, against {one.layers.reference}",
            "tensor", "made by", "SQNR dB", "cosine", "relative error",
            numeric=("SQNR dB", "cosine", "relative error"),
        )  # fmt: skip
        for layer in one.layers.layers:
            near = layer.similarity
            table.add_row(
                output.escape(layer.name),
                output.escape(layer.operator),
                decibels(near),
                "-" if near is None or near.cosine is None else f"{near.cosine:.6f}",
                output.scientific(layer.judgement.relative),
            )
        console.print(table)
