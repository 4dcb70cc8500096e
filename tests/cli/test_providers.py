"""ONNX Runtime's providers for a GPU, with the real packages and no GPU: each is unavailable with
its reason, and none gives a number that the CPU made."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import TOOLKIT, Run, run_toolkit
from tests.gpu_packages import environment, gpu_package

QUICK = ("--scope", "forward", "--warmup", 1, "--runs", 12, "--json")
# What is not asked here, and takes long to import.
APART = ("tensorflow", "keras", "openvino", "jax", "ai_edge", "tensorrt")
NO_DRIVER = "no NVIDIA driver: libcuda.so.1 cannot be loaded"
GPU = pytest.mark.skipif(Path("/dev/nvidia0").exists(), reason="this machine has a GPU")
Python = Callable[..., "subprocess.CompletedProcess[str]"]

pytestmark = GPU


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Python:
    """In an environment that has onnxruntime-gpu, and no onnxruntime beside it."""
    packages = gpu_package("onnxruntime-gpu")
    place = tmp_path_factory.mktemp("environment")
    interpreter = environment(place, packages, without=("onnxruntime", *APART))

    def run(*args: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [interpreter, *map(str, args)],
            cwd=place,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    return run


def beside(name: str) -> dict[str, str]:
    """The environment in which these packages come before those of the tests."""
    places = [str(gpu_package(name)), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(places)}


def rows(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(done.stdout)["rows"]
    return found


def assert_no_number(row: dict[str, Any], reason: str) -> None:
    assert row["status"] == "unavailable"
    assert reason in row["reason"]
    assert row["scopes"] == {}
    assert row["parity"] is row["provenance"] is row["precision"]["ran"] is None


def test_cuda_and_tensorrt_without_a_gpu_are_unavailable(
    python: Python, artifact_dir: Path
) -> None:
    done = python(
        TOOLKIT, "bench", artifact_dir, "--runtime", "onnxruntime", "--provider", "cuda,tensorrt",
        *QUICK,
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    found = rows(done)
    assert [row["runtime"] for row in found] == ["onnxruntime-cuda", "onnxruntime-tensorrt"]
    for row in found:
        assert_no_number(row, NO_DRIVER)
        assert "nvidia-smi" in row["reason"]


def test_the_provider_of_the_cpu_works_beside_them(python: Python, artifact_dir: Path) -> None:
    done = python(
        TOOLKIT, "bench", artifact_dir, "--runtime", "onnxruntime", "--provider", "cpu,cuda", *QUICK
    )
    cpu, cuda = rows(done)
    assert (cpu["runtime"], cpu["status"]) == ("onnxruntime", "ok")
    assert cpu["scopes"]["forward"]
    assert cpu["provenance"]["device"] == "cpu"
    assert_no_number(cuda, NO_DRIVER)


@pytest.mark.real_start
def test_doctor_lists_them_with_reasons_and_hints(python: Python) -> None:
    done = python(TOOLKIT, "doctor", "--json")
    assert done.returncode == 0, done.stderr
    found = {one["name"]: one for one in json.loads(done.stdout)["runtimes"]}
    assert found["onnxruntime"]["status"] == "ok"
    for name in ("onnxruntime-cuda", "onnxruntime-tensorrt"):
        assert found[name]["status"] == "unavailable"
        assert found[name]["reason"] == NO_DRIVER
        assert "--gpus all" in found[name]["hint"]
        assert found[name]["version"] == found["onnxruntime"]["version"]
    plugin = found["onnxruntime-nv-tensorrt-rtx"]
    assert "onnxruntime-ep-nv-tensorrt-rtx is not installed" in plugin["reason"]
    assert "pip install" in plugin["hint"]
    for name in ("torch-cuda", "torch-compile-cuda"):
        assert found[name]["status"] == "unavailable"
        assert found[name]["hint"]


def test_two_packages_of_onnxruntime_are_a_conflict(artifact_dir: Path, tmp_path: Path) -> None:
    """Whatever else is missing: the files of both may be mixed."""
    done = run_toolkit(
        "bench", artifact_dir, "--provider", "cuda", *QUICK,
        cwd=tmp_path, env=beside("onnxruntime-gpu"),
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    (row,) = rows(done)
    assert_no_number(row, "are both installed")
    assert "pip uninstall --yes onnxruntime onnxruntime-gpu" in row["reason"]


def test_the_package_for_the_cpu_has_no_provider_for_a_gpu(
    artifact_dir: Path, toolkit_cli: Run
) -> None:
    done = toolkit_cli("bench", artifact_dir, "--provider", "cuda,tensorrt,nv-tensorrt-rtx", *QUICK)
    assert done.returncode == 3, done.stderr
    cuda, tensorrt, plugin = rows(done)
    assert_no_number(cuda, "has no CUDAExecutionProvider")
    assert_no_number(tensorrt, "has no TensorrtExecutionProvider")
    assert "pip install onnxruntime-gpu" in cuda["reason"]
    assert_no_number(plugin, "onnxruntime-ep-nv-tensorrt-rtx is not installed")


def test_the_plugin_without_a_gpu_is_unavailable(artifact_dir: Path, tmp_path: Path) -> None:
    done = run_toolkit(
        "bench", artifact_dir, "--provider", "nv-tensorrt-rtx", *QUICK,
        cwd=tmp_path, env=beside("rtx-plugin"),
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    (row,) = rows(done)
    assert row["runtime"] == "onnxruntime-nv-tensorrt-rtx"
    assert_no_number(row, NO_DRIVER)


PROVIDERS = """
import sys
from pathlib import Path
from runtimes.onnxruntime import libraries
from runtimes.onnxruntime.device_session import create
from runtimes.onnxruntime.gpu import KINDS, target
from runtimes.onnxruntime.options import parse
from runtimes.onnxruntime.session import settings_of
from toolkit.core.artifact import Artifact
from toolkit.core.errors import ToolkitError
from toolkit.core.session import SessionOptions

