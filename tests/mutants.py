"""Damaged and hostile ONNX files, made of a good one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

Change = Callable[[onnx.ModelProto, np.random.Generator], None]


def mutants(good: Path, count: int) -> Iterator[tuple[str, bytes]]:
    """So many files, the same at every call: a name that says what was done, and the content.

    A third are cut or have bytes flipped; the others have one thing in them that cannot be meant.
    """
    content = good.read_bytes()
    rng = np.random.default_rng(0)
    changes = list(CHANGES.items())
    for number in range(count):
        kind = number % 6
        if kind == 0:
            yield f"{number}-cut", content[: int(rng.integers(len(content)))]
        elif kind == 1:
            yield f"{number}-flipped", _flipped(content, rng)
        else:
            name, change = changes[int(rng.integers(len(changes)))]
            model = onnx.load_from_string(content)
            change(model, rng)
            yield f"{number}-{name}", model.SerializeToString()


def _flipped(content: bytes, rng: np.random.Generator) -> bytes:
    """Up to twenty bytes replaced, most of them in the graph rather than in the weights."""
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 20))):
        place = int(rng.integers(min(len(data), 4000) if rng.random() < 0.8 else len(data)))
        data[place] = int(rng.integers(256))
    return bytes(data)


def _tensor(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.TensorProto:
    return model.graph.initializer[int(rng.integers(len(model.graph.initializer)))]


def _node(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.NodeProto:
    nodes = [node for node in model.graph.node if node.input]
    return nodes[int(rng.integers(len(nodes)))]


def _huge_dims(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    _tensor(model, rng).dims[0] = int(rng.choice([2**31, 2**40, 2**62]))


def _negative_dims(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    _tensor(model, rng).dims[0] = -5


def _short_data(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    tensor = _tensor(model, rng)
    tensor.raw_data = tensor.raw_data[: len(tensor.raw_data) // 2]


def _wrong_type(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    _tensor(model, rng).data_type = int(rng.choice([0, TensorProto.STRING, 200]))


def _outside(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    tensor = _tensor(model, rng)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key = "location"
    entry.value = str(rng.choice(["../../etc/passwd", "/etc/passwd", "nowhere.bin", "", "."]))
    for key in ("offset", "length"):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, str(rng.choice(["0", "-1", str(2**60), "x"]))


def _cycle(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    _node(model, rng).input[0] = model.graph.node[-1].output[0]


def _itself(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    node = _node(model, rng)
    node.input[0] = node.output[0]


def _no_such_operator(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    _node(model, rng).op_type = "Frobnicate"


def _no_such_domain(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    _node(model, rng).domain = "nobody.example"


def _no_such_value(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    _node(model, rng).input[0] = "nothing"


def _absurd_input(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    dim = model.graph.input[0].type.tensor_type.shape.dim[1]
    dim.dim_value = int(rng.choice([-1, 0, 2**31, 2**62]))


def _rank_zero(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    del model.graph.input[0].type.tensor_type.shape.dim[:]


def _no_outputs(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    del model.graph.output[:]


def _twice(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    model.graph.node.append(model.graph.node[0])


def _old_or_new(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    model.opset_import[0].version = int(rng.choice([0, 1, 999]))


def _no_opset(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    del model.opset_import[:]


def _attribute_of_another_type(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    node = next(node for node in model.graph.node if node.attribute)
    node.attribute[0].CopyFrom(helper.make_attribute(node.attribute[0].name, "text"))


def _deep(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    """Branches in branches, as deep as a parser follows."""
    inner = helper.make_graph([], "leaf", [], [])
    for depth in range(40):
        node = helper.make_node("If", ["c"], [f"y{depth}"], then_branch=inner, else_branch=inner)
        if inner.ByteSize() > 100_000:
            break
        inner = helper.make_graph([node], f"g{depth}", [], [])
    model.graph.node.extend(inner.node)


CHANGES: dict[str, Change] = {
    change.__name__.strip("_").replace("_", "-"): change
    for change in (
        _huge_dims, _negative_dims, _short_data, _wrong_type, _outside, _cycle, _itself,
        _no_such_operator, _no_such_domain, _no_such_value, _absurd_input, _rank_zero, _no_outputs,
        _twice, _old_or_new, _no_opset, _attribute_of_another_type, _deep,
    )
}  # fmt: skip
