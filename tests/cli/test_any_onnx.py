"""ONNX files of other makers: several inputs, indices, named axes, scalars, external data."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import toolkit
from exporters.base import ExportOptions
from exporters.onnx import saving
from exporters.onnx.from_torch import OnnxFromTorch
from exporters.proof.weight_parity import Match
from tests.conftest import Run
from toolkit.core.errors import IntegrityError
from toolkit.measuring.timing.engine import Procedure
from toolkit.sources.resolve import open_artifact

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
TABLE = np.random.default_rng(0).standard_normal((50, 8)).astype(np.float32)
QUICK = ("--runtime", "onnxruntime,openvino", "--scope", "forward", "--warmup", 1, "--runs", 12)


def value(name: str, kind: int, shape: list) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def model(nodes: list, inputs: list, outputs: list, constants: list = ()) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "g", inputs, outputs, constants)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, ir_version=9, opset_imports=opsets)


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    """Embeds `ids` [batch, time], scales by a scalar, masks: an index out of 0..49 fails."""
    made = model(
        [
            helper.make_node("Gather", ["table", "ids"], ["rows"]),
            helper.make_node("Mul", ["rows", "scale"], ["scaled"]),
            helper.make_node("Cast", ["mask"], ["weight"], to=FLOAT),
            helper.make_node("Unsqueeze", ["weight", "last"], ["column"]),
            helper.make_node("Mul", ["scaled", "column"], ["kept"]),
            helper.make_node("Softmax", ["kept"], ["out"], axis=-1),
        ],
        [
            value("ids", INT64, ["batch", "time"]),
            value("mask", TensorProto.BOOL, ["batch", "time"]),
            value("scale", FLOAT, []),
        ],
        [value("out", FLOAT, ["batch", "time", 8])],
        [
            numpy_helper.from_array(TABLE, "table"),
            numpy_helper.from_array(np.array([2], np.int64), "last"),
        ],
    )
    onnx.save(made, tmp_path / "tokens.onnx")
    return tmp_path / "tokens.onnx"


def rows_of(done: object) -> list[dict]:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["rows"]


def test_several_inputs_with_named_axes(toolkit_cli: Run, tokens: Path) -> None:
    done = toolkit_cli("bench", tokens, *QUICK, "--batch", 8, "--dim", "time=16", "--json")
    for row in rows_of(done):
        assert row["status"] == "ok", row["reason"]
        assert row["batch"] == 8
        assert row["parity"]["passed"]


def test_a_dim_can_name_the_batch(toolkit_cli: Run, tokens: Path) -> None:
    done = toolkit_cli("bench", tokens, *QUICK, "--dim", "batch=3", "--dim", "time=2", "--json")
    assert {row["batch"] for row in rows_of(done)} == {3}


def test_inputs_of_a_file(toolkit_cli: Run, tokens: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    np.savez(
        tmp_path / "inputs.npz",
        ids=rng.integers(0, 50, (20, 7)),
        mask=np.ones((20, 7), bool),
        scale=np.float32(2),
    )
    done = toolkit_cli("bench", tokens, *QUICK, "--batch", 4, "--inputs", "inputs.npz", "--json")
    assert all(row["parity"]["passed"] for row in rows_of(done))
    assert json.loads(done.stdout)["plan"]["inputs"] == "rows of inputs.npz"


def test_an_input_can_be_described(toolkit_cli: Run, tokens: Path) -> None:
    both = ("--input", "ids=2x5,int64,0,50", "--input", "mask=2x5")
    done = toolkit_cli("bench", tokens, *QUICK, "--batch", 2, *both, "--json")
    assert all(row["status"] == "ok" for row in rows_of(done))


def test_an_index_out_of_the_table_is_the_row_s_reason(toolkit_cli: Run, tokens: Path) -> None:
    both = ("--input", "ids=2x5,int64,50,60", "--input", "mask=2x5")
    done = toolkit_cli("bench", tokens, *QUICK, "--batch", 2, *both, "--json")
    ort = json.loads(done.stdout)["rows"][0]
    assert ort["status"] == "failed"
    assert "Gather" in ort["reason"]


def test_external_data_is_read(toolkit_cli: Run, tokens: Path, tmp_path: Path) -> None:
    onnx.save(
        onnx.load(tokens),
        tmp_path / "far.onnx",
        save_as_external_data=True,
        location="far.bin",
        size_threshold=100,  # shapes stay inside, where ONNX Runtime wants them
    )
    done = toolkit_cli("bench", "far.onnx", *QUICK, "--batch", 2, "--dim", "time=3", "--json")
    assert [row["reason"] for row in json.loads(done.stdout)["rows"]] == [None, None]
    (tmp_path / "far.bin").unlink()
    done = toolkit_cli("bench", "far.onnx", *QUICK, "--batch", 2, "--dim", "time=3")
    assert done.returncode == 2
    assert "far.bin" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_runtime_that_lacks_an_operator_says_which(toolkit_cli: Run, tmp_path: Path) -> None:
    """Inverse is ONNX Runtime's own; OpenVINO has none."""
    made = model(
        [helper.make_node("Inverse", ["x"], ["y"], domain="com.microsoft")],
        [value("x", FLOAT, ["n", 4, 4])],
        [value("y", FLOAT, ["n", 4, 4])],
    )
    onnx.save(made, tmp_path / "own.onnx")
    ort, openvino = rows_of(toolkit_cli("bench", "own.onnx", *QUICK, "--json"))
    assert ort["status"] == "ok"
    assert openvino["status"] == "failed"
    assert "Inverse" in openvino["reason"]


