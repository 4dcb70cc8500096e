"""Deployment to a model repository for Triton Inference Server.

The layout and the fields of config.pbtxt follow
https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/user_guide/model_configuration.html;
the protobuf message is Triton's own (model_config.proto, in tritonclient).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from toolkit.core.errors import UnavailableError, UsageError
from toolkit.core.files import write_atomically
from toolkit.core.specs import Dim, Signature, TensorSpec
from toolkit.deploying.deploy import Deployed
from toolkit.deploying.triton_backends import (
    FILES,
    Settings,
    backend_of,
    on_gpu,
    settings_for,
)

CONFIG = "config.pbtxt"
VERSION = "1"
DTYPES = {
    "float16": "FP16", "float32": "FP32", "float64": "FP64", "bfloat16": "BF16", "bool": "BOOL",
    "int8": "INT8", "int16": "INT16", "int32": "INT32", "int64": "INT64",
    "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64",
}  # fmt: skip
WAIT = 0.5  # how long a request may wait for others to join its batch, as a fraction of a pass
WARMUPS = 10


def write_repository(
    directory: Path, deployed: Deployed, name: str, max_batch: int | None, instances: int | None
) -> list[str]:
    """Write `directory/NAME`, with the artifact's files as version 1 and config.pbtxt.

    Return remarks for the user. Raise UsageError if Triton cannot serve the model, if `max_batch`
    or `instances` is below 1, or if `max_batch` is given for a model that Triton cannot batch.
    """
    artifact = deployed.artifact
    backend = backend_of(deployed)
    entry = FILES[backend, artifact.format]
    obstacle = _not_batched(artifact.signature)
    if max_batch is not None and obstacle:
        raise UsageError(
            f"Got --max-batch {max_batch} for a model that Triton cannot batch: {obstacle}.",
            hint="Leave it out, or deploy a form whose inputs and outputs all begin with a dynamic "
            "batch axis.",
        )
    for option, value in (("--max-batch", max_batch), ("--instances", instances)):
        if value is not None and value < 1:
            raise UsageError(f"Got {option} {value}, expected 1 or more.", hint="Give 1 or more.")
    if obstacle and backend != "onnxruntime":
        _refuse_scalars(artifact.signature, backend)
    place = directory / name / VERSION
    place.mkdir(parents=True)
    for file in _needed(deployed):
        renamed = entry if file == artifact.entry else file
        if file == Path(artifact.entry).with_suffix(".bin").name:
            renamed = Path(entry).with_suffix(".bin").name
        artifact.copy_file(file, place / renamed)
    batches = 0 if obstacle else max_batch or deployed.batch
    count = instances or (1 if on_gpu(backend, deployed) else _instances(deployed))
    settings = settings_for(backend, deployed, instances=count, batches=batches)
    text = _config(deployed, name, backend, settings, batches, count)
    write_atomically(directory / name / CONFIG, text.encode())
    remarks = [f"Triton does not batch this model: {obstacle}."] if obstacle else []
    return [*_told(deployed), *remarks, *settings.told]


def _not_batched(signature: Signature) -> str | None:
    """Return why Triton cannot batch the samples of several requests; None if it can.

    Triton adds a first axis to every input and output of a model with a `max_batch_size`, so all of
    them need a dynamic first axis, and it must be the same.
    """
    batch = signature.batch_axis
    for kind, specs in (("input", signature.inputs), ("output", signature.outputs)):
        for spec in specs:
            if not spec.shape:
                return f"{kind} {spec.name!r} is a scalar"
            if isinstance(spec.shape[0], int):
                return f"the first axis of {kind} {spec.name!r} is fixed at {spec.shape[0]}"
            if spec.shape[0] is None:
                return f"the first axis of {kind} {spec.name!r} has no name"
            if spec.shape[0] != batch:
                return f"the first axis of {kind} {spec.name!r} is {spec.shape[0]!r}, not {batch!r}"
    return None


def _refuse_scalars(signature: Signature, backend: str) -> None:
    """Raise UsageError if a tensor is a scalar: only the ONNX Runtime backend serves scalars."""
    for spec in (*signature.inputs, *signature.outputs):
        if not spec.shape:
            raise UsageError(
                f"{spec} has no axis, which Triton's {backend} backend cannot serve.",
                hint="Deploy the ONNX form: the onnxruntime backend serves it.",
            )


def _needed(deployed: Deployed) -> list[str]:
    """Return the files that a backend reads: all but the manifest and the records of checks."""
    apart = {"parity.json", "calibration.json", "manifest.json"}
    return [name for name in deployed.artifact.files if name not in apart]


def _told(deployed: Deployed) -> Iterator[str]:
    if not deployed.evidence:
        yield (
            "This is an artifact by itself, so that nothing measured stands behind its batch and "
            "threads: deploy a bundle of `toolkit optimize`."
        )


def _config(
    deployed: Deployed, name: str, backend: str, settings: Settings, batches: int, instances: int
) -> str:
    """Return the text of config.pbtxt. Raise UnavailableError if Triton's client is missing."""
    try:
        from google.protobuf import text_format
        from tritonclient.grpc import model_config_pb2
    except ImportError as error:
        raise UnavailableError(
            f"Triton's client could not be imported: {error}.",
            hint="Install it: pip install 'inference-toolkit[triton]'",
        ) from error
    body: dict[str, Any] = {
        "name": name,
        "backend": backend,
        "max_batch_size": batches,
        "input": [_tensor(one, batches) for one in deployed.artifact.signature.inputs],
        "output": [_tensor(one, batches) for one in deployed.artifact.signature.outputs],
        "instance_group": [
            {
                "kind": "KIND_GPU" if on_gpu(backend, deployed) else "KIND_CPU",
                "count": instances,
            }
        ],
        "model_warmup": [_warmup(deployed, batches)],
        "parameters": {key: {"string_value": value} for key, value in settings.parameters.items()},
        **settings.fields,
    }
    if batches > 1:
        body["dynamic_batching"] = {"max_queue_delay_microseconds": _delay(deployed)}
    from google.protobuf import json_format

    config = json_format.ParseDict(body, model_config_pb2.ModelConfig())
    return str(text_format.MessageToString(config))


