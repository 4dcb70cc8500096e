"""Writes what Tripy lowered a model to with TensorRT-RTX's network API, and builds an engine of it.

An independent reader of the same operations: it takes no GPU to build, and refuses what TensorRT
does not take, such as operands of two dtypes or of two ranks.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tensorrt_rtx as trt
from mlir_tensorrt.program import DYNAMIC, Operation, Program, Type

DTYPES = {"float32": trt.DataType.FLOAT, "int32": trt.DataType.INT32}
ADA = trt.ComputeCapability.SM89
POOLINGS = {"kMAX": trt.PoolingType.MAX, "kAVERAGE": trt.PoolingType.AVERAGE}
PAIRS = {
    "kSUM": trt.ElementWiseOperation.SUM,
    "kSUB": trt.ElementWiseOperation.SUB,
    "kPROD": trt.ElementWiseOperation.PROD,
}
UNARY = {
    "kSQRT": trt.UnaryOperation.SQRT,
    "kRECIP": trt.UnaryOperation.RECIP,
    "kNEG": trt.UnaryOperation.NEG,
}


class _Log(trt.ILogger):
    def __init__(self) -> None:
        super().__init__()
        self.errors: list[str] = []

    def log(self, severity: Any, message: str) -> None:
        if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
            self.errors.append(message)


LOG = _Log()


def engine_of(program: Program) -> bytes:
    """An engine for compute capability 8.9. Raises AssertionError, with TensorRT's words."""
    LOG.errors.clear()
    builder = trt.Builder(LOG)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    _Writer(network, program).write()
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(ADA, 0)
    profile = builder.create_optimization_profile()
    for each in program.inputs:
        profile.set_shape(each.name, each.least, each.usual, each.largest)
    config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    assert engine is not None, LOG.errors
    return bytes(engine)


