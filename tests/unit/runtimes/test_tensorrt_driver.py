"""The session of TensorRT's engines over cuda-bindings or PyCUDA themselves, with the driver that
stands in for NVIDIA's; and whether the runtimes say that they can run. Nothing has run on a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.doubles.engines import fake_engine
from tests.fake_cuda import NAME, fake_cuda, no_gpu
from tests.gpu_packages import built_pycuda, gpu_package
from tests.tensorrt_names import stub_libraries
from toolkit.core.artifact import Artifact

SESSION = """
import ctypes, os, sys
sys.setdlopenflags(os.RTLD_LAZY)  # PyCUDA names calls that the driver of the tests lacks
from pathlib import Path
import numpy as np
from tests.doubles import tensorrt_double as trt
from runtimes.tensorrt.session import open_engine
from toolkit.core.artifact import Artifact
from toolkit.core.errors import ToolkitError
from toolkit.core.session import SessionOptions

library = ctypes.CDLL("libcuda.so.1")
kept = []

def on_stream(stream_handle, work):
    kept.append(ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: work() and None))
    assert not library.cuLaunchHostFunc(ctypes.c_void_p(stream_handle), kept[-1], None)

trt.on_stream = on_stream
artifact = Artifact.load(Path(sys.argv[1]))
options = SessionOptions(tuning={"memory": sys.argv[2]})

def feeds(batch, seed=0):
    rng = np.random.default_rng(seed)
    return {"input": rng.standard_normal((batch, 3, 32, 32)).astype(np.float32)}

def left():
    names = ("device_bytes", "blocks", "streams", "events")
    return [getattr(library, f"fake_{name}")() for name in names]
"""


def told(code: str, *args: object, env: Mapping[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, args)],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def engine(artifact_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("engine") / "e"
    return fake_engine(Artifact.load(artifact_dir), place).directory


@pytest.fixture(params=["cuda-bindings", "pycuda"])
def package(request: pytest.FixtureRequest) -> tuple[str, dict[str, str]]:
    if request.param == "cuda-bindings":
        pytest.importorskip("cuda.bindings")
        return request.param, {}
    place = [str(built_pycuda()), *filter(None, [os.environ.get("PYTHONPATH")])]
    return request.param, {"PYTHONPATH": os.pathsep.join(place)}


def test_a_session_gives_the_model_s_values_and_leaves_nothing(
    engine: Path, artifact_dir: Path, package: tuple[str, dict[str, str]], tmp_path: Path
) -> None:
    name, env = package
    code = f"""{SESSION}
from runtimes.onnxruntime.cpu import OnnxRuntime
reference = OnnxRuntime().open(Artifact.load(Path({str(artifact_dir)!r})), SessionOptions())
session = open_engine(trt, "tensorrt", artifact, options)
held = []
for batch, seed in ((3, 0), (1, 1), (64, 2), (3, 3), (3, 0)):
    got = session.run(feeds(batch, seed))["logits"]
    held.append((got, got.copy()))
    want = reference.run(feeds(batch, seed))["logits"]
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
assert all(np.array_equal(a, b) for a, b in held)
found = session.provenance()
details = found.details
print(found.device, found.precision, details["gpu"], details["device_memory_by"], sep=" | ")
times = details["device_times_ms"]
assert times["compute"] > times["host_to_device"] > 0 < times["device_to_host"]
session.close()
print(left())
"""
    log = tmp_path / "calls"
    found = told(code, engine, name, env={**fake_cuda(log=log), **env})
    assert found.splitlines() == [f"cuda | float32 | {NAME} | {name}", "[0, 0, 0, 0]"]
    assert log.read_text().split("\n", 1)[0].startswith("synchronize")


def test_too_little_memory_is_an_error_and_leaves_nothing(
    engine: Path, package: tuple[str, dict[str, str]]
) -> None:
    name, env = package
    code = f"""{SESSION}
session = open_engine(trt, "tensorrt", artifact, options)
session.run(feeds(1))
try: session.run(feeds(64))
except ToolkitError as error: print(type(error).__name__)
print(session.run(feeds(1))["logits"].shape)
session.close()
print(left())
"""
    found = told(code, engine, name, env={**fake_cuda(memory=100_000), **env})
    assert found.splitlines() == ["SessionError", "(1, 10)", "[0, 0, 0, 0]"]


def test_an_engine_for_another_gpu_names_both(
    engine: Path, package: tuple[str, dict[str, str]]
) -> None:
    name, env = package
    code = f"""{SESSION}
try: open_engine(trt, "tensorrt", artifact, options)
except ToolkitError as error: print(error.problem)
print(left())
"""
    found = told(code, engine, name, env={**fake_cuda(capability=120), **env})
    assert "for compute capability 8.9, and Fake GPU (host memory) has 12.0" in found
    assert found.endswith("[0, 0, 0, 0]")


PROBE = """
from runtimes import RUNTIMES
from toolkit.core.errors import UnavailableError
import sys
try:
    plugin = RUNTIMES.create(sys.argv[1])
    found = plugin.probe()
    print(plugin.name, plugin.device, *plugin.accepts, sep=" | ")
    print(found.ok, found.version, found.reason, found.hint, sep=" | ")
