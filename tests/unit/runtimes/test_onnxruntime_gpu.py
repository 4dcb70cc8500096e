"""The session of ONNX Runtime's providers for GPUs, run by the real ONNX Runtime on the CPU: what
is bound, filled, fetched and refused; and what the providers are given."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from runtimes.onnxruntime import gpu as providers
from runtimes.onnxruntime import options as option_names
from runtimes.onnxruntime.device_session import (
    CPU,
    DeviceSession,
    Target,
    create,
    nodes_on,
    read_axes,
)
from runtimes.onnxruntime.gpu import KINDS, OnnxRuntimeCuda, precision, provider_options
from runtimes.onnxruntime.options import GpuOptions
from runtimes.onnxruntime.session import settings_of
from runtimes.operator_trace import Node, precision_of
from runtimes.tensorrt import engine_cache
from runtimes.torch.tf32 import OVERRIDE, forbid_in_libraries, precision_with
from toolkit.core import nvidia
from toolkit.core.artifact import Artifact
from toolkit.core.errors import (
    SessionError,
    SourceError,
    ToolkitError,
    UnavailableError,
    UnknownNameError,
    UsageError,
)
from toolkit.core.files import FileRecord
from toolkit.core.nvidia import Driver, Gpu
from toolkit.core.session import SessionOptions
from toolkit.sources.resolve import open_artifact

NO_NODES = "AzureExecutionProvider"  # comes with ONNX Runtime for the CPU, and takes no node
AMPERE = Driver(version="13.0", gpus=(Gpu(name="G", capability=86, memory_bytes=1),))
TURING = Driver(version="13.0", gpus=(Gpu(name="T", capability=75, memory_bytes=1),))


def save(path: Path) -> Path:
    """y = relu(x w), s = the places where x is not 0, with x [batch, 4]."""
    w = np.random.default_rng(0).standard_normal((4, 2)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["t"], name="product"),
        helper.make_node("Relu", ["t"], ["y"], name="activation"),
        helper.make_node("NonZero", ["x"], ["s"], name="places"),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2])
    s = helper.make_tensor_value_info("s", TensorProto.INT64, [2, None])
    graph = helper.make_graph(nodes, "g", [x], [y, s], [numpy_helper.from_array(w, "w")])
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, ir_version=9, opset_imports=opsets), path)
    return path


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    return open_artifact(save(tmp_path / "model.onnx"))


def on_the_cpu(artifact: Artifact, **changes: Any) -> Target:
    target = Target(
        runtime="onnxruntime-cuda",
        artifact=artifact,
        options=SessionOptions(threads=1),
        provider=CPU,
        device="cpu",
        axes=read_axes(artifact),
        provider_options=lambda shapes: {},
        precision=precision_of,
        details=lambda shapes: {"seen": {name: list(shape) for name, shape in shapes.items()}},
        allow_cpu_nodes=True,
    )
    return replace(target, **changes)


@pytest.fixture
def session(artifact: Artifact) -> DeviceSession:
    return DeviceSession(on_the_cpu(artifact))


def feeds(batch: int, seed: int = 1) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(seed).standard_normal((batch, 4)).astype(np.float32)}


def expected(artifact: Artifact, given: dict[str, np.ndarray]) -> list[np.ndarray]:
    plain = ort.InferenceSession(artifact.path, providers=[CPU])
    found: list[np.ndarray] = plain.run(None, given)
    return found


def test_values_of_changing_shapes_and_outputs_of_unknown_extent(
    session: DeviceSession, artifact: Artifact
) -> None:
    for batch, seed in ((2, 1), (2, 2), (5, 3), (1, 4), (2, 5)):
        given = feeds(batch, seed)
        given["x"][0, 0] = 0 if batch == 5 else 1
        found, wanted = session.run(given), expected(artifact, given)
        np.testing.assert_array_equal(found["y"], wanted[0])
        np.testing.assert_array_equal(found["s"], wanted[1])


def test_inputs_lie_in_buffers_of_the_session_s_own(
    session: DeviceSession, artifact: Artifact
) -> None:
    given = feeds(2)
    wanted = expected(artifact, given)[0]
    session.upload(given)
    given["x"][:] = np.nan
    session.forward()
    np.testing.assert_array_equal(session.download()["y"], wanted)


def test_a_shape_has_one_session_whose_buffers_are_filled_in_place(
    artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    monkeypatch.setattr(
        "runtimes.onnxruntime.device_session.create",
        lambda target, settings, shapes: made.append(shapes) or create(target, settings, shapes),
    )
    with DeviceSession(on_the_cpu(artifact)) as session:
        for batch in (2, 2, 2, 3, 3):
            session.run(feeds(batch))
    assert made == [{"x": (2, 4)}, {"x": (3, 4)}]


def test_outputs_are_the_caller_s(session: DeviceSession) -> None:
    first = session.run(feeds(2))["y"]
    kept = first.copy()
    session.run(feeds(2, seed=2))
    np.testing.assert_array_equal(first, kept)
    session.download()["y"][:] = np.nan
    assert np.isfinite(session.download()["y"]).all()


def test_strided_inputs(session: DeviceSession, artifact: Artifact) -> None:
    strided = {"x": np.asfortranarray(feeds(3)["x"])}
    np.testing.assert_array_equal(session.run(strided)["y"], expected(artifact, strided)[0])


def test_named_axes_have_the_extents_that_are_fed(artifact: Artifact, tmp_path: Path) -> None:
    """So that arithmetic on shapes is done before a pass, and not by nodes that go to the CPU."""
    model = onnx.load(artifact.path)
    model.graph.node.extend(
        [
            helper.make_node("Shape", ["y"], ["shape"], name="shape"),
            helper.make_node("Reshape", ["y", "shape"], ["z"], name="reshape"),
        ]
    )
    z = helper.make_tensor_value_info("z", TensorProto.FLOAT, ["batch", 2])
    model.graph.output.append(z)
    onnx.save(model, tmp_path / "shaped.onnx")
    shaped = open_artifact(tmp_path / "shaped.onnx")
    assert read_axes(shaped) == {"batch": ("x", 0)}
    with DeviceSession(on_the_cpu(shaped)) as session:
        session.run(feeds(3))
        ran = {node["operator"] for node in session.provenance().details["nodes"]}
    assert "MatMul" in ran
    assert "Shape" not in ran
    refused = on_the_cpu(shaped, provider=NO_NODES, allow_cpu_nodes=False)
    with pytest.raises(SourceError, match="activation") as caught:
        DeviceSession(refused).run(feeds(3))
    assert "Shape" not in caught.value.problem


def test_what_ran_is_asked_of_a_second_session(session: DeviceSession) -> None:
    before = session.run(feeds(2))["y"]
    found = session.provenance()
    assert (found.runtime, found.device, found.precision) == ("onnxruntime-cuda", "cpu", "float32")
    assert (found.version, found.threads) == (ort.__version__, 1)
    assert found.details["recorded_outputs_identical"] is True
    assert found.details["nodes_by_provider"] == {CPU: 3}
    assert found.details["seen"] == {"x": [2, 4]}
    np.testing.assert_array_equal(session.download()["y"], before)


def test_work_before_an_upload_and_after_the_end_is_refused(session: DeviceSession) -> None:
    with pytest.raises(SessionError, match="no inputs"):
        session.forward()
    session.synchronize()
    session.run(feeds(1))
    session.close()
    with pytest.raises(SessionError):
        session.forward()
    with pytest.raises(SessionError):
        session.download()


def test_nodes_that_the_provider_leaves_to_the_cpu_are_named(artifact: Artifact) -> None:
    assert NO_NODES in ort.get_available_providers()
    target = on_the_cpu(artifact, provider=NO_NODES, allow_cpu_nodes=False)
    session = DeviceSession(target)
    with pytest.raises(SourceError) as caught:
        session.run(feeds(2))
    assert f"{NO_NODES} does not take 3 nodes" in caught.value.problem
    for name in ("product (MatMul)", "activation (Relu)", "places (NonZero)"):
        assert name in caught.value.problem
    assert "--option onnxruntime-cuda.allow_cpu_nodes=true" in caught.value.hint
    with pytest.raises(SessionError):
        session.download()


def test_nodes_may_be_left_to_the_cpu_where_that_is_allowed(artifact: Artifact) -> None:
    target = on_the_cpu(artifact, provider=NO_NODES)
    with DeviceSession(target) as session:
        session.run(feeds(2))
        assert session.provenance().device == "cpu"


@pytest.mark.filterwarnings("ignore:Specified provider:UserWarning")
@pytest.mark.parametrize("allowed", [False, True])
def test_a_session_without_the_provider_is_refused(artifact: Artifact, allowed: bool) -> None:
    """ONNX Runtime for the CPU warns, and would run it there."""
    target = on_the_cpu(artifact, provider="CUDAExecutionProvider", allow_cpu_nodes=allowed)
    with pytest.raises(UnavailableError, match="without CUDAExecutionProvider"):
        create(target, settings_of(target.options), {"x": (1, 4)})


def test_files_that_are_no_graph_are_refused(artifact: Artifact) -> None:
    content = artifact.path.read_bytes()
    artifact.path.write_bytes(content[: len(content) // 2])
    with pytest.raises(SourceError, match="could not open"):
        read_axes(artifact)


def test_a_graph_that_cannot_run_is_refused(tmp_path: Path, artifact: Artifact) -> None:
    model = onnx.load(artifact.path)
    model.graph.node[0].op_type = "NoSuchOperator"
    onnx.save(model, artifact.path)
    with pytest.raises(SourceError, match="NoSuchOperator"):
        DeviceSession(on_the_cpu(artifact)).run(feeds(1))


def test_a_place_for_engines_that_cannot_be_written_is_named(
    artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    kind, options = KINDS["onnxruntime-tensorrt"], parsed()
    made = providers.target(kind, artifact, options)
    target = on_the_cpu(artifact, provider_options=made.provider_options)
    with pytest.raises(ToolkitError, match="keep engines") as caught:
        DeviceSession(target).run(feeds(1))
    assert not isinstance(caught.value, SourceError)


def test_nodes_by_provider(artifact: Artifact) -> None:
    settings = settings_of(SessionOptions(optimize=False))
    settings.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    session = ort.InferenceSession(artifact.path, settings, providers=[CPU])
    assert len(nodes_on(CPU, session)) == 3
    assert nodes_on("CUDAExecutionProvider", session) == []


def parsed(runtime: str = "onnxruntime-tensorrt", **tuning: str) -> GpuOptions:
    kind = KINDS[runtime]
    return option_names.parse(
        SessionOptions(tuning=tuning), runtime=runtime, provider=kind.options, ours=kind.ours
    )


def test_options_go_where_they_belong() -> None:
    found = parsed(
        trt_fp16_enable="1", graph_optimization_level="basic", allow_cuda_nodes="true", tf32="1"
    )
    assert found.provider == {"trt_fp16_enable": "1"}
    assert found.session.tuning == {"graph_optimization_level": "basic"}
    assert (found.allow_cuda_nodes, found.allow_cpu_nodes, found.tf32) == (True, False, True)
    assert (found.engine_cache, found.lowered) == (True, True)


@pytest.mark.parametrize(
    ("runtime", "name", "near"),
    [
        ("onnxruntime-cuda", "cudnn_conv_algo_serch", "cudnn_conv_algo_search"),
        ("onnxruntime-cuda", "trt_fp16_enable", None),
        ("onnxruntime-cuda", "allow_cpu_node", "allow_cpu_nodes"),
        ("onnxruntime-tensorrt", "trt_fp16", "trt_fp16_enable"),
        ("onnxruntime-tensorrt", "graph_optimisation_level", "graph_optimization_level"),
        ("onnxruntime-nv-tensorrt-rtx", "nv_dump_subgraph", "nv_dump_subgraphs"),
    ],
)
def test_unknown_options_are_refused_with_the_nearest(
    runtime: str, name: str, near: str | None
) -> None:
    with pytest.raises(UnknownNameError, match=f"option of {runtime}") as caught:
        parsed(runtime, **{name: "1"})
    assert near is None or f"Did you mean {near!r}?" in caught.value.hint


def test_a_flag_is_true_or_false() -> None:
    with pytest.raises(UsageError, match="tf32"):
        parsed(tf32="often")


def given(artifact: Artifact, runtime: str, **tuning: str) -> dict[str, str]:
    options = parsed(runtime, **tuning)
    return dict(provider_options(KINDS[runtime], artifact, options, {"x": (2, 4)}))


def test_tf32_is_off_in_cuda_unless_asked_for(artifact: Artifact) -> None:
    assert given(artifact, "onnxruntime-cuda") == {"use_tf32": "0"}
    assert given(artifact, "onnxruntime-cuda", tf32="true") == {"use_tf32": "1"}
    target = providers.target(
        KINDS["onnxruntime-tensorrt"], artifact, parsed(allow_cuda_nodes="true")
    )
    assert target.further == {"CUDAExecutionProvider": {"use_tf32": "0"}}


@pytest.mark.parametrize(
    ("runtime", "option"),
    [
        ("onnxruntime-tensorrt", "trt_engine_cache_path"),
        ("onnxruntime-nv-tensorrt-rtx", "nv_runtime_cache_path"),
    ],
)
def test_engines_are_kept_in_a_folder_for_each(
    artifact: Artifact,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    runtime: str,
    option: str,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    place = Path(given(artifact, runtime)[option])
    assert place.parent == tmp_path / "cache" / "inference-toolkit" / "engines"
    assert place.is_dir()
    assert given(artifact, runtime)[option] == str(place)
    assert given(artifact, runtime, tf32="true")[option] != str(place)
    assert given(artifact, runtime, engine_cache="false") == {}


KEY: dict[str, Any] = {
    "runtime": "onnxruntime-tensorrt",
    "shapes": {"x": (2, 4)},
    "options": {"trt_fp16_enable": "0", "trt_builder_optimization_level": "3"},
    "versions": {"onnxruntime": "1.31.1", "tensorrt": "10.16.1"},
    "driver": AMPERE,
}


def gpu(**changes: Any) -> Driver:
    return replace(AMPERE, gpus=(replace(AMPERE.gpus[0], **changes),))


@pytest.mark.parametrize(
    "change",
    [
        {"runtime": "onnxruntime-nv-tensorrt-rtx"},
        {"shapes": {"x": (3, 4)}},
        {"shapes": {"y": (2, 4)}},
        {"options": {"trt_fp16_enable": "1", "trt_builder_optimization_level": "3"}},
        {"options": {}},
        {"versions": {"onnxruntime": "1.31.2", "tensorrt": "10.16.1"}},
        {"versions": {"onnxruntime": "1.31.1", "tensorrt": "10.16.2"}},
        {"driver": replace(AMPERE, version="13.1")},
        {"driver": gpu(name="H")},
        {"driver": gpu(capability=89)},
        {"driver": Driver()},
    ],
)
def test_each_part_changes_the_key_of_an_engine(artifact: Artifact, change: dict[str, Any]) -> None:
    assert engine_cache.key(artifact, **KEY) != engine_cache.key(artifact, **{**KEY, **change})


@pytest.mark.parametrize("name", ["model.onnx", "weights.data"])
def test_each_file_of_the_model_changes_the_key_of_its_engine(
    artifact: Artifact, name: str
) -> None:
    """Such as weights that lie beside the graph."""
    beside = FileRecord(digest="sha256:00", size_bytes=1)
    whole = replace(artifact, files={**artifact.files, "weights.data": beside})
    other = replace(
        whole, files={**whole.files, name: FileRecord(digest="sha256:01", size_bytes=1)}
    )
    assert engine_cache.key(whole, **KEY) != engine_cache.key(other, **KEY)


def test_equal_parts_give_the_same_key(artifact: Artifact) -> None:
    backwards = {**KEY, "options": dict(reversed(KEY["options"].items()))}
    elsewhere = replace(artifact, directory=Path("/elsewhere"))
    assert engine_cache.key(artifact, **KEY) == engine_cache.key(elsewhere, **backwards)


def test_the_memory_of_the_gpu_does_not_change_the_key(artifact: Artifact) -> None:
    other = {**KEY, "driver": gpu(memory_bytes=2)}
    assert engine_cache.key(artifact, **KEY) == engine_cache.key(artifact, **other)


def engine(provider: str) -> list[Node]:
    return [Node(name="e", operator="TRTKernel_graph_g_0", provider=provider, dtype="float32")]


TRT, RTX = "TensorrtExecutionProvider", "NvTensorRTRTXExecutionProvider"


@pytest.mark.parametrize(
    ("provider", "asked", "tuning", "found"),
    [
        (TRT, "float32", {}, "float32"),
        (TRT, "float32", {"trt_fp16_enable": "true"}, "mixed"),
        (TRT, "float32", {"trt_int8_enable": "1", "tf32": "true"}, "mixed"),
        (TRT, "float32", {"trt_fp16_enable": "0"}, "float32"),
        (TRT, "float16", {}, "unknown"),
        (TRT, "float32", {"tf32": "true"}, "tf32"),
        (RTX, "float16", {}, "float16"),
        (RTX, "int8", {}, "int8"),
        (CPU, "float16", {}, "float32"),
    ],
)
def test_an_engine_s_precision_is_not_that_of_its_inputs(
    monkeypatch: pytest.MonkeyPatch,
    provider: str,
    asked: str,
    tuning: dict[str, str],
    found: str,
) -> None:
    monkeypatch.setattr(nvidia, "driver", lambda: AMPERE)
    monkeypatch.delenv(OVERRIDE, raising=False)
    assert precision(provider, asked, parsed(**tuning), engine(provider)) == found


def test_tf32_is_that_of_float32_on_a_gpu_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(OVERRIDE, raising=False)
    for driver, ran in ((AMPERE, "tf32"), (TURING, "float32"), (Driver(), "tf32")):
        monkeypatch.setattr(nvidia, "driver", lambda driver=driver: driver)
        assert precision_with(True, "float32") == ran
        assert precision_with(False, "float32") == "float32"
        assert precision_with(True, "float16") == "float16"


def test_the_variable_of_nvidia_s_libraries_overrules_options(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(nvidia, "driver", lambda: AMPERE)
    for value, ran in (("0", "float32"), ("1", "tf32")):
        monkeypatch.setenv(OVERRIDE, value)
        assert precision_with(True, "float32") == precision_with(False, "float32") == ran
    forbid_in_libraries(unless=False)
    assert os.environ[OVERRIDE] == "0"
    forbid_in_libraries(unless=True)
    assert OVERRIDE not in os.environ


def available(monkeypatch: pytest.MonkeyPatch, fault: Callable[[], str | None]) -> Any:
    """As where the packages and a GPU are there, and perhaps not their libraries."""
    monkeypatch.setattr(nvidia, "conflicts", lambda: [])
    monkeypatch.setattr(nvidia, "driver", lambda: AMPERE)
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    kind = replace(KINDS["onnxruntime-cuda"], fault=fault)
    monkeypatch.setitem(KINDS, "onnxruntime-cuda", kind)
    return OnnxRuntimeCuda().probe()


def test_a_library_that_is_missing_is_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    found = available(monkeypatch, lambda: "libcublasLt.so.13: cannot open shared object file")
    assert not found.ok
    assert "libcublasLt.so.13" in found.reason
    assert "pip install" in found.hint


def test_it_is_available_where_nothing_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    found = available(monkeypatch, lambda: None)
    assert (found.ok, found.version, found.reason) == (True, ort.__version__, None)


def test_this_package_for_the_cpu_is_the_reason_here(artifact: Artifact) -> None:
    found = OnnxRuntimeCuda().probe()
    assert not found.ok
    with pytest.raises(UnavailableError, match="onnxruntime-cuda cannot be used here"):
        OnnxRuntimeCuda().open(artifact, SessionOptions())
