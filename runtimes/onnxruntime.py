"""ONNX Runtime on the CPU, with bound inputs and outputs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np
import onnxruntime as ort

from runtimes.executed import Node, describe, device_of, precision_of
from runtimes.onnxruntime_nodes import read_nodes
from toolkit.core.artifact import Artifact, Format
from toolkit.core.errors import SourceError, unknown_name
from toolkit.core.session import (
    Availability,
    Provenance,
    Runtime,
    Session,
    SessionOptions,
    host_copy,
    not_ready,
    parse_value,
)
from toolkit.core.specs import Feeds, Outputs

PROVIDER = "CPUExecutionProvider"
DEVICES = {PROVIDER: "cpu"}


@final
class OnnxRuntime(Runtime):
    name: ClassVar[str] = "onnxruntime"
    accepts: ClassVar[frozenset[Format]] = frozenset({Format.ONNX})

    def probe(self) -> Availability:
        return Availability(ok=True, version=ort.__version__)

    def open(self, artifact: Artifact, options: SessionOptions) -> Session:
        return OnnxRuntimeSession(artifact, options, _create(artifact, _settings(options)))


def _create(artifact: Artifact, settings: ort.SessionOptions) -> ort.InferenceSession:
    try:
        return ort.InferenceSession(artifact.path, settings, providers=[PROVIDER])
    except Exception as error:  # ONNX Runtime's exceptions share no base but Exception
        raise SourceError(
            f"ONNX Runtime {ort.__version__} could not open {artifact.path}: {error}",
            hint="Check the file with onnx.checker, or choose another runtime.",
        ) from error


def _settings(options: SessionOptions) -> ort.SessionOptions:
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = options.threads
    settings.inter_op_num_threads = 1
    settings.log_severity_level = 3
    _tune(settings, options)
    return settings


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


def _tune(settings: ort.SessionOptions, options: SessionOptions) -> None:
    """Sets the options of the runtime's own; a name with a dot is a session configuration entry,
    such as session.intra_op.allow_spinning."""
    tuning = {"graph_optimization_level": "all" if options.optimize else "disable"}
    tuning.update(options.tuning)
    named = {name: text for name, text in tuning.items() if "." not in name}
    for name in tuning.keys() - named.keys():
        settings.add_session_config_entry(name, tuning[name])
    choices = {"graph_optimization_level": LEVELS, "execution_mode": MODES}
    SessionOptions(tuning=named).require_known("onnxruntime", (*choices, *FIELDS))
    for name, text in named.items():
        if name in FIELDS:
            setattr(settings, name, parse_value(name, text, FIELDS[name]))
        elif text in choices[name]:
            setattr(settings, name, choices[name][text])
        else:
            raise unknown_name(name, text, choices[name])


@final
class OnnxRuntimeSession(Session):
    """Inputs are read from the caller's memory; outputs are written to buffers made once."""

    def __init__(
        self, artifact: Artifact, options: SessionOptions, session: ort.InferenceSession
    ) -> None:
        super().__init__(artifact.signature)
        self._artifact = artifact
        self._options = options
        self._session: Any = session
        self._binding: Any = None
        self._run_bound: Callable[[Any], None] = lambda _: not_ready()

    def _prepare(self, dims: Mapping[str, int]) -> None:
        self._binding = binding = self._session.io_binding()
        for spec in self.signature.outputs:
            shape = spec.resolve(dims)
            # An extent known only after a pass, or a dtype that NumPy lacks: let it be allocated.
            if None in shape or spec.dtype not in np.sctypeDict:
                binding.bind_output(spec.name, "cpu")
            else:
                value = ort.OrtValue.ortvalue_from_shape_and_type(
                    list(shape), np.dtype(spec.dtype), "cpu"
                )
                binding.bind_ortvalue_output(spec.name, value)
        self._run_bound = self._session.run_with_iobinding

    def _upload(self, feeds: Feeds) -> None:
        self._feeds = {name: np.asarray(array, order="C") for name, array in feeds.items()}
        for name, array in self._feeds.items():
            self._binding.bind_cpu_input(name, array)

    def forward(self) -> None:
        self._run_bound(self._binding)

    def synchronize(self) -> None:
        pass  # on the CPU provider a pass is complete when the call returns

    def _download(self) -> Outputs:
        # OrtValue.numpy() is a view of the buffer that the next pass writes.
        values = self._binding.get_outputs()
        return {
            spec.name: host_copy(value.numpy())
            for spec, value in zip(self.signature.outputs, values, strict=True)
        }

    def _provenance(self) -> Provenance:
        nodes, identical = self._recorded_pass()
        settings = self._session.get_session_options()
        return Provenance(
            runtime="onnxruntime",
            version=ort.__version__,
            device=device_of(nodes, DEVICES),
            precision=precision_of(nodes),
            threads=settings.intra_op_num_threads,
            details={
                "providers": self._session.get_providers(),
                "graph_optimization_level": settings.graph_optimization_level.name,
                "execution_mode": settings.execution_mode.name,
                "recorded_outputs_identical": identical,
                **describe(nodes),
            },
        )

    def _recorded_pass(self) -> tuple[tuple[Node, ...], bool]:
        """What a second session of the same file and settings runs on the same inputs, and
        whether its outputs are those of this session bit for bit.

        A session records from its making on or never, and one of several threads is another once
        it has recorded a pass: end_profiling() does not stop the thread pool's own profiler, so
        that each later pass takes longer and keeps some bytes (1.31). This one is timed, so it
        never records.
        """
        settings = _settings(self._options)
        settings.enable_profiling = True
        with tempfile.TemporaryDirectory(prefix="toolkit-") as place:
            settings.profile_file_prefix = str(Path(place) / "pass")
            session = _create(self._artifact, settings)
            with OnnxRuntimeSession(self._artifact, self._options, session) as twin:
                recorded = twin.run(self._feeds)
                nodes = read_nodes(Path(session.end_profiling()).read_text(errors="replace"))
        self.forward()
        own = self._download()
        return nodes, all(own[name].tobytes() == recorded[name].tobytes() for name in own)

    def _close(self) -> None:
        self._run_bound = lambda _: not_ready()
        self._binding = self._session = None
        self._feeds = {}
