"""Session shared by torch's runtimes on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import numpy as np
import torch

from runtimes.operator_trace import Node, describe, device_of, precision_of
from runtimes.torch.profile import record
from toolkit.core.documents import Json
from toolkit.core.session import Provenance, Session, SessionOptions, host_copy, not_ready
from toolkit.core.specs import Feeds, Outputs, Signature


@final
class TorchSession(Session):
    """Session that runs a callable on CPU tensors, which share the memory of the caller's arrays.

    `dtypes` are those of its parameters. `details` returns more details for the provenance, and
    `generated` returns kernels of the callable that PyTorch's own trace does not show.
    """

    def __init__(
        self,
        signature: Signature,
        module: Callable[..., Any],
        *,
        runtime: str,
        options: SessionOptions,
        dtypes: Sequence[str],
        details: Callable[[], Json] = dict,
        generated: Callable[[], list[Node]] = list,
    ) -> None:
        super().__init__(signature)
        torch.set_num_threads(options.threads)
        torch.set_float32_matmul_precision("highest")
        self._module: Callable[..., Any] | None = module
        self._dtypes = sorted(dtypes)
        self._runtime = runtime
        self._details = details
        self._generated = generated
        self._inputs: tuple[torch.Tensor, ...] = ()
        self._outputs: Any = None
        self._pass: Callable[[], None] = not_ready

    def _prepare(self, dims: Mapping[str, int]) -> None:
        self._pass = self._run_module

    def _upload(self, feeds: Feeds) -> None:
        self._inputs = tuple(
            torch.from_numpy(np.require(feeds[spec.name], requirements=["C", "W"]))
            for spec in self.signature.inputs
        )

    def forward(self) -> None:
        self._pass()

    def _run_module(self) -> None:
        with torch.inference_mode():
            self._outputs = self._module(*self._inputs)  # type: ignore[misc]  # not None while open

    def synchronize(self) -> None:
        pass  # a pass on the CPU is complete when the call returns

    def _download(self) -> Outputs:
        outputs = self._outputs
        parts = outputs if isinstance(outputs, tuple | list) else (outputs,)
        return {
            spec.name: host_copy(part.numpy())
            for spec, part in zip(self.signature.outputs, parts, strict=True)
        }

    def _provenance(self) -> Provenance:
        nodes = [*record(self._run_module), *self._generated()]
        return Provenance(
            runtime=self._runtime,
            version=torch.__version__,
            device=device_of(nodes, {}),
            precision=precision_of(nodes),
            threads=torch.get_num_threads(),
            details={
                "parameter_dtypes": self._dtypes,
                "float32_matmul_precision": torch.get_float32_matmul_precision(),
                "mkldnn": torch.backends.mkldnn.enabled,
                "cpu_capability": torch.backends.cpu.get_cpu_capability(),
                **self._details(),
                **describe(nodes),
            },
        )

    def _close(self) -> None:
        self._pass = not_ready
        self._module, self._inputs, self._outputs = None, (), None


def dtypes_of(module: Any) -> list[str]:
    """Return the dtypes of a module's floating-point parameters and buffers."""
    tensors = module.state_dict().values()
    return sorted({str(t.dtype).removeprefix("torch.") for t in tensors if t.is_floating_point()})
