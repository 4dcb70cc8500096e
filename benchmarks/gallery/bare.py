"""What an exporter or runtime makes of a member by itself, without the toolkit.

    bare.py KIND STEP SOURCE [ROWS.npz]

KIND is torch, keras or onnx, STEP a target of `toolkit export`, bench, calibrate or optimize.
Prints a JSON object: `error` is what it says if it refuses the model, else empty; `difference` is
the largest difference of the outputs to those expected, as a part of the largest value, or null.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np


class Refused(Exception):
    """An exporter or runtime raised the cause of this."""


@contextlib.contextmanager
def refusing() -> Iterator[None]:
    """Around what the exporter or runtime does: an error elsewhere is a fault of this script."""
    try:
        yield
    except Exception as error:
        raise Refused from error


def main() -> None:
    kind, step, source, *rows = sys.argv[1:]
    warnings.simplefilter("ignore")
    try:
        with tempfile.TemporaryDirectory() as place:
            if kind == "torch" and step in ("onnx", "torch-export", "aotinductor"):
                difference = _torch(step, source, Path(place))
            elif kind == "keras" and step in ("onnx", "litert", "savedmodel"):
                difference = _keras(step, source, Path(place))
            elif step == "calibrate":
                difference = _quantised(source, rows[0], Path(place))
            else:
                difference = _graph(source, rows[0])
    except Refused as refused:
        error = refused.__cause__
        words = " ".join(str(error).split())
        print(json.dumps({"error": f"{type(error).__name__}: {words[:300]}", "difference": None}))
        return
    print(json.dumps({"error": "", "difference": difference}))


def _made(source: str) -> Any:
    file, _, name = source.rpartition(":")
    spec = importlib.util.spec_from_file_location("members", file)
    members = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(members)
    return getattr(members, name)()


def _torch(step: str, source: str, place: Path) -> float:
    import torch
    from torch.utils import _pytree as pytree

    module, inputs = _made(source)
    inputs = {key: tensor.contiguous() for key, tensor in inputs.items()}
    first = next(tensor.shape[0] for tensor in inputs.values() if tensor.ndim)
    axes = {
        key: {0: torch.export.Dim.DYNAMIC} if tensor.ndim and tensor.shape[0] == first else None
        for key, tensor in inputs.items()
    }
    with torch.no_grad():
        expected = _leaves(pytree, module(**inputs))
    if step == "onnx":
        import onnxruntime

        path = str(place / "model.onnx")
        with refusing():
            torch.onnx.export(
                module, (), path, kwargs=inputs, dynamo=True, dynamic_shapes=axes, verbose=False
            )
            session = onnxruntime.InferenceSession(path)
        names = [given.name for given in session.get_inputs()]
        feeds = dict(zip(names, (t.numpy() for t in inputs.values()), strict=True))
        return apart(session.run(None, feeds), expected)
    with refusing():
        program = torch.export.export(module, (), kwargs=inputs, dynamic_shapes=axes)
    with torch.no_grad():
        if step == "torch-export":
            torch.export.save(program, place / "model.pt2")
            _alone("torch.export.load(sys.argv[1])", place / "model.pt2")
            return apart(_leaves(pytree, program.module()(**inputs)), expected)
        with refusing():
            path = torch._inductor.aoti_compile_and_package(
                program, package_path=str(place / "model.pt2")
            )
            found = torch._inductor.aoti_load_package(path)(**inputs)
        torch.save(inputs, place / "inputs.pt")
        run = "torch._inductor.aoti_load_package(sys.argv[1])(**torch.load(sys.argv[2]))"
        _alone(run, path, place / "inputs.pt")
        return apart(_leaves(pytree, found), expected)


def _alone(code: str, *paths: object) -> None:
    """Run code in a process that imports torch, but not the package of the model."""
    command = [sys.executable, "-c", f"import sys, torch, torch._inductor; {code}"]
    done = subprocess.run([*command, *map(str, paths)], capture_output=True, text=True, check=False)
    if done.returncode:
        with refusing():
            raise RuntimeError(done.stderr.strip().splitlines()[-1])


def _leaves(pytree: Any, value: Any) -> list[np.ndarray]:
    import torch

    return [leaf.numpy() for leaf in pytree.tree_leaves(value) if isinstance(leaf, torch.Tensor)]


def _keras(step: str, source: str, place: Path) -> float:
    import tensorflow as tf

    model = _made(source)
    rng = np.random.default_rng(0)
    inputs = [
        rng.integers(0, 16, (2, *tensor.shape[1:])).astype(tensor.dtype)
        if "int" in tensor.dtype
        else rng.standard_normal((2, *tensor.shape[1:])).astype(tensor.dtype)
        for tensor in model.inputs
    ]
    expected = [np.asarray(each) for each in tf.nest.flatten(model(inputs))]
    if step == "savedmodel":
        with refusing():
            model.export(place / "saved", verbose=False)
        served = tf.saved_model.load(str(place / "saved")).serve
        return apart([np.asarray(each) for each in tf.nest.flatten(served(*inputs))], expected)
    if step == "litert":
        from ai_edge_litert.interpreter import Interpreter

        with refusing():
            content = tf.lite.TFLiteConverter.from_keras_model(model).convert()
            interpreter = Interpreter(model_content=content)
            for detail, array in zip(interpreter.get_input_details(), inputs, strict=True):
                interpreter.resize_tensor_input(detail["index"], array.shape)
            interpreter.allocate_tensors()
            for detail, array in zip(interpreter.get_input_details(), inputs, strict=True):
                interpreter.set_tensor(detail["index"], array)
            interpreter.invoke()
        found = [interpreter.get_tensor(d["index"]) for d in interpreter.get_output_details()]
        return apart(found, expected)
    import onnxruntime

    path = str(place / "model.onnx")
    with refusing():
        model.export(path, format="onnx", verbose=False)
        session = onnxruntime.InferenceSession(path)
        names = [each.name for each in session.get_inputs()]
        found = session.run(None, dict(zip(names, inputs, strict=False)))
    return apart(found, expected)


def _graph(source: str, rows: str) -> float:
    """ONNX Runtime and OpenVINO on a graph, the one beside the other."""
    import onnxruntime
    import openvino

    feeds = dict(np.load(rows))
    with refusing():
        session = onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])
        expected = session.run(None, feeds)
        compiled = openvino.Core().compile_model(
            source, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "EXECUTION_MODE_HINT": "ACCURACY"}
        )
        found = compiled(feeds)
    return apart([found[place] for place in range(len(compiled.outputs))], expected)


def _quantised(source: str, rows: str, place: Path) -> None:
    """ONNX Runtime's own quantiser."""
    import onnx
    import onnxruntime
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    feeds = dict(np.load(rows))

    class Rows(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = [feeds]

        def get_next(self) -> dict[str, np.ndarray] | None:
            return self.left.pop() if self.left else None

    with refusing():
        quantize_static(source, str(place / "int8.onnx"), Rows())
        onnxruntime.InferenceSession(str(place / "int8.onnx")).run(None, feeds)
        nodes = onnx.load(place / "int8.onnx", load_external_data=False).graph.node
        if not any(node.op_type == "QuantizeLinear" for node in nodes):
            raise ValueError("it quantises nothing")


def apart(found: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> float:
    """The largest difference, as a part of the largest value; infinite if shapes differ."""
    largest = 0.0
    for mine, theirs in zip(found, expected, strict=False):
        if np.shape(mine) != np.shape(theirs):
            return float("inf")
        exact = np.asarray(theirs).astype(np.float64)
        scale = float(np.abs(exact).max(initial=0.0)) or 1.0
        largest = max(largest, float(np.abs(mine - exact).max(initial=0.0)) / scale)
    return largest


if __name__ == "__main__":
    main()
