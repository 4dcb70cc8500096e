"""Files that ask for unbounded memory or time: each ends in an error within its limits."""

from __future__ import annotations

import io
import json
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from toolkit.cli.main import main
from toolkit.core.memory import peak_rss_bytes, reset_peak, rss_bytes

MOST_BYTES = 1_000_000_000
HUGE = 10**12

Shape = list[int | str]


def save(path: Path, nodes: list[onnx.NodeProto], shape: Shape, **more: object) -> Path:
    """Write an ONNX file of the input `x` of shape [1, 4] and the output `y`, float32."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        more.pop("initializer", []),
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10, **more), path)
    return path


def exponential_functions(place: Path) -> Path:
    """Thirty functions, each of which calls the one before it twice."""
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    functions = [
        helper.make_function(
            "own", "f0", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], opsets
        )
    ]
    for number in range(1, 30):
        called = f"f{number - 1}"
        calls = [
            helper.make_node(called, ["a"], ["m"], domain="own"),
            helper.make_node(called, ["m"], ["b"], domain="own"),
        ]
        functions.append(helper.make_function("own", f"f{number}", ["a"], ["b"], calls, opsets))
    node = helper.make_node("f29", ["x"], ["y"], domain="own")
    return save(place / "functions.onnx", [node], [1, 4], functions=functions)


def exponential_shapes(place: Path) -> Path:
    """A shape that is joined to itself forty times, whose elements shape inference follows."""
    nodes = [helper.make_node("Shape", ["x"], ["s0"])]
    nodes += [
        helper.make_node("Concat", [f"s{i}", f"s{i}"], [f"s{i + 1}"], axis=0) for i in range(40)
    ]
    nodes += [helper.make_node("Expand", ["x", "s40"], ["y"])]
    return save(place / "shapes.onnx", nodes, ["n"])


def huge_constant(place: Path) -> Path:
    shape = numpy_helper.from_array(np.array([HUGE]), "shape")
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["huge"]),
        helper.make_node("ReduceSum", ["huge"], ["sum"]),
        helper.make_node("Add", ["x", "sum"], ["y"]),
    ]
    return save(place / "constant.onnx", nodes, [1, 4], initializer=[shape])


def huge_expand(place: Path) -> Path:
    shape = numpy_helper.from_array(np.array([HUGE, 1, 4]), "shape")
    nodes = [
        helper.make_node("Expand", ["x", "shape"], ["huge"]),
        helper.make_node("ReduceSum", ["huge"], ["sum"]),
        helper.make_node("Add", ["x", "sum"], ["y"]),
    ]
    return save(place / "expand.onnx", nodes, [1, 4], initializer=[shape])


def program() -> bytes:
    """Return an exported program of one linear layer."""
    stream = io.BytesIO()
    layer = torch.nn.Linear(4, 4)
    torch.export.save(torch.export.export(layer, (torch.zeros(1, 4),)), stream)
    return stream.getvalue()


def altered(content: bytes, change: Callable[[str, bytes], bytes]) -> bytes:
    """Return a zip archive with the content of each entry changed."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(stream, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return stream.getvalue()


def huge_record(place: Path) -> Path:
    """A program whose weight claims 10^12 elements, and has no bytes."""

    def change(name: str, content: bytes) -> bytes:
        if name.endswith("model_weights_config.json"):
            document = json.loads(content)
            weight = document["config"]["weight"]
            weight["tensor_meta"]["sizes"] = [{"as_int": HUGE}, {"as_int": 1}]
            weight["tensor_meta"]["strides"] = [{"as_int": 1}, {"as_int": 1}]
            return json.dumps(document).encode()
        return b"" if "weight_" in name else content

    path = place / "record.pt2"
    path.write_bytes(altered(program(), change))
    return path


def huge_extent(place: Path) -> Path:
    """A program with an extent that no machine can compute."""

    def change(name: str, content: bytes) -> bytes:
        if not name.endswith("models/model.json"):
            return content
        document = json.loads(content)
        tensors = document["graph_module"]["graph"]["tensor_values"]
        for tensor in tensors.values():
            tensor["sizes"] = [{"as_expr": {"expr_str": "9**9**9**9", "hint": {"as_int": 1}}}]
        return json.dumps(document).encode()

    path = place / "extent.pt2"
    path.write_bytes(altered(program(), change))
    return path


def program_bomb(place: Path) -> Path:
    path = place / "bomb.pt2"
    path.write_bytes(program())
    _add_zeros(path, "model/data/weights/weight_9")
    return path


def keras_bomb(place: Path) -> Path:
    path = place / "bomb.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.0.0"}))
        archive.writestr("config.json", json.dumps({"class_name": "Sequential", "config": {}}))
    _add_zeros(path, "model.weights.h5")
    return path


def _add_zeros(path: Path, name: str) -> None:
    """Add an entry of 256 MB that takes 256 kB in the archive."""
    zeros = bytes(1 << 20)
    with (
        zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive,
        archive.open(name, "w") as entry,
    ):
        for _ in range(256):
            entry.write(zeros)


Command = Callable[..., tuple[int, str]]


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Command:
    """The command line in this process: gives the exit code, and what it said of an error."""
    monkeypatch.chdir(tmp_path)

    def run(*args: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["toolkit", *map(str, args)])
        reset_peak()
        held = rss_bytes() or 0
        with pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr().err
        assert "Traceback" not in said
        assert "Nobody foresaw" not in said
        assert peak_rss_bytes() - held < MOST_BYTES // 10
        return int(end.value.code or 0), said

    return run


@pytest.mark.parametrize("make", [huge_record, huge_extent, program_bomb, keras_bomb])
def test_a_file_that_claims_too_much_is_refused(
    make: Callable[[Path], Path], tmp_path: Path, command: Command
) -> None:
    path = make(tmp_path)
    code, said = command("inspect", path)
    assert code in (2, 3), said
    assert str(path) in said


@pytest.mark.parametrize("make", [huge_constant, huge_expand])
def test_a_tensor_that_is_computed_is_not_allocated(
    make: Callable[[Path], Path], tmp_path: Path, command: Command
) -> None:
    code, said = command("inspect", make(tmp_path))
    assert code == 0, said


def test_shapes_that_grow_exponentially_reach_the_limit_of_memory(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toolkit.core.limits.MEMORY_BYTES", 200 << 20)
    path = exponential_shapes(tmp_path)
    code, said = command("inspect", path)
    assert code == 3
    assert f"{path} could not be read within the limit of memory" in said
    assert "0.2 GB of memory" in said


@pytest.mark.parametrize(
    "args",
    [
        ("inspect", "functions.onnx"),
        ("parity", "weights", "functions.onnx", "functions.onnx"),
        ("export", "functions.onnx", "--to", "onnx", "--passes", "simplify", "--out", "art"),
        ("bench", "functions.onnx", "--runtime", "onnxruntime"),
    ],
    ids=" ".join,
)
def test_functions_that_grow_exponentially_end_at_the_timeout(
    args: tuple[str, ...], tmp_path: Path, command: Command
) -> None:
    exponential_functions(tmp_path)
    code, said = command(*args, "--timeout", 2)
    assert code == 3
    assert "functions.onnx could not be" in said
    assert " in time. Allowed were 2 s" in said
    assert {place.name for place in tmp_path.iterdir()} <= {"functions.onnx", "results"}
