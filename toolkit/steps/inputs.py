"""Inputs to measure with: the user's own, rows of a data set, or seeded random values."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, final

import numpy as np
import psutil

from toolkit.core.artifact import Artifact, Format
from toolkit.core.errors import ToolkitError, UsageError, unknown_name
from toolkit.core.progress import Progress
from toolkit.core.specs import CHANNELS_LAST, Feeds, Signature, TensorSpec, paired, row_shape
from toolkit.data import load_splits
from toolkit.data.arrays import load_arrays
from toolkit.data.base import Split
from toolkit.steps.files import open_files

SETS = 4  # rotated, so that a cache of results cannot pass for speed
SEED = 0


@dataclass(frozen=True, kw_only=True)
class RandomInput:
    """What to draw for one input: uniform values from `low` to below `high`.

    None stands for what the signature says, and for values that suit the dtype.
    """

    shape: tuple[int, ...] | None = None
    dtype: str | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class InputRequest:
    """What the user asked for: at most one of a data set and a file, extents of named axes,
    and for single inputs what to draw.

    `data_settings` and `data_dir` are as in `load_test_rows`.
    """

    data: str | None = None
    data_settings: Mapping[str, Any] = field(default_factory=dict)
    data_dir: Path | None = None
    file: Path | None = None
    dims: Mapping[str, int] = field(default_factory=dict)
    random: Mapping[str, RandomInput] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.data is not None and self.file is not None:
            raise UsageError(
                f"Got both --data {self.data} and --inputs {self.file}.", hint="Give one of them."
            )
        for name, extent in self.dims.items():
            if extent < 1:
                raise UsageError(
                    f"Got --dim {name}={extent}, expected 1 or more.", hint="Give 1 or more."
                )


class InputSource(ABC):
    """Gives the sets of inputs of a batch; `description` says where they come from."""

    description: str

    @final
    def sets(self, batch: int) -> list[Feeds]:
        """SETS sets of inputs of this batch, the same at every call.

        Raises UsageError when they do not fit the model, or the memory.
        """
        try:
            return self._sets(batch)
        except MemoryError as error:
            raise UsageError(
                f"The inputs of batch {batch} do not fit into memory: {error}.",
                hint="Give a smaller --batch.",
            ) from error

    @abstractmethod
    def _sets(self, batch: int) -> list[Feeds]:
        """The sets, whatever memory they take."""


def load_test_rows(
    artifact: Artifact,
    data: str,
    *,
    settings: Mapping[str, Any] | None = None,
    directory: Path | None = None,
    progress: Progress | None = None,
) -> Split:
    """The test rows of a data set or file, as `load_rows` gives both kinds."""
    return load_rows(
        artifact, data, settings=settings, directory=directory, progress=progress, kinds=("test",)
    )["test"]


def load_rows(
    artifact: Artifact,
    data: str,
    *,
    settings: Mapping[str, Any] | None = None,
    directory: Path | None = None,
    progress: Progress | None = None,
    kinds: Sequence[str] = ("train", "test"),
) -> dict[str, Split]:
    """The training and test rows of a data set or file, in the shape and layout that the model
    takes.

    Of the model's own data, options that are not in `settings` are those that it was trained with.
    Raises what `load_splits` raises.
    """
    own = artifact.model.data_settings if data == artifact.model.data else {}
    splits = load_splits(
        data,
        shape=row_shape(artifact.signature),
        directory=directory,
        settings={**own, **(settings or {})},
        progress=progress,
    )
    found: dict[str, Split] = {kind: getattr(splits, kind) for kind in kinds}
    if artifact.signature.inputs and artifact.signature.inputs[0].layout == CHANNELS_LAST:
        return {
            kind: replace(rows, inputs=np.ascontiguousarray(np.moveaxis(rows.inputs, 1, -1)))
            for kind, rows in found.items()
        }
    return found


def input_source(
    artifact: Artifact, request: InputRequest, graph: Artifact | None = None
) -> InputSource:
    """What was asked for; else test rows of the model's own data set; else random values, as
    `noise_source` draws them.

    A data set of the model's own that cannot be loaded here is no reason not to measure: the
    description says so. Raises UsageError and SourceError for what was asked for and cannot be.
    """
    signature = artifact.signature
    check_names(signature, request)
    if request.file is not None:
        return Rows(signature, load_arrays(request.file), f"rows of {request.file}")
    one = signature.inputs[0] if len(signature.inputs) == 1 else None
    if request.data is not None:
        rows = load_test_rows(
            artifact, request.data, settings=request.data_settings, directory=request.data_dir
        ).inputs
        if one is None:
            raise UsageError(
                f"{request.data} gives one input, the model takes {signature.describe_inputs()}.",
                hint="Give the inputs as --inputs FILE.npz.",
            )
        return Rows(signature, {one.name: rows}, f"test rows of {request.data}")
    noise = f"random values, seed {SEED}"
    data = artifact.model.data
    if data is not None and one is not None and not request.random and not request.dims:
        try:
            rows = load_test_rows(artifact, data, directory=request.data_dir).inputs
        except ToolkitError as error:
            noise += f" ({error.problem})"
        else:
            return Rows(signature, {one.name: rows}, f"test rows of {data}")
    return noise_source(artifact, request, graph, noise)


def noise_source(
    artifact: Artifact,
    request: InputRequest,
    graph: Artifact | None = None,
    description: str = f"random values, seed {SEED}",
) -> Noise:
    """Random values, whatever data the model has. The ranges of indices and classes are those that
    the ONNX graph shows: the artifact's, or that of `graph`, which was made of it."""
    shown = next((a for a in (artifact, graph) if a and a.format is Format.ONNX), None)
    ranges = _input_ranges(shown) if shown else {}
    if shown and shown is not artifact:
        names = paired(artifact.signature.inputs, shown.signature.inputs)
        ranges = {mine: ranges[theirs] for mine, theirs in names.items() if theirs in ranges}
    return Noise(artifact.signature, request, ranges, description)


