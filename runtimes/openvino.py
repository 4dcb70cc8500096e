"""OpenVINO on the CPU."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, final

import numpy as np
import openvino as ov

from runtimes.operator_trace import Node, describe, device_of, precision_of
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
# Layers of the executable graph that hold values before or after a pass.
HELD = frozenset({"Const", "Input", "Output"})
# Layers that move or convert values without computing on them.
MOVING = frozenset(
    {
        "Broadcast", "Concatenation", "Convert", "FakeQuantize", "Gather", "Pad", "Reorder",
        "Reshape", "ShapeOf", "Split", "StridedSlice", "Tile", "Transpose",
    }
)  # fmt: skip
BODIES = frozenset({"If", "Loop", "TensorIterator"})
# Layers with 8-bit arithmetic. OpenVINO also reports u8 for other layers that take or return
# booleans, such as a comparison, or a Select with a mask.
EIGHT_BITS = frozenset(
    {"Convolution", "Deconvolution", "FullyConnected", "MatMul", "RNNSeq", "RNNCell"}
)
BFLOAT16 = "bfloat16"  # NumPy lacks it, so its bytes are passed as integers


@functools.cache
def _core() -> ov.Core:
    """Return the Core that all sessions of this process share, which is never destroyed.

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
            # By default, OpenVINO runs float32 models in bfloat16 if the CPU supports it.
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
    """Session that reads inputs from the caller's memory.

    Outputs are in the request's own tensors, except outputs that are an unchanged input (see
    `_passed_on`).
    """

    def __init__(
        self, artifact: Artifact, compiled: Any, passed_on: Sequence[tuple[Any, str]]
    ) -> None:
        super().__init__(artifact.signature)
        self._compiled = compiled
        self._request = compiled.create_infer_request()
        named = {name: port for port in compiled.outputs for name in port.get_names()}
        # Outputs that are the same tensor share one name; others are then found by their order.
        self._ports = {
            spec.name: named.get(spec.name, port)
            for spec, port in zip(self.signature.outputs, compiled.outputs, strict=True)
        }
        self._passed_on = passed_on
        # OpenVINO may drop an input that no output depends on, or that is empty.
        self._taken = {name for port in compiled.inputs for name in port.get_names()}
        self._infer: Callable[[], object] = not_ready

    def _prepare(self, dims: Mapping[str, int]) -> None:
        self._infer = self._request.infer

    def _upload(self, feeds: Feeds) -> None:
        # Tensors share the arrays' memory, which OpenVINO refuses for read-only arrays.
        shared = {
            name: np.require(array, requirements=["C", "W"])
            for name, array in feeds.items()
            if name in self._taken
        }
        copies = [(port, np.empty_like(shared[name])) for port, name in self._passed_on]
        for port, array in (*shared.items(), *copies):
            self._request.set_tensor(port, _tensor(array))
        # A tensor does not keep the array alive whose memory it shares.
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
    """Return each output that is an unchanged input after simplification, with the input's name.

    With dynamic shapes, OpenVINO 2026.4 writes such an output to the memory of an earlier request's
    input, which may have been freed, unless the output has a tensor of its own. Outputs that are an
    input in the given graph already are left out: they share the input's tensor.
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
    """Return a tensor that shares the memory of an array."""
    if array.dtype.name == BFLOAT16:
        return ov.Tensor(array.view(np.uint16), array.shape, ov.Type.bf16)
    return ov.Tensor(array, shared_memory=True)


def _array(tensor: Any, spec: TensorSpec) -> np.ndarray:
    """Return a copy of a tensor, in the dtype of the signature.

    Raise SessionError if the tensor has another dtype, such as a 4-bit one, for which OpenVINO
    returns packed bytes.
    """
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
    """Return the layers of the executable graph in execution order."""
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
    """Return the dtype of a layer's arithmetic; None if it is not in DTYPES.

    For a branch or loop it is that of the outputs: the reported precision is that of the condition,
    and the body is not reported. It is also that of the outputs for a layer that reports 8-bit
    precision but is not in EIGHT_BITS.
    """
    if kind in BODIES:
        told = info["outputPrecisions"].astype(str).split(",")
        return next((DTYPES[name] for name in told if name in DTYPES), None)
    ran = DTYPES.get(info["runtimePrecision"].astype(str))
    if ran == "int8" and kind not in EIGHT_BITS:
        told = info["outputPrecisions"].astype(str).split(",")
        return next((DTYPES[name] for name in told if DTYPES.get(name, "int8") != "int8"), None)
    return ran
