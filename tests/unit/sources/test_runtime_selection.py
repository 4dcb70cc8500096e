"""Which runtimes take part, by device."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from runtimes import ACCEPTS, FOR_CUDA, ON_CUDA, ON_REQUEST, PROVIDERS, RUNTIMES
from toolkit.core.artifact import Artifact, Format
from toolkit.core.errors import UnavailableError, UnknownNameError, UsageError
from toolkit.core.specs import ModelSpec, Signature
from toolkit.sources.runtime_selection import known_runtimes, missing_gpu, unopened

SIGNATURE = Signature(inputs=(), outputs=())
GRAPH = Artifact(
    model=ModelSpec(name="m", family="onnx", framework="onnx", signature=SIGNATURE),
    format=Format.ONNX,
    precision="float32",
    signature=SIGNATURE,
    directory=Path("place"),
    entry="model.onnx",
    digest="sha256:0",
    files={},
)
ENGINE = replace(GRAPH, format=Format.TENSORRT, entry="model.engine")


def test_the_tables_name_runtimes_that_there_are() -> None:
    names = set(RUNTIMES.names())
    assert names >= FOR_CUDA | set(ON_CUDA) | set(PROVIDERS.values()) | set(ACCEPTS)
    assert set(ON_CUDA.values()) <= FOR_CUDA
    assert not FOR_CUDA & ON_REQUEST


def test_by_default_those_of_the_cpu_are_measured() -> None:
    found = known_runtimes(None, [GRAPH])
    assert {"onnxruntime", "openvino"} <= set(found)
    assert not FOR_CUDA & set(found)


def test_on_cuda_those_are_measured_that_run_there() -> None:
    found = known_runtimes(None, [GRAPH, ENGINE], "cuda")
    assert set(found) == {*PROVIDERS.values(), "tensorrt"} - {"onnxruntime"}


def test_a_name_means_its_like_on_the_device() -> None:
    asked = ["torch", "onnxruntime", "onnxruntime-tensorrt", "tensorrt"]
    assert known_runtimes(asked, [], "cuda") == [
        "torch-cuda",
        "onnxruntime-cuda",
        "onnxruntime-tensorrt",
        "tensorrt",
    ]
    assert known_runtimes(asked, [], "cpu") == asked  # a GPU's runtime may be named beside others


def test_what_has_no_like_there_is_refused() -> None:
    with pytest.raises(UsageError, match="openvino does not run on cuda"):
        known_runtimes(["openvino"], [], "cuda")


def test_an_unknown_device_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="'cudda'"):
        known_runtimes(None, [GRAPH], "cudda")


def test_an_engine_alone_is_for_no_cpu() -> None:
    with pytest.raises(UnavailableError, match="which is tensorrt, on the cpu"):
        known_runtimes(None, [ENGINE])


def test_a_form_that_no_row_is_of_is_told() -> None:
    assert unopened(ENGINE, ["tensorrt"]) is None
    assert unopened(GRAPH, ["torch"]) is None  # others would have opened it: that was a choice
    told = unopened(ENGINE, ["torch", "onnxruntime"])
    assert told is not None
    assert "--runtime tensorrt or --device cuda" in told


def test_only_runtimes_for_a_gpu_are_asked_whether_they_can_run() -> None:
    assert missing_gpu("nosuch") is None
    assert missing_gpu("onnxruntime") is None
