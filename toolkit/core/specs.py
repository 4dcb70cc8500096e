"""Specifications of tensors, signatures, tasks and models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any

import numpy as np
from msgspec import Meta

from toolkit.core.codec import Count, Size, Text
from toolkit.core.dtypes import STRINGS, dtype_of, is_foreign
from toolkit.core.errors import FeedError, PluginError

Feeds = Mapping[str, np.ndarray]
"""Host arrays by input name."""

Outputs = dict[str, np.ndarray]
"""Host arrays by output name."""

Dim = Size | Text | None
"""Extent of an axis, name of a dynamic axis, or None for a dynamic axis without a name."""

DType = Annotated[
    str, Meta(pattern=r"^(bool|object|str|string|u?int\d{1,2}|b?float\d{1,3}(_\w+)?|complex\d+)\Z")
]
"""Name of a dtype of NumPy or ml_dtypes."""

Axes = Mapping[str, Mapping[int, str]]
"""Names of dynamic axes, by input name and axis index."""


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """Name, dtype, shape and layout of one input or output.

    Axis 0 is normally the batch. `layout` has one letter per axis, as in "NCHW"; None if unknown.
    """

    name: str
    dtype: DType
    shape: tuple[Dim, ...]
    layout: str | None = None

    def __post_init__(self) -> None:
        if self.layout is not None and len(self.layout) != len(self.shape):
            raise PluginError(
                f"Tensor {self.name!r} has layout {self.layout!r} for shape {self.shape}.",
                hint="Give one letter for each axis.",
            )

    def resolve(self, dims: Mapping[str, int]) -> tuple[int | None, ...]:
        """Return the shape with named axes replaced by their extents in `dims`, None if unknown."""
        return tuple(dims.get(d) if isinstance(d, str) else d for d in self.shape)

    def __str__(self) -> str:
        shape = ", ".join("?" if d is None else str(d) for d in self.shape)
        return f"{self.name}: {self.dtype}[{shape}]"


@dataclass(frozen=True, kw_only=True)
class Signature:
    """Inputs and outputs of a model, in order."""

    inputs: tuple[TensorSpec, ...]
    outputs: Annotated[tuple[TensorSpec, ...], Meta(min_length=1)]

    @property
    def batch_axis(self) -> str | int | None:
        """Name of the batch axis, its extent if fixed, or None.

        The batch axis is the first axis of an input that has "batch" in its name, else the first
        dynamic axis 0, else axis 0 of the first input that is not a scalar. The value is None if
        that axis is dynamic without a name, or if all inputs are scalars.
        """
        named = (dim for spec in self.inputs for dim in spec.shape if isinstance(dim, str))
        batch = next((dim for dim in named if "batch" in dim.lower()), None)
        if batch is not None:
            return batch
        leading = [spec.shape[0] for spec in self.inputs if spec.shape]
        dynamic = [dim for dim in leading if not isinstance(dim, int)]
        return next(iter([*dynamic, *leading]), None)

    def batch_position(self, spec: TensorSpec) -> int | None:
        """Return the index of the batch axis of an input or output, None if it has none."""
        axis = self.batch_axis
        if isinstance(axis, str) and axis in spec.shape:
            return spec.shape.index(axis)
        if not spec.shape or (isinstance(spec.shape[0], int) and spec.shape[0] != axis):
            return None
        return 0 if spec.shape[0] in (axis, None) else None

    def rows(self, arrays: Feeds, places: np.ndarray) -> dict[str, np.ndarray]:
        """Return samples `places` of inputs with a batch axis, and all other inputs unchanged."""
        positions = {spec.name: self.batch_position(spec) for spec in self.inputs}
        return {
            name: array
            if (axis := positions.get(name, 0)) is None or axis >= array.ndim
            else np.take(array, places, axis)
            for name, array in arrays.items()
        }

    def count_rows(self, arrays: Feeds) -> int | None:
        """Return the smallest number of samples in inputs with a batch axis, None if none has."""
        positions = {spec.name: self.batch_position(spec) for spec in self.inputs}
        return min(
            (
                array.shape[axis]
                for name, array in arrays.items()
                if (axis := positions.get(name, 0)) is not None and axis < array.ndim
            ),
            default=None,
        )

    def check(self, feeds: Feeds) -> dict[str, int]:
        """Check inputs and return the extent of every named axis.

        Raises FeedError for a wrong name, dtype or shape.
        """
        names = [spec.name for spec in self.inputs]
        if missing := [name for name in names if name not in feeds]:
            raise FeedError(
                f"Input {missing[0]!r} is missing; got {sorted(feeds)}, expected {names}.",
                hint=f"Feed an array for each of: {self.describe_inputs()}.",
            )
        if extra := sorted(set(feeds) - set(names)):
            raise FeedError(
                f"Input {extra[0]!r} is not one of the model's: expected {names}.",
                hint=f"Feed exactly: {self.describe_inputs()}.",
            )
        dims: dict[str, int] = {}
        for spec in self.inputs:
            _check_tensor(spec, feeds[spec.name], dims)
        return dims

    def describe_inputs(self) -> str:
        return "; ".join(str(spec) for spec in self.inputs)


def convert_feeds(feeds: Feeds, given: Signature, wanted: Signature) -> Feeds:
    """Convert inputs for signature `given` to signature `wanted`: rename and transpose them.

    Inputs correspond by name, or by position if the names differ. Axes are permuted if both layouts
    are known. Feeds whose names are not those of `given` are returned unchanged.
    """
    if set(feeds) != {spec.name for spec in given.inputs}:
        return feeds
    found = {}
    for name, other in paired(given.inputs, wanted.inputs).items():
        mine, theirs = (
            {s.name: s for s in side.inputs}[n] for side, n in ((given, name), (wanted, other))
        )
        array = feeds[name]
        if mine.layout and theirs.layout and mine.layout != theirs.layout:
            axes = [mine.layout.index(letter) for letter in theirs.layout]
            array = np.ascontiguousarray(array.transpose(axes))
        found[other] = array
    return found


def paired(mine: Sequence[TensorSpec], theirs: Sequence[TensorSpec]) -> dict[str, str]:
    """Map the tensor names of one signature to another's: by name, or by position if they differ.

    Raises FeedError if the numbers of tensors differ.
    """
    names, others = [spec.name for spec in mine], [spec.name for spec in theirs]
    if len(names) != len(others):
        raise FeedError(
            f"One model has {len(names)} tensors ({', '.join(names)}), the other {len(others)} "
            f"({', '.join(others)}).",
            hint="Compare forms of the same model.",
        )
    if set(names) == set(others):
        return {name: name for name in names}
    return dict(zip(names, others, strict=True))


CHANNELS_LAST = "NHWC"


def row_shape(signature: Signature) -> tuple[int, ...] | None:
    """Return the shape of one sample of the only input, channels first as in data sets.

    Return None if there are several inputs, or if the shape is not fixed.
    """
    if len(signature.inputs) != 1:
        return None
    row = signature.inputs[0].shape[1:]
    if signature.inputs[0].layout == CHANNELS_LAST:
        row = (row[-1], *row[:-1])
    fixed = tuple(extent for extent in row if isinstance(extent, int))
    return fixed if len(fixed) == len(row) else None


def _written(dtype: str) -> str:
    """Return a dtype as Python code."""
    if dtype == STRINGS:
        return "str"
    return f"ml_dtypes.{dtype}" if is_foreign(dtype_of(dtype)) else repr(dtype)


def _check_tensor(spec: TensorSpec, array: object, dims: dict[str, int]) -> None:
    """Check one array against its spec, and add the extents of its named axes to `dims`."""
    if not isinstance(array, np.ndarray):
        raise FeedError(
            f"Input {spec.name!r} is a {type(array).__name__}, expected a NumPy array.",
            hint="Convert it, for example with np.asarray(value, dtype=...).",
        )
    # Compare by name, since NumPy itself has no bfloat16.
    is_string = spec.dtype == STRINGS and array.dtype.kind == "U"
    if (array.dtype.name != spec.dtype and not is_string) or not array.dtype.isnative:
        raise FeedError(
            f"Input {spec.name!r} has dtype {array.dtype}, expected {spec.dtype}.",
            hint=f"Convert it: array.astype({_written(spec.dtype)}).",
        )
    fits = array.ndim == len(spec.shape) and all(
        want is None or (dims.setdefault(want, got) if isinstance(want, str) else want) == got
        for got, want in zip(array.shape, spec.shape, strict=True)
    )
    if not fits:
        bound = {d: dims[d] for d in spec.shape if isinstance(d, str) and d in dims}
        already = f" with {bound}" if bound else ""
        raise FeedError(
            f"Input {spec.name!r} has shape {list(array.shape)}, expected {spec}{already}.",
            hint="Feed an array of that shape; axes with the same name must have the same extent.",
        )


class TaskKind(StrEnum):
    """Kind of target of a sample: a class, or one or more numbers."""

    CLASSIFICATION = "classification"
    REGRESSION = "regression"


@dataclass(frozen=True, kw_only=True)
class Task:
    """Learning task that a data set poses and a model solves.

    `input_shape` is the shape of one sample, without the batch axis and with channels first:
    (3, 32, 32), or (8,). `outputs` is the number of classes, or of values per sample.
    """

    kind: TaskKind
    input_shape: tuple[Count, ...]
    outputs: Count

    def __str__(self) -> str:
        shape = "x".join(map(str, self.input_shape))
        what = "classes" if self.kind is TaskKind.CLASSIFICATION else "values"
        return f"{shape} float32 in, {self.outputs} {what} out"


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """Specification of a model.

    A model of a built-in family can be rebuilt from it and the weights in any of its frameworks.
    `framework` is the one that trained it. Weight names, layouts and signature do not depend on it:
    channels come first, and names are those of torch's state_dict (see models/weights.py). `task`
    is None for a model that the toolkit did not train. `data` is the data set of the training, with
    the options `data_settings`.
    """

    name: str
    family: str
    framework: str
    signature: Signature
    task: Task | None = None
    data: str | None = None
    data_settings: Mapping[str, Any] = field(default_factory=dict)
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
