"""Session of torch's runtimes on a device that works asynchronously."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any, final

import numpy as np
import torch

from runtimes.operator_trace import Node, describe, device_of, precision_of
from runtimes.torch.accelerator import Accelerator
from runtimes.torch.profile import record
from toolkit.core.documents import Json
from toolkit.core.session import Provenance, Session, host_copy, not_ready
from toolkit.core.specs import Feeds, Outputs, Signature

TIMED_PASSES = 20


@final
class TorchDeviceSession(Session):
    """Session with inputs in device buffers, which are made for given shapes.

    The buffers are filled from staging memory. Uploads and passes are enqueued, and waited for
    once, by `download` or `synchronize`. With `graph`, a pass is captured for each new shape and
    then replayed. `generated` and `details` are as in TorchSession; `precision` maps the recorded
    precision to the real one, such as float32 to TF32.
    """

    def __init__(
        self,
        signature: Signature,
        module: Callable[..., Any],
        *,
        accelerator: Accelerator,
        runtime: str,
        graph: bool,
        precision: Callable[[str], str],
        details: Callable[[], Json],
        generated: Callable[[], list[Node]] = list,
    ) -> None:
        super().__init__(signature)
        self._module: Callable[..., Any] | None = module
        self._accelerator = accelerator
        self._runtime = runtime
        self._graph = graph
        self._precision = precision
        self._details = details
        self._generated = generated
        self._busy = False
        self._forget()

    def _forget(self) -> None:
        """Drop the buffers of the last shapes, and what was captured with them."""
        self._pass: Callable[[], None] = not_ready
        self._staged: tuple[torch.Tensor, ...] = ()
        self._inputs: tuple[torch.Tensor, ...] = ()
        self._fetched: tuple[torch.Tensor, ...] = ()
        self._outputs: Any = None

    def _prepare(self, dims: Mapping[str, int]) -> None:
        self._wait()
        self._forget()
        self._pass = self._first_pass if self._graph else self._enqueue_pass

    def _upload(self, feeds: Feeds) -> None:
        arrays = [feeds[spec.name] for spec in self.signature.inputs]
        self._wait()  # an earlier copy may still read the staging memory
        if len(self._inputs) != len(arrays):
            self._make_buffers(arrays)
        for staged, array in zip(self._staged, arrays, strict=True):
            np.copyto(staged.numpy(), array)
        self._enqueue_copies()

    def _make_buffers(self, arrays: Sequence[np.ndarray]) -> None:
        kinds = [
            (array.shape, torch.from_numpy(np.empty(0, array.dtype)).dtype) for array in arrays
        ]
        self._staged = tuple(self._accelerator.staging(*kind) for kind in kinds)
        with self._accelerator.queue():
            self._inputs = tuple(
                torch.empty(shape, dtype=dtype, device=self._accelerator.device)
                for shape, dtype in kinds
            )

    def _enqueue_copies(self) -> None:
        self._busy = True
        with self._accelerator.queue():
            for buffer, staged in zip(self._inputs, self._staged, strict=True):
                buffer.copy_(staged, non_blocking=True)

    def forward(self) -> None:
        self._pass()

    def _run_module(self) -> Any:
        with torch.inference_mode():
            return self._module(*self._inputs)  # type: ignore[misc]  # not None while open

    def _enqueue_pass(self) -> None:
        self._busy = True
        with self._accelerator.queue():
            self._outputs = self._run_module()

    def _first_pass(self) -> None:
        """Capture the pass, and replay it from now on."""
        self._wait()
        replay, self._outputs = self._accelerator.captured(self._run_module)

        def enqueue() -> None:
            self._busy = True
            with self._accelerator.queue():
                replay()

        self._pass = enqueue
        enqueue()

    def synchronize(self) -> None:
        self._accelerator.synchronize()
        self._busy = False

    def _wait(self) -> None:
        if self._busy:
            self.synchronize()

    def _download(self) -> Outputs:
        parts = self._parts()
        kinds = [(tuple(part.shape), part.dtype) for part in parts]
        if [(tuple(part.shape), part.dtype) for part in self._fetched] != kinds:
            self._fetched = tuple(self._accelerator.staging(*kind) for kind in kinds)
        self._enqueue_fetches(parts)
        self.synchronize()
        return {
            spec.name: host_copy(fetched.numpy())
            for spec, fetched in zip(self.signature.outputs, self._fetched, strict=True)
        }

    def _parts(self) -> Sequence[torch.Tensor]:
        outputs = self._outputs
        if outputs is None:
            not_ready()
        return outputs if isinstance(outputs, tuple | list) else (outputs,)

    def _enqueue_fetches(self, parts: Sequence[torch.Tensor]) -> None:
        with self._accelerator.queue():
            for fetched, part in zip(self._fetched, parts, strict=True):
                fetched.copy_(part, non_blocking=True)

    def _provenance(self) -> Provenance:
        self._wait()
        with self._accelerator.queue():
            nodes = [*record(self._run_module), *self._generated()]
        return Provenance(
            runtime=self._runtime,
            version=torch.__version__,
            device=device_of(nodes, {}),
            precision=self._precision(precision_of(nodes)),
            threads=torch.get_num_threads(),
            details={
                "cuda_graph": self._graph,
                "device_times_ms": self._device_times(),
                **self._details(),
                **describe(nodes),
            },
        )

    def _device_times(self) -> Json:
        """Return median device times in ms of a pass's upload, computation and download."""
        self.forward()
        self._download()
        mark, passes = self._accelerator.mark, []
        for _ in range(TIMED_PASSES):
            start = mark()
            self._enqueue_copies()
            copied = mark()
            self.forward()
            computed = mark()
            self._enqueue_fetches(self._parts())
            passes.append((start, copied, computed, mark()))
            self.synchronize()
        between = self._accelerator.between_ms
        names = ("host_to_device", "compute", "device_to_host")
        times = {
            name: median(between(marks[part], marks[part + 1]) for marks in passes)
            for part, name in enumerate(names)
        }
        return {**times, "passes": TIMED_PASSES}

    def _close(self) -> None:
        self._wait()
        self._forget()
        self._module = None
