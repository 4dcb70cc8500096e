"""Models that are not files: user code, beside modules with the names of ours, and families."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import Run

MODELS = """
import torch

WIDTH = 8


class Block(torch.nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = torch.nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = torch.nn.BatchNorm2d(channels)

    def forward(self, x):
        return torch.relu(self.norm(self.conv(x)) + x)
"""
NET = '''
import dataclasses, os, sys
import torch
from models import WIDTH, Block

print("a word on standard output")


class Net(torch.nn.Module):
    """Two inputs, one of them whole numbers, a number by keyword, and nested outputs."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem = torch.nn.Conv2d(3, WIDTH, 3)
        self.kinds = torch.nn.Embedding(10, WIDTH)
        self.block = Block(WIDTH)
        self.head = torch.nn.Linear(WIDTH, 5)

    def forward(self, image, kind=None, *, scale=1.0):
        x = self.block(self.stem(image)).mean((2, 3))
        if kind is not None:
            x = x + self.kinds(kind)
        return {"logits": self.head(x) * scale, "parts": (x, image), "again": x}


def example():
    return (torch.randn(1, 3, 16, 20),), {"kind": torch.tensor([1]), "scale": 2.0}


def with_inputs():
    return Net(), example()


class Clash(torch.nn.Module):
    """What it takes, gives and holds bear the same names."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(4))
        self.output = torch.nn.Parameter(torch.randn(4))

    def forward(self, weight):
        return {"weight": weight * self.weight + self.output}


class Branch(torch.nn.Module):
    def forward(self, x):
        return x + 1 if x.sum() > 0 else x - 1


class Nothing(torch.nn.Module):
    def forward(self, x):
        return 3


def keras_net():
    import keras

    keras.utils.set_random_seed(0)
    x = keras.Input((12, 12, 3), name="picture")
    y = keras.layers.Conv2D(4, 3, name="conv")(x)
    y = keras.layers.BatchNormalization(name="norm")(y)
    y = keras.layers.Flatten()(y)
    return keras.Model(x, keras.layers.Dense(3, name="head")(y))


class Causal(torch.nn.Module):
    """A layer of a language model: distances that are computed, frequencies that are not saved, and
    a mask under which the first token must not be masked, since it sees no other."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.table = torch.nn.Embedding(20, 8)
        self.head = torch.nn.Linear(8, 20)
        self.register_buffer("frequencies", torch.rand(4) + 0.5, persistent=False)

    def forward(self, ids, keep):
        x = self.table(ids)
        places = torch.arange(6)
        distances = (places[:, None] - places[None, :]).float()
        x = x + torch.cat([places[:, None] * self.frequencies] * 2, -1).sin()
        seen = (distances >= 0) & keep[:, None, :].bool()
        scores = x @ x.transpose(1, 2) - 0.1 * distances.log1p().nan_to_num(0.0).abs()
        return self.head(torch.softmax(scores.masked_fill(~seen, -torch.inf), -1) @ x)


def causal():
    ids = torch.randint(0, 20, (2, 12))[:, :6]
    return Causal(), {"ids": ids, "keep": torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]])}


class Limited(torch.nn.Module):
    """A program that is captured of it is for fewer than 64 rows."""

    def __init__(self):
        super().__init__()
        self.head = torch.nn.Linear(4, 3)

    def forward(self, x):
        return self.head(x.contiguous() if x.shape[0] >= 64 else x)


@dataclasses.dataclass
class Found:
    logits: torch.Tensor
    note: str
    hidden: tuple