def _tensor(spec: TensorSpec, batches: int) -> dict[str, Any]:
    """Return the declaration of a tensor, without its batch axis if Triton adds that.

    Triton has no tensors without axes, so they are declared with one axis of extent 1. With a batch
    axis, a reshape removes that axis; without, the ONNX Runtime backend does.
    """
    shape = _own_axes(spec, batches)
    declared: dict[str, Any] = {
        "name": spec.name,
        "data_type": f"TYPE_{_dtype(spec)}",
        "dims": [str(dim) if isinstance(dim, int) else "-1" for dim in shape] or ["1"],
    }
    return declared if shape or not batches else {**declared, "reshape": {"shape": []}}


def _own_axes(spec: TensorSpec, batches: int) -> Sequence[Dim]:
    return spec.shape[1:] if batches else spec.shape


def _dtype(spec: TensorSpec) -> str:
    if spec.dtype not in DTYPES:
        raise UsageError(
            f"{spec} has a dtype that Triton has no name for.",
            hint=f"Deploy a model of {', '.join(DTYPES)}.",
        )
    return DTYPES[spec.dtype]


def _warmup(deployed: Deployed, batches: int) -> dict[str, Any]:
    """Return a warm-up with zeros at the measured batch size, which precedes the first request."""
    return {
        "name": f"batch of {deployed.batch}",
        "batch_size": min(deployed.batch, batches) if batches else 0,
        "count": WARMUPS,
        "inputs": {
            spec.name: {
                "data_type": f"TYPE_{_dtype(spec)}",
                "dims": [
                    str(dim) if isinstance(dim, int) else "1" for dim in _own_axes(spec, batches)
                ]
                or ["1"],
                "zero_data": True,
            }
            for spec in deployed.artifact.signature.inputs
        },
    }


def _instances(deployed: Deployed) -> int:
    """Return how many instances, each with its own threads, fit the measured machine's cores."""
    cpu = deployed.evidence.get("cpu") or {}
    cores = cpu.get("container_cores") or cpu.get("available_cores") or deployed.options.threads
    return max(1, int(cores) // deployed.options.threads)


def _delay(deployed: Deployed) -> int:
    """Return the queue delay in microseconds: WAIT of the measured pass, or 100 without one."""
    median = (deployed.evidence.get("forward") or {}).get("median_ns")
    return max(1, int(WAIT * median / 1000)) if median else 100
