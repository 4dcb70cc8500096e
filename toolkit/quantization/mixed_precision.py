"""Search for the nodes to keep in floating point so that an INT8 model is accurate enough."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from toolkit.core.artifact import Artifact
from toolkit.core.documents import Json
from toolkit.core.errors import CheckFailedError
from toolkit.core.gates import CheckOutcome
from toolkit.core.progress import Progress
from toolkit.core.session import SessionOptions
from toolkit.core.specs import Feeds
from toolkit.quantization.quantizer_client import Quantiser, Sensitivity
from toolkit.verification.reference_run import ReferenceRun
from toolkit.verification.report import AccuracyRow, judged


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Accuracy requirement: a drop of at most `max_drop` on the samples of `reference_run`.

    The accuracy is measured with `runtime`, opened with `options`.
    """

    reference_run: ReferenceRun
    runtime: str
    options: SessionOptions
    timeout_s: float
    max_drop: float

    def of(self, artifact: Artifact) -> AccuracyRow:
        row = self.reference_run.hold(
            "B", (artifact,), self.runtime, self.options, timeout_s=self.timeout_s
        )
        return judged(row, self.max_drop)


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Result of the search: the nodes kept in floating point, and the accuracy of that graph.

    `in_float` are these nodes, the most sensitive first. `sensitivities` has every node that can be
    quantised alone, in that order, and is empty if the fully quantised graph passed. `tried` counts
    the graphs whose accuracy was measured.
    """

    in_float: tuple[str, ...]
    sensitivities: tuple[Sensitivity, ...]
    tried: int
    accuracy: AccuracyRow

    def to_json(self) -> Json:
        return {
            "in_float": list(self.in_float),
            "sensitivities": [one.to_json() for one in self.sensitivities],
            "tried": self.tried,
            "accuracy": self.accuracy.to_json(),
        }


def fewest_in_float(
    quantiser: Quantiser,
    save: Callable[[], Artifact],
    target: Path,
    scratch: Path,
    batches: Sequence[Feeds],
    accuracy: Accuracy,
    progress: Progress,
) -> Mixture:
    """Write to `target` the graph with the fewest nodes in floating point that passes.

    The most sensitive nodes are kept in floating point first. Their number is found by bisection,
    which assumes that keeping one more never lowers the accuracy. `save` makes an artifact of
    `target`; sensitivities are measured on `batches`.

    Raises CheckFailedError if no graph with at least one quantised node passes.
    """
    costs: list[Sensitivity] = []
    rows: dict[int, AccuracyRow] = {}

    def passes(count: int) -> bool:
        if count not in rows:
            quantiser.write(target, [one.node for one in costs[:count]])
            rows[count] = accuracy.of(save())
            progress.note(f"{count} nodes in float: {rows[count].why}")
        return rows[count].gate is CheckOutcome.PASSED

    if not passes(0):
        costs += quantiser.sensitivities(scratch, batches, progress)
    low, high = 0, 0 if rows[0].gate is CheckOutcome.PASSED else max(0, len(costs) - 1)
    if high and not passes(high):
        raise CheckFailedError(
            f"No mixture loses at most {accuracy.max_drop:g}: with {high} of {len(costs)} nodes in "
            f"floating point, {rows[high].why}.",
            hint="Try another --method, more --samples, or a larger --max-drop.",
        )
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if passes(middle) else (middle, high)
    if rows[high].gate is not CheckOutcome.PASSED:
        raise CheckFailedError(
            f"{target.name} has {len(costs)} nodes that can be quantised alone, too few to choose "
            f"from, and {rows[high].why}.",
            hint="Try another --method, more --samples, or a larger --max-drop.",
        )
    quantiser.write(target, [one.node for one in costs[:high]])
    return Mixture(
        in_float=tuple(one.node for one in costs[:high]),
        sensitivities=tuple(costs),
        tried=len(rows),
        accuracy=rows[high],
    )