class Graph(torch.nn.Module):
    """Each edge adds the row that it starts from to the one that it ends in; a dataclass."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.head = torch.nn.Linear(4, 3)
        self.unread = torch.nn.Linear(4, 1)  # whose bias has one element

    def forward(self, x, edges):
        h = torch.zeros_like(x).index_add(0, edges[1], x[edges[0]])
        return Found(logits=self.head(h), note="no tensor", hidden=(h, None))


def graph():
    return Graph(), {"x": torch.randn(5, 4), "edges": torch.tensor([[0, 1, 4], [1, 3, 2]])}


def stops():
    sys.exit(3)


def dies():
    os._exit(9)
'''
ONE = ("--input", "image=2x3x16x20")
QUICK = ("--warmup", 1, "--runs", 11, "--scope", "forward", "--json")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "models.py").write_text(MODELS)
    (tmp_path / "net.py").write_text(NET)
    return tmp_path


def test_one_command_exports_proves_and_measures(toolkit_cli: Run, place: Path) -> None:
    runtimes = "torch,onnxruntime,openvino"
    done = toolkit_cli(
        "bench", "net.py:Net", *ONE, "--to", "onnx,openvino", "--runtime", runtimes, *QUICK
    )
    assert done.returncode == 0, done.stderr
    assert "kinds.weight is not read with these inputs" in done.stderr
    shown = json.loads(done.stdout)
    assert {row["runtime"]: row["status"] for row in shown["rows"]} == dict.fromkeys(
        runtimes.split(","), "ok"
    )
    assert shown["plan"]["artifact"] == "net.py:Net"
    assert [export["target"] for export in shown["plan"]["exports"]] == ["onnx", "openvino"]
    for export in shown["plan"]["exports"]:
        assert export["weights"]["counts"] == {"identical": 10}
        assert export["outputs"]["oracle"] == "torch in float64"
        assert export["outputs"]["passed"]
    assert sorted(path.name for path in place.iterdir() if path.name != "__pycache__") == [
        "models.py", "net.py", "results",
    ]  # fmt: skip


def test_arguments_by_name_nested_outputs_and_axes_that_vary(toolkit_cli: Run, place: Path) -> None:
    done = toolkit_cli(
        "export", "net.py:Net", "--example", "net.py:example",
        "--dynamic", "image:0=batch,2=height,3=width", "--dynamic", "kind:0=batch",
        "--to", "onnx", "--out", "art", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["weights"]["counts"] == {"identical": 11}
    shown = json.loads(toolkit_cli("inspect", "art", "--json").stdout)
    assert "No extent" in " ".join(shown["warnings"])
    inputs, outputs = (
        {spec["name"]: (spec["dtype"], spec["shape"]) for spec in shown["signature"][side]}
        for side in ("inputs", "outputs")
    )
    assert inputs == {
        "image": ("float32", ["batch", 3, "height", "width"]), "kind": ("int64", ["batch"])
    }  # fmt: skip
    assert list(outputs) == ["logits", "parts.0", "parts.1", "again"]
    assert outputs["parts.1"] == inputs["image"]
    # Without its code, at other extents, and compared with its source.
    for name in ("net.py", "models.py"):
        (place / name).unlink()
    done = toolkit_cli(
        "bench", "art", "--runtime", "torch,onnxruntime", "--dim", "height=9", "--dim", "width=31",
        "--batch", 3, *QUICK,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert {row["status"] for row in json.loads(done.stdout)["rows"]} == {"ok"}
    done = toolkit_cli("parity", "weights", "art/source", "art")
    assert done.returncode == 0, done.stdout


def test_a_callable_may_give_the_model_and_its_inputs(toolkit_cli: Run, place: Path) -> None:
    done = toolkit_cli("export", "net.py:with_inputs", "--to", "onnx", "--out", "art", "--json")
    assert done.returncode == 0, done.stderr
    shown = json.loads(toolkit_cli("inspect", "art", "--json").stdout)
    shapes = [spec["shape"] for spec in shown["signature"]["inputs"]]
    assert shapes == [["batch", 3, 16, 20], ["batch"]]


def test_masks_are_those_of_the_example(toolkit_cli: Run, place: Path) -> None:
    done = toolkit_cli("export", "net.py:causal", "--to", "onnx", "--out", "art", "--json")
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert shown["weights"]["total"] == 4
    assert all(case["conclusive"] for case in shown["outputs"]["cases"])
    done = toolkit_cli("bench", "net.py:causal", "--runtime", "onnxruntime,torch", *QUICK)
    assert {row["status"] for row in json.loads(done.stdout)["rows"]} == {"ok"}, done.stderr


def test_a_batch_that_the_program_does_not_take_is_left_out(toolkit_cli: Run, place: Path) -> None:
    done = toolkit_cli(
        "export", "net.py:Limited", "--input", "x=2x4", "--to", "onnx", "--out", "art", "--json"
    )
    assert done.returncode == 0, done.stderr
    assert {case["batch"] for case in json.loads(done.stdout)["outputs"]["cases"]} == {1, 3}
    assert "does not run on random values, seed 0 at batch 64" in done.stderr


def test_rows_that_belong_together_are_no_batch(toolkit_cli: Run, place: Path) -> None:
    """The edges of a graph are indices of its rows."""
    done = toolkit_cli("export", "net.py:graph", "--to", "onnx", "--out", "art", "--json")
    assert done.returncode == 0, done.stderr
    signature = json.loads(toolkit_cli("inspect", "art", "--json").stdout)["signature"]
    assert [spec["shape"] for spec in signature["inputs"]] == [[5, 4], [2, 3]]
    assert [spec["name"] for spec in signature["outputs"]] == ["logits", "hidden.0"]


def test_rows_of_a_file_are_an_example(toolkit_cli: Run, place: Path) -> None:
    import numpy as np

    np.savez(place / "rows.npz", weight=np.ones((7, 4), np.float32))
    done = toolkit_cli(
        "export", "net.py:Clash", "--inputs", "rows.npz", "--to", "onnx", "--out", "art", "--json"
    )
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert shown["weights"]["counts"] == {"identical": 2}
    assert {case["inputs"] for case in shown["outputs"]["cases"]} == {
        "rows of rows.npz",
        "rows of rows.npz, the graph in float64",
    }
    signature = json.loads(toolkit_cli("inspect", "art", "--json").stdout)["signature"]
    assert signature["inputs"][0]["shape"] == ["batch", 4]
    assert signature["outputs"][0]["name"] == "output.weight"


@pytest.mark.parametrize("target", ["savedmodel", "onnx"])
def test_keras_code(toolkit_cli: Run, place: Path, target: str) -> None:
    """Not trained yet: its biases are zeros, whose addition a converter leaves out."""
    done = toolkit_cli("export", "net.py:keras_net", "--to", target, "--out", "art", "--json")
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert shown["weights"]["explained"] == shown["weights"]["total"] == 8
    done = toolkit_cli("bench", "art", "--runtime", "tensorflow", *QUICK)
    assert done.returncode == 0, done.stderr


def test_a_family_by_its_name(toolkit_cli: Run) -> None:
    done = toolkit_cli("bench", "lenet", "--runtime", "torch,onnxruntime", *QUICK)
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert {row["status"] for row in shown["rows"]} == {"ok"}
    assert shown["plan"]["exports"][0]["weights"]["counts"] == {"identical": 10}
    assert "fresh weights" in " ".join(shown["warnings"])


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("net.py:Net",), "missing a required argument: 'image'"),
        (("net.py:Net", "--input", "pic=2x3x16x16"), "forward takes: image, kind, scale"),
        (("net.py:Net", "--input", "image=2x4x16x16"), "to have 3 channels, but got 4"),
        (("net.py:Net", "--input", "image=2x3x2x2"), "fails on the inputs of image"),
        (("net.py:Net", "--input", "image=2x3x16x16,int64"), "fails on the inputs of image"),
        (("net.py:Net", *ONE, "--dynamic", "image:4=depth"), "axis 4 of input 'image'"),
        (("net.py:Net", *ONE, "--dynamic", "img:0=batch"), "Did you mean 'image'?"),
        (("net.py:Net", *ONE, "--dynamic", "image"), "expected axes by place"),
        (("net.py:Net", *ONE, "--dynamic", "image:1=channels"), "takes 3 alone"),
        (("net.py:Ned",), "Did you mean 'Net'?"),
        (("nett.py:Net",), "Did you mean net.py?"),
        (("no.such.module:Net",), "There is no module 'no.such.module'"),
        (
            ("net.py:example",),
            "gave a tuple, expected a torch module, a Keras model, or a tuple of a",
        ),
        (("net.py:Branch", "--input", "x=2x2"), "could not export net.py:Branch"),
        (("net.py:Nothing", "--input", "x=2x2"), "without any tensor in it"),
        (("net.py:stops",), "SystemExit: 3"),
        (("net.py:dies",), "exit code 9"),
        (("lenet", "--example", "net.py:example"), "says itself what it takes"),
        (("lenett",), "lenett does not exist"),
    ],
)
def test_what_is_wrong_is_said(
    toolkit_cli: Run, place: Path, args: tuple[str, ...], says: str
) -> None:
    done = toolkit_cli("export", *args, "--to", "onnx", "--out", "art")
    assert done.returncode in (1, 2), done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert not (place / "art").exists()
    assert not list(place.glob(".art*"))


def test_only_export_and_bench_run_code(toolkit_cli: Run, place: Path) -> None:
    done = toolkit_cli("inspect", "net.py:Net")
    assert done.returncode == 2
    assert "is not a file" in done.stderr
    assert "export it first" in done.stderr


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("--scope", "forwards"), "Did you mean 'forward'?"),
        (("--runtime", "onnxruntim"), "Did you mean 'onnxruntime'?"),
        (("--runtime", "torch", "--option", "openvino.NUM_STREAMS=2"), "runtime in this run"),
    ],
)
def test_wrong_use_costs_no_export(
    toolkit_cli: Run, place: Path, args: tuple[str, ...], says: str
) -> None:
    done = toolkit_cli("bench", "net.py:Net", *ONE, *args)
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
    assert "export 1/2" not in done.stderr