@final
class Rows(InputSource):
    """Rows that lie in memory, for each input an array whose axis 0 is the row."""

    def __init__(
        self, signature: Signature, rows: Mapping[str, np.ndarray], description: str
    ) -> None:
        self._signature = signature
        self._rows = rows
        self.description = description

    def _sets(self, batch: int) -> list[Feeds]:
        rng = np.random.default_rng(SEED)
        count = min(len(array) if array.ndim else 0 for array in self._rows.values())
        picks = [rng.choice(count, batch, batch > count) for _ in range(SETS)] if count else []
        found: list[Feeds] = [{n: array[pick] for n, array in self._rows.items()} for pick in picks]
        found = found or [dict(self._rows)]  # scalars have no rows to choose from
        check_feeds(self._signature, found[0], self.description)
        return found


@final
class Noise(InputSource):
    """Standard normal values; whole numbers in the range that the graph expects, else 0 and 1;
    booleans.

    An input of two values may be a mask. Attention that is given nothing to attend to is undefined,
    and a mask may mean either by True, so each of its rows along the last axis has both values.
    """

    def __init__(
        self,
        signature: Signature,
        request: InputRequest,
        ranges: Mapping[str, tuple[int, int]],
        description: str,
    ) -> None:
        self._signature = signature
        self._request = request
        self._ranges = ranges
        self.description = description

    @property
    def unbounded(self) -> frozenset[str]:
        """The floating-point inputs that may have any value."""
        stated = {
            name
            for name, asked in self._request.random.items()
            if asked.low is not None or asked.high is not None
        }
        return frozenset(
            spec.name
            for spec in self._signature.inputs
            if spec.dtype.startswith("float") and spec.name not in {*self._ranges, *stated}
        )

    def _sets(self, batch: int) -> list[Feeds]:
        rng = np.random.default_rng(SEED)
        found: list[Feeds] = [
            {spec.name: self._draw(spec, batch, rng) for spec in self._signature.inputs}
            for _ in range(SETS)
        ]
        check_feeds(self._signature, found[0], "the inputs asked for")
        return found

    def _draw(self, spec: TensorSpec, batch: int, rng: np.random.Generator) -> np.ndarray:
        asked = self._request.random.get(spec.name, RandomInput())
        shape = shape_of(self._signature, spec, batch, self._request)
        _refuse_too_large(spec, shape)
        name = asked.dtype or spec.dtype
        try:
            dtype = np.dtype(name)
        except TypeError:
            dtype = np.dtype(object)
        if dtype.kind not in "fiub":
            raise UsageError(
                f"Input {spec.name!r} is {name}, of which no random values can be drawn.",
                hint="Give the inputs as --inputs FILE.npz.",
            )
        inferred = self._ranges.get(spec.name)
        stated = asked.low is not None or asked.high is not None
        if dtype.kind == "f" and inferred is None and not stated:
            return np.asarray(rng.standard_normal(shape)).astype(dtype)
        default = inferred or (0, 1 if dtype.kind == "f" else 2)
        low = default[0] if asked.low is None else asked.low
        high = default[1] if asked.high is None else asked.high
        if not low < high:
            raise UsageError(
                f"Input {spec.name!r} is to be drawn from {low:g} to below {high:g}.",
                hint="Give a lower bound below the upper one.",
            )
        if dtype.kind == "f" and (stated or inferred is None):
            return np.asarray(rng.uniform(low, high, shape)).astype(dtype)
        drawn = np.asarray(rng.integers(int(low), int(high), shape))
        if int(high) - int(low) == 2 and drawn.ndim and drawn.shape[-1] > 1:
            same = (drawn == drawn[..., :1]).all(axis=-1)
            drawn[..., 0] = np.where(same, 2 * int(low) + 1 - drawn[..., 0], drawn[..., 0])
        return drawn.astype(dtype)