except UnavailableError as error:
    print(error.problem, error.hint, sep=" | ")
"""


def tensorrt_env(place: Path, version: str) -> dict[str, str]:
    """In which `import tensorrt` finds the real bindings and libraries of nothing."""
    bindings = gpu_package(version)
    (place / "tensorrt.py").write_text("from tensorrt_bindings.tensorrt import *\n")
    with (place / "tensorrt.py").open("a") as stream:
        stream.write("from tensorrt_bindings import __version__\n")
    paths = [str(place), str(bindings), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        "PYTHONPATH": os.pathsep.join(paths),
        "LD_LIBRARY_PATH": f"{stub_libraries(bindings)}:{fake_cuda()['LD_LIBRARY_PATH']}",
    }


@pytest.mark.parametrize(
    ("version", "known"), [("tensorrt-10", "10.16.1.11"), ("tensorrt-11", "11.4.0.106")]
)
def test_tensorrt_can_run_where_there_is_a_gpu(tmp_path: Path, version: str, known: str) -> None:
    env = tensorrt_env(tmp_path, version)
    found = told(PROBE, "tensorrt", env={**fake_cuda(), **env}).splitlines()
    assert found == ["tensorrt | cuda | tensorrt", f"True | {known} | None | None"]
    found = told(PROBE, "tensorrt", env={**no_gpu(), **env}).splitlines()
    assert found[1].startswith(
        f"False | {known} | the NVIDIA driver gives no GPU: cuInit says CUDA"
    )
    assert "nvidia-smi" in found[1]


@pytest.mark.parametrize(
    ("version", "known"), [("tensorrt-10", "10.16.1.11"), ("tensorrt-11", "11.4.0.106")]
)
def test_a_library_that_gives_nothing_could_not_start(
    artifact_dir: Path, tmp_path: Path, version: str, known: str
) -> None:
    """As the real bindings say it, where the library returns null."""
    engine = fake_engine(Artifact.load(artifact_dir), tmp_path / "e", version=known).directory
    code = """
import sys
from pathlib import Path
from exporters import EXPORTERS, READERS
from exporters.base import ExportOptions
from runtimes import RUNTIMES
from toolkit.core.artifact import Artifact
from toolkit.core.errors import UnavailableError
from toolkit.core.session import SessionOptions
engine, graph = Artifact.load(Path(sys.argv[1])), Artifact.load(Path(sys.argv[2]))
for call in (
    lambda: RUNTIMES.create("tensorrt").open(engine, SessionOptions()),
    lambda: READERS.create("tensorrt").stored_tensors(engine.path),
    lambda: EXPORTERS.create("tensorrt").export(graph, engine.directory, ExportOptions()),
):
    try: call()
    except UnavailableError as error: print(error.problem)
"""
    env = {**tensorrt_env(tmp_path, version), "XDG_CACHE_HOME": str(tmp_path)}
    found = told(code, engine, artifact_dir, env={**fake_cuda(), **env}).splitlines()
    assert found == [
        f"tensorrt {known} could not start: it does not say why.",
        f"TensorRT {known} could not start: it does not say why.",
        f"TensorRT {known} could not start: it does not say why.",
    ]
    found = told(code, engine, artifact_dir, env={**no_gpu(), **env}).splitlines()
    assert found[0].startswith("There is no GPU: cuInit says CUDA_ERROR_NO_DEVICE")
    assert found[2].startswith(
        "TensorRT builds an engine on the GPU that it is for, and the NVIDIA"
    )


def test_tensorrt_rtx_can_run_where_there_is_a_gpu() -> None:
    pytest.importorskip("tensorrt_rtx")
    found = told(PROBE, "tensorrt-rtx", env=fake_cuda()).splitlines()
    assert found[0] == "tensorrt-rtx | cuda | tensorrt-rtx"
    assert found[1].startswith("True | ")
    found = told(PROBE, "tensorrt-rtx", env=os.environ).splitlines()
    assert "no NVIDIA driver: libcuda.so.1 cannot be loaded" in found[1]


def test_without_a_package_for_memory_it_cannot_and_says_what_to_install() -> None:
    pytest.importorskip("tensorrt_rtx")
    code = "import sys; sys.modules['cuda'] = sys.modules['pycuda'] = None\n" + PROBE
    found = told(code, "tensorrt-rtx", env=fake_cuda()).splitlines()[1]
    assert found.startswith("False | ")
    assert "cuda-bindings cannot be imported" in found
    assert "pycuda cannot be imported" in found
    assert found.endswith("pip install cuda-bindings")


def test_without_tensorrt_its_extra_is_named() -> None:
    code = "import sys; sys.modules['tensorrt'] = sys.modules['tensorrt_rtx'] = None\n" + PROBE
    for runtime, extra in (("tensorrt", "gpu"), ("tensorrt-rtx", "rtx")):
        found = told(code, runtime, env=os.environ)
        assert f"pip install 'inference-toolkit[{extra}]'" in found
