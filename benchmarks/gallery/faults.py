"""Wrong variants of an ONNX graph: each with one change that makes it another model."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

import toolkit
from toolkit.core.artifact import Artifact
from toolkit.core.errors import ToolkitError
from toolkit.exporting import check_outputs
from toolkit.exporting.float64_oracle import Expected
from toolkit.sources.inputs import InputRequest

WEIGHT = 16  # elements of a tensor from which on it counts as a weight
Graph = onnx.GraphProto
Change = Callable[[Graph, np.random.Generator], str | None]


def faults(model: onnx.ModelProto, seed: int = 0) -> Iterator[tuple[str, onnx.ModelProto]]:
    """Yield each change that the graph allows, in words, and the graph with it."""
    for change in CHANGES:
        wrong = onnx.ModelProto()
        wrong.CopyFrom(model)
        told = change(wrong.graph, np.random.default_rng(seed))
        if told is not None:
            yield told, wrong


@contextlib.contextmanager
def one_reference() -> Iterator[None]:
    """Let the reference and the oracle run once for all variants that get the same inputs."""
    run, known = check_outputs.expected_of, dict[object, Expected]()

    def shared(forms: Sequence[Artifact], sets: Any, worker: Any = None) -> Expected:
        digest = hashlib.sha256()
        for feeds in (one for several in sets for one in several):
            for name, array in feeds.items():
                digest.update(f"{name} {array.dtype} {array.shape}".encode())
                digest.update(array.tobytes())
        key = (*(form.digest for form in forms), digest.digest())
        if key not in known:
            known[key] = run(forms, sets, worker)
        return known[key]

    check_outputs.expected_of = shared
    try:
        yield
    finally:
        check_outputs.expected_of = run


def refused_by(source: Path, other: Path, request: InputRequest | None = None) -> str:
    """The proof by which a graph is not the model of `source`, empty if both take it."""
    try:
        weights = toolkit.parity_weights(source, other).weights
        if not weights.passed:
            return "weights"
        found = toolkit.parity_outputs(source, other, runtime="onnxruntime", inputs=request).outputs
        return "" if found.passed else "outputs"
    except ToolkitError as error:
        return f"{type(error).__name__}: {error.problem[:200]}"


def one_bit(graph: Graph, rng: np.random.Generator) -> str | None:
    """The last bit of one element of a weight."""
    weights = _weights(graph)
    if not weights:
        return None
    tensor = weights[rng.integers(len(weights))]
    array = numpy_helper.to_array(tensor).copy()
    place = int(rng.integers(array.size))
    array.reshape(-1).view(f"u{array.itemsize}")[place] ^= 1
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return f"one bit of {tensor.name}"


def swapped(graph: Graph, rng: np.random.Generator) -> str | None:
    """The values of two weights of one shape."""
    weights = _weights(graph)
    pairs = [
        (a, b)
        for i, a in enumerate(weights)
        for b in weights[i + 1 :]
        if list(a.dims) == list(b.dims) and a.data_type == b.data_type
        and not np.allclose(numpy_helper.to_array(a), numpy_helper.to_array(b))
    ]  # fmt: skip
    if not pairs:
        return None
    a, b = pairs[rng.integers(len(pairs))]
    first, second = numpy_helper.to_array(a).copy(), numpy_helper.to_array(b).copy()
    a.CopyFrom(numpy_helper.from_array(second, a.name))
    b.CopyFrom(numpy_helper.from_array(first, b.name))
    return f"{a.name} and {b.name} swapped"


def shifted(graph: Graph, rng: np.random.Generator) -> str | None:
    """A vector, such as the beta of a norm, plus 0.5."""
    vectors = [tensor for tensor in _weights(graph) if len(tensor.dims) == 1]
    if not vectors:
        return None
    tensor = vectors[rng.integers(len(vectors))]
    array = numpy_helper.to_array(tensor) + np.float32(0.5)
    tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float32), tensor.name))
    return f"{tensor.name} plus 0.5"


def epsilon(graph: Graph, rng: np.random.Generator) -> str | None:
    """The epsilon of all norms: a thousand times as large, and 0.01 at the least, since float32
    does not tell 1e-12 from 1e-9."""
    found = [
        attribute
        for node in graph.node
        for attribute in node.attribute
        if attribute.name == "epsilon"
    ]
    for attribute in found:
        attribute.f = max(attribute.f * 1000, 0.01)
    return f"epsilon of {len(found)} norms enlarged" if found else None


def attribute(graph: Graph, rng: np.random.Generator) -> str | None:
    """An attribute that shapes do not depend on: an axis of a Softmax, a slope, a mode, pads."""
    nodes = list(graph.node)
    for place in rng.permutation(len(nodes)):
        node = nodes[place]
        name = node.name or node.output[0]
        for each in node.attribute:
            if node.op_type == "Softmax" and each.name == "axis":
                each.i = 1 if each.i != 1 else 0
                return f"axis of {name}"
            if node.op_type in ("LeakyRelu", "Elu", "HardSigmoid") and each.name == "alpha":
                each.f *= 1.5
                return f"alpha of {name}"
            if node.op_type == "Resize" and each.name == "coordinate_transformation_mode":
                each.s = b"asymmetric" if each.s != b"asymmetric" else b"half_pixel"
                return f"coordinates of {name}"
            if node.op_type in ("Conv", "MaxPool", "AveragePool") and each.name == "pads":
                half = len(each.ints) // 2
                before, after = list(each.ints[:half]), list(each.ints[half:])
                if before[-1] > 0:
                    before[-1], after[-1] = before[-1] - 1, after[-1] + 1
                    del each.ints[:]
                    each.ints.extend([*before, *after])
                    return f"pads of {name} moved by one"
    return None


def scale(graph: Graph, rng: np.random.Generator) -> str | None:
    """A scalar constant that multiplies or divides, 1 % larger."""
    read = {name for node in graph.node if node.op_type in ("Mul", "Div") for name in node.input}
    tensors = {tensor.name: tensor for tensor in graph.initializer if tensor.name in read}
    for node in graph.node:
        if node.op_type == "Constant" and node.output[0] in read:
            tensors.update(
                (node.output[0], each.t) for each in node.attribute if each.HasField("t")
            )
    scalars = [
        (name, tensor)
        for name, tensor in tensors.items()
        if tensor.data_type == onnx.TensorProto.FLOAT
        and np.prod(tensor.dims, dtype=int) == 1
        and numpy_helper.to_array(tensor).any()
    ]
    if not scalars:
        return None
    name, tensor = scalars[rng.integers(len(scalars))]
    larger = numpy_helper.to_array(tensor) * np.float32(1.01)
    tensor.CopyFrom(numpy_helper.from_array(larger.astype(np.float32), tensor.name))
    return f"scalar {name} times 1.01"


def transposed(graph: Graph, rng: np.random.Generator) -> str | None:
    """A Transpose left out."""
    places = [node for node in graph.node if node.op_type == "Transpose"]
    if not places:
        return None
    node = places[rng.integers(len(places))]
    node.op_type = "Identity"
    del node.attribute[:]
    return f"{node.name or node.output[0]} left out"


OTHER = {
    "Erf": "Tanh", "Tanh": "Erf", "Sigmoid": "HardSigmoid", "Gelu": "Mish", "Sin": "Cos",
    "Relu": "Elu", "Exp": "Softplus", "MaxPool": "", "LogSoftmax": "Softmax",
}  # fmt: skip


def replaced(graph: Graph, rng: np.random.Generator) -> str | None:
    """An operator by a similar one."""
    places = [node for node in graph.node if OTHER.get(node.op_type) and not node.domain]
    if not places:
        return None
    node = places[rng.integers(len(places))]
    old, node.op_type = node.op_type, OTHER[node.op_type]
    del node.attribute[:]
    return f"{node.name or node.output[0]}: {OTHER[old]} in place of {old}"


def dropped(graph: Graph, rng: np.random.Generator) -> str | None:
    """A residual addition: its second input is left out."""
    constants = {tensor.name for tensor in graph.initializer}
    computed = {name for node in graph.node for name in node.output}
    places = [
        node
        for node in graph.node
        if node.op_type == "Add" and set(node.input) <= computed and not set(node.input) & constants
    ]
    if not places:
        return None
    node = places[rng.integers(len(places))]
    node.op_type = "Identity"
    left = node.input[1]
    del node.input[1]
    return f"{node.name or node.output[0]} without {left}"


CHANGES: tuple[Change, ...] = (
    one_bit, swapped, shifted, epsilon, attribute, scale, replaced, dropped, transposed
)  # fmt: skip


def _weights(graph: Graph) -> list[onnx.TensorProto]:
    """Tensors of float32 that live nodes read."""
    read = {name for node in graph.node for name in node.input}
    return [
        tensor
        for tensor in graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT
        and np.prod(tensor.dims, dtype=int) >= WEIGHT
        and tensor.name in read
    ]
