"""Inputs for measuring: from a file, from a data set, or seeded random values."""

from __future__ import annotations

import math
import shlex
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, final

import numpy as np
import psutil

from toolkit.core.artifact import EXAMPLE, Artifact, Format
from toolkit.core.dtypes import STRINGS, dtype_of, is_floating, is_foreign
from toolkit.core.errors import ToolkitError, UsageError, unknown_name
from toolkit.core.progress import Progress
from toolkit.core.specs import CHANNELS_LAST, Feeds, Signature, TensorSpec, paired, row_shape
from toolkit.core.tensors import load_tensors
from toolkit.data import load_splits
from toolkit.data.arrays import load_arrays
from toolkit.data.base import Split
from toolkit.sources.isolated_backend import open_files

SETS = 4  # rotated, so that caching results does not look like speed
SEED = 0
EXAMPLE_EXTENT = 16
UNBOUNDED = ("bfloat16", "float16", "float32", "float64")  # dtypes whose values may be large


@dataclass(frozen=True, kw_only=True)
class RandomInput:
    """Random values to draw for one input: uniform, from `low` to below `high`.

    `shape` and `dtype` None stand for those of the signature, `low` and `high` None for a range
    that suits the dtype.
    """

    shape: tuple[int, ...] | None = None
    dtype: str | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class InputRequest:
    """Requested inputs: at most one of a data set and a file, extents of axes, and random inputs.

    `dims` has extents of dynamic axes by their name in --dim, `random` what to draw for single
    inputs. `data_settings` and `data_dir` are `settings` and `directory` of `load_test_rows`.
    Raises UsageError for both a data set and a file, and for an extent below 1.
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
    """Source of the sets of inputs for a batch; `description` says where they come from."""

    description: str

    @final
    def sets(self, batch: int) -> list[Feeds]:
        """Return SETS sets of inputs of this batch, the same at every call.

        There is only one if no stored array has a batch axis. Raises UsageError if the inputs do
        not fit the model or the memory.
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
        """Return the sets; may raise MemoryError."""


