"""The network that TensorRT-RTX's parser makes of an ONNX file, and the weights in it.

A built engine does not give its weights back, and nothing of it can be asked without a GPU. The
network that it is built from can.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import onnx
import tensorrt_rtx as trt

from exporters.base import StoredTensor
from exporters.onnx_file import constant_names, node_inputs
from exporters.weight_matching import tensor_digest
from toolkit.core.errors import SourceError

WEIGHTED = {
    trt.LayerType.CONSTANT: trt.IConstantLayer,
    trt.LayerType.CONVOLUTION: trt.IConvolutionLayer,
    trt.LayerType.DECONVOLUTION: trt.IDeconvolutionLayer,
    trt.LayerType.SCALE: trt.IScaleLayer,
}
"""The layers that hold weights of their own; the others take them as inputs."""

ZERO_POINT = 2  # its place among the inputs of these
QUANTISING = frozenset({trt.LayerType.QUANTIZE, trt.LayerType.DEQUANTIZE})
MADE_OF = re.compile(r"\[ONNX Layer: (.*)\]")  # in the metadata of a layer


@final
class Log(trt.ILogger):
    """Keeps what went wrong, in TensorRT-RTX's words."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[str] = []

    def log(self, severity: Any, message: str) -> None:
        if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
            self.errors.append(message)


# TensorRT keeps the first logger of a process and ignores every later one.
LOG = Log()


@final
@dataclass(frozen=True, kw_only=True)
class Parsed:
    """A network, and what its weights lie in the memory of."""

    path: Path
    builder: Any
    parser: Any
    network: Any

    def layers(self) -> Iterator[Any]:
        """Each as the class that has its weights."""
        for number in range(self.network.num_layers):
            layer = self.network.get_layer(number)
            layer.__class__ = WEIGHTED.get(layer.type, trt.ILayer)
            yield layer

    def inputs(self) -> list[Any]:
        return [self.network.get_input(number) for number in range(self.network.num_inputs)]

    def outputs(self) -> list[Any]:
        return [self.network.get_output(number) for number in range(self.network.num_outputs)]


def parse(path: Path) -> Parsed:
    """The network of an ONNX file, strongly typed: each tensor has the dtype that the file says.

    Raises SourceError, with the node and the parser's words, for what it does not take.
    """
    _check(path)
    LOG.errors.clear()
    builder = trt.Builder(LOG)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, LOG)
    parsed = parser.parse_from_file(str(path))
    errors = [_told(parser.get_error(number)) for number in range(parser.num_errors)]
    # Of what is no graph at all the parser says that it was parsed, into a network of nothing.
    if not parsed or errors or not network.num_outputs:
        told = "; ".join(errors or LOG.errors) or "it found no outputs"
        raise SourceError(
            f"TensorRT-RTX {trt.__version__} could not parse {path}: {told}.",
            hint="The message names what it does not take; choose another target.",
        )
    return Parsed(path=path, builder=builder, parser=parser, network=network)


def _check(path: Path) -> None:
    """Some damaged graphs end the process when the parser has them."""
    try:
        onnx.checker.check_model(str(path))
    except (OSError, RuntimeError, ValueError, onnx.checker.ValidationError) as error:
        told = str(error).strip().partition("\n")[0].rstrip(".")
        raise SourceError(
            f"{path} is no valid ONNX model: {told}.",
            hint="Give a model that onnx.checker.check_model takes.",
        ) from error


def _told(error: Any) -> str:
    where = f"node {error.node_name()!r} ({error.node_operator()}): " if error.node_name() else ""
    return f"{where}{error.desc().rstrip('.')}"


def operators(parsed: Parsed) -> Mapping[str, int]:
    """How often each type of layer is in the network."""
    types = (layer.type for layer in parsed.layers())
    return Counter(type.name for type in types if type != trt.LayerType.CONSTANT)


def stored_tensors(parsed: Parsed) -> list[StoredTensor]:
    """Every weight of the network, under the name that the ONNX file has for it, and its readers.

    The parser gives a kernel that several nodes read to a layer for each of them: they are one
    tensor with several readers, as long as they are equal bit for bit. A batch norm is a layer of
    `scale` and `shift` [C], which its four tensors were multiplied into. What no output depends on
    has no readers. Raises SourceError for a dtype that TensorRT-RTX does not give back.
    """
    layers = list(parsed.layers())
    live = _live(layers, [tensor.name for tensor in parsed.outputs()])
    readers: dict[str, list[str]] = defaultdict(list)
    for number in live:
        for name in _reads(layers[number]):
            readers[name].append(_label(layers[number]))
    names = _Names.of(parsed.path, layers)
    found: dict[tuple[str, str], StoredTensor] = {}
    digests: dict[str, str] = {}
    for number, layer in enumerate(layers):
        constant = layer.type == trt.LayerType.CONSTANT
        itself = [_label(layer)] if number in live else []
        read_by = readers[layer.get_output(0).name] if constant else itself
        for name, array in _weights(layer, names):
            digest = tensor_digest(array)
            if digests.setdefault(name, digest) != digest:
                name = f"{name} in {layer.name}"  # another tensor, whatever its name
            before = found[name, digest].readers if (name, digest) in found else ()
            found[name, digest] = StoredTensor(name=name, array=array, readers=(*before, *read_by))
    return list(found.values())