artifact = Artifact.load(Path(sys.argv[1]))
for runtime in ("onnxruntime-cuda", "onnxruntime-tensorrt"):
    kind = KINDS[runtime]
    for allowed in ("false", "true"):
        options = SessionOptions(tuning={"allow_cpu_nodes": allowed, **{
            name: "false" for name in ("engine_cache",) if name in kind.ours}})
        parsed = parse(options, runtime=runtime, provider=kind.options, ours=kind.ours)
        try:
            create(target(kind, artifact, parsed), settings_of(parsed.session), {"input": (1,)})
        except ToolkitError as error:
            said = f"{type(error).__name__} {error.problem} BY {error.__context__}"
            print(runtime, allowed, said.replace(chr(10), " "))
        else:
            print(runtime, allowed, "opened")
print("cuda:", libraries.cuda_fault())
print("tensorrt:", libraries.tensorrt_fault())
print("version:", libraries.tensorrt_version())
"""


def test_no_session_opens_in_place_of_one_on_the_gpu(python: Python, artifact_dir: Path) -> None:
    """Asked of ONNX Runtime itself, past the question whether there is a GPU."""
    done = python("-c", PROVIDERS, artifact_dir)
    assert done.returncode == 0, done.stderr
    cuda, allowed, tensorrt, also, *faults = done.stdout.splitlines()
    assert "UnavailableError" in cuda
    assert "without CUDAExecutionProvider" in cuda
    assert "explicitly disabled" in cuda  # by session.disable_cpu_ep_fallback
    assert "UnavailableError" in allowed
    for line in (tensorrt, also):
        assert "SourceError" in line
        assert "TensorRT libraries" in line
    assert "EP Error" not in done.stdout  # what ONNX Runtime prints before it falls back
    cuda_fault, tensorrt_fault, version = faults
    assert ".so" in cuda_fault
    assert "cannot open shared object file" in cuda_fault
    assert ".so" in tensorrt_fault
    assert version == "version: unknown"


PLUGIN = """
from runtimes.onnxruntime import libraries
print(libraries.plugin_version())
print(libraries.plugin_fault())
"""


def test_the_plugin_s_library_says_what_it_misses(tmp_path: Path) -> None:
    """Registered for real, and the process goes on."""
    done = subprocess.run(
        [TOOLKIT.with_name("python"), "-c", PLUGIN],
        cwd=tmp_path,
        env={**os.environ, **beside("rtx-plugin")},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    version, fault = done.stdout.splitlines()
    assert version[0].isdigit()
    assert "libcuda.so.1" in fault
