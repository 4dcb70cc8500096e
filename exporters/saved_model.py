"""Keras -> SavedModel, TensorFlow's own form: a graph, and its variables beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from exporters import ROUTES
from exporters.base import (
    Description,
    Exported,
    Exporter,
    ExportOptions,
    Route,
    StoredTensor,
    TensorReader,
)
from models.keras.program import (
    explained,
    in_layout,
    load_keras,
    load_serving,
    serving_of,
    signature_of_keras,
    signature_of_serving,
    write_saved_model,
)
from models.keras.saved_model_checks import GRAPH
from toolkit.core.artifact import Artifact

HELD = frozenset({"Const", "Placeholder", "NoOp", "Identity"})


@final
class SavedModel(Exporter):
    """Variables keep their bits and, as Keras has them, their layouts."""

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
        """The constants and variables of the graph that is served, whichever function reads them;
        a variable has its own name, and no reader where no output depends on it."""
        serving = load_serving(path.parent)
        graph = _inlined(serving)
        places = {internal.op.name: id(external) for external, internal in serving.graph.captures}
        variables = {id(variable.handle): variable for variable in serving.kept_variables}
        found, read = [], set()
        for node, array in _constants(graph):
            readers = tuple(f"{user.name} ({user.type})" for user in _users(node))
            variable = variables.get(places.get(node.name, 0))
            read.add(id(variable))
            name = node.name if variable is None else _own_name(variable)
            found.append(StoredTensor(name=name, array=array, readers=readers))
        rest = [variable for variable in serving.kept_variables if id(variable) not in read]
        return [
            *found,
            *(StoredTensor(name=_own_name(v), array=v.numpy(), readers=()) for v in rest),
        ]

    def operators(self, path: Path) -> Mapping[str, int]:
        graph = _inlined(load_serving(path.parent))
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
    """The variables of a .keras file, each read by its layer."""

    def stored_tensors(self, path: Path) -> Sequence[StoredTensor]:
        return [
            StoredTensor(
                name=variable.path,
                array=np.array(variable.numpy()),
                readers=(variable.path.rpartition("/")[0] or variable.path,),
            )
            for variable in load_keras(path).weights
        ]

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


def _own_name(variable: Any) -> str:
    return str(variable.name.partition(":")[0])


def _inlined(serving: Any) -> Any:
    """The graph of a function with all that it calls in one, and its variables as constants."""
    return convert_variables_to_constants_v2(serving, lower_control_flow=False).graph


def _constants(graph: Any) -> list[tuple[Any, np.ndarray]]:
    return [
        (node, tf.make_ndarray(node.get_attr("value")))
        for node in graph.get_operations()
        if node.type == "Const"
    ]


def _users(node: Any) -> list[Any]:
    """The operators that take a constant, past those that only hand it on."""
    users = []
    for user in node.outputs[0].consumers():
        passes_on = user.type == "Identity" and user.outputs[0].consumers()
        users += _users(user) if passes_on else [user]
    return users


def _precision(variables: Sequence[Any]) -> str:
    """The dtype of all variables in floating point: "mixed" for several, "none" without any."""
    dtypes = {tf.as_dtype(variable.dtype) for variable in variables}
    floats = {dtype.name for dtype in dtypes if dtype.is_floating}
    return floats.pop() if len(floats) == 1 else "mixed" if floats else "none"
