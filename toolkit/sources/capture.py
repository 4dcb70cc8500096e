"""Capture user code or a family as a checkpoint or a SavedModel."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import models
from exporters import READERS
from exporters.proof.matching import Match
from exporters.proof.weight_parity import compare
from models.initial import fresh_weights
from toolkit.core.artifact import PROGRAM, Artifact, Checkpoint, Format
from toolkit.core.dtypes import is_floating
from toolkit.core.errors import ParityError, UsageError
from toolkit.core.files import write_atomically
from toolkit.core.import_isolation import toolkit_imports
from toolkit.core.specs import Axes, ModelSpec
from toolkit.core.usercode import UserCode, is_user_code, load_user_code
from toolkit.data.arrays import load_arrays
from toolkit.sources.inputs import RandomInput
from toolkit.sources.user_model import OWN

SEED = 0


@dataclass(frozen=True, kw_only=True)
class Example:
    """Example inputs of a user's torch module, and the dynamic axes of its inputs.

    The inputs are what `code` (file.py:callable) returns, the first two samples of the .npz `file`,
    or random values as in `inputs`. `axes` None stands for the first axis, as described in
    models.torch.capture.
    """

    code: str | None = None
    file: Path | None = None
    inputs: Mapping[str, RandomInput] = field(default_factory=dict)
    axes: Axes | None = None

    @property
    def is_given(self) -> bool:
        """Whether there are inputs for the module."""
        return self.code is not None or self.file is not None or bool(self.inputs)

    def to_json(self) -> dict[str, Any]:
        return {
            "code": self.code,
            "file": self.file and str(self.file),
            "inputs": {name: vars(value) for name, value in self.inputs.items()},
            "axes": None
            if self.axes is None
            else {name: {str(a): n for a, n in axes.items()} for name, axes in self.axes.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Example:
        axes = data["axes"]
        return cls(
            code=data["code"],
            file=data["file"] and Path(data["file"]),
            inputs={
                name: RandomInput(**{**value, "shape": value["shape"] and tuple(value["shape"])})
                for name, value in data["inputs"].items()
            },
            axes=None
            if axes is None
            else {name: {int(a): n for a, n in named.items()} for name, named in axes.items()},
        )


def is_in_no_file(source: str | os.PathLike[str]) -> bool:
    """Return whether a source is a user's callable or a family, rather than an existing path."""
    text = os.fspath(source)
    return not Path(text).exists() and (is_user_code(text) or text in models.FAMILIES.names())


def remark_on(source: str | os.PathLike[str]) -> str | None:
    """Return a warning that a family has untrained weights, or None for any other source."""
    if not is_in_no_file(source) or is_user_code(os.fspath(source)):
        return None
    return f"{source} is not a file here: it is the family, with fresh weights of seed {SEED}."


def capture(source: str, example: Example, directory: Path) -> Mapping[str, int]:
    """Write the model that `source` makes to the empty `directory`.

    A torch module becomes a checkpoint with an exported program, a Keras model a SavedModel whose
    weights are compared with the model's, and a family a checkpoint with fresh weights of seed 0.
    Runs the user's code, which may return a torch module with its example inputs, as
    `(module, inputs)`; inputs in `example` take precedence. Returns the extents that the named axes
    of a torch module's inputs have in the example. Raises SourceError, UnknownNameError and
    UsageError for code that fails or makes neither a torch nor a Keras model, UsageError for an
    example if the model is not a torch module, and ParityError if the SavedModel lacks a weight.
    """
    if not is_user_code(source):
        _refuse_example(source, example)
        _fresh(source, directory)
        return {}
    own = load_user_code(source)
    made, inputs = own.make(), None
    if isinstance(made, tuple) and len(made) == 2:
        made, inputs = made
    kinds = {kind.__module__.partition(".")[0] for kind in type(made).__mro__}
    if "torch" in kinds:
        values = inputs if inputs is not None and not example.is_given else _values(own, example)
        return _torch(own, made, values, example, directory)
    if "keras" in kinds:
        _refuse_example(source, example)
        _keras(own, made, directory)
        return {}
    raise UsageError(
        f"{source} gave a {type(made).__name__}, expected a torch module, a Keras model, "
        "or a tuple of a torch module and its example inputs.",
        hint="Return the model from that callable, or name its class.",
    )


