"""ONNX Runtime on the CPU, with bound inputs and outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, final

import numpy as np
import onnxruntime as ort

from toolkit.core.artifact import Artifact, Format
from toolkit.core.errors import SessionError, SourceError, unknown_name
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


@final
class OnnxRuntime(Runtime):
    name: ClassVar[str] = "onnxruntime"
    accepts: ClassVar[frozenset[Format]] = frozenset({Format.ONNX})

    def probe(self) -> Availability:
        return Availability(ok=True, version=ort.__version__)

    def open(self, artifact: Artifact, options: SessionOptions) -> Session:
        settings = ort.SessionOptions()
        settings.intra_op_num_threads = options.threads
        settings.inter_op_num_threads = 1
        settings.log_severity_level = 3
        _tune(settings, options)
        try:
            session = ort.InferenceSession(artifact.path, settings, providers=[PROVIDER])
        except Exception as error:  # ONNX Runtime's exceptions share no base but Exception
            raise SourceError(
                f"ONNX Runtime {ort.__version__} could not open {artifact.path}: {error}",
                hint="Check the file with onnx.checker, or choose another runtime.",
            ) from error
        return OnnxRuntimeSession(artifact, session, options)


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
        self, artifact: Artifact, session: ort.InferenceSession, options: SessionOptions
    ) -> None:
        super().__init__(artifact.signature)
        self._precision = artifact.precision
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
        providers = self._session.get_providers()
        if providers[0] != PROVIDER:
            raise SessionError(
                f"ONNX Runtime was asked for {PROVIDER} and runs {providers}.",
                hint="Install a build of ONNX Runtime with that provider.",
            )
        settings = self._session.get_session_options()
        return Provenance(
            runtime="onnxruntime",
            version=ort.__version__,
            device="cpu",
            # The CPU provider computes in the types of the graph.
            precision=self._precision,
            threads=settings.intra_op_num_threads,
            details={
                "providers": providers,
                "graph_optimization_level": settings.graph_optimization_level.name,
                "execution_mode": settings.execution_mode.name,
            },
        )

    def _close(self) -> None:
        self._run_bound = lambda _: not_ready()
        self._binding = self._session = None
        self._feeds = {}
