"""ONNX Runtime session with inputs and outputs in device memory."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
import onnx
import onnxruntime as ort

from runtimes.onnxruntime.session import (
    details_of,
    identical,
    recorded,
    settings_of,
    unreadable,
)
from runtimes.operator_trace import Node, device_of
from runtimes.tensorrt.engine_cache import Shapes
from toolkit.core.artifact import Artifact
from toolkit.core.documents import Json
from toolkit.core.errors import SourceError, ToolkitError, UnavailableError
from toolkit.core.session import Provenance, Session, SessionOptions, not_ready
from toolkit.core.specs import Feeds, Outputs

CPU = "CPUExecutionProvider"
DEVICES = {
    CPU: "cpu",
    "CUDAExecutionProvider": "cuda",
    "TensorrtExecutionProvider": "cuda",
    "NvTensorRTRTXExecutionProvider": "cuda",
}
NVIDIA = 0x10DE  # PCI vendor ID
NO_FALLBACK = "session.disable_cpu_ep_fallback"
ASSIGNMENTS = "session.record_ep_graph_assignment_info"
MOST_NAMED = 5

Axes = Mapping[str, tuple[str, int]]
"""Named axes of a graph: for each, an input that has it, and its index in that input's shape."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """Model, provider and settings from which sessions on a device are created.

    `axes` are the named axes of the graph. `provider_options` returns the options of `provider` for
    given input shapes. `further` has more providers, with their options, for nodes that `provider`
    does not take; with `allow_cpu_nodes`, the CPU takes the rest. `plugin` returns the devices of a
    provider that is in a separate library. `precision` returns the precision of the nodes that ran,
    and `details` describes the device for the provenance.
    """

    runtime: str
    artifact: Artifact
    options: SessionOptions
    provider: str
    device: str
    axes: Axes
    provider_options: Callable[[Shapes], Mapping[str, str]]
    precision: Callable[[Collection[Node]], str]
    details: Callable[[Shapes], Json]
    further: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    allow_cpu_nodes: bool = False
    plugin: Callable[[], list[Any]] | None = None


def read_axes(artifact: Artifact) -> Axes:
    """Return the named axes of a graph. Raise SourceError if the file is not an ONNX model."""
    try:
        graph = onnx.load(artifact.path, load_external_data=False).graph
    except Exception as error:  # protobuf's exceptions share no base but Exception
        raise unreadable(artifact.path, error) from error
    fed = {spec.name for spec in artifact.signature.inputs}
    return {
        axis.dim_param: (value.name, place)
        for value in reversed(graph.input)
        if value.name in fed
        for place, axis in enumerate(value.type.tensor_type.shape.dim)
        if axis.dim_param
    }


def create(target: Target, settings: ort.SessionOptions, shapes: Shapes) -> ort.InferenceSession:
    """Return a session on the target, without fallback to providers that it does not allow.

    Raise SourceError if the target does not take the model or takes only part of it, and
    UnavailableError if ONNX Runtime left the provider out.
    """
    if not target.allow_cpu_nodes:
        settings.add_session_config_entry(NO_FALLBACK, "1")
    try:
        session = _make(target, settings, shapes)
    except ToolkitError:
        raise
    except Exception as error:  # ONNX Runtime's exceptions share no base but Exception
        if "fallback to CPU EP has been explicitly disabled" not in str(error):
            raise unreadable(target.artifact.path, error) from error
        raise _left_to_the_cpu(target, shapes) from error
    _require(target, session)
    return session


def _require(target: Target, session: ort.InferenceSession) -> None:
    found = session.get_providers()
    if target.provider not in found:
        raise UnavailableError(
            f"ONNX Runtime {ort.__version__} opened {target.artifact.path} without "
            f"{target.provider}: it has {', '.join(found)}.",
            hint="`toolkit doctor` says what is missing.",
        )


def _make(target: Target, settings: ort.SessionOptions, shapes: Shapes) -> ort.InferenceSession:
    for axis, (name, place) in target.axes.items():
        settings.add_free_dimension_override_by_name(axis, shapes[name][place])
    options = target.provider_options(shapes)
    path = target.artifact.path
    if target.plugin is not None:
        settings.add_provider_for_devices(target.plugin(), dict(options))
        return ort.InferenceSession(path, settings, enable_fallback=0)
    named = {target.provider: options, **target.further}
    providers = [(name, dict(given)) for name, given in named.items()]
    # With the fallback enabled, a session on the CPU would replace one whose provider fails.
    return ort.InferenceSession(path, settings, providers=providers, enable_fallback=0)


def _left_to_the_cpu(target: Target, shapes: Shapes) -> SourceError:
    """Return the error that names the nodes that the provider did not take."""
    settings = settings_of(target.options)
    settings.add_session_config_entry(ASSIGNMENTS, "1")
    session = _make(target, settings, shapes)
    _require(target, session)
    found = nodes_on(CPU, session)
    names = ", ".join(found[:MOST_NAMED]) + (", ..." if len(found) > MOST_NAMED else "")
    return SourceError(
        f"{target.provider} does not take {len(found) or 'some'} nodes of {target.artifact.path}"
        f"{': ' if names else ''}{names}.",
        hint=f"--option {target.runtime}.allow_cpu_nodes=true runs them on the CPU, and the row "
        "says so.",
    )


def nodes_on(provider: str, session: ort.InferenceSession) -> list[str]:
    """Return the nodes that a session assigned to a provider, as "name (operator)".

    The list is empty for ONNX Runtime before 1.24, which does not report assignments.
    """
    if not hasattr(session, "get_provider_graph_assignment_info"):
        return []
    return [
        f"{node.name or 'a node without a name'} ({node.op_type})"
        for part in session.get_provider_graph_assignment_info()
        if part.ep_name == provider
        for node in part.get_nodes()
    ]


@final
class DeviceSession(Session):
    """Session with buffers on the device, which are made once for given shapes and filled in place.

    New shapes get a new session of ONNX Runtime, in which the graph's named axes are fixed to the
    extents of the inputs. Shape arithmetic, which a GPU leaves to the CPU, is then folded, and an
    engine is built for exactly these shapes instead of a range.
    """

    def __init__(self, target: Target, settings: ort.SessionOptions | None = None) -> None:
        super().__init__(target.artifact.signature)
        self._target = target
        self._settings = settings
        self._threads = settings_of(target.options).intra_op_num_threads
        self._extents: Mapping[str, int] = {}
        self._feeds: Feeds = {}
        self._drop()

    def _drop(self) -> None:
        self._run_bound: Callable[[Any], None] = lambda _: not_ready()
        self._binding: Any = None
        self._session: Any = None
        self._inputs: dict[str, Any] = {}

    def _prepare(self, dims: Mapping[str, int]) -> None:
        self._extents = dims
        self._drop()

    def _open(self, shapes: Shapes) -> None:
        settings = self._settings or settings_of(self._target.options)
        self._session = create(self._target, settings, shapes)
        binding = self._session.io_binding()
        for spec in self.signature.inputs:
            self._inputs[spec.name] = self._buffer(shapes[spec.name], spec.dtype)
        for spec in self.signature.outputs:
            shape = spec.resolve(self._extents)
            # ONNX Runtime allocates outputs of unknown extents, or of a dtype that NumPy lacks.
            if None in shape or spec.dtype not in np.sctypeDict:
                binding.bind_output(spec.name, self._target.device)
            else:
                binding.bind_ortvalue_output(spec.name, self._buffer(shape, spec.dtype))
        self._binding = binding
        self._run_bound = self._session.run_with_iobinding

    def _buffer(self, shape: tuple[int | None, ...], dtype: str) -> Any:
        kind = np.dtype(dtype)
        make = ort.OrtValue.ortvalue_from_shape_and_type
        if self._target.plugin is not None:
            return make(list(shape), kind, "gpu", 0, NVIDIA)
        return make(list(shape), kind, self._target.device, 0)

    def _upload(self, feeds: Feeds) -> None:
        if self._binding is None:
            self._open({name: array.shape for name, array in feeds.items()})
        for name, array in feeds.items():
            buffer, dense = self._inputs[name], np.asarray(array, order="C")
            if self._target.plugin is not None:
                ort.copy_tensors([ort.OrtValue.ortvalue_from_numpy(dense)], [buffer])
            else:
                buffer.update_inplace(dense)
            # Binding copies an input that is read on another device, so bind it after each update.
            self._binding.bind_ortvalue_input(name, buffer)
        self._binding.synchronize_inputs()
        self._feeds = feeds

    def forward(self) -> None:
        self._run_bound(self._binding)

    def synchronize(self) -> None:
        if self._binding is not None:
            self._binding.synchronize_outputs()

    def _download(self) -> Outputs:
        if self._binding is None:
            not_ready()
        self._binding.synchronize_outputs()
        arrays = self._binding.copy_outputs_to_cpu()
        return {
            spec.name: array for spec, array in zip(self.signature.outputs, arrays, strict=True)
        }

    def _provenance(self) -> Provenance:
        if self._binding is None:
            not_ready()
        nodes, outputs = recorded(settings_of(self._target.options), self._twin)
        self.forward()
        same = identical(self._download(), outputs)
        shapes = {name: array.shape for name, array in self._feeds.items()}
        options = self._session.get_provider_options().get(self._target.provider, {})
        return Provenance(
            runtime=self._target.runtime,
            version=ort.__version__,
            device=device_of(nodes, DEVICES),
            precision=self._target.precision(nodes),
            threads=self._threads,
            details={
                "provider_options": options,
                **self._target.details(shapes),
                **details_of(self._session, nodes, same),
            },
        )

    def _twin(self, settings: ort.SessionOptions) -> tuple[ort.InferenceSession, Outputs]:
        with DeviceSession(self._target, settings) as twin:
            outputs = twin.run(self._feeds)
            return twin._session, outputs

    def _close(self) -> None:
        self._drop()
        self._feeds = {}
