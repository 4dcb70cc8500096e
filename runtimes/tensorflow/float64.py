"""Conversion of a TensorFlow function from float32 to float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from toolkit.core.errors import UnavailableError

SINGLE = tf.float32.as_datatype_enum
DOUBLE = tf.float64.as_datatype_enum


def in_double(serve: Any) -> Callable[..., dict[str, Any]]:
    """Return a function with float64 in place of float32, and with variables as constants.

    `serve` is a tf.function with an input signature that returns a dict. Raise UnavailableError if
    it has an operator for which TensorFlow has no float64; the returned function raises it too,
    since a missing kernel shows only when it runs.
    """
    concrete = serve.get_concrete_function()
    frozen = convert_variables_to_constants_v2(concrete, lower_control_flow=False)
    graph = frozen.graph.as_graph_def()
    del graph.library.gradient[:]
    # TensorFlow has registered the graph's functions already, so the copies need other names.
    names_of = {f.signature.name: f"{f.signature.name}_double" for f in graph.library.function}
    for node in graph.node:
        _widen(node, names_of)
    for function in graph.library.function:
        function.signature.name = names_of[function.signature.name]
        for argument in (*function.signature.input_arg, *function.signature.output_arg):
            if argument.type == SINGLE:
                argument.type = DOUBLE
        for node in function.node_def:
            _widen(node, names_of)
    names = sorted(concrete.structured_outputs)  # TensorFlow flattens a dict in this order
    try:
        imported = tf.compat.v1.wrap_function(
            lambda: tf.graph_util.import_graph_def(graph, name=""), []
        )
        pruned = imported.prune(
            [imported.graph.as_graph_element(tensor.name) for tensor in frozen.inputs],
            [imported.graph.as_graph_element(tensor.name) for tensor in frozen.outputs],
        )
    except (ValueError, tf.errors.OpError) as error:
        raise UnavailableError(
            f"TensorFlow {tf.__version__} has no float64 for this model: {_first(error)}.",
            hint="Its outputs can be compared with those in float32.",
        ) from error

    def run(*tensors: Any) -> dict[str, Any]:
        wide = [tf.cast(t, tf.float64) if t.dtype == tf.float32 else t for t in tensors]
        try:
            return dict(zip(names, pruned(*wide), strict=True))
        except tf.errors.OpError as error:  # a missing kernel shows only here
            raise UnavailableError(
                f"TensorFlow {tf.__version__} has no float64 for this model: {_first(error)}.",
                hint="Its outputs can be compared with those in float32.",
            ) from error

    return run


def _widen(node: Any, names_of: Mapping[str, str]) -> None:
    node.op = names_of.get(node.op, node.op)
    for attribute in node.attr.values():
        if attribute.HasField("func"):
            attribute.func.name = names_of.get(attribute.func.name, attribute.func.name)
        for function in attribute.list.func:
            function.name = names_of.get(function.name, function.name)
        if attribute.type == SINGLE:
            attribute.type = DOUBLE
        for place, dtype in enumerate(attribute.list.type):
            if dtype == SINGLE:
                attribute.list.type[place] = DOUBLE
        if attribute.HasField("tensor") and attribute.tensor.dtype == SINGLE:
            array = tf.make_ndarray(attribute.tensor).astype(np.float64)
            attribute.tensor.CopyFrom(tf.make_tensor_proto(array))


def _first(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".")
