"""Session shared by the TensorFlow runtimes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from typing import Any, final

import numpy as np
import tensorflow as tf

from runtimes.operator_trace import Node, describe, device_of, precision_of
from toolkit.core.errors import UnavailableError
from toolkit.core.session import Provenance, Session, host_copy, not_ready
from toolkit.core.specs import Feeds, Outputs, Signature

Pass = Callable[..., dict[str, Any]]


def use_threads(count: int) -> None:
    """Set TensorFlow's number of threads for operators.

    Raise UnavailableError if TensorFlow has already started in this process with another number.
    """
    if _threads() != count:
        with contextlib.suppress(RuntimeError):  # if it has started already
            tf.config.threading.set_intra_op_parallelism_threads(count)
    if _threads() != count:
        raise UnavailableError(
            f"TensorFlow runs with {_threads()} threads in this process, which cannot be changed "
            f"to {count}.",
            hint="Open the session in a separate process, or with the same number of threads.",
        )


def _threads() -> int:
    """Return the number of threads for operators.

    If it was not set (0), TensorFlow takes TF_NUM_INTRAOP_THREADS, or else the number of CPUs.
    """
    set_here = int(tf.config.threading.get_intra_op_parallelism_threads())
    return set_here or int(os.environ.get("TF_NUM_INTRAOP_THREADS", 0)) or os.cpu_count() or 1


@final
class TensorFlowSession(Session):
    """Session that runs a function on CPU tensors; `nodes` returns the operators of a pass."""

    def __init__(
        self,
        signature: Signature,
        function: Pass,
        *,
        runtime: str,
        nodes: Callable[[Pass, list[Any]], list[Node]],
    ) -> None:
        super().__init__(signature)
        self._function: Pass | None = function
        self._runtime = runtime
        self._nodes = nodes
        self._inputs: list[Any] = []
        self._outputs: dict[str, Any] = {}
        self._pass: Callable[[], None] = not_ready

    def _prepare(self, dims: Mapping[str, int]) -> None:
        self._pass = self._run

    def _upload(self, feeds: Feeds) -> None:
        self._inputs = [
            tf.convert_to_tensor(np.asarray(feeds[spec.name], order="C"))
            for spec in self.signature.inputs
        ]

    def forward(self) -> None:
        self._pass()

    def _run(self) -> None:
        self._outputs = self._function(*self._inputs)  # type: ignore[misc]  # not None while open

    def synchronize(self) -> None:
        pass  # a function on the CPU is complete when the call returns

    def _download(self) -> Outputs:
        return {
            spec.name: host_copy(self._outputs[spec.name].numpy())
            for spec in self.signature.outputs
        }

    def _provenance(self) -> Provenance:
        assert self._function is not None
        nodes = self._nodes(self._function, self._inputs)
        return Provenance(
            runtime=self._runtime,
            version=tf.__version__,
            device=device_of(nodes, {}),
            precision=precision_of(nodes),
            threads=_threads(),
            details={
                "inter_op_threads": tf.config.threading.get_inter_op_parallelism_threads(),
                "onednn": os.environ.get("TF_ENABLE_ONEDNN_OPTS", "1") != "0",
                **describe(nodes),
            },
        )

    def _close(self) -> None:
        self._pass = not_ready
        self._function, self._inputs, self._outputs = None, [], {}
