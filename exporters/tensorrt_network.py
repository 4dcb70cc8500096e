"""The network that TensorRT's parser makes of an ONNX file, and the weights in it.

A built engine does not give its weights back, and nothing of it can be asked without a GPU. The
network that it is built from can. TensorRT's Python module is passed in: TensorRT 10 and 11 and
TensorRT-RTX have the same names for all that is used here.
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

from exporters.base import StoredTensor
from exporters.onnx_file import constant_names, node_inputs
from exporters.weight_matching import tensor_digest
from toolkit.core.engines import log_of
from toolkit.core.errors import SourceError, UnavailableError
from toolkit.core.nvidia import NO_DRIVER

ZERO_POINT = 2  # its place among the inputs of these
QUANTISING = frozenset({"QUANTIZE", "DEQUANTIZE"})
MADE_OF = re.compile(r"\[ONNX Layer: (.*)\]")  # in the metadata of a layer


@final
@dataclass(frozen=True, kw_only=True)
class Library:
    """TensorRT or TensorRT-RTX: its Python module, its name, and the target that it builds."""

    trt: Any
    name: str
    target: str

    def __str__(self) -> str:
        return f"{self.name} {self.trt.__version__}"

    @property
    def log(self) -> Any:
        return log_of(self.trt)

    def weighted(self) -> Mapping[str, Any]:
        """The layers that hold weights of their own; the others take them as inputs."""
        trt = self.trt
        return {
            "CONSTANT": trt.IConstantLayer,
            "CONVOLUTION": trt.IConvolutionLayer,
            "DECONVOLUTION": trt.IDeconvolutionLayer,
            "SCALE": trt.IScaleLayer,
        }


@final
@dataclass(frozen=True, kw_only=True)
class Parsed:
    """A network, and what its weights lie in the memory of."""

    library: Library
    path: Path
    builder: Any
    parser: Any
    network: Any

    def layers(self) -> Iterator[Any]:
        """Each as the class that has its weights."""
        trt, weighted = self.library.trt, self.library.weighted()
        for number in range(self.network.num_layers):
            layer = self.network.get_layer(number)
            layer.__class__ = weighted.get(layer.type.name, trt.ILayer)
            yield layer

    def inputs(self) -> list[Any]:
        return [self.network.get_input(number) for number in range(self.network.num_inputs)]

    def outputs(self) -> list[Any]:
        return [self.network.get_output(number) for number in range(self.network.num_outputs)]


def parse(library: Library, path: Path) -> Parsed:
    """The network of an ONNX file, strongly typed: each tensor has the dtype that the file says.

    Raises SourceError, with the node and the parser's words, for what it does not take, and
    UnavailableError where the library does nothing without a GPU.
    """
    _check(path)
    trt, log = library.trt, library.log
    builder = _builder(library)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    parsed = parser.parse_from_file(str(path))
    errors = [_told(parser.get_error(number)) for number in range(parser.num_errors)]
    # Of what is no graph at all the parser says that it was parsed, into a network of nothing.
    if not parsed or errors or not network.num_outputs:
        told = "; ".join(errors) or log.take()
        raise SourceError(
            f"{library} could not parse {path}: {told}.",
            hint="The message names what it does not take; choose another target.",
        )
    return Parsed(library=library, path=path, builder=builder, parser=parser, network=network)


def _builder(library: Library) -> Any:
    library.log.take()
    try:
        return library.trt.Builder(library.log)
    except TypeError as error:  # what its bindings make of a library that gives no builder
        told = library.log.take()
        raise UnavailableError(f"{library} could not start: {told}.", hint=NO_DRIVER) from error


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
    types = (layer.type.name for layer in parsed.layers())
    return Counter(type for type in types if type != "CONSTANT")


def stored_tensors(parsed: Parsed) -> list[StoredTensor]:
    """Every weight of the network, under the name that the ONNX file has for it, and its readers.

    The parser gives a kernel that several nodes read to a layer for each of them: they are one
    tensor with several readers, as long as they are equal bit for bit. A batch norm is a layer of
    `scale` and `shift` [C], which its four tensors were multiplied into. What no output depends on
    has no readers. Raises SourceError for a dtype that TensorRT does not give back.
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
        constant = layer.type.name == "CONSTANT"
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
                if layer.type.name in QUANTISING and layer.num_inputs > ZERO_POINT
            },
        )

    def of_input(self, layer: Any, place: int, otherwise: str) -> str:
        """The name of what the node takes there that a layer was made of."""
        made_of = MADE_OF.search(layer.metadata)
        inputs = self.inputs.get(made_of[1], ()) if made_of else ()
        return inputs[place] if place < len(inputs) else f"{layer.name}.{otherwise}"


def _weights(layer: Any, names: _Names) -> Iterator[tuple[str, np.ndarray]]:
    """The weights that a layer has, in the shape of the ONNX file."""
    kind = layer.type.name
    if kind == "CONSTANT":
        array = _array(layer.weights, layer).reshape(tuple(layer.shape))
        if layer.get_output(0).name in names.zero_points:
            array = array.astype(np.int8)  # TensorRT has them in float32
        elif layer.name not in names.constants and array.dtype == np.int32:
            array = array.astype(np.int64)  # a shape or an axis of the parser's own
        yield layer.name, array
    elif kind == "SCALE":
        parts = {"scale": layer.scale, "shift": layer.shift, "power": layer.power}
        for (part, held), place in zip(parts.items(), (1, 2, 1), strict=True):
            array = _array(held, layer)
            if array.size:
                yield f"{names.of_input(layer, place, 'weights')}.{part}", array
    elif kind in ("CONVOLUTION", "DECONVOLUTION"):
        kernel, bias = (_array(held, layer) for held in (layer.kernel, layer.bias))
        if kernel.size:  # none where it comes as an input
            shape = _kernel_shape(layer, kernel.size)
            yield names.of_input(layer, 1, "kernel"), kernel.reshape(shape)
        if bias.size:
            yield names.of_input(layer, 2, "bias"), bias


def _kernel_shape(layer: Any, size: int) -> tuple[int, ...]:
    """[O, I / groups, ...], of a deconvolution [I, O / groups, ...]."""
    window, maps = tuple(layer.kernel_size_nd), layer.num_output_maps
    if layer.type.name == "DECONVOLUTION":
        maps //= layer.num_groups
        return size // (maps * math.prod(window)), maps, *window
    return maps, size // (maps * math.prod(window)), *window


def _array(held: Any, layer: Any) -> np.ndarray:
    """A copy: the weights lie in the memory of the parser."""
    if held is None:
        return np.empty(0, np.float32)
    if not isinstance(held, np.ndarray):  # NumPy has no such dtype
        raise SourceError(
            f"The weights of layer {layer.name!r} are {held.dtype.name}, which TensorRT "
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
