"""What a session of torch asks of a device that works beside the host."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, ClassVar, final

import torch


class Accelerator(ABC):
    """A device with one queue of work of its own: what is enqueued runs in order, and later."""

    device: ClassVar[str]

    @abstractmethod
    def queue(self) -> AbstractContextManager[Any]:
        """Within it, copies and operators are enqueued."""

    @abstractmethod
    def synchronize(self) -> None:
        """Returns when all that was enqueued is done."""

    @abstractmethod
    def staging(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """Host memory that the device copies from and to while the host goes on."""

    @abstractmethod
    def mark(self) -> Any:
        """A mark in the queue."""

    @abstractmethod
    def between_ms(self, start: Any, end: Any) -> float:
        """What the device took from one mark to another, once both are done."""

    @abstractmethod
    def captured(self, work: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
        """Work that can be enqueued at once from now on, and what it writes its result to: the
        same memory each time."""


@final
class Cuda(Accelerator):
    """The current GPU."""

    device: ClassVar[str] = "cuda"
    WARM_UPS = 3

    def __init__(self) -> None:
        torch.cuda.synchronize()  # what was enqueued elsewhere: weights on their way
        self._stream = torch.cuda.Stream()

    def queue(self) -> AbstractContextManager[Any]:
        context: AbstractContextManager[Any] = torch.cuda.stream(self._stream)
        return context

    def synchronize(self) -> None:
        self._stream.synchronize()

    def staging(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, pin_memory=True)

    def mark(self) -> Any:
        event = torch.cuda.Event(enable_timing=True)
        event.record(self._stream)
        return event

    def between_ms(self, start: Any, end: Any) -> float:
        return float(start.elapsed_time(end))

    def captured(self, work: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
        """https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs: warmed up on a side
        stream; other threads may work on the GPU meanwhile."""
        side = torch.cuda.Stream()
        side.wait_stream(self._stream)
        with torch.cuda.stream(side):
            for _ in range(self.WARM_UPS):
                work()
        self._stream.wait_stream(side)
        self._stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
            result = work()
        return graph.replay, result
