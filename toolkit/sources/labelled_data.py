"""Samples on which variants of a model are compared, with or without labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.core.artifact import Artifact
from toolkit.core.errors import FeedError, UsageError
from toolkit.core.progress import Progress
from toolkit.core.specs import Feeds, Outputs, Signature, convert_feeds
from toolkit.data.arrays import load_arrays
from toolkit.data.npz_file import TEST, TRAIN
from toolkit.measuring.workers.client import WorkerProcess
from toolkit.sources.inputs import load_inputs, load_test_rows

BATCH = 64
LABELS = ("labels", "targets")
ONLY_INPUT = "inputs"
SPLIT = ({*TRAIN}, {*TRAIN, *TEST})  # array names of an .npz data set
FLOATS = ("float16", "float32", "float64")


@dataclass(frozen=True, kw_only=True)
class LabelledRows:
    """Samples to feed to a model, with their labels if there are any.

    `feeds` are arrays by input name, with the samples along the batch axis; an input without a
    batch axis is the same for all samples. `targets` are classes [N] int64, or values [N, outputs]
    float64 (float32 from a data set).
    """

    feeds: Feeds
    count: int
    targets: np.ndarray | None
    description: str

    @property
    def classes(self) -> bool:
        return self.targets is not None and self.targets.ndim == 1


def holds_inputs(data: str | None) -> bool:
    """Return whether `data` names an .npz file of model inputs rather than a data set."""
    if data is None or not data.lower().endswith(".npz") or not Path(data).is_file():
        return False
    return set(load_arrays(Path(data))) not in SPLIT


def load_rows(
    artifact: Artifact,
    *,
    data: str | None,
    inputs: Path | None,
    settings: Mapping[str, Any] | None,
    directory: Path | None,
    progress: Progress,
) -> LabelledRows:
    """Load the test samples of a data set, or all samples of an .npz file of model inputs.

    Such a file is given as `inputs` or as `data`, and may contain labels. Exactly one of `data` and
    `inputs` is given; `settings` are options of the data set. Raises UsageError, naming the array
    and the sample, for inputs that cannot be fed and for invalid labels.
    """
    if (data is None) == (inputs is None):
        got = "neither" if data is None else "both"
        raise UsageError(
            f"Got {got} of --data and --inputs.",
            hint="Give --data NAME|FILE for rows with labels, or --inputs FILE.npz.",
        )
    file = inputs
    if file is None and data is not None and data.lower().endswith(".npz"):
        file = Path(data)
    if file is not None:
        arrays = load_inputs(file, artifact.signature)
        if inputs is not None or set(arrays) not in SPLIT:
            if settings:
                raise UsageError(
                    f"Got --data-option for {file}, which has none.", hint="Leave it out."
                )
            return _of_file(artifact, file, arrays)
    assert data is not None
    split = load_test_rows(
        artifact, data, settings=settings, directory=directory, progress=progress
    )
    specs = artifact.signature.inputs
    if len(specs) != 1:
        raise UsageError(
            f"{data} gives one input, the model takes {artifact.signature.describe_inputs()}.",
            hint="Give an .npz file with an array for each input, and labels.",
        )
    rows = LabelledRows(
        feeds={specs[0].name: split.inputs},
        count=len(split),
        targets=split.targets,
        description=f"test rows of {data}",
    )
    check_rows(artifact, rows, artifact.signature)
    return rows


def run_rows(
    worker: WorkerProcess, artifact: Artifact, rows: LabelledRows, given: Signature
) -> Outputs:
    """Return the outputs of the opened artifact for all samples.

    `given` is the signature that the samples fit. Raises UsageError for an output whose first axis
    is not as long as the batch.
    """
    parts: list[Outputs] = []
    for feeds, count, size in _batches(artifact.signature, rows, given):
        outputs = worker.run(feeds)
        for name, array in outputs.items():
            if array.ndim == 0 or len(array) != size:
                raise UsageError(
                    f"{artifact.path} gave {name} of shape {list(array.shape)} for {size} rows.",
                    hint="Compare models whose outputs have a row for each row of the inputs.",
                )
        parts.append({name: array[:count] for name, array in outputs.items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def check_rows(artifact: Artifact, rows: LabelledRows, given: Signature) -> None:
    """Raise UsageError unless the artifact accepts the first batch of the samples."""
    try:
        artifact.signature.check(feeds_of(artifact, rows, given))
    except FeedError as error:
        raise UsageError(
            f"{rows.description} do not fit {artifact.path}: {error.problem}", hint=error.hint
        ) from error


def load_labelled(
    artifact: Artifact,
    data: str | None,
    settings: Mapping[str, Any] | None,
    directory: Path | None,
    progress: Progress,
) -> LabelledRows:
    """Load the labelled samples on which a drop in accuracy is measured.

    Raises UsageError if there is no data set, if it has no labels, or if all are one class.
    """
    if data is None:
        raise UsageError(
            f"{artifact.path} names no data set, by which to tell a drop in accuracy.",
            hint="Give --data NAME|FILE with labels, or --exact.",
        )
    rows = load_rows(
        artifact, data=data, inputs=None, settings=settings, directory=directory, progress=progress
    )
    if rows.targets is None:
        raise UsageError(
            f"{rows.description} have no labels, by which to tell a drop in accuracy.",
            hint="Add an array of labels; `optimize --exact` asks for none.",
        )
    require_classes(rows)
    return rows


def require_classes(rows: LabelledRows) -> None:
    """Raise UsageError if all samples have the same class."""
    if rows.targets is not None and rows.classes and len(np.unique(rows.targets)) == 1:
        raise UsageError(
            f"All {rows.count} labels of {rows.description} are class {rows.targets[0]}: accuracy "
            "on one class says nothing about the others.",
            hint="Give rows of all classes.",
        )


def first_rows(rows: LabelledRows, count: int, given: Signature) -> LabelledRows:
    """Return at most the first `count` samples; `given` is the signature that they fit."""
    count = min(rows.count, count)
    return replace(
        rows,
        feeds=given.rows(rows.feeds, np.arange(count)),
        count=count,
        targets=None if rows.targets is None else rows.targets[:count],
    )


def feeds_of(artifact: Artifact, rows: LabelledRows, given: Signature) -> Feeds:
    """Return the first batch with the names, layouts and dtypes of the artifact's inputs."""
    return next(_batches(artifact.signature, rows, given))[0]


