"""What `toolkit deploy` writes, in a real Triton Inference Server on this machine.

The server is that of nvidia-pytriton, which has no backend for ONNX Runtime or OpenVINO: a double
stands in their place. That the configuration is valid, the warm-up, and how tensors go in and out
are Triton's own doing.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import toolkit
from tests.cli.test_deploy import SHAPES, chosen_for, graph
from tests.gpu_packages import environment, gpu_package

ROOT = Path(__file__).parents[2]
ROWS = np.random.default_rng(0).standard_normal((3, 3, 32, 32)).astype(np.float32)


class Refused(Exception):
    """What the server answered with its reason."""


@dataclass(frozen=True, kw_only=True)
class Server:
    url: str
    log: Path

    def ask(self, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        try:
            with urllib.request.urlopen(f"{self.url}/v2/{path}", data, timeout=30) as answer:
                return json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            raise Refused(error.read().decode()) from error

    def told(self) -> list[dict[str, Any]]:
        """What the double said since the server began."""
        lines = self.log.read_text(errors="replace").splitlines()
        return [json.loads(line.partition("double: ")[2]) for line in lines if "double: " in line]


def backends(home: Path, place: Path) -> Path:
    """Triton's backend for Python, and the double under the names of the two that are missing."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    python = place / "python"
    shutil.copytree(home / "backends" / "python", python)
    shutil.copy(home / "python_backend_stubs" / version / "triton_python_backend_stub", python)
    for name in ("onnxruntime", "openvino"):
        (place / name).mkdir()
        shutil.copy(ROOT / "tests" / "triton_backend_double.py", place / name / "model.py")
    return place


@contextlib.contextmanager
def serving(repository: Path, place: Path) -> Iterator[Server]:
    package = gpu_package("triton-server")
    home = package / "pytriton" / "tritonserver"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = place / "log.txt"
    # Its Python backend finds its packages by the Python in PATH. It was built for NumPy 1.
    python = environment(place / "python", package, without=("numpy",))
    variables = {
        **os.environ,
        "PATH": f"{python.parent}:{os.environ['PATH']}",
        "LD_LIBRARY_PATH": str(package / "nvidia_pytriton.libs"),
    }
    command = [
        home / "bin" / "tritonserver", f"--model-repository={repository}",
        f"--backend-directory={backends(home, place / 'backends')}",
        "--http-address=127.0.0.1", f"--http-port={port}", "--allow-grpc=false",
        "--allow-metrics=false", "--disable-auto-complete-config",
    ]  # fmt: skip
    with log.open("wb") as stream:
        process = subprocess.Popen(command, env=variables, stdout=stream, stderr=stream)
    server, deadline = Server(url=f"http://127.0.0.1:{port}", log=log), time.monotonic() + 120
    try:
        while True:
            with contextlib.suppress(OSError):
                server.ask("health/ready")
                break
            assert process.poll() is None, log.read_text(errors="replace")
            assert time.monotonic() < deadline, log.read_text(errors="replace")
            time.sleep(0.3)
        yield server
    finally:
        process.terminate()
        process.wait()


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_triton_serves_a_bundle_with_the_model_s_outputs(
    runtime: str, main_path: Path, tmp_path: Path
) -> None:
    bundle = chosen_for(runtime, main_path / "lenet-onnx", tmp_path / "bundle")
    toolkit.deploy(bundle, to="triton", out=tmp_path / "repository", name="digits")
    with serving(tmp_path / "repository", tmp_path) as server:
        config = server.ask("models/digits/config")
        opened, *warm = server.told()
        query = {
            "inputs": [
                {"name": "input", "datatype": "FP32", "shape": list(ROWS.shape),
                 "data": ROWS.ravel().tolist()}
            ]
        }  # fmt: skip
        (output,) = server.ask("models/digits/infer", query)["outputs"]
        with pytest.raises(Refused, match="shape"):
            server.ask("models/digits/infer", wrong_shape(query))
    assert (config["backend"], config["max_batch_size"]) == (runtime, 8)
    assert config["instance_group"][0]["count"] == 2
    assert opened["opened"].endswith("/1/model.onnx")
    rows = [one["rows"] for one in warm if "rows" in one]
    assert rows == [8] * 20  # ten passes of the measured batch in each of two instances
    found = np.array(output["data"], np.float32).reshape(output["shape"])
    with toolkit.load(main_path / "lenet-onnx", runtime=runtime) as session:
        right = session.run({"input": ROWS})["logits"]
    # OpenVINO's backend computes in bfloat16 where the processor can, as `deploy` tells.
    off = {"onnxruntime": 1e-5, "openvino": 2e-2}[runtime]
    np.testing.assert_allclose(found, right, rtol=0, atol=off)


def test_triton_serves_tensors_with_and_without_a_batch(tmp_path: Path) -> None:
    """All in one repository, since the server takes seconds to start."""
    feeds: dict[str, dict[str, np.ndarray]] = {}
    for name, (inputs, _) in SHAPES.items():
        path = graph(tmp_path, name)
        toolkit.deploy(path, to="triton", out=tmp_path / name, name=name)
        shutil.copytree(tmp_path / name / name, tmp_path / "repository" / name)
        sizes = {"n": 1, "time": 3, "batch": 2, None: 2}
        shapes = {key: [sizes.get(dim, dim) for dim in shape] for key, shape in inputs.items()}
        feeds[name] = {
            key: ROWS.ravel()[: np.prod(shape, dtype=int)].reshape(shape)
            for key, shape in shapes.items()
        }
    with serving(tmp_path / "repository", tmp_path) as server:
        for name, given in feeds.items():
            query = {
                "inputs": [
                    {"name": key, "datatype": "FP32", "shape": list(array.shape) or [1],
                     "data": array.ravel().tolist()}
                    for key, array in given.items()
                ]
            }  # fmt: skip
            (output,) = server.ask(f"models/{name}/infer", query)["outputs"]
            with toolkit.load(tmp_path / f"{name}.onnx", runtime="onnxruntime") as session:
                right = session.run(given)["y"]
            np.testing.assert_allclose(output["data"], right.ravel(), rtol=1e-5, err_msg=name)


def wrong_shape(query: dict[str, Any]) -> dict[str, Any]:
    (tensor,) = query["inputs"]
    return {"inputs": [{**tensor, "shape": [3, 3, 16, 64]}]}
