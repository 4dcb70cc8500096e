"""OpenVINO on the CPU."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, final

import numpy as np
import openvino as ov

from runtimes.executed import Node, describe, device_of, precision_of
from toolkit.core.artifact import Artifact, Format
from toolkit.core.errors import SessionError, SourceError
from toolkit.core.session import (
    Availability,
    Provenance,
    Runtime,
    Session,
    SessionOptions,
    host_copy,
    not_ready,
)
from toolkit.core.specs import Feeds, Outputs, TensorSpec

DEVICE = "CPU"
DEVICES = {DEVICE: "cpu"}
DTYPES = {
    "f64": "float64",
    "f32": "float32",
    "f16": "float16",
    "bf16": "bfloat16",
    "i8": "int8",
    "u8": "int8",
}
# Parts of the executable graph that are there before a pass and after it.
HELD = frozenset({"Const", "Input", "Output"})
# Layers that move or convert values without computing on them.
MOVING = frozenset(
    {
        "Broadcast", "Concatenation", "Convert", "FakeQuantize", "Gather", "Pad", "Reorder",
        "Reshape", "ShapeOf", "Split", "StridedSlice", "Tile", "Transpose",
    }
)  # fmt: skip
BODIES = frozenset({"If", "Loop", "TensorIterator"})
# Layers with 8-bit arithmetic. OpenVINO reports u8 for others too that take or return booleans,
# such as a comparison, or a Select with a mask.
EIGHT_BITS = frozenset(
    {"Convolution", "Deconvolution", "FullyConnected", "MatMul", "RNNSeq", "RNNCell"}
)
BFLOAT16 = "bfloat16"  # which NumPy does not have: its bytes are passed as whole numbers


@functools.cache
def _core() -> ov.Core:
    """Return the Core that all sessions of this process share. It is never destroyed.

    The CPU plugin of a Core replaces the thread's alternate signal stack, and restores the previous
    one when the Core is destroyed. If the previous one belonged to another Core that is gone too,
    the next signal crashes the process.
    """
    return ov.Core()


@final
class OpenVino(Runtime):
    name: ClassVar[str] = "openvino"
    accepts: ClassVar[frozenset[Format]] = frozenset({Format.ONNX, Format.OPENVINO})

    def probe(self) -> Availability:
        return Availability(ok=True, version=ov.__version__)

    def open(self, artifact: Artifact, options: SessionOptions) -> Session:
        options.require_optimize(self.name)
        config: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": options.threads,
            # Unless told not to, it runs float32 models in bfloat16 where the processor can.
            "INFERENCE_PRECISION_HINT": "f32",
        }
        core = _core()
        options.require_known(self.name, core.get_property("CPU", "SUPPORTED_PROPERTIES"))
        config.update(options.tuning)
        try:
            model = core.read_model(artifact.path)
            compiled = core.compile_model(model, DEVICE, config)
        except RuntimeError as error:
            raise SourceError(
                f"OpenVINO {ov.__version__} could not open {artifact.path}: {error}",
                hint="The message names what it does not support; choose another runtime.",
            ) from error
        return OpenVinoSession(artifact, compiled, _passed_on(model, compiled))


@final
class OpenVinoSession(Session):
    """Inputs are read from the caller's memory; outputs are in the request's own tensors, except
    those that are an unchanged input (see `_passed_on`)."""

    def __init__(
        self, artifact: Artifact, compiled: Any, passed_on: Sequence[tuple[Any, str]]
    ) -> None:
        super().__init__(artifact.signature)
        self._compiled = compiled
        self._request = compiled.create_infer_request()
        named = {name: port for port in compiled.outputs for name in port.get_names()}
        # Two outputs that are one tensor bear one name.
        self._ports = {
            spec.name: named.get(spec.name, port)
            for spec, port in zip(self.signature.outputs, compiled.outputs, strict=True)
        }
        self._passed_on = passed_on
        # An input that no output depends on, or that is empty, may be left out of the program.
        self._taken = {name for port in compiled.inputs for name in port.get_names()}
        self._infer: Callable[[], object] = not_ready

    def _prepare(self, dims: Mapping[str, int]) -> None:
        self._infer = self._request.infer

    def _upload(self, feeds: Feeds) -> None:
        # Memory is shared, which OpenVINO refuses for arrays that are read-only.
        shared = {
            name: np.require(array, requirements=["C", "W"])
            for name, array in feeds.items()
            if name in self._taken
        }
        copies = [(port, np.empty_like(shared[name])) for port, name in self._passed_on]
        for port, array in (*shared.items(), *copies):
            self._request.set_tensor(port, _tensor(array))
        # A tensor does not keep the array alive whose memory it has.
        self._held = [*shared.values(), *(array for _, array in copies)]

    def forward(self) -> None:
        self._infer()

    def synchronize(self) -> None:
        pass  # infer() returns when the pass is complete

    def _download(self) -> Outputs:
        return {
            spec.name: _array(self._request.get_tensor(self._ports[spec.name]), spec)
            for spec in self.signature.outputs
        }

    def _provenance(self) -> Provenance:
        nodes = _executed(self._compiled.get_runtime_model())
        return Provenance(
            runtime="openvino",
            version=ov.__version__,
            device=device_of(nodes, DEVICES),
            precision=precision_of(nodes),
            threads=int(self._compiled.get_property("INFERENCE_NUM_THREADS")),
            details={
                "execution_devices": list(self._compiled.get_property("EXECUTION_DEVICES")),
                "streams": int(self._compiled.get_property("NUM_STREAMS")),
                **describe(nodes),
            },
        )

    def _close(self) -> None:
        self._infer = not_ready
        self._request = self._compiled = None
        self._held = []


def _passed_on(model: Any, compiled: Any) -> list[tuple[Any, str]]:
    """Return the outputs that are an input as it is once the graph is simplified, with its name.

    OpenVINO 2026.4 writes such an output into the memory of an earlier request's input if shapes
    are dynamic, where that may be freed. It does not if the output has a tensor of its own. Where
    the given graph itself returns an input, output and input are one tensor.
    """
    given, executed = (
        {
            port.get_node().get_friendly_name(): port.get_node().input_value(0).get_node()
            for port in graph.outputs
        }
        for graph in (model, compiled.get_runtime_model())
    )
    ports = {port.get_node().get_friendly_name(): port for port in compiled.outputs}
    inputs = {port.get_node().get_friendly_name(): port.get_any_name() for port in compiled.inputs}
    return [
        (ports[name], inputs[maker.get_friendly_name()])
        for name, maker in executed.items()
        if name in ports
        and given[name].get_type_name() != "Parameter"
        and maker.get_friendly_name() in inputs
    ]


def _tensor(array: np.ndarray) -> Any:
    """A tensor over the memory of an array."""
    if array.dtype.name == BFLOAT16:
        return ov.Tensor(array.view(np.uint16), array.shape, ov.Type.bf16)
    return ov.Tensor(array, shared_memory=True)


def _array(tensor: Any, spec: TensorSpec) -> np.ndarray:
    """A copy of a tensor in the dtype of the signature. Raises SessionError for a tensor of another
    dtype, such as one of four bits, of which OpenVINO gives the packed bytes."""
    if tensor.element_type == ov.Type.bf16 and spec.dtype == BFLOAT16:
        import ml_dtypes

        return host_copy(tensor.data.view(ml_dtypes.bfloat16))
    same = tensor.element_type.to_dtype().name == spec.dtype
    if not same or tensor.element_type == ov.Type.bf16:
        raise SessionError(
            f"OpenVINO {ov.__version__} gives output {spec.name!r} as "
            f"{tensor.element_type.get_type_name()}, expected {spec.dtype}.",
            hint="Cast that output to float32 in the model, or choose another runtime.",
        )
    return host_copy(tensor.data)


def _executed(graph: Any) -> list[Node]:
    """The layers of the executable graph in the order in which they run."""
    layers = [
        (operation.get_friendly_name(), operation.get_rt_info()) for operation in graph.get_ops()
    ]
    layers.sort(key=lambda layer: int(layer[1]["execOrder"].astype(str)))
    return [
        Node(
            name=name,
            operator=kind,
            provider=DEVICE,
            dtype=None if kind in MOVING else _dtype(kind, info),
        )
        for name, info in layers
        if (kind := info["layerType"].astype(str)) not in HELD
    ]


def _dtype(kind: str, info: Any) -> str | None:
    """Of the arithmetic; what lies in the body of a branch or loop is not told but by its outputs,
    since its own precision is that of the condition."""
    if kind in BODIES:
        told = info["outputPrecisions"].astype(str).split(",")
        return next((DTYPES[name] for name in told if name in DTYPES), None)
    ran = DTYPES.get(info["runtimePrecision"].astype(str))
    if ran == "int8" and kind not in EIGHT_BITS:
        told = info["outputPrecisions"].astype(str).split(",")
        return next((DTYPES[name] for name in told if DTYPES.get(name, "int8") != "int8"), None)
    return ran
