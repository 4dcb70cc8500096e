"""Every name that our code asks of TensorRT 10, 11 and RTX, and of CUDA's driver, against the real
bindings of each; and the signatures of the double."""

from __future__ import annotations

import enum
import importlib
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import tensorrt_names
from tests.doubles import tensorrt_double
from tests.gpu_packages import gpu_package
from tests.tensorrt_names import CLASSES, LAYERS, by_class, names_in, parameters, stub_libraries
from toolkit.core.engines import DTYPES
from toolkit.optimizing.programs import PROGRAMS

SHARED = (
    "runtimes/tensorrt/session.py",
    "exporters/tensorrt/engine.py",
    "exporters/tensorrt/network.py",
    "exporters/tensorrt/timing_cache.py",
    "toolkit/core/engines.py",
)
LEAVES = {
    "tensorrt": ("runtimes/tensorrt/standard.py", "exporters/tensorrt/standard.py"),
    "tensorrt-rtx": ("runtimes/tensorrt/rtx.py", "exporters/tensorrt/rtx.py"),
}
DOUBLES = ("Runtime", "ICudaEngine", "IExecutionContext", "EngineInspector")
LAYER_TYPES = ("CONSTANT", "CONVOLUTION", "DECONVOLUTION", "SCALE", "QUANTIZE", "DEQUANTIZE")
ENUMS = ("DataType", "TensorIOMode", "TensorLocation", "LayerInformationFormat")
ASK = """
import importlib, json, sys
from tests.tensorrt_names import missing
trt = importlib.import_module(sys.argv[1])
names, methods = json.load(sys.stdin)
docs = {f"{kind}.{name}": getattr(getattr(trt, kind), name).__doc__ for kind, name in methods}
print(json.dumps([trt.__version__, missing(trt, names), docs]))
"""


def asked(
    module: str, names: set[tuple[str, str]], methods: list[tuple[str, str]], **env: str
) -> list[Any]:
    done = subprocess.run(
        [sys.executable, "-c", ASK, module],
        input=json.dumps([sorted(names), methods]),
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: list[Any] = json.loads(done.stdout)
    return found


def methods_of_the_double() -> dict[tuple[str, str], list[str] | None]:
    """The parameters of each, without self; None for a property."""
    found: dict[tuple[str, str], list[str] | None] = {}
    for kind in DOUBLES:
        for name, member in vars(getattr(tensorrt_double, kind)).items():
            if not name.startswith("_"):
                plain = inspect.isfunction(member)
                found[kind, name] = (
                    list(inspect.signature(member).parameters)[1:] if plain else None
                )
    return found


@pytest.fixture(params=["tensorrt-10", "tensorrt-11", "tensorrt-rtx"])
def bindings(request: pytest.FixtureRequest) -> tuple[str, str, dict[str, str]]:
    """The target, the module, and the environment that it can be imported in."""
    if request.param == "tensorrt-rtx":
        pytest.importorskip("tensorrt_rtx")
        return "tensorrt-rtx", "tensorrt_rtx", {}
    place = gpu_package(request.param)
    path = [str(place), str(Path(__file__).parents[3])]
    env = {"LD_LIBRARY_PATH": str(stub_libraries(place)), "PYTHONPATH": os.pathsep.join(path)}
    return "tensorrt", "tensorrt_bindings", env


def test_the_names_are_found_in_the_sources() -> None:
    names = names_in(*SHARED, *LEAVES["tensorrt"])
    assert {*CLASSES.values()} - set(by_class(names)) == set()
    for known in (
        ("", "BuilderFlag.TF32"),
        ("", "ILogger.INTERNAL_ERROR"),
        ("Runtime", "deserialize_cuda_engine"),
        ("IExecutionContext", "execute_async_v3"),
        ("ICudaEngine", "device_memory_size_v2"),
        ("IBuilderConfig", "profiling_verbosity"),
        ("ITimingCache", "serialize"),
        ("ParserError", "node_operator"),
        (LAYERS, "kernel_size_nd"),
    ):
        assert known in names
    assert len(names) > 70


def test_every_name_is_there(bindings: tuple[str, str, dict[str, str]], tmp_path: Path) -> None:
    """The program of a bundle asks for some, too."""
    target, module, env = bindings
    program = tmp_path / "run.py"
    program.write_text(PROGRAMS[target])
    names = names_in(*SHARED, *LEAVES[target])
    of_the_program = names_in(str(program))
    assert ("IExecutionContext", "execute_async_v3") in of_the_program
    names |= of_the_program
    names |= {("", f"DataType.{name}") for name in DTYPES}
    names |= {("", f"LayerType.{name}") for name in LAYER_TYPES}
    version, missing, _ = asked(module, names, [], **env)
    assert version
    assert missing == []


def test_a_name_that_is_not_there_is_found(
    bindings: tuple[str, str, dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of one version only, of a class, and one that is misspelt."""
    monkeypatch.setattr(tensorrt_names, "ROOT", tmp_path)
    (tmp_path / "wrong.py").write_text(
        "def f(self, trt, config, parsed):\n"
        "    config.set_flag(trt.BuilderFlag.FP16)\n"
        "    self._engine.device_memory_size\n"
        "    self._context.execute_async_v4(parsed.builder.create_networks())\n"
        "    trt.Runtime(None).deserialise()\n"
    )
    names = names_in("wrong.py")
    _, missing, _ = asked(bindings[1], names, [], **bindings[2])
    always = {"Builder.create_networks", "IExecutionContext.execute_async_v4"}
    gone = {".BuilderFlag.FP16", "ICudaEngine.device_memory_size"}
    with_10 = "tensorrt-10" in bindings[2].get("PYTHONPATH", "")
    assert set(missing) - gone == always | {"Runtime.deserialise"}
    assert set(missing) & gone == (set() if with_10 else gone)


def test_the_double_has_the_signatures_of_the_real_ones(
    bindings: tuple[str, str, dict[str, str]],
) -> None:
    _, module, env = bindings
    methods = methods_of_the_double()
    members = {
        ("", f"{kind}.{member.name}")
        for kind in ENUMS
        for member in getattr(tensorrt_double, kind)
        if issubclass(getattr(tensorrt_double, kind), enum.Enum)
    }
    calls = [key for key, names in methods.items() if names is not None]
    _, missing, docs = asked(module, {*methods, *members}, calls, **env)
    assert missing == []
    for kind, name in calls:
        taken = parameters(docs[f"{kind}.{name}"])
        wanted = methods[kind, name]
        assert any(one[: len(wanted or [])] == wanted for one in taken), (kind, name, taken)


@pytest.mark.parametrize("place", [None, "cuda-12"])
def test_every_name_of_the_driver_is_there(place: str | None) -> None:
    pytest.importorskip("cuda.bindings")
    names = names_in("runtimes/cuda/driver_bindings.py", roots={"cuda": ""})
    assert ("", "cuMemcpyHtoDAsync") in names
    assert ("", "CUevent_flags.CU_EVENT_DEFAULT") in names
    env = {}
    if place is not None:
        path = [str(gpu_package(place)), str(Path(__file__).parents[3])]
        env = {"PYTHONPATH": os.pathsep.join(path)}
    code = ASK.replace("trt.__version__", "__import__('cuda.bindings').bindings.__version__")
    done = subprocess.run(
        [sys.executable, "-c", code, "cuda.bindings.driver"],
        input=json.dumps([sorted(names), []]),
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=True,
    )
    version, missing, _ = json.loads(done.stdout)
    assert version.startswith(
        "12." if place else importlib.import_module("cuda.bindings").__version__
    )
    assert missing == []