def _fresh(family: str, directory: Path) -> None:
    entry = models.FAMILIES.create(family)
    spec = entry.spec("torch")
    builder = models.builder(spec, "torch")
    shapes = {n: a.shape for n, a in builder.weights(builder.build(spec)).items()}
    Checkpoint.save(
        directory,
        spec=spec,
        weights=fresh_weights(shapes, SEED, entry.initialisation),
        seed=SEED,
        epoch=0,
        metrics={},
        training={"source": None},
    )


def _torch(
    own: UserCode, module: Any, values: Any, example: Example, directory: Path
) -> Mapping[str, int]:
    with toolkit_imports():
        from models.torch.capture import capture as capture_module

        found = capture_module(module, values, example.axes, own.source)
    write_atomically(directory / PROGRAM, found.program)
    Checkpoint.save(
        directory,
        spec=ModelSpec(name=own.name, family=OWN, framework="torch", signature=found.signature),
        weights=found.weights,
        seed=SEED,
        epoch=0,
        metrics={},
        training={"source": {"code": own.source, "digest": own.digest}},
        example=None if example.inputs else found.example,  # random values are not stored
    )
    return found.extents


def _values(own: UserCode, example: Example) -> Any:
    """Return the arguments of forward: arrays by name, or what the example's code returns."""
    if example.code is not None:
        return load_user_code(example.code).make()
    if example.file is not None:
        return {name: array[:2] for name, array in load_arrays(example.file).items()}
    rng = np.random.default_rng(SEED)
    return {name: _drawn(name, asked, rng, own) for name, asked in example.inputs.items()}


def _drawn(name: str, asked: RandomInput, rng: np.random.Generator, own: UserCode) -> np.ndarray:
    if asked.shape is None:
        raise UsageError(
            f"Input {name!r} of {own.source} has no shape.",
            hint=f"Give it: --input {name}=2x3x32x32.",
        )
    dtype = np.dtype(asked.dtype or "float32")
    if dtype.kind == "f":
        return np.asarray(rng.standard_normal(asked.shape)).astype(dtype)
    low, high = int(asked.low or 0), int(2 if asked.high is None else asked.high)
    return np.asarray(rng.integers(low, high, asked.shape)).astype(dtype)


def _keras(own: UserCode, model: Any, directory: Path) -> None:
    with toolkit_imports():
        from models.keras.base import by_path
        from models.keras.program import write_model

        signature, unread = write_model(model, own.source, directory)
        # Counters, and states of generators, are not floating-point.
        weights = {
            name: array
            for name, array in by_path(model).items()
            if is_floating(array.dtype) and name not in unread
        }
    artifact = Artifact.save(
        directory,
        model=ModelSpec(name=own.name, family=OWN, framework="tensorflow", signature=signature),
        format=Format.SAVEDMODEL,
        precision="float32",
        signature=signature,
        entry="saved_model.pb",
        parents=(),
        options={
            "source": {"code": own.source, "digest": own.digest},
            "unread_weights": sorted(unread),
        },
    )
    parity = compare(weights, READERS.create(Format.SAVEDMODEL).stored_tensors(artifact.path))
    # Constants of layers, such as the mean of a Normalization, are stored but are not weights.
    lost = [tensor.name for tensor in parity.failures() if tensor.match is not Match.EXTRA]
    if lost:
        raise ParityError(
            f"The SavedModel of {own.source} has not all of its weights: {', '.join(lost[:5])}.",
            hint="Report it with the versions from `toolkit doctor`.",
        )


def _refuse_example(source: str, example: Example) -> None:
    if example.code is not None or example.axes is not None:
        raise UsageError(
            f"Got an example or --dynamic for {source}, which says itself what it takes.",
            hint="Leave them out; they are for user modules in torch.",
        )
