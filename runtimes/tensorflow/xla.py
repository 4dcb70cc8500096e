"""TensorFlow with XLA, which compiles the function for each new set of input shapes."""

from __future__ import annotations

import re
from typing import Any, ClassVar, final

import tensorflow as tf

from models.keras.program import serving_of
from runtimes.operator_trace import Node
from runtimes.tensorflow.session import Pass, TensorFlowSession, use_threads
from toolkit.core.artifact import Artifact, Format
from toolkit.core.session import Availability, Runtime, Session, SessionOptions

INSTRUCTION = re.compile(
    r"^\s*(?:ROOT )?%?([\w.-]+) = (?:\()?(\w+)\[[^ ]*\S* ([\w-]+)\(", re.MULTILINE
)
DTYPES = {
    "f64": "float64", "f32": "float32", "f16": "float16", "bf16": "bfloat16", "s8": "int8",
    "u8": "int8",
}  # fmt: skip
MOVING = frozenset(
    {
        "bitcast", "broadcast", "concatenate", "constant", "convert", "copy", "dynamic-slice",
        "dynamic-update-slice", "gather", "get-tuple-element", "iota", "pad", "parameter",
        "reshape", "reverse", "slice", "transpose", "tuple",
    }
)  # fmt: skip


@final
class TensorFlowXla(Runtime):
    name: ClassVar[str] = "tensorflow-xla"
    accepts: ClassVar[frozenset[Format]] = frozenset({Format.SAVEDMODEL, Format.KERAS})

    def probe(self) -> Availability:
        return Availability(ok=True, version=tf.__version__)

    def open(self, artifact: Artifact, options: SessionOptions) -> Session:
        options.require_known(self.name, ())
        options.require_optimize(self.name)
        use_threads(options.threads)
        serve = serving_of(artifact, artifact.signature)
        compiled = tf.function(serve, jit_compile=True)
        return TensorFlowSession(artifact.signature, compiled, runtime=self.name, nodes=_nodes)


def _nodes(function: Pass, inputs: list[Any]) -> list[Node]:
    """Return the instructions of the program that XLA compiled, including those in fusions."""
    program = function.experimental_get_compiler_ir(*inputs)(stage="optimized_hlo")  # type: ignore[attr-defined]
    return [
        Node(
            name=name,
            operator=operator,
            provider="cpu",
            dtype=None if operator in MOVING else DTYPES.get(dtype),
        )
        for name, dtype, operator in INSTRUCTION.findall(program)
        if operator != "parameter"
    ]
