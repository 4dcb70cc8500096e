"""A double of Triton's backends for ONNX Runtime and OpenVINO, which no Python package brings.

A "Python-based backend" of Triton: the server reads the configuration, batches, and warms up; this
opens the file with the runtime of the backend's name, by the parameters that the real one reads.
It prints a line of JSON when it opens a model, and for each call.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import triton_python_backend_utils as triton  # Triton puts it there

USUAL = {"onnxruntime": "model.onnx", "openvino": "model.xml"}
OPENVINO = ("INFERENCE_NUM_THREADS", "NUM_STREAMS", "PERFORMANCE_HINT")


class TritonPythonModel:
    """The name that Triton asks for."""

    def initialize(self, args: dict[str, str]) -> None:
        config = json.loads(args["model_config"])
        self.config = config
        told = {name: one["string_value"] for name, one in config["parameters"].items()}
        backend = config["backend"]
        file = config.get("default_model_filename") or USUAL[backend]
        path = str(Path(args["model_repository"]) / args["model_version"] / file)
        self.run = {"onnxruntime": onnxruntime, "openvino": openvino}[backend](path, told)
        self.scalars = scalars(path) if backend == "onnxruntime" else set()
        say({"opened": path, "parameters": told, "instance": args["model_instance_name"]})

    def execute(self, requests: list[Any]) -> list[Any]:
        found, rows = [], []
        for request in requests:
            feeds = {
                one["name"]: triton.get_input_tensor_by_name(request, one["name"]).as_numpy()
                for one in self.config["input"]
            }
            for name in self.scalars & feeds.keys():  # onnxruntime.cc: declared as [1]
                feeds[name] = feeds[name].reshape(())
            first = next(iter(feeds.values()))
            rows.append(len(first) if first.ndim else 1)
            names = [one["name"] for one in self.config["output"]]
            tensors = [
                triton.Tensor(n, a.reshape(1) if n in self.scalars else a)
                for n, a in zip(names, self.run(names, feeds), strict=True)
            ]
            found.append(triton.InferenceResponse(output_tensors=tensors))
        say({"rows": sum(rows)})  # the real backends compute them at once
        return found


def onnxruntime(path: str, told: dict[str, str]) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(told["intra_op_thread_count"])
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]).run


def scalars(path: str) -> set[str]:
    """The inputs and outputs of a graph that have no axis."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return {one.name for one in (*session.get_inputs(), *session.get_outputs()) if not one.shape}


def openvino(path: str, told: dict[str, str]) -> Any:
    import openvino

    settings = {name: told[name] for name in OPENVINO}
    compiled = openvino.Core().compile_model(path, "CPU", settings)
    return lambda names, feeds: [compiled(feeds)[name] for name in names]


def say(told: dict[str, Any]) -> None:
    sys.stdout.write(f"double: {json.dumps(told)}\n")
    sys.stdout.flush()
