"""Settings of a model for Triton's backends, which read fewer options than the runtimes have.

Sources: src/onnxruntime.cc and src/openvino.cc of
https://github.com/triton-inference-server/onnxruntime_backend (00fd3e8; for GPUs 02ffb9e) and
openvino_backend (db19304). The backend's documentation gives optimisation levels as numbers, which
the source maps as in LEVELS.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from toolkit.core.artifact import Format
from toolkit.core.errors import UsageError
from toolkit.deploying.deploy import Deployed

FILES: Mapping[tuple[str, Format], str] = {
    ("onnxruntime", Format.ONNX): "model.onnx",
    ("openvino", Format.OPENVINO): "model.xml",
    ("openvino", Format.ONNX): "model.onnx",
    ("tensorrt", Format.TENSORRT): "model.plan",
}
"""Name that a backend expects of the model file, by backend and format."""

SERVED_BY: Mapping[str, tuple[str, str]] = {
    "onnxruntime-cuda": ("onnxruntime", "cuda"),
    "onnxruntime-tensorrt": ("onnxruntime", "tensorrt"),
}
"""Backend of each runtime with another name, and what it calls the runtime's execution provider."""

USUAL = {
    Format.ONNX: "onnxruntime",
    Format.OPENVINO: "openvino",
    Format.TENSORRT: "tensorrt",
}
"""Backend, by format, for an artifact without a chosen runtime; also the name of a runtime."""

LEVELS = {"basic": -1, "extended": 1, "disable": 2}  # of ONNX Runtime's optimiser; by default all
BFLOAT16 = (
    "Triton's OpenVINO backend cannot be limited to float32: a processor that has bfloat16 uses "
    "it, which is less precise than was measured."
)
IN_FLOAT32 = " Where that matters, deploy {}, which ONNX Runtime's serves in float32."
MODES = {"sequential": "0", "parallel": "1"}


@dataclass(kw_only=True)
class Settings:
    """Backend settings of a model: `parameters` and other `fields` of its configuration.

    `told` has remarks for the user, such as options that the model was measured with but that the
    backend does not read.
    """

    parameters: dict[str, str] = field(default_factory=dict)
    fields: dict[str, Any] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)


def backend_of(deployed: Deployed) -> str:
    """Return the backend for a model. Raise UsageError if none serves its format and runtime."""
    artifact = deployed.artifact
    runtime = deployed.runtime or USUAL.get(artifact.format, "")
    backend, _ = SERVED_BY.get(runtime, (runtime, ""))
    if (backend, artifact.format) not in FILES:
        chosen = f", chosen for {deployed.runtime}" if deployed.runtime else ""
        raise UsageError(
            f"{artifact.path} is {artifact.format}{chosen}, which no backend of Triton serves.",
            hint=f"Deploy a form that one does: {', '.join(USUAL)}.",
        )
    return backend


def on_gpu(backend: str, deployed: Deployed) -> bool:
    return backend == "tensorrt" or deployed.runtime in SERVED_BY


def settings_for(backend: str, deployed: Deployed, *, instances: int, batches: int) -> Settings:
    """Return the settings of a model for a backend; `batches` is its max_batch_size."""
    if deployed.runtime in SERVED_BY:
        return _onnxruntime_on_gpu(deployed)
    if backend == "onnxruntime":
        return _onnxruntime(deployed)
    if backend == "openvino":
        return _openvino(deployed, instances, batches)
    told = "An engine runs only on the GPU and the TensorRT version that it was built for."
    return Settings(told=[told])


def _onnxruntime(deployed: Deployed) -> Settings:
    """Return settings for the CPU, where each instance is a session with its own threads."""
    made = Settings(
        parameters={
            "intra_op_thread_count": str(deployed.options.threads),
            "inter_op_thread_count": "1",
        }
    )
    for name, value in deployed.options.tuning.items():
        if name == "graph_optimization_level" and value in LEVELS:
            made.fields["optimization"] = {"graph": {"level": LEVELS[value]}}
        elif name == "execution_mode":
            made.parameters[name] = MODES[value]
        elif name in ("enable_mem_pattern", "session.use_device_allocator_for_initializers"):
            made.parameters[name] = value
        elif name == "enable_cpu_mem_arena":
            made.parameters["enable_mem_arena"] = value
        elif (name, value) != ("graph_optimization_level", "all"):
            made.told.append(_unread(backend="ONNX Runtime", name=name, value=value))
    return made


def _onnxruntime_on_gpu(deployed: Deployed) -> Settings:
    """Return settings for an execution provider on a GPU, whose options are passed on by name.

    Both providers use TF32 by default.
    """
    _, name = SERVED_BY[deployed.runtime or ""]
    tuning = deployed.options.tuning
    options = {key: value for key, value in tuning.items() if "cuda_graph" not in key}
    made = Settings()
    if len(options) < len(tuning):
        made.told.append("CUDA graphs are left out: they take one batch, and Triton's vary.")
    if name == "cuda":
        options["use_tf32"] = "1" if options.pop("tf32", "") == "true" else "0"
    else:
        made.told.append(
            "Triton has no option that keeps TensorRT to float32: start it with "
            "NVIDIA_TF32_OVERRIDE=0, as it was measured."
        )
    accelerator = {"name": name, "parameters": options}
    made.fields["optimization"] = {
        "execution_accelerators": {"gpu_execution_accelerator": [accelerator]}
    }
    return made


def _openvino(deployed: Deployed, instances: int, batches: int) -> Settings:
    """Return settings for OpenVINO, where instances are requests of one compiled model.

    Each instance needs a stream of that model.
    """
    made = Settings(
        parameters={
            "INFERENCE_NUM_THREADS": str(deployed.options.threads * instances),
            "NUM_STREAMS": str(instances),
            "PERFORMANCE_HINT": "LATENCY",
        }
    )
    if deployed.artifact.format is Format.ONNX:
        made.fields["default_model_filename"] = FILES["openvino", Format.ONNX]
    if batches > 1:
        made.parameters["ENABLE_BATCH_PADDING"] = "YES"
        made.told.append(
            f"Triton's OpenVINO backend computes every batch as one of {batches}: fewer rows are "
            "padded."
        )
    tuning = dict(deployed.options.tuning)
    if tuning.pop("INFERENCE_PRECISION_HINT", "f32") == "bf16":
        made.parameters["HINT_BF16"] = "YES"
    else:
        onnx = deployed.artifact.format is Format.ONNX
        instead = IN_FLOAT32.format(deployed.artifact.directory) if onnx else ""
        made.told.append(f"{BFLOAT16}{instead}")
    made.told += [_unread(backend="OpenVINO", name=k, value=v) for k, v in tuning.items()]
    return made


def _unread(*, backend: str, name: str, value: str) -> str:
    return f"Triton's {backend} backend does not read {name}, which was {value} when measured."