class _Writer:
    def __init__(self, network: Any, program: Program) -> None:
        self.network, self.program = network, program
        self.tensors: dict[str, Any] = {}

    def write(self) -> None:
        for each in self.program.inputs:
            dtype = DTYPES[each.type.dtype]
            self.tensors[each.name] = self.network.add_input(each.name, dtype, each.type.shape)
        for operation in self.program.operations:
            tensor = getattr(self, f"_{operation.kind}")(operation)
            _check(operation, tensor)
            self.tensors[operation.name] = tensor
        for name in self.program.outputs:
            self.network.mark_output(self.tensors[name])

    def _taken(self, operation: Operation, name: str) -> Any:
        given = operation.inputs[name]
        return None if given is None else self.tensors[given]

    def _weights(self, operation: Operation, name: str) -> np.ndarray | None:
        given = operation.inputs[name]
        return None if given is None else self.program.constants[given]

    def _constant(self, operation: Operation) -> Any:
        array = self.program.constants[operation.name]
        return _given(self.network.add_constant(array.shape, trt.Weights(array)))

    def _convolution(self, operation: Operation) -> Any:
        given, x = operation.attributes, self._taken(operation, "x")
        kernel, bias = self._weights(operation, "kernel"), self._weights(operation, "bias")
        held = trt.Weights() if bias is None else trt.Weights(bias)
        layer = self.network.add_convolution_nd(
            x, kernel.shape[0], kernel.shape[2:], trt.Weights(kernel), held
        )
        layer.stride_nd, layer.dilation_nd = given["stride"], given["dilation"]
        layer.pre_padding, layer.post_padding = given["before"], given["after"]
        layer.num_groups = given["groups"]
        return _given(layer)

    def _pooling(self, operation: Operation) -> Any:
        given, x = operation.attributes, self._taken(operation, "x")
        layer = self.network.add_pooling_nd(x, POOLINGS[given["how"]], given["window"])
        layer.stride_nd = given["stride"]
        layer.pre_padding, layer.post_padding = given["before"], given["after"]
        if given["excludes_padding"] is not None:
            layer.average_count_excludes_padding = given["excludes_padding"]
        return _given(layer)

    def _matrix_multiply(self, operation: Operation) -> Any:
        a, b = self._taken(operation, "a"), self._taken(operation, "b")
        plain = trt.MatrixOperation.NONE
        return _given(self.network.add_matrix_multiply(a, plain, b, plain))

    def _element_wise(self, operation: Operation) -> Any:
        a, b = self._taken(operation, "a"), self._taken(operation, "b")
        return _given(self.network.add_elementwise(a, b, PAIRS[operation.attributes["how"]]))

    def _unary(self, operation: Operation) -> Any:
        how = UNARY[operation.attributes["how"]]
        return _given(self.network.add_unary(self._taken(operation, "x"), how))

    def _activation(self, operation: Operation) -> Any:
        assert operation.attributes["how"] == "kRELU"
        x = self._taken(operation, "x")
        return _given(self.network.add_activation(x, trt.ActivationType.RELU))

    def _reduce(self, operation: Operation) -> Any:
        given, x = operation.attributes, self._taken(operation, "x")
        assert given["how"] == "kAVG"
        axes = sum(1 << axis for axis in given["axes"])
        return _given(self.network.add_reduce(x, trt.ReduceOperation.AVG, axes, given["keep"]))

    def _concatenation(self, operation: Operation) -> Any:
        tensors = [self._taken(operation, str(n)) for n in range(len(operation.inputs))]
        layer = self.network.add_concatenation(tensors)
        layer.axis = operation.attributes["axis"]
        return _given(layer)

    def _transpose(self, operation: Operation) -> Any:
        layer = self.network.add_shuffle(self._taken(operation, "x"))
        layer.first_transpose = operation.attributes["permutation"]
        return _given(layer)

    def _reshape(self, operation: Operation) -> Any:
        layer = self.network.add_shuffle(self._taken(operation, "x"))
        layer.set_input(1, self._taken(operation, "shape"))
        return _given(layer)

    def _collapse_rank(self, operation: Operation) -> Any:
        layer = self.network.add_shuffle(self._taken(operation, "x"))
        layer.reshape_dims = ()
        return _given(layer)

    def _shape(self, operation: Operation) -> Any:
        """TensorRT's own are int64."""
        extents = _given(self.network.add_shape(self._taken(operation, "x")))
        return _given(self.network.add_cast(extents, trt.DataType.INT32))

    def _cast(self, operation: Operation) -> Any:
        dtype = DTYPES[operation.type.dtype]
        return _given(self.network.add_cast(self._taken(operation, "x"), dtype))

    def _slice(self, operation: Operation) -> Any:
        given, x = operation.attributes, self._taken(operation, "x")
        zeros = (0,) * len(x.shape)
        static = [given.get(name, zeros) for name in ("start", "size", "stride")]
        layer = self.network.add_slice(x, *static)
        for place, name in enumerate(("start", "size", "stride", "fill"), 1):
            if (tensor := self._taken(operation, name)) is not None:
                layer.set_input(place, tensor)
        if given["mode"] == "kFILL":
            layer.mode = trt.SampleMode.FILL
        return _given(layer)

    def _broadcast(self, operation: Operation) -> Any:
        """A slice that stays where it is along each axis."""
        x, shape = self._taken(operation, "x"), self._taken(operation, "shape")
        assert math.prod(x.shape) == 1, "no model here broadcasts more than a number"
        rank = len(operation.type.shape)
        layer = self.network.add_shuffle(x)
        layer.reshape_dims = (1,) * rank
        zeros = (0,) * rank
        layer = self.network.add_slice(_given(layer), zeros, zeros, zeros)
        layer.set_input(2, shape)
        return _given(layer)


def _given(layer: Any) -> Any:
    assert layer is not None, LOG.errors
    return layer.get_output(0)


def _check(operation: Operation, tensor: Any) -> None:
    """What TensorRT infers is what nvtripy did; an extent that either does not know may be any."""
    declared: Type | None = operation.type
    if declared is None:
        return
    shape = tuple(tensor.shape)
    assert tensor.dtype == DTYPES[declared.dtype], (operation, tensor.dtype)
    assert len(shape) == len(declared.shape), (operation, shape, LOG.errors)
    pairs = zip(shape, declared.shape, strict=True)
    assert all(a == b or DYNAMIC in (a, b) for a, b in pairs), (operation, shape)