def _batches(
    signature: Signature, rows: LabelledRows, given: Signature
) -> Iterator[tuple[Feeds, int, int]]:
    """Yield the feeds of each batch, its number of samples without repeats, and its size.

    For a model with a fixed batch, the last sample is repeated to fill the last batch.
    """
    fixed = signature.batch_axis
    size = fixed if isinstance(fixed, int) else BATCH
    dtypes = {spec.name: spec.dtype for spec in signature.inputs}
    for start in range(0, rows.count, size):
        picks = np.arange(start, start + size)
        if not isinstance(fixed, int):
            picks = picks[picks < rows.count]
        picked = np.minimum(picks, rows.count - 1)
        part = given.rows(rows.feeds, picked)
        feeds = {
            name: array.astype(dtypes[name])
            if dtypes.get(name) in FLOATS and array.dtype.name in FLOATS
            else array
            for name, array in convert_feeds(part, given, signature).items()
        }
        yield feeds, min(size, rows.count - start), len(picked)


def _of_file(artifact: Artifact, path: Path, arrays: dict[str, np.ndarray]) -> LabelledRows:
    specs = {spec.name: spec for spec in artifact.signature.inputs}
    labels = [name for name in LABELS if name in arrays and name not in specs]
    if len(labels) > 1:
        raise _refusal(path, artifact, f"it has both {' and '.join(labels)}")
    feeds = {name: array for name, array in arrays.items() if name not in labels}
    if set(feeds) == {ONLY_INPUT} and len(specs) == 1:
        feeds = {next(iter(specs)): feeds[ONLY_INPUT]}
    if feeds.keys() != specs.keys():
        raise _refusal(path, artifact, f"it has the arrays {sorted(arrays)}")
    for name, array in feeds.items():
        feeds[name] = _input(path, artifact, name, array, specs[name].dtype)
    counts = {
        name: array.shape[axis]
        for name, array in feeds.items()
        if (axis := artifact.signature.batch_position(specs[name])) is not None
        and axis < array.ndim
    }
    if len(set(counts.values())) != 1 or not min(counts.values()):
        told = ", ".join(f"{name} {count}" for name, count in counts.items()) or "no axes"
        raise _refusal(path, artifact, f"its inputs have these rows: {told}")
    count = next(iter(counts.values()))
    targets = None
    if labels:
        targets = _targets(path, artifact, labels[0], arrays[labels[0]], count)
    rows = LabelledRows(feeds=feeds, count=count, targets=targets, description=f"rows of {path}")
    check_rows(artifact, rows, artifact.signature)
    return rows


def _input(path: Path, artifact: Artifact, name: str, array: np.ndarray, dtype: str) -> np.ndarray:
    """Return the array of an input, with floats or integers converted to the width of `dtype`.

    Raises UsageError for NaN or infinity, and for values beyond the range of `dtype`.
    """
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        row = np.argwhere(~np.isfinite(np.atleast_1d(array)))[0]
        raise _refusal(path, artifact, f"{name} has NaN or infinity in row {row[0]}")
    kinds = {"f": "float", "i": "int", "u": "int"}
    if array.dtype.name == dtype or kinds.get(array.dtype.kind) != dtype.rstrip("0123456789"):
        return np.ascontiguousarray(array)
    with np.errstate(over="ignore"):
        found = array.astype(dtype)
    lost = not np.isfinite(found).all() if array.dtype.kind == "f" else (found != array).any()
    if lost:
        raise _refusal(path, artifact, f"{name} is {array.dtype} with values beyond {dtype}")
    return np.ascontiguousarray(found)


def _targets(
    path: Path, artifact: Artifact, name: str, array: np.ndarray, count: int
) -> np.ndarray:
    whole = array.dtype.kind in "iub"
    if array.ndim not in (1, 2) or array.dtype.kind not in "iubf" or (whole and array.ndim == 2):
        raise _refusal(
            path,
            artifact,
            f"{name} is {array.dtype} of shape {list(array.shape)}, expected whole numbers [rows] "
            "for classes or floats [rows, outputs] for values",
        )
    if len(array) != count:
        raise _refusal(path, artifact, f"{name} has {len(array)} rows, the inputs have {count}")
    if whole:
        return array.astype(np.int64)
    if not np.isfinite(array).all():
        row = int(np.argwhere(~np.isfinite(array))[0][0])
        raise _refusal(path, artifact, f"{name} has NaN or infinity in row {row}")
    return array.astype(np.float64).reshape(count, -1)


def _refusal(path: Path, artifact: Artifact, what: str) -> UsageError:
    names = ", ".join(f"{spec.name}=..." for spec in artifact.signature.inputs)
    return UsageError(
        f"Read {path} for {artifact.path}: {what}.",
        hint=f"Write it as np.savez(path, {names}, labels=...), a row of each for a row; whole "
        "numbers as labels are classes counted from 0, floats are values; without labels only "
        "outputs are compared.",
    )
