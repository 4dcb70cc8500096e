"""What starting up may import, and what the layers hold."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import calibration
import exporters
import models
import runtimes
import toolkit
from tests.conftest import TOOLKIT

HEAVY = (
    "cuda",
    "cv2",
    "duckdb",
    "elftools",
    "flax",
    "jax",
    "jinja2",
    "keras",
    "mlflow",
    "mxnet",
    "numpy",
    "nvtripy",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "openvino",
    "pooch",
    "pycuda",
    "ray",
    "requests",
    "scipy",
    "sklearn",
    "tensorflow",
    "tensorrt",
    "tensorrt_rtx",
    "torch",
    "tritonclient",
    "vl_convert",
)
LEAVES = (
    "calibration.kept",
    "calibration.qdq",
    "exporters.activations.",
    "exporters.analysis.",
    "exporters.litert",
    "exporters.onnx.",
    "exporters.openvino_ir",
    "exporters.passes.",
    "exporters.saved_model",
    "exporters.tensorrt.",
    "exporters.torch_",
    "exporters.tripy_module",
    "models.flax",
    "models.keras",
    "models.mxnet",
    "models.torch",
    "models.tripy",
    "runtimes.cuda.",
    "runtimes.litert",
    "runtimes.onnx_reference",
    "runtimes.onnxruntime.",
    "runtimes.openvino",
    "runtimes.tensorflow.",
    "runtimes.tensorrt.",
    "runtimes.torch.",
    "runtimes.tripy",
    "toolkit.data.california_housing",
    "toolkit.data.cifar",
    "toolkit.data.diabetes",
    "toolkit.data.digits",
    "toolkit.data.downloads",
    "toolkit.data.gtsrb",
    "toolkit.report.page",
    "toolkit.report.pictures",
    "toolkit.trainers.jax_",
    "toolkit.trainers.mxnet_",
    "toolkit.trainers.tensorflow_",
    "toolkit.trainers.torch_",
)


def loaded_by(code: str) -> set[str]:
    """The top-level modules that a new interpreter has loaded after `code`."""
    report = "import sys; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-P", "-c", f"{code}\n{report}"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.splitlines()[-1].split())


def modules() -> list[str]:
    packages = (toolkit, models, exporters, runtimes, calibration)
    return sorted(
        info.name
        for package in packages
        for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    )


@pytest.mark.parametrize(
    "command",
    [
        "",
        "train",
        "export",
        "calibrate",
        "verify",
        "bench",
        "bench-training",
        "models",
        "parity weights",
        "inspect",
        "doctor",
    ],
)
def test_help_imports_nothing_heavy(command: str) -> None:
    code = (
        f"import sys; sys.argv = ['toolkit', *'{command}'.split(), '--help']\n"
        "from toolkit.cli.main import app\n"
        "try: app()\n"
        "except SystemExit as end: assert not end.code"
    )
    assert loaded_by(code).isdisjoint((*HEAVY, "rich"))


def test_importing_the_package_is_light() -> None:
    assert loaded_by("import toolkit").isdisjoint((*HEAVY, "typer", "rich"))


def test_only_leaves_import_frameworks() -> None:
    """Each in turn, in one interpreter: the first that brings a framework is named."""
    others = [name for name in modules() if not name.startswith(LEAVES)]
    code = (
        "import importlib, sys\n"
        f"for name in {others}:\n"
        "    importlib.import_module(name)\n"
        f"    heavy = {set(HEAVY) - {'numpy'}} & set(sys.modules)\n"
        "    assert not heavy, (name, heavy)"
    )
    assert len(others) > 40
    loaded_by(code)


def test_every_module_is_where_it_is_imported_from() -> None:
    """The five packages are siblings on the disk: the path is the import path."""
    root = Path(toolkit.__file__).parents[1]
    for package in (toolkit, models, exporters, runtimes, calibration):
        assert Path(package.__file__).parent == root / package.__name__


def test_the_public_names_are_all_there() -> None:
    for name in toolkit.__all__:
        assert getattr(toolkit, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nosuch'"):
        toolkit.nosuch  # noqa: B018


def test_the_console_script_is_installed() -> None:
    assert TOOLKIT.is_file()


def test_no_source_file_is_ignored() -> None:
    """What git ignores is in no clone and in no wheel."""
    root = Path(toolkit.__file__).parents[1]
    ours = (
        path for path in root.iterdir() if not path.name.startswith((".venv", ".gallery", ".gpu"))
    )
    files = [file for path in ours for file in path.rglob("*.py")]
    done = subprocess.run(
        ["git", "check-ignore", "--stdin"],
        input="\n".join(str(path.relative_to(root)) for path in files),
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert len(files) > 60
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
