"""LiteRT's interpreter for .tflite files, with XNNPACK kernels."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, final

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from runtimes.operator_trace import Node, describe, device_of, precision_of
from toolkit.core.artifact import Artifact, Format
from toolkit.core.errors import SourceError
from toolkit.core.session import (
    Availability,
    Provenance,
    Runtime,
    Session,
    SessionOptions,
    host_copy,
    not_ready,
)
from toolkit.core.specs import Feeds, Outputs

VERSION = importlib.metadata.version("ai-edge-litert")
DELEGATE = "DELEGATE"
MOVING = frozenset(
    {
        "BROADCAST_TO", "CAST", "CONCATENATION", "DEQUANTIZE", "EXPAND_DIMS", "FILL", "GATHER",
        "GATHER_ND", "MIRROR_PAD", "PACK", "PAD", "PADV2", "QUANTIZE", "RANGE", "RESHAPE",
        "REVERSE_V2", "SHAPE", "SLICE", "SPLIT", "SPLIT_V", "SQUEEZE", "STRIDED_SLICE", "TILE",
        "TRANSPOSE", "UNPACK", "WHERE", "ZEROS_LIKE",
    }
)  # fmt: skip
FLOATS = ("float32", "float64", "float16")


@final
class LiteRt(Runtime):
    name: ClassVar[str] = "litert"
    accepts: ClassVar[frozenset[Format]] = frozenset({Format.LITERT})

    def probe(self) -> Availability:
        return Availability(ok=True, version=VERSION)

    def open(self, artifact: Artifact, options: SessionOptions) -> Session:
        options.require_known(self.name, ())
        return LiteRtSession(artifact, options)


@final
class LiteRtSession(Session):
    """Session of LiteRT's interpreter; without optimisation, it uses built-in kernels only."""

    def __init__(self, artifact: Artifact, options: SessionOptions) -> None:
        super().__init__(artifact.signature)
        self._threads = options.threads
        resolver = (
            OpResolverType.AUTO
            if options.optimize
            else OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        )
        try:
            self._interpreter: Any = Interpreter(
                str(artifact.path),
                num_threads=options.threads,
                experimental_op_resolver_type=resolver,
            )
            self._places = _places(self._interpreter, artifact)
        except (ValueError, RuntimeError, KeyError) as error:
            raise SourceError(
                f"LiteRT {VERSION} could not open {artifact.path}: {error}",
                hint="Give a .tflite file, or a directory that `toolkit export --to litert` wrote.",
            ) from error
        self._pass: Callable[[], None] = not_ready

    def _prepare(self, dims: Mapping[str, int]) -> None:
        self._pass = not_ready  # until _upload has resized the inputs; an axis may have no name

    def _upload(self, feeds: Feeds) -> None:
        if self._pass is not_ready:
            for name, array in feeds.items():
                self._interpreter.resize_tensor_input(self._places[name], np.shape(array))
            self._interpreter.allocate_tensors()
            self._pass = self._interpreter.invoke
        for name, array in feeds.items():
            self._interpreter.set_tensor(self._places[name], np.asarray(array, order="C"))

    def forward(self) -> None:
        self._pass()

    def synchronize(self) -> None:
        pass  # a pass is complete when the call returns

    def _download(self) -> Outputs:
        return {
            spec.name: host_copy(self._interpreter.get_tensor(self._places[spec.name]))
            for spec in self.signature.outputs
        }

    def _provenance(self) -> Provenance:
        nodes = self._nodes()
        return Provenance(
            runtime="litert",
            version=VERSION,
            device=device_of(nodes, {"xnnpack": "cpu", "builtin": "cpu"}),
            precision=precision_of(nodes),
            threads=self._threads,
            details=describe(nodes),
        )

    def _nodes(self) -> list[Node]:
        """Return the operators as they run, each with the dtype of its outputs.

        A part of the graph that the delegate took is one operator.
        """
        details = {
            t["index"]: np.dtype(t["dtype"]).name for t in self._interpreter.get_tensor_details()
        }
        return [
            Node(
                name=str(op["index"]),
                operator=op["op_name"],
                provider="xnnpack" if op["op_name"] == DELEGATE else "builtin",
                dtype=_arithmetic(op, [details.get(int(i), "") for i in op["outputs"]]),
            )
            for op in self._interpreter._get_ops_details()
        ]

    def _close(self) -> None:
        self._pass = not_ready
        self._interpreter = None


def _arithmetic(op: Mapping[str, Any], outputs: list[str]) -> str | None:
    if op["op_name"] in MOVING:
        return None
    if {"int8", "uint8"} & set(outputs):
        return "int8"
    return next((dtype for dtype in outputs if dtype in FLOATS), None)


def _places(interpreter: Any, artifact: Artifact) -> dict[str, int]:
    """Return the tensor indices of the inputs and outputs, by the names in the signature.

    The file's own signature, if it has one, takes precedence over the names of its tensors. Raise
    KeyError if the file lacks one of the names.
    """
    signatures = interpreter.get_signature_list()
    found: dict[str, int] = {}
    sides = (
        (artifact.signature.inputs, interpreter.get_input_details(), "inputs"),
        (artifact.signature.outputs, interpreter.get_output_details(), "outputs"),
    )
    runner = interpreter.get_signature_runner(next(iter(signatures))) if signatures else None
    for specs, details, side in sides:
        by_name = {d["name"]: d["index"] for d in details}
        if runner is not None:
            named = getattr(runner, f"get_{side[:-1]}_details")()
            by_name |= {name: d["index"] for name, d in named.items()}
        for spec in specs:
            found[spec.name] = by_name[spec.name]
    return found
