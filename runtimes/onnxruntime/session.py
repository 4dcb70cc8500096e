"""Session settings, tensor conversion and profiled passes for all ONNX Runtime runtimes."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from runtimes.onnxruntime.profile import read_nodes
from runtimes.operator_trace import Node, describe
from toolkit.core.documents import Json
from toolkit.core.dtypes import as_integers, dtype_of, is_floating, is_foreign
from toolkit.core.errors import SessionError, SourceError, unknown_name
from toolkit.core.session import SessionOptions, host_copy, parse_value
from toolkit.core.specs import Outputs, TensorSpec
from toolkit.core.temporary import scratch_directory

LEVELS = {
    "disable": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "layout": ort.GraphOptimizationLevel.ORT_ENABLE_LAYOUT,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
MODES = {
    "sequential": ort.ExecutionMode.ORT_SEQUENTIAL,
    "parallel": ort.ExecutionMode.ORT_PARALLEL,
}
FIELDS = {
    "intra_op_num_threads": int,
    "inter_op_num_threads": int,
    "enable_cpu_mem_arena": bool,
    "enable_mem_pattern": bool,
}
CHOICES = {"graph_optimization_level": LEVELS, "execution_mode": MODES}


def settings_of(options: SessionOptions) -> ort.SessionOptions:
    """Return ONNX Runtime's session options for `options`.

    Raise UnknownNameError if an option or its choice is unknown, and UsageError if a value has the
    wrong type.
    """
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = options.threads
    settings.inter_op_num_threads = 1
    settings.log_severity_level = 3
    _tune(settings, options)
    return settings


def _tune(settings: ort.SessionOptions, options: SessionOptions) -> None:
    """Set the options of ONNX Runtime itself.

    A name with a dot is a session configuration entry, such as session.intra_op.allow_spinning.
    """
    tuning = {"graph_optimization_level": "all" if options.optimize else "disable"}
    tuning.update(options.tuning)
    named = {name: text for name, text in tuning.items() if "." not in name}
    for name in tuning.keys() - named.keys():
        settings.add_session_config_entry(name, tuning[name])
    SessionOptions(tuning=named).require_known("onnxruntime", (*CHOICES, *FIELDS))
    for name, text in named.items():
        if name in FIELDS:
            setattr(settings, name, parse_value(name, text, FIELDS[name]))
        elif text in CHOICES[name]:
            setattr(settings, name, CHOICES[name][text])
        else:
            raise unknown_name(name, text, CHOICES[name])


def unreadable(path: Path, error: Exception) -> SourceError:
    """Return the error for a model that ONNX Runtime cannot open."""
    return SourceError(
        f"ONNX Runtime {ort.__version__} could not open {path}: {error}",
        hint="Check the file with onnx.checker, or choose another runtime.",
    )


def value_of(array: np.ndarray) -> Any:
    """Return a tensor that shares the memory of an array with a dtype of ml_dtypes.

    ONNX Runtime takes such an array as integers, with the ONNX type as an argument. Raise
    SessionError if an element is smaller than a byte.
    """
    import onnx

    _require_whole_bytes(array.dtype)
    kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
    return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(as_integers(array), kind)


def array_of(value: Any, spec: TensorSpec) -> np.ndarray:
    """Return a copy of a CPU tensor. Raise SessionError if an element is smaller than a byte."""
    dtype = dtype_of(spec.dtype)
    if not is_foreign(dtype):
        return host_copy(value.numpy())
    _require_whole_bytes(dtype)
    shape = value.shape()
    content = ctypes.string_at(value.data_ptr(), math.prod(shape) * dtype.itemsize)
    return host_copy(np.frombuffer(content, dtype).reshape(shape))


def _require_whole_bytes(dtype: np.dtype) -> None:
    import ml_dtypes

    if (ml_dtypes.finfo if is_floating(dtype) else ml_dtypes.iinfo)(dtype).bits < 8:
        raise SessionError(
            f"The Python package of ONNX Runtime {ort.__version__} cannot exchange tensors of "
            f"{dtype.name}, of which a byte holds several elements.",
            hint="Cast that input or output to int8 or float32 in the model.",
        )


def recorded(
    settings: ort.SessionOptions,
    run: Callable[[ort.SessionOptions], tuple[ort.InferenceSession, Outputs]],
) -> tuple[tuple[Node, ...], Outputs]:
    """Return the nodes that a second, profiled session runs, and its outputs.

    `run` makes the session with the given settings and runs a pass. A session records either from
    its creation or never. After profiling, each later pass of a session with several threads takes
    longer and leaks some bytes, because end_profiling() does not stop the profiler of the thread
    pool (ONNX Runtime 1.31). A session that is timed is therefore never profiled.
    """
    settings.enable_profiling = True
    with scratch_directory() as place:
        settings.profile_file_prefix = str(place / "pass")
        session, outputs = run(settings)
        nodes = read_nodes(Path(session.end_profiling()).read_text(errors="replace"))
    return nodes, outputs


def identical(own: Outputs, others: Outputs) -> bool:
    """Return whether the outputs are identical bit for bit."""
    return all(own[name].tobytes() == others[name].tobytes() for name in own)


def details_of(session: ort.InferenceSession, nodes: Collection[Node], same: bool) -> Json:
    """Return the provenance details of a session; `nodes` are from its profiled twin."""
    settings = session.get_session_options()
    return {
        "providers": session.get_providers(),
        "graph_optimization_level": settings.graph_optimization_level.name,
        "execution_mode": settings.execution_mode.name,
        "recorded_outputs_identical": same,
        **describe(nodes),
    }