@final
@dataclass(frozen=True, kw_only=True)
class _Names:
    """What the ONNX file calls the inputs of each node, and its constants; and which tensors of the
    network are zero points."""

    inputs: Mapping[str, Sequence[str]]
    constants: Collection[str]
    zero_points: Collection[str]

    @classmethod
    def of(cls, path: Path, layers: Sequence[Any]) -> _Names:
        return cls(
            inputs=node_inputs(path),
            constants=constant_names(path),
            zero_points={
                layer.get_input(ZERO_POINT).name
                for layer in layers
                if layer.type in QUANTISING and layer.num_inputs > ZERO_POINT
            },
        )

    def of_input(self, layer: Any, place: int, otherwise: str) -> str:
        """The name of what the node takes there that a layer was made of."""
        made_of = MADE_OF.search(layer.metadata)
        inputs = self.inputs.get(made_of[1], ()) if made_of else ()
        return inputs[place] if place < len(inputs) else f"{layer.name}.{otherwise}"


def _weights(layer: Any, names: _Names) -> Iterator[tuple[str, np.ndarray]]:
    """The weights that a layer has, in the shape of the ONNX file."""
    if layer.type == trt.LayerType.CONSTANT:
        array = _array(layer.weights, layer).reshape(tuple(layer.shape))
        if layer.get_output(0).name in names.zero_points:
            array = array.astype(np.int8)  # TensorRT has them in float32
        elif layer.name not in names.constants and array.dtype == np.int32:
            array = array.astype(np.int64)  # a shape or an axis of the parser's own
        yield layer.name, array
    elif layer.type == trt.LayerType.SCALE:
        for place, part in ((1, "scale"), (2, "shift"), (1, "power")):
            array = _array(getattr(layer, part), layer)
            if array.size:
                yield f"{names.of_input(layer, place, 'weights')}.{part}", array
    elif layer.type in WEIGHTED:
        kernel, bias = (_array(held, layer) for held in (layer.kernel, layer.bias))
        if kernel.size:  # none where it comes as an input
            shape = _kernel_shape(layer, kernel.size)
            yield names.of_input(layer, 1, "kernel"), kernel.reshape(shape)
        if bias.size:
            yield names.of_input(layer, 2, "bias"), bias


def _kernel_shape(layer: Any, size: int) -> tuple[int, ...]:
    """[O, I / groups, ...], of a deconvolution [I, O / groups, ...]."""
    window, maps = tuple(layer.kernel_size_nd), layer.num_output_maps
    if layer.type == trt.LayerType.DECONVOLUTION:
        maps //= layer.num_groups
        return size // (maps * math.prod(window)), maps, *window
    return maps, size // (maps * math.prod(window)), *window


def _array(held: Any, layer: Any) -> np.ndarray:
    """A copy: the weights lie in the memory of the parser."""
    if held is None:
        return np.empty(0, np.float32)
    if not isinstance(held, np.ndarray):  # NumPy has no such dtype
        raise SourceError(
            f"The weights of layer {layer.name!r} are {held.dtype.name}, which TensorRT-RTX "
            "does not give back, so that they cannot be proved.",
            hint="Start from a graph in float32 or float16, or with int8 Q/DQ nodes.",
        )
    return held.copy()


def _live(layers: Sequence[Any], outputs: Sequence[str]) -> list[int]:
    """The places of the layers that an output depends on. One without outputs steers others."""
    maker = {
        layer.get_output(which).name: number
        for number, layer in enumerate(layers)
        for which in range(layer.num_outputs)
    }
    todo = [*outputs, *(n for layer in layers if not layer.num_outputs for n in _reads(layer))]
    live: set[int] = set()
    while todo:
        number = maker.get(todo.pop())
        if number is not None and number not in live:
            live.add(number)
            todo += _reads(layers[number])
    return sorted(live)


def _reads(layer: Any) -> list[str]:
    """The tensors that it takes; an optional one may be left out."""
    tensors = (layer.get_input(number) for number in range(layer.num_inputs))
    return [tensor.name for tensor in tensors if tensor is not None]


def _label(layer: Any) -> str:
    return f"{layer.name} ({layer.type.name})"
