"""Metrics of model outputs, with or without labels."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from toolkit.core.artifact import Artifact
from toolkit.core.errors import UsageError
from toolkit.core.specs import Outputs, TaskKind
from toolkit.data.scores import (
    are_probabilities,
    log_loss_of,
    loss_of,
    metric_of,
    share_equal,
    share_in_top,
    top1,
)
from toolkit.parity.paired import Drop, accuracy_drop, error_drop
from toolkit.sources.labelled_data import LabelledRows
from toolkit.verification.report import ClassRow

TOP = 5
FEWEST = 20  # samples that a bootstrap needs


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """Choice of the output to score, with its labels, and how to score it.

    `classes` is True if the output has a score per class for each sample: by the labels, or without
    labels by the task and the shape of the output. `probabilities` is True if these scores are
    probabilities rather than logits.
    """

    output: str
    targets: np.ndarray | None
    classes: bool
    probabilities: bool = False

    @classmethod
    def of(cls, artifact: Artifact, rows: LabelledRows, few: Outputs) -> Self:
        """Choose the first output that the labels fit, given the outputs for a few samples.

        Raises UsageError if there is none, for labels outside the classes of the model, and for
        fewer than FEWEST samples if the labels are values.
        """
        shapes = {
            name: _flat_shape(array)
            for name, array in few.items()
            if np.issubdtype(array.dtype, np.floating)
        }
        if not shapes:
            raise UsageError(
                f"{artifact.path} gives no floating-point output.",
                hint="Compare a model that gives logits, probabilities or values.",
            )
        scored = {name: shape[0] for name, shape in shapes.items() if len(shape) == 1}
        task = artifact.model.task
        if rows.targets is None:
            classes = task is None or task.kind is TaskKind.CLASSIFICATION
            able = [name for name, extent in scored.items() if extent > 1]
            name = able[0] if able else next(iter(shapes))
            return cls(output=name, targets=None, classes=classes and name in able)
        if rows.classes:
            name = _for_classes(artifact, rows, rows.targets, scored)
        else:
            name = _for_values(artifact, rows, rows.targets, scored)
        return cls(output=name, targets=rows.targets, classes=rows.classes)

    def settled(self, outputs: Outputs) -> Self:
        """Return a copy with `probabilities` decided by all outputs of A."""
        found = outputs[self.output]
        return replace(self, probabilities=self.classes and are_probabilities(_flat(found)))

    def scores(self, outputs: np.ndarray) -> dict[str, float]:
        """Return loss, top1 and, for more than five classes, top5; or mse and mae for values.

        Without labels there are no scores.
        """
        if self.targets is None:
            return {}
        found, targets = _flat(outputs), self.targets
        if not self.classes:
            kind = TaskKind.REGRESSION
            return {"mse": loss_of(kind, found, targets), "mae": metric_of(kind, found, targets)}
        loss = (
            log_loss_of(found, targets)
            if self.probabilities
            else loss_of(TaskKind.CLASSIFICATION, found, targets)
        )
        scores = {"loss": loss, "top1": share_equal(top1(found), targets)}
        if found.shape[1] > TOP:
            scores["top5"] = share_in_top(found, targets, TOP)
        return scores

    def agreement(self, got: np.ndarray, expected: np.ndarray) -> float | None:
        if not self.classes:
            return None
        return share_equal(top1(_flat(got)), top1(_flat(expected)))

    def drop(self, got: np.ndarray, expected: np.ndarray) -> Drop | None:
        if self.targets is None:
            return None
        if self.classes:
            return accuracy_drop(*(self._right(array) for array in (expected, got)))
        targets = self.targets
        errors = (
            np.square(_flat(array).astype(np.float64) - targets).mean(axis=1)
            for array in (expected, got)
        )
        return error_drop(*errors)

    def by_class(self, got: np.ndarray, expected: np.ndarray) -> tuple[ClassRow, ...]:
        """Return the accuracies of A and B, and the drop, for every class that has samples."""
        assert self.targets is not None
        a, b = (self._right(array) for array in (expected, got))
        found = []
        for label in np.unique(self.targets):
            of_it = self.targets == label
            found.append(
                ClassRow(
                    label=int(label),
                    rows=int(of_it.sum()),
                    a=float(a[of_it].mean()),
                    b=float(b[of_it].mean()),
                    drop=accuracy_drop(a[of_it], b[of_it]),
                )
            )
        return tuple(found)

    def _right(self, outputs: np.ndarray) -> np.ndarray:
        return np.asarray(top1(_flat(outputs)) == self.targets)


def _for_classes(
    artifact: Artifact, rows: LabelledRows, targets: np.ndarray, scored: dict[str, int]
) -> str:
    able = {name: extent for name, extent in scored.items() if extent > 1}
    if not able:
        raise UsageError(
            f"The labels of {rows.description} are classes; {artifact.path} gives no output "
            "[batch, classes] of a floating-point dtype.",
            hint="Whole numbers as labels are classes; give floats for values.",
        )
    most = max(able.values())
    wrong = (targets < 0) | (targets >= most)
    if wrong.any():
        row = int(wrong.argmax())
        raise UsageError(
            f"Label {targets[row]} in row {row} of {rows.description} is none of the {most} "
            f"classes of {artifact.path}; {int(wrong.sum())} of {rows.count} labels are not.",
            hint=f"Classes are counted from 0: give labels from 0 to {most - 1}.",
        )
    return next(name for name, extent in able.items() if extent > targets.max())


def _for_values(
    artifact: Artifact, rows: LabelledRows, targets: np.ndarray, scored: dict[str, int]
) -> str:
    extent = targets.shape[1]
    found = next((name for name, size in scored.items() if size == extent), None)
    if found is None:
        given = ", ".join(f"{name} {size}" for name, size in scored.items()) or "none"
        raise UsageError(
            f"The labels of {rows.description} are {extent} values a row; {artifact.path} gives "
            f"{given}.",
            hint="Give as many values a row as the model does; classes are whole numbers.",
        )
    if rows.count < FEWEST:
        raise UsageError(
            f"Got {rows.count} rows of values, expected at least {FEWEST}: of fewer, a bootstrap "
            "says nothing.",
            hint="Give more rows.",
        )
    return found


def _flat_shape(array: np.ndarray) -> tuple[int, ...]:
    """Return the shape of a sample's output, without trailing axes if all are of extent 1."""
    row = array.shape[1:] or (1,)
    return row[:1] if math.prod(row[1:]) == 1 else row


def _flat(outputs: np.ndarray) -> np.ndarray:
    """Return the outputs as [N, C], for example from [N] (then C is 1) or [N, C, 1, 1]."""
    return outputs.reshape(len(outputs), -1)
