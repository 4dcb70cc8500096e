"""Keras -> SavedModel, TensorFlow's format of a graph and its variables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, final

import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from exporters import ROUTES
from exporters.base import (
    Description,
    Exported,
    Exporter,
    ExportOptions,
    Fold,
    Route,
    StoredTensor,
    TensorReader,
)
from exporters.saved_model_folding import folds_of
from models.keras.program import (
    explained,
    in_layout,
    load_keras,
    load_serving,
    serving_of,
    serving_of_model,
    signature_of_keras,
    signature_of_serving,
    write_saved_model,
)
from models.keras.saved_model_checks import GRAPH
from toolkit.core.artifact import Artifact

HELD = frozenset({"Const", "Placeholder", "NoOp", "Identity"})


@final
class SavedModel(Exporter):
    """Exporter that keeps the bits of all variables, and their layouts in Keras."""

    route: ClassVar[Route] = ROUTES["savedmodel"]

    def export(self, source: Artifact, directory: Path, options: ExportOptions) -> Exported:
        signature = in_layout(source.signature, options.layout)
        with explained(
            f"TensorFlow {tf.__version__} could not write {source.path}",
            "Report it with the versions from `toolkit doctor`.",
        ):
            variables = write_saved_model(serving_of(source, signature), directory)
        return Exported(
            entry=GRAPH,
            precision=_precision(variables),
            options={"exporter": "tf.saved_model", "tensorflow": tf.__version__},
            signature=signature,
        )


@final
class SavedModelTensors(TensorReader):
    def stored_tensors(self, path: Path) -> Sequence[StoredTensor]:
        """Return the constants and variables of the served graph, whichever function reads them.

        A variable has its own name, and no reader if no output depends on it.
        """
        return _tensors(*_served(path))

    def folds(self, path: Path) -> Sequence[Fold]:
        return _folds(*_served(path))

    def operators(self, path: Path) -> Mapping[str, int]:
        graph = _inlined(load_serving(path.parent)).graph
        return Counter(op.type for op in graph.get_operations() if op.type not in HELD)

    def describe(self, path: Path) -> Description:
        directory = path if path.is_dir() else path.parent
        serving = load_serving(directory)
        files = [p for p in sorted(directory.rglob("*")) if p.is_file()]
        return Description(
            signature=signature_of_serving(serving),
            precision=_precision(serving.kept_variables),
            directory=directory,
            entry=GRAPH,
            files=[p.relative_to(directory).as_posix() for p in files],
        )


@final
class KerasTensors(TensorReader):
    def stored_tensors(self, path: Path) -> Sequence[StoredTensor]:
        """Return the variables of a .keras file, and the constants of the graph that Keras makes.

        A variable is named by its path, and has no reader if no output depends on it.
        """
        return _tensors(*_traced(path))

    def folds(self, path: Path) -> Sequence[Fold]:
        return _folds(*_traced(path))

    def operators(self, path: Path) -> Mapping[str, int]:
        return Counter(type(layer).__name__ for layer in load_keras(path).layers)

    def describe(self, path: Path) -> Description:
        model = load_keras(path)
        return Description(
            signature=signature_of_keras(model),
            precision=_precision(model.weights),
            directory=path.parent,
            entry=path.name,
            files=[path.name],
        )


def _served(path: Path) -> tuple[Any, dict[int, tuple[str, Any]]]:
    """Return the serving function of a SavedModel, and its variables with names, by handle id."""
    serving = load_serving(path.parent)
    return serving, {
        id(variable.handle): (str(variable.name.partition(":")[0]), variable)
        for variable in serving.kept_variables
    }


def _traced(path: Path) -> tuple[Any, dict[int, tuple[str, Any]]]:
    """Return the same as `_served` for a .keras file."""
    model = load_keras(path)
    function = serving_of_model(model).get_concrete_function()
    function.kept = model
    return function, {id(v.value.handle): (v.path, v.value) for v in model.weights}


def _tensors(function: Any, variables: Mapping[int, tuple[str, Any]]) -> list[StoredTensor]:
    graph = _inlined(function).graph
    places = {internal.op.name: id(external) for external, internal in function.graph.captures}
    found, read = [], set()
    for node in graph.get_operations():
        if node.type != "Const":
            continue
        place = places.get(node.name, 0)
        read.add(place)
        name = variables[place][0] if place in variables else node.name
        array = tf.make_ndarray(node.get_attr("value"))
        readers = tuple(f"{user.name} ({user.type})" for user in _users(node))
        found.append(StoredTensor(name=name, array=array, readers=readers))
    return [
        *found,
        *(
            StoredTensor(name=name, array=variable.numpy(), readers=())
            for place, (name, variable) in variables.items()
            if place not in read
        ),
    ]


def _folds(function: Any, variables: Mapping[int, tuple[str, Any]]) -> list[Fold]:
    names = {
        internal.op.name: variables[id(external)][0]
        for external, internal in function.graph.captures
        if id(external) in variables
    }
    return folds_of(_inlined(function), names)


def _inlined(function: Any) -> Any:
    """Return a function with all calls inlined into one graph, and its variables as constants."""
    return convert_variables_to_constants_v2(function, lower_control_flow=False)


def _users(node: Any) -> list[Any]:
    """Return the operators that read a constant, directly or through Identity operators."""
    users = []
    for user in node.outputs[0].consumers():
        passes_on = user.type == "Identity" and user.outputs[0].consumers()
        users += _users(user) if passes_on else [user]
    return users


def _precision(variables: Sequence[Any]) -> str:
    """Return the dtype of the floating-point variables: "mixed" for several, "none" without any."""
    dtypes = {tf.as_dtype(variable.dtype) for variable in variables}
    floats = {dtype.name for dtype in dtypes if dtype.is_floating}
    return floats.pop() if len(floats) == 1 else "mixed" if floats else "none"
