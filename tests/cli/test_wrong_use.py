"""Wrong use ends in one clear message and exit code 2, never in a traceback."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from tests.conftest import Run


@pytest.fixture
def place(tmp_path: Path, artifact_dir: Path, checkpoint_dir: Path) -> Path:
    """A directory with the model, and things that are none."""
    (tmp_path / "lenet").symlink_to(checkpoint_dir)
    (tmp_path / "lenet-onnx").symlink_to(artifact_dir)
    (tmp_path / "text.onnx").write_text("This is not a model.\n")
    (tmp_path / "empty.onnx").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "manifest.json").write_text("{}")
    (tmp_path / "bare").mkdir()
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "precious").write_text("keep me")
    fixed = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "fixed",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3])],
    )
    onnx.save(helper.make_model(fixed, ir_version=10), tmp_path / "fixed.onnx")
    return tmp_path


TRAIN = ("train", "lenet", "--data", "digits")


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("bench", "nosuch.onnx"), "nosuch.onnx does not exist"),
        (("bench", "lenet-onx"), "Did you mean lenet-onnx?"),
        (("bench", "text.onnx"), "text.onnx is not an ONNX model"),
        (("bench", "empty.onnx"), "empty.onnx is not an ONNX model"),
        (("bench", "notes.txt"), "no known kind"),
        (("bench", "folder"), "is a document of schema None"),
        (("bench", "bare"), "without a manifest.json"),
        (("bench", "lenet-onnx", "--runtime", "onxruntime"), "Did you mean 'onnxruntime'?"),
        (("bench", "lenet-onnx", "--runtime", ","), "expected names"),
        (("bench", "lenet-onnx", "--batch", "0"), "Got batch 0"),
        (("bench", "lenet-onnx", "--batch", "-3"), "Got batch -3"),
        (("bench", "lenet-onnx", "--batch", "1,x"), "expected whole numbers"),
        (("bench", "lenet-onnx", "--scope", "foward"), "Did you mean 'forward'?"),
        (("bench", "lenet-onnx", "--threads", "0"), "Got 0 threads"),
        (("bench", "lenet-onnx", "--runs", "0"), "Got --runs 0"),
        (("bench", "lenet-onnx", "--warmup", "-1"), "Got --warmup -1"),
        (("bench", "lenet-onnx", "--processes", "0"), "Got --processes 0, expected 1 to 100"),
        (
            ("bench", "lenet-onnx", "--scenario", "single", "--processes", "2"),
            "Got --processes together with --scenario",
        ),
        (("bench", "lenet-onnx", "--target-ci", "0"), "Got --target-ci 0"),
        (("bench", "lenet-onnx", "--max-seconds", "nan"), "Got --max-seconds nan"),
        (("bench", "lenet-onnx", "--timeout", "0"), "timeout of 0"),
        (("bench", "lenet-onnx", "--out", "notes.txt"), "notes.txt"),
        (("bench", "fixed.onnx", "--batch", "3"), "batch 2 only"),
        (("bench",), "Missing argument"),
        (("bench", "lenet-onnx", "--bacth", "1"), "--batch"),
        (("bensh", "lenet-onnx"), "bench"),
        (
            ("export", "lenet-onnx", "--to", "torch-export", "--out", "new"),
            "No way leads from onnx to torch-export",
        ),
        (("export", "lenet", "--to", "onx", "--out", "new"), "Did you mean 'onnx'?"),
        (("export", "lenet", "--to", "onnx", "--out", "taken"), "exists already"),
        (("export", "nosuch", "--to", "onnx", "--out", "new"), "nosuch does not exist"),
        (("verify", "lenet-onnx", "--data", "digit"), "Did you mean 'digits'?"),
        (("verify", "fixed.onnx", "--data", "digits"), "digits gives 3 x 32 x 32"),
        (("train", "lennet", "--data", "digits", "--out", "new"), "Did you mean 'lenet'?"),
        ((*TRAIN, "--out", "taken"), "exists already"),
        ((*TRAIN, "--out", "new", "--epochs", "0"), "Got epochs 0"),
        ((*TRAIN, "--out", "new", "--seed", "-1"), "Got seed -1"),
    ],
)
def test_wrong_use(toolkit_cli: Run, place: Path, args: tuple[str, ...], says: str) -> None:
    before = sorted(place.rglob("*"))
    done = toolkit_cli(*args)
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert sorted(place.rglob("*")) == before
    assert (place / "taken" / "precious").read_text() == "keep me"


def test_a_place_that_cannot_be_written_is_said(toolkit_cli: Run, place: Path) -> None:
    done = toolkit_cli(*TRAIN, "--epochs", 1, "--out", "notes.txt/inside")
    assert done.returncode == 3
    assert "Could not create notes.txt/inside" in done.stderr
    assert "Traceback" not in done.stderr
