"""The session of TensorRT's engines against doubles: the order of its calls, its memory, and all
that the conformance suite expects of a session. Nothing here has run on a GPU."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import toolkit
from runtimes.tensorrt.session import open_engine
from tests.conformance.test_runtimes import (  # noqa: F401  # run here on the session of the double
    feeds,
    test_a_closed_session_refuses_work,
    test_a_pass_needs_inputs,
    test_asking_what_ran_leaves_the_session_as_it_was,
    test_batches_of_any_size_in_one_session,
    test_damaged_file_is_refused,
    test_forward_can_be_repeated_on_what_was_uploaded,
    test_inputs_are_left_alone,
    test_new_inputs_of_the_same_shape_are_seen,
    test_open_and_close_can_be_repeated,
    test_outputs_are_not_overwritten_by_later_runs,
    test_outputs_belong_to_the_caller,
    test_precision_is_that_of_the_artifact,
    test_provenance_names_what_computed,
    test_rows_do_not_depend_on_their_neighbours,
    test_sessions_at_work_at_the_same_time_do_not_disturb_each_other,
    test_signature_is_the_artifact_s,
    test_strided_inputs_give_the_same,
    test_values_are_the_model_s,
    test_what_ran_is_not_known_before_a_pass,
    test_wrong_feeds_are_refused,
)
from tests.doubles import tensorrt_double as trt
from tests.doubles.cuda_double import FakeCudaDevice
from tests.doubles.engines import fake_engine
from toolkit.core.artifact import Artifact, Format
from toolkit.core.engines import EngineRecord
from toolkit.core.errors import FeedError, SessionError, SourceError, ToolkitError, UsageError
from toolkit.core.session import Availability, Runtime, Session, SessionOptions

THREADS = SessionOptions(threads=2)


class FakeTensorRtRuntime(Runtime):
    """As runtimes/tensorrt/standard.py, on doubles of TensorRT and of a GPU."""

    name: ClassVar[str] = "tensorrt"
    accepts: ClassVar[frozenset[Format]] = frozenset({Format.TENSORRT})
    device: ClassVar[str] = "cuda"

    def __init__(self, **device: Any) -> None:
        self.devices: list[FakeCudaDevice] = []
        self._device = device

    def probe(self) -> Availability:
        return Availability(ok=True, version=trt.__version__)

    def open(self, artifact: Artifact, options: SessionOptions) -> Session:
        def make(package: str | None) -> FakeCudaDevice:
            assert package is None
            self.devices.append(FakeCudaDevice(**self._device))
            return self.devices[-1]

        return open_engine(trt, self.name, artifact, options, make)


@pytest.fixture(scope="module")
def source(artifact_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return fake_engine(Artifact.load(artifact_dir), tmp_path_factory.mktemp("engine") / "e")


@pytest.fixture
def runtime() -> FakeTensorRtRuntime:
    trt.CALLS.clear()
    return FakeTensorRtRuntime()


@pytest.fixture
def session(runtime: FakeTensorRtRuntime, source: Artifact) -> Iterator[Session]:
    with runtime.open(source, THREADS) as opened:
        yield opened
    (device,) = runtime.devices
    assert device.held == 0
    assert device.closed == 1


@pytest.fixture
def fresh(session: Session) -> Session:
    """Each one is here."""
    return session


def test_one_run_is_shapes_addresses_copies_and_one_wait(
    session: Session, runtime: FakeTensorRtRuntime
) -> None:
    (device,) = runtime.devices
    trt.CALLS = device.calls  # of both, in one order
    session.run(feeds(3))
    first = list(device.calls)
    assert first == [
        ("synchronize",),  # before buffers are made anew
        ("set_input_shape", "input", (3, 3, 32, 32)),
        ("infer_shapes",),
        ("set_tensor_address", "input"),
        ("set_tensor_address", "logits"),
        ("to_device", 3 * 3 * 32 * 32 * 4),
        ("execute_async_v3",),
        ("to_host", 3 * 10 * 4),
        ("synchronize",),
    ]
    device.calls.clear()
    session.run(feeds(3, seed=1))
    assert device.calls == first[5:]


def test_a_second_upload_waits_for_the_copies_of_the_first(
    session: Session, runtime: FakeTensorRtRuntime
) -> None:
    """They read the memory that it is staged in."""
    (device,) = runtime.devices
    expected = session.run(feeds(2, seed=1))["logits"]
    session.upload(feeds(2))
    session.forward()
    device.calls.clear()
    session.upload(feeds(2, seed=1))
    assert [call[0] for call in device.calls] == ["synchronize", "to_device"]
    session.forward()
    np.testing.assert_array_equal(session.download()["logits"], expected)


def test_buffers_grow_and_are_reused(session: Session, runtime: FakeTensorRtRuntime) -> None:
    (device,) = runtime.devices
    for batch, allocations in ((8, 4), (3, 4), (8, 4), (9, 8), (1, 8)):
        session.run(feeds(batch))
        assert device._allocations == allocations
        assert device.held == 4


def test_a_batch_outside_the_profile_is_refused_with_its_range(
    artifact_dir: Path, tmp_path: Path, runtime: FakeTensorRtRuntime
) -> None:
    artifact = fake_engine(Artifact.load(artifact_dir), tmp_path / "e", batches=(2, 4, 8))
    with runtime.open(artifact, THREADS) as session:
        good = session.run(feeds(2))["logits"]
        for batch in (1, 9, 9):
            with pytest.raises(FeedError, match=r"\[2, 3, 32, 32\] to \[8, 3, 32, 32\]"):
                session.run(feeds(batch))
            for call in (session.forward, session.download, session.provenance):
                with pytest.raises(SessionError, match="no inputs"):
                    call()
        np.testing.assert_array_equal(session.run(feeds(2))["logits"], good)


def test_a_fixed_batch_has_no_profile(
    main_path: Path, tmp_path: Path, runtime: FakeTensorRtRuntime
) -> None:
    toolkit.export(
        main_path / "lenet-onnx", to="onnx", out=tmp_path / "onnx", passes=["static-batch=4"]
    )
    artifact = fake_engine(Artifact.load(tmp_path / "onnx"), tmp_path / "e")
    with runtime.open(artifact, THREADS) as session:
        assert session.run(feeds(4))["logits"].shape == (4, 10)
        assert session.provenance().details["profile"] == {"input": None}
        with pytest.raises(FeedError, match="4, 3, 32, 32"):
            session.run(feeds(3))


@pytest.mark.parametrize(
    ("layers", "precision", "told_by"),
    [
        (["conv", "gemm"], "float32", "strongly typed network"),
        (
            ["pool", {"Name": "c", "LayerType": "CaskConvolution", "Weights": {"Type": "Half"}}],
            "float16",
            "engine inspector",
        ),
    ],
)
def test_what_the_inspector_does_not_know_the_types_of_the_network_say(
    session: Session,
    monkeypatch: pytest.MonkeyPatch,
    layers: list[object],
    precision: str,
    told_by: str,
) -> None:
    """Those of an engine with names alone, and of one with dynamic shapes."""
    text = json.dumps({"Layers": layers})
    monkeypatch.setattr(trt.EngineInspector, "get_engine_information", lambda *_: text)
    session.run(feeds(2))
    found = session.provenance()
    assert found.precision == precision
    assert found.details["precision_told_by"] == told_by


@pytest.mark.parametrize(("precision", "tf32"), [("int8", False), ("float32", True)])
def test_of_whole_numbers_and_tf32_the_types_say_nothing(
    artifact_dir: Path,
    tmp_path: Path,
    runtime: FakeTensorRtRuntime,
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
    tf32: bool,
) -> None:
    monkeypatch.setattr(
        trt.EngineInspector, "get_engine_information", lambda *_: '{"Layers":["x"]}'
    )
    artifact = fake_engine(Artifact.load(artifact_dir), tmp_path / "e")
    replace(EngineRecord.load(artifact.directory), tf32=tf32).save(artifact.directory)
    with runtime.open(replace(artifact, precision=precision), THREADS) as session:
        session.run(feeds(1))
        assert session.provenance().precision == "unknown"


@pytest.mark.parametrize("failing", [1, 2, 3, 4, 5, 6, 7, 8])
def test_memory_that_runs_out_half_way_is_freed(source: Artifact, failing: int) -> None:
    runtime = FakeTensorRtRuntime(failing=failing)
    session = runtime.open(source, THREADS)
    if failing > 4:
        session.run(feeds(1))
    with pytest.raises(SessionError, match="OUT_OF_MEMORY") as caught:
        session.run(feeds(2))
    assert "smaller batch" in caught.value.hint
    with pytest.raises(SessionError, match="no inputs"):
        session.forward()
    assert session.run(feeds(2))["logits"].shape == (2, 10)
    session.close()
    assert (runtime.devices[0].held, runtime.devices[0].closed) == (0, 1)


def test_a_pass_that_is_not_taken_says_why(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(self: trt.IExecutionContext, stream_handle: int) -> bool:
        return self.hidden.refuse("Cuda Runtime (an illegal memory access was encountered)")

    session.run(feeds(1))
    monkeypatch.setattr(trt.IExecutionContext, "execute_async_v3", refuses)
    with pytest.raises(SessionError, match="could not enqueue a pass: Cuda Runtime"):
        session.run(feeds(2))


@pytest.mark.parametrize(
    ("method", "answer", "told"),
    [
        ("set_input_shape", False, "took no input 'input' of shape"),
        ("infer_shapes", ["input"], "for want of input"),
        ("set_tensor_address", False, "took no address for 'input'"),
        ("get_tensor_shape", (-1, 10), "whose shape is in the values"),
    ],
)
def test_what_the_context_refuses_is_an_error(
    session: Session, monkeypatch: pytest.MonkeyPatch, method: str, answer: object, told: str
) -> None:
    monkeypatch.setattr(trt.IExecutionContext, method, lambda *_: answer)
    with pytest.raises(SessionError, match=told):
        session.run(feeds(2))
    monkeypatch.undo()
    assert session.run(feeds(2))["logits"].shape == (2, 10)


def test_no_context_is_an_error_and_leaves_nothing(
    source: Artifact, runtime: FakeTensorRtRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trt.ICudaEngine, "create_execution_context", lambda _: None)
    with pytest.raises(SessionError, match="could not make an execution context"):
        runtime.open(source, THREADS)
    assert (runtime.devices[0].held, runtime.devices[0].closed) == (0, 1)


def test_an_engine_of_another_version_is_refused_and_both_are_named(
    artifact_dir: Path, tmp_path: Path, runtime: FakeTensorRtRuntime
) -> None:
    graph = Artifact.load(artifact_dir)
    for version in ("10.13.0.1", "11.4.0.106"):
        artifact = fake_engine(graph, tmp_path / version, version=version)
        with pytest.raises(SourceError, match=rf"tensorrt {version}, and tensorrt 10\.16\.1\.11"):
            runtime.open(artifact, THREADS)
    same = fake_engine(graph, tmp_path / "same", version="10.16.1.99")
    runtime.open(same, THREADS).close()
    assert len(runtime.devices) == 1


def test_an_engine_for_another_gpu_is_refused_and_both_are_named(
    artifact_dir: Path, tmp_path: Path, runtime: FakeTensorRtRuntime
) -> None:
    artifact = fake_engine(
        Artifact.load(artifact_dir), tmp_path / "e", capability=90, gpu="NVIDIA H100"
    )
    with pytest.raises(SourceError, match=r"on NVIDIA H100 for .* 9\.0, and Fake GPU .* has 8\.9"):
        runtime.open(artifact, THREADS)
    assert runtime.devices[0].closed == 1


def test_a_damaged_engine_is_refused_in_the_library_s_words(
    artifact_dir: Path, tmp_path: Path, runtime: FakeTensorRtRuntime
) -> None:
    artifact = fake_engine(Artifact.load(artifact_dir), tmp_path / "e")
    artifact.path.write_bytes(artifact.path.read_bytes()[:-1])
    with pytest.raises(SourceError, match=r"model\.engine: Serialized engine has a bad checksum\."):
        runtime.open(artifact, THREADS)
    assert runtime.devices[0].closed == 1


def test_an_engine_of_another_signature_is_refused(
    source: Artifact, runtime: FakeTensorRtRuntime
) -> None:
    (spec,) = source.signature.outputs
    signature = replace(source.signature, outputs=(replace(spec, dtype="float16"),))
    with pytest.raises(SourceError, match="'logits'"):
        runtime.open(replace(source, signature=signature), THREADS)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (SessionOptions(optimize=False), "without optimisation"),
        (SessionOptions(tuning={"memry": "pycuda"}), "option of tensorrt named 'memry'"),
    ],
)
def test_options_that_it_has_not_are_refused(
    source: Artifact, runtime: FakeTensorRtRuntime, options: SessionOptions, told: str
) -> None:
    with pytest.raises(UsageError, match=told):
        runtime.open(source, options)


def test_the_package_for_memory_can_be_chosen(source: Artifact) -> None:
    asked = []

    def make(package: str | None) -> FakeCudaDevice:
        asked.append(package)
        return FakeCudaDevice()

    for tuning in ({}, {"memory": "pycuda"}):
        open_engine(trt, "tensorrt", source, SessionOptions(tuning=tuning), make).close()
    assert asked == [None, "pycuda"]
    with pytest.raises(ToolkitError, match="no package for device memory named 'cupy'"):
        open_engine(trt, "tensorrt", source, SessionOptions(tuning={"memory": "cupy"}))


def test_provenance_says_what_ran_and_how_long_each_part_took(session: Session) -> None:
    session.run(feeds(2))
    found = session.provenance()
    assert (found.runtime, found.version) == ("tensorrt", trt.__version__)
    assert (found.device, found.precision, found.threads) == ("cuda", "float32", 2)
    details = found.details
    assert details["gpu"] == "Fake GPU (host memory)"
    assert details["compute_capability"] == "8.9"
    assert details["device_memory_by"] == "fake"
    assert details["device_memory_bytes"] == 4096
    shapes = [[batch, 3, 32, 32] for batch in (1, 8, 64)]
    assert details["profile"] == {"input": shapes}
    assert details["tf32_allowed"] is False
    times = details["device_times_ms"]
    assert set(times) == {"host_to_device", "compute", "device_to_host", "passes"}
    assert all(times[part] >= 0 for part in times)
    assert times["compute"] > times["host_to_device"]
    assert times["passes"] == 20