def shape_of(
    signature: Signature, spec: TensorSpec, batch: int, request: InputRequest
) -> tuple[int, ...]:
    """The shape of one input as it was asked for. Raises as `resolve_axes`."""
    asked = request.random.get(spec.name, RandomInput()).shape
    return tuple(resolve_axes(signature, spec, batch, request.dims)) if asked is None else asked


def _refuse_too_large(spec: TensorSpec, shape: tuple[int, ...]) -> None:
    """Raises UsageError for an input of which SETS sets, drawn in float64, do not fit into what
    memory is left: a system that is short of it ends processes rather than refuse."""
    needed, left = SETS * 8 * math.prod(shape), psutil.virtual_memory().available
    if needed > left or min(shape, default=0) < 0:
        raise UsageError(
            f"Input {spec.name!r} of shape {list(shape)} would take {needed / 1e9:,.0f} GB; "
            f"{left / 1e9:,.0f} GB are left.",
            hint="Give a smaller --batch, --dim or shape by --input; or another model, if this one "
            "asks for it.",
        )


def implied_batch(signature: Signature, request: InputRequest) -> int | None:
    """The batch that --dim names, or a shape by --input has, or the model fixes; None for any."""
    axis = signature.batch_axis
    found = request.dims.get(axis) if isinstance(axis, str) else axis
    leading = next((spec for spec in signature.inputs if spec.shape), None)
    asked = request.random.get(leading.name) if leading else None
    return asked.shape[0] if found is None and asked and asked.shape else found


def resolve_batches(
    artifact: Artifact, batches: Sequence[int] | None, request: InputRequest
) -> list[int]:
    """The batches to measure: those asked for, the one that --dim names or a shape by --input has,
    the fixed one, or 1.

    Raises UsageError for a batch that the model cannot take, and for an axis without an extent.
    """
    implied = implied_batch(artifact.signature, request)
    chosen = list(dict.fromkeys(batches)) if batches is not None else [implied or 1]
    if not chosen or not artifact.signature.inputs:
        raise UsageError(
            f"Got {len(chosen)} batches for {len(artifact.signature.inputs)} inputs of "
            f"{artifact.path}, expected at least one of each.",
            hint="Give a batch, and a model that takes inputs.",
        )
    for batch in chosen:
        if batch < 1:
            raise UsageError(
                f"Got batch {batch}, expected 1 or more.", hint="Give --batch 1 or more."
            )
        if implied is not None and batch != implied:
            raise UsageError(
                f"Got batch {batch}, but {artifact.path} is to run at batch {implied} only.",
                hint=f"Leave --batch out, or give --batch {implied}.",
            )
    return chosen


def resolve_axes(
    signature: Signature, spec: TensorSpec, batch: int, dims: Mapping[str, int]
) -> list[int]:
    """The shape of one input. Raises UsageError for a dynamic axis that nobody gave an extent."""
    batch_name = signature.batch_axis
    extents: list[int] = []
    for position, dim in enumerate(spec.shape):
        if isinstance(dim, int):
            extents.append(dim)
        elif dim is not None and dim in dims:
            extents.append(dims[dim])
        elif (position == 0 and dim is None) or (dim is not None and dim == batch_name):
            extents.append(batch)
        else:
            how = f"--dim {dim}=N" if dim else f"--input '{spec.name}=…' with its whole shape"
            raise UsageError(
                f"Axis {position} of input {spec} has no extent.", hint=f"Give it one: {how}."
            )
    return extents


def check_names(signature: Signature, request: InputRequest) -> None:
    """Raises UnknownNameError for an axis or input that the model does not have."""
    axes = {d for spec in signature.inputs for d in spec.shape if isinstance(d, str)}
    for name in request.dims:
        if name not in axes:
            raise unknown_name("named axis of the inputs", name, axes)
    names = {spec.name for spec in signature.inputs}
    for name in request.random:
        if name not in names:
            raise unknown_name("input", name, names)


def check_feeds(signature: Signature, feeds: Feeds, what: str) -> None:
    """Raises UsageError, naming where the inputs came from, unless they fit the signature."""
    try:
        signature.check(feeds)
    except ToolkitError as error:
        raise UsageError(
            f"{what} do not fit the model: {error.problem}", hint=error.hint
        ) from error


def _input_ranges(artifact: Artifact) -> Mapping[str, tuple[int, int]]:
    """As `exporters.onnx_ranges.input_ranges`."""
    with open_files() as files:
        return files.input_ranges(artifact)
