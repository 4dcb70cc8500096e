"""Stands in for TensorRT's Python module, over ONNX Runtime on the CPU.

It has the classes and signatures that the runtime uses, which are compared with those of the real
bindings, and is as strict: what is not set is an error, and what is enqueued is done when the
stream is waited for. Engines are an ONNX graph with the batches that they take; see `engine_of`.
"""

from __future__ import annotations

import ctypes
import enum
import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime

from tests.doubles.cuda_double import STREAMS

__version__ = "10.16.1.11"
MAGIC = b"FAKE-ENGINE "
CALLS: list[tuple[Any, ...]] = []


def engine_of(graph: bytes, least: int, usual: int, most: int) -> bytes:
    """What `deserialize_cuda_engine` takes."""
    head = json.dumps({"size": len(graph), "batches": [least, usual, most]}).encode()
    return MAGIC + head + b"\n" + graph


class ILogger:
    class Severity(enum.Enum):
        INTERNAL_ERROR = 0
        ERROR = 1
        WARNING = 2

    INTERNAL_ERROR = Severity.INTERNAL_ERROR
    ERROR = Severity.ERROR
    WARNING = Severity.WARNING


class DataType(enum.Enum):
    FLOAT = 0
    HALF = 1
    INT8 = 2
    INT32 = 3
    BOOL = 4
    INT64 = 8


class TensorIOMode(enum.Enum):
    INPUT = 1
    OUTPUT = 2


class TensorLocation(enum.Enum):
    DEVICE = 0
    HOST = 1


class LayerInformationFormat(enum.Enum):
    ONELINE = 0
    JSON = 1


TYPES = {
    onnx.TensorProto.FLOAT: DataType.FLOAT,
    onnx.TensorProto.FLOAT16: DataType.HALF,
    onnx.TensorProto.INT32: DataType.INT32,
    onnx.TensorProto.INT64: DataType.INT64,
}


def on_stream(stream_handle: int, work: Callable[[], None]) -> None:
    STREAMS[stream_handle].enqueue(work)


class Runtime:
    def __init__(self, logger: ILogger) -> None:
        self._logger = logger

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        head, _, graph = serialized_engine.partition(b"\n")
        told = json.loads(head.removeprefix(MAGIC)) if head.startswith(MAGIC) else {"size": -1}
        if len(graph) != told["size"]:
            self._logger.log(ILogger.WARNING, "A warning is no reason.")
            self._logger.log(ILogger.ERROR, "Serialized engine has a bad checksum.")
            return None
        return ICudaEngine(graph, told["batches"], self._logger)


class ICudaEngine:
    def __init__(self, graph: bytes, batches: Sequence[int], logger: ILogger) -> None:
        self.hidden = Hidden(graph, batches, logger)

    @property
    def num_io_tensors(self) -> int:
        return len(self.hidden.infos)

    @property
    def device_memory_size_v2(self) -> int:
        return 4096

    def get_tensor_name(self, index: int) -> str:
        return list(self.hidden.infos)[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name in self.hidden.inputs else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> DataType:
        return TYPES[self.hidden.infos[name].type.tensor_type.elem_type]

    def get_tensor_location(self, name: str) -> TensorLocation:
        assert name in self.hidden.infos
        return TensorLocation.DEVICE

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.hidden.shape(name, {})

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
        assert profile_index == 0
        assert -1 in self.get_tensor_shape(name), "of a shape that is fixed nothing is promised"
        shapes = []
        for batch in self.hidden.batches:
            shape = self.hidden.shape(name, {})
            shapes.append(tuple(batch if extent < 0 else extent for extent in shape))
        return shapes

    def create_execution_context(self) -> IExecutionContext | None:
        return IExecutionContext(self)

    def create_engine_inspector(self) -> EngineInspector:
        return EngineInspector(self)


class IExecutionContext:
    def __init__(self, engine: ICudaEngine) -> None:
        self.hidden = engine.hidden
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}

    def _dims(self) -> dict[str, int]:
        found = {}
        for name, shape in self._shapes.items():
            for dim, extent in zip(self.hidden.dims(name), shape, strict=True):
                if not dim.HasField("dim_value"):
                    found[dim.dim_param] = extent
        return found

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        CALLS.append(("set_input_shape", name, tuple(shape)))
        least, _, most = self.hidden.batches
        wanted = self.hidden.shape(name, {})
        assert name in self.hidden.inputs
        fits = len(wanted) == len(shape) and all(
            least <= got <= most if want < 0 else got == want
            for got, want in zip(shape, wanted, strict=True)
        )
        if not fits:
            return self.hidden.refuse(f"{name}: shape {shape} is outside the profile")
        self._shapes[name] = tuple(shape)
        return True

    def infer_shapes(self) -> list[str]:
        CALLS.append(("infer_shapes",))
        return [name for name in self.hidden.inputs if name not in self._shapes]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.hidden.shape(name, self._dims())

    def set_tensor_address(self, name: str, memory: int) -> bool:
        CALLS.append(("set_tensor_address", name))
        if name not in self.hidden.infos or memory == 0 or memory % 8:
            return self.hidden.refuse(f"{name}: bad address {memory}")
        self._addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        CALLS.append(("execute_async_v3",))
        if unset := [name for name in self.hidden.inputs if name not in self._shapes]:
            return self.hidden.refuse(f"no shape for {unset}")
        if unset := [name for name in self.hidden.infos if name not in self._addresses]:
            return self.hidden.refuse(f"no address for {unset}")
        shapes = {name: self.get_tensor_shape(name) for name in self.hidden.infos}
        addresses = dict(self._addresses)
        on_stream(stream_handle, lambda: self.hidden.run(addresses, shapes))
        return True


