"""OpenVINO on the CPU: what the runtime leaves behind in the process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import toolkit
from toolkit.core.errors import SessionError

SCRIPT = """
import os
import signal
import sys
from pathlib import Path

from runtimes.openvino import OpenVino
from toolkit.core.artifact import Artifact
from toolkit.core.session import SessionOptions

artifact = Artifact.load(Path(sys.argv[1]))
first = OpenVino().open(artifact, SessionOptions(threads=1))
second = OpenVino().open(artifact, SessionOptions(threads=1))
for session in (first, second):
    session.close()
del first, second, session
try:
    os.kill(os.getpid(), signal.SIGINT)
    signal.pause()
except KeyboardInterrupt:
    print("interrupted")
"""


def test_ctrl_c_is_received_after_overlapping_sessions(artifact_dir: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(script), str(artifact_dir)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout == "interrupted\n", done.stderr
    assert done.returncode == 0


def saved(
    path: Path, nodes: list[onnx.NodeProto], inputs: dict[str, tuple[int, list]], output: int
) -> Path:
    """A graph to y [n, 4] or [n, k], with a constant W [4, 4]."""
    weight = np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32)
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, *kind) for name, kind in inputs.items()],
        [helper.make_tensor_value_info("y", output, ["n", 4])],
        [
            numpy_helper.from_array(weight, "W"),
            numpy_helper.from_array(np.float32(-1e9), "low"),
        ],
    )
    model = helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 19)])
    onnx.save(model, path / "g.onnx")
    return path / "g.onnx"


ROWS = np.random.default_rng(1).standard_normal((2, 4)).astype(np.float32)
FLOATS = {"x": (TensorProto.FLOAT, ["n", 4])}


@pytest.mark.parametrize("kind", ["And", "Or", "Xor"])
def test_a_mask_is_no_arithmetic_of_eight_bits(tmp_path: Path, kind: str) -> None:
    """Its layers take and give booleans, which OpenVINO holds in u8."""
    nodes = [
        helper.make_node("Not", ["mask"], ["inverse"]),
        helper.make_node("Greater", ["x", "low"], ["large"]),
        helper.make_node(kind, ["inverse", "large"], ["masked"]),
        helper.make_node("Where", ["masked", "low", "x"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["shares"]),
        helper.make_node("MatMul", ["shares", "W"], ["y"]),
    ]
    inputs = {**FLOATS, "mask": (TensorProto.BOOL, ["n", 4])}
    path = saved(tmp_path, nodes, inputs, TensorProto.FLOAT)
    with toolkit.load(path, "openvino") as session:
        session.run({"x": ROWS, "mask": ROWS > 0})
        assert session.provenance().precision == "float32"


def test_bfloat16_goes_in_and_comes_out_as_what_it_is(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["wide"], ["y"], to=TensorProto.BFLOAT16),
    ]
    inputs = {"x": (TensorProto.BFLOAT16, ["n", 4])}
    path = saved(tmp_path, nodes, inputs, TensorProto.BFLOAT16)
    rows = ROWS.astype(ml_dtypes.bfloat16)
    with toolkit.load(path, "openvino") as session:
        found = session.run({"x": rows})["y"]
    assert found.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(found, rows)


def test_an_output_of_a_type_that_numpy_does_not_have_is_refused(tmp_path: Path) -> None:
    """OpenVINO gives its bytes as whole numbers, which are other values."""
    nodes = [helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT8E4M3FN)]
    path = saved(tmp_path, nodes, FLOATS, TensorProto.FLOAT8E4M3FN)
    with (
        toolkit.load(path, "openvino") as session,
        pytest.raises(SessionError, match="gives output 'y' as f8e4m3, expected float8_e4m3fn"),
    ):
        session.run({"x": ROWS})


def test_read_only_arrays_are_inputs_as_any(tmp_path: Path) -> None:
    path = saved(tmp_path, [helper.make_node("MatMul", ["x", "W"], ["y"])], FLOATS, 1)
    rows = ROWS.copy()
    rows.flags.writeable = False
    with toolkit.load(path, "openvino") as session:
        found = session.run({"x": rows})["y"]
        np.testing.assert_array_equal(found, session.run({"x": ROWS})["y"])


def test_an_output_that_is_an_input_leaves_earlier_inputs_alone(tmp_path: Path) -> None:
    """OpenVINO drops the CastLike, and then wrote y over the x of an earlier request."""
    nodes = [helper.make_node("CastLike", ["x", "like"], ["y"])]
    inputs = {**FLOATS, "like": (TensorProto.FLOAT, ["n"])}
    path = saved(tmp_path, nodes, inputs, TensorProto.FLOAT)
    batches = [np.full((n, 4), number, np.float32) for number, n in enumerate((1, 3, 64, 3, 1))]
    with toolkit.load(path, "openvino") as session:
        for rows in batches:
            found = session.run({"x": rows, "like": rows[:, 0].copy()})["y"]
            np.testing.assert_array_equal(found, rows)
    for number, rows in enumerate(batches):
        assert (rows == number).all()
