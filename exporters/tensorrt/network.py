"""Network that TensorRT's parser makes of an ONNX file, and the weights in it.

A built engine does not return its weights, and cannot be inspected without a GPU. The network that
it is built from can be. The Python module of TensorRT is passed in: TensorRT 10 and 11 and
TensorRT-RTX have the same names for everything used here.
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
from exporters.onnx.reader import constant_names, node_inputs
from exporters.proof.matching import tensor_digest
from toolkit.core.engines import log_of
from toolkit.core.errors import SourceError, UnavailableError
from toolkit.core.nvidia import NO_DRIVER

ZERO_POINT = 2  # its index among the inputs of these layers
QUANTISING = frozenset({"QUANTIZE", "DEQUANTIZE"})
MADE_OF = re.compile(r"\[ONNX Layer: (.*)\]")  # the ONNX node, in the metadata of a layer


@final
@dataclass(frozen=True, kw_only=True)
class Library:
    """TensorRT or TensorRT-RTX: its Python module, its name, and its export target."""

    trt: Any
    name: str
    target: str

    def __str__(self) -> str:
        return f"{self.name} {self.trt.__version__}"

    @property
    def log(self) -> Any:
        return log_of(self.trt)

    def weighted(self) -> Mapping[str, Any]:
        """Return the classes of layers that hold weights, by type. Others have them as inputs."""
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
    """Parsed network, and the objects that own the memory of its weights."""

    library: Library
    path: Path
    builder: Any
    parser: Any
    network: Any

    def layers(self) -> Iterator[Any]:
        """Yield each layer as an instance of the class that exposes its weights."""
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
    """Parse an ONNX file into a strongly typed network, whose tensors have the dtypes of the file.

    Raises SourceError, with the node and the parser's message, for a graph that it does not accept,
    and UnavailableError if the library cannot start without a GPU.
    """
    _check(path)
    trt, log = library.trt, library.log
    builder = _builder(library)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    parsed = parser.parse_from_file(str(path))
    errors = [_told(parser.get_error(number)) for number in range(parser.num_errors)]
    # For a file without a graph, the parser reports success and returns an empty network.
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
    except TypeError as error:  # raised by the bindings if the library returns no builder
        told = library.log.take()
        raise UnavailableError(f"{library} could not start: {told}.", hint=NO_DRIVER) from error


def _check(path: Path) -> None:
    """Raise SourceError for an invalid graph, since some invalid graphs crash the parser."""
    try:
        onnx.checker.check_model(str(path))
    except (OSError, RuntimeError, ValueError, onnx.checker.ValidationError) as error:
        told = str(error).strip().partition("\n")[0].rstrip(".")
        raise SourceError(
            f"{path} is not a valid ONNX model: {told}.",
            hint="Give a model that onnx.checker.check_model takes.",
        ) from error


def _told(error: Any) -> str:
    where = f"node {error.node_name()!r} ({error.node_operator()}): " if error.node_name() else ""
    return f"{where}{error.desc().rstrip('.')}"


def operators(parsed: Parsed) -> Mapping[str, int]:
    """Count the layers of the network by type, without constants."""
    types = (layer.type.name for layer in parsed.layers())
    return Counter(type for type in types if type != "CONSTANT")


def stored_tensors(parsed: Parsed) -> list[StoredTensor]:
    """Return every weight of the network, with its name in the ONNX file and its readers.

    The parser copies a kernel that several nodes read to one layer per node: the copies are
    returned as one tensor with several readers if they are equal bit for bit. A batch norm is a
    layer with `scale` and `shift` [C], computed from its four tensors. A weight that no output
    depends on has no readers. Raises SourceError for a dtype that TensorRT does not return.
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
                name = f"{name} in {layer.name}"  # another tensor with the same name
            before = found[name, digest].readers if (name, digest) in found else ()
            found[name, digest] = StoredTensor(name=name, array=array, readers=(*before, *read_by))
    return list(found.values())


@final
@dataclass(frozen=True, kw_only=True)
class _Names:
    """Names of node inputs and of constants in the ONNX file, and zero points of the network."""

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
        """Return the name of an input of the ONNX node that a layer was made from.

        Without such a node or input, the name is that of the layer followed by `otherwise`.
        """
        made_of = MADE_OF.search(layer.metadata)
        inputs = self.inputs.get(made_of[1], ()) if made_of else ()
        return inputs[place] if place < len(inputs) else f"{layer.name}.{otherwise}"


def _weights(layer: Any, names: _Names) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the weights of a layer with their names, in the shapes of the ONNX file."""
    kind = layer.type.name
    if kind == "CONSTANT":
        array = _array(layer.weights, layer).reshape(tuple(layer.shape))
        if layer.get_output(0).name in names.zero_points:
            array = array.astype(np.int8)  # TensorRT stores them in float32
        elif layer.name not in names.constants and array.dtype == np.int32:
            array = array.astype(np.int64)  # a shape or an axis that the parser added
        yield layer.name, array
    elif kind == "SCALE":
        parts = {"scale": layer.scale, "shift": layer.shift, "power": layer.power}
        for (part, held), place in zip(parts.items(), (1, 2, 1), strict=True):
            array = _array(held, layer)
            if array.size:
                yield f"{names.of_input(layer, place, 'weights')}.{part}", array
    elif kind in ("CONVOLUTION", "DECONVOLUTION"):
        kernel, bias = (_array(held, layer) for held in (layer.kernel, layer.bias))
        if kernel.size:  # empty if the kernel is an input
            shape = _kernel_shape(layer, kernel.size)
            yield names.of_input(layer, 1, "kernel"), kernel.reshape(shape)
        if bias.size:
            yield names.of_input(layer, 2, "bias"), bias


def _kernel_shape(layer: Any, size: int) -> tuple[int, ...]:
    """Return [O, I / groups, ...] for a convolution, [I, O / groups, ...] for a deconvolution."""
    window, maps = tuple(layer.kernel_size_nd), layer.num_output_maps
    if layer.type.name == "DECONVOLUTION":
        maps //= layer.num_groups
        return size // (maps * math.prod(window)), maps, *window
    return maps, size // (maps * math.prod(window)), *window


def _array(held: Any, layer: Any) -> np.ndarray:
    """Return a copy of weights, which are in the memory of the parser.

    Raises SourceError for a dtype that NumPy does not have.
    """
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
    """Return the indices of the layers that an output depends on.

    A layer without outputs controls other layers, so what it reads counts as an output.
    """
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
    """Return the names of the tensors that a layer reads; an optional one may be missing."""
    tensors = (layer.get_input(number) for number in range(layer.num_inputs))
    return [tensor.name for tensor in tensors if tensor is not None]


def _label(layer: Any) -> str:
    return f"{layer.name} ({layer.type.name})"