def load_test_rows(
    artifact: Artifact,
    data: str,
    *,
    settings: Mapping[str, Any] | None = None,
    directory: Path | None = None,
    progress: Progress | None = None,
) -> Split:
    """Load the test samples of a data set or file: see `load_rows`."""
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
    """Load the training and test samples of a data set or file, in the model's shape and layout.

    For the data set that the model was trained on, options that are not in `settings` are those of
    the training. Raises what `load_splits` raises.
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
    """Return the requested inputs, else test samples of the model's own data set, else random ones.

    Random values are those of `noise_source`. They are also used if the model's own data set cannot
    be loaded here, and the description says so. Raises UsageError, SourceError and UnknownNameError
    for a request that cannot be met.
    """
    signature = artifact.signature
    check_names(signature, request)
    if request.file is not None:
        return Rows(signature, load_inputs(request.file, signature), f"rows of {request.file}")
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
    """Return random inputs, whatever data the model has.

    The ranges of indices and classes are inferred from the ONNX graph of the artifact, or of
    `graph`, which was made from it. For a user's module, and variants made from it, integers and
    booleans are samples of the example that the module was captured with.
    """
    shown = next((a for a in (artifact, graph) if a and a.format is Format.ONNX), None)
    ranges = _input_ranges(shown) if shown else {}
    if shown and shown is not artifact:
        names = paired(artifact.signature.inputs, shown.signature.inputs)
        ranges = {mine: ranges[theirs] for mine, theirs in names.items() if theirs in ranges}
    return Noise(artifact.signature, request, ranges, description, _example_of(artifact))


def _example_of(artifact: Artifact) -> Feeds:
    """Return the example inputs of a checkpoint, or of the one that an artifact was made from.

    They have the names of the artifact's inputs. Empty if there are none, or if the checkpoint is
    missing or damaged.
    """
    if EXAMPLE in artifact.files:
        return load_tensors(artifact.directory / EXAMPLE)
    try:
        checkpoint = artifact.parent_checkpoint()
    except ToolkitError:
        return {}
    if EXAMPLE not in checkpoint.files:
        return {}
    names = paired(checkpoint.spec.signature.inputs, artifact.signature.inputs)
    arrays = load_tensors(checkpoint.directory / EXAMPLE)
    return {names[name]: array for name, array in arrays.items()}


def load_inputs(path: Path, signature: Signature) -> dict[str, np.ndarray]:
    """Load the arrays of an .npz file by name.

    NumPy stores arrays of ml_dtypes as bytes without a dtype; they get the dtype of the input.
    Raises what `load_arrays` raises.
    """
    dtypes = {spec.name: dtype_of(spec.dtype) for spec in signature.inputs}
    found = load_arrays(path)
    for name, array in found.items():
        dtype = dtypes.get(name, array.dtype)
        if array.dtype.kind == "V" and is_foreign(dtype) and array.itemsize == dtype.itemsize:
            found[name] = array.view(dtype)
    return found


@final
class Rows(InputSource):
    """Samples in memory: an array per input, with the samples along the batch axis."""

    def __init__(
        self, signature: Signature, rows: Mapping[str, np.ndarray], description: str
    ) -> None:
        self._signature = signature
        self._rows = rows
        self.description = description

    def _sets(self, batch: int) -> list[Feeds]:
        rng = np.random.default_rng(SEED)
        count = self._signature.count_rows(self._rows)
        picks = [rng.choice(count, batch, batch > count) for _ in range(SETS)] if count else []
        found: list[Feeds] = [self._signature.rows(self._rows, pick) for pick in picks]
        found = found or [dict(self._rows)]  # no samples to choose from
        check_feeds(self._signature, found[0], self.description)
        return found


@final
class Noise(InputSource):
    """Random values: standard normal floats, integers in the range the graph expects, and booleans.

    Without a known range, integers are 0 or 1. An input that `example` has and `request` does not
    name has samples of the example, unless all its values are equal.

    An input of two values may be a mask. Attention without any position to attend to is undefined,
    and True may mean either allowed or masked, so each row along the last axis has both values. A
    numeric mask has 1 where attention is allowed, and in a causal model the first token attends
    only to itself, so each row begins with 1.
    """

    def __init__(
        self,
        signature: Signature,
        request: InputRequest,
        ranges: Mapping[str, tuple[int, int]],
        description: str,
        example: Feeds | None = None,
    ) -> None:
        self._signature = signature
        self._request = request
        self._ranges = ranges
        self._example = {n: a for n, a in (example or {}).items() if (a != a.flat[:1]).any()}
        self.description = description

    @property
    def unbounded(self) -> frozenset[str]:
        """Names of the floating-point inputs that may have any value."""
        stated = {
            name
            for name, asked in self._request.random.items()
            if asked.low is not None or asked.high is not None
        }
        return frozenset(
            spec.name
            for spec in self._signature.inputs
            if spec.dtype in UNBOUNDED and spec.name not in {*self._ranges, *stated}
        )

    def _sets(self, batch: int) -> list[Feeds]:
        rng = np.random.default_rng(SEED)
        shapes = shapes_of(self._signature, batch, self._request)
        found: list[Feeds] = [
            {spec.name: self._draw(spec, shapes[spec.name], rng) for spec in self._signature.inputs}
            for _ in range(SETS)
        ]
        check_feeds(self._signature, found[0], "the inputs asked for")
        return found

    def _draw(
        self, spec: TensorSpec, shape: tuple[int, ...], rng: np.random.Generator
    ) -> np.ndarray:
        asked = self._request.random.get(spec.name, RandomInput())
        _refuse_too_large(spec, shape)
        name = asked.dtype or spec.dtype
        dtype = dtype_of(name)
        floating = is_floating(dtype)
        if not floating and dtype.kind not in "iub" and not is_foreign(dtype):
            what = "strings" if name == STRINGS else name
            raise UsageError(
                f"Input {spec.name!r} holds {what}, of which no random values can be drawn.",
                hint=f"Give the inputs as --inputs FILE.npz, with an array of {what} for it.",
            )
        if spec.name in self._example and spec.name not in self._request.random:
            return self._from_example(spec, shape, rng).astype(dtype)
        inferred = self._ranges.get(spec.name)
        stated = asked.low is not None or asked.high is not None
        if floating and inferred is None and not stated:
            return np.asarray(rng.standard_normal(shape)).astype(dtype)
        default = inferred or (0, 1 if floating else 2)
        low = default[0] if asked.low is None else asked.low
        high = default[1] if asked.high is None else asked.high
        if not low < high:
            raise UsageError(
                f"Input {spec.name!r} is to be drawn from {low:g} to below {high:g}.",
                hint="Give a lower bound below the upper one.",
            )
        if floating and (stated or inferred is None):
            return np.asarray(rng.uniform(low, high, shape)).astype(dtype)
        drawn = np.asarray(rng.integers(int(low), int(high), shape))
        if int(high) - int(low) == 2 and drawn.ndim and drawn.shape[-1] > 1:
            if dtype.kind != "b":
                drawn[..., 0] = int(low) + 1
            same = (drawn == drawn[..., :1]).all(axis=-1)
            drawn[..., -1] = np.where(same, 2 * int(low) + 1 - drawn[..., -1], drawn[..., -1])
        return drawn.astype(dtype)

    def _from_example(
        self, spec: TensorSpec, shape: tuple[int, ...], rng: np.random.Generator
    ) -> np.ndarray:
        """Draw samples of the example with replacement; repeat or cut other axes to the extent."""
        array = self._example[spec.name]
        batch = self._signature.batch_position(spec)
        places = [
            rng.integers(0, array.shape[axis], extent)
            if axis == batch
            else np.arange(extent) % array.shape[axis]
            for axis, extent in enumerate(shape)
        ]
        return np.asarray(array[np.ix_(*places)])


def shapes_of(
    signature: Signature, batch: int, request: InputRequest
) -> dict[str, tuple[int, ...]]:
    """Return the shape of each input at this batch, as requested.

    Raises UsageError, naming all of them, for dynamic axes without an extent.
    """
    found: dict[str, tuple[int, ...]] = {}
    missing: dict[str, str] = {}
    for spec in signature.inputs:
        asked = request.random.get(spec.name, RandomInput()).shape
        shape = _extents(signature, spec, batch, request.dims) if asked is None else asked
        for axis, extent in enumerate(shape):
            if extent is None:
                name = _axis_name(spec, axis)
                missing.setdefault(name, f"axis {axis} of {spec}")
        found[spec.name] = tuple(extent or 0 for extent in shape)
    if missing:
        raise UsageError(
            f"No extent is given for {', '.join(missing.values())}.",
            hint=f"Give each an extent, such as: {_example(missing)}",
        )
    return found


def extents_of(signature: Signature, feeds: Feeds) -> dict[str, int]:
    """Return the extents in `feeds` of dynamic axes except the batch, by their names in --dim."""
    return {
        _axis_name(spec, axis): feeds[spec.name].shape[axis]
        for spec in signature.inputs
        for axis, dim in enumerate(spec.shape)
        if not isinstance(dim, int) and axis != signature.batch_position(spec)
    }


def _example(axes: Iterable[str]) -> str:
    """Return --dim options for these axes, quoted for a shell."""
    return " ".join(f"--dim {shlex.quote(f'{axis}={EXAMPLE_EXTENT}')}" for axis in axes)


def _axis_name(spec: TensorSpec, axis: int) -> str:
    """Return the name of a dynamic axis in --dim: its own, or INPUT:AXIS."""
    return str(spec.shape[axis] or f"{spec.name}:{axis}")


def _refuse_too_large(spec: TensorSpec, shape: tuple[int, ...]) -> None:
    """Raise UsageError if SETS sets of an input, drawn in float64, exceed the available memory.

    A system that runs out of memory kills processes instead of failing the allocation. Also raises
    UsageError for a negative extent.
    """
    needed, left = SETS * 8 * math.prod(shape), psutil.virtual_memory().available
    if needed > left or min(shape, default=0) < 0:
        raise UsageError(
            f"Input {spec.name!r} of shape {list(shape)} would take {needed / 1e9:,.0f} GB; "
            f"{left / 1e9:,.0f} GB are left.",
            hint="Give a smaller --batch, --dim or shape by --input; or another model, if this one "
            "asks for it.",
        )


def implied_batch(signature: Signature, request: InputRequest) -> int | None:
    """Return the batch that the model fixes, or that --input or --dim sets; None if it is free.

    It is 1 if no input has a batch axis.
    """
    if isinstance(signature.batch_axis, int):
        return signature.batch_axis
    positions = {spec: signature.batch_position(spec) for spec in signature.inputs}
    with_batch = {spec: axis for spec, axis in positions.items() if axis is not None}
    if not with_batch:
        return 1
    for spec, axis in with_batch.items():
        asked = request.random.get(spec.name, RandomInput()).shape
        if asked is not None and axis < len(asked):
            return asked[axis]
        if (extent := request.dims.get(_axis_name(spec, axis))) is not None:
            return extent
    return None


def resolve_batches(
    artifact: Artifact, batches: Sequence[int] | None, request: InputRequest
) -> list[int]:
    """Return the batches to measure: the requested ones, else `implied_batch`, else 1.

    Raises UsageError for an empty list, a batch below 1, and one other than `implied_batch`.
    """
    implied = implied_batch(artifact.signature, request)
    chosen = list(dict.fromkeys(batches)) if batches is not None else [implied or 1]
    if not chosen:
        raise UsageError(
            f"Got no batch for {artifact.path}, expected at least one.", hint="Give --batch 1."
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


def _extents(
    signature: Signature, spec: TensorSpec, batch: int, dims: Mapping[str, int]
) -> tuple[int | None, ...]:
    """Return the shape of one input, with None for a dynamic axis without an extent."""
    position = signature.batch_position(spec)
    return tuple(
        dim
        if isinstance(dim, int)
        else dims.get(_axis_name(spec, axis), batch if axis == position else None)
        for axis, dim in enumerate(spec.shape)
    )


def with_usual_shapes(
    request: InputRequest, signature: Signature, profiles: Mapping[str, Sequence[Sequence[int]]]
) -> InputRequest:
    """Return the request, with missing extents of dynamic axes taken from the usual shapes.

    `profiles` has the smallest, the usual and the largest shape of inputs, by name. The batch, and
    inputs with a random request, are left out.
    """
    dims = dict(request.dims)
    for spec in signature.inputs:
        if spec.name not in profiles or spec.name in request.random:
            continue
        usual = profiles[spec.name][1]
        for axis, extent in enumerate(spec.shape):
            if isinstance(extent, int) or axis == signature.batch_position(spec):
                continue
            if axis < len(usual):
                dims.setdefault(_axis_name(spec, axis), usual[axis])
    return replace(request, dims=dims)


def check_names(signature: Signature, request: InputRequest) -> None:
    """Raise UnknownNameError for an axis or input that the model does not have."""
    axes = {
        _axis_name(spec, axis)
        for spec in signature.inputs
        for axis, dim in enumerate(spec.shape)
        if not isinstance(dim, int)
    }
    for name in request.dims:
        if name not in axes:
            raise unknown_name("dynamic axis of the inputs", name, axes)
    names = {spec.name for spec in signature.inputs}
    for name in request.random:
        if name not in names:
            raise unknown_name("input", name, names)


def check_feeds(signature: Signature, feeds: Feeds, what: str) -> None:
    """Raise UsageError, with `what` as the name of the inputs, unless they fit the signature."""
    try:
        signature.check(feeds)
    except ToolkitError as error:
        raise UsageError(
            f"{what} do not fit the model: {error.problem}", hint=error.hint
        ) from error


def _input_ranges(artifact: Artifact) -> Mapping[str, tuple[int, int]]:
    """Return `exporters.onnx.ranges.input_ranges` of an ONNX artifact."""
    with open_files() as files:
        return files.input_ranges(artifact)
