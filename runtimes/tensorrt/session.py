"""Session that runs TensorRT engines on a GPU.

TensorRT's Python module and the device are parameters: TensorRT 10, TensorRT 11 and TensorRT for
RTX have the same names for everything used here.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import ml_dtypes  # noqa: F401  # registers bfloat16 with NumPy
import numpy as np

from runtimes.cuda.device import DEVICES, CudaDevice, missing_packages, open_device
from runtimes.operator_trace import Node, describe, device_of, precision_of
from runtimes.tensorrt.layers import FLOATING, PROVIDER, UNKNOWN, read_layers
from toolkit.core import nvidia
from toolkit.core.artifact import Artifact
from toolkit.core.engines import DTYPES, EngineRecord, log_of
from toolkit.core.errors import FeedError, SessionError, SourceError, UnavailableError
from toolkit.core.session import (
    Availability,
    Provenance,
    Session,
    SessionOptions,
    host_copy,
    not_ready,
)
from toolkit.core.specs import Feeds, Outputs, TensorSpec

MEMORY = "memory"
PROFILE = 0
PASSES = 20
DEVICES_OF = {PROVIDER: "cuda"}
SAME_VERSION = 3  # count of leading version numbers that must match those of the engine


def probed(version: str) -> Availability:
    """Return whether an imported library of that version can run engines on this machine."""
    found = nvidia.available(version)
    missing = missing_packages()
    if found.ok and missing:
        hint = DEVICES.entry(DEVICES.names()[0]).install
        return Availability(ok=False, version=version, reason="; ".join(missing), hint=hint)
    return found


def open_engine(
    trt: Any,
    runtime: str,
    artifact: Artifact,
    options: SessionOptions,
    make_device: Callable[[str | None], CudaDevice] = open_device,
) -> Session:
    """Open an engine that `toolkit export` built with the same library.

    Raise SourceError if the engine is for another version or GPU or cannot be read, and
    UnavailableError if TensorRT cannot start.
    """
    options.require_optimize(runtime)
    options.require_known(runtime, (MEMORY,))
    record = EngineRecord.load(artifact.directory)
    _require_version(trt, runtime, artifact, record)
    device = make_device(options.tuning.get(MEMORY))
    try:
        _require_gpu(runtime, artifact, record, device)
        engine = _deserialized(trt, runtime, artifact)
        _require_signature(trt, artifact, engine)
        return TensorRtSession(trt, runtime, artifact, options, record, device, engine)
    except BaseException:
        device.close()
        raise


def _require_version(trt: Any, runtime: str, artifact: Artifact, record: EngineRecord) -> None:
    def numbers(version: str) -> list[str]:
        return version.split(".")[:SAME_VERSION]

    if record.library != runtime or numbers(record.version) != numbers(trt.__version__):
        raise SourceError(
            f"{artifact.path} was built with {record.library} {record.version}, and {runtime} "
            f"{trt.__version__} is installed: an engine runs on the version that built it.",
            hint=f"Export it again with this one, --to {runtime}; or install that version.",
        )


def _require_gpu(
    runtime: str, artifact: Artifact, record: EngineRecord, device: CudaDevice
) -> None:
    if device.capability not in record.compute_capabilities:
        known = ", ".join(_dotted(number) for number in record.compute_capabilities)
        built_on = f" on {record.gpu}" if record.gpu else ""
        raise SourceError(
            f"{artifact.path} was built{built_on} for compute capability {known}, and {device.gpu} "
            f"has {_dotted(device.capability)}: an engine runs on the GPUs that it was built for.",
            hint=f"Export it again, --to {runtime}"
            + (f" --compute-capability {device.capability}." if record.gpu is None else ", here."),
        )


def _dotted(capability: int) -> str:
    return f"{capability // 10}.{capability % 10}"


def _deserialized(trt: Any, runtime: str, artifact: Artifact) -> Any:
    log = log_of(trt)
    log.take()
    try:
        loader = trt.Runtime(log)
    except TypeError as error:  # from the bindings, if the library returns no runtime
        raise UnavailableError(
            f"{runtime} {trt.__version__} could not start: {log.take()}.", hint=nvidia.NO_DRIVER
        ) from error
    engine = loader.deserialize_cuda_engine(artifact.path.read_bytes())
    if engine is None:
        raise SourceError(
            f"{runtime} {trt.__version__} could not open {artifact.path}: {log.take()}.",
            hint="An engine runs on the version and the compute capability that it was built for: "
            f"export it again, --to {runtime}.",
        )
    return engine


def _require_signature(trt: Any, artifact: Artifact, engine: Any) -> None:
    """Raise SourceError if the engine's inputs or outputs differ from those of the manifest.

    Raise it too if one of them is in host memory.
    """
    names = [engine.get_tensor_name(number) for number in range(engine.num_io_tensors)]
    found = {
        name: (
            engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT,
            DTYPES.get(engine.get_tensor_dtype(name).name),
            engine.get_tensor_location(name) == trt.TensorLocation.DEVICE,
        )
        for name in names
    }
    sides = ((True, artifact.signature.inputs), (False, artifact.signature.outputs))
    wanted = {spec.name: (side, spec.dtype, True) for side, specs in sides for spec in specs}
    if found != wanted:
        other = sorted({name for name, _ in found.items() ^ wanted.items()})
        raise SourceError(
            f"{artifact.path} has tensors {', '.join(map(repr, other))} that are not as its "
            "manifest says, or that are read on the host.",
            hint="Export the model again.",
        )


def _profile(engine: Any, name: str) -> list[list[int]] | None:
    """Return the smallest, optimal and largest shape of an input; None if its shape is fixed."""
    if min(engine.get_tensor_shape(name), default=0) >= 0:
        return None
    return [list(shape) for shape in engine.get_tensor_profile_shape(name, PROFILE)]


@final
class _Buffer:
    """Device memory of a tensor, and pinned host memory of the same size; both can grow."""

    def __init__(self, device: CudaDevice, spec: TensorSpec) -> None:
        self.name = spec.name
        self._dtype = np.dtype(spec.dtype)
        self._device = device
        self._address: int | None = None
        self._pinned: np.ndarray | None = None
        self.staged: np.ndarray = np.empty(0, self._dtype)

    @property
    def address(self) -> int:
        return self._address or 0

    def shape(self, shape: tuple[int, ...]) -> None:
        """Make room for a tensor of this shape, of which `staged` is the array in host memory."""
        count = int(np.prod(shape, dtype=np.int64))
        size = max(1, count * self._dtype.itemsize)
        if self._pinned is None or self._pinned.nbytes < size:
            self.free()
            self._address = self._device.allocate(size)
            self._pinned = self._device.allocate_pinned(size)
        bytes_of_it = self._pinned[: count * self._dtype.itemsize]
        self.staged = bytes_of_it.view(self._dtype).reshape(shape)

    def upload(self) -> None:
        if self.staged.nbytes:
            self._device.to_device(self.address, self.staged)

    def download(self) -> None:
        if self.staged.nbytes:
            self._device.to_host(self.staged, self.address)

    def free(self) -> None:
        self.staged = np.empty(0, self._dtype)
        pinned, self._pinned = self._pinned, None
        address, self._address = self._address, None
        if pinned is not None:
            self._device.free_pinned(pinned)
        if address is not None:
            self._device.free(address)


@final
class TensorRtSession(Session):
    """Session of an engine, which copies inputs and outputs via pinned memory.

    All copies and passes are on one stream, which is synchronised once per run.
    """

    def __init__(
        self,
        trt: Any,
        runtime: str,
        artifact: Artifact,
        options: SessionOptions,
        record: EngineRecord,
        device: CudaDevice,
        engine: Any,
    ) -> None:
        super().__init__(artifact.signature)
        self._trt = trt
        self._runtime = runtime
        self._options = options
        self._record = record
        self._device = device
        self._engine = engine
        self._precision = artifact.precision
        self._log = log_of(trt)
        self._profile = {spec.name: _profile(engine, spec.name) for spec in self.signature.inputs}
        self._inputs = [_Buffer(device, spec) for spec in self.signature.inputs]
        self._outputs = [_Buffer(device, spec) for spec in self.signature.outputs]
        self._events: list[Any] = []
        self._bound = self._pending = False
        self._execute: Callable[[int], bool] = lambda _: not_ready()
        self._stream = device.stream
        self._context = engine.create_execution_context()
        if self._context is None:
            raise self._failed("could not make an execution context")

    def _failed(self, what: str) -> SessionError:
        return SessionError(
            f"{self._runtime} {self._trt.__version__} {what}: {self._log.take()}.",
            hint="Give a smaller batch if memory is short (`nvidia-smi` says); or export the model "
            "again on this machine.",
        )

    def _prepare(self, dims: Mapping[str, int]) -> None:
        self._execute = lambda _: not_ready()
        self._bound = False  # extents of unnamed axes are known only from the inputs

    def _upload(self, feeds: Feeds) -> None:
        if self._pending:  # earlier copies may still read the memory to be written
            self.synchronize()
        if not self._bound:
            self._bind({name: array.shape for name, array in feeds.items()})
        self._pending = True
        for buffer in self._inputs:
            np.copyto(buffer.staged, feeds[buffer.name])
            buffer.upload()

    def _bind(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Set the context's input shapes, make buffers, and set their addresses in the context."""
        for name, shape in shapes.items():
            self._require_in_profile(name, shape)
        self.synchronize()
        context = self._context
        for name, shape in shapes.items():
            if not context.set_input_shape(name, shape):
                raise self._failed(f"took no input {name!r} of shape {list(shape)}")
        if missing := context.infer_shapes():
            raise self._failed(f"could not tell its shapes for want of {', '.join(missing)}")
        for buffer in (*self._inputs, *self._outputs):
            shape = tuple(context.get_tensor_shape(buffer.name))
            if min(shape, default=0) < 0:
                raise self._failed(f"has an output {buffer.name!r} whose shape is in the values")
            buffer.shape(shape)
            if not context.set_tensor_address(buffer.name, buffer.address):
                raise self._failed(f"took no address for {buffer.name!r}")
        self._execute = context.execute_async_v3
        self._bound = True

    def _require_in_profile(self, name: str, shape: tuple[int, ...]) -> None:
        if (profile := self._profile[name]) is None:
            return
        least, _, most = profile
        fits = all(low <= n <= high for low, n, high in zip(least, shape, most, strict=True))
        if not fits:
            raise FeedError(
                f"Input {name!r} has shape {list(shape)}, and the engine was built for "
                f"{least} to {most}.",
                hint="Feed a shape of that range, or export again with --batches or --profile.",
            )

    def forward(self) -> None:
        if not self._execute(self._stream):
            raise self._failed("could not enqueue a pass")

    def synchronize(self) -> None:
        self._device.synchronize()
        self._pending = False

    def _download(self) -> Outputs:
        if not self._bound:
            not_ready()
        for buffer in self._outputs:
            buffer.download()
        self.synchronize()
        return {buffer.name: host_copy(buffer.staged) for buffer in self._outputs}

    def _provenance(self) -> Provenance:
        if not self._bound:
            not_ready()
        inspector = self._engine.create_engine_inspector()
        inspector.execution_context = self._context
        json_format = self._trt.LayerInformationFormat.JSON
        nodes = read_layers(inspector.get_engine_information(json_format))
        precision, told_by = self._ran_in(nodes)
        return Provenance(
            runtime=self._runtime,
            version=self._trt.__version__,
            device=device_of(nodes, DEVICES_OF),
            precision=precision,
            threads=self._options.threads,
            details={
                "gpu": self._device.gpu,
                "compute_capability": _dotted(self._device.capability),
                "device_memory_by": self._device.package,
                "device_memory_bytes": self._engine.device_memory_size_v2,
                "precision_told_by": told_by,
                "profile": self._profile,
                "built_for": [_dotted(n) for n in self._record.compute_capabilities],
                "tf32_allowed": self._record.tf32,
                "device_times_ms": self._device_times(),
                **describe(nodes),
            },
        )

    def _ran_in(self, nodes: Sequence[Node]) -> tuple[str, str]:
        """Return the precision, and the source from which it is known.

        The source is the engine inspector if it reports the dtype of any layer. Otherwise it is the
        strongly typed network, which computes in the floating-point dtype of its graph; integer
        types do not show whether products are computed in integers.
        """
        if known := [node for node in nodes if node.dtype != UNKNOWN]:
            return precision_of(known), "engine inspector"
        if self._precision in FLOATING and not self._record.tf32:
            return self._precision, "strongly typed network"
        return UNKNOWN, "nothing"

    def _device_times(self) -> dict[str, float | int]:
        """Return median times in ms of the parts of a pass over the last upload, between events."""
        device = self._device
        self._events = self._events or [device.event() for _ in range(4)]
        start, uploaded, computed, end = self._events
        passes = []
        for _ in range(PASSES):
            device.record(start)
            for buffer in self._inputs:
                buffer.upload()
            device.record(uploaded)
            self.forward()
            device.record(computed)
            for buffer in self._outputs:
                buffer.download()
            device.record(end)
            self.synchronize()
            parts = ((start, uploaded), (uploaded, computed), (computed, end))
            passes.append([device.elapsed_ms(*part) for part in parts])
        names = ("host_to_device", "compute", "device_to_host")
        medians = map(statistics.median, zip(*passes, strict=True))
        return {**dict(zip(names, medians, strict=True)), "passes": PASSES}

    def _close(self) -> None:
        self._execute = lambda _: not_ready()
        self._bound = False
        try:
            self.synchronize()
        finally:
            for buffer in (*self._inputs, *self._outputs):
                buffer.free()
            self._context = self._engine = None
            self._events = []
            self._device.close()
