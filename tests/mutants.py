"""Damaged and hostile model files, made of good ones, the same at every call.

A third of them are damaged as bytes: cut, flipped or spliced. In the others the file is taken apart
as its format is, something in it is exchanged or replaced, and it is put together again.
"""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import onnx
from onnx import TensorProto, helper

Change = Callable[[onnx.ModelProto, np.random.Generator], None]
Files = Mapping[str, bytes]
"""The content of a model's files by suffix; the first is the one that is opened."""


def mutants(good: Path, count: int, canary: Path) -> Iterator[tuple[str, Files]]:
    """Yield `count` mutants: a name that says what was done, and the files.

    Code that runs because a mutant was opened creates the file `canary`.
    """
    files = {good.suffix: good.read_bytes()}
    if good.suffix == ".xml":
        files[".bin"] = good.with_suffix(".bin").read_bytes()
    rng = np.random.default_rng(0)
    for number in range(count):
        if number % 3 == 0:
            change = list(BYTES.values())[number // 3 % len(BYTES)]
            suffix = list(files)[int(rng.integers(len(files)))]
            mutant: Files = {**files, suffix: change(files[suffix], rng)}
            name = change.__name__
        else:
            name, mutant = PARSED[good.suffix](files, rng, canary)
        yield f"{number}-{name.strip('_').replace('_', '-')}", mutant


def _cut(content: bytes, rng: np.random.Generator) -> bytes:
    return content[: int(rng.integers(len(content)))]


def _flipped(content: bytes, rng: np.random.Generator) -> bytes:
    """Up to twenty bytes replaced, most of them at the front rather than in the weights."""
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 20))):
        place = int(rng.integers(min(len(data), 4000) if rng.random() < 0.8 else len(data)))
        data[place] = int(rng.integers(256))
    return bytes(data)


def _spliced(content: bytes, rng: np.random.Generator) -> bytes:
    """A part of the file put into another place, over what is there or in between."""
    length = int(rng.integers(1, 200))
    start, place = (int(p) for p in rng.integers(max(1, len(content) - length), size=2))
    over = length if rng.random() < 0.5 else 0
    return content[:place] + content[start : start + length] + content[place + over :]


BYTES = {change.__name__: change for change in (_cut, _flipped, _spliced)}


def _onnx(files: Files, rng: np.random.Generator, canary: Path) -> tuple[str, Files]:
    name, change = list(CHANGES.items())[int(rng.integers(len(CHANGES)))]
    model = onnx.load_from_string(files[".onnx"])
    change(model, rng)
    return name, {".onnx": model.SerializeToString()}


def _archive(suffix: str) -> Callable[[Files, np.random.Generator, Path], tuple[str, Files]]:
    """Return the mutation of a zip archive: of its JSON, or of whole entries."""

    def mutate(files: Files, rng: np.random.Generator, canary: Path) -> tuple[str, Files]:
        with zipfile.ZipFile(io.BytesIO(files[suffix])) as archive:
            entries = {name: archive.read(name) for name in archive.namelist()}
        names = [name for name, content in entries.items() if content]
        documents = [name for name in names if name.endswith(".json")]
        one, other = (names[int(i)] for i in rng.integers(len(names), size=2))
        what = str(
            rng.choice(["leaf", "leaf", "leaf", "exchanged", "damaged", "pickle", "outside"])
        )
        if what == "leaf":
            chosen = documents[int(rng.integers(len(documents)))]
            document = json.loads(entries[chosen])
            _replace_leaf(document, rng, canary)
            entries[chosen] = json.dumps(document).encode()
        elif what == "exchanged":
            entries[one], entries[other] = entries[other], entries[one]
        elif what == "damaged":
            entries[one] = list(BYTES.values())[int(rng.integers(len(BYTES)))](entries[one], rng)
        elif what == "pickle":
            entries[one] = pickle.dumps(_Touch(canary))
        else:
            entries[f"../{canary.name}"] = b"code"
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            for name, content in entries.items():
                archive.writestr(name, content)
        return f"{what}", {suffix: stream.getvalue()}

    return mutate


class _Touch:
    """An object whose pickle creates a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.path,)


def _replace_leaf(document: Any, rng: np.random.Generator, canary: Path) -> None:
    """Put an odd value, or that of another leaf, into the place of a leaf of a JSON document."""
    leaves: list[tuple[Any, Any]] = []
    todo = [document]
    while todo:
        value = todo.pop()
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in list(pairs):
            if isinstance(inner, dict | list) and inner:
                todo.append(inner)
            else:
                leaves.append((value, key))
    owner, key = leaves[int(rng.integers(len(leaves)))]
    source, its = leaves[int(rng.integers(len(leaves)))]
    odd: list[Any] = [
        None, True, -1, 2**31, 2**62, 1e308, "", [], {}, "../../etc/passwd",
        f"__import__('pathlib').Path({str(canary)!r}).touch()", "9**9**9**9", "os.system",
    ]  # fmt: skip
    owner[key] = source[its] if rng.random() < 0.4 else odd[int(rng.integers(len(odd)))]


def _litert(files: Files, rng: np.random.Generator, canary: Path) -> tuple[str, Files]:
    """A number in a table of the FlatBuffer replaced, or that of another table in its place."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(files[".tflite"], 0))
    graph = model.subgraphs[0]
    tables = [*graph.tensors, *graph.operators, *model.operatorCodes, graph]
    table = tables[int(rng.integers(len(tables)))]
    fields = [
        name
        for name, value in vars(table).items()
        if (isinstance(value, int | np.integer) and not isinstance(value, bool))
        or (isinstance(value, np.ndarray) and value.size)
    ]
    name = fields[int(rng.integers(len(fields)))]
    value = getattr(table, name)
    if isinstance(value, np.ndarray):
        changed = value.copy()
        changed[int(rng.integers(len(value)))] = int(rng.choice([-1, 0, 2**20, 2**31 - 1]))
        setattr(table, name, changed)
    else:
        setattr(table, name, int(rng.choice([0, 1, 2, 3, 100, 127])))
    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), b"TFL3")
    return name, {".tflite": bytes(builder.Output())}


def _openvino(files: Files, rng: np.random.Generator, canary: Path) -> tuple[str, Files]:
    """An attribute or text of an element replaced, or exchanged with that of another."""
    root = ElementTree.fromstring(files[".xml"])
    elements = [
        element for element in root.iter() if element.attrib or (element.text or "").strip()
    ]
    one, other = (elements[int(i)] for i in rng.integers(len(elements), size=2))
    odd = [
        "",
        "-1",
        "0",
        "4294967296",
        "9223372036854775807",
        "nothing",
        "f64",
        "boolean",
        str(canary),
    ]
    if not one.attrib:
        one.text = str(rng.choice(odd))
        name = one.tag
    else:
        name = str(rng.choice(list(one.attrib)))
        exchanged = rng.random() < 0.5 and name in other.attrib
        one.attrib[name] = other.attrib[name] if exchanged else str(rng.choice(odd))
    return name, {".xml": ElementTree.tostring(root), ".bin": files[".bin"]}


PARSED: dict[str, Callable[[Files, np.random.Generator, Path], tuple[str, Files]]] = {
    ".onnx": _onnx,
    ".pt2": _archive(".pt2"),
    ".keras": _archive(".keras"),
    ".tflite": _litert,
    ".xml": _openvino,
}


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
