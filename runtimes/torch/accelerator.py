"""Interface of a device that works asynchronously for torch's sessions, and its CUDA version."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, ClassVar, final

import torch


class Accelerator(ABC):
    """Device with a queue of its own, which runs what is enqueued asynchronously and in order."""

    device: ClassVar[str]

    @abstractmethod
    def queue(self) -> AbstractContextManager[Any]:
        """Return a context in which copies and operators are enqueued."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait for everything that was enqueued."""

    @abstractmethod
    def staging(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """Allocate host memory that the device copies from and to asynchronously."""

    @abstractmethod
    def mark(self) -> Any:
        """Enqueue and return a time mark."""

    @abstractmethod
    def between_ms(self, start: Any, end: Any) -> float:
        """Return the device time between two completed marks, in ms."""

    @abstractmethod
    def captured(self, work: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
        """Capture `work`; return a callable that replays it, and its result.

        Each replay writes its result to the same memory.
        """


@final
class Cuda(Accelerator):
    """Current GPU, with a CUDA stream as its queue."""

    device: ClassVar[str] = "cuda"
    WARM_UPS = 3

    def __init__(self) -> None:
        torch.cuda.synchronize()  # copies of weights may be pending
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
        """Capture `work` as a CUDA graph after a warm-up on a side stream.

        Other threads may use the GPU meanwhile. Source:
        https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
        """
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
