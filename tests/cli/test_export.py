"""toolkit export and toolkit parity weights, from the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from tests import plugins
from tests.conftest import Run
from toolkit.core.nvidia import driver

TARGETS = ["torch-export", "aotinductor", "openvino"]
TARGETS_OF_ONNX = ["onnx", "openvino"]


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_is_proved_and_measured(
    toolkit_cli: Run, checkpoint_dir: Path, tmp_path: Path, target: str
) -> None:
    done = toolkit_cli("export", checkpoint_dir, "--to", target, "--out", "art", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["schema"] == "toolkit.export/3"
    assert document["weights"]["counts"] == {"identical": 10}
    outputs = document["outputs"]
    assert {case["batch"] for case in outputs["cases"]} == {1, 3, 64}
    assert outputs["runtime"] == target
    assert outputs["oracle"] == "torch in float64"
    done = toolkit_cli(
        "bench", "art", "--runtime", f"torch,{target}", "--warmup", 1, "--runs", 11, "--json"
    )
    assert done.returncode == 0, done.stderr
    for row in json.loads(done.stdout)["rows"]:
        assert row["status"] == "ok", row["reason"]
        assert row["parity"]["passed"]


def test_a_foreign_graph_becomes_openvino_s(
    toolkit_cli: Run, artifact_dir: Path, tmp_path: Path
) -> None:
    """Its reference, and the runtime that opens it, are found by where it came from."""
    shutil.copy(artifact_dir / "model.onnx", tmp_path / "theirs.onnx")
    done = toolkit_cli("export", "theirs.onnx", "--to", "openvino", "--out", "ir", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["outputs"]["reference"] == "onnxruntime"
    done = toolkit_cli(
        "bench", "ir", "--runtime", "onnxruntime,openvino", "--warmup", 1, "--runs", 11, "--json"
    )
    assert done.returncode == 0, done.stderr
    assert [row["status"] for row in json.loads(done.stdout)["rows"]] == ["ok", "ok"]
    (tmp_path / "theirs.onnx").write_bytes(b"another")
    done = toolkit_cli("bench", "ir", "--runtime", "openvino")
    assert done.returncode in (2, 3)
    assert "theirs.onnx" in done.stderr


def test_an_engine_is_written_and_never_said_to_have_run(
    toolkit_cli: Run, artifact_dir: Path, checkpoint_dir: Path
) -> None:
    """There is no GPU: the outputs are those of the graph that it was built from."""
    args = ("--to", "tensorrt-rtx", "--compute-capability", 89)
    done = toolkit_cli("export", artifact_dir, *args, "--out", "e", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["weights"]["counts"] == {"identical": 10}
    outputs = document["outputs"]
    assert outputs["runtime"] == "onnxruntime"
    assert outputs["not_run"].startswith("the tensorrt-rtx form itself has not run")
    assert (
        json.loads((Path(document["artifact"]) / "parity.json").read_text())["outputs"] == outputs
    )
    shown = toolkit_cli("export", checkpoint_dir, *args, "--batches", "1,4,16", "--out", "e2")
    assert shown.returncode == 0, shown.stderr
    told = " ".join(shown.stdout.split())
    assert "the artifact itself has not run" in told
    assert "the outputs of the onnx form that it was made from" in told
    assert toolkit_cli("parity", "weights", checkpoint_dir, "e2").returncode == 0


def test_an_engine_is_measured_by_what_it_was_made_from(
    toolkit_cli: Run, artifact_dir: Path, tmp_path: Path
) -> None:
    shutil.copy(artifact_dir / "model.onnx", tmp_path / "theirs.onnx")
    done = toolkit_cli("export", "theirs.onnx", "--to", "tensorrt-rtx", "--out", "e")
    assert done.returncode == 0, done.stderr
    done = toolkit_cli("bench", "e", "--warmup", 1, "--runs", 11, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    rows = {row["runtime"]: row for row in document["rows"]}
    assert {name: row["status"] for name, row in rows.items()} == {
        "onnxruntime": "ok",
        "openvino": "ok",
    }
    assert any("itself is not run" in warning for warning in document["warnings"])
    (tmp_path / "theirs.onnx").unlink()
    for command in (("bench", "e"), ("parity", "outputs", "e", "e")):
        done = toolkit_cli(*command)
        assert done.returncode == 3, done.stderr
        assert "No runtime here opens" in done.stderr
        assert "theirs.onnx" in done.stderr


@pytest.mark.skipif(driver().reason is None, reason="there is a GPU")
def test_engines_are_compared_where_they_run(toolkit_cli: Run, artifact_dir: Path) -> None:
    done = toolkit_cli("export", artifact_dir, "--to", "tensorrt-rtx", "--out", "e")
    assert done.returncode == 0, done.stderr
    done = toolkit_cli("compare", "e", "e")
    assert done.returncode == 3, done.stderr
    assert "tensorrt-rtx cannot be used here" in done.stdout


def test_passes_are_applied_after_the_proof(toolkit_cli: Run, artifact_dir: Path) -> None:
    done = toolkit_cli(
        "export", artifact_dir, "--to", "onnx", "--passes", "fold-batch-norm,simplify",
        "--out", "art", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["weights"]["passed"] is True
    manifest = json.loads((Path(json.loads(done.stdout)["artifact"]) / "manifest.json").read_text())
    assert [change["pass"] for change in manifest["options"]["passes"]] == [
        "fold-batch-norm",
        "simplify",
    ]
    kinds = [parent["kind"] for parent in manifest["parents"]]
    assert kinds == ["onnx", "checkpoint"]
    done = toolkit_cli("export", "art", "--to", "openvino", "--out", "ir")
    assert done.returncode == 0, done.stderr
    shown = json.loads(toolkit_cli("inspect", "ir", "--json").stdout)
    assert [change["pass"] for change in shown["passes"]] == ["fold-batch-norm", "simplify"]
    assert [parent["kind"] for parent in shown["parents"]] == ["onnx", "onnx", "checkpoint"]


@pytest.mark.parametrize("target", TARGETS_OF_ONNX)
def test_a_graph_in_float16_keeps_its_signature(
    toolkit_cli: Run, artifact_dir: Path, tmp_path: Path, target: str
) -> None:
    done = toolkit_cli(
        "export", artifact_dir, "--to", target, "--passes", "float16", "--out", "x", "--json"
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["weights"]["counts"] == {"identical": 10}
    assert {case["batch"] for case in document["outputs"]["cases"]} == {1, 3, 64}
    # Rounded, and no further off than that.
    assert all(1e-6 < case["relative"] < 1e-2 for case in document["outputs"]["cases"])
    before, after = (
        json.loads((place / "manifest.json").read_text())
        for place in (artifact_dir, tmp_path / "x")
    )
    assert (before["precision"], after["precision"]) == ("float32", "float16")
    assert before["signature"] == after["signature"]
    done = toolkit_cli("parity", "weights", artifact_dir, "x", "--json")
    assert json.loads(done.stdout)["counts"] == {"cast": 10}


def test_a_graph_in_bfloat16_is_for_openvino(toolkit_cli: Run, artifact_dir: Path) -> None:
    done = toolkit_cli(
        "export", artifact_dir, "--to", "openvino", "--passes", "bfloat16", "--out", "x", "--json"
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["weights"]["counts"] == {"identical": 10}
    assert json.loads(toolkit_cli("inspect", "x", "--json").stdout)["precision"] == "bfloat16"


@pytest.mark.parametrize("target", TARGETS_OF_ONNX)
def test_a_fixed_batch_is_the_only_one(
    toolkit_cli: Run, artifact_dir: Path, tmp_path: Path, target: str
) -> None:
    done = toolkit_cli(
        "export", artifact_dir, "--to", target, "--passes", "static-batch=4", "--out", "x", "--json"
    )
    assert done.returncode == 0, done.stderr
    assert {case["batch"] for case in json.loads(done.stdout)["outputs"]["cases"]} == {4}
    signature = json.loads((tmp_path / "x" / "manifest.json").read_text())["signature"]
    (given,), (got,) = signature["inputs"], signature["outputs"]
    assert (given["shape"], given["layout"]) == ([4, 3, 32, 32], "NCHW")
    assert (got["shape"], got["layout"]) == ([4, 10], "NC")
    bench = ("bench", "x", "--warmup", 1, "--runs", 11, "--json")
    done = toolkit_cli(*bench, "--runtime", "torch,openvino")
    assert done.returncode == 0, done.stderr
    assert {row["batch"] for row in json.loads(done.stdout)["rows"]} == {4}
    assert toolkit_cli(*bench, "--runtime", "openvino", "--batch", 8).returncode == 2


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("--to", "onnx", "--passes", "static-batch=0"), "expected a whole number, at least 1"),
        (("--to", "onnx", "--passes", "float16=2"), "float16 takes no number"),
        (("--to", "onnx", "--passes", "static-batsh=2"), "Did you mean 'static-batch'"),
        (("--to", "onxx"), "Did you mean 'onnx'"),
        (("--to", "onnx", "--passes", "fold-bn"), "fold-batch-norm"),
        (("--to", "torch-export", "--passes", "simplify"), "not made of an ONNX graph"),
        (("--to", "tensorrt-rtx", "--compute-capability", "88"), "Known: 75, 80, 86, 89, 120"),
        (("--to", "tensorrt-rtx", "--compute-capability", "8.9"), "expected whole numbers"),
        (("--to", "tensorrt-rtx", "--batches", "8,1"), "expected three"),
        (("--to", "onnx", "--compute-capability", "89"), "Got --compute-capability, which"),
    ],
)
def test_wrong_use(
    toolkit_cli: Run, checkpoint_dir: Path, tmp_path: Path, args: tuple[str, ...], told: str
) -> None:
    done = toolkit_cli("export", checkpoint_dir, *args, "--out", "art")
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_onnx_file_is_no_source_for_torch(
    toolkit_cli: Run, artifact_dir: Path, tmp_path: Path
) -> None:
    done = toolkit_cli("export", artifact_dir, "--to", "torch-export", "--out", "art")
    assert done.returncode == 2
    assert "No way leads from onnx to torch-export" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_weights_of_two_forms_are_compared(
    toolkit_cli: Run, checkpoint_dir: Path, artifact_dir: Path, tmp_path: Path
) -> None:
    done = toolkit_cli("parity", "weights", checkpoint_dir, artifact_dir, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["passed"], document["counts"]) == (True, {"identical": 10})
    model = onnx.load(artifact_dir / "model.onnx")
    weight = next(t for t in model.graph.initializer if t.name == "fc2.weight")
    array = numpy_helper.to_array(weight).copy()
    array.view(np.uint32)[3, 3] ^= 1
    weight.CopyFrom(numpy_helper.from_array(array, "fc2.weight"))
    onnx.save(model, tmp_path / "other.onnx")
    done = toolkit_cli("parity", "weights", checkpoint_dir, "other.onnx")
    assert done.returncode == 1
    assert "9 of 10 weights are explained: 9 identical, 1 altered." in done.stdout
    assert "fc2.weight" in done.stdout


def test_inspect_says_what_lies_in_each_form(
    toolkit_cli: Run, checkpoint_dir: Path, artifact_dir: Path
) -> None:
    done = toolkit_cli("inspect", artifact_dir, "--batch", 8, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["format"], found["precision"]) == ("onnx", "float32")
    assert (found["parameters"], found["tensors"]) == (62_006, 10)
    assert (found["operators"]["Conv"], found["operators"]["Gemm"]) == (2, 3)
    # By hand: convolutions at 28 x 28 and 10 x 10, then three products.
    products = 28 * 28 * 6 * 75 + 10 * 10 * 16 * 150 + 400 * 120 + 120 * 84 + 84 * 10
    assert found["work"]["matrix_operations"] == 8 * 2 * products
    assert [parent["kind"] for parent in found["parents"]] == ["checkpoint"]
    shown = toolkit_cli("inspect", checkpoint_dir)
    assert shown.returncode == 0, shown.stderr
    assert "62,006 in 10 tensors" in shown.stdout
    assert toolkit_cli("inspect", artifact_dir, "--dim", "tiem=3").returncode == 2


def test_outputs_that_never_vary_are_warned_of(toolkit_cli: Run, tmp_path: Path) -> None:
    """They would agree whatever else were wrong with the model."""
    kind = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Mul", ["x", "zeros"], ["y"])],
        "dead",
        [onnx.helper.make_tensor_value_info("x", kind, ["N", 3])],
        [onnx.helper.make_tensor_value_info("y", kind, ["N", 3])],
        [numpy_helper.from_array(np.zeros(3, np.float32), "zeros")],
    )
    opset = [onnx.helper.make_opsetid("", 18)]
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=opset, ir_version=10), tmp_path / "m.onnx"
    )
    done = toolkit_cli("export", "m.onnx", "--to", "openvino", "--out", "art")
    assert done.returncode == 0, done.stderr
    assert "the same for all inputs" in " ".join(done.stderr.split())


def test_an_exported_program_of_somebody_else_s_is_a_source(
    toolkit_cli: Run, tmp_path: Path
) -> None:
    """Whatever it takes and gives: by keyword, nested, several, integers."""

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = torch.nn.Embedding(10, 4)
            self.head = torch.nn.Linear(4, 3)

        def forward(self, ids: torch.Tensor, *, image: torch.Tensor, flag: bool = True):
            hidden = self.table(ids).mean(1) + image.flatten(1)[:, :4]
            scores = self.head(hidden)
            return {"scores": scores if flag else -scores, "parts": [hidden, (hidden.sum(1),)]}

    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(
        Net().eval(),
        (torch.zeros(2, 5, dtype=torch.long),),
        {"image": torch.zeros(2, 2, 3)},
        dynamic_shapes={"ids": {0: batch}, "image": {0: batch}},
    )
    torch.export.save(program, tmp_path / "theirs.pt2")
    shown = json.loads(toolkit_cli("inspect", "theirs.pt2", "--json").stdout)
    assert [spec["name"] for spec in shown["signature"]["inputs"]] == ["ids", "image"]
    assert [spec["shape"] for spec in shown["signature"]["inputs"]] == [
        ["batch", 5],
        ["batch", 2, 3],
    ]
    names = ["scores", "parts.0", "parts.1.0"]
    assert [spec["name"] for spec in shown["signature"]["outputs"]] == names
    done = toolkit_cli("export", "theirs.pt2", "--to", "openvino", "--out", "ir", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["weights"]["passed"]
    assert document["outputs"]["oracle"] == "torch-export in float64"
    done = toolkit_cli("export", "theirs.pt2", "--to", "aotinductor", "--out", "compiled", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["weights"]["counts"] == {"identical": 3}
    done = toolkit_cli("parity", "outputs", "theirs.pt2", "ir", "--json")
    assert done.returncode == 0, done.stderr
    done = toolkit_cli("bench", "ir", "--warmup", 1, "--runs", 11, "--json")
    assert done.returncode == 0, done.stderr
    rows = {row["runtime"]: row for row in json.loads(done.stdout)["rows"]}
    assert {name: row["status"] for name, row in rows.items()} == {
        "torch-export": "ok",
        "openvino": "ok",
    }


def test_outputs_that_are_not_the_model_s_are_told(
    toolkit_cli: Run, artifact_dir: Path, checkpoint_dir: Path, tmp_path: Path
) -> None:
    model = onnx.load(artifact_dir / "model.onnx")
    bias = next(t for t in model.graph.initializer if t.name == "fc3.bias")
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + 0.01, bias.name))
    onnx.save(model, tmp_path / "other.onnx")
    done = toolkit_cli("parity", "outputs", checkpoint_dir, "other.onnx", "--json")
    assert done.returncode == 1, done.stderr
    document = json.loads(done.stdout)
    assert not document["passed"]
    assert "off by 0.01" in document["cases"][0]["reason"]
    assert toolkit_cli("parity", "outputs", checkpoint_dir, artifact_dir).returncode == 0


def test_a_form_that_fails_the_proof_can_be_kept(
    toolkit_cli: Run, checkpoint_dir: Path, tmp_path: Path
) -> None:
    command = ("export", checkpoint_dir, "--to", "onnx", "--passes", "wrong", "--out", "art")
    env = plugins.install(tmp_path / "site")
    done = toolkit_cli(*command, env=env)
    assert done.returncode == 1, done.stderr
    assert "Nothing was written." in done.stderr
    assert "--keep-failed DIR" in done.stderr
    assert not (tmp_path / "art").exists()
    done = toolkit_cli(*command, "--keep-failed", "failed", env=env)
    assert done.returncode == 1, done.stderr
    assert "The form that failed is in failed." in done.stderr
    assert not (tmp_path / "art").exists()
    repeat = done.stderr.split("To repeat the comparison: toolkit ")[1].split()
    done = toolkit_cli(*repeat, "--json")
    assert done.returncode == 1, done.stderr
    assert json.loads(done.stdout)["passed"] is False
    done = toolkit_cli(*command, "--keep-failed", "failed", env=env)
    assert done.returncode != 1
    assert "failed" in done.stderr


def test_forms_that_take_other_inputs_are_told(
    toolkit_cli: Run, artifact_dir: Path, tmp_path: Path
) -> None:
    node = onnx.helper.make_node("Add", ["a", "b"], ["c"])
    values = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 2]) for name in "abc"
    ]
    graph = onnx.helper.make_graph([node], "two", values[:2], values[2:])
    onnx.save(
        onnx.helper.make_model(
            graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10
        ),
        tmp_path / "two.onnx",
    )
    done = toolkit_cli("parity", "outputs", artifact_dir, "two.onnx")
    assert done.returncode == 2
    assert "One model has 1 tensors (input), the other 2 (a, b)" in done.stderr
