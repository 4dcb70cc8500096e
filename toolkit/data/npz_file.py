"""User data in a file of NumPy arrays."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, final

import numpy as np

from toolkit.core.errors import SourceError, UsageError
from toolkit.core.files import digest_file
from toolkit.core.specs import Task, TaskKind
from toolkit.data.arrays import load_arrays
from toolkit.data.base import DataSet, Request, Split, Splits, refuse_shape
from toolkit.data.tables import LEAST_ROWS, SPLIT_SEED, split_rows

TRAIN = ("inputs", "targets")
TEST = ("test_inputs", "test_targets")
HINT = (
    "Write it as np.savez(path, inputs=..., targets=...), with test_inputs=... and "
    "test_targets=... or without; whole numbers as targets are classes, floats are values."
)


@final
class NpzFile(DataSet):
    """Samples in arrays `inputs` and `targets`, optionally with `test_inputs` and `test_targets`.

    `inputs` is [N, ...] and is not normalised. `targets` is [N] of integers for classes, numbered
    from 0, or [N] or [N, outputs] of floats for values. Without test arrays, one fifth of the
    samples, drawn at random with a fixed seed, are test samples.
    """

    name: ClassVar[str] = "npz"

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self, request: Request) -> Splits:
        """Load the file.

        Raises UsageError, which names the array and row, if it has invalid samples.
        """
        arrays = self._read()
        train = self._split(arrays, TRAIN)
        if TEST[0] in arrays:
            test = self._split(arrays, TEST)
            preprocessing = {}
        else:
            first, second = split_rows(len(train))
            whole = train
            train, test = (
                Split(inputs=whole.inputs[rows], targets=whole.targets[rows])
                for rows in (first, second)
            )
            preprocessing = {"split_seed": SPLIT_SEED}
        shape = train.inputs.shape[1:]
        for name, one, other in (
            (TEST[0], shape, test.inputs.shape[1:]),
            (TEST[1], train.targets.shape[1:], test.targets.shape[1:]),
        ):
            if one != other:
                raise self._refusal(f"{name} has rows of shape {list(other)}, not {list(one)}")
        if train.targets.dtype != test.targets.dtype:
            raise self._refusal(f"{TRAIN[1]} and {TEST[1]} are not both classes or both values")
        if request.shape not in (None, shape):
            raise refuse_shape(str(self._path), request.shape, shape)
        return Splits(
            task=_task(shape, train.targets, test.targets),
            train=train,
            test=test,
            preprocessing={
                "file": self._path.name,
                "file_digest": digest_file(self._path),
                **preprocessing,
            },
        )

    def _read(self) -> dict[str, np.ndarray]:
        try:
            found = load_arrays(self._path)
        except SourceError as error:
            raise SourceError(error.problem, hint=HINT) from error
        expected = set(TRAIN) if found.keys().isdisjoint(TEST) else {*TRAIN, *TEST}
        if found.keys() != expected:
            raise self._refusal(f"it has the arrays {sorted(found)}, expected {sorted(expected)}")
        return found

    def _split(self, arrays: Mapping[str, np.ndarray], names: tuple[str, str]) -> Split:
        inputs, targets = (arrays[name] for name in names)
        if inputs.ndim < 2:
            raise self._refusal(f"{names[0]} has shape {list(inputs.shape)}, expected [rows, ...]")
        if targets.ndim not in (1, 2) or (targets.ndim == 2 and _is_whole(targets)):
            raise self._refusal(
                f"{names[1]} is {targets.dtype} of shape {list(targets.shape)}, expected whole "
                "numbers [rows] for classes or floats [rows, outputs] for values"
            )
        if len(inputs) != len(targets):
            raise self._refusal(f"{names[0]} has {len(inputs)} rows, {names[1]} has {len(targets)}")
        least = LEAST_ROWS if names == TRAIN else 1
        if len(inputs) < least:
            raise self._refusal(f"{names[0]} has {len(inputs)} rows, expected at least {least}")
        return Split(
            inputs=np.ascontiguousarray(self._floats(inputs, names[0])),
            targets=self._targets(targets, names[1]),
        )

    def _targets(self, targets: np.ndarray, name: str) -> np.ndarray:
        if not _is_whole(targets):
            values = self._floats(targets, name)
            return np.ascontiguousarray(values.reshape(len(values), -1))
        if targets.min() < 0:
            row = int(targets.argmin())
            raise self._refusal(f"{name} has class {targets[row]} in row {row}, expected 0 or more")
        return targets.astype(np.int64)

    def _floats(self, array: np.ndarray, name: str) -> np.ndarray:
        if array.dtype.kind not in "fiub":
            raise self._refusal(f"{name} has dtype {array.dtype}, expected numbers")
        with np.errstate(over="ignore"):
            values = array.astype(np.float32)
        if not np.isfinite(values).all():
            at = [int(index) for index in np.argwhere(~np.isfinite(values))[0]]
            where = f"row {at[0]}, at {at[1:]}" if at[1:] else f"row {at[0]}"
            raise self._refusal(
                f"{name} has {array[tuple(at)]} in {where}, expected finite float32"
            )
        return values

    def _refusal(self, what: str) -> UsageError:
        return UsageError(
            f"Read {self._path}: {what}.",
            hint=HINT,
        )


def _is_whole(targets: np.ndarray) -> bool:
    return targets.dtype.kind in "iub"


def _task(shape: tuple[int, ...], train: np.ndarray, test: np.ndarray) -> Task:
    if train.dtype == np.int64:
        classes = int(max(train.max(), test.max())) + 1
        return Task(kind=TaskKind.CLASSIFICATION, input_shape=shape, outputs=max(classes, 2))
    return Task(kind=TaskKind.REGRESSION, input_shape=shape, outputs=train.shape[1])
