"""TensorFlow for SavedModels and Keras files, with the graph optimiser but without XLA."""

from __future__ import annotations

from typing import Any, ClassVar, final

import tensorflow as tf
from tensorflow.python.eager import context

from models.keras.program import serving_of
from runtimes.operator_trace import Node
from runtimes.tensorflow.float64 import in_double
from runtimes.tensorflow.session import Pass, TensorFlowSession, use_threads
from toolkit.core.artifact import Artifact, Format
from toolkit.core.errors import unknown_name
from toolkit.core.session import Availability, Runtime, Session, SessionOptions

# Operators that make, move or hold tensors without computing on them.
MOVING = frozenset(
    {
        "BatchToSpaceND", "BroadcastTo", "Cast", "Concat", "ConcatV2", "Const", "ExpandDims",
        "Fill", "Gather", "GatherV2", "GatherNd", "Identity", "IdentityN", "MirrorPad", "NoOp",
        "Pack", "Pad", "PadV2", "PartitionedCall", "Placeholder", "Range", "ReadVariableOp",
        "Reshape", "Reverse", "ReverseV2", "Shape", "Slice", "SpaceToBatchND", "Split", "SplitV",
        "Squeeze", "StatefulPartitionedCall", "StatelessIf", "StatelessWhile", "StridedSlice",
        "Tile", "Transpose", "Unpack", "VarHandleOp", "ZerosLike", "_Arg", "_Retval",
        "_MklTranspose",
    }
)  # fmt: skip
EIGHT_BITS = frozenset({"int8", "uint8", "qint8", "quint8"})


@final
class TensorFlow(Runtime):
    name: ClassVar[str] = "tensorflow"
    accepts: ClassVar[frozenset[Format]] = frozenset({Format.SAVEDMODEL, Format.KERAS})

    def probe(self) -> Availability:
        return Availability(ok=True, version=tf.__version__)

    def open(self, artifact: Artifact, options: SessionOptions) -> Session:
        options.require_known(self.name, ("dtype",))
        dtype = options.tuning.get("dtype", "float32")
        if dtype not in ("float32", "float64"):
            raise unknown_name("dtype", dtype, ["float32", "float64"])
        use_threads(options.threads)
        serve = serving_of(artifact, artifact.signature)
        run = in_double(serve) if dtype == "float64" else serve
        return TensorFlowSession(artifact.signature, run, runtime=self.name, nodes=_nodes)


def _nodes(function: Pass, inputs: list[Any]) -> list[Node]:
    """Return the operators of the graph that runs, after the fusions of the optimiser.

    TensorFlow reports them only when it prepares a function for its first call, so a new function
    around `function` is called.
    """
    twin = tf.function(lambda *tensors: function(*tensors))
    state = context.context()
    state.enable_graph_collection()
    try:
        twin(*inputs)
        record = state.export_run_metadata()
    finally:
        state.disable_graph_collection()
    return [
        Node(
            name=node.name,
            operator=node.op,
            provider=_device(node.device),
            dtype=_arithmetic(node),
        )
        for graph in record.partition_graphs
        for node in (*graph.node, *(n for f in graph.library.function for n in f.node_def))
        if node.op not in ("_Arg", "_Retval", "NoOp")
    ]


def _device(name: str) -> str:
    """Return "cpu" for `/job:localhost/replica:0/task:0/device:CPU:0` and for an empty name."""
    return name.rpartition("device:")[2].partition(":")[0].lower() or "cpu"


def _arithmetic(node: Any) -> str | None:
    if node.op in MOVING or "T" not in node.attr:
        return None
    dtype = tf.as_dtype(node.attr["T"].type).name if node.attr["T"].type else ""
    if dtype in EIGHT_BITS:
        return "int8"
    return dtype if dtype in ("float32", "float64", "float16", "bfloat16") else None