def test_no_runtime_knows_the_operator(toolkit_cli: Run, tmp_path: Path) -> None:
    made = model(
        [helper.make_node("Nonsense", ["x"], ["y"], domain="com.microsoft")],
        [value("x", FLOAT, ["n", 4])],
        [value("y", FLOAT, ["n", 4])],
    )
    onnx.save(made, tmp_path / "odd.onnx")
    done = toolkit_cli("bench", "odd.onnx", *QUICK, "--json")
    assert done.returncode == 3, done.stderr
    assert all("Nonsense" in row["reason"] for row in json.loads(done.stdout)["rows"])


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ((), "--dim time=16"),
        (("--dim", "tim=3"), "Did you mean 'time'?"),
        (("--dim", "time"), "name=whole number"),
        (("--dim", "time=0"), "Got --dim time=0"),
        (("--dim", "time=2", "--dim", "batch=3", "--batch", "4"), "batch 3 only"),
        (("--input", "idz=1x2"), "Did you mean 'ids'?"),
        (("--input", "ids=1xtwo"), "name=shape,dtype,low,high"),
        (("--input", "ids=1x2,float32", "--input", "mask=1x2"), "'ids' has dtype float32"),
        (("--input", "ids=1x2,int64,5,5", "--input", "mask=1x2"), "lower bound"),
        (("--input", "ids=1x2", "--input", "mask=1x3"), "'mask' has shape [1, 3]"),
        (("--inputs", "nosuch.npz"), "nosuch.npz could not be read"),
        (("--inputs", "tokens.onnx"), "could not be read as an .npz"),
        (("--inputs", "less.npz"), "Input 'mask' is missing"),
        (("--inputs", "misshaped.npz"), "'ids' has shape"),
        (("--inputs", "less.npz", "--data", "digits"), "Give one of them"),
        (("--data", "digits"), "digits gives one input"),
    ],
)
def test_wrong_inputs(
    toolkit_cli: Run, tokens: Path, tmp_path: Path, args: tuple[str, ...], says: str
) -> None:
    ids = np.zeros((4, 2), np.int64)
    np.savez(tmp_path / "less.npz", ids=ids)
    np.savez(tmp_path / "misshaped.npz", ids=ids[:, :, None], mask=ids > 0, scale=np.float32(1))
    done = toolkit_cli("bench", tokens, *QUICK, *args)
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_what_does_not_fit_into_one_file_lies_beside_it(
    checkpoint_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the tensors of a graph of more than 2 GB; here the file ends sooner."""
    monkeypatch.setattr(saving, "INLINE_BYTES", 100_000)
    monkeypatch.chdir(tmp_path)
    Path("far").mkdir()
    OnnxFromTorch().export(open_artifact(checkpoint_dir), Path("far"), ExportOptions())
    assert Path("far/model.onnx").stat().st_size < 100_000
    weights = toolkit.parity_weights(checkpoint_dir, "far/model.onnx").weights
    assert weights.count(Match.IDENTICAL) == weights.total
    passes = ["simplify", "static-batch=2"]
    done = toolkit.export("far/model.onnx", to="onnx", out="simpler", passes=passes)
    assert {"model.onnx", "model.onnx.data"} <= set(done.artifact.files)
    done = toolkit.export("simpler", to="openvino", out="ir")
    assert done.weights.passed
    result = toolkit.bench(
        "simpler", runtimes=["onnxruntime", "openvino"], procedure=Procedure(warmup=0, runs=1)
    )
    assert [row.status for row in result.rows] == ["ok", "ok"]
    assert toolkit.parity_outputs("far/model.onnx", "far/model.onnx", layers=True).outputs.passed
    # What lies beside is part of the artifact.
    content = bytearray(Path("simpler/model.onnx.data").read_bytes())
    content[1000] ^= 1
    Path("simpler/model.onnx.data").write_bytes(content)
    with pytest.raises(IntegrityError, match=r"model\.onnx\.data"):
        toolkit.inspect("simpler")


def test_a_shape_by_input_says_the_batch(toolkit_cli: Run, tmp_path: Path) -> None:
    """Also where the file calls every axis that varies by one mark, which is no name."""
    made = model(
        [helper.make_node("ReduceMean", ["x"], ["y"], axes=[1, 2], keepdims=0)],
        [value("x", FLOAT, ["?", "?", "?", 4])],
        [value("y", FLOAT, ["?", 4])],
    )
    onnx.save(made, tmp_path / "m.onnx")
    shape = ("--input", "x=5x3x7x4")
    (row,) = rows_of(toolkit_cli("bench", "m.onnx", *QUICK[2:], *shape, "--json",
                                 "--runtime", "onnxruntime"))  # fmt: skip
    assert row["batch"] == 5
    done = toolkit_cli("parity", "outputs", "m.onnx", "m.onnx", *shape, "--json")
    assert {case["batch"] for case in json.loads(done.stdout)["cases"]} == {5}
    done = toolkit_cli("bench", "m.onnx", *QUICK, *shape, "--batch", 2)
    assert "is to run at batch 5 only" in done.stderr
