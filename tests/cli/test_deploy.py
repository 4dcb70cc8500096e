"""toolkit deploy: a repository that Triton's own protobuf reads, and a folder that runs alone."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

import toolkit
from models import FAMILIES
from tests.conftest import Exported, Run, run_toolkit
from toolkit.core.artifact import Artifact, Format
from toolkit.core.bundle import BUNDLE_FILE, MODEL, SCHEMA
from toolkit.core.documents import seal, write_document
from toolkit.core.errors import UsageError
from toolkit.core.files import digest_file


def config_of(place: Path) -> ModelConfig:
    found = ModelConfig()
    text_format.Parse((place / "config.pbtxt").read_text(), found)
    return found


@pytest.fixture(scope="module")
def bundle(main_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a short search."""
    place = tmp_path_factory.mktemp("bundle")
    done = run_toolkit(
        "optimize", main_path / "lenet-onnx", "--exact", "--budget", "1s", "--batch", 8,
        "--out", "search", cwd=place,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return place / "search" / "bundle"


def of_each_input_shape() -> list[str]:
    """Return one family for each shape of inputs, which are what the test below compares."""
    found: dict[tuple[int, ...], str] = {}
    for name in FAMILIES.names():
        (spec,) = FAMILIES.create(name).spec("torch").signature.inputs
        found.setdefault(tuple(spec.shape[1:]), name)
    return list(found.values())


def held(place: Path) -> set[str]:
    """The digests of what is served."""
    return {digest_file(path) for path in (place / "1").iterdir()}


@pytest.mark.parametrize("family", of_each_input_shape())
def test_triton_reads_what_is_written(family: str, tmp_path: Path) -> None:
    made = toolkit.export(family, to="onnx", out=tmp_path / "onnx").artifact
    done = toolkit.deploy(tmp_path / "onnx", to="triton", out=tmp_path / "r", max_batch=16)
    assert done.artifact_digest == made.digest
    place = tmp_path / "r" / family
    config = config_of(place)
    (spec,) = made.signature.inputs
    assert (config.name, config.backend, config.max_batch_size) == (family, "onnxruntime", 16)
    assert [one.name for one in config.input] == [spec.name]
    assert list(config.input[0].dims) == list(spec.shape[1:])
    assert config.input[0].data_type == 11  # TYPE_FP32
    assert config.dynamic_batching.max_queue_delay_microseconds > 0
    assert held(place) == {made.files[made.entry].digest}


def graph(place: Path, name: str) -> Path:
    """A small ONNX file whose tensors have their batch in different places."""
    inputs, output = SHAPES[name]
    path = place / f"{name}.onnx"
    node = (
        onnx.helper.make_node("ReduceSum", ["x", "axes"], ["y"], keepdims=0)
        if name in ("scores", "total")
        else onnx.helper.make_node("Mul", ["x", "t" if "t" in inputs else "x"], ["y"])
    )
    axes = {"scores": [1], "total": [0, 1]}.get(name)
    made = onnx.helper.make_graph(
        [node],
        name,
        [onnx.helper.make_tensor_value_info(n, 1, shape) for n, shape in inputs.items()],
        [onnx.helper.make_tensor_value_info("y", 1, output)],
        [onnx.numpy_helper.from_array(np.array(axes), "axes")] if axes else [],
    )
    opset = onnx.helper.make_opsetid("", 18)
    onnx.save(onnx.helper.make_model(made, opset_imports=[opset], ir_version=8), path)
    return path


SHAPES: dict[str, tuple[dict[str, list[Any]], list[Any]]] = {
    "rows": ({"x": ["n", 4]}, ["n", 4]),
    "scores": ({"x": ["n", 4]}, ["n"]),
    "scalar_beside_batch": ({"x": ["n", 4], "t": []}, ["n", 4]),
    "total": ({"x": ["n", 4]}, []),
    "time_first": ({"x": ["time", "batch", 4]}, ["time", "batch", 4]),
    "fixed": ({"x": [1, 4]}, [1, 4]),
    "beside_fixed": ({"x": ["n", 4], "t": [1, 4]}, ["n", 4]),
    "without_a_name": ({"x": [None, 4]}, [None, 4]),
}
BATCHED = ("rows", "scores")


@pytest.mark.parametrize("name", SHAPES)
def test_only_rows_of_one_batch_axis_are_batched(name: str, tmp_path: Path) -> None:
    path = graph(tmp_path, name)
    done = toolkit.deploy(path, to="triton", out=tmp_path / "r")
    config = config_of(tmp_path / "r" / name)
    assert config.max_batch_size == (1 if name in BATCHED else 0)
    assert any("does not batch" in line for line in done.told) == (name not in BATCHED)
    inputs, output = SHAPES[name]
    for found, shape in zip(
        (*config.input, *config.output), (*inputs.values(), output), strict=True
    ):
        own = shape[1:] if name in BATCHED else shape
        assert list(found.dims) == [d if isinstance(d, int) else -1 for d in own] or [1]
        assert found.HasField("reshape") == (not own and name in BATCHED)
    if name not in BATCHED:
        with pytest.raises(UsageError, match="cannot batch"):
            toolkit.deploy(path, to="triton", out=tmp_path / "r2", max_batch=8)


def test_only_onnx_runtime_s_backend_serves_scalars_without_a_batch(tmp_path: Path) -> None:
    path = graph(tmp_path, "scalar_beside_batch")
    toolkit.export(path, to="openvino", out=tmp_path / "openvino")
    with pytest.raises(UsageError, match="openvino backend cannot serve"):
        toolkit.deploy(tmp_path / "openvino", to="triton", out=tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_openvino_keeps_both_of_its_files(exported: Exported, tmp_path: Path) -> None:
    made = Artifact.load(exported("openvino"))
    done = run_toolkit(
        "deploy", made.directory, "--to", "triton", "--out", "r", "--name", "net", "--json",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["artifact_digest"] == made.digest
    place = tmp_path / "r" / "net"
    assert (place / "1" / "model.xml").is_file()
    assert config_of(place).backend == "openvino"
    assert held(place) == {made.files[name].digest for name in ("model.xml", "model.bin")}


def test_an_engine_is_served_on_a_gpu(main_path: Path, tmp_path: Path) -> None:
    """A fake of an engine: TensorRT is not here to build one."""
    signature = Artifact.load(main_path / "lenet-onnx").signature
    (tmp_path / "fake").mkdir()
    (tmp_path / "fake" / "model.engine").write_bytes(b"fake engine")
    made = Artifact.save(
        tmp_path / "fake",
        model=Artifact.load(main_path / "lenet-onnx").model,
        format=Format.TENSORRT,
        precision="float32",
        signature=signature,
        entry="model.engine",
        parents=(),
        options={},
    )
    deployment = toolkit.deploy(tmp_path / "fake", to="triton", out=tmp_path / "r", name="net")
    place = tmp_path / "r" / "net"
    config = config_of(place)
    assert (config.backend, config.instance_group[0].kind) == ("tensorrt", 1)  # KIND_GPU
    assert digest_file(place / "1" / "model.plan") == made.files["model.engine"].digest
    assert any("only on the GPU" in line for line in deployment.told)


def chosen_for(runtime: str, model: Path, place: Path, **options: Any) -> Path:
    """A bundle of `model`, as if a search had chosen it with `options` on `runtime`, one pass of
    eight rows taking 80 µs on four cores."""
    shutil.copytree(model, place / MODEL)
    body = {
        "runtime": runtime,
        "options": {"threads": 2, "optimize": True, "tuning": {}, **options},
        "artifact_digest": Artifact.load(place / MODEL).digest,
        "batch": 8,
        "evidence": {"forward": {"median_ns": 80_000}, "cpu": {"container_cores": 4}},
    }
    write_document(place / BUNDLE_FILE, seal(SCHEMA, body))
    return place


def parameters_of(config: ModelConfig) -> dict[str, str]:
    return {name: value.string_value for name, value in config.parameters.items()}


def test_a_bundle_on_onnxruntime_is_served_as_it_was_measured(
    main_path: Path, toolkit_cli: Run, tmp_path: Path
) -> None:
    tuning = {
        "graph_optimization_level": "extended",
        "enable_cpu_mem_arena": "0",
        "session.intra_op.allow_spinning": "0",
    }
    bundle = chosen_for("onnxruntime", main_path / "lenet-onnx", tmp_path / "b", tuning=tuning)
    done = toolkit_cli("deploy", bundle, "--to", "triton", "--name", "digits", "--out", "r")
    assert done.returncode == 0, done.stderr
    config = config_of(tmp_path / "r" / "digits")
    assert (config.backend, config.max_batch_size) == ("onnxruntime", 8)
    assert config.optimization.graph.level == 1  # what the backend's source reads as extended
    assert parameters_of(config) == {
        "intra_op_thread_count": "2",
        "inter_op_thread_count": "1",
        "enable_mem_arena": "0",
    }
    assert "does not read session.intra_op.allow_spinning" in done.stdout
    assert config.instance_group[0].count == 2  # four cores, two threads each
    assert config.dynamic_batching.max_queue_delay_microseconds == 40
    (warmup,) = config.model_warmup
    assert (warmup.batch_size, warmup.count) == (8, 10)


@pytest.mark.parametrize(("model", "file"), [("lenet-onnx", "model.onnx"), ("ir", "model.xml")])
def test_a_bundle_on_openvino_is_served_by_openvino(
    main_path: Path,
    exported: Exported,
    toolkit_cli: Run,
    tmp_path: Path,
    model: str,
    file: str,
) -> None:
    source = exported("openvino") if model == "ir" else main_path / model
    bundle = chosen_for("openvino", source, tmp_path / "b", tuning={"ENABLE_CPU_PINNING": "NO"})
    done = toolkit_cli("deploy", bundle, "--to", "triton", "--name", "digits", "--out", "r")
    assert done.returncode == 0, done.stderr
    place = tmp_path / "r" / "digits"
    config = config_of(place)
    assert config.backend == "openvino"
    assert (place / "1" / file).is_file()
    assert config.default_model_filename == ("" if file == "model.xml" else file)
    assert parameters_of(config) == {  # both instances are requests of one compiled model
        "INFERENCE_NUM_THREADS": "4",
        "NUM_STREAMS": "2",
        "PERFORMANCE_HINT": "LATENCY",
        "ENABLE_BATCH_PADDING": "YES",
    }
    assert "does not read ENABLE_CPU_PINNING" in done.stdout
    assert "cannot be limited to float32" in done.stdout


def test_bfloat16_is_asked_for_by_the_backend_s_name(main_path: Path, tmp_path: Path) -> None:
    tuning = {"INFERENCE_PRECISION_HINT": "bf16"}
    bundle = chosen_for("openvino", main_path / "lenet-onnx", tmp_path / "b", tuning=tuning)
    toolkit.deploy(bundle, to="triton", out=tmp_path / "r", name="net")
    assert parameters_of(config_of(tmp_path / "r" / "net"))["HINT_BF16"] == "YES"


def test_a_bundle_for_a_gpu_is_served_on_one(main_path: Path, tmp_path: Path) -> None:
    """As the back end's source reads it: options of its execution providers by their names."""
    for runtime, name, tuning, options, told in (
        (
            "onnxruntime-cuda",
            "cuda",
            {"prefer_nhwc": "1"},
            {"prefer_nhwc": "1", "use_tf32": "0"},
            "",
        ),
        ("onnxruntime-cuda", "cuda", {"tf32": "true"}, {"use_tf32": "1"}, ""),
        ("onnxruntime-cuda", "cuda", {"enable_cuda_graph": "1"}, {"use_tf32": "0"}, "CUDA graphs"),
        ("onnxruntime-tensorrt", "tensorrt", {}, {}, "NVIDIA_TF32_OVERRIDE=0"),
    ):
        place = tmp_path / f"{runtime}-{len(list(tmp_path.iterdir()))}"
        bundle = chosen_for(runtime, main_path / "lenet-onnx", place / "b", tuning=tuning)
        deployment = toolkit.deploy(bundle, to="triton", out=place / "r", name="net")
        config = config_of(place / "r" / "net")
        group = config.instance_group[0]
        assert (config.backend, group.kind, group.count) == ("onnxruntime", 1, 1)  # KIND_GPU
        (accelerator,) = config.optimization.execution_accelerators.gpu_execution_accelerator
        assert (accelerator.name, dict(accelerator.parameters)) == (name, options)
        assert told in " ".join(deployment.told)


def test_one_chosen_for_a_runtime_that_triton_has_not_is_refused(
    main_path: Path, toolkit_cli: Run, tmp_path: Path
) -> None:
    bundle = chosen_for("onnx-reference", main_path / "lenet-onnx", tmp_path / "b")
    done = toolkit_cli("deploy", bundle, "--to", "triton", "--out", "r")
    assert done.returncode == 2
    assert "chosen for onnx-reference, which no backend of Triton serves" in done.stderr


def test_a_folder_runs_where_only_its_requirements_are(
    bundle: Path, toolkit_cli: Run, tmp_path: Path
) -> None:
    done = toolkit_cli("deploy", bundle, "--to", "folder", "--out", "served")
    assert done.returncode == 0, done.stderr
    served = tmp_path / "served"
    python = tmp_path / "alone" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", python.parents[1]], check=True)
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet"]
    subprocess.run([*install, "-r", served / "requirements.txt"], check=True)

    def run(*args: object) -> subprocess.CompletedProcess[str]:
        command = [str(arg) for arg in (python, *args)]
        return subprocess.run(command, cwd="/", env={}, capture_output=True, text=True, check=False)

    assert "No module named 'toolkit'" in run("-c", "import toolkit").stderr
    checked = run(served / "check.py")
    assert checked.returncode == 0, checked.stderr
    assert checked.stdout.splitlines()[-1] == "ok"
    expected = served / "check-outputs.npz"
    wrong = {name: array + 1 for name, array in np.load(expected).items()}
    np.savez(expected, **wrong)
    failed = run(served / "check.py")
    assert failed.returncode == 1
    assert "is not what it was" in failed.stderr


@pytest.mark.parametrize(
    ("source", "args", "told"),
    [
        ("lenet", ("--to", "triton"), "is a checkpoint, which no server runs"),
        ("lenet-onnx", ("--to", "folder"), "no program to run it"),
        ("lenet-onnx", ("--to", "bento"), "no target of a deployment named 'bento'"),
        ("lenet-onnx", ("--to", "triton", "--name", "../x"), "Got the model name"),
        ("lenet-onnx", ("--to", "triton", "--max-batch", "0"), "expected 1 or more"),
        ("none", ("--to", "triton"), "none"),
    ],
)
def test_wrong_use_is_told(
    main_path: Path, toolkit_cli: Run, tmp_path: Path, source: str, args: tuple[Any, ...], told: str
) -> None:
    done = toolkit_cli("deploy", main_path / source, *args, "--out", "r")
    assert done.returncode == 2, done.stderr
    assert told in done.stderr
    assert not (tmp_path / "r").exists()