class EngineInspector:
    def __init__(self, engine: ICudaEngine) -> None:
        self.hidden = engine.hidden
        self.execution_context: IExecutionContext | None = None

    def get_engine_information(self, format: LayerInformationFormat) -> str:
        assert format is LayerInformationFormat.JSON
        assert self.execution_context is not None
        return json.dumps({"Layers": [self._layer(node) for node in self.hidden.nodes]})

    def _layer(self, node: onnx.NodeProto) -> dict[str, Any]:
        tensors = [{"Name": node.output[0], "Format/Datatype": "Row major linear FP32"}]
        kinds = {"Conv": "CaskConvolution", "Gemm": "gemm", "MaxPool": "Pooling"}
        kind = kinds.get(node.op_type, node.op_type)
        return {"Name": node.name, "LayerType": kind, "Inputs": tensors, "Outputs": tensors}


class Hidden:
    """What is no part of the double's interface."""

    def __init__(self, graph: bytes, batches: Sequence[int], logger: ILogger) -> None:
        model = onnx.load_from_string(graph).graph
        self.nodes = list(model.node)
        self.inputs = {value.name: value for value in model.input}
        self.infos = {**self.inputs, **{value.name: value for value in model.output}}
        self.batches = batches
        self._logger = logger
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            graph, options, providers=["CPUExecutionProvider"]
        )

    def dims(self, name: str) -> Sequence[Any]:
        return self.infos[name].type.tensor_type.shape.dim

    def shape(self, name: str, dims: dict[str, int]) -> tuple[int, ...]:
        """-1 for what is not known yet."""
        return tuple(
            d.dim_value if d.HasField("dim_value") else dims.get(d.dim_param, -1)
            for d in self.dims(name)
        )

    def refuse(self, why: str) -> bool:
        self._logger.log(ILogger.ERROR, why)
        return False

    def array(self, name: str, address: int, shape: tuple[int, ...]) -> np.ndarray:
        """A view of memory."""
        elem_type = self.infos[name].type.tensor_type.elem_type
        dtype = onnx.helper.tensor_dtype_to_np_dtype(elem_type)
        memory = (ctypes.c_uint8 * (math.prod(shape) * dtype.itemsize)).from_address(address)
        return np.frombuffer(memory, dtype).reshape(shape)

    def run(self, addresses: dict[str, int], shapes: dict[str, tuple[int, ...]]) -> None:
        views = {name: self.array(name, addresses[name], shapes[name]) for name in self.infos}
        feeds = {name: views[name].copy() for name in self.inputs}
        names = [name for name in self.infos if name not in self.inputs]
        for name, array in zip(names, self._session.run(names, feeds), strict=True):
            views[name][...] = array
