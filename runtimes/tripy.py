"""NVIDIA Tripy, for executables that were compiled for this GPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, final

import numpy as np
import nvtripy as tp
import tensorrt

from models.tripy.messages import words_of
from runtimes.torch.tf32 import precision_with
from toolkit.core.artifact import Artifact, Format
from toolkit.core.errors import FeedError, SourceError
from toolkit.core.nvidia import available, conflict_of, driver
from toolkit.core.session import (
    Availability,
    Provenance,
    Runtime,
    Session,
    SessionOptions,
    host_copy,
    not_ready,
)
from toolkit.core.specs import Feeds, Outputs

CPU, GPU = tp.device("cpu"), tp.device("gpu")
TF32 = (
    "Tripy has no switch for TF32, which TensorRT uses by default from compute capability 8.0 on "
    "not to: factors of a product are rounded to 10 bits of fraction"
)


@final
class Tripy(Runtime):
    name: ClassVar[str] = "tripy"
    accepts: ClassVar[frozenset[Format]] = frozenset({Format.TRIPY})
    device: ClassVar[str] = "cuda"

    def probe(self) -> Availability:
        return conflict_of("tripy", tp.__version__) or available(tp.__version__)

    def open(self, artifact: Artifact, options: SessionOptions) -> Session:
        options.require_optimize("tripy")
        options.require_known("tripy", ())
        try:
            executable = tp.Executable.load(str(artifact.path))
        except Exception as error:  # those of its compiled part share no base with Tripy's own
            raise _unloadable(artifact, words_of(error)) from error
        if not isinstance(executable, tp.Executable):
            raise _unloadable(artifact, "it holds something else")
        return TripySession(artifact, options, executable)


def _unloadable(artifact: Artifact, told: str) -> SourceError:
    return SourceError(
        f"Tripy {tp.__version__} could not load {artifact.path}: {told}.",
        hint="An executable is for the GPU, and the versions of Tripy and TensorRT, that it was "
        "compiled with: export the checkpoint again, here.",
    )


@final
class TripySession(Session):
    """Session that copies inputs to the device, where each pass allocates its outputs.

    Replaced inputs are kept until `synchronize`, since a pass may still read them.
    """

    def __init__(self, artifact: Artifact, options: SessionOptions, executable: Any) -> None:
        super().__init__(artifact.signature)
        self._precision = artifact.precision
        self._threads = options.threads
        self._executable = executable
        self._host: tuple[Any, ...] = ()
        self._inputs: tuple[Any, ...] = ()
        self._replaced: list[tuple[Any, ...]] = []
        self._outputs: Any = None
        self._pass: Callable[[], None] = not_ready

    def _prepare(self, dims: Mapping[str, int]) -> None:
        for spec, info in zip(
            self.signature.inputs, self._executable.input_infos.values(), strict=True
        ):
            least, largest = _bounds(info)
            shape = spec.resolve(dims)
            extents = zip(least, shape, largest, strict=True)
            if not all(extent is None or a <= extent <= b for a, extent, b in extents):
                raise FeedError(
                    f"Got {spec.name!r} of shape {list(shape)}; the executable was compiled for "
                    f"{list(least)} to {list(largest)}.",
                    hint="Choose another batch, or export again with other --batches.",
                )
        self._pass = self._run

    def _upload(self, feeds: Feeds) -> None:
        self._replaced.append((*self._host, *self._inputs))
        # Copies to the device read the host tensors, which share the arrays' memory: keep both.
        self._host = tuple(
            _counted(tp.Tensor(np.require(feeds[spec.name], requirements=["C", "W"])))
            for spec in self.signature.inputs
        )
        self._inputs = tuple(_counted(tp.copy(tensor, GPU)) for tensor in self._host)

    def forward(self) -> None:
        self._pass()

    def _run(self) -> None:
        self._outputs = self._executable(*self._inputs)

    def synchronize(self) -> None:
        self._executable.stream.synchronize()
        self._replaced.clear()

    def _download(self) -> Outputs:
        self.synchronize()
        outputs = self._outputs
        parts = outputs if isinstance(outputs, tuple) else (outputs,)
        return {
            spec.name: host_copy(np.from_dlpack(_counted(tp.copy(part, CPU))))
            for spec, part in zip(self.signature.outputs, parts, strict=True)
        }

    def _provenance(self) -> Provenance:
        found = driver()
        gpu = next(iter(found.gpus), None)
        ran = precision_with(True, self._precision)
        return Provenance(
            runtime="tripy",
            version=tp.__version__,
            device="cuda",
            precision=ran,
            threads=self._threads,
            details={
                "tensorrt": tensorrt.__version__,
                "gpu": gpu and gpu.name,
                "compute_capability": gpu and gpu.capability,
                "driver": found.version,
                "tf32": TF32 if ran == "tf32" else None,
            },
        )

    def _close(self) -> None:
        self._pass = not_ready
        self._executable = self._outputs = None
        self._host, self._inputs = (), ()
        self._replaced.clear()


def _counted(tensor: Any) -> Any:
    """Break a tensor's reference cycle, so that its memory is freed with the last reference.

    A tensor and its trace refer to each other, so its memory would stay until garbage collection,
    which is off during measurements. Outputs of an executable have no such cycle.
    """
    trace = tensor.trace_tensor
    trace.weaken_frontend_tensor_reference()
    trace.producer.outputs = []
    return tensor


def _bounds(info: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the smallest and largest shape, as tuples: a loaded executable has lists."""
    bounds = info.shape_bounds
    return tuple(bounds.min), tuple(bounds.max)
